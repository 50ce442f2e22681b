"""The headers of a call through the proxy: its trace, its parent, its session, our key."""

from typing import TYPE_CHECKING, Final, Optional

if TYPE_CHECKING:
    from traceway.context import Place

TRACE: Final = "X-Traceway-Trace-Id"
PARENT: Final = "X-Traceway-Parent-Span-Id"
SESSION: Final = "X-Traceway-Session-Id"
KEY: Final = "X-Traceway-Api-Key"


def headers_of(api_key: str | None, place: Optional["Place"]) -> dict[str, str]:
    """Give the headers of a call that is made in a trace or span, or in none, as text."""
    headers = {KEY: api_key} if api_key else {}
    if place is None:
        return headers
    trace = place.trace
    # The server hears of the trace soon; until then the call's own headers say all.
    trace.open()
    headers[TRACE] = trace.id
    if place is not trace:
        headers[PARENT] = place.id
    session_id = trace.session_id
    # A header's value has no space at its ends.
    if session_id and session_id == session_id.strip():
        headers[SESSION] = session_id
    return headers


def in_ascii(headers: dict[str, str]) -> dict[str, str]:
    """Leave out what HTTP clients refuse in the headers that they are given.

    It can only be the session's id, and the trace that the call names has it.
    """
    return {name: value for name, value in headers.items() if value.isascii()}
