"""The handler: a request comes in, goes to its upstream, and the answer goes back to the client.

Read this file first. Invariants: forwarding beats recording, so that nothing below the tap can
alter, delay or fail the bytes above it; a request goes upstream at most once, but for a refused
injection; every call that begins leaves exactly one record, whatever happens to it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from aiohttp import web

from proxy import headers, joining, session
from proxy.access import Principal, principal_of
from proxy.answer import ClientFault, UpstreamFault
from proxy.backlog import Ticket
from proxy.budget import Budgets, session_limit
from proxy.call import CLIENT_LEFT, COMPLETE, SERVER_STOPPED, Call, EndedBy, Ending, Phase
from proxy.capture import Budget, CapturePolicy, parse_capture
from proxy.config import Config
from proxy.downstream import RelayedResponse, cut, sandbox
from proxy.errors import Refused, error_response
from proxy.limits import RateLimits
from proxy.recorder import Recorder
from proxy.send import Sender, Sent
from proxy.target import BadTarget, Target, proxied
from proxy.vault import Vault

# Streams are looked at so many times in the time in which each is to be saved again.
CHECKPOINT_LOOKS: Final = 8

_log = logging.getLogger("traceway")


class Forwarder:
    """Relays calls to the upstreams and hands a record of each to the recorder.

    `idle` is set while no call is in flight; `stopping` says that the server cuts those that are.
    """

    def __init__(
        self,
        config: Config,
        senders: Mapping[str, Sender],
        recorder: Recorder,
        budget: Budget,
        owner: bytes,
        vault: Vault,
        limits: RateLimits,
        budgets: Budgets,
    ) -> None:
        self.in_flight: set[Call] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self.stopping = False
        self._config = config
        self._senders = senders
        self._recorder = recorder
        self._budget = budget
        self._budgets = budgets
        self._owner = owner
        self._vault = vault
        self._limits = limits
        self._strict = config.recording.durability == "strict"

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Relay one call: the handler of `/api/proxy/{upstream}/{path}`, any method."""
        try:
            call, target = self._begin(request)
        except Refused as refused:
            return refused.answer()
        saved = self._recorder.put(call.start)
        self.in_flight.add(call)
        self.idle.clear()
        ending = Ending(ended_by="proxy", phase="request", code="internal", error="a bug of ours")
        try:
            response, ending = await self._relay(request, call, target, saved)
        except asyncio.CancelledError:
            ending = self._broken_off(request, call)
            raise
        except ConnectionError:
            # Raised on, it would be logged as a fault of ours; nobody is there to read an answer.
            ending = self._broken_off(request, call)
            cut(request)
            response = error_response(499, CLIENT_LEFT, "the client left before the end")
        except Exception:
            _log.exception("a call failed by a bug of ours")
            if call.status is not None:
                cut(request)
            response = error_response(500, "internal", "the proxy failed; its log says why")
        finally:
            if not call.finished:
                self._recorder.put(call.finish(ending))
            self.in_flight.discard(call)
            if not self.in_flight:
                self.idle.set()
        return response

    async def checkpoint_forever(self) -> None:
        """Have what running streams delivered saved from time to time, so that a crash keeps it.

        Each in its own time: all at once would keep the writer from what calls wait for, and one
        that is over by then needs no checkpoint.
        """
        checkpoint_s = self._config.recording.checkpoint_s
        look_s = checkpoint_s / CHECKPOINT_LOOKS
        while True:
            await asyncio.sleep(look_s)
            for call in self.in_flight:
                if (progress := call.progress(after_s=checkpoint_s - look_s)) is not None:
                    call.checkpoint = self._recorder.put(progress)
                    call.checkpoint.add_done_callback(call.recorded)

    # A call begins: where to, which session, how much of it is kept.

    def _begin(self, request: web.Request) -> tuple[Call, Target]:
        raw = request.raw_headers
        raw_target = request.raw_path.encode("utf-8", "surrogateescape")
        principal = principal_of(request)
        if principal.key is not None:
            self._limits.admit(principal.key, time.monotonic())
        is_swapped = False
        if headers.holds_our_key(raw, raw_target):
            _check_our_key(raw, raw_target, principal)
            is_swapped = headers.has_our_key_for_theirs(raw)
        try:
            target = proxied(raw_target)
            index = headers.index(raw)
            session_ref = session.resolve(index)
            joins = joining.resolve(index)
        except joining.BadTrace as error:
            raise Refused(400, "bad_trace", str(error)) from error
        except (BadTarget, session.ControlCharacter) as error:
            raise Refused(400, "bad_request", str(error)) from error
        sender = self._senders.get(target.upstream)
        key = self._vault.key(principal.project, target.upstream) or "" if is_swapped else None
        call = Call(
            project_id=principal.project.id,
            owner=self._owner,
            method=request.method,
            target=target,
            provider=sender.upstream.config.provider if sender is not None else None,
            request_headers=raw,
            request_index=index,
            session_ref=session_ref,
            capture=self._capture_policy(index),
            body_bytes=self._config.recording.body_bytes,
            budget=self._budget,
            limit_nusd=session_limit(
                index,
                session_ref,
                principal.project.session_budget_nusd,
                joins=joins.names_a_trace,
            ),
            joining=joins,
            provider_key=None if key is None else key.encode(),
        )
        return call, target

    def _capture_policy(self, index: headers.Index) -> CapturePolicy:
        asked = headers.text(index, b"x-traceway-capture")
        policy = parse_capture(asked) if asked else self._config.recording.capture
        if policy is None:
            message = "X-Traceway-Capture must be full, preview, preview(BYTES) or off"
            raise Refused(400, "bad_capture", message)
        return policy

    # It goes to the upstream, and the answer comes back.

    async def _relay(
        self, request: web.Request, call: Call, target: Target, saved: Ticket
    ) -> tuple[web.StreamResponse, Ending]:
        try:
            sender = self._sender_for(request, call, target)
            if call.lacks_key:
                raise _no_key(principal_of(request).project.name, target.upstream)
            if self._strict and not await self._recorder.waits.committed(saved):
                message = "the call could not be recorded, so it was not made"
                raise Refused(503, "recording_unavailable", message)
            body = None
            if call.limit_nusd is not None:
                body = await self._budgets.admit(request, call, call.limit_nusd)
            sent = await sender.send(request, call, target, body)
            call.heard()
            del body  # not to be held as long as the answer lasts
        except (Refused, ClientFault, UpstreamFault) as fault:
            response = _answer_to(fault)
            call.recorded(saved)
            response.headers.extend((name.decode(), value.decode()) for name, value in _marks(call))
            return response, _ending_of(fault)
        try:
            call.held_s = await self._recorder.waits.started(saved)
            call.recorded(saved)
            delivered = await self._deliver(request, call, sent)
        finally:
            sent.exchange.close()
        sender.learn(call, sent)
        return delivered

    def _sender_for(self, request: web.Request, call: Call, target: Target) -> Sender:
        sender = self._senders.get(target.upstream)
        if sender is None:
            known = ", ".join(sorted(self._senders))
            name = (call.start.upstream or "")[:64]
            message = f"there is no upstream {name!r}; the configuration has {known}"
            raise Refused(404, "unknown_upstream", message)
        if "Upgrade" in request.headers or request.method == "TRACE":
            raise Refused(501, "unsupported", "WebSocket, other upgrades and TRACE are unsupported")
        if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
            raise Refused(501, "unsupported", "transfer codings but chunked are unsupported")
        return sender

    async def _deliver(
        self, request: web.Request, call: Call, sent: Sent
    ) -> tuple[web.StreamResponse, Ending]:
        """Hand the answer on as it comes; the tap sees each piece after the client has it.

        But where recording is behind, its end waits for its record: with what a client of a stream
        takes for the end, or the last piece.
        """
        answer, editor = sent.exchange.answer, sent.editor
        reframed = editor is not None and editor.reframes
        call.answered(answer.status, answer.headers, edited=reframed)
        response = _response(call, sent, reframed=reframed)
        try:
            if self._strict:
                return response, await self._deliver_strictly(request, call, sent, response)
            await response.prepare(request)
            call.handed_on()
            last = b""
            async for piece, received in sent.pieces():
                if last and received:
                    await response.write(last)
                    last = b""
                if call.finished or not self._recorder.is_behind:
                    await _write(response, received)
                    await call.watched(piece, received)
                    continue
                await call.watched(piece, received)
                if call.at_its_end:
                    await self._hold(call)
                elif answer.complete and received:
                    last = received
                    continue
                await _write(response, received)
            if not call.finished and (last or answer.length is None) and self._recorder.is_behind:
                await self._hold(call)
            await response.write_eof(last)
        except (ClientFault, UpstreamFault) as fault:
            cut(request)
            return response, _ending_of(fault)
        return response, COMPLETE

    async def _hold(self, call: Call) -> None:
        await self._recorder.waits.ended(
            self._recorder.put(call.finish(COMPLETE), urgent=True), call.held_s
        )

    async def _deliver_strictly(
        self, request: web.Request, call: Call, sent: Sent, response: RelayedResponse
    ) -> Ending:
        """Hand the answer on, but let the client see its end only when that is saved.

        Raises:
            UpstreamFault: the upstream broke off; where a stream's own end had come, behind that.
        """
        answer = sent.exchange.answer
        held: list[bytes] = []
        fault: UpstreamFault | None = None
        try:
            async for piece, received in sent.pieces():
                await call.watched(piece, received)
                if held or answer.complete or call.at_its_end:
                    held.append(received)
                else:
                    await response.prepare(request)
                    await response.write(received)
        except UpstreamFault as error:
            if not call.at_its_end:
                raise
            fault = error
        ending = COMPLETE if fault is None else _ending_of(fault)
        if not await self._recorder.waits.committed(self._recorder.put(call.finish(ending))):
            cut(request)
            return ending
        await response.prepare(request)
        await response.write(b"".join(held))
        if fault is not None:
            raise fault
        await response.write_eof()
        return ending

    def _broken_off(self, request: web.Request, call: Call) -> Ending:
        phase: Phase = "body"
        if call.status is None:  # a request that did not come whole is answered by nobody
            phase = "headers" if call.sent and request.content.is_eof() else "request"
        if self.stopping:
            return Ending(
                ended_by="proxy", phase=phase, code=SERVER_STOPPED, error="the server was stopped"
            )
        return Ending(
            ended_by="client", phase=phase, code=CLIENT_LEFT, error="the client left before the end"
        )


