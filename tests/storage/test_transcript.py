"""What is read of a session for its threads, from a database that calls were written to."""

import orjson
import pytest

from storage import forget, transcript
from storage.database import Database, Params, Row
from storage.handed import Said
from storage.lines import Line, lines
from storage.records import Body, Envelope
from storage.threads import Setting, Tree
from storage.transcript import (
    are_there,
    message,
    message_contents,
    session_turns,
    turn_ids,
    turn_spans,
)
from tests.storage.calls import end, rows, span_id, start, text_of, trace_id
from tests.storage.handing import begun, done, hand_in, talk_said
from tests.storage.talks import CHAT, call, chat, save

ANSWERING = frozenset({CHAT, "responses"})


async def lines_of(db: Database, session_id: str = "s") -> list[Line]:
    return lines(Tree(await session_turns(db, 1, session_id, ANSWERING)), {})


async def read(db: Database) -> list[str]:
    """Give what stands in the newest path of each thread: texts, or else the kind of the line."""
    found = await lines_of(db)
    ids = [line.entry.said.content_id for line in found if line.entry and line.entry.said]
    data = await message_contents(db, 1, ids, 1 << 20)
    return [
        orjson.loads(data[line.entry.said.content_id])["say"]
        if line.entry and line.entry.said
        else line.kind
        for line in found
    ]


async def test_a_chat_of_n_turns_reads_as_2n_messages(db: Database) -> None:
    save(db, *chat(4))
    assert await read(db) == ["u:1", "a:1", "u:2", "a:2", "u:3", "a:3", "u:4", "a:4"]


async def test_only_what_is_new_in_a_turn_is_read_of_it(db: Database) -> None:
    save(db, *chat(4))
    turns = await session_turns(db, 1, "s", ANSWERING)
    assert [(len(turn.inputs), len(turn.answers)) for turn in turns] == [(1, 1)] * 4
    assert [said.depth for turn in turns for said in (*turn.inputs, *turn.answers)] == [
        *range(1, 9)
    ]


async def test_a_deleted_turn_takes_no_message_with_it_that_a_later_one_sent(
    db: Database,
) -> None:
    save(db, *chat(4))
    with db.transaction() as tx:
        forget.delete_trace(tx, 1, trace_id(2), text_of)
    assert await read(db) == ["u:1", "a:1", "u:2", "a:2", "u:3", "a:3", "u:4", "a:4"]
    turns = [line.turn.span_id for line in await lines_of(db)]
    assert turns == [span_id(n) for n in (1, 1, 3, 3, 3, 3, 4, 4)]


async def test_of_another_session_nothing_is_read(db: Database) -> None:
    save(db, *chat(2))
    assert await lines_of(db, "t") == []


async def test_a_prompt_stands_at_the_beginning_and_where_it_changed(db: Database) -> None:
    save(
        db,
        call(1, ["s:brief", "u:1"], "a:1"),
        call(2, ["s:brief", "u:1", "a:1", "u:2"], "a:2"),
        call(3, ["s:long", "u:1", "a:1", "u:2", "a:2", "u:3"], "a:3"),
        call(4, ["s:long", "u:1", "a:1", "u:2", "a:2", "u:3", "a:3", "u:4"], "a:4"),
    )
    assert await read(db) == [
        *("prompt", "u:1", "a:1", "u:2", "a:2"),
        *("prompt", "u:3", "a:3", "u:4", "a:4"),
    ]


async def test_tools_and_instructions_in_the_request_are_told_by_their_contents(
    db: Database,
) -> None:
    save(
        db,
        call(1, ["u:1"], "a:1", tools=[{"name": "a"}], instructions="brief"),
        call(2, ["u:1", "a:1", "u:2"], "a:2", tools=[{"name": "a"}], instructions="brief"),
        call(3, ["u:1", "a:1", "u:2", "a:2", "u:3"], "a:3", tools=[{"name": "b"}]),
        call(4, ["u:1", "a:1", "u:2", "a:2", "u:3", "a:3", "u:4"], "a:4", tools=[]),
    )
    assert await read(db) == [
        *("prompt", "tools", "u:1", "a:1", "u:2", "a:2"),
        *("prompt", "tools", "u:3", "a:3", "tools", "u:4", "a:4"),
    ]
    found = await lines_of(db)
    assert isinstance(found[1].tools.tools, int)
    data = await message_contents(db, 1, [found[1].tools.tools], 1 << 20)
    assert list(data.values()) == [b'[{"name":"a"}]']


