"""A page made of lines and contents: texts, pairs, branches, changes."""

from typing import Any

import orjson
import pytest

from proxy.api import transcript
from proxy.api.message_views import MessageView, ThreadView
from proxy.api.transcript import Sources, needed_contents, show_page
from storage.lines import lines
from storage.threads import Setting, Turn
from tests.api.records import span
from tests.storage.telling import ROLES, Telling

CALL = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f"}}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "42"}


class Page:
    """A page of what was told; `says` gives messages another content than their words."""

    def __init__(self, told: Telling, **says: object) -> None:
        self.told = told
        self.says = says
        self.extra: dict[int, bytes] = {}
        self.unfinished: dict[int, bytes] = {}
        self.left_out: set[int] = set()

    def content(self, content_id: int) -> bytes:
        text = self.told.texts[content_id]
        return orjson.dumps(self.says.get(text[2:], {"role": ROLES[text[0]], "content": text}))

    def show(self, start: int = 0, stop: int = 1000, *branches: str) -> list[MessageView]:
        return self.all(start, stop, *branches)[1]

    def all(
        self, start: int = 0, stop: int = 1000, *branches: str
    ) -> tuple[list[ThreadView], list[MessageView]]:
        tree = self.told.tree()
        found = lines(tree, tree.through(branches))
        page = range(start, min(stop, len(found)))
        needed = set(needed_contents(found, page)) - self.left_out
        sources = Sources(
            contents={one: self.extra.get(one) or self.content(one) for one in needed},
            spans={turn.seq: self.span(turn) for turn in self.told.turns},
            unfinished=self.unfinished,
            starts_us=[turn.started_at_us for turn in self.told.turns],
        )
        return show_page(found, page, sources)

    def span(self, turn: Turn) -> Any:
        running = turn.state == "running"
        return span(
            span_id=turn.span_id,
            seq=turn.seq,
            state=turn.state,
            started_at_us=turn.started_at_us,
            ended_at_us=None if running else turn.started_at_us + 500_000,
            cost_nusd=turn.number,
        )


def test_each_message_says_where_it_stands_and_with_which_turn_it_came() -> None:
    told = Telling()
    told.turn(["u:1"], "a:1")
    told.turn(["u:1", "a:1", "u:2"], "a:2")
    shown = Page(told).show()
    assert [(m.position, m.kind, m.role, m.text, m.turn.number) for m in shown] == [
        (0, "input", "user", "u:1", 1),
        (1, "answer", "assistant", "a:1", 1),
        (2, "input", "user", "u:2", 2),
        (3, "answer", "assistant", "a:2", 2),
    ]
    assert [m.parent for m in shown] == [None, *(m.id for m in shown[:-1])]
    assert shown[2].link == f"/api/messages/{shown[2].id}"
    assert shown[2].turn.span_id == "0000000000000002"


def test_an_answer_has_what_its_turn_cost_and_the_time_of_its_end() -> None:
    told = Telling()
    told.turn(["u:1"], ["r:hm", "a:1"])
    asked, thought, answered = Page(told).show()
    assert (asked.outcome, thought.outcome) == (None, None)
    assert answered.outcome is not None
    assert (answered.outcome.state, answered.outcome.cost) == ("completed", 1e-9)
    assert asked.at == "1970-01-01T00:00:01.000000Z"
    assert answered.at == "1970-01-01T00:00:01.500000Z"


def test_a_long_text_is_cut_with_its_length_beside_it() -> None:
    told = Telling()
    told.turn(["u:long"])
    page = Page(told, long={"role": "user", "content": "x" * 20_000})
    message = page.show()[0]
    assert (len(message.text or ""), message.length, message.truncated) == (16_384, 20_000, True)


def test_what_was_too_much_to_read_is_not_shown_as_empty() -> None:
    told = Telling()
    told.turn(["u:1"], "a:1")
    page = Page(told)
    page.left_out = {1}
    message = page.show()[0]
    assert (message.text, message.truncated, message.link) == (
        *(None, True, f"/api/messages/{message.id}"),
    )


