"""What a request says: fields, preview and text, out of JSON and forms."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.facts import RequestFacts
from proxy.providers.openai import input_preview, input_text, operation_of, read_request

CHAT = operation_of("POST", "/v1/chat/completions")
RESPONSES = operation_of("POST", "/v1/responses")
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
    body = (
        b'{"messages":[{"role":"user","content":"first"},{"role":"assistant","content":"no"},'
        b'{"role":"user","content":[{"type":"text","text":" a\\n\\n  b "},{"type":"image_url"}]},'
        b'{"role":"tool","content":"22"}]}'
    )
    assert input_preview(body, JSON) == "a b"


def test_without_a_user_message_the_newest_text_is_shown() -> None:
    tool = b'{"input":[{"type":"function_call_output","output":"22"}]}'
    assert input_preview(tool, JSON) == "22"
    assert input_preview(b'{"prompt":["a","b"]}', JSON) in ("ab", "a b")
    assert input_preview(b'{"messages":[]}', JSON) is None


def test_the_text_is_all_that_the_model_reads() -> None:
    body = (
        b'{"instructions":"Be brief.","messages":[{"role":"user","content":"Hi"},'
        b'{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}],'
        b'"tools":[{"type":"function","function":{"name":"f"}}]}'
    )
    assert input_text(body, JSON) == (
        'Be brief.\nHi\nf({})\n[{"type":"function","function":{"name":"f"}}]'
    )


def test_a_form_gives_its_text_fields_and_its_files_are_stepped_over() -> None:
    body = (
        part('name="model"', b"gpt-image-1")
        + part('name="image"; filename="a.png"', b'PNG\r\n\r\nname="prompt"')
        + part("name=prompt", b"Add\na hat")
        + part('name="stream"', b"true")
        + b"--x y--\r\n"
    )
    facts = read_request(EDIT, body, FORM)
    assert (facts.model, facts.stream) == ("gpt-image-1", True)
    assert (input_preview(body, FORM), input_text(body, FORM)) == ("Add a hat", "Add\na hat")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"<html>", b'{"model":' + b"[" * 200_000, b"\xff\xfe"]
)
def test_what_is_no_object_gives_no_facts(body: bytes) -> None:
    assert read(body) == RequestFacts()
    assert (input_preview(body, JSON), input_text(body, JSON)) == (None, "")


def test_text_that_cannot_be_stored_is_replaced() -> None:
    body = b'{"model":"a\\u0000\\ud800b","input":"x\\u0000y \\udfff","chat_id":"\\u0000"}'
    facts = read(body)
    assert (facts.model, facts.named) == ("a\ufffd\ufffdb", {"chat_id": "\ufffd"})
    assert input_preview(body, JSON) == "x\ufffdy \ufffd"


def test_what_may_name_a_session_is_listed_by_its_place() -> None:
    facts = read_request(
        RESPONSES,
        b'{"metadata":{"session_id":"s","n":7,"deep":{"a":"b"},"":"e"},"conversation":{"id":"c"},'
        b'"session_id":"1","conversation_id":"2","thread_id":"3","chat_id":"4",'
        b'"litellm_session_id":"5","litellm_trace_id":"6","user":"u"}',
        JSON,
    )
    assert facts.named == {
        "conversation": "c",
        "session_id": "1",
        "conversation_id": "2",
        "thread_id": "3",
        "chat_id": "4",
        "litellm_session_id": "5",
        "litellm_trace_id": "6",
        "metadata.session_id": "s",
        "metadata.": "e",
    }
    assert read(b'{"conversation":"c"}').named == {"conversation": "c"}
    assert read(b'{"session_id":7,"metadata":"m","conversation":[]}').named == {}


def test_what_may_name_a_session_is_bounded() -> None:
    metadata = {f"k{n}": "v" for n in range(100)}
    assert len(read(json.dumps({"metadata": metadata}).encode()).named) == 64
    texts = {"session_id": "x" * 4096, "chat_id": "x" * 4097, "metadata": {"k": "x" * 4097}}
    assert list(read(json.dumps(texts).encode()).named) == ["session_id"]


def test_only_a_response_can_go_on_from_what_the_provider_holds() -> None:
    body = b'{"previous_response_id":"resp_1","conversation":{"id":"conv_1"}}'
    facts = read_request(RESPONSES, body, JSON)
    assert (facts.previous_response_id, facts.keeps_state) == ("resp_1", True)
    chat = read(body)
    assert (chat.previous_response_id, chat.keeps_state) == (None, False)
    neither = read_request(RESPONSES, b'{"previous_response_id":7,"conversation":null}', JSON)
    assert (neither.previous_response_id, neither.keeps_state) == (None, False)


def test_values_of_the_wrong_type_are_unknown() -> None:
    body = (
        b'{"model":7,"stream":"true","service_tier":[],"user":{},"background":1,"messages":"x",'
        b'"input":{"a":1},"prompt":[1,2],"tools":"t","stream_options":[]}'
    )
    assert read(body) == RequestFacts()
    assert (input_preview(body, JSON), input_text(body, JSON)) == (None, "")


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
    body = json.dumps(value).encode()
    facts = read(body)
    texts = [*facts.named, *facts.named.values(), facts.model or "", input_text(body, JSON)]
    "".join((*texts, input_preview(body, JSON) or "")).encode()


@given(st.binary(), st.sampled_from([JSON, FORM, "multipart/form-data; boundary=x", "", "\0"]))
def test_no_bytes_make_it_raise(body: bytes, content_type: str) -> None:
    for data in (body, b"--x\r\n" + body):
        read(data, content_type)
        input_text(data, content_type)
        input_preview(data, content_type)
