"""Which operation a method and a path ask for, and what it bills."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.facts import Operation
from proxy.providers.operations import operation_of


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat.completions"),
        ("/openai/deployments/x/chat/completions", "chat.completions"),
        ("/api/v1/responses", "responses"),
        ("/responses/", "responses"),
        ("/v1/completions", "completions"),
        ("/v1/responses/compact", "responses.compact"),
        ("/v1/images/edits", "images.edits"),
        ("/v1/audio/translations", "audio.translations"),
        ("/v1/threads/thread_1/runs", "threads.runs"),
        ("/v1/threads/runs", "threads.runs"),
        ("/v1/batches", "batches"),
    ],
)
def test_a_post_is_known_by_the_end_of_its_path(path: str, name: str) -> None:
    assert operation_of("POST", path) == Operation(name, "tokens")


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/responses/resp_1", "responses.retrieve"),
        ("POST", "/v1/responses/resp_1/cancel", "responses.cancel"),
        ("GET", "/v1/batches/batch_1", "batches.retrieve"),
        ("GET", "/v1/threads/t/runs/r", "threads.runs.retrieve"),
        ("POST", "/v1/threads/t/runs/r/submit_tool_outputs", "threads.runs.submit_tool_outputs"),
    ],
)
def test_what_tells_of_another_calls_object_settles_it_and_bills_nothing(
    method: str, path: str, name: str
) -> None:
    assert operation_of(method, path) == Operation(name, "nothing", settles=True)


@pytest.mark.parametrize(
    "path", ["/v1/videos", "/v1/videos/v_1/remix", "/v1/fine_tuning/jobs", "/v1/images/variations"]
)
def test_what_is_not_billed_by_tokens_says_so(path: str) -> None:
    assert operation_of("POST", path).bills == "other"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/moderations"),
        ("POST", "/v1/responses/input_tokens"),
        ("POST", "/v1/files"),
        ("POST", "/v1/chat/completions/chatcmpl-1"),
        ("POST", "/v1/unheard/of"),
        ("POST", "/"),
        ("POST", ""),
        ("POST", "/v1/my-completions"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/responses/resp_1"),
        ("get", "/v1/chat/completions"),
    ],
)
def test_everything_else_bills_and_settles_nothing(method: str, path: str) -> None:
    operation = operation_of(method, path)
    assert (operation.bills, operation.settles) == ("nothing", False)


@given(st.sampled_from(["GET", "HEAD", "DELETE", "PUT", "OPTIONS"]), st.text())
def test_only_a_post_bills(method: str, path: str) -> None:
    for end in ("", "/chat/completions", "/responses", "/embeddings", "/videos"):
        assert operation_of(method, path + end).bills == "nothing"
