"""A background response: who asked for it is billed, once, whoever fetches it and how often."""

from typing import Any

import orjson
import pytest

from tests.conftest import Serve
from tests.running import Running
from tests.wire import Peer, Received, ScriptedUpstream

RESPONSES = b"/api/proxy/openai/v1/responses"
USAGE = {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200}
COST = 1000 * 2e-6 + 200 * 8e-6  # gpt-4.1: 2 and 8 USD per million


def response(status: str, usage: dict[str, int] | None) -> bytes:
    return orjson.dumps(
        {"id": "resp_1", "status": status, "model": "gpt-4.1", "usage": usage, "output": []}
    )


def replay() -> bytes:
    done = b'{"type":"response.completed","response":%b}' % response("completed", USAGE)
    return b"event: response.completed\ndata: %b\n\n" % done


@pytest.fixture
async def tw(serve: Serve, upstream: ScriptedUpstream) -> Running:
    """A server before an upstream that works in the background until it is asked a second time."""
    polls = 0

    async def script(peer: Peer) -> None:
        nonlocal polls
        while True:
            request = await peer.request()
            if request.start.startswith(b"POST"):
                await peer.respond(response("queued", None))
            elif b"stream=true" in request.target:
                await peer.respond(replay(), content_type=b"text/event-stream")
            else:
                polls += 1
                working = response("in_progress", None)
                await peer.respond(working if polls == 1 else response("completed", USAGE))

    upstream.script = script
    return await serve()


async def post(tw: Running) -> Received:
    return await tw.raw(
        RESPONSES,
        headers=b"Content-Type: application/json\r\nX-Traceway-Session-Id: jobs\r\n",
        body=b'{"model":"gpt-4.1","background":true,"input":"think long"}',
    )


async def get(tw: Running, query: bytes = b"", session: bytes = b"jobs") -> Received:
    return await tw.raw(
        RESPONSES + b"/resp_1" + query,
        method=b"GET",
        headers=b"X-Traceway-Session-Id: %b\r\n" % session,
    )


def billed(span: Any) -> tuple[Any, ...]:
    kind = span["kind"]
    return kind["usage_source"], kind["input_tokens"], kind["output_tokens"], kind["cost_status"]


async def test_a_background_response_is_billed_to_the_call_that_asked_for_it(tw: Running) -> None:
    await post(tw)
    await get(tw)
    queued, polled = await tw.spans()
    assert billed(queued) == ("missing", None, None, "unpriced")
    assert billed(polled) == (None, None, None, "free")

    await get(tw)
    queued, polled, fetched = await tw.spans()
    assert billed(queued) == ("provider", 1000, 200, "priced")
    assert queued["kind"]["cost"] == pytest.approx(COST, abs=1e-9)
    assert queued["metadata"]["settled_by"] == fetched["id"]
    assert billed(polled) == billed(fetched) == (None, None, None, "free")


@pytest.mark.parametrize("query", [b"", b"?stream=true&starting_after=0"])
async def test_fetching_it_again_counts_nothing(tw: Running, query: bytes) -> None:
    await post(tw)
    for _ in range(2):
        await get(tw)
    before = await tw.spans()
    for _ in range(3):
        await get(tw, query)
    spans = await tw.spans()
    assert spans[:3] == before
    assert [billed(span) for span in spans[3:]] == [(None, None, None, "free")] * 3


async def test_the_sums_of_the_session_have_it_once(tw: Running) -> None:
    await post(tw)
    before = await tw.api("/api/sessions/jobs")
    assert (before["total_tokens"], before["cost"], before["unpriced_count"]) == (None, None, 1)
    for query in (b"", b"", b"?stream=true", b""):
        await get(tw, query)
    after = await tw.api("/api/sessions/jobs")
    assert (after["input_tokens"], after["output_tokens"], after["span_count"]) == (1000, 200, 5)
    assert after["cost"] == pytest.approx(COST, abs=1e-9)
    assert after["unpriced_count"] == 0
    assert after["models"] == ["gpt-4.1"]


async def test_it_is_billed_to_the_session_that_asked_and_not_to_the_one_that_fetched(
    tw: Running,
) -> None:
    await post(tw)
    for _ in range(2):
        await get(tw, session=b"other")
    assert (await tw.api("/api/sessions/jobs"))["total_tokens"] == 1200
    other = await tw.api("/api/sessions/other")
    assert (other["total_tokens"], other["cost"]) == (None, 0)


async def test_a_replayed_stream_settles_it_too(tw: Running) -> None:
    await post(tw)
    await get(tw, b"?stream=true&starting_after=0")
    queued, replayed = await tw.spans()
    assert billed(queued) == ("provider", 1000, 200, "priced")
    assert billed(replayed) == (None, None, None, "free")
    assert replayed["status"] == "completed"


async def test_who_fetches_what_another_program_made_is_not_billed(tw: Running) -> None:
    for _ in range(2):
        await get(tw)
    assert [billed(span) for span in await tw.spans()] == [(None, None, None, "free")] * 2
