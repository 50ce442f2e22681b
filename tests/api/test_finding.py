"""What all lists have in common when they are read."""

import orjson
import pytest

from storage.clauses import STATUSES
from tests.api.asking import ask
from tests.running import Running
from tests.wire import ScriptedUpstream


async def say(tw: Running, upstream: ScriptedUpstream, words: str) -> None:
    """Make a call of a session."""
    message = {"role": "assistant", "content": "yes"}
    upstream.answers(orjson.dumps({"choices": [{"index": 0, "message": message}]}))
    asked = {"model": "gpt-5", "messages": [{"role": "user", "content": words}]}
    session = b"X-Traceway-Session-Id: %b\r\nContent-Type: application/json\r\n" % words.encode()
    await tw.raw(headers=session, body=orjson.dumps(asked))
    await tw.saved()


@pytest.mark.parametrize("rows", STATUSES)
async def test_words_are_found_that_were_saved_just_before(
    tw: Running, upstream: ScriptedUpstream, rows: str
) -> None:
    for words in ("sapphire", "ruby"):
        await say(tw, upstream, words)
        assert (await ask(tw, f"/api/{rows}?q={words}")).body["count"] == 1


@pytest.mark.parametrize("rows", ["sessions", "traces"])
async def test_sums_are_over_words_that_were_saved_just_before(
    tw: Running, upstream: ScriptedUpstream, rows: str
) -> None:
    for words in ("sapphire", "ruby"):
        await say(tw, upstream, words)
        assert (await ask(tw, f"/api/{rows}/totals?q={words}")).body["trace_count"] == 1


@pytest.mark.parametrize("rows", ["traces", "spans"])
async def test_an_order_that_reads_too_many_rows_is_refused(tw: Running, rows: str) -> None:
    found = await ask(tw, f"/api/{rows}?sort_by=cost")
    assert found.error == (400, "bad_parameter")
    assert found.body["error"]["param"] == "sort_by"