async def test_small_values_of_a_request_are_told_by_their_bytes(db: Database) -> None:
    body = Body(size=1, envelope=Envelope((b'{"tools": [1],"messages":[', b"]}"), (None,)))
    save(db, call(1, ["u:1"], "a:1", request=body))
    (turn,) = await session_turns(db, 1, "s", ANSWERING)
    assert turn.setting == Setting(tools=b"[1]")


@pytest.mark.parametrize("number", [b"0", b"1", b"1e3"])
async def test_a_number_that_a_client_sent_is_no_content_of_that_id(
    db: Database, number: bytes
) -> None:
    body = Body(size=1, envelope=Envelope((b'{"tools":%b,"messages":[' % number, b"]}"), (None,)))
    save(db, call(1, ["u:1"], "a:1", request=body))
    (turn,) = await session_turns(db, 1, "s", ANSWERING)
    assert turn.setting == Setting(tools=number)


async def test_an_envelope_that_is_no_json_says_nothing(db: Database) -> None:
    body = Body(size=1, envelope=Envelope((b'{"tools": [1],"messages":[', b"}"), (None,)))
    save(db, call(1, ["u:1"], "a:1", request=body))
    (turn,) = await session_turns(db, 1, "s", ANSWERING)
    assert turn.setting is None


async def test_where_the_provider_holds_the_conversation_it_holds_its_prompt(
    db: Database,
) -> None:
    save(
        db,
        call(1, ["s:brief", "u:1"], "a:1", operation="responses", response_id="r1"),
        call(2, ["u:2"], "a:2", operation="responses", previous_response_id="r1"),
    )
    turns = await session_turns(db, 1, "s", ANSWERING)
    assert [turn.held for turn in turns] == [False, True]
    assert await read(db) == ["prompt", "u:1", "a:1", "u:2", "a:2"]


async def test_a_call_that_runs_or_failed_before_its_request_was_stored_is_a_turn(
    db: Database,
) -> None:
    failed = {"state": "failed", "conversation": None, "request": None}
    save(db, *chat(1), call(2, [], **failed), start(3, session_id="s", operation=CHAT))
    assert await read(db) == ["u:1", "a:1", "error", "running"]


async def test_calls_that_are_of_no_conversation_are_no_turns(db: Database) -> None:
    no_talk = {"conversation": None, "request": None, "operation": "embeddings"}
    save(db, *chat(1), call(2, [], **no_talk), call(3, [], state="failed", **no_talk))
    assert len(await session_turns(db, 1, "s", ANSWERING)) == 1


async def test_a_turn_whose_base_no_turn_before_it_has_gives_all_that_it_sent(
    db: Database,
) -> None:
    first = call(1, ["s:brief", "u:1"], "a:1")
    second = call(4, ["s:brief", "u:1", "a:1", "u:2"], "a:2")
    third = call(3, ["s:brief", "u:1", "a:1", "u:2", "a:2", "u:3"], "a:3")
    save(db, first, second, third)
    turns = await session_turns(db, 1, "s", ANSWERING)
    assert [len(turn.inputs) for turn in turns] == [1, 5, 1]
    assert await read(db) == ["prompt", "u:1", "a:1", "u:2", "a:2", "u:3", "a:3"]


