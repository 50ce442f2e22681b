"""Recordings taken along over the API: whole, of one project, and back in by an admin alone."""

import asyncio
import functools
import io
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest

from proxy.api import archive_json, finetune
from proxy.api.archive import _Import
from proxy.api.staying import check_stays
from proxy.providers.lenient import MAX_CONTAINERS
from proxy.providers.messages import read_message, text_of
from proxy.ui import export
from storage import archive, restore, restore_marks
from storage.database import Database, Transaction
from storage.forget import delete_session
from storage.records import Session
from tests.api.asking import ask, save
from tests.api.watching import watch
from tests.keyed import Keyed
from tests.running import CHAT, Running, running
from tests.storage.calls import T0, end, spoken, start
from tests.storage.lines import archive as lines_of
from tests.storage.lines import content, node, written
from tests.storage.lines import span as span_line
from tests.wire import ScriptedUpstream, connect

ANSWER = (
    b'{"id":"chatcmpl-%d","model":"gpt-5","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Answer %d."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,'
    b'"completion_tokens":2,"total_tokens":11}}'
)
# What a database says of itself alone.
OWN = ("stored_bytes",)


async def talk(
    tw: Running, upstream: ScriptedUpstream, session: str, turns: int, headers: bytes = b""
) -> None:
    """Have a conversation through the proxy."""
    messages: list[dict[str, str]] = [{"role": "system", "content": "Be brief."}]
    for n in range(turns):
        upstream.answers(ANSWER % (n, n))
        messages.append({"role": "user", "content": f"Question {n}?"})
        body = orjson.dumps({"model": "gpt-5", "messages": messages})
        named = b"X-Traceway-Session-Id: %b\r\n" % session.encode()
        json = b"Content-Type: application/json\r\n"
        got = await tw.raw(CHAT.encode(), headers=headers + named + json, body=body)
        assert got.status == 200
        messages.append({"role": "assistant", "content": f"Answer {n}."})
    await tw.saved()


async def hand_in(tw: Running, path: str, body: Any) -> None:
    async with tw.client.post(tw.url + path, json=body) as answer:
        assert answer.status in (200, 201), await answer.read()


async def exported(tw: Running, path: str) -> bytes:
    async with tw.client.get(tw.url + path) as answer:
        assert answer.status == 200, await answer.read()
        return await answer.read()


async def imported(tw: Running, data: bytes) -> tuple[int, Any]:
    async with tw.client.post(tw.url + "/api/import", data=io.BytesIO(data)) as answer:
        return answer.status, orjson.loads(await answer.read())


def without(value: Any, names: tuple[str, ...] = OWN) -> Any:
    if isinstance(value, dict):
        return {k: without(v, names) for k, v in value.items() if k not in names}
    return [without(one, names) for one in value] if isinstance(value, list) else value


async def everything(tw: Running) -> dict[str, Any]:
    """Give all that the API says of what is recorded."""
    found: dict[str, Any] = {}
    listed = await tw.api("/api/sessions?limit=1000")
    traces = await tw.api("/api/traces?limit=1000")
    found["sessions"], found["traces"] = listed, traces
    for session in listed["sessions"]:
        name = quote(session["id"], safe="")
        for below in ("", "/conversation"):
            found[name + below] = await tw.api(f"/api/sessions/by-id{below}?id={name}")
    for trace in traces["traces"]:
        one = await tw.api(f"/api/traces/{trace['id']}")
        found[trace["id"]] = one
        for span in one["spans"]:
            found[span["id"]] = await tw.api(f"/api/spans/{span['id']}")
            for which in ("request", "response"):
                path = f"/api/spans/{span['id']}/{which}"
                async with tw.client.get(tw.url + path) as answer:
                    found[path] = (answer.status, answer.content_type, await answer.read())
    for query in ("answer", "question", "tool"):
        found[query] = await tw.api(f"/api/sessions?q={query}")
    return {key: without(value) for key, value in found.items()}


@pytest.fixture
async def other(tmp_path: Path, upstream: ScriptedUpstream) -> Any:
    """Another server, with nothing in it."""
    (tmp_path / "other").mkdir()
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(running(tmp_path / "other", upstream.url))


