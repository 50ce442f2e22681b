"""What is too old or too much goes, what has a star stays, and nothing of it is left in a file."""

import random
import time
from typing import Any

import pytest

from proxy.api import retention
from proxy.api.pace import Stopped
from proxy.api.retention import Retention
from proxy.sections import RetentionConfig
from storage.database import DatabaseCorrupt
from storage.fulltext import index
from tests.api.asking import ask, save
from tests.api.test_erasing import CANARY, CONTENT, names, reading
from tests.databases import holding
from tests.recorders import Begin
from tests.running import Running
from tests.storage.calls import end, rows, spoken, start, text_of

__all__ = ["reading"]  # a fixture

DAY_US = 24 * 3600 * 1_000_000
NOW_US = time.time_ns() // 1000


def ago(n: int, days: float, session: str | None = None, **fields: Any) -> Any:
    """Begin a call so many days ago."""
    given: dict[str, Any] = {} if session is None else {"session_id": session}
    return start(n, started_at_us=NOW_US - int(days * DAY_US), **given, **fields)


def keeping(tw: Running, **config: int) -> Retention:
    """Give a retention beside the one that the server has, which keeps everything."""
    return Retention(RetentionConfig(**config), tw.database, tw.server.eraser.pace)


async def test_content_goes_by_the_start_of_its_trace_and_metadata_stays(tw: Running) -> None:
    await save(tw, spoken(ago(1, 40, "s"), ["u:old"], ["a:x"], input_preview="old"))
    await save(tw, spoken(ago(2, 1, "s"), ["u:young"], ["a:y"], input_preview="young"))
    await save(tw, spoken(ago(3, 40, "starred"), ["u:kept"], ["a:z"], input_preview="kept"))
    await save(tw, spoken(ago(4, 40), ["u:lone"], ["a:w"], input_preview="lone"))
    rows(tw.database, "UPDATE sessions SET starred = 1 WHERE session_id = 'starred'")
    kept = keeping(tw, content_days=30)
    await kept.run()
    assert await tw.database.read("SELECT input_preview FROM spans ORDER BY seq", {}) == [
        (None,),
        ("young",),
        ("kept",),
        (None,),
    ]
    assert (kept.done.forgotten_traces, kept.done.erased_traces) == (2, 0)
    assert kept.done.last_ran_at_us is not None
    assert await names(tw) == ["s", "starred"]
    assert await tw.findings(text_of) == []


async def test_sessions_go_by_their_last_activity_and_lone_traces_by_their_start(
    tw: Running,
) -> None:
    await save(tw, end(ago(1, 400, "old")), end(ago(2, 399, "old")))
    await save(tw, end(ago(3, 400, "goes on")), end(ago(4, 1, "goes on")))
    await save(tw, end(ago(5, 400, "starred")), end(ago(6, 400)), end(ago(7, 1)))
    rows(tw.database, "UPDATE sessions SET starred = 1 WHERE session_id = 'starred'")
    kept = keeping(tw, metadata_days=365)
    await kept.run()
    assert await names(tw) == ["goes on", "starred"]
    assert await tw.database.read("SELECT COUNT(*) FROM traces WHERE session_id IS NULL", {}) == [
        (1,)
    ]
    assert (kept.done.erased_sessions, kept.done.erased_traces) == (1, 3)
    assert await tw.findings(text_of) == []


async def test_a_session_of_which_a_part_stays_is_not_counted_as_erased(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, *(end(ago(n, 400, "s")) for n in (1, 2, 3)))
    monkeypatch.setattr("proxy.api.pace.MOST_SPANS", 1)
    tw.server.eraser.pace.spans = 1
    kept = keeping(tw, metadata_days=365)

    async def star() -> None:
        rows(tw.database, "UPDATE sessions SET starred = 1")

    kept.between = star
    await kept.run()
    assert await names(tw) == ["s"]
    assert (kept.done.erased_sessions, kept.done.erased_traces) == (0, 1)