async def test_the_newest_turns_are_read_where_there_are_too_many(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(db, *chat(4))
    monkeypatch.setattr(transcript, "MAX_TURNS", 2)
    assert await read(db) == ["u:1", "a:1", "u:2", "a:2", "u:3", "a:3", "u:4", "a:4"]
    turns = await session_turns(db, 1, "s", ANSWERING)
    assert [turn.span_id for turn in turns] == [span_id(3), span_id(4)]


async def test_contents_are_read_as_far_as_the_bytes_allow(db: Database) -> None:
    save(db, call(1, ["u:small", "u:" + "x" * 100_000, "u:last"]))
    (turn,) = await session_turns(db, 1, "s", ANSWERING)
    small, large, last = (said.content_id for said in turn.inputs)
    assert set(await message_contents(db, 1, [small, large, last], 1000)) == {small, last}
    assert len((await message_contents(db, 1, [large], 1 << 20))[large]) > 100_000
    assert await message_contents(db, 1, [large + 77], 1 << 20) == {}
    assert await message_contents(db, 2, [small], 1 << 20) == {}
    assert await are_there(db, 1, [small, large, last, small])
    assert not await are_there(db, 1, [small, large + 77])
    assert not await are_there(db, 2, [small])


async def test_many_contents_are_read_in_batches(db: Database) -> None:
    save(db, call(1, [f"u:{n}" for n in range(250)]))
    (turn,) = await session_turns(db, 1, "s", ANSWERING)
    ids = [said.content_id for said in turn.inputs]
    assert len(await message_contents(db, 1, ids, 1 << 20)) == 250
    assert await are_there(db, 1, ids)


async def test_a_message_is_found_by_its_span_and_depth(db: Database) -> None:
    save(db, *chat(2))
    found = [await message(db, 1, span_id(2), depth) for depth in range(6)]
    assert [data and orjson.loads(data)["say"] for data in found] == [
        *(None, "u:1", "a:1", "u:2", "a:2", None),
    ]
    assert await message(db, 1, span_id(3), 1) is None
    assert await message(db, 2, span_id(2), 1) is None


async def test_the_spans_of_a_page_are_read_by_their_number(db: Database) -> None:
    save(db, *chat(3))
    seqs = [turn.seq for turn in await session_turns(db, 1, "s", ANSWERING)]
    found = await turn_spans(db, 1, seqs[1:])
    assert {seq: span.span_id for seq, span in found.items()} == {
        seqs[1]: span_id(2),
        seqs[2]: span_id(3),
    }


async def test_reading_a_session_takes_steps_in_the_number_of_its_turns(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(db, *chat(40))
    rows: list[int] = []
    read_rows = db.read

    async def counted(sql: str, params: Params) -> list[Row]:
        found = await read_rows(sql, params)
        rows.append(len(found))
        return found

    monkeypatch.setattr(db, "read", counted)
    await session_turns(db, 1, "s", ANSWERING)
    assert rows == [40, 80]


async def test_a_turn_is_a_call_of_a_model_once(db: Database) -> None:
    step = Said(kind="tool_call", input=b'"look"', output=b'"found"')
    hand_in(db, [begun(1, session_id="s", said=step), done(1)])
    for n in (2, 3):
        said = talk_said(["u:hi"], [f"a:{n}"])
        hand_in(db, [begun(n, session_id="s", said=said), done(n)])
    rows(
        db, "UPDATE spans SET same_call = :call WHERE span_id = :id", call=span_id(3), id=span_id(2)
    )
    turns = await session_turns(db, 1, "s", ANSWERING)
    assert [turn.span_id for turn in turns] == [span_id(3)]


async def test_the_turns_of_a_trace_are_named_by_its_calls_of_models_alone(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = talk_said(["u:hi"], ["a:hello"])
    hand_in(db, [begun(1, said=Said(kind="tool_call")), done(1)])
    for n in (2, 3, 4):
        hand_in(db, [begun(n, trace=1, said=said), done(n)])
    hand_in(db, [begun(5, said=said), done(5)])
    rows(
        db, "UPDATE spans SET same_call = :call WHERE span_id = :id", call=span_id(9), id=span_id(2)
    )
    assert await turn_ids(db, 1, trace_id(1)) == {span_id(3), span_id(4)}
    assert await turn_ids(db, 2, trace_id(1)) == frozenset()
    monkeypatch.setattr(transcript, "MAX_TURNS", 1)
    assert await turn_ids(db, 1, trace_id(1)) == {span_id(4)}


async def test_turns_that_were_handed_in_go_on_from_each_other(db: Database) -> None:
    asked = ["u:1"]
    for n in (1, 2, 3):
        hand_in(db, [begun(n, session_id="s", said=talk_said(asked, [f"a:{n}"])), done(n)])
        asked += [f"a:{n}", f"u:{n + 1}"]
    assert await read(db) == ["u:1", "a:1", "u:2", "a:2", "u:3", "a:3"]


@pytest.mark.sqlite_only("counts steps of SQLite's machine")
@pytest.mark.parametrize("sql", [transcript.TURNS, transcript.NEW_MESSAGES])
async def test_reading_a_session_takes_as_long_whatever_others_there_are(
    db: Database, sql: str
) -> None:
    def steps() -> int:
        counted: list[None] = []
        db._writer.set_progress_handler(lambda: counted.append(None), 1)  # type: ignore[attr-defined]
        key: Params = {"project_id": 1, "session_id": "s", "turns": 100, "messages": 100}
        assert len(rows(db, sql, **key)) >= 4
        db._writer.set_progress_handler(None, 0)  # type: ignore[attr-defined]
        return len(counted)

    save(db, *chat(4))
    alone = steps()
    for other in range(30):
        save(db, *(end(start(100 + 4 * other + n, session_id=f"{other}")) for n in range(4)))
    assert steps() <= 1.2 * alone
