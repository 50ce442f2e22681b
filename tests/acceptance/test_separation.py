"""Nobody sees or changes anything of another project, whatever they know of it.

Two projects have the same sessions, texts, ids and callers. By enumeration: with each id of alpha's
in each place of each route, beta's keys get to the letter what they get for an id that nobody has.
By comparison: all that beta reads is what it reads on a server where alpha never made a call.
Admins manage the keys and projects of all; of what is recorded, theirs is one project at a time.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from yarl import URL

from proxy.providers.messages import text_of
from storage.parameters import Change, prepare
from storage.records import SpanStart
from storage.writes import apply
from tests.api.asking import ask
from tests.api.watching import Watching
from tests.calling import DONE, delta
from tests.keyed import Keyed, keyed
from tests.running import CHAT, Running
from tests.storage.calls import start
from tests.storage.mixed import mixed
from tests.table import USE, Row, stored, table
from tests.ui.rich import data_url, png
from tests.wire import Peer, ScriptedUpstream, connect

# Their own key to the provider, the same in both projects.
CALLER = b"Authorization: Bearer sk-the-same-0123456789\r\n"
ANSWER = (
    b'{"id":"resp_1","model":"gpt-5","choices":[{"message":{"role":"assistant","content":"%b"}}]}'
)


def asking(*texts: str, **more: Any) -> bytes:
    """Give a chat request: what the user said, and the model, by turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return orjson.dumps({"model": "gpt-5", "messages": messages, **more})


async def call(team: Keyed, project: str, body: bytes, session: str = "", path: str = CHAT) -> None:
    """Make a call with a project's write key beside the caller's own."""
    headers = team[project, "write"].header + CALLER + b"Content-Type: application/json\r\n"
    if session:
        headers += b"X-Traceway-Session-Id: %b\r\n" % quote(session).encode()
    got = await team.tw.raw(path.encode(), headers=headers, body=body)
    assert got.status in (200, 500), got
    await team.tw.saved()


PICTURE = {
    "role": "user",
    "content": [
        {"type": "text", "text": "a zebra"},
        {"type": "image_url", "image_url": {"url": data_url(png())}},
    ],
}


async def make_calls(team: Keyed, project: str, sessions: Sequence[str]) -> None:
    """Make calls of each kind in a project, with these sessions and in one that is inferred."""
    tools = [{"type": "function", "function": {"name": "look", "description": "x" * 300}}]
    for session in sessions:
        await call(team, project, asking("hello", tools=tools), session)
        await call(team, project, asking("hello", "good day", "bye", tools=tools), session)
        picture = orjson.dumps({"model": "gpt-5", "messages": [PICTURE]})
        await call(team, project, picture, session)
    await call(team, project, asking("what is it"))
    await call(team, project, asking("what is it", "good day", "oh"))


def like(value: str) -> str:
    """Give a value of the same shape that is nobody's."""
    digits = "0123456789abcdef"
    found = "".join(digits[15 - digits.index(c)] if c in digits else c for c in value[:16])
    return found + value[16:]


async def known_of_alpha(team: Keyed) -> dict[str, tuple[str, str]]:
    """Give by kind an id that alpha has and beta has not, and one like it that is nobody's."""
    alpha = await team.by("alpha", "read")
    session = await alpha.api("/api/sessions/alpha-only")
    conversation = await alpha.api("/api/sessions/alpha-only/conversation")
    inferred = [s for s in (await alpha.api("/api/sessions"))["sessions"] if "auto_" in s["id"]]
    trace = session["traces"][0]["id"]
    (span,) = (await alpha.api(f"/api/traces/{trace}"))["spans"]
    ids = {
        "session": ("alpha-only", "alpha-onlz"),
        "inferred": (inferred[0]["id"], "auto_" + like(inferred[0]["id"][5:])),
        "trace": (trace, like(trace)),
        "span": (span["id"], like(span["id"])),
        "key": (str(team["alpha", "read"].key_id), "9"),
        "project": ("alpha", "alphz"),
    }
    assert len(conversation["messages"]) > 6
    for message in conversation["messages"][:3]:
        ids[f"message {message['position']}"] = (message["id"], like(message["id"]))
    return ids


