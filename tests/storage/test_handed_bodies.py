"""How a value that is handed in becomes a body, and what it is found by."""

import pytest

from storage.database import Database
from storage.handed import Said
from storage.handed_bodies import MAX_PIECE_BYTES, MAX_TEXT_CHARS, _envelope
from storage.rebuild import request_body
from tests.storage.calls import found, rows, said, span_id, talk
from tests.storage.handing import begun, done, hand_in, talk_said

MESSAGES = talk(["s:brief", "u:hi"]).messages
SAID = b"".join(message.lead + message.data for message in MESSAGES)


@pytest.mark.parametrize("before", [b"", b"[", b"[" * (MAX_PIECE_BYTES + 1)])
@pytest.mark.parametrize("after", [b"", b" ]", b"]" * (MAX_PIECE_BYTES + 1)])
def test_an_envelope_with_its_holes_filled_is_the_value(before: bytes, after: bytes) -> None:
    envelope = _envelope(before + SAID + after, MESSAGES)
    assert envelope is not None
    assert len(envelope.pieces) == len(envelope.holes) + 1
    assert envelope.holes.count(None) == 1
    filled = [SAID if hole is None else hole.data for hole in envelope.holes]
    parts = [piece + hole for piece, hole in zip(envelope.pieces, [*filled, b""], strict=True)]
    assert b"".join(parts) == before + SAID + after


def test_messages_that_stand_nowhere_make_no_envelope() -> None:
    assert _envelope(b"[]", MESSAGES) is None
    assert _envelope(b"[]", ()) is None


async def test_a_value_that_is_a_text_is_stored_once(db: Database) -> None:
    hand_in(
        db, [begun(1, said=Said(input=b'"the same"')), done(1, said=Said(output=b'"the same"'))]
    )
    assert rows(db, "SELECT COUNT(*) FROM contents") == [(1,)]


async def test_a_value_without_text_is_kept_and_not_searched(db: Database) -> None:
    hand_in(db, [begun(1, said=Said(input=b"[1, 2]")), done(1, said=Said(output=b'""'))])
    request = await request_body(db, 1, span_id(1))
    assert request is not None
    assert request.data == b"[1, 2]"
    assert rows(db, "SELECT COUNT(*) FROM nodes") == [(0,)]


async def test_a_long_text_is_found_by_its_beginning(db: Database) -> None:
    long = b'"needle %b thread"' % (b"x " * MAX_TEXT_CHARS)
    hand_in(db, [begun(1, said=Said(input=long)), done(1)])
    assert found(db, "needle") == 1
    assert found(db, "thread") == 0
    request = await request_body(db, 1, span_id(1))
    assert request is not None
    assert request.data == long


async def test_what_runs_is_kept_and_found_when_it_ends(db: Database) -> None:
    asked = talk_said(["u:hi"])
    hand_in(db, [begun(1, said=asked)])
    request = await request_body(db, 1, span_id(1))
    assert request is not None
    assert request.data == asked.input
    assert rows(db, "SELECT COUNT(*) FROM mentions") == [(0,)]

    hand_in(db, [done(1)])
    # The message alone is left: the value that it came in is a row's envelope now.
    assert rows(db, "SELECT size FROM contents") == [(len(said("u:hi", b"").data),)]
    assert rows(db, "SELECT COUNT(*) FROM mentions") == [(1,)]


async def test_a_secret_that_was_cut_out_is_said_of_the_body(db: Database) -> None:
    hand_in(db, [begun(1, said=Said(input=b'"[redacted]"', redacted=True)), done(1)])
    assert rows(db, "SELECT request_redacted, request_sha256 FROM spans") == [(1, None)]
