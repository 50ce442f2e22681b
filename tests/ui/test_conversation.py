"""How a page of a conversation is laid out: every message once, results with their calls, days."""

from collections.abc import Iterator
from typing import Any

from proxy.api.conversation import ConversationPage
from proxy.api.message_views import (
    MessageView,
    PartView,
    ThreadView,
    ToolResultView,
    TurnView,
    tool_call_view,
)
from proxy.providers.reading import Part, ToolCall, read
from proxy.ui import conversation
from proxy.ui.conversation import Row, Section, said, sections
from proxy.ui.markdown import Emphasis, Paragraph, Text


def message(position: int, text: str | None = None, **fields: Any) -> MessageView:
    given: dict[str, Any] = {
        "id": f"m{position}",
        "position": position,
        "thread": "t",
        "parent": None,
        "kind": "input",
        "role": "user",
        "turn": TurnView(number=1, trace_id="a", span_id="s"),
        "at": f"2026-11-20T09:00:{position:02}.000000Z",
        "link": "/x",
        "text": text,
        "length": len(text or ""),
    }
    return MessageView(**{**given, **fields})


def thread(name: str) -> ThreadView:
    return ThreadView(
        id=name, kind="conversation", replaces=None, started_at="", last_active_at="", turns=1
    )


def laid_out(*messages: MessageView) -> list[Section]:
    threads = [thread(name) for name in dict.fromkeys(one.thread for one in messages)]
    page = ConversationPage(start=0, total=len(messages), threads=threads, messages=messages)
    return sections(page)


def rows(*messages: MessageView) -> list[Row]:
    return [row for section in laid_out(*messages) for row in section.rows]


def calling(position: int, result: str | None, **fields: Any) -> MessageView:
    call = tool_call_view(ToolCall("c", "f", "function", '{"a":1}'), result, None)
    return message(position, role="assistant", tool_calls=[call], **fields)


def result(position: int, text: str = "42", **fields: Any) -> MessageView:
    of = ToolResultView(call_id="c", call="m0", call_position=0)
    return message(position, text, role="tool", tool_result=of, **fields)


def part(kind: str, **fields: Any) -> PartView:
    unknown = dict.fromkeys(PartView.__dataclass_fields__)
    return PartView(**{**unknown, "kind": kind, "truncated": False, **fields})


def everything(found: list[Row]) -> Iterator[str]:
    for row in found:
        yield row.message.id
        yield from everything([call.result for call in row.calls if call.result])


def test_threads_are_sections() -> None:
    found = laid_out(message(0, thread="a"), message(1, thread="a"), message(2, thread="b"))
    assert [(one.thread.id, len(one.rows)) for one in found] == [("a", 2), ("b", 1)]


def test_the_first_message_of_a_turn_and_of_a_day_are_marked() -> None:
    other = TurnView(number=2, trace_id="b", span_id="s")
    found = rows(
        message(0), message(1), message(2, turn=other, at="2026-11-21T00:00:00.000000Z"), message(3)
    )
    assert [row.turn for row in found] == ["a", None, "b", None]
    assert [bool(row.day) for row in found] == [True, False, True, True]


def test_a_result_stands_under_its_call_and_nowhere_else() -> None:
    found = rows(calling(0, "m1"), result(1, '{"x":[1]}'), message(2))
    assert [row.message.id for row in found] == ["m0", "m2"]
    (call,) = found[0].calls
    assert call.arguments == '{\n  "a": 1\n}'
    assert call.result is not None
    assert call.result.pieces[0].blocks == (Paragraph((Text('{\n  "x": [\n    1\n  ]\n}'),)),)


def test_a_result_whose_call_is_on_another_page_stands_for_itself() -> None:
    assert [row.message.id for row in rows(result(4))] == ["m4"]
    (row,) = rows(calling(0, "m77"))
    assert row.calls[0].result is None


def test_a_result_that_calls_tools_itself_stands_for_itself() -> None:
    chain = [calling(n, f"m{n + 1}") for n in range(50)]
    found = rows(*chain, result(50))
    assert sorted(everything(found)) == sorted(f"m{n}" for n in range(51))


def test_text_is_markdown_but_where_it_is_a_result_or_still_grows() -> None:
    found = rows(message(0, "*a*"), result(1, "*a*"), message(2, "*a*", kind="running"))
    kinds = [type(row.pieces[0].blocks[0].children[0]) for row in found]  # type: ignore[union-attr]
    assert kinds == [Emphasis, Text, Text]


def test_a_page_that_is_too_long_is_plain_at_its_end(monkeypatch: Any) -> None:
    monkeypatch.setattr(conversation, "MARKDOWN_CHARS", 5)
    found = rows(message(0, "*a*"), message(1, "*b*"))
    assert found[1].pieces[0].blocks == (Paragraph((Text("*b*"),)),)


def test_pictures_have_addresses_where_their_bytes_are_here() -> None:
    parts = [part("image", url="https://x"), part("text", text="hi"), part("image", size=9)]
    (row,) = rows(message(0, "hi", parts=parts))
    assert [piece.picture for piece in row.pieces] == [None, None, "/pictures/m0/1"]


def test_prompts_and_tools_have_no_pieces() -> None:
    assert [
        row.pieces for row in rows(message(0, "p", kind="prompt"), message(1, kind="tools"))
    ] == [
        *([], []),
    ]


def test_long_messages_are_told_from_short_ones() -> None:
    assert [row.is_short for row in rows(message(0, "x"), message(1, "x" * 2000))] == [True, False]


def test_a_message_of_one_call_is_laid_out_by_itself() -> None:
    found = said(read(b'{"role":"assistant","content":"*a*","reasoning":"hm"}'))
    assert (found.role, [piece.kind for piece in found.pieces]) == (
        *("assistant", ["reasoning", "text"]),
    )
    found = said(read(b'{"role":"user","content":"a"}'))
    assert [(piece.kind, piece.blocks) for piece in found.pieces] == [
        ("text", (Paragraph((Text("a"),)),)),
    ]
    assert Part("text") == Part("text", picture="not compared")