@asynccontextmanager
async def both(folder: Path, upstream: ScriptedUpstream) -> AsyncIterator[Keyed]:
    """Run a server on which both projects made the same calls, and alpha some more."""
    upstream.answers(ANSWER % b"good day")
    async with keyed(folder, upstream.url) as team:
        await make_calls(team, "alpha", ["shared", "a/b"])
        await make_calls(team, "beta", ["shared", "a/b"])
        await make_calls(team, "alpha", ["alpha-only"])
        yield team


# What may differ from one answer to the next: the time, and how long ago something was.
_NOW = re.compile(rb"\b\d+(\.\d+)? ?(ms|s|min|h|seconds?|minutes?) ago|just now|now\b")


async def asked(tw: Running, row: Row, path: str, value: str) -> tuple[Any, ...]:
    """Make a request; give what of its answer must not depend on whose a value is."""
    url = URL(tw.url + path, encoded=True)
    async with tw.client.request(row.method, url, allow_redirects=False) as answer:
        body = await answer.read()
        for spelling in (path, quote(path, safe="")):
            body = body.replace(spelling.encode(), b"<path>")
        if len(value) > 3:  # no number, which may mean anything
            for spelling in (value, quote(value, safe="")):
                body = body.replace(spelling.encode(), b"<value>")
        headers = {k: v for k, v in answer.headers.items() if k not in ("Date", "Content-Length")}
        return answer.status, headers, _NOW.sub(b"<ago>", body)


def is_servers(row: Row) -> bool:
    """Tell whether a route is about what is the server's: keys, projects, and how it does."""
    return "read" not in (row.need or ()) or row.path in ("/metrics", "/api/health")


# Every name that some route reads from its query.
NAMES = ("id", "session_id", "session", "branch", "at", "span", "new", "cursor", "since", "from")
SEARCHES = ("session:{}", "{}", "-session:{}")
PLACE = "PLACE"


def guesses(row: Row, kind: str) -> list[str]:
    """Give the addresses of a route with a value's place in them: in its path, or in its query.

    With it in the query, what the path names is beta's own.
    """
    if (kind in ("key", "project")) is not is_servers(row):
        return []
    found = [row.filled({row.places[0]: PLACE})] if row.places else []
    if row.method == "GET" and kind in ("session", "inferred", "trace", "span", "message 2"):
        own = row.filled(dict.fromkeys(row.places, "shared"))
        found += [f"{own}?{name}={PLACE}" for name in NAMES]
        found += [f"{own}?q={quote(search.format(PLACE))}" for search in SEARCHES]
    return found


