"""Spans as they stand in an archive, from their rows; and back to the values of a row.

Invariant: what the one way writes the other reads, but for what is of one database alone: numbers
of arrival, the process and the caller of a call, the bytes that it added. Pure but for the
statements that it gives.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from storage.archive_lines import (
    BodyLine,
    Chain,
    EarlyEnd,
    EnvelopeLine,
    SaidLine,
    SpanLine,
    bytes_of,
    data_of,
    hex_of,
    plain,
)
from storage.archive_places import Key
from storage.columns import BODY_COLUMNS, CONVERSATION_COLUMNS, TOKEN_COLUMNS
from storage.conversation import MESSAGES, holes_of, unpack_envelope
from storage.database import Row, Value
from storage.handed import Said, SpanClosed
from storage.handed_row import HANDED_IN
from storage.records import TOKEN_BUCKETS, Tokens
from storage.squeeze import expand, squeeze

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# The owner of a call that was imported: no process serves it, and it is no span without one.
IMPORTED: Final = b"imported"

# Columns that a line has under the same name.
PLAIN: Final = (
    *("state", "kind", "label", "name", "user_id", "started_at_us", "duration_us"),
    *("first_byte_us", "first_token_us", "http_status", "ended_by", "phase", "error"),
    *("upstream", "provider", "operation", "method", "path", "query"),
    *("model_requested", "model", "service_tier", "response_id"),
    *(*TOKEN_COLUMNS, "usage_source", "cost_nusd", "cost_status", "price_version"),
    *("input_preview", "output_preview", "notes"),
)
# Ids, which a line has in hex.
IDS: Final = (
    *("parent_id", "external_trace_id", "external_parent_id"),
    *("moved_from", "same_call", "settled_by"),
)
_BODIES: Final = (*BODY_COLUMNS["request"], *BODY_COLUMNS["response"])
_READ: Final = (
    *("seq", "trace_id", "span_id", "owner", *PLAIN, *IDS, "attributes"),
    *("request_head", "response_head", *_BODIES),
    *("base_meaning", "fresh_count", "input_meaning", "output_meaning"),
)
_FOUND: Final = (
    *_READ,
    *("input_id", "output_id", "prelude_id", "input", "output", "prelude"),
    *("request_content", "response_content", "session_id", "forgotten_at_us"),
)
# Whoever selects says which, behind it.
_SELECT: Final = f"""
SELECT {", ".join(f"s.{c}" for c in _READ)}, i.id, o.id, p.id, i.hash, o.hash, p.hash,
a.sha256, b.sha256, t.session_id, t.forgotten_at_us
FROM spans s JOIN traces t ON t.project_id = s.project_id AND t.trace_id = s.trace_id
LEFT JOIN nodes i ON i.id = s.input_node_id LEFT JOIN nodes o ON o.id = s.output_node_id
LEFT JOIN nodes p ON p.id = s.prelude_node_id
LEFT JOIN contents a ON a.id = s.request_content_id
LEFT JOIN contents b ON b.id = s.response_content_id
WHERE {{project}} = :project_id
"""
# By their ids; and by their numbers, which no index has behind the project.
SELECT_SPANS: Final = _SELECT.format(project="s.project_id")
NUMBERED_SPANS: Final = _SELECT.format(project="s.project_id + 0")


class StoredSpan:
    """A row of ``SELECT_SPANS``."""

    __slots__ = ("values",)

    def __init__(self, row: Row) -> None:
        self.values: dict[str, Any] = dict(zip(_FOUND, row, strict=True))

    @property
    def key(self) -> Key:
        """Its trace, and its id."""
        return self.values["trace_id"], self.values["span_id"]

    @property
    def heads(self) -> list[int]:
        """The ids of the nodes that it names, in the order in which a line needs them."""
        ids = (self.values[name] for name in ("prelude_id", "input_id", "output_id"))
        return [one for one in ids if one is not None]

    @property
    def held(self) -> list[int]:
        """The ids of the contents of its bodies."""
        values = self.values
        ids = [values["request_content_id"], values["response_content_id"]]
        for which in ("request", "response"):
            ids += holes_of(values[f"{which}_envelope"])
        return [one for one in ids if one is not None]

    def line(self, hashes: Mapping[int, bytes], early_end: EarlyEnd | None) -> SpanLine:
        """Give its line; ``hashes`` are those of contents in its holes, by their ids."""
        values = self.values
        own: dict[str, Any] = {name: values[name] for name in PLAIN}
        own |= {name: hex_of(values[name]) for name in IDS}
        chain = Chain(
            **{name: hex_of(values[name]) for name in ("input", "output", "prelude")},
            **{f"{c}_meaning": hex_of(values[f"{c}_meaning"]) for c in ("base", "input", "output")},
            fresh_count=values["fresh_count"],
        )
        attributes = values["attributes"]
        return SpanLine(
            trace=values["trace_id"].hex(),
            id=values["span_id"].hex(),
            handed_in=values["owner"] is None,
            **own,
            attributes=None if attributes is None else data_of(expand(attributes)),
            request_headers=_text(values["request_head"]),
            response_headers=_text(values["response_head"]),
            request=self._body("request", hashes),
            response=self._body("response", hashes),
            chain=None if chain == _NO_CHAIN else chain,
            early_end=early_end,
        )

    def _body(self, which: str, hashes: Mapping[int, bytes]) -> BodyLine | None:
        values = self.values
        envelope = None
        if (packed := values[f"{which}_envelope"]) is not None:
            pieces, holes = unpack_envelope(packed)
            envelope = EnvelopeLine(
                pieces=[data_of(piece) for piece in pieces],
                holes=[None if one == MESSAGES else hashes[one].hex() for one in holes],
            )
        body = BodyLine(
            size=values[f"{which}_size"],
            sha256=hex_of(values[f"{which}_sha256"]),
            content=hex_of(values[f"{which}_content"]),
            envelope=envelope,
            truncated=_flag(values[f"{which}_truncated"]),
            redacted=_flag(values[f"{which}_redacted"]),
            assembled=_flag(values.get(f"{which}_assembled")),
            media_type=values[f"{which}_type"],
            encoding=values[f"{which}_encoding"],
        )
        return None if body == _NO_BODY else body


_NO_CHAIN: Final = Chain()
_NO_BODY: Final = BodyLine()


def _text(head: bytes | None) -> Any:
    return None if head is None else data_of(expand(head))


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


# All that a row has, set here or, what names other rows, by restore.py.
COLUMNS: Final = (
    *("project_id", "trace_id", "span_id", "seq", "owner", "caller", *PLAIN, *IDS, "attributes"),
    *("request_head", "response_head", *_BODIES, "session_key", "stored_bytes"),
    *CONVERSATION_COLUMNS,
)
INSERT_SPAN: Final = f"""
INSERT INTO spans ({", ".join(COLUMNS)}) VALUES ({", ".join(f":{c}" for c in COLUMNS)})
"""


def values_of(project_id: int, line: SpanLine) -> dict[str, Value]:
    """Give the values of a line's row; None for what names other rows, and for its number."""
    values: dict[str, Value] = dict.fromkeys(COLUMNS)
    values["project_id"] = project_id
    values["trace_id"], values["span_id"] = bytes.fromhex(line.trace), bytes.fromhex(line.id)
    values["owner"] = None if line.handed_in else IMPORTED
    values["caller"] = HANDED_IN if line.handed_in else None
    for name in PLAIN:
        values[name] = getattr(line, name)
    for name in IDS:
        values[name] = bytes_of(getattr(line, name))
    for column, data in (
        ("attributes", line.attributes),
        ("request_head", line.request_headers),
        ("response_head", line.response_headers),
    ):
        values[column] = None if data is None else squeeze(plain(data))
    for which, body in (("request", line.request), ("response", line.response)):
        if body is not None:
            values[f"{which}_size"] = body.size
            values[f"{which}_sha256"] = bytes_of(body.sha256)
            values[f"{which}_type"] = body.media_type
            values[f"{which}_encoding"] = body.encoding
            values[f"{which}_truncated"] = _number(body.truncated)
            values[f"{which}_redacted"] = _number(body.redacted)
            if which == "response":
                values["response_assembled"] = _number(body.assembled)
    if line.chain is not None:
        values["fresh_count"] = line.chain.fresh_count
        for name in ("base_meaning", "input_meaning", "output_meaning"):
            values[name] = bytes_of(getattr(line.chain, name))
    return values


