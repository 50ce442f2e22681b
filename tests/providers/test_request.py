"""What a request says: fields, preview and text, out of JSON and forms."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.facts import RequestFacts
from proxy.providers.openai import operation_of, read_request

CHAT = operation_of("POST", "/v1/chat/completions")
EDIT = operation_of("POST", "/v1/images/edits")
JSON = "application/json"
FORM = 'multipart/form-data; charset=utf-8; boundary="x y"'


def read(body: bytes, content_type: str = JSON) -> RequestFacts:
    return read_request(CHAT, body, content_type)


def part(header: str, value: bytes) -> bytes:
    return (
        b"--x y\r\nContent-Disposition: form-data; "
        + header.encode()
        + b"\r\n\r\n"
        + value
        + b"\r\n"
    )


def test_fields_are_read() -> None:
    facts = read(
        b'{"model":"gpt-5","stream":true,"service_tier":"flex","user":"u1","background":true,'
        b'"stream_options":{"include_usage":true}}'
    )
    assert facts == RequestFacts(
        model="gpt-5",
        stream=True,
        service_tier="flex",
        user="u1",
        background=True,
        include_usage=True,
    )


def test_the_preview_is_the_last_user_message_with_its_white_space_folded() -> None:
    facts = read(
        b'{"messages":[{"role":"user","content":"first"},{"role":"assistant","content":"no"},'
        b'{"role":"user","content":[{"type":"text","text":" a\\n\\n  b "},{"type":"image_url"}]},'
        b'{"role":"tool","content":"22"}]}'
    )
    assert facts.preview == "a b"


def test_without_a_user_message_the_newest_text_is_shown() -> None:
    assert read(b'{"input":[{"type":"function_call_output","output":"22"}]}').preview == "22"
    assert read(b'{"prompt":["a","b"]}').preview == "ab"
    assert read(b'{"messages":[]}').preview is None


def test_the_text_is_all_that_the_model_reads() -> None:
    facts = read(
        b'{"instructions":"Be brief.","messages":[{"role":"user","content":"Hi"},'
        b'{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}],'
        b'"tools":[{"type":"function","function":{"name":"f"}}]}'
    )
    assert facts.text == ('Be brief.\nHi\nf\n{}\n[{"type":"function","function":{"name":"f"}}]')


def test_a_form_gives_its_text_fields_and_its_files_are_stepped_over() -> None:
    body = (
        part('name="model"', b"gpt-image-1")
        + part('name="image"; filename="a.png"', b'PNG\r\n\r\nname="prompt"')
        + part("name=prompt", b"Add\na hat")
        + part('name="stream"', b"true")
        + b"--x y--\r\n"
    )
    facts = read_request(EDIT, body, FORM)
    assert (facts.model, facts.preview, facts.stream) == ("gpt-image-1", "Add a hat", True)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"<html>", b'{"model":' + b"[" * 200_000, b"\xff\xfe"]
)
def test_what_is_no_object_gives_no_facts(body: bytes) -> None:
    assert read(body) == RequestFacts()


def test_text_that_cannot_be_stored_is_replaced() -> None:
    facts = read(b'{"model":"a\\u0000\\ud800b","input":"x\\u0000y \\udfff"}')
    assert (facts.model, facts.preview) == ("a\ufffd\ufffdb", "x\ufffdy \ufffd")


def test_values_of_the_wrong_type_are_unknown() -> None:
    assert (
        read(
            b'{"model":7,"stream":"true","service_tier":[],"user":{},"background":1,"messages":"x",'
            b'"input":{"a":1},"prompt":[1,2],"tools":"t","stream_options":[]}'
        )
        == RequestFacts()
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "content",
                    "text",
                    "role",
                    "input",
                    "tools",
                    "function",
                    "thread",
                    "tool_calls",
                    "prompt",
                    "name",
                    "model",
                    "stream_options",
                    "questions",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_no_json_makes_it_raise(value: object) -> None:
    facts = read(json.dumps(value).encode())
    (facts.text + (facts.preview or "") + (facts.model or "")).encode()


@given(st.binary(), st.sampled_from([JSON, FORM, "multipart/form-data; boundary=x", "", "\0"]))
def test_no_bytes_make_it_raise(body: bytes, content_type: str) -> None:
    read(body, content_type)
    read(b"--x\r\n" + body, content_type)
