"""What the fields of orders to erase, and of the retention, mean: of fields.py. Pure."""

from typing import Final

from proxy.api.about import NULL, About

_AT: Final = "2026-11-26T09:00:00.000000Z"
_TIME: Final[dict[str, object]] = {"format": "date-time"}

ERASED: Final[dict[str, About]] = {
    "NewErasure.session": About("a session's id; also one with a star", "user_123:conv_456"),
    "NewErasure.user": About(
        "a user's id: of sessions that name another user as well, only traces go", "user_123"
    ),
    "NewErasure.query": About(
        "a query for sessions (docs/search.md): they go whole, and so do the traces without a"
        " session that it finds",
        "user:user_123 until:30d",
    ),
    "extent": About("all of it, or only its content", "all"),
    "include_starred": About("whether sessions with a star go as well", False),
    "Erasure.id": About("its number", 1),
    "Erasure.kind": About("what was named; `trace`: a large one that was deleted", "user"),
    "given": About("what was asked for; null once it has ended", "user_123"),
    "Erasure.state": About(
        "`collecting`: it is looked for; `erasing`; `cleaning`: ids leave the log, and the space is"
        " given back; at last `done`, `cancelled`, `failed` or `incomplete`",
        "erasing",
    ),
    "Erasure.reason": About("why not all of it is erased; null: it is, or is going to be", NULL),
    "asked_at": About("when it was asked for; what came later stays", _AT, _TIME),
    "began_at": About("when the first part was erased; null: not yet", _AT, _TIME),
    "Erasure.ended_at": About("when it ended; null: not yet", NULL, _TIME),
    "found": About("sessions, and single traces, that were found so far", 3),
    "done": About("how many of them are erased", 1),
    "Erasure.sessions": About("sessions that were erased", 1),
    "Erasure.traces": About("traces that were erased, or lost all of their content", 12),
    "Erasure.spans": About("calls that were erased, or lost their content", 14),
    "kept_starred": About("sessions that were found and kept, for they have a star", 0),
    "erasures": About("orders, the newest first"),
    "retention": About("what `[retention]` did since the start; null where all is kept for ever"),
    "last_ran_at": About("when it last had erased all that was due; null: not yet", _AT, _TIME),
    "is_running": About("whether it erases just now", False),
    "forgotten_traces": About("traces that lost their content", 0),
    "erased_sessions": About("sessions that were erased whole", 0),
    "erased_traces": About("traces that were erased", 0),
    "erased_spans": About("calls that were erased", 0),
    "freed_content_bytes": About("bytes of messages and bodies, as they were stored", 0),
    "Retention.size_bytes": About("the database without its free pages; null: not looked yet", 1),
    "is_above_cap": About("whether `max_bytes` is exceeded by what must be kept", False),
}