async def test_all_that_the_api_says_comes_back(
    tw: Running, other: Running, upstream: ScriptedUpstream
) -> None:
    await talk(tw, upstream, "a/b: c?d", 4)
    await talk(tw, upstream, "a/b: c?d", 2)
    await talk(tw, upstream, "", 1)
    await hand_in(tw, "/api/traces", {"id": "ab" * 16, "name": "agent", "session_id": "handed in"})
    for number, kind in ((1, "tool_call"), (2, "retrieval")):
        span = {
            "id": f"{number:016x}",
            "trace_id": "ab" * 16,
            "name": "tool",
            "kind": {"type": kind},
        }
        await hand_in(tw, "/api/spans", {**span, "input": {"say": "a tool"}})
        await hand_in(tw, f"/api/spans/{number:016x}/complete", {"output": [number]})
    path = f"/api/sessions/by-id/export?id={quote('a/b: c?d', safe='')}"
    archives = [await exported(tw, path), await exported(tw, "/api/sessions/handed%20in/export")]
    archives.append(await exported(tw, "/api/traces/export"))
    status, answer = await imported(other, b"".join(archives))
    assert status == 200
    assert answer == {"sessions": 2, "traces": 8, "spans": 9, "known_spans": 0}
    assert await everything(other) == await everything(tw)
    assert await other.findings(text_of) == []
    again = [await exported(other, path), await exported(other, "/api/sessions/handed%20in/export")]
    assert [*again, await exported(other, "/api/traces/export")] == archives
    status, answer = await imported(other, b"".join(archives))
    assert (status, answer["spans"], answer["known_spans"]) == (200, 0, 9)


async def test_who_watches_sees_it_at_once(tw: Running, other: Running) -> None:
    await save(tw, spoken(start(1, session_id="s"), ["U:1"], ["A:1"]))
    data = await exported(tw, "/api/sessions/s/export")
    async with watch(other) as watcher:
        assert (await imported(other, data))[0] == 200
        told = await watcher.until("session_updated", session_id="s")
    assert [one["type"] for one in told] == ["trace_created", "session_updated"]


