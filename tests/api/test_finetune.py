"""Sessions as lines for fine-tuning: each answer once, as the model saw it, or why it is not."""

import json
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from jsonschema import Draft202012Validator

from proxy.api import finetune
from proxy.api.finetune import FineTune, Report
from proxy.providers.messages import text_of
from storage import transcript
from storage.archive import ArchiveChanged
from storage.database import Transaction
from storage.erase import EVERY_CALL
from storage.forget import delete_trace
from storage.forgetting import forget_contents
from tests.api.asking import ask as ask_api
from tests.running import CHAT, Running
from tests.test_recording_conversations import (
    RESPONSES,
    Message,
    Provider,
    ask,
    assistant,
    output,
    post,
    talk,
    user,
)
from tests.wire import ScriptedUpstream

_TEXT: Final = {
    "type": "object",
    "required": ["type", "text"],
    "additionalProperties": False,
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_IMAGE: Final = {
    "type": "object",
    "required": ["type", "image_url"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "required": ["url"],
            "additionalProperties": False,
            "properties": {
                "url": {"type": "string", "pattern": "^(https?://|data:image/)"},
                "detail": {"enum": ["low", "high", "auto"]},
            },
        },
    },
}


def _content(*parts: object) -> dict[str, Any]:
    return {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"anyOf": list(parts)}},
        ]
    }


def _message(role: str, content: object, **more: object) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["role", "content", *(["tool_call_id"] if role == "tool" else [])],
        "additionalProperties": False,
        "properties": {
            "role": {"const": role},
            "content": content,
            **({} if role == "tool" else {"name": {"type": "string"}}),
            **more,
        },
    }


_CALL: Final = {
    "type": "object",
    "required": ["id", "type", "function"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name", "arguments"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "arguments": {"type": "string"}},
        },
    },
}
_ASSISTANT: Final = _message(
    "assistant",
    {"anyOf": [_content(_TEXT), {"type": "null"}]},
    weight={"enum": [0, 1]},
    tool_calls={"type": "array", "minItems": 1, "items": _CALL},
) | {
    # Nothing was said only where something was called.
    "if": {"properties": {"content": {"type": "null"}}},
    "then": {"required": ["tool_calls"]},
}
# The documented format of a line for supervised fine-tuning of a chat model.
SCHEMA: Final = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "oneOf": [
                    _message("system", _content(_TEXT)),
                    _message("user", _content(_TEXT, _IMAGE)),
                    _ASSISTANT,
                    _message("tool", _content(_TEXT), tool_call_id={"type": "string"}),
                ]
            },
        },
        "tools": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["type", "function"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "required": ["name"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "description": {"type": "string"},
                            "parameters": {"type": "object"},
                            "strict": {"type": "boolean"},
                        },
                    },
                },
            },
        },
    },
}
Draft202012Validator.check_schema(SCHEMA)
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture
def provider(upstream: ScriptedUpstream) -> Provider:
    return Provider(upstream)


async def lines(tw: Running) -> tuple[list[Message], Report]:
    """Give a session's lines, each checked for what all lines have, and what else became of it."""
    await tw.saved()
    writer = FineTune(tw.database)
    text = b"".join([piece async for piece in writer.pieces(1, "s")])
    report = await writer.report(1, "s")
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        Draft202012Validator(SCHEMA).validate(line)
        assert (line["messages"][-1]["role"], line["messages"][-1]["weight"]) == ("assistant", 1)
    weights = [one.get("weight", 0) for line in found for one in line["messages"]]
    assert report.lines == len(found)
    assert report.trained == sum(weights)
    turns = (await ask_api(tw, "/api/sessions/s")).body["span_count"]
    assert report.trained + sum(report.skipped.values()) == turns
    return found, report


def shown(line: Message) -> list[str]:
    """Give a line in short: a letter for the role, its text, and `!` where it is trained."""
    return [
        f"{one['role'][0]}:{one['content']}{'!' if one.get('weight') else ''}"
        for one in line["messages"]
    ]


async def test_a_conversation_is_one_line_and_each_of_its_answers_is_trained(
    tw: Running, provider: Provider
) -> None:
    await talk(tw, provider, 3)
    found, report = await lines(tw)
    assert [shown(line) for line in found] == [
        [text for n in range(3) for text in (f"u:question {n}", f"a:answer {n}!")]
    ]
    assert (report.lines, report.trained, dict(report.skipped)) == (1, 3, {})


