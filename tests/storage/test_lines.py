"""Threads read from top to bottom: where prompts and tools stand, and what is before what."""

from storage.lines import Line, Prompt, Tools, all_lines
from storage.threads import Setting
from tests.storage.telling import Telling

BRIEF = Setting(instructions=b'"brief"', tools=7)


def told(line: Line) -> tuple[object, object]:
    return line.old_prompt.instructions, line.prompt.instructions


def test_a_prompt_stands_at_the_beginning_once() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], "a:1")
    telling.turn(["s:brief", "u:1", "a:1", "u:2"], "a:2")
    assert telling.read() == ["prompt", "u:1", "a:1", "u:2", "a:2"]
    prompt = telling.lines()[0]
    assert [telling.texts[said.content_id] for said in prompt.prompt.messages] == ["s:brief"]
    assert prompt.old_prompt == Prompt()


def test_a_prompt_stands_again_before_the_first_message_that_came_with_its_change() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], "a:1")
    telling.turn(["s:long", "u:1", "a:1", "u:2"], "a:2")
    telling.turn(["u:1", "a:1", "u:2", "a:2", "u:3"], "a:3")
    assert telling.read() == [
        *("prompt", "u:1", "a:1"),
        *("prompt", "u:2", "a:2"),
        *("prompt", "u:3", "a:3"),
    ]
    assert telling.lines()[6].prompt == Prompt()


def test_a_prompt_that_changed_with_a_retry_stands_before_its_answer() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], "a:old")
    telling.turn(["s:long", "u:1"], "a:new")
    assert telling.read() == ["prompt", "u:1", "prompt", "a:new"]


def test_a_prompt_of_a_later_try_that_failed_changes_nothing_for_the_answer_that_is_there() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], "a:1")
    telling.turn(["s:long", "u:1"], state="failed")
    assert telling.read() == ["prompt", "u:1", "error", "a:1"]


def test_a_prompt_in_other_bytes_is_no_other_prompt() -> None:
    telling = Telling()
    first = telling.turn(["s:brief", "u:1"], "a:1")
    second = telling.turn(["s:brief;1", "u:1", "a:1", "u:2"], "a:2")
    assert first.prelude[0].content_id != second.prelude[0].content_id
    assert telling.read().count("prompt") == 1


def test_instructions_and_tools_of_the_request_stand_where_they_change() -> None:
    telling = Telling()
    telling.turn(["u:1"], "a:1", setting=BRIEF)
    telling.turn(["u:1", "a:1", "u:2"], "a:2", setting=BRIEF)
    long = Setting(instructions=b'"long"', tools=7)
    telling.turn(["u:1", "a:1", "u:2", "a:2", "u:3"], "a:3", setting=long)
    assert telling.read() == [
        *("prompt", "tools", "u:1", "a:1", "u:2", "a:2"),
        *("prompt", "u:3", "a:3"),
    ]
    lines = telling.lines()
    assert told(lines[0]) == (None, b'"brief"')
    assert told(lines[6]) == (b'"brief"', b'"long"')
    assert (lines[1].old_tools, lines[1].tools) == (Tools(), Tools(tools=7))


def test_a_request_that_could_not_be_read_changes_nothing() -> None:
    telling = Telling()
    telling.turn(["u:1"], "a:1", setting=BRIEF)
    telling.turn(["u:1", "a:1", "u:2"], "a:2", setting=None)
    telling.turn([], state="failed", recorded=False)
    assert telling.read() == ["prompt", "tools", "u:1", "a:1", "u:2", "a:2", "error"]


def test_messages_that_instruct_stay_where_the_provider_holds_the_conversation() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], "a:1")
    telling.turn(["u:1", "a:1", "u:2"], "a:2", held=True)
    telling.turn(["s:long", "u:1", "a:1", "u:2", "a:2", "u:3"], "a:3", held=True)
    assert telling.read() == ["prompt", "u:1", "a:1", "u:2", "a:2", "prompt", "u:3", "a:3"]


def test_each_thread_begins_with_its_own_prompt_and_tools() -> None:
    telling = Telling()
    telling.turn(["u:1"], "a:1", setting=BRIEF)
    telling.turn(["u:x"], "a:x", setting=BRIEF)
    assert telling.read() == ["prompt", "tools", "u:1", "a:1", "prompt", "tools", "u:x", "a:x"]


def test_the_parent_of_a_message_is_the_one_before_it_in_the_conversation() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], state="failed")
    telling.turn(["s:brief", "u:1"], ["r:hm", "a:1"])
    lines = telling.lines()
    assert [telling.words(line) for line in lines] == ["prompt", "u:1", "error", "r:hm", "a:1"]
    user = lines[1].id
    assert [line.parent for line in lines] == [None, None, user, user, user]


def test_no_two_lines_have_one_id() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], state="failed", setting=BRIEF)
    telling.turn(["s:long", "u:1"], ["r:hm", "a:1"], setting=Setting(tools=8))
    ids = [line.id for line in telling.lines()]
    assert len(ids) == len(set(ids))
    assert ids[:2] == ["0000000000000001-prompt", "0000000000000001-tools"]


def test_all_lines_have_each_message_of_each_branch_once_from_where_it_leaves() -> None:
    telling = Telling()
    telling.turn(["s:brief", "u:1"], "a:1")
    telling.turn(["s:brief", "u:1", "a:1", "u:2"], "a:old")
    telling.turn(["s:long", "u:1", "a:1", "u:2"], "a:new")
    telling.turn(["s:long", "u:1", "a:1", "u:other"], "a:3")
    telling.turn(["s:long", "u:1", "a:1", "u:2", "a:old", "u:more"], "a:4")
    telling.turn(["u:elsewhere"], "a:5")
    paths = all_lines(telling.tree())
    read = [[telling.words(line) for line in path] for path in paths]
    assert read == [
        ["prompt", "u:1", "a:1", "u:2", "a:old", "prompt", "u:more", "a:4"],
        ["prompt", "u:other", "a:3"],
        ["prompt", "a:new"],
        ["u:elsewhere", "a:5"],
    ]
    assert [path[0].parent is None for path in paths] == [True, False, False, True]
    ids = [line.id for path in paths for line in path]
    assert len(ids) == len(set(ids))
