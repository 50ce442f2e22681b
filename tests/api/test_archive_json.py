"""A session as one document: the API's own views, trace by trace, in one line."""

import gzip
import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from proxy.api import archive_json, bodies
from proxy.api.archive_json import JsonExport
from proxy.api.span_views import span_view
from proxy.providers.messages import text_of
from storage import packed_spans
from storage.archive import ArchiveChanged
from storage.database import Transaction
from storage.erase import EVERY_CALL
from storage.forget import delete_session, delete_trace
from storage.forgetting import forget_contents
from storage.handed import Said
from storage.intake import take
from storage.sqlite import SqliteDatabase
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import T0, body, end, spoken, start, trace_id
from tests.storage.handing import NOW_US, Words, begun, done


async def test_it_has_all_traces_oldest_first_however_many_are_read_at_once(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_json, "TRACES", 3)
    calls = [
        spoken(start(n, session_id="s", trace=n - n % 2, started_at_us=T0 + n), ["u:1"], ["a:1"])
        for n in range(2, 12)
    ]
    await save(tw, *calls)
    pieces = [piece async for piece in JsonExport(tw.database).pieces(1, "s")]
    data = b"".join(pieces)
    assert data.count(b"\n") == 1
    document = orjson.loads(data)
    ids = [trace["id"] for trace in document["traces"]]
    assert ids == [f"{n:032x}" for n in (2, 4, 6, 8, 10)]
    spans = [[span["id"] for span in trace["spans"]] for trace in document["traces"]]
    assert spans == [[f"{n:016x}", f"{n + 1:016x}"] for n in (2, 4, 6, 8, 10)]
    session = await tw.api("/api/sessions/s")
    session.pop("traces")
    assert document["session"] == session


async def test_what_was_indented_is_in_the_same_line_with_every_digit(tw: Running) -> None:
    indented = body(
        b'{\n  "n": 1.500,\r\n  "text": "two\\nlines"\n}\n', content_type="application/json"
    )
    call = end(start(1, session_id="s"), request=indented, response=indented)
    said = Said(kind="tool_call", attributes=b'{"kind":{\n"n":2.50},"metadata":{\r\n"m":[\r3.0]}}')
    items = [begun(2, session_id="s", said=said, end=done(2))]
    await save(tw, call)
    await tw.server.recorder.write(lambda tx: take(tx, items, NOW_US, Words()))
    data = b"".join([piece async for piece in JsonExport(tw.database).pieces(1, "s")])
    assert data.endswith(b"\n")
    assert data.splitlines() == [data[:-1]]
    assert data.count(b'{   "n": 1.500,    "text": "two\\nlines" } ') == 2
    assert b'{ "n":2.50}' in data
    assert b'{  "m":[ 3.0]}' in data
    spans = [span for trace in orjson.loads(data)["traces"] for span in trace["spans"]]
    assert len(spans) == 2
    assert spans == [await tw.api(f"/api/spans/{span['id']}") for span in spans]


