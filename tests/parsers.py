"""Whatever reads bytes from the wire, under one name each, and bytes that are hard to read.

A parser takes any bytes, and raises nothing but what its caller expects, which is caught here.
"""

import contextlib
import gzip
import random
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from proxy import bodies, headers, inject, session, slices, target
from proxy.api import lists, request_body
from proxy.api.params import BadParameter
from proxy.decode import decode
from proxy.mask import Mask, spellings
from proxy.providers.cut import outer_fields
from proxy.providers.delta import text_delta
from proxy.providers.lenient import clean, preview
from proxy.providers.messages import read_message
from proxy.providers.multipart import form_fields
from proxy.providers.openai import (
    StreamWatch,
    assemble,
    input_preview,
    input_text,
    operation_of,
    read_answer,
    read_request,
    stream_text,
)
from proxy.providers.reading import answer_so_far, instruction_text, read, tool_names
from proxy.providers.weight import weigh
from proxy.sse import SseDecoder, events_of
from storage.search import SearchError, parse

CHAT: Final = operation_of("POST", "/v1/chat/completions")
RESPONSES: Final = operation_of("POST", "/v1/responses")
JSON: Final = "application/json"
KEY: Final = b"k/0+&\"<'\\=%>1"  # which has many spellings
_PIECE_BYTES: Final = 65_536

Parser = Callable[[bytes], object]


def _pieces(data: bytes, size: int = _PIECE_BYTES) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _sse(data: bytes) -> object:
    decoder = SseDecoder()
    return [decoder.feed(piece) for piece in _pieces(data)], decoder.pending


def _sse_cut(data: bytes) -> object:
    decoder = SseDecoder(10_000)  # which all inputs of one event are longer than
    return [decoder.feed(piece) for piece in _pieces(data, 100)], decoder.pending


def _strip(data: bytes) -> object:
    stripper = inject.UsageStripper()
    return [stripper.feed(piece) for piece in _pieces(data)], stripper.finish()


def _watch(name: str) -> Parser:
    operation = operation_of("POST", name)

    def parser(data: bytes) -> object:
        watch, decoder = StreamWatch(operation), SseDecoder()
        for piece in _pieces(data):
            for event in decoder.feed(piece):
                watch.event(event)
        return watch.facts()

    return parser


def _request(data: bytes) -> object:
    read_request(RESPONSES, data, JSON)
    return input_preview(data, JSON), input_text(data, JSON)


def _answer(data: bytes) -> object:
    read_answer(RESPONSES, 500, data)
    return read_answer(CHAT, 200, data, data[-_PIECE_BYTES:])


def _form(data: bytes) -> object:
    form_fields(data, 'multipart/form-data; boundary="%s"' % ("-" * 150))
    form_fields(data, "multipart/form-data" + data.decode("latin-1"))
    return form_fields(data, "multipart/form-data; boundary=b")


def _reading(data: bytes) -> object:
    return read(data), answer_so_far(data), tool_names(data), instruction_text(data)


def _slices(data: bytes) -> object:
    return slices.split(data, ("messages",)), slices.split_answer(data, ("choices", 0, "message"))


def _search(data: bytes) -> object:
    with contextlib.suppress(SearchError):
        return parse(data.decode("utf-8", "surrogateescape"))
    with contextlib.suppress(SearchError):
        return parse(data[:2000].decode("utf-8", "surrogateescape"))
    return None


def _cursor(data: bytes) -> object:
    with contextlib.suppress(BadParameter):
        return lists._read_cursor(data.decode("utf-8", "surrogateescape"), "0" * 16)
    return None


def _session(data: bytes) -> object:
    index = headers.index([(row.name.encode(), data) for row in session.REGISTRY])
    with contextlib.suppress(session.ControlCharacter):
        return session.resolve(index)
    text = data[:4096].decode("utf-8", "surrogateescape")
    return session.from_body({row.name: text for row in session.REGISTRY})


def _target(data: bytes) -> object:
    with contextlib.suppress(target.BadTarget):
        return target.proxied(b"/api/proxy/openai/" + data)
    return None


