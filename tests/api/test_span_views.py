"""The shape of a span: its state, its model, its tokens, its bodies."""

from dataclasses import asdict, fields

import pytest

from proxy.api.span_views import BodyView, EndView, span_view
from storage.records import Body, Tokens
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