async def test_a_body_that_is_not_unpacked_whole_is_null_and_said_to_be_stored(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SHOWN_BYTES", 50)
    packed = body(
        gzip.compress(b'"%b"' % (b"x" * 100)),
        content_type="application/json",
        content_encoding="gzip",
    )
    await save(tw, end(start(1, session_id="s"), request=packed, response=body(b'"shown"')))
    pieces = [piece async for piece in JsonExport(tw.database).pieces(1, "s")]
    (span,) = orjson.loads(b"".join(pieces))["traces"][0]["spans"]
    assert (span["input"], span["output"]) == (None, '"shown"')
    assert span["metadata"]["request"]["stored"] is True
    assert span == await tw.api(f"/api/spans/{1:016x}")


async def test_spans_are_written_beside_the_event_loop(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, spoken(start(1, session_id="s"), ["u:1"], ["a:1"]))
    threads: list[threading.Thread] = []

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return span_view(*given)

    monkeypatch.setattr(archive_json, "span_view", noted)
    assert [piece async for piece in JsonExport(tw.database).pieces(1, "s")]
    assert len(threads) == 1
    assert threading.main_thread() not in threads


async def test_there_is_none_of_a_session_that_is_not_there(tw: Running) -> None:
    database: SqliteDatabase = tw.database
    with pytest.raises(LookupError):
        await anext(JsonExport(database).pieces(1, "s"))


@pytest.mark.parametrize(("at_once", "most_bytes"), [(2, 8_000_000), (1_000, 1)])
async def test_it_has_all_spans_of_a_trace_however_many_are_read_at_once(
    tw: Running, monkeypatch: pytest.MonkeyPatch, at_once: int, most_bytes: int
) -> None:
    monkeypatch.setattr(archive_json, "SPANS", at_once)
    monkeypatch.setattr(packed_spans, "ANSWER_BYTES", most_bytes)
    await save(tw, *(end(start(n, trace=1, session_id="s")) for n in (3, 1, 5, 2, 4)))
    data = b"".join([piece async for piece in JsonExport(tw.database).pieces(1, "s")])
    (trace,) = orjson.loads(data)["traces"]
    assert [span["name"] for span in trace["spans"]] == [f"call {n}" for n in range(1, 6)]


async def cut(tw: Running, at: int, change: Callable[[Transaction], object]) -> str:
    """Change something behind so many pieces of a document; give why it has no end then."""
    pieces = []

    async def read() -> None:
        async for piece in JsonExport(tw.database).pieces(1, "s"):
            pieces.append(piece)
            if len(pieces) == at:
                await tw.server.recorder.write(change)

    with pytest.raises(ArchiveChanged) as error:
        await read()
    assert len(pieces) >= at
    return str(error.value)


# The session, and of each of three traces its beginning, its span and its end.
PIECES = 1 + 3 * 3


async def three_traces(tw: Running) -> None:
    calls = [spoken(start(n, session_id="s"), [f"U:{n}"], [f"A:{n}"]) for n in (1, 2, 3)]
    await save(tw, *calls)


@pytest.mark.parametrize("at", range(1, PIECES + 1))
async def test_a_session_that_is_deleted_meanwhile_has_no_end(tw: Running, at: int) -> None:
    await three_traces(tw)
    await cut(tw, at, lambda tx: delete_session(tx, 1, "s", text_of))


@pytest.mark.parametrize("at", range(1, PIECES + 1))
async def test_a_session_of_which_a_trace_is_deleted_meanwhile_has_no_end(
    tw: Running, at: int
) -> None:
    await three_traces(tw)
    await cut(tw, at, lambda tx: delete_trace(tx, 1, trace_id(2), text_of))


async def test_a_session_from_which_a_trace_is_taken_meanwhile_has_no_end(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_json, "TRACES", 1)
    await three_traces(tw)
    # Its row may say that another came.
    taken = "UPDATE traces SET session_id = 't' WHERE session_id = 's' AND seq > 2"
    assert "a trace was changed" in await cut(tw, 4, lambda tx: tx.execute(taken, {}))


async def test_a_session_from_which_a_call_is_taken_meanwhile_has_no_end(tw: Running) -> None:
    await three_traces(tw)
    taken = "UPDATE spans SET trace_id = (SELECT trace_id FROM spans WHERE seq = 1) WHERE seq = 2"
    assert "a trace was changed" in await cut(tw, 4, lambda tx: tx.execute(taken, {}))


async def test_a_body_that_is_forgotten_meanwhile_is_not_called_none(tw: Running) -> None:
    calls = [spoken(start(n, session_id="s", trace=1), [f"U:{n}"], [f"A:{n}"]) for n in (1, 2)]
    await save(tw, *calls)
    how: dict[str, Any] = {"now_us": NOW_US, "most_spans": 99, "before_seq": EVERY_CALL}
    said = await cut(tw, 3, lambda tx: forget_contents(tx, [(1, trace_id(1))], text_of, **how))
    assert "a body was changed" in said
    pieces = [piece async for piece in JsonExport(tw.database).pieces(1, "s")]
    spans = orjson.loads(b"".join(pieces))["traces"][0]["spans"]
    assert [span["input"] for span in spans] == [None, None]


async def test_what_comes_meanwhile_is_no_reason_to_cut_a_session(tw: Running) -> None:
    await three_traces(tw)
    pieces = []
    async for piece in JsonExport(tw.database).pieces(1, "s"):
        pieces.append(piece)
        if len(pieces) == 3:
            await save(tw, spoken(start(4, session_id="s"), ["U:4"], ["A:4"]))
    assert len(orjson.loads(b"".join(pieces))["traces"]) >= 3