async def test_an_id_of_another_project_is_an_id_that_nobody_has(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with both(tmp_path, upstream) as team:
        known = await known_of_alpha(team)
        before = await stored(team.tw, USE)
        upstream.requests.clear()
        readers = [await team.by("beta", "read"), await team.by_cookie("beta", "read")]
        admins = [await team.by("beta", "admin"), await team.by_cookie("beta", "admin")]
        seen_count = 0
        for row in table(team.tw):
            if row.path == "/api/events" or "/api/proxy/" in row.path:
                continue  # by themselves, below
            for kind, values in known.items():
                for guess in guesses(row, kind):
                    for tw in readers if is_servers(row) else [readers[0], *admins]:
                        seen = [
                            await asked(tw, row, guess.replace(PLACE, quote(value, safe="")), value)
                            for value in values
                        ]
                        seen_count += 1
                        assert seen[0] == seen[1], (row, guess)
                        assert seen[0][0] < 500
        assert seen_count > 1000
        assert upstream.requests == []
        assert await stored(team.tw, USE) == before


async def test_a_place_in_alphas_list_is_one_in_betas_and_shows_what_is_betas(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with both(tmp_path, upstream) as team:
        alpha, beta = await team.by("alpha", "read"), await team.by("beta", "read")
        for rows in ("sessions", "traces", "spans"):
            for more in ("", "&q=hello", "&sort_by=started&sort_order=asc"):
                own = (await beta.api(f"/api/{rows}?limit=1000{more}"))[rows]
                assert own
                theirs = (await alpha.api(f"/api/{rows}?limit=1000{more}"))[rows]
                assert len(theirs) > len(own)
                for limit in (1, 2, 5):
                    cursor = ""
                    while cursor is not None:
                        path = f"/api/{rows}?limit={limit}&cursor={cursor}{more}"
                        page = await alpha.api(path)
                        seen = await ask(beta, path.replace(f"limit={limit}", "limit=1000"))
                        assert all(row in own for row in seen.body[rows])
                        cursor = page.get("cursor")


# All that beta may ask for, with the ids of the calls below in the places of each route.


def calls_of(project_id: int, seed: int) -> list[Change]:
    """Make a project's calls: the same ids, sessions and words for all projects."""
    found: list[Change] = []
    for change in mixed(seed):
        if isinstance(change, SpanStart):
            found.append(replace(change, project_id=project_id))
        else:
            assert not isinstance(change, tuple)
            begun = replace(change.start, project_id=project_id)  # type: ignore[union-attr]
            found.append(replace(change, start=begun))  # type: ignore[type-var,call-arg]
    return found


LISTS = (
    "",
    "?limit=7",
    "?q=alpha",
    "?q=alpha%20beta&limit=5",
    "?q=-gamma&sort_order=asc",
    "?q=session:a",
    "?q=session:a*",
    "?q=model:gpt-5%20status:failed",
    "?q=provider:other",
    "?q=user:u1",
    "?q=cost:%3E0.1",
    "?q=input:delta",
    "?sort_by=cost",
    "?sort_by=started&sort_order=asc&limit=3",
    "?id=a&id=b&id=nobody",
    "?session_id=a",
)
SUGGESTED = ("", "session:", "session:a", "model:", "user:", "provider:", "se")
# Where a page goes on; and what a server counts over all projects.
_PLACES = re.compile(rb'"cursor":"[^"]*"|cursor=[\w-]*|data-since="\d+"|since=\d+|"held_bytes":\d+')


async def everything(tw: Running) -> dict[str, Any]:
    """Read all that a key can read, by every route."""
    sessions = [s["id"] for s in (await tw.api("/api/sessions?limit=1000"))["sessions"]]
    traces = [t["id"] for t in (await tw.api("/api/traces?limit=1000"))["traces"]]
    spans = [s["id"] for s in (await tw.api("/api/spans?limit=1000"))["spans"]]
    messages = []
    for session in sessions:
        page = await tw.api(f"/api/sessions/{quote(session, safe='')}/conversation?limit=1000")
        messages += [message["id"] for message in page["messages"]]
    assert min(map(len, (sessions, traces, spans, messages))) > 3
    ids = {"sessions": sessions, "traces": traces, "spans": spans, "messages": messages}
    found: dict[str, Any] = {}
    for row in table(tw):
        if row.method != "GET" or row.path == "/api/events" or is_servers(row):
            continue
        if "/api/proxy/" in row.path or row.path.startswith(("/static/", "/api/self")):
            continue
        paths = [row.path]
        if row.places:
            of = next((kind for kind in ids if f"/{kind}/" in row.path), "messages")
            places = dict.fromkeys(row.places, "")
            paths = [row.filled({**places, row.places[0]: quote(one, safe="")}) for one in ids[of]]
        elif row.path.endswith("/suggest"):
            paths = [f"{row.path}?q={q}" for q in SUGGESTED]
        elif row.path.endswith(("by-id", "by-id/conversation", "by-id/live")):
            paths = [f"{row.path}?id={quote(one, safe='')}" for one in sessions]
        elif row.path.endswith(("sessions", "traces", "spans", "totals")):
            paths = [row.path + query for query in LISTS]
        elif row.path.endswith("rows"):
            paths = [row.path + "".join(f"?id={one}" for one in [*sessions, *traces][:50])]
        for path in paths:
            async with tw.client.get(URL(tw.url + path, encoded=True)) as answer:
                body = _PLACES.sub(b"", _NOW.sub(b"", await answer.read()))
                body = body.replace(b":%d/" % tw.port, b"/")
                assert answer.status in (200, 400, 404), (path, body)
                found[path] = answer.status, body
    assert len(found) > 300
    return found


async def write(team: Keyed, changes: Sequence[Change]) -> None:
    await team.tw.server.recorder.write(lambda tx: apply(tx, prepare(changes)))


async def told(team: Keyed, project: str) -> list[Any]:
    """Read a project's events from the first on, up to those of a call that is made now."""
    mark = start(9_999, project_id=team[project, "read"].project_id)
    await write(team, [mark])
    async with watching(team, project, "since=0") as stream:
        events = await stream.until("span_created", span_id=mark.span_id.hex())
        return [{**event, "at": None} for event in events]


@asynccontextmanager
async def watching(
    team: Keyed, project: str, query: str = "", last: str = ""
) -> AsyncIterator[Watching]:
    async with connect(team.tw.port) as peer:
        head = f"GET /api/events?{query} HTTP/1.1\r\nHost: localhost\r\n".encode()
        head += f"Last-Event-ID: {last}\r\n".encode() if last else b""
        await peer.send(head + team[project, "read"].header + b"\r\n")
        stream = Watching(peer, await peer.head())
        assert stream.head.status == 200
        await stream.frame()
        yield stream


@pytest.mark.parametrize("seed", [1, 2])
async def test_all_that_a_project_reads_is_as_if_it_were_alone(
    tmp_path: Path, upstream: ScriptedUpstream, seed: int
) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "mixed").mkdir()
    async with keyed(tmp_path / "alone", upstream.url) as team:
        beta_id = team["beta", "read"].project_id
        own = calls_of(beta_id, seed)
        for n in range(0, len(own), 10):
            await write(team, own[n : n + 10])
        events = await told(team, "beta")
        alone = await everything(await team.by("beta", "read"))
    async with keyed(tmp_path / "mixed", upstream.url) as team:
        theirs = [calls_of(team["alpha", "read"].project_id, s) for s in (seed + 10, seed)]
        for n in range(0, len(own), 10):
            await write(team, [*theirs[0][n : n + 10], *own[n : n + 10]])
            await write(team, theirs[1][n : n + 10])
        assert await told(team, "beta") == events
        beta = await team.by("beta", "read")
        mixed_up = await everything(beta)
        assert mixed_up.keys() == alone.keys()
        for path, answer in alone.items():
            assert mixed_up[path] == answer, path

        # What alpha deletes is alpha's.
        alpha = await team.by("alpha", "admin")
        for rows in ("sessions", "traces"):
            for one in (await alpha.api(f"/api/{rows}?limit=1000"))[rows]:
                reply = await ask(alpha, f"/api/{rows}/{quote(one['id'], safe='')}", "DELETE")
                assert reply.status == 200
        assert (await alpha.api("/api/stats"))["trace_count"] == 0
        after = await everything(beta)
        assert {path for path in after if after[path] != alone[path]} == set()
        assert await team.tw.findings(text_of) == []


async def test_deleting_leaves_the_same_bodies_of_the_other_project_whole(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with both(tmp_path, upstream) as team:
        for deleting, keeping in (("alpha", "beta"), ("beta", "alpha")):
            keeper = await team.by(keeping, "read")
            bodies = await bodies_of(keeper)
            assert len({body for pair in bodies.values() for body in pair}) > 4
            deleter = await team.by(deleting, "admin")
            for session in ("shared", "a/b"):
                path = f"/api/sessions/{quote(session, safe='')}"
                assert (await ask(deleter, path, "DELETE")).status == 200
                assert (await ask(deleter, path)).error == (404, "not_found")
            assert await bodies_of(keeper) == bodies
            found = await keeper.api("/api/sessions?q=zebra")
            assert found["count"] >= 2
            assert await team.tw.findings(text_of) == []
            await make_calls(team, deleting, ["shared", "a/b"])


async def bodies_of(tw: Running) -> dict[str, tuple[bytes, bytes]]:
    """Read both bodies of every call, by its span's id."""
    found = {}
    for span in (await tw.api("/api/spans?limit=1000"))["spans"]:
        pair = []
        for which in ("request", "response"):
            async with tw.client.get(f"{tw.url}/api/spans/{span['id']}/{which}") as answer:
                assert answer.status == 200
                pair.append(await answer.read())
        found[span["id"]] = pair[0], pair[1]
    return found


async def sessions_of(team: Keyed, project: str) -> dict[str | None, int]:
    """Count a project's traces by session."""
    found: Counter[str | None] = Counter()
    for trace in (await (await team.by(project, "read")).api("/api/traces"))["traces"]:
        found[trace["session_id"]] += 1
    return dict(found)


async def test_a_conversation_is_never_gone_on_with_in_another_project(
    team: Keyed, upstream: ScriptedUpstream
) -> None:
    """The same caller, the same words: each project's conversation has its own calls alone."""
    upstream.answers(ANSWER % b"good day")
    first, second = asking("what is it"), asking("what is it", "good day", "oh")
    third = asking("what is it", "good day", "oh", "good day", "well")
    await call(team, "alpha", first)
    await call(team, "beta", second)
    assert await sessions_of(team, "alpha") == {None: 1}
    assert await sessions_of(team, "beta") == {None: 1}
    await call(team, "alpha", second)
    (inferred,) = await sessions_of(team, "alpha")
    assert await sessions_of(team, "alpha") == {inferred: 2}
    assert await sessions_of(team, "beta") == {None: 1}
    await call(team, "beta", third)
    (others,) = await sessions_of(team, "beta")
    assert others not in (None, inferred)
    assert await sessions_of(team, "beta") == {others: 2}
    assert await sessions_of(team, "alpha") == {inferred: 2}
    for project in ("alpha", "beta"):
        tw = await team.by(project, "read")
        assert (await tw.api("/api/stats"))["trace_count"] == 2
        for request, _ in (await bodies_of(tw)).values():
            assert request in (first, second, third)


async def test_an_answer_of_another_project_is_no_answer_to_go_on_from(
    team: Keyed, upstream: ScriptedUpstream
) -> None:
    path = CHAT.replace("chat/completions", "responses")
    numbers = count(1)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            words = [{"type": "output_text", "text": "a"}]
            number = next(numbers)
            said = {"id": f"msg_{number}", "type": "message", "role": "assistant", "content": words}
            answer = {"id": f"resp_{number}", "status": "completed", "output": [said]}
            await peer.respond(orjson.dumps(answer))

    upstream.script = script
    first = orjson.dumps({"model": "gpt-5", "input": "what is it"})
    second = orjson.dumps({"model": "gpt-5", "input": "oh", "previous_response_id": "resp_1"})
    third = orjson.dumps(
        {
            "model": "gpt-5",
            "input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "b"}],
        }
    )
    await call(team, "alpha", first, "theirs", path)
    await call(team, "beta", second, path=path)
    await call(team, "beta", third, path=path)
    assert await sessions_of(team, "beta") == {None: 2}
    await call(team, "alpha", second, path=path)
    assert await sessions_of(team, "alpha") == {"theirs": 2}
    assert (await (await team.by("beta", "read")).api("/api/health"))["status"] == "ok"
    conversation = await (await team.by("alpha", "read")).api("/api/sessions/theirs/conversation")
    assert [m["text"] for m in conversation["messages"]] == ["what is it", "a", "oh", "a"]
    # What a reference refers to is of its own project, so that here it refers to nothing.
    meanings = {
        project: await team.tw.database.read(
            "SELECT DISTINCT m.meaning FROM messages m JOIN contents c ON c.id = m.content_id"
            " WHERE c.project_id = :p AND CAST(c.data AS TEXT) LIKE '%msg_1%'",
            {"p": team[project, "read"].project_id},
        )
        for project in ("alpha", "beta")
    }
    assert {len(found) for found in meanings.values()} == {1}
    assert meanings["alpha"] != meanings["beta"]


async def test_events_are_those_of_the_project(team: Keyed, upstream: ScriptedUpstream) -> None:
    """Live, from the first on, from a number that is another project's, and by a filter."""
    upstream.answers(ANSWER % b"good day")
    await call(team, "alpha", asking("old"), "shared")
    async with (
        watching(team, "beta", "progress=1") as live,
        watching(team, "beta", "session=alpha-only") as filtered,
        watching(team, "alpha") as theirs,
    ):
        await call(team, "alpha", asking("one"), "shared")
        await call(team, "alpha", asking("two"), "alpha-only")
        await theirs.until("session_updated", session_id="alpha-only")
        await call(team, "beta", asking("three"), "shared")
        events = await live.until("session_updated", session_id="shared")
        assert {e["session_id"] for e in events} == {"shared"}
        assert events[-1]["session"]["trace_count"] == 1
        ids = {
            t["id"] for t in (await (await team.by("beta", "read")).api("/api/traces"))["traces"]
        }
        assert {e["trace_id"] for e in events if "trace_id" in e} == ids
        at = int(theirs.position)
        for since in (0, at, at - 1):
            async with watching(team, "beta", f"since={since}") as replayed:
                assert await replayed.events(len(events)) == events
            async with watching(team, "beta", last=str(since)) as replayed:
                assert await replayed.events(len(events)) == events
        await call(team, "beta", asking("four"), "alpha-only")
        (first, *_) = await filtered.until("session_updated", session_id="alpha-only")
        assert first["trace_id"] not in {e.get("trace_id") for e in events}


async def test_the_text_of_a_running_stream_is_told_in_its_project_alone(
    team: Keyed, upstream: ScriptedUpstream
) -> None:
    went_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.request()
        word = b"alphas" if b"alphas" in request.body else b"betas"
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            + delta(f"{word.decode()} words")
        )
        await went_on.wait()
        await peer.send(DONE)

    upstream.script = script
    async with (
        watching(team, "alpha", "progress=1&session=shared") as alpha,
        watching(team, "beta", "progress=1&session=shared") as beta,
        asyncio.TaskGroup() as calls,
    ):
        for project in ("alpha", "beta"):
            body = asking(f"{project}s", stream=True, stream_options={"include_usage": True})
            calls.create_task(call(team, project, body, "shared"))
        for stream, word in ((alpha, "alphas"), (beta, "betas")):
            events = await stream.until("span_progress")
            assert events[-1]["text"].startswith(f"{word} word")
            assert len({event["trace_id"] for event in events if "trace_id" in event}) == 1
        went_on.set()


async def test_a_session_and_a_trace_that_a_call_names_are_the_projects_own(
    team: Keyed, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER % b"good day")
    parent = b"traceparent: 00-%b-%b-01\r\n" % (b"1" * 32, b"2" * 16)
    for project in ("alpha", "beta", "alpha"):
        headers = team[project, "write"].header + CALLER + parent
        headers += b"X-Traceway-Session-Id: shared\r\nX-Traceway-Trace-Id: %b\r\n" % (b"1" * 32)
        assert (await team.tw.raw(CHAT.encode(), headers=headers, body=asking("a"))).status == 200
    await team.tw.saved()
    for project, calls in (("alpha", 2), ("beta", 1)):
        tw = await team.by(project, "read")
        assert (await tw.api("/api/sessions/shared"))["span_count"] == calls
        assert (await tw.api("/api/stats"))["span_count"] == calls
    traces = [t for p in ("alpha", "beta") for t in await sessions_of(team, p)]
    assert traces == ["shared", "shared"]