def _headers(data: bytes) -> object:
    """A head of which each field is short: 64 of them, as far as the data goes."""
    fields = _pieces(data, max(1, len(data) // 64))
    names = (b"Cookie", b"Authorization", b"Connection", b"X-A", b"x-token", b"Set-Cookie")
    head = [(names[n % len(names)], value) for n, value in enumerate(fields)]
    secrets = headers.credentials(head, data, data)
    headers.caller(headers.index(head))
    headers.holds_our_key(head, data)
    headers.has_our_key_for_theirs(head)
    headers.redacted_json(headers.request_headers(head, b"up.example"), secrets)
    headers.redact_path(data, secrets)
    headers.redact_query(data, secrets)
    return bodies._without(secrets, data), headers.with_provider_key(head, b"k")


def _long_secret(data: bytes) -> object:
    half = data[: len(data) // 2]
    return bodies._without((half + b"!",), half + data)


def _mask(data: bytes) -> object:
    mask = Mask(spellings(KEY))
    return mask.feed(data), mask.finish()


def _mask_cut(data: bytes) -> object:
    mask = Mask(spellings(KEY))
    return [mask.feed(piece) for piece in _pieces(data, 500)], mask.finish()


class _Name(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    scope: str = "read"


def _strict_body(data: bytes) -> object:
    """What `request_body.read` does with bytes; a longer body it does not take at all."""
    try:
        return msgspec.json.decode(data[: request_body.MAX_BYTES], type=_Name)
    except msgspec.ValidationError as error:
        return request_body.explained(error, _Name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


PARSERS: Final[Mapping[str, Parser]] = {
    "sse": _sse,
    "sse in pieces": _sse_cut,
    "sse as a whole": lambda data: sum(1 for _ in events_of(data)),
    "usage stripper": _strip,
    "injection": inject.plan,
    "usage of a chat": _watch("/v1/chat/completions"),
    "usage of a response": _watch("/v1/responses"),
    "usage of an unknown stream": _watch("/v1/unknown"),
    "deltas": lambda data: [text_delta(event) for event in events_of(data)],
    "assembled chat": lambda data: assemble(CHAT, events_of(data)),
    "assembled response": lambda data: assemble(RESPONSES, events_of(data)),
    "text of a stream": lambda data: stream_text(operation_of("POST", "/v1/x"), events_of(data)),
    "request": _request,
    "answer": _answer,
    "cut answer": lambda data: outer_fields(data, data[-_PIECE_BYTES:], ("model", "usage", "id")),
    "message": read_message,
    "reading": _reading,
    "weight": lambda data: weigh(CHAT, data, JSON),
    "slices": _slices,
    "multipart": _form,
    "search": _search,
    "cursor": _cursor,
    "session": _session,
    "target": _target,
    "headers": _headers,
    "a long secret": _long_secret,
    "mask": _mask,
    "mask in pieces": _mask_cut,
    "strict body": _strict_body,
    "gzip": lambda data: decode(data, "gzip", len(data)),
    "text": lambda data: preview(clean(data.decode("utf-8", "surrogateescape"))),
}

# Bytes of which hard inputs are made, each again and again.
ATOMS: Final = (
    *(b"[", b"{", b'{"a":', b"[[],", b'"', b"\\", b'\\"', b'"",', b"{},", b",", b":", b" ", b"a"),
    *(b"\n", b"\r", b"\r\n", b"\n\r", b"0", b"-", b"1e9,", b"\\ud800", b'"\\ud83d', b"\xff"),
    *(b"\xed\xa0\x80", b"\0", b"\xf0\x9f\x98\x80", b"data:", b"data: x\n", b":\n", b"event: a\n"),
    *(b'data: {"a":1}\n\n', b'data: {"usage":null}\n\n', b'data: {"a":1}\r\n\r\n', b"data\r\r"),
    *(b'"usage":null,', b'{"usage":null}', b',"usage":null,"obfuscation":"', b"data: [DONE]\n\n"),
    *(b"--b", b"\r\n--b", b"\r\n--b\r\n\r\n", b'--b\r\nx: y; name="model"\r\n\r\ngpt\r\n', b"--"),
    *(b";", b"; ", b"; boundary=", b"=", b"&", b"a=b&", b"%41", b"%", b"/", b"/../", b"a/"),
    *(b"key=0123456789abcdef&", b"sk-", b"sk-0123456789abcdef ", b"tw_sk_", b"tw_sk_a ", b".."),
    *(b"a:", b"-a ", b"cost:1..", b'"a":1,', b'"messages":[', b'{"role":"user"},', KEY, KEY[:-1]),
)
# The beginning, what stands again and again, and the end.
_ROUND: Final = (
    (b'{"messages":[', b"{},", b"{}]}"),
    (b'{"messages":[', b'{"role":"user","content":"a"},', b"1]}"),
    (b'{"messages":[', b'"",', b'""]}'),
    (b'{"messages":[{"role":"user","content":[', b'{"type":"text","text":"a"},', b"1]}]}"),
    (b'{"messages":[{"role":"user","content":"', b"\\ud800", b'"}]}'),
    (b'{"messages":"', b"a", b'"}'),
    (b'{"messages":', b"[", b""),
    (b'{"messages":', b" ", b"[]}"),
    (b'{"model":', b"9", b"}"),
    (b'{"model":0.', b"0", b"1}"),
    (b'{"metadata":{', b'"a":"b",', b'"c":"d"}}'),
    (b'{"a":1,', b'"a":1,', b'"stream":true}'),
    (b'{"stream":true,"a":1,', b" ", b'"a":2}'),
    (b'{"choices":[', b'{"message":{"content":"a"}},', b"{}]}"),
    (b'data: {"choices":[', b'{"delta":{"content":"a"}},', b'1],"usage":null}\n\n'),
    (b'data: {"choices":[{"delta":{"tool_calls":[', b'{"id":"a","function":{}},', b"1]}}]}"),
    (b"", b'data: {"choices":[{"index":1,"delta":{"content":"a"}}]}\n\n', b"data: [DONE]\n\n"),
    (b"", b'data: {"type":"response.output_text.delta","output_index":0,"delta":"a"}\n\n', b""),
    (b'{"tools":[', b'{"type":"function","function":{"name":"a"}},', b'{}],"messages":[]}'),
    (b'{"role":"user","content":[', b'{"type":"text","text":"a"},', b"{}]}"),
    (b'{"role":"assistant","tool_calls":[', b'{"id":"a","function":{"name":"a"}},', b"{}]}"),
    (b'{"tool_calls":[{"function":{"name":"a","arguments":"', b"[", b'"}}]}'),
    (b'{"output":[', b'{"type":"message","content":[{"type":"output_text","text":"a"}]},', b"{}]}"),
)


def _repeated(before: bytes, middle: bytes, after: bytes) -> Callable[[int], bytes]:
    def sized(size: int) -> bytes:
        return before + middle * ((size - len(before) - len(after)) // len(middle)) + after

    return sized


def _noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)  # noqa: S311


def _different(before: bytes, form: bytes) -> Callable[[int], bytes]:
    def sized(size: int) -> bytes:
        return before + b"".join(form % n for n in range(size // len(form % 0)))

    return sized


INPUTS: Final[Mapping[str, Callable[[int], bytes]]] = {
    "noise": _noise,
    "members of a gzip": _repeated(b"", gzip.compress(b"", mtime=0), b""),
    "cookies": _different(b"", b"a=%017d; "),
    "keys in a query": _different(b"", b"key=%017d&"),
    "members": _different(b'{"usage":null', b',"%07d":1'),
    "calls in a stream": _different(
        b"", b'data: {"choices":[{"delta":{"tool_calls":[{"index":%07d,"function":{}}]}}]}\n\n'
    ),
    "choices in a stream": _different(
        b"", b'data: {"choices":[{"index":%07d,"delta":{"content":"a"}}]}\n\n'
    ),
    "items in a stream": _different(
        b"",
        b"event: response.output_item.added\n"
        b'data: {"type":"response.output_item.added","output_index":%07d,"item":{"id":"x"}}\n\n',
    ),
    **{repr(atom)[2:-1]: _repeated(b"", atom, b"") for atom in ATOMS},
    **{f"{a.decode()}({b.decode()})": _repeated(a, b, c) for a, b, c in _ROUND},
}