def _number(flag: bool | None) -> int | None:
    return None if flag is None else int(flag)


_decode_end: Final = msgspec.msgpack.Decoder(SpanClosed).decode
_encode_end: Final = msgspec.msgpack.Encoder().encode
_NO_SAID: Final = SaidLine()


def early_end(told: bytes, at_us: int, trace_id: bytes) -> EarlyEnd | None:
    """Give an end that waits, where it is of a span of this trace, as it stands in a line."""
    try:
        end = _decode_end(told)
    except msgspec.MsgspecError:  # of a version that said it otherwise
        return None
    if end.trace_id != trace_id:
        return None
    said = end.said
    counts = {b: n for b in TOKEN_BUCKETS if (n := getattr(said.tokens, b)) is not None}
    line = SaidLine(
        kind=said.kind,
        label=said.label,
        model=said.model,
        provider=said.provider,
        response_id=said.response_id,
        tokens=counts or None,
        cost_nusd=said.cost_nusd,
        input=None if said.input is None else data_of(said.input),
        output=None if said.output is None else data_of(said.output),
        attributes=None if said.attributes is None else data_of(said.attributes),
        redacted=said.redacted,
    )
    return EarlyEnd(
        arrived_at_us=at_us,
        state=end.state,
        ended_at_us=end.ended_at_us,
        duration_us=end.duration_us,
        error=end.error,
        said=None if line == _NO_SAID else line,
    )


