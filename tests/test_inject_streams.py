"""Stripping: the client's bytes of an injected stream are those of a run without injection."""

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.inject import MAX_EVENT_BYTES, UsageStripper

# Streams as providers send them to an injected request, trimmed. What the injection brought in
# stands between « and »; the rest is what the same provider sends without it.
STREAMS = {
    "openai": (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763800000,'
        '"model":"gpt-5.5-2026-04-23","service_tier":"default","system_fingerprint":null,"choices":'
        '[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,'
        '"finish_reason":null}]«,"usage":null»,"obfuscation":"bXWq"}\n\n'
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763800000,'
        '"model":"gpt-5.5-2026-04-23","service_tier":"default","system_fingerprint":null,"choices":'
        '[{"index":0,"delta":{"content":"say \\",\\"usage\\":null}"},"logprobs":null,'
        '"finish_reason":null}]«,"usage":null»,"obfuscation":""}\n\n'
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763800000,'
        '"model":"gpt-5.5-2026-04-23","service_tier":"default","system_fingerprint":null,"choices":'
        '[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]«,"usage":null»}\n\n'
        '«data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763800000,'
        '"model":"gpt-5.5-2026-04-23","service_tier":"default","system_fingerprint":null,'
        '"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":9,"total_tokens":17,'
        '"prompt_tokens_details":{"cached_tokens":0}},"obfuscation":"x"}\n\n»'
        "data: [DONE]\n\n"
    ),
    "openai in 2025, usage before choices": (
        'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
        '«"usage":null,»"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
        '«data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
        '"usage":{"prompt_tokens":8,"completion_tokens":1},"choices":[]}\n\n»'
        "data: [DONE]\n\n"
    ),
    "azure": (
        'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":'
        '[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}]}\n\n'
        'data: {"choices":[{"content_filter_results":{},"delta":{"content":"","role":"assistant"},'
        '"finish_reason":null,"index":0,"logprobs":null}],"created":1,"id":"c","model":"gpt-4o",'
        '"object":"chat.completion.chunk","system_fingerprint":"fp_1"«,"usage":null»}\n\n'
        '«data: {"choices":[],"created":1,"id":"c","model":"gpt-4o","object":'
        '"chat.completion.chunk","system_fingerprint":"fp_1","usage":{"completion_tokens":1,'
        '"prompt_tokens":8,"total_tokens":9}}\n\n»'
        "data: [DONE]\n\n"
    ),
    "azure, usage null in the first event": (
        'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":'
        '[{"prompt_index":0}]«,"usage":null»}\n\n'
        'data: {"choices":[{"delta":{"content":"Hi"},"index":0}],"id":"c"«,"usage":null»}\n\n'
        '«data: {"choices":[],"id":"c","usage":{"prompt_tokens":8}}\n\n»data: [DONE]\n\n'
    ),
    "an older azure, a space after each event": (
        'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":'
        '{"content":"Hi"},"finish_reason":null}]«,"usage":null»} \n\n'
        '«data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":'
        '{"prompt_tokens":8,"completion_tokens":1}} \n\n»'
        "data: [DONE]\n\n"
    ),
    "vllm": (
        'data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"m",'
        '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
        '"finish_reason":null}],"prompt_token_ids":null}\n\n'
        'data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"m",'
        '"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
        '«data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"m",'
        '"choices":[],"usage":{"prompt_tokens":8,"total_tokens":9,"completion_tokens":1}}\n\n»'
        "data: [DONE]\n\n"
    ),
    "a gateway, usage beside the last choice": (
        ": OPENROUTER PROCESSING\n\n"
        'data: {"id":"gen-1","provider":"X","choices":[{"delta":{"content":"Hi"}}]}\n\n'
        'data: {"id":"gen-1","provider":"X","choices":[{"delta":{"content":""},'
        '"finish_reason":"stop"}]«,"usage":{"prompt_tokens":8,"cost":0.1}»}\n\n'
        "data: [DONE]\n\n"
    ),
    "groq, its own usage stays": (
        'data: {"id":"c","choices":[{"delta":{}}],"x_groq":{"id":"r","usage":null}}\n\n'
        'data: {"id":"c","choices":[{"delta":{}}],"x_groq":{"usage":{"a":1}}«,"usage":null»}\n\n'
        '«data: {"id":"c","choices":[],"x_groq":{"id":"r"},"usage":{"a":1}}\n\n»'
        "data: [DONE]\n\n"
    ),
    "spaces after colons and commas": (
        'data: {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]«, "usage": null»}'
        '\n\ndata: {«"usage": null, »"id": "c", "choices": [{"delta": {}}]}\n\n'
        'data: { "id": "c"«, "usage" : null» , "choices": [{"delta": {}}] }\n\n'
        '«data: {"id": "c", "choices": [ ], "usage": {"prompt_tokens": 8}}\n\n»'
        "data: [DONE]\n\n"
    ),
    "crlf, comments, names, no space after data": (
        ": ping\r\n\r\n"
        'event: chunk\r\nid: 1\r\ndata:{"choices":[{"delta":{}}]«,"usage":null»}\r\n\r\n'
        '«event: chunk\r\nid: 2\r\ndata:{"choices":[],"usage":{"prompt_tokens":8}}\r\n\r\n»'
        "data:[DONE]\r\n\r\n"
    ),
    "no blank line at the end": (
        'data: {"choices":[{"delta":{}}]«,"usage":null»}\n\n'
        'data: {"choices":[{"delta":{"content":"Hi"}}]«,"usage":null»}\n'
    ),
    "usage in the last event, which is not ended": (
        'data: {"choices":[{"delta":{}}]«,"usage":null»}\n\n'
        '«data: {"choices":[],"usage":{"prompt_tokens":8}}»'
    ),
}