async def test_each_end_has_a_line_and_no_answer_is_trained_twice(
    tw: Running, provider: Provider
) -> None:
    sent = await talk(tw, provider, 2)
    await ask(tw, provider, sent[:3], assistant("again"))
    await ask(tw, provider, sent[:3], assistant("again"))
    await ask(tw, provider, [*sent[:2], user("edited")], assistant("so"))
    found, report = await lines(tw)
    assert [shown(line) for line in found] == [
        ["u:question 0", "a:answer 0!", "u:question 1", "a:answer 1!"],
        ["u:question 0", "a:answer 0", "u:question 1", "a:again!"],
        ["u:question 0", "a:answer 0", "u:edited", "a:so!"],
    ]
    assert dict(report.skipped) == {"repeated": 1}


async def test_what_the_client_made_up_is_not_trained(tw: Running, provider: Provider) -> None:
    sent = [user("q"), assistant("never said"), user("and?")]
    await ask(tw, provider, sent, assistant("so"))
    found, _ = await lines(tw)
    assert [shown(line) for line in found] == [["u:q", "a:never said", "u:and?", "a:so!"]]


async def test_where_prompt_or_tools_change_each_answer_is_trained_with_its_own(
    tw: Running, provider: Provider
) -> None:
    said: list[Message] = []
    for n in range(4):
        said.append(user(f"q{n}"))
        messages = [{"role": "system", "content": "brief" if n < 2 else "long"}, *said]
        tools = {"tools": [TOOL]} if n < 3 else {}
        await ask(tw, provider, messages, assistant(f"a{n}"), **tools)
        said.append(assistant(f"a{n}"))
    found, _ = await lines(tw)
    before = ["u:q0", "a:a0", "u:q1", "a:a1"]
    assert [shown(line) for line in found] == [
        ["s:long", *before, "u:q2", "a:a2", "u:q3", "a:a3!"],
        ["s:long", *before, "u:q2", "a:a2!"],
        ["s:brief", "u:q0", "a:a0!", "u:q1", "a:a1!"],
    ]
    assert [line.get("tools") for line in found] == [None, [TOOL], [TOOL]]


async def test_a_call_that_left_the_beginning_out_is_trained_without_it(
    tw: Running, provider: Provider
) -> None:
    sent = await talk(tw, provider, 3)
    await ask(tw, provider, [*sent[2:], user("more")], assistant("end"))
    found, _ = await lines(tw)
    assert [shown(line) for line in found] == [
        ["u:question 1", "a:answer 1", "u:question 2", "a:answer 2", "u:more", "a:end!"],
        [text for n in range(3) for text in (f"u:question {n}", f"a:answer {n}!")],
    ]


async def test_tool_calls_and_pictures_of_a_chat_are_in_its_line(
    tw: Running, provider: Provider
) -> None:
    function = {"name": "look", "arguments": '{"at": 1}'}
    asked = {"id": "c1", "type": "function", "function": function}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    sent: list[Message] = [user("see")]
    sent[0]["content"] = [{"type": "text", "text": "see"}, picture]
    calling = {"role": "assistant", "content": None, "tool_calls": [asked], "refusal": None}
    await ask(tw, provider, sent, calling, tools=[TOOL])
    sent += [calling, {"role": "tool", "tool_call_id": "c1", "content": "found"}]
    await ask(tw, provider, sent, assistant("it is there"), tools=[TOOL])
    (line,), _ = await lines(tw)
    assert line["messages"] == [
        sent[0],
        {"role": "assistant", "content": None, "tool_calls": [asked], "weight": 1},
        sent[2],
        {"role": "assistant", "content": "it is there", "weight": 1},
    ]
    assert line["tools"] == [TOOL]


async def test_items_of_responses_are_one_line_of_messages(tw: Running, provider: Provider) -> None:
    call = {"type": "function_call", "id": "fc", "call_id": "c1", "name": "look",
            "arguments": "{}", "status": "completed"}  # fmt: skip
    thought = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "secret"}
    text = output(assistant("I look"))["output"][0]
    answers = [[thought, text, call], output(assistant("done"))["output"]]
    provider.wrap = lambda items: orjson.dumps({**output(assistant("")), "output": items})
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    items: list[Any] = [user("go")]
    for n, answer in enumerate(answers):
        provider.says.append(answer)  # type: ignore[arg-type]
        body = {"model": "gpt-5", "input": items, "instructions": "be brief", "tools": [tool]}
        await post(tw, RESPONSES, body)
        items += answer
        if not n:
            items.append({"type": "function_call_output", "call_id": "c1", "output": "found"})
    (line,), report = await lines(tw)
    function = {"name": "look", "arguments": "{}"}
    calls = [{"id": "c1", "type": "function", "function": function}]
    assert line["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "I look", "tool_calls": calls, "weight": 1},
        {"role": "tool", "content": "found", "tool_call_id": "c1"},
        {"role": "assistant", "content": "done", "weight": 1},
    ]
    assert line["tools"] == [TOOL]
    assert b"secret" not in orjson.dumps(line)
    assert report.trained == 2


