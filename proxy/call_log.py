"""The log: a line for each call that ended, and how lines of any kind are written.

Invariant: a line of a call holds names, states and figures; nothing that was said, no session's or
user's id, no credential. What others chose (a model's name, a path) cannot end a line or begin
another. Lines of calls come once the call is saved, from the recorder's thread.
"""

import logging
import re
import time
from collections.abc import Sequence
from typing import Final

import orjson

from proxy.outcomes import Ended

# Characters of a word that others chose.
MAX_CHARS: Final = 200
_NOT_A_WORD: Final = re.compile(r"[^\x21-\x7e]")
_NUSD_PER_USD: Final = 1_000_000_000

_log = logging.getLogger("traceway.calls")


def log_calls(calls: Sequence[Ended]) -> None:
    """Log calls that are saved; in the recorder's thread."""
    if not _log.isEnabledFor(logging.INFO):
        return
    for end, row in calls:
        start = row.start
        fields: dict[str, object] = {
            "trace_id": start.trace_id.hex(),
            "project_id": start.project_id,
            "upstream": _word(start.upstream),
            "method": _word(start.method),
            "path": _word(start.path),
            "status": row.http_status,
            "state": row.state,
            "ended_by": row.ended_by,
            "phase": row.phase,
            "code": end.ending.code,
            "model": _word(row.model or row.model_requested),
            "duration_ms": _ms(row.duration_us),
            "first_byte_ms": _ms(row.first_byte_us),
            "added_ms": _ms(end.added_us),
            "input_tokens": row.tokens.input,
            "output_tokens": row.tokens.output,
            "usage_source": row.usage_source,
            "cost_usd": None if row.cost_nusd is None else row.cost_nusd / _NUSD_PER_USD,
        }
        _log.info("call %s", _Words(fields), extra={"fields": fields})


class TextLines(logging.Formatter):
    """Lines for people: time, level, text."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, _: str | None = None) -> str:
        """Write the time in UTC, with milliseconds."""
        return _time(record)


class JsonLines(logging.Formatter):
    """Lines for programs: one JSON object each, a call with its fields by their names."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as JSON."""
        line: dict[str, object] = {"time": _time(record), "level": record.levelname.lower()}
        fields = getattr(record, "fields", None)
        if fields is None:
            line |= {"event": "message", "message": record.getMessage()}
        else:
            line |= {"event": "call", **fields}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class _Words:
    """Fields as text, written only where somebody reads it."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self._fields.items() if v is not None)


def _word(text: str | None) -> str | None:
    """Make one word of what may be anything."""
    return None if text is None else _NOT_A_WORD.sub("?", text[:MAX_CHARS])


def _ms(duration_us: int | None) -> float | None:
    return None if duration_us is None else duration_us / 1000
