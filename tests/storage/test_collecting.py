"""What an order is of is found to the end, part by part, and nothing else is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec.json import encode

from storage import collecting, erasures
from storage.collecting import Found, Place, Target, collect, is_by_words
from storage.database import Transaction
from storage.erase import Extent
from storage.erasures import Erasure, Kind, Order
from storage.records import SpanEnd
from storage.sqlite import SqliteDatabase
from tests.storage import seen_twice
from tests.storage.calls import T0, end, rows, span_id, spoken, start, text_of, trace_id, write
from tests.storage.handing import hand_in, opened
from tests.storage.test_placing import T, tracing


async def all_of(
    db: SqliteDatabase,
    order: Order,
    now_us: int = T0,
    meanwhile: Callable[[int], object] = lambda _: None,
) -> tuple[list[Target], set[str]]:
    """Look until all was looked at; give what was found, and what was kept.

    ``meanwhile`` is called after each look with the number of it.
    """
    with db.transaction() as tx:
        erasure = erasures.ask(tx, 1, order, now_us)
    found: list[Target] = []
    kept: set[str] = set()
    looks: list[Found] = []
    while erasure.state == "collecting":
        part: Found = await collect(db, erasure)
        found += part.targets
        meanwhile(len(looks := [*looks, part]))
        kept.update(part.kept_starred)
        with db.transaction() as tx:
            note(tx, erasure, part)
        erasure = await _read(db, erasure)
    return list(dict.fromkeys(found)), kept


def note(tx: Transaction, erasure: Erasure, part: Found) -> None:
    """Add to an order what was found."""
    how: dict[str, Any] = {"state": part.state, "place": part.place, "kept": part.kept_starred}
    erasures.add_targets(tx, 1, erasure.id, part.targets, **how)


async def found_all(db: SqliteDatabase, erasure: Erasure) -> Erasure:
    """Look until all was looked at."""
    while erasure.state == "collecting":
        found = await collect(db, erasure)
        with db.transaction() as tx:
            note(tx, erasure, found)
        erasure = await _read(db, erasure)
    return erasure


async def carried_out(db: SqliteDatabase, erasure: Erasure) -> Erasure:
    """Go on with an order until all is erased."""
    while (erasure := await found_all(db, erasure)).state == "erasing":
        with db.transaction() as tx:
            erasures.step(tx, 1, erasure.id, text_of, most_spans=9, now_us=9)
        erasure = await _read(db, erasure)
    return erasure


async def _read(db: SqliteDatabase, erasure: Erasure) -> Erasure:
    found = await erasures.order_of(db, 1, erasure.id)
    assert found is not None
    return found


async def test_what_an_order_names_itself_is_found_at_once_and_anew_after_a_recovery(
    db: SqliteDatabase,
) -> None:
    named: list[tuple[Kind, str, Target]] = [
        ("session", "s", ("s", None)),
        ("trace", trace_id(1).hex(), (None, trace_id(1))),
    ]
    for kind, given, target in named:
        with db.transaction() as tx:
            asked = erasures.ask(tx, 1, Order(kind=kind, given=given), T0)
        assert (asked.state, asked.target_count) == ("erasing", 1)
        found = await collect(db, replace(asked, state="collecting"))
        assert (found.targets, found.state) == ([target], "erasing")


async def test_of_a_user_all_pages_are_looked_at(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LOOKED_AT", 3)
    for n in range(1, 12):
        user = "u" if n % 2 else "v"
        write(db, [end(start(n, session_id=f"s{n % 4}", user_id=user))])
    write(db, [end(start(12, user_id="u")), end(start(13, session_id="shared", user_id="u"))])
    write(db, [end(start(14, session_id="shared", user_id="v"))])
    hand_in(db, [opened(20, user_id="u")])
    found, _ = await all_of(db, Order(kind="user", given="u"))
    lone = [(None, trace_id(12)), (None, trace_id(20))]
    assert sorted(found, key=str) == sorted(
        [("s1", None), ("s3", None), (None, trace_id(13)), *lone], key=str
    )
    assert await all_of(db, Order(kind="user", given="nobody")) == ([], set())


async def test_a_session_with_a_trace_that_was_opened_for_another_user_does_not_go_whole(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="shared", user_id="alice"))])
    hand_in(db, [opened(2, user_id="bob", session_id="shared")])
    found, _ = await all_of(db, Order(kind="user", given="alice"))
    assert found == [(None, trace_id(1))]
    assert (await all_of(db, Order(kind="user", given="bob")))[0] == [(None, trace_id(2))]


async def test_a_call_that_is_another_users_when_it_ends_stays(db: SqliteDatabase) -> None:
    write(db, [end(start(1, session_id="s", user_id="alice")), start(2, session_id="s")])
    with db.transaction() as tx:
        asked = erasures.ask(tx, 1, Order(kind="user", given="alice"), T0)
    erasure = await found_all(db, asked)
    assert erasure.target_count == 1
    write(db, [end(start(2, session_id="s", user_id="bob"))])
    erasure = await carried_out(db, erasure)
    assert rows(db, "SELECT seq FROM spans") == [(2,)]
    assert (erasure.session_count, erasure.trace_count) == (0, 1)


@pytest.mark.parametrize("extent", ["all", "content"])
async def test_a_users_trace_goes_also_where_another_is_named_in_it_only_meanwhile(
    db: SqliteDatabase, extent: Extent
) -> None:
    def call(n: int, trace: int, user: str | None = None) -> SpanEnd:
        begun = start(n, trace=trace, session_id="s", user_id=user)
        return spoken(begun, [f"u:{n}"], [f"a:{n}"])

    # Of the first trace a call is alice's, and she opened the second; the others name nobody.
    hand_in(db, [opened(20, user_id="alice", session_id="s")])
    write(db, [call(1, 10, "alice"), call(2, 20), call(3, 30), call(4, 40)])
    late = [(11, 10), (12, 20), (13, 30)]
    write(db, [call(n, trace).start for n, trace in late])
    with db.transaction() as tx:
        asked = erasures.ask(tx, 1, Order(kind="user", given="alice", extent=extent), T0)
    erasure = await found_all(db, asked)
    assert erasure.target_count == 1
    write(db, [call(n, trace, "bob") for n, trace in late])
    assert (await carried_out(db, erasure)).state == "cleaning"
    held = "SELECT span_id FROM spans WHERE input_node_id IS NOT NULL ORDER BY span_id"
    assert rows(db, held) == [(span_id(3),), (span_id(13),)]


async def test_a_users_trace_goes_to_its_end_also_where_the_users_calls_go_first(
    db: SqliteDatabase,
) -> None:
    def call(n: int, user: str | None = None) -> SpanEnd:
        return end(start(n, trace=1, session_id="s", user_id=user))

    write(db, [call(n).start for n in range(1, 31)])
    write(db, [call(n, "alice") for n in range(31, 41)])
    with db.transaction() as tx:
        asked = erasures.ask(tx, 1, Order(kind="user", given="alice"), T0)
    erasure = await found_all(db, asked)
    # It goes by its calls, as one of them comes after the order; the newest are alice's.
    write(db, [call(n, "bob") for n in range(1, 31)])
    write(db, [call(50)])
    done = await carried_out(db, erasure)
    assert rows(db, "SELECT span_id FROM spans") == [(span_id(50),)]
    assert (done.state, done.target_count, done.done_count) == ("cleaning", 2, 2)


async def test_full_text_is_to_hear_what_a_query_by_words_looks_for(db: SqliteDatabase) -> None:
    asked: dict[str, Erasure] = {}
    for given in ("word", "-word model:m", "until:90d"):
        with db.transaction() as tx:
            asked[given] = erasures.ask(tx, 1, Order(kind="query", given=given), T0)
    with db.transaction() as tx:
        of_user = erasures.ask(tx, 1, Order(kind="user", given="word"), T0)
    assert [is_by_words(one) for one in asked.values()] == [True, True, False]
    # Behind the first look only where a word is excluded: a call that ended since may have it.
    looked = {given: replace(one, place="{}") for given, one in asked.items()}
    assert [is_by_words(one) for one in looked.values()] == [False, True, False]
    assert not is_by_words(of_user)


async def test_sessions_with_a_star_are_kept_unless_they_are_asked_for(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id=f"s{n}", user_id="u")) for n in (1, 2)])
    rows(db, "UPDATE sessions SET starred = 1 WHERE session_id = 's1'")
    for order in (Order(kind="user", given="u"), Order(kind="query", given="user:u")):
        assert await all_of(db, order) == ([("s2", None)], {"s1"})
    found, kept = await all_of(db, Order(kind="query", given="user:u", with_starred=True))
    assert (sorted(found, key=str), kept) == ([("s1", None), ("s2", None)], set())


async def test_a_query_counts_ages_from_the_moment_of_the_asking(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAGE", 2)
    write(db, [end(start(n, session_id=f"s{n}")) for n in range(1, 8)])
    write(db, [end(start(8)), end(start(9))])
    found, _ = await all_of(db, Order(kind="query", given="until:4s"), T0 + 10_000_000)
    assert len(found) == len({*found})
    assert {session for session, _ in found if session} == {f"s{n}" for n in range(1, 6)} | (
        {"s6"} if ("s6", None) in found else set()
    )
    everything, _ = await all_of(db, Order(kind="query", given="cost:>=0"), T0)
    assert (None, trace_id(8)) in everything
    assert len(everything) == 9


async def test_a_word_that_is_too_common_is_looked_for_again_as_long_as_something_goes(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.fulltext.Match.is_truncated", True)
    write(db, [spoken(start(1, session_id="s"), ["u:word"], ["a:x"])])
    with db.transaction() as tx:
        erasure = erasures.ask(tx, 1, Order(kind="query", given="word"), T0)
    ends = []
    for erased in (0, 5, 5, 5):
        rows(db, "UPDATE erasures SET span_count = :n", n=erased)
        found = Found([], (), "collecting", None)
        erasure = await _read(db, erasure)
        while found.state == "collecting":
            found = await collect(db, erasure)
            with db.transaction() as tx:
                erasures.add_targets(
                    tx, 1, erasure.id, [], state=found.state, place=found.place, reason=found.reason
                )
            erasure = await _read(db, erasure)
        ends.append((found.place is not None, erasure.state, erasure.reason))
        rows(db, "UPDATE erasures SET state = 'collecting'")
    assert ends == [(True, "erasing", None)] * 3 + [(False, "incomplete", "too_common")]


async def test_a_session_that_somebody_goes_on_with_meanwhile_is_found(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAGE", 2)
    write(db, [end(start(n, session_id=f"s{n}", user_id="u")) for n in range(1, 9)])

    def go_on(look: int) -> None:
        for n in (1, 4, 8):
            if look < 4:
                write(db, [end(start(100 * look + n, session_id=f"s{n}"))])

    found, _ = await all_of(db, Order(kind="query", given="user:u"), meanwhile=go_on)
    assert sorted(found, key=str) == [(f"s{n}", None) for n in range(1, 9)]


async def test_of_a_query_that_excludes_a_word_of_too_many_messages_nothing_is_found(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 7):
        words = f"u:contract {n}" if n < 6 else "u:else"
        write(db, [spoken(start(n, session_id=f"s{n}"), [words], ["a:x"])])
    order = Order(kind="query", given="-contract")
    assert await all_of(db, order) == ([("s6", None)], set())
    monkeypatch.setattr("storage.fulltext.MAX_HITS", 3)
    with db.transaction() as tx:
        erasure = erasures.ask(tx, 1, order, T0)
    found = await collect(db, erasure)
    assert (found.state, found.reason) == ("failed", "excludes_too_common")
    assert found.targets == ()


async def test_an_order_whose_query_is_none_any_more_fails_and_is_not_done(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2))])
    # The second is none for traces, for which it was looked when its server ended.
    for given, where in (("cost:x", "sessions"), ("traces:>=1", "traces")):
        with db.transaction() as tx:
            asked = erasures.ask(tx, 1, Order(kind="query", given=given), T0)
        place = encode(Place(where)).decode()
        found = await collect(db, replace(asked, place=place))
        assert (found.state, found.reason, found.targets) == ("failed", "unknown_query", ())
        assert not is_by_words(asked)


async def test_what_comes_after_the_order_is_not_found_and_does_not_keep_it_from_ending(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAGE", 2)
    write(db, [end(start(n, session_id=f"s{n}")) for n in range(1, 6)])
    write(db, [end(start(6))])
    looks = 0

    def go_on(look: int) -> None:
        nonlocal looks
        looks = look
        n = 100 * look
        write(db, [end(start(n, session_id=f"new{look}")), end(start(n + 1))])
        write(db, [end(start(n + 2, session_id="s1"))])
        assert look < 50

    found, _ = await all_of(db, Order(kind="query", given="cost:>=0"), meanwhile=go_on)
    old = [*((f"s{n}", None) for n in range(1, 6)), (None, trace_id(6))]
    assert sorted(found, key=str) == sorted(old, key=str)
    assert looks > 5


async def test_a_call_that_moves_before_it_is_erased_is_looked_for_again(
    db: SqliteDatabase,
) -> None:
    write(db, [end(tracing(1, user_id="u"))])
    with db.transaction() as tx:
        erasure = erasures.ask(tx, 1, Order(kind="user", given="u"), T0)
    erasure = await found_all(db, erasure)
    # The span in whose trace it is comes after the order: the call leaves its own trace.
    seen_twice.hand_in(db, seen_twice.Handed(n=60, trace=T, session="s", kind="custom"))
    assert rows(db, "SELECT DISTINCT trace_id FROM spans") == [(trace_id(T),)]
    assert (await carried_out(db, erasure)).state == "cleaning"
    assert rows(db, "SELECT span_id FROM spans") == [(span_id(60),)]


async def test_what_fulfils_a_query_only_after_all_was_found_stays(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id=f"s{1 + n // 3}")) for n in (1, 2, 3)])
    with db.transaction() as tx:
        erasure = erasures.ask(tx, 1, Order(kind="query", given="spans:>=2"), T0)
    erasure = await found_all(db, erasure)
    write(db, [end(start(4, session_id="s2"))])
    done = await carried_out(db, erasure)
    assert (done.state, done.session_count) == ("cleaning", 1)
    assert rows(db, "SELECT session_id, span_count FROM sessions") == [("s2", 2)]


async def test_what_a_process_had_found_is_not_counted_twice_by_the_next(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAGE", 2)
    monkeypatch.setattr(collecting, "LOOKED_AT", 2)
    for n in range(1, 8):
        write(db, [end(start(n, session_id=f"s{n}", user_id="u"))])
    write(db, [end(start(8, user_id="u"))])
    rows(db, "UPDATE sessions SET starred = 1 WHERE session_id = 's7'")
    for kind, given in (("user", "u"), ("query", "user:u")):
        with db.transaction() as tx:
            erasure = erasures.ask(tx, 1, Order(kind=kind, given=given, extent="content"), T0)
        for _ in range(2):  # each page is noted twice, as where the answer to a commit is lost
            found = await collect(db, erasure)
            with db.transaction() as tx:
                note(tx, erasure, replace(found, state="collecting"))
                note(tx, erasure, found)
            erasure = await _read(db, erasure)
        done = await carried_out(db, erasure)
        assert (done.target_count, done.done_count, done.kept_starred_count) == (7, 7, 1), kind