async def test_what_the_provider_holds_is_in_the_line_as_it_was_said(
    tw: Running, provider: Provider
) -> None:
    for n in range(3):
        name = f"resp_{n}"
        provider.wrap = lambda message, name=name: orjson.dumps(output(message, name))
        provider.says.append(assistant(f"answer {n}"))
        held = {"previous_response_id": f"resp_{n - 1}"} if n else {}
        await post(tw, RESPONSES, {"model": "gpt-5", "input": f"question {n}", **held})
    found, _ = await lines(tw)
    assert [shown(line) for line in found] == [
        [text for n in range(3) for text in (f"u:question {n}", f"a:answer {n}!")]
    ]


async def test_what_goes_on_from_what_was_not_recorded_is_left_out(
    tw: Running, provider: Provider
) -> None:
    provider.wrap = lambda message: orjson.dumps(output(message, "resp_2"))
    provider.says += [assistant("which?"), assistant("that"), assistant("so")]
    body = {"model": "gpt-5", "input": "go on", "previous_response_id": "resp_unknown"}
    await post(tw, RESPONSES, body)
    await post(tw, RESPONSES, {**body, "input": "and?", "previous_response_id": "resp_2"})
    # Who says all of it anew needs nobody who holds it.
    said = [user("go on"), *output(assistant("which?"))["output"], user("now?")]
    await post(tw, RESPONSES, {"model": "gpt-5", "input": said})
    found, report = await lines(tw)
    assert [shown(line) for line in found] == [["u:go on", "a:which?", "u:now?", "a:so!"]]
    assert dict(report.skipped) == {"unknown_beginning": 2}


async def test_what_goes_on_from_what_was_deleted_is_left_out(
    tw: Running, provider: Provider
) -> None:
    for n in range(3):
        name = f"resp_{n}"
        provider.wrap = lambda message, name=name: orjson.dumps(output(message, name))
        provider.says.append(assistant(f"answer {n}"))
        held = {"previous_response_id": f"resp_{n - 1}"} if n else {}
        await post(tw, RESPONSES, {"model": "gpt-5", "input": f"question {n}", **held})
    await tw.saved()
    first = (await ask_api(tw, "/api/sessions/s")).body["traces"][0]["id"]
    assert (await ask_api(tw, f"/api/traces/{first}", "DELETE")).status == 200
    found, report = await lines(tw)
    assert found == []
    assert dict(report.skipped) == {"unknown_beginning": 2}


async def test_what_cannot_be_said_ends_a_line_and_all_behind_it_is_counted(
    tw: Running, provider: Provider
) -> None:
    sent = await talk(tw, provider, 2)
    heard = user("hear")
    heard["content"] = [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]
    for text in ("a sound", "more"):
        sent.append(heard if text == "a sound" else user("go on"))
        await ask(tw, provider, sent, assistant(text))
        sent.append(assistant(text))
    found, report = await lines(tw)
    assert [shown(line) for line in found] == [
        [text for n in range(2) for text in (f"u:question {n}", f"a:answer {n}!")]
    ]
    assert dict(report.skipped) == {"audio": 2}


async def test_answers_that_failed_or_were_cut_short_or_refused_are_counted(
    tw: Running, provider: Provider, upstream: ScriptedUpstream
) -> None:
    await ask(tw, provider, [user("one")], assistant("fine"))
    await ask(tw, provider, [user("two")], {"role": "assistant", "refusal": "no", "content": None})
    provider.wrap = lambda message: orjson.dumps(
        {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "length"}]}
    )
    await ask(tw, provider, [user("three")], assistant("not all of"))
    upstream.answers(b'{"error":{"message":"no"}}', status=b"500 Internal Server Error")
    headers = b"Content-Type: application/json\r\nX-Traceway-Session-Id: s\r\n"
    body = orjson.dumps({"model": "gpt-4o-mini", "messages": [user("four")]})
    assert (await tw.raw(CHAT.encode(), headers=headers, body=body)).status == 500
    found, report = await lines(tw)
    assert [shown(line) for line in found] == [["u:one", "a:fine!"]]
    assert dict(report.skipped) == {"refusal": 1, "cut_short": 1, "not_completed": 1}