def test_a_tool_call_and_its_result_name_each_other() -> None:
    told = Telling()
    told.turn(["u:1"], "a:call")
    told.turn(["u:1", "a:call", "t:result"], "a:1")
    _, call, result, last = Page(told, call=CALL, result=RESULT).show()
    assert [(c.result, c.result_position) for c in call.tool_calls] == [(result.id, 2)]
    assert result.tool_result is not None
    assert (result.tool_result.call, result.tool_result.call_position) == (call.id, 1)
    assert last.tool_result is None


def test_a_tool_call_and_its_result_find_each_other_across_pages() -> None:
    told = Telling()
    told.turn(["u:1"], "a:call")
    told.turn(["u:1", "a:call", "t:result"], "a:1")
    page = Page(told, call=CALL, result=RESULT)
    (call,), (result,) = page.show(1, 2), page.show(2, 3)
    assert call.tool_calls[0].result == result.id
    assert result.tool_result is not None
    assert result.tool_result.call == call.id


def test_an_id_that_is_used_again_is_that_of_the_newest_call() -> None:
    told = Telling()
    told.turn(["u:1", "a:call", "t:result", "a:call", "t:result"], "a:1")
    _, one, first, two, second, _ = Page(told, call=CALL, result=RESULT).show()
    assert [one.tool_calls[0].result, two.tool_calls[0].result] == [first.id, second.id]


def test_a_result_that_comes_twice_is_the_first() -> None:
    told = Telling()
    told.turn(["u:1", "a:call", "t:result", "t:again"], "a:1")
    _, call, result, again, _ = Page(told, call=CALL, result=RESULT, again=RESULT).show()
    assert call.tool_calls[0].result == result.id
    assert again.tool_result is not None
    assert (again.tool_result.call_id, again.tool_result.call) == ("c1", None)


def test_a_message_with_others_in_its_place_lists_them_newest_first() -> None:
    told = Telling()
    told.turn(["u:1"], "a:old")
    told.turn(["u:1"], "a:new")
    shown = Page(told).show()
    assert shown[0].branches == () or shown[0].branches == []
    assert [(b.current, b.turns, b.preview) for b in shown[1].branches] == [
        (True, 1, "a:new"),
        (False, 1, "a:old"),
    ]
    assert shown[1].branches[1].last_active_at == "1970-01-01T00:00:01.000000Z"
    other = Page(told).show(0, 9, shown[1].branches[1].id)
    assert [m.text for m in other] == ["u:1", "a:old"]
    assert [b.current for b in other[1].branches] == [False, True]


def test_a_retry_without_end_lists_its_newest_branches() -> None:
    told = Telling()
    for n in range(50):
        told.turn(["u:1"], f"a:{n}")
    branches = Page(told).show()[1].branches
    assert [branch.preview for branch in branches] == [f"a:{n}" for n in range(49, 29, -1)]


def test_a_prompt_is_shown_whole_and_then_with_its_changes() -> None:
    told = Telling()
    told.turn(["s:one", "u:1"], "a:1")
    told.turn(["s:two", "u:1", "a:1", "u:2"], "a:2")
    told.turn(["u:1", "a:1", "u:2", "a:2", "u:3"], "a:3")
    first, second, third = [m for m in Page(told).show() if m.kind == "prompt"]
    assert (first.text, first.role, first.changes) == ("s:one", "system", [])
    assert (second.text, [(c.change, c.text) for c in second.changes]) == (
        "s:two",
        [("removed", "s:one"), ("added", "s:two")],
    )
    assert (third.text, [(c.change, c.text) for c in third.changes]) == ("", [("removed", "s:two")])
    assert second.link == "/api/spans/0000000000000002/request"


def test_instructions_stand_before_messages_that_instruct() -> None:
    told = Telling()
    told.turn(["s:two", "u:1"], "a:1", setting=Setting(instructions=b'"one"'))
    assert Page(told).show()[0].text == "one\n\ns:two"


