"""Sends a call's request to its upstream, with its usage asked for where that is possible.

Owns what leaves for the upstream, and what of its answer has to be taken out again because we asked
for it. Invariant: a request goes out once; a second time only where the upstream refused what we
added to it, and then as the client wrote it.
"""

import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from proxy import headers
from proxy.call import Call
from proxy.connection import Answer, UpstreamFault
from proxy.decode import Decoder, decode, decoder
from proxy.downstream import take_body
from proxy.inject import (
    MAX_BODY_BYTES,
    Injection,
    InjectionMemory,
    UsageStripper,
    names_stream_options,
    plan,
    wants,
)
from proxy.tap import EVENT_STREAM
from proxy.target import Target
from proxy.upstream import Exchange, Request, Upstream

# A refusal is a short error; more of an answer is not held back to look for one.
_REFUSAL_BYTES: Final = 64 * 1024


class Editor:
    """Gives the client the stream that it would have had without our asking for usage."""

    def __init__(self, coding: Decoder | None) -> None:
        self.stripper = UsageStripper()
        self._decoder = coding

    def feed(self, piece: bytes) -> bytes:
        """Give what the client receives of the next bytes.

        Raises:
            UpstreamFault: the bytes before them were not in the coding that the answer names.
        """
        if self._decoder is None:
            return self.stripper.feed(piece)
        self._check_coding()
        return b"".join([self.stripper.feed(plain) for plain in self._decoder.feed(piece)])

    def finish(self) -> bytes:
        """Give what was held back until the end was known; raises as `feed` does."""
        self._check_coding()
        return self.stripper.finish()

    def _check_coding(self) -> None:
        if self._decoder is not None and self._decoder.failed:
            why = "the upstream's answer is not in the content coding that it names"
            raise UpstreamFault("upstream_malformed", why, phase="body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request that is answered: `early` was read of the answer's body to look for a refusal.

    `injection` is what could be, and `editor` undoes what was, added to the request.
    """

    exchange: Exchange
    early: bytes = b""
    injection: Injection | None = None
    editor: Editor | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Give the answer's body as it comes."""
        if self.early:
            yield self.early
        while piece := await self.exchange.answer.read():
            yield piece


class Sender:
    """Sends requests to one upstream, and remembers what it learned about injection there."""

    def __init__(self, upstream: Upstream, max_request_bytes: int) -> None:
        self.upstream = upstream
        self._limit_bytes = max_request_bytes
        self._memory = InjectionMemory(upstream.config.inject_usage)

    async def send(
        self,
        request: web.Request,
        call: Call,
        target: Target,
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> Sent:
        """Send the request and wait for the head of its answer.

        `body` is the request's where it was read already.

        Raises:
            ClientFault: the request's body cannot be taken.
            UpstreamFault: there is no answer.
        """
        editable = self._memory.active and wants(
            method=request.method,
            path=call.start.path or "",
            content_type=request.headers.get("Content-Type"),
            content_encoding=request.headers.get("Content-Encoding"),
            content_length=request.content_length,
        )
        if body is None:
            whole_bytes = MAX_BODY_BYTES if editable else 0
            body = await take_body(request, call.request, self._limit_bytes, whole_bytes)
        call.sent = True
        plain = Request(
            method=request.method.encode("ascii"),
            target=self.upstream.target(target.raw),
            headers=headers.request_headers(call.outgoing, self.upstream.authority),
            body=body,
            chunked="Transfer-Encoding" in request.headers,
        )
        # On the loop: some 1.5 ms per MB, and in a thread it would hold the interpreter as long.
        injection = plan(body) if editable and isinstance(body, bytes) else None
        if injection is None or not self._memory.should_inject(injection.model):
            return Sent(exchange=await self.upstream.open(plain), injection=injection)
        edited = replace(
            plain,
            body=injection.body,
            headers=headers.for_edited_body(plain.headers, len(injection.body)),
        )
        exchange = await self.upstream.open(edited)
        if 400 <= exchange.answer.status < 500:
            return await self._refused(exchange, plain)
        index = headers.index(exchange.answer.headers)
        if headers.media_type(index) != EVENT_STREAM:
            return Sent(exchange=exchange)
        call.injected = True
        # Sent compressed although `identity` was asked for: edited and handed on plain.
        coding = decoder(headers.text(index, b"content-encoding"), sys.maxsize)
        if coding is not None and coding.failed:
            return Sent(exchange=exchange)  # one that we cannot read goes through unedited
        return Sent(exchange=exchange, injection=injection, editor=Editor(coding))

    def learn(self, call: Call, sent: Sent) -> None:
        """Remember what a stream that came to its end says about the next one."""
        if sent.editor is not None:
            if sent.editor.stripper.unsure:
                self._memory.unsure()
        elif sent.injection is not None and call.tap is not None and call.tap.ended:
            self._memory.saw_stream(sent.injection.model, had_usage_field=call.tap.usage_field)

    async def _refused(self, exchange: Exchange, plain: Request) -> Sent:
        # Some upstreams do not know the option and say so. An error may also name it because it
        # quotes the request: only when the client's own bytes fare better was it refused.
        try:
            early = await _read_some(exchange.answer)
        except BaseException:
            exchange.close()
            raise
        coding = headers.text(headers.index(exchange.answer.headers), b"content-encoding")
        text, _ = decode(early, coding, _REFUSAL_BYTES)
        if not names_stream_options(exchange.answer.status, text):
            return Sent(exchange=exchange, early=early)
        exchange.close()
        exchange = await self.upstream.open(plain)
        if exchange.answer.status < 400:
            self._memory.refused()
        return Sent(exchange=exchange)


async def _read_some(answer: Answer) -> bytes:
    read = bytearray()
    while len(read) < _REFUSAL_BYTES and (piece := await answer.read()):
        read += piece
    return bytes(read)