def runs(marked: str) -> tuple[bytes, bytes]:
    """The bytes of a marked stream with injection, and without."""
    plain = "".join(part.rpartition("»")[2] for part in marked.split("«"))
    return marked.replace("«", "").replace("»", "").encode(), plain.encode()


def strip(*chunks: bytes) -> tuple[bytes, bool]:
    stripper = UsageStripper()
    out = b"".join([stripper.feed(chunk) for chunk in chunks])
    return out + stripper.finish(), stripper.unsure


@pytest.mark.parametrize("name", STREAMS)
def test_the_client_gets_the_bytes_of_a_run_without_injection(name: str) -> None:
    injected, plain = runs(STREAMS[name])
    assert injected != plain
    assert strip(injected) == (plain, False)


@pytest.mark.parametrize("name", STREAMS)
def test_where_the_stream_is_cut_into_chunks_makes_no_difference(name: str) -> None:
    injected, plain = runs(STREAMS[name])
    for at in range(len(injected)):
        assert strip(injected[:at], injected[at:]) == (plain, False)
    assert strip(*[injected[at : at + 1] for at in range(len(injected))]) == (plain, False)


def test_a_whole_event_goes_to_the_client_at_once() -> None:
    stripper = UsageStripper()
    assert stripper.feed(b'data: {"choices":[1],"usage":null}\n\nda') == (
        b'data: {"choices":[1]}\n\n'
    )
    assert stripper.feed(b"ta: [DONE]\n\n") == b"data: [DONE]\n\n"
    assert stripper.finish() == b""


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"delta":{"content":",\\"usage\\":null}"}}]}',
        b'{"choices":[{"delta":{"usage":null}}]}',
        b'{"choices":[{"delta":{"a":1,"usage":null}}]}',
        b'{"choices":[],"x":{"choices":[],"usage":{"a":1}}}',
        b'{"choices":[],"x":["usage"]}',
        b'{"error":{"message":"no usage","type":"server_error"}}',
        b'{"choices":[],"\\"usage":null}',
        b'{"choices":[],"x":",\\"usage\\":null","usage_":null}',
    ],
)
def test_what_only_looks_like_usage_is_never_touched(data: bytes) -> None:
    event = b"data: " + data + b"\n\n"
    assert strip(event) == (event, False)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"usage":null,"choices":[1],"usage":null}\n\n',
        b'data: {"choices":[1],"choices":[],"usage":{"a":1}}\n\n',
        b'data: {"choices":[1],\ndata: "usage":null}\n\n',
        b'data: {"choices":[1],"usage":null\n\n',
        b'data: {"choices":[1,],"usage":null}\n\n',
        b'data: {"choices":[1],"usage":null}}\n\n',
        b'data: {"a":"\\","usage":null}\n\n',
        b'data: ["usage"]\n\n',
        b'data: {"\xff":1,"usage":null }\n\n',
        b'data: {"usage":{"input_tokens":1}}\n\n',
        b'data: {"a":' + b"[" * 5_000 + b"]" * 5_000 + b',"usage":null}\n\n',
        b'data: {"a":"' + b"x" * MAX_EVENT_BYTES + b'","usage":null}\n\n',
    ],
    ids=range(12),
)
def test_an_event_that_cannot_be_edited_for_certain_goes_through_and_is_noted(event: bytes) -> None:
    fine = b'data: {"choices":[1],"usage":null}\n\n'
    stripped = b'data: {"choices":[1]}\n\n'
    assert strip(fine + event + fine) == (stripped + event + stripped, True)


