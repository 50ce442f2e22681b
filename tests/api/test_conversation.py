"""A conversation over HTTP: its pages, its branches, its messages' JSON, and what is refused."""

from dataclasses import replace
from urllib.parse import quote

import pytest

from proxy.api import conversation
from tests.api.asking import ask, save
from tests.running import Running
from tests.storage.calls import body, checkpoint, start
from tests.storage.talks import CHAT, call, chat

SESSION = "/api/sessions/s/conversation"


async def ids(tw: Running, query: str = "") -> list[str]:
    reply = await ask(tw, SESSION + query)
    assert reply.status == 200, reply.body
    assert reply.body["count"] == len(reply.body["messages"])
    return [message["id"] for message in reply.body["messages"]]


async def test_a_conversation_is_the_messages_of_a_session_each_once(tw: Running) -> None:
    await save(tw, *chat(3))
    reply = await ask(tw, SESSION)
    assert (reply.body["session_id"], reply.body["total"], reply.body["count"]) == ("s", 6, 6)
    assert "next" not in reply.body
    assert [m["kind"] for m in reply.body["messages"]] == ["input", "answer"] * 3
    assert [m["position"] for m in reply.body["messages"]] == [*range(6)]
    assert [t["turns"] for t in reply.body["threads"]] == [3]


@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_its_pages_together_are_the_whole(tw: Running, limit: int) -> None:
    await save(tw, *chat(5))
    whole = await ids(tw)
    found: list[str] = []
    start_at: int | None = 0
    while start_at is not None:
        reply = await ask(tw, f"{SESSION}?from={start_at}&limit={limit}")
        found += [message["id"] for message in reply.body["messages"]]
        start_at = reply.body.get("next")
    assert found == whole
    assert len(set(whole)) == 10
    assert await ids(tw, "?from=77") == []


async def test_a_branch_is_chosen_by_its_id(tw: Running) -> None:
    await save(tw, call(1, ["u:1"], "a:old"), call(2, ["u:1"], "a:new"))
    reply = await ask(tw, SESSION)
    newest, other = reply.body["messages"][1]["branches"]
    assert (newest["current"], other["current"]) == (True, False)
    assert (await ids(tw, f"?branch={other['id']}"))[1] == other["id"]
    assert (await ids(tw, f"?branch={other['id']},{newest['id']}"))[1] == newest["id"]
    assert (await ids(tw, f"?branch={other['id']}&branch={newest['id']}"))[1] == newest["id"]


@pytest.mark.parametrize(
    "query", ["from=-1", "from=x", "limit=0", "limit=1001", "branch=x", "branch=00000000000000ff-1"]
)
async def test_a_mistake_in_the_query_is_refused(tw: Running, query: str) -> None:
    await save(tw, *chat(1))
    reply = await ask(tw, f"{SESSION}?{query}")
    assert reply.error == (400, "bad_parameter")
    assert query.partition("=")[0] in reply.body["error"]["message"]


async def test_a_session_that_is_not_there_has_no_conversation(tw: Running) -> None:
    assert (await ask(tw, SESSION)).error == (404, "not_found")


@pytest.mark.parametrize("session_id", ["a/b", "..", "{x}", "100%"])
async def test_a_session_is_found_by_an_id_of_any_kind(tw: Running, session_id: str) -> None:
    (one,) = chat(1)
    await save(tw, replace(one, start=replace(one.start, session_id=session_id)))
    name = quote(session_id, safe="")
    found = await ask(tw, f"/api/sessions/by-id/conversation?id={name}")
    assert found.body["session_id"] == session_id
    if session_id != "..":
        assert (await ask(tw, f"/api/sessions/{name}/conversation")).body == found.body


async def test_a_session_without_conversations_has_an_empty_one(tw: Running) -> None:
    await save(tw, call(1, [], conversation=None, request=None, operation="embeddings"))
    reply = await ask(tw, SESSION)
    assert (reply.body["total"], reply.body["messages"], reply.body["threads"]) == (0, [], [])


async def test_each_messages_link_gives_its_json_as_it_was_sent(tw: Running) -> None:
    await save(tw, *chat(2))
    links = [message["link"] for message in (await ask(tw, SESSION)).body["messages"]]
    assert [(await ask(tw, link)).body for link in links] == [
        {"say": "u:1"},
        {"say": "a:1"},
        {"say": "u:2"},
        {"say": "a:2"},
    ]


@pytest.mark.parametrize("name", ["x", "0000000000000001", "0000000000000001-9", "1-1"])
async def test_a_message_that_is_not_there_is_not_found(tw: Running, name: str) -> None:
    await save(tw, *chat(2))
    assert (await ask(tw, f"/api/messages/{name}")).error == (404, "not_found")


async def test_a_call_that_runs_shows_what_came_so_far(tw: Running) -> None:
    running = start(2, session_id="s", operation=CHAT)
    part = checkpoint(running, b'{"role":"assistant","content":"so far"}')
    await save(tw, *chat(1), running, part)
    last = (await ask(tw, SESSION)).body["messages"][-1]
    assert (last["kind"], last["text"], last["link"]) == (
        *("running", "so far", "/api/spans/0000000000000002"),
    )
    assert last["outcome"]["state"] == "running"


async def test_a_failed_call_shows_its_error(tw: Running) -> None:
    failed = call(2, [], state="failed", error="no", conversation=None, response=body(b"oops"))
    await save(tw, *chat(1), failed)
    last = (await ask(tw, SESSION)).body["messages"][-1]
    assert (last["kind"], last["outcome"]["state"], last["outcome"]["error"]) == (
        *("error", "failed", "no"),
    )


async def test_what_is_too_much_for_a_page_is_not_read(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, call(1, ["u:" + "x" * 1000, "u:1"]))
    monkeypatch.setattr(conversation, "PAGE_BYTES", 500)
    first, second, _ = (await ask(tw, SESSION)).body["messages"]
    assert (first["text"], first["truncated"]) == (None, True)
    assert (second["truncated"]) is False


async def test_what_changes_between_two_pages_is_seen(tw: Running) -> None:
    first, second = chat(2)
    await save(tw, first)
    assert len(await ids(tw, "?limit=1")) == 1
    await save(tw, second)
    assert (await ask(tw, f"{SESSION}?limit=1")).body["total"] == 4
    trace = (await ask(tw, "/api/sessions/s")).body["traces"][1]["id"]
    assert (await ask(tw, f"/api/traces/{trace}", "DELETE")).status == 200
    assert (await ask(tw, f"{SESSION}?limit=1")).body["total"] == 2


async def test_a_branch_is_not_that_of_the_page_before(tw: Running) -> None:
    await save(tw, call(1, ["u:1"], "a:old"), call(2, ["u:1"], "a:new"))
    newest, other = (await ask(tw, SESSION)).body["messages"][1]["branches"]
    assert (await ids(tw, f"?branch={other['id']}"))[1] == other["id"]
    assert (await ids(tw))[1] == newest["id"]


async def test_an_outcome_names_its_call_and_who_ended_it(tw: Running) -> None:
    failed = call(2, [], state="failed", conversation=None, ended_by="upstream", phase="headers")
    await save(tw, *chat(1), failed)
    outcome = (await ask(tw, SESSION)).body["messages"][-1]["outcome"]
    assert (outcome["ended_by"], outcome["phase"]) == ("upstream", "headers")
    assert (outcome["trace_id"], outcome["span_id"]) == (f"{2:032x}", f"{2:016x}")
    assert (outcome["usage_source"], outcome["cost_status"]) == ("provider", "priced")
