"""A session's tree: what merges, what branches, what continues what."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.threads import Entry
from tests.storage.telling import Telling


def chat(telling: Telling, turns: int, start: Sequence[str] = ()) -> list[str]:
    """Tell a chat that sends all of itself with each turn, and give its messages."""
    messages = list(start)
    for n in range(turns):
        messages.append(f"u:{n}")
        telling.turn(messages, f"a:{n}")
        messages.append(f"a:{n}")
    return messages


def kinds(telling: Telling) -> list[str]:
    """Give what each thread is."""
    return [
        "compaction" if thread.replaces else "window" if thread.window else "conversation"
        for thread in telling.tree().threads
    ]


def branches(telling: Telling, words: str, *chosen: str) -> list[str]:
    """Give the words of the branches at a message, the newest first."""
    (line,) = [line for line in telling.lines(*chosen) if telling.words(line) == words]
    assert line.entry is not None
    heads = [head.said for head in line.entry.branches]
    return [telling.texts[head.content_id] for head in heads if head is not None]


def branch(telling: Telling, words: str) -> str:
    """Give the id of a message, on whichever path it is."""
    entries = [entry for entry in every(telling) if entry.said]
    (found,) = [e for e in entries if e.said and telling.texts[e.said.content_id] == words]
    return found.id


def every(telling: Telling) -> list[Entry]:
    waiting = [thread.first for thread in telling.tree().threads]
    found = []
    while waiting:
        entry = waiting.pop()
        found.append(entry)
        waiting += entry.children.values()
    return found


def test_a_chat_of_n_turns_reads_as_2n_messages() -> None:
    told = Telling()
    messages = chat(told, 5)
    assert told.read() == messages
    assert len(messages) == 10
    assert kinds(told) == ["conversation"]


def test_a_message_belongs_to_the_turn_with_which_it_came_first() -> None:
    told = Telling()
    chat(told, 3)
    assert [line.turn.number for line in told.lines()] == [1, 1, 2, 2, 3, 3]
    assert [line.kind for line in told.lines()] == ["input", "answer"] * 3


def test_a_turn_asked_again_has_two_answers_of_which_the_newest_is_read() -> None:
    told = Telling()
    told.turn(["u:hi"], "a:old")
    told.turn(["u:hi"], "a:new")
    assert told.read() == ["u:hi", "a:new"]
    assert branches(told, "a:new") == ["a:new", "a:old"]
    assert told.read(branch(told, "a:old")) == ["u:hi", "a:old"]


def test_an_old_branch_that_goes_on_is_the_newest() -> None:
    told = Telling()
    told.turn(["u:hi"], "a:old")
    told.turn(["u:hi"], "a:new")
    told.turn(["u:hi", "a:old", "u:more"], "a:so")
    assert told.read() == ["u:hi", "a:old", "u:more", "a:so"]
    assert branches(told, "a:old") == ["a:old", "a:new"]


def test_an_edited_message_is_a_branch_with_all_that_follows_it() -> None:
    told = Telling()
    chat(told, 3)
    told.turn(["u:0", "a:0", "u:one"], "a:one")
    assert told.read() == ["u:0", "a:0", "u:one", "a:one"]
    assert branches(told, "u:one") == ["u:one", "u:1"]
    assert told.read(branch(told, "u:1")) == ["u:0", "a:0", "u:1", "a:1", "u:2", "a:2"]
    assert told.read(branch(told, "a:2"))[-1] == "a:2"


def test_an_edited_first_message_is_a_thread_of_its_own() -> None:
    told = Telling()
    chat(told, 3)
    told.turn(["u:zero", "a:0", "u:1", "a:1", "u:2", "a:2", "u:3"], "a:3")
    assert kinds(told) == ["conversation", "conversation"]
    assert told.read()[6:] == ["u:zero", "a:0", "u:1", "a:1", "u:2", "a:2", "u:3", "a:3"]


def test_the_same_answer_again_is_counted_and_shown_once() -> None:
    told = Telling()
    told.turn(["u:hi"], "a:hello")
    told.turn(["u:hi"], "a:hello")
    assert told.read() == ["u:hi", "a:hello"]
    (_, line) = told.lines()
    assert line.entry is not None
    assert (line.entry.outcome, line.entry.repeats) == (told.turns[0], 1)


def test_the_turns_of_a_branch_are_counted() -> None:
    told = Telling()
    told.turn(["u:hi"], "a:old")
    told.turn(["u:hi"], "a:new")
    told.turn(["u:hi", "a:new", "u:more"], "a:so")
    (line,) = [line for line in told.lines() if told.words(line) == "a:new"]
    assert line.entry is not None
    assert [(head.turns, head.newest) for head in line.entry.branches] == [(2, 3), (1, 1)]


def test_a_message_that_comes_back_in_other_bytes_is_the_one_that_is_there() -> None:
    told = Telling()
    told.turn(["u:1"], "a:1")
    told.turn(["u:1;x", "a:1;x", "u:2"], "a:2")
    told.forget(1)
    told.turn(["u:1", "a:1", "u:2"], "a:two")
    assert told.read() == ["u:1;x", "a:1;x", "u:2", "a:two"]


def test_reasoning_stands_before_its_answer_whether_it_is_sent_again_or_not() -> None:
    told = Telling()
    told.turn(["u:1"], ["r:hm", "a:1"])
    told.turn(["u:1", "a:1", "u:2"], ["r:so", "a:2"])
    told.turn(["u:1", "r:hm", "a:1", "u:2", "r:so", "a:2", "u:3"], "a:3")
    assert told.read() == ["u:1", "r:hm", "a:1", "u:2", "r:so", "a:2", "u:3", "a:3"]


def test_an_answer_of_reasoning_alone_stands_where_it_ended() -> None:
    told = Telling()
    told.turn(["u:1"], ["r:hm"], state="truncated")
    told.turn(["u:1"], ["a:1"])
    assert told.read() == ["u:1", "r:hm", "a:1"]


def test_a_failed_turn_and_the_one_that_succeeds_stand_one_after_the_other() -> None:
    told = Telling()
    told.turn(["u:1"], state="failed")
    told.turn(["u:1"], state="cancelled")
    told.turn(["u:1"], "a:1")
    assert told.read() == ["u:1", "error", "error", "a:1"]
    assert branches(told, "a:1") == []


def test_a_turn_that_runs_stands_at_the_end_of_what_was_said_last() -> None:
    told = Telling()
    told.turn(["u:x"], "a:x")
    told.turn(["u:1"], "a:1")
    told.turn([], state="running", recorded=False)
    assert told.read() == ["u:x", "a:x", "u:1", "a:1", "running"]


def test_a_session_of_one_call_that_runs_is_a_thread() -> None:
    told = Telling()
    told.turn([], state="running", recorded=False)
    told.turn([], state="interrupted", recorded=False)
    assert told.read() == ["running", "error"]
    assert len(told.tree().threads) == 1


def test_a_turn_without_a_stored_answer_shows_that_there_was_one() -> None:
    told = Telling()
    told.turn(["u:1"])
    assert told.read() == ["u:1", "answer"]


def test_a_call_that_only_counts_tokens_leaves_no_answer() -> None:
    told = Telling()
    told.turn(["u:1"], answers_due=False)
    told.turn(["u:1"], "a:1")
    assert told.read() == ["u:1", "a:1"]


def test_conversations_that_have_nothing_in_common_are_threads_in_the_order_they_began() -> None:
    told = Telling()
    told.turn(["u:main"], "a:main")
    told.turn(["u:agent"], "a:agent")
    told.turn(["u:main", "a:main", "u:more"], "a:more")
    assert told.read() == ["u:main", "a:main", "u:more", "a:more", "u:agent", "a:agent"]
    assert kinds(told) == ["conversation", "conversation"]


def test_a_window_that_slides_continues_its_thread() -> None:
    told = Telling()
    messages: list[str] = []
    for n in range(12):
        messages.append(f"u:{n}")
        told.turn(messages[-5:], f"a:{n}")
        messages.append(f"a:{n}")
    assert told.read() == messages
    assert kinds(told) == ["window"]


def test_a_window_of_one_answer_and_what_is_asked_next_continues_its_thread() -> None:
    told = Telling()
    messages = chat(told, 3)
    told.turn(["a:2", "u:3"], "a:3")
    assert told.read() == [*messages, "u:3", "a:3"]


def test_one_message_of_a_user_that_was_said_before_is_chance() -> None:
    told = Telling()
    told.turn(["u:hi"], "a:hello")
    told.turn(["u:hi", "a:hello", "u:ok"], "a:fine")
    told.turn(["u:ok"], "a:what?")
    assert told.read()[4:] == ["u:ok", "a:what?"]
    assert kinds(told) == ["conversation", "conversation"]


def test_a_turn_asked_again_within_a_window_is_a_branch() -> None:
    told = Telling()
    chat(told, 4)
    told.turn(["u:2", "a:2", "u:three"], "a:three")
    assert told.read()[-4:] == ["u:2", "a:2", "u:three", "a:three"]
    assert branches(told, "u:three") == ["u:three", "u:3"]


def test_a_window_that_was_said_in_many_places_continues_the_newest() -> None:
    told = Telling()
    messages: list[str] = []
    for _ in range(30):
        messages.append("u:go")
        told.turn(messages, "a:ok")
        messages.append("a:ok")
    told.turn(["a:ok", "u:go", "a:ok", "u:stop"], "a:fine")
    assert told.read() == [*messages, "u:stop", "a:fine"]


def test_a_chain_that_begins_with_a_summary_and_repeats_the_end_is_a_compaction() -> None:
    told = Telling()
    messages = chat(told, 4)
    told.turn(["u:summary", "u:3", "a:3", "u:4"], "a:4")
    assert told.read() == [*messages, "u:summary", "u:4", "a:4"]
    assert kinds(told) == ["conversation", "compaction"]
    old, new = told.tree().threads
    assert new.replaces is old
    told.turn(["u:summary", "u:3", "a:3", "u:4", "a:4", "u:5"], "a:5")
    assert told.read() == [*messages, "u:summary", "u:4", "a:4", "u:5", "a:5"]


def test_a_chain_that_repeats_the_middle_of_a_thread_is_shown_whole() -> None:
    told = Telling()
    messages = chat(told, 4)
    told.turn(["u:other", "u:1", "a:1", "u:new"], "a:new")
    assert told.read() == [*messages, "u:other", "u:1", "a:1", "u:new", "a:new"]
    assert kinds(told) == ["conversation", "conversation"]


def test_the_message_after_a_repeated_one_names_the_one_that_is_shown() -> None:
    told = Telling()
    chat(told, 4)
    told.turn(["u:summary", "u:3", "a:3", "u:4"], "a:4")
    lines = {told.words(line): line for line in told.lines()}
    assert lines["u:4"].parent == lines["a:3"].id


def test_what_a_deleted_turn_brought_belongs_to_the_next_that_sent_it() -> None:
    told = Telling()
    messages = chat(told, 4)
    told.forget(2)
    assert told.read() == messages
    assert [line.turn.number for line in told.lines()] == [1, 1, 3, 3, 3, 3, 4, 4]
    assert kinds(told) == ["conversation"]


def test_a_deleted_first_turn_leaves_the_conversation_whole() -> None:
    told = Telling()
    messages = chat(told, 4)
    told.forget(1)
    assert told.read() == messages


def test_an_id_of_no_message_is_refused() -> None:
    told = Telling()
    chat(told, 2)
    with pytest.raises(KeyError):
        told.lines("0000000000000001-77")


def test_ids_stay_what_they_are_when_more_is_said() -> None:
    told = Telling()
    chat(told, 2)
    ids = [line.id for line in told.lines()]
    told.turn(["u:0", "a:0", "u:1", "a:1", "u:2"], "a:2")
    assert [line.id for line in told.lines()][:4] == ids
    assert ids[0] == "0000000000000001-1"


words = st.sampled_from(["u:1", "u:2", "a:1", "a:2", "r:1", "t:1"])
calls = st.tuples(
    st.sampled_from(["extend", "retry", "edit", "window", "new"]),
    st.lists(words, min_size=1, max_size=3),
    st.lists(words, max_size=2),
    st.integers(0, 9),
    st.sampled_from([[], ["s:1"], ["s:2"]]),
)


@given(st.lists(calls, max_size=12), st.sets(st.integers(1, 12), max_size=2))
def test_no_sequence_of_turns_loses_a_message_or_shows_one_twice_on_a_path(
    sequence: list[tuple[str, list[str], list[str], int, list[str]]], deleted: set[int]
) -> None:
    told = Telling()
    talk: list[str] = []
    for how, asked, answer, at, prelude in sequence:
        if how == "new":
            talk = []
        elif how == "edit":
            talk = talk[: at % (len(talk) + 1)]
        elif how == "window":
            talk = talk[-at:]
        sent = talk if how == "retry" and talk else talk + asked
        told.turn(prelude + sent, answer, state="completed" if answer else "failed")
        talk = [*sent, *answer]
    whole = {turn.number: (turn, told.whole(turn)) for turn in told.turns}
    for number in deleted:
        told.forget(number)
    lines = told.lines()
    assert len({line.id for line in lines}) == len(lines)
    paths = {}
    for entry in every(told):
        path = [entry]
        while path[-1].parent is not None:
            path.append(path[-1].parent)
        paths[entry] = path[-2::-1]
        # One place, one child for each thing that was said: so no path has a message twice.
        said = [child.said.meaning for child in entry.children.values() if child.said]
        assert len(said) == len(set(said))
    ends = [[e.said.meaning for e in path if e.said] for path in paths.values()]
    for turn, messages in whole.values():
        if turn.number not in deleted and messages:
            # The path to where the turn ends has all that it sent and got, in order, at its end.
            assert any(end[-len(messages) :] == messages for end in ends)