async def _write(response: RelayedResponse, piece: bytes) -> None:
    if piece:
        await response.write(piece)


def _check_our_key(raw: headers.RawHeaders, raw_target: bytes, principal: Principal) -> None:
    """See that a key of ours stands only where it ends here: it never goes upstream.

    Where this server has none, one beside the provider's own is passed over.
    """
    if principal.way == "open":
        if not headers.holds_our_key(headers.end_to_end(raw), raw_target):
            return
        message = (
            "this server has no keys: leave out what looks like one of its own, and send your"
            " provider's key in Authorization"
        )
        raise Refused(401, "keys_are_off", message)
    if headers.holds_our_key(headers.with_provider_key(headers.end_to_end(raw), b""), raw_target):
        message = (
            "a tw_sk_ key stands where it would go upstream: it belongs into Authorization or"
            " X-Traceway-Api-Key alone"
        )
        raise Refused(400, "misplaced_key", message)


def _no_key(project: str, upstream: str) -> Refused:
    message = (
        f"project {project!r} has no key for upstream {upstream!r}: an admin sets it"
        " (docs/provider-keys.md), or send your provider's own in Authorization and the tw_sk_ key"
        " in X-Traceway-Api-Key"
    )
    return Refused(422, "no_provider_key", message)


def _response(call: Call, sent: Sent, *, reframed: bool) -> RelayedResponse:
    """Give the client's answer: the upstream's head, less what is not for it, and our marks."""
    answer = sent.exchange.answer
    reason: bytes = answer.reason
    relayed: headers.RawHeaders = headers.end_to_end(answer.headers)
    if sent.editor is not None:
        reason, relayed = sent.editor.head(reason, relayed)
    ours = [*_marks(call), *sandbox(call.media_type)]
    length = None if reframed else answer.length
    return RelayedResponse(answer.status, reason, [*relayed, *ours], length)


def _marks(call: Call) -> headers.RawHeaders:
    """Give the headers that tell the client where its call is recorded."""
    place = call.place
    marks = [
        (b"X-Traceway-Trace-Id", place.trace_id.hex().encode()),
        (b"X-Traceway-Span-Id", call.start.span_id.hex().encode()),
    ]
    if place.session_id is not None and place.session_source is not None:
        quoted = quote(place.session_id, safe="").encode()
        marks.append((b"X-Traceway-Session-Id", quoted))
        marks.append((b"X-Traceway-Session-Source", place.session_source.encode()))
    return marks


def _answer_to(fault: Refused | ClientFault | UpstreamFault) -> web.Response:
    if isinstance(fault, Refused):
        return fault.answer()
    return error_response(fault.status, fault.code, str(fault))


def _ending_of(fault: Refused | ClientFault | UpstreamFault) -> Ending:
    if isinstance(fault, UpstreamFault):
        return Ending(ended_by="upstream", phase=fault.phase, code=fault.code, error=str(fault))
    ended_by: EndedBy = "client" if isinstance(fault, ClientFault) else "proxy"
    return Ending(ended_by=ended_by, phase="request", code=fault.code, error=str(fault))
