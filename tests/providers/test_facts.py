"""The values of a dialect: the sum over all models of a call."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.facts import AnswerFacts, Bill
from storage.records import Tokens

counts = st.none() | st.integers(0, 1000)
some_tokens = st.builds(Tokens, input=counts, output=counts, cached_input=counts)


def test_the_tokens_of_a_call_are_those_of_all_models_that_took_part() -> None:
    facts = AnswerFacts(
        main=Tokens(input=3, output=2),
        apart=(
            Bill("gpt-image-1", Tokens(input=10, output=5, image_output=5)),
            Bill(None, Tokens(input=1)),
        ),
    )
    assert facts.tokens == Tokens(input=14, output=7, image_output=5)


def test_what_no_model_reported_is_unknown_and_what_one_reported_as_none_is_zero() -> None:
    assert AnswerFacts().tokens == Tokens()
    assert AnswerFacts(apart=(Bill(None, Tokens(output=0)),)).tokens == Tokens(output=0)


@given(some_tokens, st.lists(some_tokens, max_size=3))
def test_a_bucket_is_known_where_any_model_knows_it(main: Tokens, apart: list[Tokens]) -> None:
    total = AnswerFacts(main=main, apart=tuple(Bill(None, tokens) for tokens in apart)).tokens
    for bucket in ("input", "output", "cached_input"):
        known = [n for t in (main, *apart) if (n := getattr(t, bucket)) is not None]
        assert getattr(total, bucket) == (sum(known) if known else None)
