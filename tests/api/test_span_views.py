"""The shape of a span: its state, its model, its tokens, its bodies."""

from dataclasses import asdict, fields

import orjson
import pytest

from proxy.api.span_views import (
    BodyView,
    EndView,
    KindView,
    SpanMetadata,
    SpanView,
    span_view,
)
from storage.records import Body, Span, Tokens
from tests.api.records import span


@pytest.mark.parametrize("state", ["running", "completed"])
def test_a_span_that_went_well_says_its_state_in_a_word(state: str) -> None:
    assert span_view(span(state=state), None, None).status == state


@pytest.mark.parametrize("state", ["failed", "truncated", "cancelled", "interrupted"])
def test_a_span_that_did_not_complete_says_who_ended_it_and_when(state: str) -> None:
    shown = span_view(span(state=state), None, None)
    assert shown.status == {state: EndView(error="no", ended_by="upstream", phase="body")}


def test_a_span_is_of_the_model_that_answered_else_of_the_one_that_was_asked_for() -> None:
    assert span_view(span(), None, None).kind.model == "gpt-5"
    assert span_view(span(model="gpt-5-2026"), None, None).kind.model == "gpt-5-2026"


def test_a_span_shows_every_token_bucket_under_its_name() -> None:
    tokens = Tokens(**{field.name: number for number, field in enumerate(fields(Tokens), start=1)})
    kind = span_view(span(tokens=tokens), None, None).kind
    assert {f.name: getattr(kind, f"{f.name}_tokens") for f in fields(Tokens)} == asdict(tokens)


def test_a_body_is_shown_by_its_size_and_hash_whether_or_not_it_was_kept() -> None:
    dropped = Body(size=9, sha256=b"\x01" * 32, content_type="text/plain", truncated=True)
    shown = span_view(span(request=dropped), None, None).metadata
    assert shown.request == BodyView(
        size=9,
        sha256="01" * 32,
        content_type="text/plain",
        content_encoding=None,
        stored=False,
        assembled=False,
        truncated=True,
        redacted=False,
    )
    assert shown.response is None


def test_a_body_says_whether_it_is_stored_and_what_was_done_to_it() -> None:
    answer = Body(size=9, stored=True, assembled=True, redacted=True)
    shown = span_view(span(response=answer), None, None).metadata.response
    assert shown is not None
    assert (shown.stored, shown.assembled, shown.redacted, shown.truncated) == (
        *(True, True, True),
        False,
    )


def test_a_span_of_an_application_shows_what_it_said_of_it_as_it_was_written() -> None:
    said = b'{"kind": {"top_k": 1.0, "z": 1, "z": 2}, "metadata": {"who": "me"}}'
    handed = span(kind="custom", label="reranker", attributes=said, handed_in=True)
    shown = span_view(handed, None, None)
    assert (shown.kind.type, shown.kind.kind) == ("custom", "reranker")
    assert orjson.dumps(shown.kind.attributes) == b'{"top_k": 1.0, "z": 1, "z": 2}'
    assert orjson.dumps(shown.metadata.custom) == b'{"who": "me"}'
    assert shown.metadata.handed_in is True


def test_a_span_names_the_call_that_it_saw_as_well_and_the_trace_it_came_from() -> None:
    shown = span_view(span(same_call=b"\x02" * 8, moved_from=b"\x03" * 16), None, None)
    assert (shown.metadata.same_call, shown.metadata.moved_from) == ("02" * 8, "03" * 16)


@pytest.mark.parametrize(
    "stored", [None, b"", b"[1]", b"no", b'{"kind": null}', b"\xff", b"[" * 5000]
)
def test_what_is_stored_of_no_attributes_is_none(stored: bytes | None) -> None:
    shown = span_view(span(attributes=stored), None, None)
    assert (shown.kind.attributes, shown.metadata.custom) == (None, None)


def test_no_field_of_a_record_is_forgotten() -> None:
    shown = {f.name for view in (SpanView, KindView, SpanMetadata, EndView) for f in fields(view)}
    renamed = {
        "state": "status",
        "label": "kind",
        "settled_by": "settled_by",
        "first_token_us": "ttft_ms",
        "tokens": "total_tokens",
        "cost_nusd": "cost",
        "input_preview": "input",
        "output_preview": "output",
        "span_id": "id",
    }
    known = {f.name.removesuffix("_us") for f in fields(Span)} - {"project_id", "seq"}
    names = {renamed.get(name, renamed.get(f"{name}_us", name)) for name in known}
    assert {n for n in names if not {n, f"{n}_ms"} & shown} == set()
