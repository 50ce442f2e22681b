"""`traceway backup`: a copy beside a server that is called, with all that was saved before it."""

import asyncio
from pathlib import Path

import pytest

from proxy.providers.messages import text_of
from storage.doctor import check
from storage.sqlite import open_snapshot
from tests.cli.asking import Said, ask
from tests.running import CHAT, Running
from tests.wire import ScriptedUpstream

Capsys = pytest.CaptureFixture[str]
ANSWER = (
    b'{"id":"c","model":"gpt-5","choices":[{"index":0,"message":{"role":"assistant","content":"Yes."}'
    b',"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}'
)
QUESTION = b'{"model":"gpt-5","messages":[{"role":"user","content":"Is it %d?"}]}'


async def call(tw: Running, n: int) -> None:
    headers = b"Content-Type: application/json\r\nX-Traceway-Session-Id: s%d\r\n" % (n % 5)
    got = await tw.raw(CHAT.encode(), headers=headers, body=QUESTION % n)
    assert got.status == 200


async def test_a_copy_under_load_has_every_call_that_was_saved_before(
    tw: Running, upstream: ScriptedUpstream, capsys: Capsys, tmp_path: Path
) -> None:
    upstream.answers(ANSWER)
    done = asyncio.Event()
    numbers = iter(range(1_000_000))

    async def client() -> None:
        while not done.is_set():
            await call(tw, next(numbers))

    clients = [asyncio.create_task(client()) for _ in range(4)]
    try:
        for number in range(3):
            for _ in range(10):
                await call(tw, next(numbers))
            await tw.saved()
            ended = "SELECT span_id FROM spans WHERE state <> 'running'"
            before = {row[0] for row in await tw.database.read(ended, {})}
            target = tmp_path / f"copy{number}.db"
            said = await ask(capsys, "backup", str(target), "--db", str(tw.config.database.path))
            assert (said.code, said.err) == (0, "")
            readers = open_snapshot(target)
            assert await check(readers, text_of) == []
            assert before <= {row[0] for row in await readers.read(ended, {})}
            await readers.close()
            assert len(before) >= 10 * (number + 1)
    finally:
        done.set()
        await asyncio.gather(*clients)


async def test_it_says_what_is_in_the_copy_and_what_is_not(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    path = tw.config.database.path
    target = tmp_path / "copy.db"
    said = await ask(capsys, "backup", str(target), "--db", str(path))
    size = f"{target.stat().st_size:,}"
    assert said.out == f"{target}: {size} bytes, all that was saved when the copy began\n"
    path.with_name(f"{path.name}.key").touch()
    said = await ask(capsys, "backup", str(tmp_path / "b.db"), "--db", str(path))
    assert f"not in it: {path}.key" in said.out
    said = await ask(capsys, "backup", str(target), "--db", str(path))
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"traceway: {target}: there is such a file already; name another, or delete it\n"
    )


async def test_of_postgresql_it_names_the_tool_and_no_password(
    capsys: Capsys, tmp_path: Path
) -> None:
    said = await ask(
        capsys, "backup", str(tmp_path / "c"), "--db", "postgresql://me:geheim@host:5432/tw"
    )
    command = f"pg_dump --format=custom --file={tmp_path / 'c'} postgresql://me@host:5432/tw"
    assert said == Said(
        2,
        "",
        f"traceway: that is a PostgreSQL database, which its own tool copies: {command}\n",
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/db?password=geheim",
        "postgresql://me@h/db?sslpassword=geheim&password=geheim",
        "postgresql://u:p@geheim@h/db",
        "postgresql://u:p/geheim@h/db",
        "postgres://u:geheim@h",
        "postgresql:/u:geheim",
    ],
)
async def test_no_address_has_its_password_said(capsys: Capsys, tmp_path: Path, url: str) -> None:
    said = await ask(capsys, "backup", str(tmp_path / "c"), "--db", url)
    assert said.code != 0
    assert "geheim" not in said.out + said.err


async def test_a_directory_is_no_file_to_copy_to(
    tw: Running, capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tw.config.database.path.resolve())
    monkeypatch.chdir(tmp_path)
    for name in (".", "..", str(tmp_path)):
        said = await ask(capsys, "backup", name, "--db", path)
        assert said.code == 1
        assert said.err == f"traceway: {name}: it is a directory; name a file in it\n"
