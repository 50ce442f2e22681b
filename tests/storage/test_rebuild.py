"""Bodies come back byte for byte, or not at all."""

import hashlib

import pytest

from storage.database import Database, DatabaseCorrupt
from storage.forget import delete_trace
from storage.rebuild import envelope_of, request_body, request_of, response_body, response_of
from storage.records import Body, Content, Envelope
from tests.storage.calls import (
    asked_body,
    body,
    end,
    rows,
    span_id,
    spoken,
    start,
    text_of,
    trace_id,
    write,
)

ASKED = ["s:be brief", "u:hello"]
TOOLS = b'[{"name": "t"}]' * 2_000


async def data_of(db: Database, n: int) -> tuple[bytes | None, bytes | None]:
    request = await request_body(db, 1, span_id(n))
    response = await response_body(db, 1, span_id(n))
    return (request and request.data, response and response.data)


async def test_a_request_is_rebuilt_from_its_messages_and_what_is_round_them(
    db: Database,
) -> None:
    write(db, [spoken(start(1), ASKED, ["a:hi"], tools=TOOLS, before=b'"\xff": 1,\n ')])
    more = [*ASKED, "a:hi", "u:more"]
    write(db, [spoken(start(2), more, ["r:so", "a:yes"], tools=TOOLS)])
    assert (await data_of(db, 1))[0] == asked_body(ASKED, b'"\xff": 1,\n ', TOOLS)
    asked, answered = await data_of(db, 2)
    assert asked == asked_body(more, tools=TOOLS)
    assert answered == b'{, {"say": "r:so"}, {"say": "a:yes"}}'
    assert await envelope_of(db, 1, span_id(2)) == b'{"messages": [], "tools": %b}' % TOOLS


async def test_a_string_of_input_is_an_empty_string_in_the_envelope(db: Database) -> None:
    prompt = spoken(start(1), ["u:a"])
    asked = Body(size=1, envelope=Envelope((b'{"input": ', b"}"), (None,)))
    write(db, [end(prompt.start, request=asked, conversation=prompt.conversation)])
    assert await envelope_of(db, 1, span_id(1)) == b'{"input": ""}'


async def test_an_answer_without_input_and_an_input_without_messages_are_rebuilt(
    db: Database,
) -> None:
    write(db, [spoken(start(1), [], ["a:hi"])])
    assert await data_of(db, 1) == (asked_body([]), b'{{"say": "a:hi"}}')


async def test_three_thousand_messages_are_rebuilt(db: Database) -> None:
    asked = [f"u:{n}" for n in range(3_000)]
    write(db, [spoken(start(1), asked, ["a:hi"])])
    assert (await data_of(db, 1))[0] == asked_body(asked)


async def test_flags_and_types_come_with_the_bytes(db: Database) -> None:
    asked = body(b"q", content_type="text/plain", redacted=True, truncated=True)
    answered = body(b"a", content_encoding="gzip", assembled=True)
    write(db, [end(start(1), request=asked, response=answered)])
    request, response = await request_of(db, 1), await response_of(db, 1)
    assert request is not None
    assert response is not None
    assert (request.content_type, request.redacted, request.truncated) == ("text/plain", True, True)
    assert (response.content_encoding, response.assembled) == ("gzip", True)
    assert request.sha256 == hashlib.sha256(b"q").digest()


async def test_a_body_that_is_not_kept_is_none(db: Database) -> None:
    write(db, [end(start(1), request=Body(size=5))])
    assert await data_of(db, 1) == await data_of(db, 2) == (None, None)
    assert await envelope_of(db, 1, span_id(1)) is None
    assert await request_of(db, 7) is None
    assert await response_of(db, 7) is None


async def test_a_body_of_another_project_is_none(db: Database) -> None:
    write(db, [spoken(start(1, project_id=2), ASKED)])
    assert await data_of(db, 1) == (None, None)


@pytest.mark.parametrize("of_messages", [True, False])
async def test_a_body_that_is_deleted_between_two_reads_is_none_and_never_a_wrong_one(
    db: Database, monkeypatch: pytest.MonkeyPatch, of_messages: bool
) -> None:
    if of_messages:
        write(db, [spoken(start(1), ASKED, ["a:hi"])])
    else:
        tools = body(TOOLS).content
        write(db, [end(start(1), request=Body(size=1, envelope=Envelope((b"<", b">"), (tools,))))])
    read = db.read
    reads = 0

    async def delete_after_first(sql: str, params: dict[str, int]) -> object:
        nonlocal reads
        found = await read(sql, params)
        reads += 1
        if reads == 1:
            with db.transaction() as tx:
                delete_trace(tx, 1, trace_id(1), text_of)
            # Which takes the ids of what was deleted.
            write(db, [spoken(start(2), ["s:other", "u:words"], ["a:no"], tools=b'["other"]')])
        return found

    monkeypatch.setattr(db, "read", delete_after_first)
    assert await request_body(db, 1, span_id(1)) is None
    assert reads > 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE contents SET size = 10",
        "UPDATE contents SET data = x'00112233'",
        "UPDATE contents SET data = substr(data, 1, length(data) - 1)",
        "UPDATE spans SET request_envelope = x'00'",
    ],
)
async def test_what_is_damaged_is_an_error_and_takes_no_more_memory(
    db: Database, damage: str
) -> None:
    write(db, [end(start(1), request=body(b"a" * 100_000))])
    rows(db, damage)
    with pytest.raises(DatabaseCorrupt):
        await request_body(db, 1, span_id(1))


@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_a_large_body_is_unpacked(db: Database, size: int) -> None:
    data = b"a" * size
    large = Content(sha256=hashlib.sha256(data).digest(), data=data)
    whole = Body(size=size, envelope=Envelope((b"<", b">"), (large,)))
    write(db, [end(start(1), request=whole, response=body(data))])
    assert await data_of(db, 1) == (b"<" + data + b">", data)