def told_of(project_id: int, line: SpanLine, end: EarlyEnd) -> bytes:
    """Give an end that waits as its row says it.

    Raises msgspec.ValidationError where it says what no end does.
    """
    said = end.said or _NO_SAID
    tokens = said.tokens or {}
    values: dict[str, Any] = {
        name: getattr(said, name)
        for name in ("kind", "label", "model", "provider", "response_id", "cost_nusd", "redacted")
    }
    for name in ("input", "output", "attributes"):
        data = getattr(said, name)
        values[name] = None if data is None else plain(data)
    told = _encode_end(
        SpanClosed(
            project_id=project_id,
            span_id=bytes.fromhex(line.id),
            state=end.state,
            trace_id=bytes.fromhex(line.trace),
            ended_at_us=end.ended_at_us,
            duration_us=end.duration_us,
            error=end.error,
            said=Said(**values, tokens=Tokens(**{b: tokens.get(b) for b in TOKEN_BUCKETS})),
        )
    )
    _decode_end(told)
    return told


EARLY_ENDS: Final = """
SELECT ended_id, at_us, told FROM early_ends WHERE project_id = :project_id
"""
HASHES: Final = "SELECT id, sha256 FROM contents WHERE project_id + 0 = :project_id"


def lines_of(
    spans: Iterable[StoredSpan], hashes: Mapping[int, bytes], early: Iterable[Row]
) -> list[SpanLine]:
    """Give the lines of spans; ``early`` are the rows of ends that wait for one of their ids."""
    waiting = {row[0]: row[1:] for row in early}
    found = []
    for span in spans:
        end = None
        if span.values["owner"] is None and (row := waiting.get(span.values["span_id"])):
            end = early_end(row[1], row[0], span.values["trace_id"])
        found.append(span.line(hashes, end))
    return found


def held_by(spans: Sequence[StoredSpan]) -> list[int]:
    """Give the ids of the contents in the bodies of spans, each once."""
    return list(dict.fromkeys(one for span in spans for one in span.held))
