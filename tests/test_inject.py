"""Injection asks for usage only where that is certain, and changes nothing else of a request."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.inject import (
    MAX_BODY_BYTES,
    MAX_MEMBERS,
    MAX_MODELS,
    InjectionMemory,
    names_stream_options,
    plan,
    wants,
)

ASKED = b'"stream_options":{"include_usage":true}'

keys = st.sampled_from(["model", "messages", "stream_option", "é", 'x","stream":true', "\\"])
values = st.one_of(
    st.sampled_from([None, True, -1.5e300, [], {}, {"stream": False}, [{"content": "\u2028"}]]),
    st.text(max_size=9),
)


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        (b'{"stream":true}', b'{"stream":true,' + ASKED + b"}"),
        (
            b'{"model":"m", "stream" : true , "n":1e999 }\n',
            b'{"model":"m", "stream" : true,' + ASKED + b' , "n":1e999 }\n',
        ),
        (
            b'{"stream_options":null,"stream":true}',
            b"{" + ASKED + b',"stream":true}',
        ),
        (
            b'{"stream_options":{ },"stream":true}',
            b"{" + ASKED + b',"stream":true}',
        ),
        (
            b'{"stream_options": {"include_obfuscation": false }, "stream": true}',
            b'{"stream_options": {"include_obfuscation": false,"include_usage":true },'
            b' "stream": true}',
        ),
        (
            b'{"messages":[{"content":"\\"stream\\":false \xff"}],"stream":true}',
            b'{"messages":[{"content":"\\"stream\\":false \xff"}],"stream":true,' + ASKED + b"}",
        ),
    ],
)
def test_a_stream_asks_for_usage_and_every_other_byte_stays(body: bytes, edited: bytes) -> None:
    injection = plan(body)
    assert injection is not None
    assert injection.body == edited


def test_an_object_of_more_members_than_any_request_has_is_left_alone() -> None:
    def body(count: int) -> bytes:
        others = b"".join(b',"%d":%d' % (n, n) for n in range(count - 1))
        return b'{"stream":true' + others + b"}"

    assert plan(body(MAX_MEMBERS)) is not None
    assert plan(body(MAX_MEMBERS + 1)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'["stream"]',
        b'{"\xff":1,"stream":true}',
        b'{"stream":false}',
        b'{"stream":1}',
        b'{"stream":"true"}',
        b'{"x":{"stream":true}}',
        b'{"stream":true,"stream":true}',
        b'{"stream":true,"stream":false}',
        b'{"a":1,"a":1,"stream":true}',
        b'{"a":12,"a":1,"stream":true}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":true,"stream_options":{"include_usage":false}}',
        b'{"stream":true,"stream_options":{"include_usage":null}}',
        b'{"stream":true,"stream_options":{"a":1,"a":1}}',
        b'{"stream":true,"stream_options":true}',
        b'{"stream":true,"stream_options":[]}',
        b'{"stream":true',
        b'{"stream":true}}',
        b'{"stream":true,}',
        b'\xef\xbb\xbf{"stream":true}',
        b'{"stream":true,"a":NaN}',
        b'{"stream":true,"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"stream":true,"a":"' + b"x" * MAX_BODY_BYTES + b'"}',
        '{"stream":true}'.encode("utf-16"),
    ],
    ids=range(27),
)
def test_what_is_no_stream_or_not_certain_or_the_clients_choice_is_left_alone(body: bytes) -> None:
    assert plan(body) is None


@pytest.mark.parametrize(
    ("member", "model"),
    [
        (b',"model":"gpt-4o"', "gpt-4o"),
        (b',"model":"\\u0067pt"', "gpt"),
        (b"", None),
        (b',"model":7', None),
        (b',"model":"\xff"', None),
    ],
)
def test_the_model_is_the_one_that_the_client_named(member: bytes, model: str | None) -> None:
    injection = plan(b'{"stream":true' + member + b"}")
    assert injection is not None
    assert injection.model == model


@given(
    st.dictionaries(keys, values, max_size=5),
    st.sampled_from([None, {}, {"include_obfuscation": True}, {"a": 1, "b": {"c": []}}]),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), ("\n,\t", " : ")]),
)
def test_a_planned_body_means_the_same_plus_the_option(
    members: dict[str, object], options: object, absent: bool, separators: tuple[str, str]
) -> None:
    members = {**members, "stream": True} | ({} if absent else {"stream_options": options})
    body = json.dumps(members, separators=separators).encode()
    injection = plan(body)
    assert injection is not None
    asked = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    meant = members | {"stream_options": {"include_usage": True} if absent else asked}
    assert json.loads(injection.body) == meant
    if absent or options is not None:  # an insertion, so what stood round it stands there still
        pairs = zip(body, injection.body, strict=False)
        before = next(at for at, (old, new) in enumerate(pairs) if old != new)
        assert injection.body.endswith(body[before:])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, True),
        ({"path": "/v1/completions"}, True),
        ({"path": "/openai/deployments/d/chat/completions?api-version=2024-10-21"}, True),
        ({"content_type": "Application/JSON; charset=utf-8"}, True),
        ({"content_encoding": ""}, True),
        ({"content_length": None}, True),
        ({"content_length": MAX_BODY_BYTES}, True),
        ({"content_length": MAX_BODY_BYTES + 1}, False),
        ({"method": "GET"}, False),
        ({"path": "/v1/responses"}, False),
        ({"path": "/v1/chat/completions/chatcmpl-1"}, False),
        ({"path": "/v1/files?x=/chat/completions"}, False),
        ({"content_type": None}, False),
        ({"content_type": "multipart/form-data"}, False),
        ({"content_type": "application/jsonl"}, False),
        ({"content_encoding": "gzip"}, False),
    ],
)
def test_only_the_head_of_a_plain_json_completion_is_wanted(
    change: dict[str, object], wanted: bool
) -> None:
    head: dict[str, object] = {
        "method": "POST",
        "path": "/v1/chat/completions",
        "content_type": "application/json",
        "content_encoding": None,
        "content_length": 100,
    }
    assert wants(**(head | change)) is wanted  # type: ignore[arg-type]  # the table is mixed


def test_always_injects_and_never_does_not() -> None:
    always, never = InjectionMemory("always"), InjectionMemory("never")
    never.saw_stream("m", had_usage_field=False)
    always.saw_stream("m", had_usage_field=True)
    assert always.should_inject("m")
    assert always.should_inject(None)
    assert not never.should_inject("m")


def test_auto_injects_for_a_model_only_after_a_stream_of_it_without_usage() -> None:
    memory = InjectionMemory("auto")
    assert not memory.should_inject("m")
    memory.saw_stream("m", had_usage_field=False)
    assert memory.should_inject("m")
    assert not memory.should_inject("other")
    assert not memory.should_inject(None)
    memory.saw_stream("m", had_usage_field=True)
    assert not memory.should_inject("m")


@pytest.mark.parametrize("mode", ["always", "auto"])
@pytest.mark.parametrize("lesson", ["refused", "unsure"])
def test_a_refusal_or_a_stream_that_could_not_be_edited_ends_injection(
    mode: str, lesson: str
) -> None:
    memory = InjectionMemory(mode)  # type: ignore[arg-type]  # parametrised
    memory.saw_stream("m", had_usage_field=False)
    assert memory.should_inject("m")
    getattr(memory, lesson)()
    memory.saw_stream("m", had_usage_field=False)
    assert not memory.should_inject("m")


def test_the_models_remembered_have_a_bound_and_the_oldest_is_forgotten() -> None:
    memory = InjectionMemory("auto")
    for number in range(MAX_MODELS):
        memory.saw_stream(f"m{number}", had_usage_field=False)
    memory.saw_stream("m0", had_usage_field=False)  # seen again: no longer the oldest
    memory.saw_stream("one more", had_usage_field=False)
    memory.saw_stream("x" * 257, had_usage_field=False)
    assert memory.should_inject("m0")
    assert not memory.should_inject("m1")
    assert memory.should_inject("m2")
    assert memory.should_inject("one more")
    assert not memory.should_inject("x" * 257)
    assert len(memory._without_usage) == MAX_MODELS


@pytest.mark.parametrize(
    ("status", "body", "refuses"),
    [
        (400, b'{"error":{"message":"Unrecognized argument: stream_options"}}', True),
        (422, b'{"detail":[{"loc":["body","stream_options","include_usage"]}]}', True),
        (400, b'{"error":{"message":"max_tokens is too large"}}', False),
        (500, b"stream_options", False),
        (200, b"stream_options", False),
        (400, b"", False),
    ],
)
def test_only_a_4xx_that_names_stream_options_is_a_refusal(
    status: int, body: bytes, refuses: bool
) -> None:
    assert names_stream_options(status, body) is refuses


@pytest.mark.parametrize(
    "body", [b'{"stream":true,"x":1}', b'{"stream":true,"stream_options":{"a":1},"x":1}']
)
def test_a_request_can_leave_in_parts_without_a_copy(body: bytes) -> None:
    injection = plan(body)
    assert injection is not None
    assert b"".join(injection.parts) == injection.body
    assert injection.size == len(injection.body)
    assert injection.parts[0].obj is body