async def test_a_session_is_one_document_with_whole_bodies(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    await talk(tw, upstream, "s", 2)
    (document,) = [
        orjson.loads(line)
        for line in (await exported(tw, "/api/sessions/s/export?format=json")).splitlines()
    ]
    assert document["session"]["id"] == "s"
    spans = [span for trace in document["traces"] for span in trace["spans"]]
    assert spans == [await tw.api(f"/api/spans/{span['id']}") for span in spans]
    assert spans[1]["input"]["messages"][2]["content"] == "Answer 0."


@pytest.mark.parametrize("name", ["jsonl", "json"])
async def test_a_file_has_a_name_that_is_safe_everywhere(tw: Running, name: str) -> None:
    session = '../"a\u202e\r\n; x=é' + "y" * 300
    await save(
        tw, spoken(start(1, session_id=session), ["U:1"], ["A:1"]), start(2, session_id=session)
    )
    path = f"/api/sessions/by-id/export?format={name}&id={quote(session, safe='')}"
    async with tw.client.get(tw.url + path) as answer:
        body, headers = await answer.read(), answer.headers
    given = headers["Content-Disposition"]
    assert given.startswith('attachment; filename="session-.._a_x_y')
    assert given.endswith(f'y.{name}"')
    assert len(given) < 150
    assert headers["X-Traceway-Running"] == "1"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    async with tw.client.head(tw.url + path) as head:
        assert (head.status, await head.read()) == (200, b"")
        assert head.headers["Content-Disposition"] == given
    assert body


async def test_spans_that_run_without_a_session_are_told_with_the_traces(tw: Running) -> None:
    await save(tw, start(1), start(2), start(3, session_id="s"))
    async with tw.client.get(f"{tw.url}/api/traces/export") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert answer.headers["X-Traceway-Running"] == "2"


async def test_what_is_not_there_or_no_format_is_said(tw: Running) -> None:
    assert (await ask(tw, "/api/sessions/none/export")).error == (404, "not_found")
    assert (await ask(tw, "/api/sessions/none/export?format=xml")).error == (400, "bad_parameter")
    assert await exported(tw, "/api/traces/export") == b""


async def test_a_session_is_exported_from_its_project_and_imported_into_the_keys(
    team: Keyed, upstream: ScriptedUpstream
) -> None:
    reading, other = await team.by("alpha", "read"), await team.by("beta", "read")
    await talk(team.tw, upstream, "s", 2, team["alpha", "write"].header)
    data = await exported(reading, "/api/sessions/s/export")
    assert (await ask(other, "/api/sessions/s/export")).status == 404
    assert await exported(other, "/api/traces/export") == b""
    for scope in ("read", "write"):
        assert (await imported(await team.by("beta", scope), data))[0] == 403  # type: ignore[arg-type]
    assert (await imported(await team.by("beta", "admin"), data))[0] == 200
    assert await exported(other, "/api/sessions/s/export") == data
    assert await team.tw.findings(text_of) == []


async def test_what_is_there_and_is_not_the_same_is_a_conflict_that_names_it(
    tw: Running, other: Running
) -> None:
    await save(tw, *(spoken(start(n, session_id=f"s{n}"), ["U:1"], ["A:1"]) for n in (1, 2, 3)))
    data = b"".join([await exported(tw, f"/api/sessions/s{n}/export") for n in (1, 2, 3)])
    await save(other, spoken(start(2, session_id="s2"), ["U:1"], ["A:another"]))
    status, answer = await imported(other, data)
    assert (status, answer["error"]["code"]) == (409, "conflict")
    said = answer["error"]["message"]
    assert f"trace {2:032x}, span {2:016x} of the session 's2'" in said
    assert said.endswith("what is before it was imported: 1 sessions")
    listed = await other.api("/api/sessions")
    assert sorted(one["id"] for one in listed["sessions"]) == ["s1", "s2"]
    assert await other.findings(text_of) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-20], "it was cut"),
        (lambda data: data.replace(b'content\\":\\"1', b'content\\":\\"2'), "is not of its hash"),
        (lambda data: data.replace(b'"version":1', b'"version":9'), "of version 9"),
        (lambda data: b"\x00\xff" * 500 + b"\n", "line 1: "),
        (lambda data: b'{"a":' * 40_000 + b"\n" + data, "line 1: "),
        (lambda data: data.replace(b"\n", b"\n\n", 1), "line 2: "),
    ],
)
async def test_what_is_no_archive_leaves_nothing(
    tw: Running, other: Running, change: Any, reason: str
) -> None:
    await save(tw, spoken(start(1, session_id="s"), ["U:1"], ["A:1"]))
    data = await exported(tw, "/api/sessions/s/export")
    status, answer = await imported(other, change(data))
    assert (status, answer["error"]["code"]) == (400, "bad_archive")
    assert reason in answer["error"]["message"]
    assert answer["error"]["message"].endswith("; nothing was imported")
    assert (await other.api("/api/traces"))["traces"] == []
    assert await other.findings(text_of) == []


async def test_who_leaves_while_an_archive_comes_leaves_nothing_half(
    tw: Running, other: Running, upstream: ScriptedUpstream
) -> None:
    await talk(tw, upstream, "s", 3)
    data = await exported(tw, "/api/sessions/s/export")
    async with connect(other.port) as peer:
        head = b"POST /api/import HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
        await peer.send(head % len(data) + data[:-10])
    assert (await other.api("/api/traces"))["traces"] == []
    assert (await imported(other, data))[0] == 200


async def test_an_archive_that_comes_in_drops_is_taken(tw: Running, other: Running) -> None:
    await save(tw, spoken(start(1, session_id="s"), ["U:1"], ["A:1"]))
    data = await exported(tw, "/api/sessions/s/export")

    async def drops() -> Any:
        for at in range(0, len(data), 50):
            yield data[at : at + 50]
            await asyncio.sleep(0)

    async with other.client.post(other.url + "/api/import", data=drops()) as answer:
        assert answer.status == 200
    assert await exported(other, "/api/sessions/s/export") == data


