"""Which pages there are, and what each needs: the list that app.py adds to that of the API."""

from typing import Final

from proxy.access import ADMIN, ANY, OPEN, READ
from proxy.routes import Route
from proxy.ui.frame import Frame, Static
from proxy.ui.lists import Lists
from proxy.ui.marks import MarksPage
from proxy.ui.pictures import Pictures
from proxy.ui.session import SessionPage
from proxy.ui.settings import SettingsPage
from proxy.ui.sign_in import SignInPages
from proxy.ui.trace import TracePage

_PROVIDER_KEY: Final = "/settings/provider-keys/{upstream:[^/]+}"


def pages(
    frame: Frame,
    static: Static,
    lists: Lists,
    session: SessionPage,
    marks: MarksPage,
    trace: TracePage,
    pictures: Pictures,
    sign_in: SignInPages,
    settings: SettingsPage,
) -> list[Route]:
    """List the routes of the pages."""
    page = frame.page
    return [
        Route("GET", "/", lists.home, READ),
        Route("GET", "/sessions", page(lists.sessions), READ),
        Route("GET", "/sessions/rows", page(lists.session_rows), READ),
        Route("GET", "/sessions/totals", page(lists.session_totals), READ),
        Route("GET", "/sessions/by-id", page(session.show), READ),
        Route("GET", "/sessions/by-id/live", page(session.live), READ),
        Route("POST", "/sessions/by-id/mark", page(marks.mark), ADMIN),
        Route("GET", "/sessions/by-id/delete", page(marks.ask_to_delete), ADMIN),
        Route("POST", "/sessions/by-id/delete", page(marks.delete), ADMIN),
        Route("GET", "/sessions/{id:[^/]+}", page(session.show), READ),
        Route("GET", "/sessions/{id:[^/]+}/live", page(session.live), READ),
        Route("POST", "/sessions/{id:[^/]+}/mark", page(marks.mark), ADMIN),
        Route("GET", "/sessions/{id:[^/]+}/delete", page(marks.ask_to_delete), ADMIN),
        Route("POST", "/sessions/{id:[^/]+}/delete", page(marks.delete), ADMIN),
        Route("GET", "/traces", page(lists.traces), READ),
        Route("GET", "/traces/rows", page(lists.trace_rows), READ),
        Route("GET", "/traces/totals", page(lists.trace_totals), READ),
        Route("GET", "/traces/{id:[^/]+}", page(trace.show), READ),
        Route("GET", "/spans/{id:[^/]+}/curl", page(trace.curl), READ),
        Route("GET", r"/pictures/{message:[^/]+}/{number:\d{1,4}}", pictures.show, READ),
        Route("GET", "/sign-in", page(sign_in.form), OPEN),
        Route("POST", "/sign-in", page(sign_in.sign_in), OPEN),
        Route("POST", "/sign-out", page(sign_in.sign_out), ANY),
        Route("POST", "/project", page(sign_in.switch), ADMIN),
        Route("GET", "/settings", page(settings.show), ADMIN),
        Route("POST", "/settings/keys", page(settings.create_key), ADMIN),
        Route("GET", "/settings/keys/{id:[^/]+}/revoke", page(settings.ask_to_revoke), ADMIN),
        Route("POST", "/settings/keys/{id:[^/]+}/revoke", page(settings.revoke), ADMIN),
        Route("POST", "/settings/projects", page(settings.create_project), ADMIN),
        Route("POST", "/settings/projects/{name:[^/]+}", page(settings.change_project), ADMIN),
        Route("POST", _PROVIDER_KEY, page(settings.keep_provider_key), ADMIN),
        Route("POST", f"{_PROVIDER_KEY}/delete", page(settings.forget_provider_key), ADMIN),
        Route("GET", "/static/{version}/{name}", static.serve, OPEN),
    ]
