"""The routes of the proxy and the API, one readable list, with what each needs.

Invariant: what a route needs stands beside it, and each is described (operations.py). The pages'
are in proxy/ui/routes.py.
"""

from typing import Final

from proxy.access import ADMIN, ANY, OPEN, READ, WRITE
from proxy.api import openapi, otlp
from proxy.api.archive import Archive
from proxy.api.bodies import Bodies
from proxy.api.conversation import Conversations
from proxy.api.erasing import Erasing
from proxy.api.events import Events
from proxy.api.health import Health
from proxy.api.ingest import Ingest
from proxy.api.keys import Keys
from proxy.api.mcp import Mcp
from proxy.api.otlp import Otlp
from proxy.api.provider_keys import ProviderKeys
from proxy.api.search import Search
from proxy.api.sessions import Sessions
from proxy.api.traces import Traces
from proxy.forward import Forwarder
from proxy.routes import Route

# Not a list's totals, nor its archive: what is called so is neither read nor deleted there.
_ID: Final = "{id:(?!totals$)[^/]+}"
_TRACE_ID: Final = "{id:(?!(?:totals|export)$)[^/]+}"


def routes(
    forwarder: Forwarder,
    sessions: Sessions,
    traces: Traces,
    bodies: Bodies,
    conversations: Conversations,
    events: Events,
    search: Search,
    health: Health,
    keys: Keys,
    providers: ProviderKeys,
    ingest: Ingest,
    exports: Otlp,
    mcp: Mcp,
    archive: Archive,
    erasing: Erasing,
) -> list[Route]:
    """List the routes of the proxy and the API, with what each needs.

    Patterns match the path with all decoded but `%2F` and `%25`: a line feed, too, needs no dot.
    """
    session, trace = f"/api/sessions/{_ID}", f"/api/traces/{_TRACE_ID}"
    return [
        Route("*", r"/api/proxy/{target:[\s\S]+}", forwarder.forward, WRITE),
        Route("GET", "/api/sessions", sessions.list, READ),
        Route("GET", "/api/sessions/totals", sessions.totals, READ),
        Route("GET", "/api/sessions/by-id", sessions.show, READ),
        Route("DELETE", "/api/sessions/by-id", sessions.delete, ADMIN),
        Route("PATCH", "/api/sessions/by-id", sessions.mark, ADMIN),
        Route("GET", "/api/sessions/by-id/conversation", conversations.show, READ),
        Route("GET", session, sessions.show, READ),
        Route("DELETE", session, sessions.delete, ADMIN),
        Route("PATCH", session, sessions.mark, ADMIN),
        Route("GET", "/api/sessions/{id:[^/]+}/conversation", conversations.show, READ),
        Route("GET", "/api/sessions/by-id/export", archive.session, READ),
        Route("GET", "/api/sessions/{id:[^/]+}/export", archive.session, READ),
        Route("GET", "/api/traces/export", archive.traces, READ),
        Route("POST", "/api/import", archive.restore, ADMIN),
        Route("GET", "/api/messages/{id:[^/]+}", conversations.message, READ),
        Route("GET", "/api/traces", traces.list, READ),
        Route("GET", "/api/traces/totals", traces.totals, READ),
        Route("GET", trace, traces.show, READ),
        Route("DELETE", trace, traces.delete, ADMIN),
        Route("GET", "/api/spans", traces.list_spans, READ),
        Route("GET", "/api/spans/{id:[^/]+}", traces.show_span, READ),
        Route("GET", "/api/spans/{id:[^/]+}/request", bodies.request, READ),
        Route("GET", "/api/spans/{id:[^/]+}/response", bodies.response, READ),
        Route("POST", "/api/traces", ingest.trace, WRITE),
        Route("POST", "/api/traces/{id:[^/]+}/end", ingest.end, WRITE),
        Route("POST", "/api/spans", ingest.span, WRITE),
        Route("POST", "/api/spans/{id:[^/]+}/complete", ingest.complete, WRITE),
        Route("POST", "/api/spans/{id:[^/]+}/fail", ingest.fail, WRITE),
        Route("POST", "/api/batch", ingest.batch, WRITE),
        Route("POST", otlp.PATH, exports.traces, WRITE),
        Route("POST", "/mcp", mcp.handle, READ),
        Route("GET", "/api/events", events.stream, READ),
        Route("POST", "/api/events/tickets", events.ticket, READ),
        Route("GET", "/api/search/suggest", search.suggest, READ),
        Route("GET", "/api/stats", health.stats, READ),
        Route("GET", "/api/health", health.health, READ),
        Route("GET", "/metrics", health.metrics, READ),
        Route("GET", "/api/live", health.live, OPEN),
        Route("GET", "/api/ready", health.ready, OPEN),
        Route("GET", "/api/openapi.json", openapi.show, ANY),
        Route("GET", "/api/self", keys.whoami, ANY),
        Route("GET", "/api/keys", keys.list, ADMIN),
        Route("POST", "/api/keys", keys.create, ADMIN),
        Route("DELETE", "/api/keys/{id:[^/]+}", keys.revoke, ADMIN),
        Route("GET", "/api/provider-keys", providers.list, ADMIN),
        Route("PUT", "/api/provider-keys/{upstream:[^/]+}", providers.put, ADMIN),
        Route("DELETE", "/api/provider-keys/{upstream:[^/]+}", providers.delete, ADMIN),
        Route("POST", "/api/erasures", erasing.create, ADMIN),
        Route("GET", "/api/erasures", erasing.list, ADMIN),
        Route("GET", "/api/erasures/{id:[^/]+}", erasing.show, ADMIN),
        Route("DELETE", "/api/erasures/{id:[^/]+}", erasing.cancel, ADMIN),
        Route("GET", "/api/projects", keys.list_projects, ADMIN),
        Route("POST", "/api/projects", keys.create_project, ADMIN),
        Route("PATCH", "/api/projects/{name:[^/]+}", keys.change_project, ADMIN),
    ]