async def test_a_session_that_goes_while_it_is_read_is_cut_and_never_ended(
    tw: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls, asked = [], ["s:be"]
    for n in range(1, 40):
        asked = [*asked, f"U:{n}"]
        calls.append(spoken(start(n, session_id="s", started_at_us=T0 + n), asked, [f"A:{n}"]))
        asked = [*asked, f"A:{n}"]
    await save(tw, *calls)
    monkeypatch.setattr("storage.archive.PAGE", 4)
    walk = archive._Block._walk
    walks = 0

    async def walked(block: Any, heads: Any) -> Any:
        nonlocal walks
        walks += 1
        if walks == 3:
            await tw.server.recorder.write(lambda tx: delete_session(tx, 1, "s", text_of))
        return await walk(block, heads)

    monkeypatch.setattr(archive._Block, "_walk", walked)
    async with tw.client.get(f"{tw.url}/api/sessions/s/export") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert "the export of a session broke off: a message was changed" in caplog.text


def deleting(tw: Running, monkeypatch: pytest.MonkeyPatch, module: Any, at: int) -> None:
    """Delete the session before a writer of exports looks for it so many times."""
    looks = 0

    async def looked(db: Database, before: Session) -> None:
        nonlocal looks
        looks += 1
        if looks == at:
            delete = functools.partial(
                delete_session, project_id=1, session_id="s", text_of=text_of
            )
            await tw.server.recorder.write(delete)
        await check_stays(db, before)

    monkeypatch.setattr(module, "check_stays", looked)


@pytest.mark.parametrize(
    ("name", "module", "looks"),
    [("json", archive_json, 1), ("html", export, 1), ("finetune", finetune, 2)],
)
async def test_a_session_that_goes_before_its_end_is_cut_in_every_format(
    tw: Running,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    module: Any,
    looks: int,
) -> None:
    await talk(tw, upstream, "s", 2)
    deleting(tw, monkeypatch, module, looks)
    async with tw.client.get(f"{tw.url}/api/sessions/s/export?format={name}") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert "the export of a session broke off: the session was changed" in caplog.text


async def test_a_session_that_goes_before_anything_of_it_is_sent_is_a_conflict(
    tw: Running, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(tw, upstream, "s", 2)
    deleting(tw, monkeypatch, finetune, 1)
    refused = await ask(tw, "/api/sessions/s/export?format=finetune")
    assert (refused.error, refused.headers["Retry-After"]) == ((409, "conflict"), "1")
    assert (await ask(tw, "/api/sessions/s/export?format=finetune")).error == (404, "not_found")


ASKED = '{"role":"user","content":"Hello"}'
PROMPT = '"Hello"'
ITEM = '{"type":"item_reference","id":"msg_1"}'


def meaning_of(data: str) -> str:
    return read_message(data.encode()).meaning.hex()


@pytest.mark.parametrize(
    ("data", "role", "meaning", "status"),
    [
        (ASKED, "user", meaning_of(ASKED), 200),
        (ASKED, "assistant", meaning_of(ASKED), 400),
        (ASKED, "user", "ab" * 16, 400),
        (ASKED, "user", "", 400),
        (PROMPT, "user", meaning_of(PROMPT), 200),
        (PROMPT, "assistant", meaning_of(PROMPT), 200),
        (PROMPT, "system", meaning_of(PROMPT), 400),
        (ITEM, read_message(ITEM.encode()).role, "ab" * 16, 200),
    ],
)
async def test_a_message_comes_in_only_as_what_a_call_with_it_would_be(
    tw: Running, data: str, role: str, meaning: str, status: int
) -> None:
    said = node(data, role=role, meaning=meaning)
    got, told = await imported(tw, b"".join(lines_of(content(data), said)))
    assert got == status
    if status == 400:
        assert "a role or a meaning that is not its own" in told["error"]["message"]


async def test_one_message_is_not_said_in_two_ways(tw: Running) -> None:
    first = node(PROMPT, role="user", meaning=meaning_of(PROMPT))
    second = node(PROMPT, first["hash"], role="assistant", meaning=meaning_of(PROMPT))
    got, _ = await imported(tw, b"".join(lines_of(content(PROMPT), first, second)))
    assert got == 400


async def test_a_message_of_more_values_than_are_read_of_any_body_does_not_come_in(
    tw: Running,
) -> None:
    data = "[" + "[]," * MAX_CONTAINERS + "[]]"
    facts = read_message(data.encode())
    said = node(data, role=facts.role, meaning=facts.meaning.hex())
    status, told = await imported(tw, b"".join(lines_of(content(data), said)))
    assert (status, told["error"]["code"]) == (400, "bad_archive")
    assert "a role or a meaning that is not its own" in told["error"]["message"]


def session_of(n: int, **fields: Any) -> bytes:
    """Write the archive of a session of one trace with one span, each of this number."""
    trace = f"{n:032x}"
    lines = [
        {"type": "traceway", "format": "session", "version": 1},
        {"type": "session", "id": f"s{n}"},
        {"type": "trace", "id": trace, "source": "header"},
        span_line(n, trace=trace, **fields),
    ]
    return b"".join(written(lines))


def having_seen(n: int, call: int) -> bytes:
    return session_of(n, handed_in=True, same_call=f"{call:016x}")


async def call_of(tw: Running, n: int) -> str | None:
    seen: str | None = (await tw.api(f"/api/spans/{n:016x}"))["metadata"]["same_call"]
    return seen


async def test_calls_that_spans_saw_are_looked_for_with_their_session_and_once_at_the_end(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[int] = []
    mark = restore_marks.mark

    def counted(tx: Transaction, marks: list[restore_marks.Mark]) -> list[restore_marks.Mark]:
        looked_for.append(len(marks))
        return mark(tx, marks)

    monkeypatch.setattr(restore_marks, "mark", counted)
    spans = [having_seen(n, 1_000 + n) for n in range(1, 61)]
    calls = [session_of(1_000 + n) for n in range(1, 31)]
    assert (await imported(tw, b"".join([*spans, *calls])))[0] == 200
    assert looked_for == [1] * 60 + [25, 25, 10]
    seen = [await call_of(tw, n) for n in range(1, 61)]
    assert seen == [f"{1_000 + n:016x}" for n in range(1, 31)] + [None] * 30
    assert await tw.findings(text_of) == []


@pytest.mark.parametrize(
    ("last", "status"),
    [(session_of(3, label="other"), 409), (session_of(4)[:-5], 400), (b"nonsense\n", 400)],
)
async def test_calls_that_spans_saw_are_found_however_an_import_ends(
    tw: Running, last: bytes, status: int
) -> None:
    assert (await imported(tw, session_of(3)))[0] == 200
    data = having_seen(1, call=2) + session_of(2) + last
    assert (await imported(tw, data))[0] == status
    assert await call_of(tw, 1) == f"{2:016x}"
    assert await tw.findings(text_of) == []


async def test_what_is_written_for_who_has_left_counts_once_as_well_where_it_was_seen_twice(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, end(start(2, session_id="t"), response_id="resp_1"))
    data = session_of(1, handed_in=True, response_id="resp_1")
    begun, go = threading.Event(), threading.Event()
    left, marked = asyncio.Event(), asyncio.Event()
    write, mark_rest = restore.write, _Import.mark_rest

    def held(tx: Transaction, **part: Any) -> restore.Written:
        begun.set()
        assert go.wait(10)
        return write(tx, **part)

    async def noted(coming: _Import) -> None:
        left.set()
        await mark_rest(coming)
        marked.set()

    monkeypatch.setattr(restore, "write", held)
    monkeypatch.setattr(_Import, "mark_rest", noted)
    try:
        async with asyncio.timeout(10), connect(tw.port) as peer:
            head = b"POST /api/import HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
            await peer.send(head % len(data) + data)
            assert await asyncio.to_thread(begun.wait, 10)
            peer.cut()
            await left.wait()
    finally:
        go.set()  # the writer waits for it, and the server's end for the writer
    async with asyncio.timeout(10):
        await marked.wait()
    assert await call_of(tw, 1) == f"{2:016x}"
    assert await tw.findings(text_of) == []
