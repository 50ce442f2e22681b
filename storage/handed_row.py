"""The row of a span that was handed in: what each word of it changes, and its statements.

Invariant: a span's row is the same in whatever order its start and its end came: what the end says
stands before what the start says, and the first end is the only one. What was said twice changes
nothing. Such rows have no owner; their ``caller`` is one that no call has, so that no call is taken
for the continuation of one that only was told of. Bodies are handed_bodies.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from storage.aggregates import MAX_DURATION_US, SpanFacts
from storage.chain import Conversation
from storage.columns import BODY_COLUMNS, CONVERSATION_COLUMNS, KEY_TEXT, TOKEN_COLUMNS
from storage.database import Value
from storage.handed import BILLED, Reader, Said, SpanClosed, SpanOpened
from storage.keys import SpanKey
from storage.parameters import MAX_COST_NUSD, MAX_TIME_US, bounded, clean_count, clean_text
from storage.records import INTERRUPTED, RUNNING, TOKEN_BUCKETS, Body, Tokens
from storage.squeeze import expand, squeeze

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# No hash of a caller's key has this length.
HANDED_IN: Final = b"handed in"
REPORTED: Final = "reported"
DEFAULT_KIND: Final = "custom"
# The name of a span of which only the end is known, and the note that says so.
UNNAMED: Final = "span"
START_MISSING: Final = "start_missing"
# Attributes and metadata of one span together, as much as its start and its end may bring; what is
# more is dropped, with a note.
MAX_ATTRIBUTES_BYTES: Final = 512 * 1024
ATTRIBUTES_DROPPED: Final = "attributes_dropped"

KEY_COLUMNS: Final = ("project_id", "trace_id", "span_id")
HANDED_COLUMNS: Final = (
    *KEY_COLUMNS,
    *("seq", "caller", "parent_id", "state", "kind", "label", "started_at_us", "duration_us"),
    *("checkpoint_us", *TOKEN_COLUMNS, "usage_source", "cost_nusd", "cost_status"),
    *("price_version", "ended_by", "provider", "model", "response_id", "name", "user_id"),
    *("error", "input_preview", "output_preview", "notes", "attributes"),
    *(*BODY_COLUMNS["request"], *BODY_COLUMNS["response"]),
    *("session_key", "stored_bytes", *CONVERSATION_COLUMNS),
)
_CHANGING: Final = tuple(c for c in HANDED_COLUMNS if c not in KEY_COLUMNS)
# Read with a row, and never written here: the row of a call has them.
READ_COLUMNS: Final = ("owner", "same_call", "model_requested")
_BLANK: Final[dict[str, Value]] = dict.fromkeys((*HANDED_COLUMNS, *READ_COLUMNS))

FIND_HANDED: Final = f"""
SELECT {", ".join((*HANDED_COLUMNS, *READ_COLUMNS))} FROM spans
WHERE project_id = :project_id AND span_id IN (:keys)
"""
INSERT_HANDED: Final = f"""
INSERT INTO spans ({", ".join(HANDED_COLUMNS)})
VALUES ({", ".join(f":{c}" for c in HANDED_COLUMNS)})
"""
UPDATE_HANDED: Final = f"""
UPDATE spans SET {", ".join(f"{c} = :{c}" for c in _CHANGING)}
WHERE project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id
"""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode
_NO_TOKENS: Final = Tokens()


@dataclass(slots=True)
class HandedSpan:
    """A span's row as a transaction changes it, and what of it is not in the row yet.

    ``is_new``: there is no such row yet. ``is_opened``: its start is known. ``is_final``: its
    bodies and texts are stored for good. ``input`` and ``output`` are those that this transaction
    brings; the rest is what handed_bodies.py makes of them. ``old_model``, ``old_contents`` and
    ``before`` are those of the row as it was.
    """

    values: dict[str, Value]
    is_new: bool = True
    is_opened: bool = False
    is_final: bool = False
    is_changed: bool = False
    has_just_ended: bool = False
    input: bytes | None = None
    output: bytes | None = None
    redacted: bool = False
    conversation: Conversation | None = None
    is_talk: bool = False
    request: Body | None = None
    response: Body | None = None
    old_model: str | None = None
    old_contents: tuple[int, ...] = ()
    before: SpanFacts | None = None

    @classmethod
    def of(cls, row: Mapping[str, Value], *, is_opened: bool) -> "HandedSpan":
        """Take up a row that is there; ``is_opened`` is false where only its end is known."""
        held = (row["request_content_id"], row["response_content_id"])
        model = row["model"]
        span = cls(
            dict(row),
            is_new=False,
            is_opened=is_opened,
            old_model=model if isinstance(model, str) else None,
            old_contents=tuple(one for one in held if isinstance(one, int)),
        )
        span.is_final = span.has_ended and is_opened
        if not span.is_call:
            span.before = span.facts()
        return span

    @property
    def key(self) -> SpanKey:
        """Its place among all spans."""
        project_id, trace_id, span_id = (self.values[column] for column in KEY_COLUMNS)
        return project_id, trace_id, span_id  # type: ignore[return-value] # NOT NULL columns

    @property
    def is_call(self) -> bool:
        """Whether it is a call that passed through us, of which nobody else may tell."""
        return self.values["owner"] is not None

    @property
    def has_ended(self) -> bool:
        """Whether its end is known. What we ended ourselves, for want of an end, may still end."""
        state = self.values["state"]
        return state != RUNNING and not (
            state == INTERRUPTED and self.values["ended_by"] == "proxy" and not self.is_call
        )

    def begin(self, item: SpanOpened, now_us: int) -> None:
        """Take the start of a span of which nothing is known but, at most, its row's number."""
        kept = {column: self.values[column] for column in ("seq", "same_call")}
        started_at_us = item.started_at_us
        if started_at_us is None:
            started_at_us = now_us if item.end is None else _began_at_us(item.end, now_us)
        self.values = {
            **_BLANK,
            **kept,
            "project_id": item.project_id,
            "trace_id": item.trace_id,
            "span_id": item.span_id,
            "caller": HANDED_IN,
            "state": RUNNING,
            "parent_id": item.parent_id,
            "started_at_us": clean_count(started_at_us, MAX_TIME_US) or 0,
            "name": clean_text(item.name),
            "user_id": None if item.user_id is None else bounded(clean_text(item.user_id)),
        }
        self.is_opened = self.is_changed = True
        self.input = self.output = None
        self.hear(item.said, now_us, stands=True)

    def begin_again(self, item: SpanOpened, now_us: int) -> None:
        """Take a start once more: it gives what is not known yet."""
        before = dict(self.values)
        if self.values["parent_id"] is None:
            self.values["parent_id"] = item.parent_id
        if self.values["user_id"] is None and item.user_id is not None:
            self.values["user_id"] = bounded(clean_text(item.user_id))
        self.hear(item.said, now_us, stands=False)
        self.is_changed |= self.values != before

    def end(self, item: SpanClosed, now_us: int) -> None:
        """Take the end of a span that runs, or of one whose start is not known."""
        values = self.values
        if not self.is_opened:
            started_at_us = _began_at_us(item, now_us)
            values.update(
                project_id=item.project_id,
                trace_id=item.trace_id,
                span_id=item.span_id,
                caller=HANDED_IN,
                started_at_us=clean_count(started_at_us, MAX_TIME_US) or 0,
                name=UNNAMED,
                notes=START_MISSING,
            )
        started_at_us = values["started_at_us"]  # type: ignore[assignment] # NOT NULL
        if item.ended_at_us is not None:
            duration_us = item.ended_at_us - started_at_us
        elif item.duration_us is not None:
            duration_us = item.duration_us
        else:
            duration_us = now_us - started_at_us
        self.hear(item.said, now_us, stands=True)
        values.update(
            state=item.state,
            duration_us=min(max(duration_us, 0), MAX_DURATION_US),
            checkpoint_us=None,
            error=None if item.error is None else clean_text(item.error),
            ended_by=None,
        )
        self.is_changed = self.has_just_ended = True

    def hear(self, said: Said, now_us: int, *, stands: bool) -> None:
        """Take what is said of the span; it stands before what was said, or else only fills."""
        values = self.values
        for column, text in (
            ("kind", said.kind),
            ("label", said.label),
            ("model", said.model),
            ("provider", said.provider),
            ("response_id", said.response_id),
        ):
            if text is not None and (stands or values[column] is None):
                clean = clean_text(text)
                values[column] = bounded(clean) if column in KEY_TEXT else clean
        if said.tokens != _NO_TOKENS:
            for column, bucket in zip(TOKEN_COLUMNS, TOKEN_BUCKETS, strict=True):
                count = clean_count(getattr(said.tokens, bucket))
                if count is not None and (stands or values[column] is None):
                    values[column] = count
        cost_nusd = clean_count(said.cost_nusd, MAX_COST_NUSD)
        if cost_nusd is not None and (stands or values["price_version"] != REPORTED):
            values["cost_nusd"], values["price_version"] = cost_nusd, REPORTED
        if said.attributes is not None:
            self._describe(said.attributes, stands=stands)
        if not self.is_final:
            self.redacted |= said.redacted
            self.input = self._body(self.input, said.input, "request", stands=stands)
            self.output = self._body(self.output, said.output, "response", stands=stands)
        if values["state"] == RUNNING:
            # When the last word came, by our clock: the application's may be another.
            heard_us = now_us - (values["started_at_us"] or 0)  # type: ignore[operator]
            values["checkpoint_us"] = min(max(heard_us, 0), MAX_TIME_US)

    def _body(
        self, brought: bytes | None, said: bytes | None, which: str, *, stands: bool
    ) -> bytes | None:
        if said is None:
            return brought
        if not stands and (brought is not None or self.values[f"{which}_size"] is not None):
            return brought
        self.is_changed = True
        return said

    def _describe(self, attributes: bytes, *, stands: bool) -> None:
        values = self.values
        if len(attributes) > MAX_ATTRIBUTES_BYTES:
            self.note(ATTRIBUTES_DROPPED)
            return
        known = values["attributes"]
        if isinstance(known, bytes):
            pair = (expand(known), attributes) if stands else (attributes, expand(known))
            attributes = joined(*pair)
            if len(attributes) > MAX_ATTRIBUTES_BYTES:
                self.note(ATTRIBUTES_DROPPED)
                attributes = pair[1]
        values["attributes"] = squeeze(attributes)

    def note(self, note: str) -> None:
        """Set a note beside the span, once."""
        notes = self.values["notes"]
        said = notes.split("\n") if isinstance(notes, str) else []
        if note not in said:
            self.values["notes"] = "\n".join(sorted([*said, note]))

    def price(self, reader: Reader) -> None:
        """Say where the figures come from, and what the span cost."""
        values = self.values
        kind = values["kind"] = values["kind"] or DEFAULT_KIND
        given = values["cost_nusd"] if values["price_version"] == REPORTED else None
        told = {bucket: values[f"{bucket}_tokens"] for bucket in TOKEN_BUCKETS}
        is_counted = any(count is not None for count in told.values())
        is_billed = kind in BILLED and values["state"] != RUNNING
        values["usage_source"] = REPORTED if is_counted else "missing" if is_billed else None
        values["cost_status"] = "priced" if given is not None else None
        values["cost_nusd"] = given
        values["price_version"] = REPORTED if given is not None else None
        if is_billed:
            cost = reader.cost(self.said(), started_at_us=int(values["started_at_us"] or 0))
            values["cost_nusd"] = clean_count(cost.nusd, MAX_COST_NUSD)
            values["cost_status"] = cost.status
            values["price_version"] = REPORTED if given is not None else cost.version

    def said(self) -> Said:
        """Give what was said of the span in all, but for its attributes."""
        values = self.values
        given = values["cost_nusd"] if values["price_version"] == REPORTED else None
        counts = {bucket: values[f"{bucket}_tokens"] for bucket in TOKEN_BUCKETS}
        return Said(
            kind=values["kind"],  # type: ignore[arg-type] # one of its kinds
            label=values["label"],  # type: ignore[arg-type] # a text
            model=values["model"],  # type: ignore[arg-type] # a text
            provider=values["provider"],  # type: ignore[arg-type] # a text
            response_id=values["response_id"],  # type: ignore[arg-type] # a text
            tokens=Tokens(**counts),  # type: ignore[arg-type] # counts
            cost_nusd=given,  # type: ignore[arg-type] # a count
            input=self.input,
            output=self.output,
        )

    def facts(self) -> SpanFacts:
        """Give what the span gives to the sums."""
        if self.values["state"] != RUNNING:
            return SpanFacts.of_end(
                {**self.values, "stored_bytes": self.values["stored_bytes"] or 0}
            )
        return SpanFacts.of_end({**self.values, "duration_us": 0})._replace(
            ended_at_us=None, received_bytes=0, stored_bytes=0
        )


def _began_at_us(end: SpanClosed, now_us: int) -> int:
    """Give when a span began of which only the end says when it was: it ended by now."""
    ended_at_us = now_us if end.ended_at_us is None else end.ended_at_us
    return ended_at_us - (end.duration_us or 0)


def blank() -> dict[str, Value]:
    """Give the values of a row of which nothing is known."""
    return dict(_BLANK)


def joined(first: bytes, later: bytes) -> bytes:
    """Join two JSON objects; of a key that both have, the later's value, or both if objects."""
    try:
        known, new = _OBJECT.decode(first), _OBJECT.decode(later)
    except (msgspec.MsgspecError, RecursionError):
        return later
    for key in known.keys() & new.keys():
        try:
            inner = {**_OBJECT.decode(known[key]), **_OBJECT.decode(new[key])}
        except (msgspec.MsgspecError, RecursionError):
            continue
        new[key] = msgspec.Raw(_encode(inner))
    return _encode({**known, **new})
