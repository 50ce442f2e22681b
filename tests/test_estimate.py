"""Estimated token counts: the right encoding, no network, no text that raises or takes long."""

import socket
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import estimate
from proxy.estimate import tokens_of

PROSE = "The quick brown fox, jumps over 12 lazy dogs. "


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The encodings asked for, with nothing loaded yet and no network."""
    names: list[str] = []
    bindings = estimate._bindings()
    load = bindings.tokenizer_for_encoding

    def remember(name: str) -> object:
        names.append(name)
        return load(name)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("an estimate went to the network")

    monkeypatch.setattr(bindings, "tokenizer_for_encoding", remember)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    estimate._encoding.cache_clear()
    yield names
    estimate._encoding.cache_clear()


OLD = [
    "gpt-4",
    "gpt-4-0613",
    "gpt-4-turbo-2024-04-09",
    "gpt-4-32k",
    "gpt-3.5-turbo",
    "gpt-35-turbo-16k",
    "ft:gpt-3.5-turbo-0125:acme::x",
    "ft:gpt-4-0613:acme::x",
    "openai/gpt-4",
    "text-embedding-3-large",
    "text-embedding-ada-002",
    "davinci-002",
]
NEW = [
    None,
    "",
    "gpt-4o",
    "gpt-4o-mini-2024-07-18",
    "ft:gpt-4o-mini-2024-07-18:acme::x",
    "gpt-4.1",
    "gpt-4.5-preview",
    "gpt-41",
    "gpt-5.5",
    "o3",
    "chatgpt-4o-latest",
    "openai/gpt-4o",
    "llama-3.3-70b",
    "text-davinci-003",
    "gpt2",
    "code-davinci-002",
    "/" * 100_000,
]


@pytest.mark.parametrize("model", OLD)
def test_models_from_before_gpt_4o_are_counted_by_cl100k(model: str, asked: list[str]) -> None:
    tokens_of("hello", model)
    assert asked == ["cl100k_base"]


@pytest.mark.parametrize("model", NEW)
def test_every_other_model_is_counted_by_o200k(model: str | None, asked: list[str]) -> None:
    tokens_of("hello", model)
    assert asked == ["o200k_base"]


def test_an_encoding_is_loaded_once(asked: list[str]) -> None:
    for model in ("gpt-5", "o3", "gpt-4", "gpt-3.5-turbo"):
        tokens_of("hello", model)
    assert asked == ["o200k_base", "cl100k_base"]


def test_what_newer_models_need_can_be_loaded_before_the_first_call(asked: list[str]) -> None:
    estimate.warm()
    assert asked == ["o200k_base"]
    tokens_of("hello", "gpt-5.5")
    assert asked == ["o200k_base"]


def test_the_package_whose_import_takes_half_a_second_is_not_imported() -> None:
    tokens_of("hello", None)
    assert "bpe_openai" not in sys.modules


@pytest.mark.parametrize(
    ("text", "model", "tokens"),
    [
        ("", "gpt-5", 0),
        ("tiktoken is great!", "gpt-4", 6),  # the example of OpenAI's cookbook
        ("お誕生日おめでとう", "gpt-4", 9),  # the same, cl100k_base
        ("お誕生日おめでとう", "gpt-4o", 8),  # the same, o200k_base
    ],
)
def test_counts_are_those_that_openai_publishes(text: str, model: str, tokens: int) -> None:
    assert tokens_of(text, model) == tokens


def test_the_names_of_special_tokens_count_as_text() -> None:
    assert tokens_of("<|endoftext|>", "gpt-5") > 1
    assert tokens_of("a <|fim_prefix|> b <|endofprompt|>", "gpt-4") > 4


@given(st.text(st.characters(exclude_categories=()), max_size=200), st.sampled_from(OLD + NEW[:9]))
def test_no_text_raises_not_even_lone_surrogates(text: str, model: str | None) -> None:
    assert 0 <= tokens_of(text, model) <= 4 * len(text)


def test_lone_surrogates_do_not_hide_the_text_around_them() -> None:
    assert tokens_of("\ud800", None) >= 1
    assert tokens_of(PROSE + "\udfff" + PROSE, None) >= 2 * tokens_of(PROSE, None) - 2


def test_text_in_pieces_counts_as_the_text_in_whole_but_for_a_few_tokens() -> None:
    text = PROSE * 4_000  # six pieces
    whole = estimate._encoding("o200k_base").count(text)
    assert abs(tokens_of(text, None) - whole) <= 3 * 6


def test_a_piece_of_the_costliest_characters_stays_within_the_encoders_limit() -> None:
    text = "\U0001d11e\U00010384" * (32 * 1024)
    assert tokens_of(text, None) > 200_000


class CountingEncoding:
    """Counts a token per character, and the characters it was given."""

    def __init__(self) -> None:
        self.seen = 0

    def count(self, text: str) -> int:
        self.seen += len(text)
        return len(text)


@pytest.mark.parametrize("extra", [1, 32 * 1024, 5_000_000])
def test_a_text_beyond_the_bound_is_sampled_and_extrapolated(
    extra: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = CountingEncoding()
    monkeypatch.setattr(estimate, "_encoding", lambda _: encoding)
    bound = 1024 * 1024
    assert tokens_of("a" * bound, None) == bound
    assert encoding.seen == bound
    encoding.seen = 0
    assert tokens_of("a" * (bound + extra), None) == bound + extra
    assert encoding.seen <= bound


def test_a_sample_is_spread_over_the_whole_text(monkeypatch: pytest.MonkeyPatch) -> None:
    half = 3 * 1024 * 1024
    text = PROSE * (half // len(PROSE)) + "漢字かな" * (half // 4)
    truth = tokens_of(text[: half // 4], None) * 4 + tokens_of(text[-half // 4 :], None) * 4
    assert abs(tokens_of(text, None) - truth) < truth / 10
