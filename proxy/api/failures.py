"""Every error that this server answers with itself: its code, its status, what it means. Pure.

Invariant: a code has one status, but for those of a call that an upstream did not answer well, and
no answer of ours has a code that is not here.
"""

from dataclasses import dataclass
from typing import Final

from proxy.access import ANY, OPEN
from proxy.api.described import Operation


@dataclass(frozen=True, slots=True)
class Failure:
    """An error: `status` for HTTP, `code` for programs."""

    status: int
    code: str
    meaning: str


# These may come from every route, before its handler is asked.
_GUARDED: Final = (
    Failure(400, "bad_target", "the request's target is no path"),
    Failure(400, "malformed_request", "it is not HTTP as it should be"),
    Failure(403, "foreign_origin", "a page of another origin called"),
    Failure(403, "cross_site", "a page of another site called"),
    Failure(408, "head_timeout", "the head was not whole after `[server] header_timeout_s`"),
    Failure(417, "expectation_failed", "`Expect` asks for something but `100-continue`"),
    Failure(421, "foreign_host", "this server does not answer for that `Host`"),
    Failure(431, "head_too_large", "the headers have more than 262,144 bytes, or a line 65,536"),
    Failure(505, "unknown_version", "the version is neither HTTP/1.1 nor HTTP/1.0"),
    Failure(503, "too_many_connections", "`[server] max_connections` are open; `Retry-After` says"),
    Failure(503, "stopping", "the server is being stopped"),
    Failure(503, "storage_unavailable", "the database cannot be read or written now"),
    Failure(503, "query_timeout", "the query took longer than `[database] query_timeout_s`"),
)
_KEYED: Final = (
    Failure(401, "unauthorized", "there is no key, or it is none of ours, or it was revoked"),
    Failure(403, "other_project", "`X-Traceway-Project` names one that the key is not of"),
    Failure(404, "unknown_project", "`X-Traceway-Project` names none that is there"),
)
_SCOPED: Final = (Failure(403, "forbidden", "the key's scope does not allow this"),)
_OWN: Final = (
    Failure(400, "bad_parameter", "a parameter has a value that it cannot have; `param` names it"),
    Failure(
        400, "bad_archive", "what is to be imported is no archive, or damaged; nothing of it is"
    ),
    Failure(404, "not_found", "nothing has this id here, or nothing is at this path"),
    Failure(405, "method_not_allowed", "the path has no such method; `Allow` names those it has"),
    Failure(406, "not_acceptable", "`Accept` does not allow `application/json`"),
    Failure(409, "conflict", "it cannot be, for what is there already"),
    Failure(
        409, "already_ended", "it has ended already; for whoever sends again, that it is there"
    ),
    Failure(
        413, "body_too_large", "the body is larger than `[ingest] max_body_bytes`, or unpacked"
    ),
    Failure(415, "unknown_encoding", "`Content-Encoding` is none of gzip, deflate, br, zstd"),
    Failure(415, "unknown_media_type", "the `Content-Type` is neither protobuf nor JSON"),
    Failure(429, "too_much_at_once", "too much is being handed in; `Retry-After` says"),
    Failure(415, "not_json", "the body's `Content-Type` is not `application/json`"),
    Failure(503, "too_many_subscribers", "as many watch as there may be"),
    Failure(503, "key_file_unusable", "`[auth] key_file` cannot be read or made"),
    # A call through the proxy.
    Failure(400, "bad_request", "the target or the session id cannot be relayed as it is"),
    Failure(400, "bad_trace", "`X-Traceway-Trace-Id` or `X-Traceway-Parent-Span-Id` is no such id"),
    Failure(400, "bad_capture", "`X-Traceway-Capture` is none of what it may be"),
    Failure(400, "bad_budget", "`X-Traceway-Session-Budget-Usd` is no amount, or has no session"),
    Failure(400, "request_body_broken", "the request's body is malformed or broke off"),
    Failure(408, "request_body_broken", "nothing came of the request's body for too long"),
    Failure(400, "misplaced_key", "a `tw_sk_` key stands where it would go upstream"),
    Failure(401, "keys_are_off", "a `tw_sk_` key was sent, and this server has no keys"),
    Failure(404, "unknown_upstream", "the configuration has no upstream of this name"),
    Failure(413, "request_too_large", "the body is larger than `[server] max_request_bytes`"),
    Failure(413, "budget_request_too_large", "with a budget, it may have 33,554,432 bytes"),
    Failure(422, "no_provider_key", "the project has no key for this upstream"),
    Failure(429, "rate_limited", "the key made all its calls of this minute; `Retry-After` says"),
    Failure(429, "session_budget_exceeded", "the call might cost more than its session may"),
    Failure(429, "session_budget_unpriced", "nobody knows what the call may cost"),
    Failure(499, "client_left", "the client left before the end; nobody reads this"),
    Failure(500, "internal", "the proxy failed; its log says why"),
    Failure(501, "unsupported", "WebSocket, other upgrades, TRACE and odd transfer codings"),
    Failure(502, "upstream_unreachable", "the upstream cannot be reached"),
    Failure(502, "upstream_closed", "the upstream closed the connection before its answer"),
    Failure(502, "upstream_malformed", "the upstream's answer is not HTTP as it should be"),
    Failure(504, "upstream_timeout", "the upstream sent nothing for too long"),
    Failure(503, "budget_unavailable", "what the call may cost could not be reserved"),
    Failure(503, "recording_unavailable", "`strict`: it could not be recorded, so it was not made"),
)

FAILURES: Final = (*_KEYED, *_SCOPED, *_GUARDED, *_OWN)


def failures_of(operation: Operation) -> list[Failure]:
    """Give what may go wrong with an operation, by status.

    Raises:
        KeyError: it names a code that is none of the table's.
    """
    if unknown := set(operation.codes).difference(failure.code for failure in _OWN):
        raise KeyError(*unknown)
    found = [failure for failure in _OWN if failure.code in operation.codes]
    if operation.need is not OPEN:
        found += _KEYED
        if operation.need != ANY:
            found += _SCOPED
    return sorted([*found, *_GUARDED], key=lambda failure: failure.status)
