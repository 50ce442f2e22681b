"""Usage objects: which count goes into which bucket, and what is no usable report."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.billing import Usage, read_usage
from proxy.providers.facts import Bill
from proxy.usage import MAX_COUNT
from storage.records import Tokens

IMAGE_TOOL = {"type": "image_generation", "model": "gpt-image-1"}


def test_chat_and_responses_name_the_same_counts_differently() -> None:
    chat = {
        "prompt_tokens": 100,
        "completion_tokens": 60,
        "total_tokens": 160,
        "prompt_tokens_details": {
            "cached_tokens": 40,
            "cache_write_tokens": 7,
            "audio_tokens": 10,
            "image_tokens": 5,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 20,
            "audio_tokens": 8,
            "image_tokens": 3,
            "accepted_prediction_tokens": 1,
        },
    }
    responses = {
        "input_tokens": 100,
        "output_tokens": 60,
        "total_tokens": 160,
        "input_tokens_details": chat["prompt_tokens_details"],
        "output_tokens_details": chat["completion_tokens_details"],
    }
    singular = {
        "input_tokens": 100,
        "output_tokens": 60,
        "input_token_details": chat["prompt_tokens_details"],
        "output_token_details": chat["completion_tokens_details"],
    }
    tokens = Tokens(
        input=100,
        output=60,
        cached_input=40,
        cache_write=7,
        audio_input=10,
        image_input=5,
        reasoning=20,
        audio_output=8,
        image_output=3,
    )
    for report in (chat, responses, singular):
        assert read_usage(report) == Usage(main=tokens)


def test_output_is_zero_only_where_the_total_says_so() -> None:
    def tokens(**report: int) -> Tokens:
        return read_usage(report).main

    assert tokens(prompt_tokens=8, total_tokens=8) == Tokens(input=8, output=0)
    assert tokens(prompt_tokens=8, total_tokens=9) == Tokens(input=8)
    assert tokens(prompt_tokens=8) == Tokens(input=8)
    assert tokens(completion_tokens=8) == Tokens(output=8)
    assert tokens(total_tokens=8) == Tokens()


def test_a_total_that_is_no_sum_leaves_a_note() -> None:
    usage = read_usage({"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 99})
    assert usage.main == Tokens(input=8, output=2)
    assert usage.notes == ("total_tokens is not input plus output",)


@pytest.mark.parametrize(
    "count", [2**70, 10**9 + 1, -1, 1.5, "7", True, [], {}, float("nan"), float("inf")]
)
def test_a_hostile_count_is_unknown_with_a_note(count: object) -> None:
    usage = read_usage({"prompt_tokens": count, "completion_tokens": 2})
    assert usage.main == Tokens(output=2)
    assert usage.notes == ("prompt_tokens out of range",)


def test_a_part_above_its_whole_is_unknown_with_a_note() -> None:
    usage = read_usage({"prompt_tokens": 8, "prompt_tokens_details": {"cached_tokens": 9}})
    assert usage.main == Tokens(input=8)
    assert usage.notes == ("cached_input above input",)


@pytest.mark.parametrize("report", [None, {}, {"prompt_tokens": None}, {"type": "duration"}])
def test_an_empty_usage_is_no_report(report: object) -> None:
    usage = read_usage(report)
    assert (usage.reported, usage) == (False, Usage())


@pytest.mark.parametrize("report", [[], 7, "x", False, 0.0])
def test_a_usage_of_another_type_leaves_a_note(report: object) -> None:
    assert read_usage(report) == Usage(notes=("usage is not an object",))


@pytest.mark.parametrize("seconds", [0, 9, 9.5, 604_800])
def test_audio_is_billed_by_its_seconds_and_has_no_tokens(seconds: float) -> None:
    usage = read_usage({"type": "duration", "seconds": seconds, "input_tokens": 5})
    assert (usage.seconds, usage.reported, usage.main) == (seconds, True, Tokens())


@pytest.mark.parametrize(
    "seconds", [-1, float("nan"), float("inf"), 10**400, "9", True, [9], 604_801]
)
def test_hostile_seconds_are_unknown_with_a_note(seconds: object) -> None:
    usage = read_usage({"type": "duration", "seconds": seconds})
    assert (usage.reported, usage) == (False, Usage(notes=("seconds out of range",)))


def test_a_vectoriser_is_billed_apart_by_its_own_model() -> None:
    svg = {"model": "svg-1", "input_tokens": 4, "output_tokens": 3, "reasoning_tokens": 2}
    usage = read_usage({"input_tokens": 10, "output_tokens": 20}, svg_usage=svg)
    assert usage.main == Tokens(input=10, output=20)
    assert usage.apart == (Bill("svg-1", Tokens(input=4, output=3, reasoning=2)),)


def test_an_image_tool_is_billed_apart_by_the_model_that_it_names() -> None:
    tool = {"image_gen": {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 4}}
    usage = read_usage(None, tool_usage=tool, tools=[{"type": "function"}, IMAGE_TOOL])
    assert usage.apart == (Bill("gpt-image-1", Tokens(input=10, output=5, cached_input=4)),)
    assert (usage.main, usage.reported) == (Tokens(), True)


@pytest.mark.parametrize(
    "tools",
    [
        None,
        {},
        [],
        [7, None, [], "image_generation"],
        [{"type": "image_generation"}],
        [{"type": "image_generation", "model": 7}],
        [{"type": "function", "model": "gpt-image-1"}],
        [IMAGE_TOOL, {"type": "image_generation", "model": "gpt-image-2"}],
        [IMAGE_TOOL, {"type": "image_generation"}],
    ],
)
def test_an_image_tool_that_names_no_model_or_several_has_none(tools: object) -> None:
    usage = read_usage(None, tool_usage={"image_gen": {"input_tokens": 1}}, tools=tools)
    assert usage.apart == (Bill(None, Tokens(input=1)),)


def test_an_image_tool_that_did_not_run_bills_nothing() -> None:
    zeros = {"image_gen": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}}
    assert read_usage(None, tool_usage=zeros, tools=[IMAGE_TOOL]) == Usage()


def test_web_searches_are_no_tokens_but_are_noted() -> None:
    assert read_usage(None, tool_usage={"web_search": {"num_requests": 0}}) == Usage()
    usage = read_usage(None, tool_usage={"web_search": {"num_requests": 3}})
    assert usage == Usage(notes=("3 web searches, billed apart",))


KEYS = ["prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens"]
KEYS += ["prompt_tokens_details", "input_token_details", "output_tokens_details", "cached_tokens"]
KEYS += ["cache_write_tokens", "reasoning_tokens", "audio_tokens", "image_tokens", "type", "model"]
KEYS += ["seconds", "image_gen", "web_search", "num_requests"]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 20)
    | st.integers()
    | st.floats()
    | st.sampled_from(["duration", "image_generation", "m", 2**70, 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=10,
)
reports = values | st.dictionaries(st.sampled_from(KEYS), values, max_size=8)


@given(reports, reports, reports, values)
def test_whatever_is_reported_each_count_is_usable_or_unknown(
    report: object, svg: object, tool_usage: object, tools: object
) -> None:
    usage = read_usage(report, svg, tool_usage, tools)
    for tokens in (usage.main, *(bill.tokens for bill in usage.apart)):
        for count in dataclasses.astuple(tokens):
            assert count is None or (type(count) is int and 0 <= count <= MAX_COUNT)
        for part in (tokens.cached_input, tokens.cache_write, tokens.audio_input):
            assert part is None or tokens.input is None or part <= tokens.input
        for part in (tokens.reasoning, tokens.audio_output, tokens.image_output):
            assert part is None or tokens.output is None or part <= tokens.output
    assert usage.seconds is None or 0 <= usage.seconds <= 604_800