async def test_above_the_cap_the_oldest_content_goes_first_then_whole_sessions(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 6):
        await save(tw, spoken(ago(n, 10 - n, f"s{n}"), [f"u:{n}"], ["a:x"], input_preview="text"))
    await save(tw, spoken(ago(9, 0.001, "young"), ["u:9"], ["a:x"], input_preview="text"))
    monkeypatch.setattr("storage.retention.PAGE", 2)
    monkeypatch.setattr("storage.retention.SESSIONS", 2)

    async def content() -> int:
        ((left,),) = await tw.database.read("SELECT COUNT(input_preview) FROM spans", {})
        return int(left) * 10

    monkeypatch.setattr(tw.database, "size_bytes", content)
    kept = keeping(tw, max_bytes=22)
    await kept.run()
    assert await tw.database.read("SELECT COUNT(*) FROM spans WHERE input_preview IS NULL", {}) == [
        (4,)
    ]
    assert len(await names(tw)) == 6
    assert not kept.done.is_above_cap
    # What is left of content is not enough.

    async def size() -> int:
        return 100

    monkeypatch.setattr(tw.database, "size_bytes", size)
    kept = keeping(tw, max_bytes=99)
    await kept.run()
    assert await names(tw) == ["young"]
    assert kept.done.is_above_cap
    assert await tw.database.read("SELECT input_preview FROM spans", {}) == [("text",)]
    assert await tw.findings(text_of) == []


async def test_a_cap_takes_what_is_too_much_and_not_everything(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 7):
        noise = random.Random(n).randbytes(75_000).hex()  # noqa: S311 (no secret)
        await save(tw, spoken(ago(n, 10 - n, f"s{n}"), [f"u:{noise}"], ["a:x"]))
    monkeypatch.setattr("storage.retention.PAGE", 1)
    cap_bytes = await tw.database.size_bytes() - 10_000
    kept = keeping(tw, max_bytes=cap_bytes)
    await kept.run()
    assert not kept.done.is_above_cap
    assert 1 <= kept.done.forgotten_traces <= 3
    assert len(await names(tw)) == 6


async def test_no_more_is_taken_for_the_cap_than_is_too_much(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 9):
        fields = {"input_preview": "text"}
        await save(tw, spoken(ago(n, 10 - n, f"s{n}"), [f"u:{n}"], ["a:x"], **fields))

    async def content() -> int:
        ((left,),) = await tw.database.read("SELECT COUNT(input_preview) FROM spans", {})
        return int(left) * 10

    async def sessions() -> int:
        ((left,),) = await tw.database.read("SELECT COUNT(*) FROM sessions", {})
        return int(left) * 10

    monkeypatch.setattr(tw.database, "size_bytes", content)
    await keeping(tw, max_bytes=64).run()
    assert await content() == 60
    monkeypatch.setattr(tw.database, "size_bytes", sessions)
    await keeping(tw, max_bytes=64).run()
    assert await names(tw) == [f"s{n}" for n in range(3, 9)]


@pytest.mark.sqlite_only("PostgreSQL lets a message go without reading it")
@pytest.mark.parametrize("config", [{"metadata_days": 30}, {"content_days": 30}])
async def test_what_is_damaged_is_left_and_told_and_the_rest_goes(
    tw: Running, config: dict[str, int]
) -> None:
    words = "words " * 2_000
    for n in range(1, 5):
        await save(tw, spoken(ago(n, 50 - n, f"s{n % 2}"), [f"u:{words}{n}"], ["a:x"]))
    await save(tw, spoken(ago(9, 40), ["u:lone"], ["a:y"]))
    await tw.server.recorder.write(lambda tx: index(tx, 1_000, text_of))
    spoil = (
        "UPDATE contents SET data = :d WHERE id = (SELECT MIN(id) FROM contents WHERE size > 9000)"
    )
    await tw.server.recorder.write(lambda tx: tx.execute(spoil, {"d": b"damaged"}))
    kept = keeping(tw, **config)
    await kept.run()
    assert kept.failed is not None
    assert kept.failed.startswith("1 sessions and traces")
    assert kept.done.last_ran_at_us is not None
    if "metadata_days" in config:
        assert await names(tw) == ["s1"]
    else:
        assert await tw.database.read(
            "SELECT seq FROM traces WHERE forgotten_at_us IS NULL", {}
        ) == [(1,)]


@pytest.mark.sqlite_only("looks at the files")
@pytest.mark.parametrize("config", [{"metadata_days": 30}, {"content_days": 30}])
async def test_a_canary_is_in_no_file_after_it_was_too_old(
    tw: Running, config: dict[str, int]
) -> None:
    whole = "metadata_days" in config
    for n in range(1, 9):
        begun = ago(
            n,
            50,
            f"session-{CANARY}" if whole else "s",
            query=CANARY,
            **({"user_id": CANARY, "name": CANARY} if whole else {}),
        )
        await save(tw, spoken(begun, [f"u:{CANARY} {n}"], [f"a:{CANARY}"], **CONTENT))
    await save(tw, spoken(ago(20, 1, "young"), ["u:other"], ["a:words"]))
    await tw.saved()
    assert holding(tw.config.database.path, CANARY.encode()) != []
    await keeping(tw, **config).run()
    assert holding(tw.config.database.path, CANARY.encode()) == []
    assert await tw.findings(text_of) == []


