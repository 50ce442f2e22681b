"""`traceway sessions show`: metrics and conversation, as a person reads them and as JSON."""

import orjson
import pytest

from tests.api.asking import ask as ask_api
from tests.api.asking import save
from tests.cli.asking import Said, ask, started
from tests.cli.talking import Reply, Talking, assistant, conversation
from tests.cli.test_terminal import HOSTILE, obeyed
from tests.running import Running
from tests.storage.calls import end, start
from tests.storage.talks import call, chat
from tests.wire import ScriptedUpstream

GOLDEN = """\
user_123:conv_456
completed
gpt-4o-2024-08-06, unheard-of

Total cost      $0.0067+  ($0.00668; 1 call
without a known price)
Total tokens    3,702  (3,600 in, 102 out)
Total duration  18.9 s
Avg latency     962 ms
Trace count     4
Error rate      25%  (1 of 4 traces failed)

turn 1  2023-11-14 22:13:20
  system prompt
    Be brief.
  tools
    read_file
  user
    What do my notes say about the proxy, in
    one sentence?
  assistant
    -> read_file({"path":"notes.txt"})
    = completed, gpt-4o-2024-08-06, 1,200 +
    34 tokens, $0.0033, 1.5 s

turn 2  2023-11-14 22:13:26
  tool, result of c1
    It records.
    It is fast.
  assistant
    They say:

        It records, and is fast.
    = completed, gpt-4o-2024-08-06, 1,200 +
    34 tokens, $0.0033, 250 ms

turn 3  2023-11-14 22:13:31
  user
    And this?
    [image, image/png, 5 bytes]
  assistant
    = failed, gpt-4o-2024-08-06, $0, 100 ms
    error: HTTP 429: Rate limit reached

turn 4  2023-11-14 22:13:36
  assistant
    A picture of 漢字.
    = completed, unheard-of, 1,200 + 34
    tokens, —, 2.0 s
"""


async def test_a_session_is_its_six_metrics_and_its_turns_in_order(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    await conversation(tw, upstream, "user_123:conv_456")
    at = ("--url", tw.url)
    async with started("sessions", "show", "user_123:conv_456", *at, COLUMNS="44") as command:
        said = await command.ended()
    assert said == Said(0, GOLDEN, "")


async def test_as_json_it_is_what_the_api_answers_page_by_page(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    await save(tw, *chat(60))
    said = await ask(capsys, "sessions", "show", "s", "--json", "--url", tw.url)
    paths = ("/api/sessions/s", *(f"/api/sessions/s/conversation?from={n}" for n in (0, 100)))
    assert [orjson.loads(line) for line in said.out.splitlines()] == [
        (await ask_api(tw, path)).body for path in paths
    ]
    assert (said.code, said.err) == (0, "")


async def test_all_pages_of_a_conversation_are_shown(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    await save(tw, *chat(120))
    said = await ask(capsys, "sessions", "show", "s", "--url", tw.url)
    titles = [line.split("  ")[0] for line in said.out.splitlines() if line.startswith("turn ")]
    assert titles == [f"turn {n}" for n in range(1, 121)]


@pytest.mark.parametrize("session_id", ["..", ".", "by-id", "totals", "a/b?c#d", "100%", "a b"])
async def test_any_id_is_found(
    tw: Running, capsys: pytest.CaptureFixture[str], session_id: str
) -> None:
    await save(tw, end(start(1, session_id=session_id)))
    for form in ((), ("--json",)):
        said = await ask(capsys, "sessions", "show", *form, "--url", tw.url, "--", session_id)
        assert (said.code, said.err) == (0, "")
        assert session_id in said.out.splitlines()[0]


async def test_a_branch_a_changed_prompt_and_an_unread_rest_are_told(
    tw: Running, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Talking(tw, upstream, "s")
    first = {"role": "user", "content": "one"}
    await client.turn([{"role": "system", "content": "Be kind."}, first], Reply(assistant("old")))
    await client.turn([{"role": "system", "content": "Be brief."}, first], Reply(assistant("new")))
    long = {"role": "user", "content": "x" * 20_000}
    said: list[object] = [first, assistant("new"), long]
    await client.turn([{"role": "system", "content": "Be long."}, *said], Reply(assistant("ok")))

    shown = (await ask(capsys, "sessions", "show", "s", "--url", tw.url)).out

    assert "one of 2 branches" in shown
    assert "  system prompt, changed\n" in shown
    assert "    - Be brief.\n    + Be long.\n" in shown
    assert "… the whole is at /api/messages/" in shown
    assert "old" not in shown


async def test_a_conversation_that_begins_anew_says_so(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    await save(tw, call(1, ["u:1"], "a:1"), call(2, ["u:2"], "a:2"))
    shown = (await ask(capsys, "sessions", "show", "s", "--url", tw.url)).out
    assert shown.count("\n== ") == 1


async def test_texts_of_attackers_do_nothing_to_the_terminal(
    tw: Running, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[object] = [{"role": "system", "content": HOSTILE[0]}]
    client = Talking(tw, upstream, "s")
    for text in (" ".join(HOSTILE), *HOSTILE):
        said.append({"role": "user", "content": text})
        function = {"name": text, "arguments": text}
        called = {"id": text, "type": "function", "function": function}
        answer = assistant(text, tool_calls=[called])
        await client.turn(said, Reply(answer, model=text), tools=[{"function": {"name": text}}])
        said += [answer, {"role": "tool", "tool_call_id": text, "content": text}]
    await client.turn(said, Reply({"message": "".join(HOSTILE)}, 1, b"400 Bad Request"))
    for command in (("sessions", "show", "s"), ("sessions",)):
        for form in ((), ("--json",)):
            shown = await ask(capsys, *command, *form, "--url", tw.url)
            assert (shown.code, shown.err) == (0, "")
            assert obeyed(shown.out) == set()
    whole = (await ask(capsys, "sessions", "show", "s", "--json", "--url", tw.url)).out
    rows = (await ask_api(tw, "/api/sessions/s")).body
    assert orjson.loads(whole.splitlines()[0]) == rows
    assert rows["last_error"]
