"""The log: one line a call, for people or programs, and nothing in it that was said."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.call_log import JsonLines, TextLines, log_calls
from proxy.outcomes import Ended
from proxy.pricing import Prices
from proxy.settle import Settler
from tests.calling import ANSWER, a_call, answered

CANARY = "sk-canary-0123456789abcdef"
Lines = Callable[..., list[str]]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Lines:
    """Log calls, and give the lines as a formatter writes them."""

    def lines(formatter: logging.Formatter, *calls: Ended) -> list[str]:
        with caplog.at_level(logging.INFO, "traceway.calls"):
            log_calls(calls)
        return [formatter.format(record) for record in caplog.records]

    return lines


def a_pair() -> Ended:
    headers = (
        (b"Content-Type", b"application/json"),
        (b"Authorization", f"Bearer {CANARY}".encode()),
    )
    end = answered(a_call(headers=headers, session="user_123"), ANSWER)
    return end, Settler(Prices()).end(end)


def test_a_call_is_an_object_with_names_states_and_figures(logged: Lines) -> None:
    end, row = a_pair()
    (line,) = logged(JsonLines(), (replace(end, added_us=1500), row))
    found = json.loads(line)
    assert found["event"] == "call"
    assert found["trace_id"] == end.start.trace_id.hex()
    assert (found["upstream"], found["method"]) == ("openai", "POST")
    assert (found["path"], found["status"]) == ("/v1/chat/completions", 200)
    assert (found["state"], found["input_tokens"], found["output_tokens"]) == ("completed", 9, 2)
    assert found["added_ms"] == 1.5
    assert found["cost_usd"] == pytest.approx(row.cost_nusd / 1e9)
    assert found["time"].endswith("Z")


def test_a_line_says_nothing_of_what_was_said_by_whom_or_with_which_key(logged: Lines) -> None:
    for formatter in (JsonLines(), TextLines()):
        text = "\n".join(logged(formatter, a_pair()))
        for said in ("How are you", "Fine", CANARY, "user_123"):
            assert said not in text


def test_text_is_one_line_of_words(logged: Lines) -> None:
    (line,) = logged(TextLines(), a_pair())
    words = line.split(" ")
    assert words[1:3] == ["INFO", "call"]
    assert "state=completed" in words
    assert "status=200" in words
    assert not [word for word in words if word.startswith("code=")]  # None is left out


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()])
def test_what_a_model_is_called_cannot_begin_a_line(
    logged: Lines, formatter: logging.Formatter
) -> None:
    end, row = a_pair()
    (line,) = logged(formatter, (end, replace(row, model="gpt\n2026 ERROR x\u2028\x1b[31m" * 50)))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert "gpt?2026?ERROR?x" in line
    assert len(line) < 1000


def test_nothing_is_written_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "traceway.calls"):
        log_calls([a_pair()])
    assert caplog.records == []


def test_other_lines_are_objects_too_with_their_traceback() -> None:
    try:
        raise ValueError("no luck")
    except ValueError as error:
        failed = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("traceway", logging.ERROR, "", 0, "it %s", ("failed",), failed)
    record.msecs = 999.9
    found = json.loads(JsonLines().format(record))
    assert (found["level"], found["event"], found["message"]) == ("error", "message", "it failed")
    assert "no luck" in found["traceback"]
    assert found["time"].endswith(".999Z")