async def test_it_looks_again_only_after_a_while_and_never_where_all_is_kept(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxy.api.pace import Pace

    recording = await begin()
    looks: list[int] = []

    async def found(*_: Any, **__: Any) -> Any:
        looks.append(1)
        return await real(*_, **__)

    real = retention.retention.old_content
    monkeypatch.setattr(retention.retention, "old_content", found)
    pace = Pace(recording.recorder)
    off = Retention(RetentionConfig(), recording.database, pace)
    await off.run()
    assert (off.is_on, off.done.last_ran_at_us, looks) == (False, None, [])
    on = Retention(RetentionConfig(content_days=1), recording.database, pace)
    await on.run()
    await on.run()
    assert looks == [1]


async def test_health_and_metrics_say_what_it_did(tw: Running) -> None:
    health = (await ask(tw, "/api/health")).body
    assert health["retention"] is None
    await save(tw, spoken(ago(1, 40, "s"), ["u:old"], ["a:x"]))
    own = tw.server.eraser.retention
    own._config = RetentionConfig(content_days=1)
    while own.done.last_ran_at_us is None:  # the server may be at it itself
        own._due_at_s = 0.0
        await own.run()
    said = (await ask(tw, "/api/health")).body["retention"]
    assert (said["forgotten_traces"], said["is_running"]) == (1, False)
    assert said["last_ran_at"] is not None
    async with tw.client.get(f"{tw.url}/metrics") as answer:
        text = await answer.text()
    assert "traceway_retention_forgotten_traces_total 1.0" in text
    assert "traceway_retention_last_run " in text


async def test_words_that_leave_full_text_at_the_end_only_do_not_make_more_go(tw: Running) -> None:
    source = random.Random(7)  # noqa: S311 (no secret)
    for n in range(1, 41):
        words = " ".join(source.randbytes(3).hex() for _ in range(1_000))
        await save(tw, spoken(ago(n, 50 - n, f"s{n}"), [f"u:{words}"], ["a:x"]))
    await tw.server.recorder.write(lambda tx: index(tx, 1_000, text_of))
    kept = keeping(tw, max_bytes=await tw.database.size_bytes() - 10_000)
    await kept.run()
    assert not kept.done.is_above_cap
    assert 1 <= kept.done.forgotten_traces <= 4
    assert len(await names(tw)) == 40


async def test_a_clean_up_that_was_broken_off_is_made_up_for(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, spoken(ago(1, 40, "s"), ["u:old"], ["a:x"]))
    kept = keeping(tw, metadata_days=30)
    given_back: list[bool] = []

    async def give_back(*, words: bool = True) -> None:
        given_back.append(words)
        if len(given_back) == 1:
            raise Stopped

    monkeypatch.setattr(tw.server.eraser.pace, "give_back", give_back)
    with pytest.raises(Stopped):
        await kept.run()
    for _ in range(2):
        kept._due_at_s = 0.0
        await kept.run()
    assert given_back == [True, True]


async def test_words_leave_once_a_day_also_where_nothing_more_is_due(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SMALL_BYTES", -1)
    given_back: list[bool] = []

    async def give_back(*, words: bool = True) -> None:
        given_back.append(words)

    monkeypatch.setattr(tw.server.eraser.pace, "give_back", give_back)
    kept = keeping(tw, metadata_days=30)
    await kept.run()
    assert given_back == [True]  # of what a process before this one may have erased
    await save(tw, end(ago(1, 40, "s")))
    for _ in range(2):
        kept._due_at_s = 0.0
        await kept.run()
    assert given_back == [True, False]
    kept._deep_at_s = time.monotonic() - retention.DEEP_S
    for _ in range(2):
        kept._due_at_s = 0.0
        await kept.run()
    assert given_back == [True, False, True]


async def test_a_damaged_index_keeps_no_other_space(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    async def give_back(*, words: bool = True) -> None:
        asked.append(words)
        raise DatabaseCorrupt("messages_fts_1", "it cannot be read")

    async def size_bytes() -> int:
        return 100

    monkeypatch.setattr(tw.server.eraser.pace, "give_back", give_back)
    monkeypatch.setattr(tw.database, "size_bytes", size_bytes)
    await save(tw, spoken(ago(1, 40, "s"), ["u:old"], ["a:x"]))
    kept = keeping(tw, content_days=30, max_bytes=1)
    await kept.run()
    assert kept.done.is_above_cap  # that was looked at as well
    assert kept.failed is not None
    assert "doctor" in kept.failed
    count = len(asked)
    kept._due_at_s = 0.0
    await kept.run()
    assert len(asked) == count  # once a day
    assert kept.failed is not None
