"""Errors of ours have OpenAI's shape, so that its clients raise what they always raise."""

import openai
import orjson
import pytest

from proxy.errors import Refused, error_body, error_response
from tests.running import Running


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (400, "invalid_request_error", "false"),
        (404, "invalid_request_error", "false"),
        (501, "api_error", None),
        (502, "api_error", None),
    ],
)
def test_an_error_has_openais_shape_and_says_that_it_is_ours(
    status: int, kind: str, retry: str | None
) -> None:
    response = error_response(status, "some_code", "Some sentence.")
    assert response.status == status
    assert response.content_type == "application/json"
    assert response.headers["X-Traceway-Error"] == "some_code"
    assert response.headers.get("x-should-retry") == retry
    assert response.body == error_body(status, "some_code", "Some sentence.")
    assert orjson.loads(error_body(status, "some_code", "Some sentence.")) == {
        "error": {"message": "Some sentence.", "type": kind, "param": None, "code": "some_code"}
    }


def test_a_refusal_may_name_its_type_and_figures() -> None:
    refused = Refused(429, "c", "Some sentence.", kind="insufficient_quota", figures={"usd": 0.5})
    answer = refused.answer()
    assert answer.headers["x-should-retry"] == "false"
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["error"] == {
        "message": "Some sentence.",
        "type": "insufficient_quota",
        "param": None,
        "code": "c",
        "usd": 0.5,
    }


def test_what_may_be_tried_again_later_says_when_and_does_not_say_never() -> None:
    answer = Refused(429, "c", "Some sentence.", retry_after_s=7).answer()
    assert answer.headers["Retry-After"] == "7"
    assert "x-should-retry" not in answer.headers


async def test_openais_client_raises_its_own_exception_and_does_not_try_again(
    tw: Running,
) -> None:
    base = f"{tw.url}/api/proxy/nobody/v1"
    async with openai.AsyncOpenAI(api_key="sk-x", base_url=base, max_retries=2) as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.models.list()
    assert raised.value.code == "unknown_upstream"
    assert len(await tw.spans()) == 1


@pytest.mark.parametrize("key", ["sk-proj-0123456789abcdefghij", "tw_sk_abc", "tw_st_x"])
def test_a_message_that_quotes_a_key_does_not_say_it(key: str) -> None:
    body = error_body(400, "some_code", f"limit must be a number, not '{key}'")
    assert orjson.loads(body)["error"]["message"] == "limit must be a number, not '[redacted]'"


def test_a_message_may_quote_what_is_no_text() -> None:
    assert orjson.loads(error_body(400, "some_code", "not \ud800"))["error"]["message"] == "not ?"