async def test_a_line_that_is_too_long_to_read_is_counted(
    tw: Running, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(tw, provider, [user("short")], assistant("a"))
    await ask(tw, provider, [user("x" * 3000)], assistant("b"))
    monkeypatch.setattr(finetune, "LINE_BYTES", 2000)
    found, report = await lines(tw)
    assert [shown(line) for line in found] == [["u:short", "a:a!"]]
    assert dict(report.skipped) == {"too_large": 1}


async def traces(tw: Running) -> list[bytes]:
    await tw.saved()
    found = await tw.database.read("SELECT trace_id FROM traces ORDER BY seq", {})
    return [trace_id for (trace_id,) in found]


@pytest.mark.parametrize(
    ("reads", "why"), [("turn_spans", "a call"), ("message_contents", "a message")]
)
async def test_what_is_deleted_while_it_is_read_is_an_error_and_no_reason(
    tw: Running, provider: Provider, monkeypatch: pytest.MonkeyPatch, reads: str, why: str
) -> None:
    await talk(tw, provider, 1)
    await ask(tw, provider, [user("another")], assistant("so"))
    first, _ = await traces(tw)
    read = getattr(transcript, reads)

    async def deleting(*given: Any) -> Any:
        await tw.server.recorder.write(lambda tx: delete_trace(tx, 1, first, text_of))
        return await read(*given)

    monkeypatch.setattr(finetune.transcript, reads, deleting)
    with pytest.raises(ArchiveChanged, match=f"{why} was changed"):
        await FineTune(tw.database).report(1, "s")


async def test_what_is_forgotten_while_it_is_read_is_not_called_too_large(
    tw: Running, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(tw, provider, 2)
    keys = [(1, trace_id) for trace_id in await traces(tw)]
    read = transcript.message_contents

    def forget(tx: Transaction) -> object:
        how: dict[str, Any] = {"now_us": 7, "most_spans": 99, "before_seq": EVERY_CALL}
        return forget_contents(tx, keys, text_of, **how)

    async def forgetting(*given: Any) -> dict[int, bytes]:
        await tw.server.recorder.write(forget)
        return await read(*given)

    monkeypatch.setattr(finetune.transcript, "message_contents", forgetting)
    with pytest.raises(ArchiveChanged, match="a message was changed"):
        await FineTune(tw.database).report(1, "s")
    monkeypatch.undo()
    assert (await FineTune(tw.database).report(1, "s")).skipped["too_large"] == 0


async def test_every_recorded_example_is_a_line_or_has_its_reason(
    tw: Running, provider: Provider
) -> None:
    provider.wrap = orjson.dumps
    examples = []
    for name, path in (("chat", CHAT), ("responses", RESPONSES)):
        folder = Path(__file__).parent.parent / "golden"
        cases = orjson.loads((folder / f"{name}.json").read_bytes())
        examples += [
            (path, one)
            for one in cases
            if f"/api/proxy/openai{one['request']['path']}" == path and "body" in one["answer"]
        ]
    for path, one in examples:
        provider.says.append(one["answer"]["body"])
        await post(tw, path, one["request"]["body"])
    found, report = await lines(tw)
    assert len(examples) > 15
    assert report.lines == len(found) >= len(examples) // 2
    assert set(report.skipped) <= finetune.REASONS


async def test_a_session_that_is_not_there_is_known_before_the_first_piece(tw: Running) -> None:
    with pytest.raises(LookupError):
        await anext(FineTune(tw.database).pieces(1, "nobody"))
    with pytest.raises(LookupError):
        await FineTune(tw.database).report(1, "nobody")


async def test_the_api_says_in_headers_what_is_left_out(tw: Running, provider: Provider) -> None:
    sent = await talk(tw, provider, 2)
    await ask(tw, provider, sent[:1], assistant("answer 0"))
    await tw.saved()
    for path in ("/api/sessions/s/export?", "/api/sessions/by-id/export?id=s&"):
        async with tw.client.get(f"{tw.url}{path}format=finetune") as answer:
            assert answer.status == 200
            (line,) = (await answer.text()).splitlines()
            headers = answer.headers
        assert shown(json.loads(line))[-1] == "a:answer 1!"
        assert headers["X-Traceway-Lines"] == "1"
        assert headers["X-Traceway-Skipped"] == "repeated=1"
        assert headers["Content-Type"] == "application/jsonl"
        assert headers["Content-Disposition"] == 'attachment; filename="session-s.finetune.jsonl"'
    assert (await ask_api(tw, "/api/sessions/x/export?format=finetune")).error[0] == 404
