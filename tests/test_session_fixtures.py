"""Clients that name their session in their own way, as they call: one session per conversation."""

import pytest

from proxy.session import REGISTRY
from tests.running import Running
from tests.session_tools import KEY, TOOLS, Tool
from tests.wire import ScriptedUpstream

CONVERSATIONS = ("0199a213-81c0-7800-8aa1-bbab2a035a53", "5f0c2b7e-9ffe-4a1c-9d3e-0a1b2c3d4e5f")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
async def test_each_conversation_of_a_tool_is_one_session(
    tw: Running, upstream: ScriptedUpstream, tool: Tool
) -> None:
    upstream.answers(b'{"object":"chat.completion","choices":[]}')
    for turn in range(2):
        for conversation in CONVERSATIONS:
            path, headers, body = tool.call(conversation, turn)
            await tw.raw(b"/api/proxy/openai" + path, headers=headers, body=body)

    sessions = (await tw.api("/api/sessions"))["sessions"]

    assert {session["id"] for session in sessions} == {
        tool.session.replace("$ID", conversation) for conversation in CONVERSATIONS
    }
    assert [session["trace_count"] for session in sessions] == [2, 2]
    assert {session["source"] for session in sessions} == {tool.source}
    for trace in (await tw.api("/api/traces"))["traces"]:
        assert (trace["session_source"], trace["session_confidence"]) == (tool.source, "adopted")
    sent = upstream.requests[0]
    for line in tool.call(CONVERSATIONS[0], 0)[1].splitlines():
        assert line in sent.head  # what is said to others still reaches them


def test_there_is_a_fixture_for_each_source_that_another_tool_sends() -> None:
    calls = [row for row in REGISTRY if row.place != "handed in"]
    sources = {row.source for row in calls if row.confidence == "adopted"}
    own = {"previous_response", "conversation_id", "thread_id", "chat_id"}  # nobody's in particular
    assert {tool.source for tool in TOOLS} == sources - own


async def test_a_client_that_names_only_its_user_and_its_request_has_no_session(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    headers = (
        KEY.encode() + b"Content-Type: application/json\r\nX-Request-Id: r\r\nCookie: sid=1\r\n"
    )
    body = b'{"model":"gpt-5","user":"alice","safety_identifier":"a","prompt_cache_key":"k"}'
    for _ in range(2):
        await tw.raw(headers=headers, body=body)
    assert (await tw.api("/api/sessions"))["sessions"] == []
