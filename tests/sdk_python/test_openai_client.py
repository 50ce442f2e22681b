"""OpenAI's own clients through the proxy: each call names where it was made."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.sdk_python.collector import Collector
from traceway import Traceway, openai_headers

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
KEY = "sk-provider"


def ask(client: openai.OpenAI, **more: Any) -> None:
    client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, **more)


def ours(headers: dict[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("x-traceway-"): value
        for name, value in headers.items()
        if name.startswith("x-traceway-")
    }


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, max_retries=0) as made:
        yield made


def test_each_call_names_the_trace_the_span_and_the_session_that_it_is_made_in(
    tw: Traceway, collector: Collector, client: openai.OpenAI
) -> None:
    wrapped = tw.wrap(client)
    ask(wrapped)
    with tw.trace("t", session_id="sess_1") as trace:
        ask(wrapped)
        with trace.span("s") as span:
            ask(wrapped)
    ask(wrapped)
    key = {"api-key": "tw_sk_test"}
    in_trace = {**key, "trace-id": trace.id, "session-id": "sess_1"}
    assert [ours(headers) for _, headers in collector.other] == [
        key,
        in_trace,
        {**in_trace, "parent-span-id": span.id},
        key,
    ]
    paths = {path for path, _ in collector.other}
    assert paths == {"/api/proxy/openai/v1/chat/completions"}
    assert {headers["authorization"] for _, headers in collector.other} == {f"Bearer {KEY}"}


def test_the_client_that_was_wrapped_stays_as_it_was(tw: Traceway, client: openai.OpenAI) -> None:
    wrapped = tw.wrap(client)
    assert wrapped is not client
    assert str(client.base_url) == "https://api.openai.com/v1/"
    assert type(client) is openai.OpenAI
    assert isinstance(wrapped, openai.OpenAI)
    assert wrapped.user_agent == client.user_agent


def test_to_wrap_twice_is_to_wrap_once(
    tw: Traceway, collector: Collector, client: openai.OpenAI
) -> None:
    wrapped = tw.wrap(client)
    assert tw.wrap(wrapped) is wrapped
    other = Traceway(collector.url, "tw_sk_other")
    ask(other.wrap(wrapped))
    assert ours(collector.other[0][1]) == {"api-key": "tw_sk_other"}


def test_copies_with_options_stay_wrapped_and_what_a_call_says_itself_stands(
    tw: Traceway, collector: Collector, client: openai.OpenAI
) -> None:
    wrapped = tw.wrap(client).with_options(timeout=5).copy(max_retries=1)
    with tw.trace("t", session_id="sess_1"):
        ask(wrapped, extra_headers={"X-Traceway-Session-Id": "own"})
        wrapped.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    said = [ours(headers)["session-id"] for _, headers in collector.other]
    assert said == ["own", "sess_1"]


def test_our_key_goes_to_nobody_else(
    tw: Traceway, collector: Collector, client: openai.OpenAI
) -> None:
    elsewhere = tw.wrap(client).with_options(base_url=f"{collector.url}/v1")
    with tw.trace("t"):
        ask(elsewhere)
    assert ours(collector.other[0][1]) == {}


async def test_an_async_client_keeps_tasks_apart(tw: Traceway, collector: Collector) -> None:
    async with tw.wrap(openai.AsyncOpenAI(api_key=KEY, max_retries=0)) as client:

        async def turn(session_id: str) -> str:
            async with tw.trace("t", session_id=session_id) as trace:
                await client.chat.completions.create(model="m", messages=MESSAGES)
                return trace.id

        traces = await asyncio.gather(*(turn(f"s{n}") for n in range(5)))
    said = {ours(headers)["session-id"]: headers for _, headers in collector.other}
    for n, trace_id in enumerate(traces):
        assert said[f"s{n}"]["x-traceway-trace-id"] == trace_id


@pytest.mark.parametrize("session_id", ["Gespräch", "会話 1", "a:b/c"])
def test_a_session_id_of_any_script_arrives_as_utf_8_from_a_wrapped_client(
    tw: Traceway, collector: Collector, client: openai.OpenAI, session_id: str
) -> None:
    with tw.trace("t", session_id=session_id):
        ask(tw.wrap(client))
    # http.server reads headers as Latin-1.
    said = ours(collector.other[0][1])["session-id"]
    assert said.encode("latin-1").decode() == session_id


def test_headers_for_other_clients_leave_out_what_these_refuse(
    tw: Traceway, collector: Collector
) -> None:
    with openai.OpenAI(api_key=KEY, base_url=f"{collector.url}/v1", max_retries=0) as plain:
        for session_id in ("sess_1", "会話"):
            with tw.trace("t", session_id=session_id):
                ask(plain, extra_headers=openai_headers())
    first, second = (ours(headers) for _, headers in collector.other)
    assert first["session-id"] == "sess_1"
    assert second.keys() == {"api-key", "trace-id"}


def test_headers_outside_of_a_trace_are_the_key_at_most(tw: Traceway, collector: Collector) -> None:
    assert openai_headers() == {}
    assert tw.openai_headers() == {"X-Traceway-Api-Key": "tw_sk_test"}
    with tw.trace("t") as trace:
        assert openai_headers()["X-Traceway-Trace-Id"] == trace.id
        assert "X-Traceway-Session-Id" not in openai_headers()
        other = Traceway(collector.url, "tw_sk_other")
        assert other.openai_headers() == {"X-Traceway-Api-Key": "tw_sk_other"}


def test_a_client_of_another_provider_needs_the_name_of_its_upstream(
    tw: Traceway, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        openai.OpenAI(api_key=KEY, base_url="https://api.groq.com/openai/v1") as groq,
        caplog.at_level(logging.WARNING, "traceway"),
    ):
        ask(tw.wrap(groq, upstream="groq"))
        assert tw.wrap(groq) is groq
    assert collector.other[0][0] == "/api/proxy/groq/openai/v1/chat/completions"
    assert "https://api.groq.com/openai/v1" in caplog.text


def test_a_client_that_calls_the_proxy_already_keeps_its_address(
    tw: Traceway, collector: Collector
) -> None:
    with (
        openai.OpenAI(api_key=KEY, base_url=f"{collector.url}/api/proxy/mine/v1") as client,
        tw.trace("t") as trace,
    ):
        ask(tw.wrap(client))
    path, headers = collector.other[0]
    assert path == "/api/proxy/mine/v1/chat/completions"
    assert headers["x-traceway-trace-id"] == trace.id


def test_what_is_no_client_is_given_back(tw: Traceway, caplog: pytest.LogCaptureFixture) -> None:
    for thing in (None, object(), "client"):
        assert tw.wrap(thing) is thing
    assert "a str was not wrapped" in caplog.text


def test_a_client_that_is_switched_off_wraps_nothing(client: openai.OpenAI) -> None:
    assert Traceway(enabled=False).wrap(client) is client