def test_an_event_that_was_cut_goes_through_and_is_not_unsure() -> None:
    whole = b'data: {"choices":[1],"usage":null}'
    for at in range(len(whole)):
        assert strip(whole[:at]) == (whole[:at], False)


def test_a_very_long_event_is_not_held_back() -> None:
    stripper = UsageStripper()
    sent = b'data: {"a":"' + b"x" * MAX_EVENT_BYTES
    assert len(stripper.feed(sent)) > MAX_EVENT_BYTES - 10
    assert stripper.unsure


words = st.sampled_from(["", "a", ',"usage":null', '"usage":null}', "é\u2028", "\\", "data: x\n\n"])
keys = st.sampled_from(["id", "usage", "choices", "delta", 'x","usage', "é", "obfuscation"])
values = st.one_of(
    st.sampled_from([None, True, -1.5e300, [], {}, {"usage": None}, [{"delta": {"usage": None}}]]),
    words,
    st.dictionaries(keys, words, max_size=2),
)


def random_stream(draw_members: list[dict[str, object]], rng: random.Random) -> tuple[bytes, bytes]:
    """Serialise events with and without usage, as some provider might spell them."""
    injected = plain = ""
    end = rng.choice(["\n", "\r\n", "\r"])
    comma, colon = rng.choice([(",", ":"), (", ", ": "), (" ,", " : ")])
    ascii_only = rng.random() < 0.5

    def dumps(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=(comma, colon))

    for members in draw_members:
        members.pop("usage", None)
        lead = rng.choice(["data: ", "data:", f"event: x{end}data: ", f": x{end}{end}data: "])
        tail = rng.choice(["", " "]) + end + end
        plain_event = lead + dumps(members) + tail
        kind = rng.choice(["absent", "null", "beside", "alone"])
        if kind == "alone":
            members["choices"] = []
            injected += "data: " + dumps(members | {"usage": {"prompt_tokens": 1}}) + end + end
            continue
        plain += plain_event
        if kind == "beside" and not members.get("choices"):
            kind = "null"
        order = list(members)
        if kind != "absent":
            order.insert(rng.randrange(len(order) + 1), "usage")
            members["usage"] = None if kind == "null" else {"prompt_tokens": 1}
        injected += lead + dumps({key: members[key] for key in order}) + tail
    done = "data: [DONE]" + end + end
    return (injected + done).encode(), (plain + done).encode()


@settings(max_examples=1_000, deadline=None)
@given(
    st.lists(st.dictionaries(keys, values, max_size=4), max_size=4),
    st.randoms(use_true_random=True),
)
def test_random_streams_in_random_chunks_are_those_without_injection(
    events: list[dict[str, object]], rng: random.Random
) -> None:
    injected, plain = random_stream(events, rng)
    cuts = sorted(rng.randrange(len(injected) + 1) for _ in range(rng.randrange(8)))
    edges = [0, *cuts, len(injected)]
    chunks = [injected[a:b] for a, b in itertools.pairwise(edges)]
    assert strip(*chunks) == (plain, False)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_no_bytes_raise_and_a_stream_without_usage_passes_as_it_is(
    noise: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(cuts), len(noise)]
    chunks = [noise[a:b] for a, b in itertools.pairwise(edges)]
    assert strip(*chunks)[0] == b"".join(chunks)
    strip(b'data: {"usage"' + noise, b"\n\n")


def test_a_stream_of_very_many_events_goes_through_unedited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.inject.MAX_EVENTS", 10)
    stripper = UsageStripper()
    sent = b"a\n\n" * 20 + b'data: {"choices":[],"usage":{}}'
    out = b"".join([stripper.feed(sent[at : at + 7]) for at in range(0, len(sent), 7)])
    assert out + stripper.finish() == sent
    assert stripper.unsure