def test_tools_are_listed_by_name_and_then_with_their_changes() -> None:
    told = Telling()
    told.turn(["u:1"], "a:1", setting=Setting(tools=77))
    inline = Setting(tools=b'[{"name":"b"}]', functions=b'[{"name":"c"}]')
    told.turn(["u:1", "a:1", "u:2"], "a:2", setting=inline)
    page = Page(told)
    page.extra[77] = b'[{"name":"a"},{"name":"b"}]'
    first, second = [m for m in page.show() if m.kind == "tools"]
    assert (first.tools, first.changes) == (["a", "b"], [])
    assert second.tools == ["b", "c"]
    assert [(c.change, c.text) for c in second.changes] == [("added", "c"), ("removed", "a")]


def test_a_turn_that_runs_shows_what_came_so_far() -> None:
    told = Telling()
    told.turn(["u:1"], "a:1")
    running = told.turn([], state="running", recorded=False)
    page = Page(told)
    page.unfinished[running.seq] = b'{"role":"assistant","content":"so far"}'
    last = page.show()[-1]
    assert (last.kind, last.text, last.link) == ("running", "so far", "/api/spans/0000000000000002")
    assert last.id == "0000000000000002-end"
    assert last.outcome is not None
    assert last.outcome.state == "running"


def test_a_turn_that_failed_stands_there_with_its_error() -> None:
    told = Telling()
    failed = told.turn(["u:1"], state="failed")
    page = Page(told)
    page.unfinished[failed.seq] = b'{"error":{"message":"no"}}'
    last = page.show()[-1]
    assert (last.kind, last.text, last.truncated) == ("error", None, False)
    assert last.outcome is not None
    assert (last.outcome.state, last.outcome.error) == ("failed", "no")


def test_a_page_names_the_threads_that_it_shows() -> None:
    told = Telling()
    told.turn(["u:1"], "a:1")
    told.turn(["u:x"], "a:x")
    threads, messages = Page(told).all(2, 4)
    assert [(t.id, t.kind, t.turns) for t in threads] == [(messages[0].id, "conversation", 1)]
    assert threads[0].started_at == threads[0].last_active_at == "1970-01-01T00:00:02.000000Z"


def test_a_thread_that_begins_with_a_summary_replaces_the_one_before() -> None:
    told = Telling()
    told.turn(["u:1"], "a:1")
    told.turn(["u:sum"], "a:x")
    says = {"role": "user", "content": "<summary>what was</summary>"}
    old, new = Page(told, sum=says).all()[0]
    assert (old.kind, old.replaces) == ("conversation", None)
    assert (new.kind, new.replaces) == ("compaction", old.id)


def test_a_first_thread_that_begins_with_a_summary_replaces_none() -> None:
    told = Telling()
    told.turn(["u:sum"], "a:x")
    (thread,) = Page(told, sum={"role": "user", "content": "<summary>it</summary>"}).all()[0]
    assert (thread.kind, thread.replaces) == ("conversation", None)


def test_of_a_page_only_its_own_contents_are_read() -> None:
    told = Telling()
    messages: list[str] = []
    for n in range(100):
        messages.append(f"u:{n}")
        told.turn(messages, f"a:{n}")
        messages.append(f"a:{n}")
    found = told.lines()
    needed = needed_contents(found, range(100, 110))
    # The page, the thread's first message, and the neighbours up to what a user said.
    assert 10 <= len(needed) <= 13
    assert needed[:10] == [
        line.entry.said.content_id for line in found[100:110] if line.entry and line.entry.said
    ]


@pytest.mark.parametrize("bound", ["BRANCHES", "PREVIEWS"])
def test_heads_of_branches_are_read_up_to_a_bound(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Telling()
    for n in range(30):
        told.turn(["u:1"], f"a:{n}")
    monkeypatch.setattr(transcript, bound, 5)
    assert len(needed_contents(told.lines(), range(2))) == 2 + 5 - 1
