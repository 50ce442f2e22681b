"""Sends a call's request to its upstream, with its usage asked for where that is possible.

Owns what leaves for the upstream, and what of its answer has to be taken out again because we put
it into the request: the usage that we asked for, the provider's key that its caller must not know.
Invariant: a request goes out once; a second time only where the upstream refused what we added to
it, and then as the client wrote it.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from aiohttp import web

from proxy import headers
from proxy.answer import Answer, UpstreamFault
from proxy.call import Call
from proxy.capture import Budget
from proxy.decode import Decoder, decode, decoder
from proxy.downstream import let_go_if_gone, take_body
from proxy.headers import RawHeaders
from proxy.inject import (
    MAX_BODY_BYTES,
    InjectionMemory,
    UsageStripper,
    names_stream_options,
    plan,
    wants,
)
from proxy.mask import Mask
from proxy.tap import EVENT_STREAM
from proxy.target import Target
from proxy.upstream import Exchange, Request, Upstream

# A refusal is a short error; more of an answer is not held back to look for one.
_REFUSAL_BYTES: Final = 64 * 1024
# A whole body above this leaves bit by bit, in pieces of this size.
_PIECE_BYTES: Final = 64 * 1024
# Requests that are held whole at a time, in bytes, until their answers begin, beside those that
# recording holds whole anyway: 32 of 500 KB. Past it they go as they come, without their usage
# being asked for: forwarding beats recording.
MAX_HELD_BYTES: Final = 16 * 1024 * 1024
# Bytes of a stream that are edited in one go on the event loop: 10 ms, were it all tiny events.
_SLICE_BYTES: Final = 16 * 1024


class Editor:
    """Gives the client the answer that it would have had without what we put into its request.

    `stripper` takes out the usage that we asked for, `mask` hides the provider's key that we sent.
    """

    def __init__(
        self,
        coding: Decoder | None,
        *,
        stripper: UsageStripper | None = None,
        mask: Mask | None = None,
    ) -> None:
        self.stripper = stripper
        self._mask = mask
        self._decoder = coding

    @property
    def reframes(self) -> bool:
        """Whether the client gets the answer plain, and of another length."""
        return self.stripper is not None or self._decoder is not None

    def head(self, reason: bytes, relayed: RawHeaders) -> tuple[bytes, RawHeaders]:
        """Give what the client receives of the answer's head."""
        if self.reframes:
            relayed = headers.without(relayed, b"content-length", b"content-encoding")
        if self._mask is None:
            return reason, relayed
        return self._mask.hidden(reason), self._mask.headers(relayed)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Give what the client receives of the next bytes; of many bytes, bit by bit.

        Raises:
            UpstreamFault: the bytes before them were not in the coding that the answer names.
        """
        if self._decoder is None:
            yield from self._edited(piece)
            return
        self._check_coding()
        for plain in self._decoder.feed(piece):
            yield from self._edited(plain)

    def finish(self) -> bytes:
        """Give what was held back until the end was known; raises as `feed` does."""
        self._check_coding()
        rest = self.stripper.finish() if self.stripper is not None else b""
        return rest if self._mask is None else self._mask.feed(rest) + self._mask.finish()

    def _edited(self, plain: bytes) -> Iterator[bytes]:
        if self.stripper is None:
            yield self._masked(plain)
            return
        for at in range(0, len(plain), _SLICE_BYTES):
            yield self._masked(self.stripper.feed(plain[at : at + _SLICE_BYTES]))

    def _masked(self, plain: bytes) -> bytes:
        return plain if self._mask is None else self._mask.feed(plain)

    def _check_coding(self) -> None:
        if self._decoder is not None and self._decoder.failed:
            why = "the upstream's answer is not in the content coding that it names"
            raise UpstreamFault("upstream_malformed", why, phase="body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request that is answered: `early` was read of the answer's body to look for a refusal.

    `askable`: its usage could be asked for, of `model`; `editor` undoes what was. It lives as long
    as the answer, and holds nothing of the request's body.
    """

    exchange: Exchange
    early: bytes = b""
    askable: bool = False
    model: str | None = None
    editor: Editor | None = None

    async def pieces(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Give the answer's body as it comes: what the upstream sent, what the client receives."""
        read, editor = self.exchange.answer.read, self.editor
        piece = self.early or await read()
        while piece:
            if editor is None:
                yield piece, piece
            else:
                for received in editor.feed(piece):
                    if not piece:  # what takes long holds up nobody else
                        await asyncio.sleep(0)
                    yield piece, received
                    piece = b""
                if piece:
                    yield piece, b""
            piece = await read()
        if editor is not None and (rest := editor.finish()):
            yield b"", rest


class Sender:
    """Sends requests to one upstream, and remembers what it learned about injection there.

    `held` bounds the requests of all senders that are held whole, and not by recording as well.
    """

    def __init__(self, upstream: Upstream, max_request_bytes: int, held: Budget) -> None:
        self.upstream = upstream
        self._held = held
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
        held_bytes = self._hold(request, call, body) if editable else None
        is_held = held_bytes is not None
        try:
            if body is None:
                whole_bytes = MAX_BODY_BYTES if is_held else 0
                began_ns = time.monotonic_ns()
                body = await take_body(request, call.request, self._limit_bytes, whole_bytes)
                call.body_wait_us = (time.monotonic_ns() - began_ns) // 1000
            if isinstance(body, bytes) and request.method == "POST" and not is_held:
                body = _bit_by_bit(body)  # which lets go of it once it has left
            call.leaves()
            plain = Request(
                method=request.method.encode("ascii"),
                target=self.upstream.target(target.raw),
                headers=headers.request_headers(call.outgoing, self.upstream.authority),
                body=body,
                chunked="Transfer-Encoding" in request.headers,
                look=partial(let_go_if_gone, request),
            )
            return await self._send(call, plain, editable=editable)
        finally:
            self._held.give(held_bytes or 0)

    def _hold(
        self, request: web.Request, call: Call, body: bytes | AsyncIterator[bytes] | None
    ) -> int | None:
        """Have room for a whole request; give what `held` is to get back, None where there is none.

        Where recording keeps it whole, that is the same copy.
        """
        size = request.content_length
        if body is None and size is not None and call.request.reserve(size):
            return 0
        if body is not None and call.request.is_whole:
            return 0
        size = MAX_BODY_BYTES if size is None else size  # of unknown length, it may be as long
        return size if self._held.take(size, anyway=body is not None) else None

    async def _send(self, call: Call, plain: Request, *, editable: bool) -> Sent:
        body = plain.body
        # On the loop: some 1.5 ms per MB, and in a thread it would hold the interpreter as long.
        injection = plan(body) if editable and isinstance(body, bytes) else None
        if injection is None or not self._memory.should_inject(injection.model):
            exchange = await self.upstream.open(_leaving(plain))
            is_askable = injection is not None
            model = injection.model if injection is not None else None
            return _masked(call, Sent(exchange=exchange, askable=is_askable, model=model))
        is_large = injection.size > _PIECE_BYTES
        edited = replace(
            plain,
            body=_pieces(*injection.parts) if is_large else injection.body,
            headers=headers.for_edited_body(plain.headers, injection.size),
        )
        exchange = await self.upstream.open(edited)
        if 400 <= exchange.answer.status < 500:
            return _masked(call, await self._refused(exchange, plain))
        if headers.media_type(headers.index(exchange.answer.headers)) != EVENT_STREAM:
            return _masked(call, Sent(exchange=exchange))
        call.injected = True
        # Sent compressed although `identity` was asked for: edited and handed on plain.
        coding = _coding(exchange.answer)
        if coding is not None and coding.failed:  # one that we cannot read goes through unedited
            return _masked(call, Sent(exchange=exchange))
        return Sent(
            exchange=exchange, editor=Editor(coding, stripper=UsageStripper(), mask=call.mask)
        )

    def learn(self, call: Call, sent: Sent) -> None:
        """Remember what a stream that came to its end says about the next one."""
        if sent.editor is not None and sent.editor.stripper is not None:
            if sent.editor.stripper.unsure:
                self._memory.unsure()
        elif sent.askable and call.tap is not None and call.tap.ended:
            self._memory.saw_stream(sent.model, had_usage_field=call.tap.usage_field)

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
        exchange = await self.upstream.open(_leaving(plain))
        if exchange.answer.status < 400:
            self._memory.refused()
        return Sent(exchange=exchange)


def _leaving(request: Request) -> Request:
    """Have a body that was held whole leave so that its connection holds no second copy of it."""
    if request.method != b"POST" or not isinstance(request.body, bytes):
        return request  # an idempotent one may be sent again
    return replace(request, body=_bit_by_bit(request.body))


def _bit_by_bit(body: bytes) -> bytes | AsyncIterator[bytes]:
    return body if len(body) <= _PIECE_BYTES else _pieces(memoryview(body))


async def _pieces(*parts: memoryview) -> AsyncIterator[bytes]:
    for part in parts:
        for at in range(0, len(part), _PIECE_BYTES):
            yield bytes(part[at : at + _PIECE_BYTES])


def _masked(call: Call, sent: Sent) -> Sent:
    """Hide the provider's key in the answer to a call that went out with it.

    Raises:
        UpstreamFault: it cannot be told whether the key is in it.
    """
    if call.mask is None:
        return sent
    answer = sent.exchange.answer
    coding = None if answer.length == 0 else _coding(answer)
    if coding is not None and coding.failed:
        sent.exchange.close()
        why = (
            "the upstream's answer is in a content coding that nobody asked for, in which your"
            " project's provider key could not be seen"
        )
        raise UpstreamFault("upstream_malformed", why, phase="headers")
    return replace(sent, editor=Editor(coding, mask=call.mask))


def _coding(answer: Answer) -> Decoder | None:
    index = headers.index(answer.headers)
    # Without bounds: a client loses what this decoder gives up.
    return decoder(headers.text(index, b"content-encoding"), sys.maxsize, sys.maxsize)


async def _read_some(answer: Answer) -> bytes:
    read = bytearray()
    while len(read) < _REFUSAL_BYTES and (piece := await answer.read()):
        read += piece
    return bytes(read)
