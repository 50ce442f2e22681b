"""Taking recordings along, over HTTP: a session in one of several formats, and archives back in.

Owns which formats there are. Invariants: whatever is sent is sent as it is read, part by part, and
what cannot be sent to its end is cut, never ended as if it were whole; of what comes in, nothing of
a block is stored before all of it was found to be right (storage/archive_block.py), and what is
stored is a transaction for each small part, so that calls are not held up.
"""

import asyncio
import functools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import web

from proxy.access import check_still, project_id
from proxy.api import params
from proxy.api.answers import json_answer, not_found
from proxy.api.params import BadParameter
from proxy.errors import Refused
from proxy.providers.lenient import has_many_values
from proxy.providers.messages import read_message
from proxy.reaper import Client, MalformedBody
from proxy.recorder import Recorder
from storage import archive, archive_incoming, queries, restore, restore_marks
from storage.archive_block import Block
from storage.archive_incoming import Incoming
from storage.archive_lines import BadArchive
from storage.database import Database, StorageError
from storage.restore_conflicts import Conflict, find_conflict
from storage.restore_marks import Mark

# Gives what is exported of a project's session. Raises LookupError before the first piece where
# there is no such session.
Pieces = Callable[[int, str], AsyncIterator[bytes]]

DEFAULT_FORMAT: Final = "jsonl"
FORMATS: Final = (DEFAULT_FORMAT, "json", "html", "finetune")
JSON_LINES: Final = "application/jsonl"
# What a line of an archive may have to be imported.
MAX_LINE_BYTES: Final = archive_incoming.MAX_LINE_BYTES
# How many spans run, and so are in no archive.
RUNNING_HEADER: Final = "X-Traceway-Running"
# Nothing that a stranger wrote runs on our origin, whatever it is saved as.
POLICY: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# What a file may be called everywhere.
_ODD: Final = re.compile(r"[^A-Za-z0-9._-]+")
NAME_CHARS: Final = 100

_BROKE_OFF: Final = "the export of %s broke off: %s"
_log = logging.getLogger("traceway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format in which a session is exported; ``suffix`` is that of its files.

    ``headers`` tells in headers what will be left out.
    """

    media_type: str
    suffix: str
    pieces: Pieces
    headers: Callable[[int, str], Awaitable[Mapping[str, str]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedView:
    """What came in of archives: what was new, and how many spans were there already."""

    sessions: int
    traces: int
    spans: int
    known_spans: int


class Archive:
    """The handlers of the exports and of /api/import.

    ``formats`` are all of ``FORMATS`` but the archive itself.
    """

    def __init__(
        self, database: Database, recorder: Recorder, formats: Mapping[str, Format]
    ) -> None:
        self._database = database
        self._recorder = recorder
        lines = functools.partial(archive.session_block, database)
        self._formats = {
            DEFAULT_FORMAT: Format(media_type=JSON_LINES, suffix=".jsonl", pieces=lines),
            **formats,
        }
        if missing := set(FORMATS).symmetric_difference(self._formats):
            raise ValueError(f"the formats are not those that are described: {missing}")

    async def session(self, request: web.Request) -> web.StreamResponse:
        """GET /api/sessions/{id}/export?format=: a session as a file."""
        session_id = params.session_id(request)
        name = request.query.get("format", DEFAULT_FORMAT)
        if name not in self._formats:
            known = ", ".join(self._formats)
            raise BadParameter(f"format must be one of {known}, not {name[:40]!r}", "format")
        project = project_id(request)
        if await queries.get_session(self._database, project, session_id) is None:
            return not_found("session")
        chosen = self._formats[name]
        answer = _file(chosen.media_type, f"session-{session_id}", chosen.suffix)
        running = await archive.running_in(self._database, project, session_id)
        answer.headers[RUNNING_HEADER] = str(running)
        if chosen.headers is not None:
            try:
                answer.headers.update(await chosen.headers(project, session_id))
            except LookupError as error:
                if type(error) is not LookupError:  # a mistake of ours
                    raise
                return not_found("session")
            except archive.ArchiveChanged as error:
                raise _changed("a session", error) from None
        pieces = chosen.pieces(project, session_id)
        return await _send(request, answer, pieces, "a session")

    async def traces(self, request: web.Request) -> web.StreamResponse:
        """GET /api/traces/export: all traces that have no session, as an archive."""
        project = project_id(request)
        answer = _file(JSON_LINES, "traces", ".jsonl")
        running = await archive.running_in(self._database, project, None)
        answer.headers[RUNNING_HEADER] = str(running)
        pieces = archive.lone_blocks(self._database, project)
        return await _send(request, answer, pieces, "the traces without a session")

    async def restore(self, request: web.Request) -> web.Response:
        """POST /api/import: store what archives hold; what is there already is passed over."""
        coming = _Import(self._database, self._recorder, project_id(request))
        incoming = Incoming(says)
        try:
            await _take_all(request, incoming, coming)
        except BadArchive as error:
            raise Refused(400, "bad_archive", f"{error}; {coming.so_far}") from None
        except OSError as error:
            reason = f"the folder for temporary files takes no more ({error.strerror or error})"
            raise Refused(503, "storage_unavailable", reason) from None
        finally:
            incoming.close()
        return json_answer(coming.done)


def says(data: bytes, role: str, meaning: bytes) -> bool:
    """Tell whether a message is of this role and meaning, as a call with it would have them.

    A text of its own is the user's prompt, or the answer to one; what only names another item means
    what that does, which is not known here. One of too many values is none: nobody would read it.
    """
    if has_many_values(data):
        return False
    facts = read_message(data)
    is_answer = data.startswith(b'"') and role == "assistant"
    if role != facts.role and not is_answer:
        return False
    return facts.refers_to is not None or meaning == facts.meaning


class _Import:
    """Archives on their way into a project."""

    def __init__(self, database: Database, recorder: Recorder, project: int) -> None:
        self._database = database
        self._recorder = recorder
        self._project = project
        self._marks: list[Mark] = []
        self._seen: list[Mark] = []
        # The last part of which the writer was asked.
        self._work: asyncio.Future[restore.Written] | None = None
        self._sessions = 0
        self._done = restore.Written(at=None)

    @property
    def done(self) -> ImportedView:
        """What became of all that came."""
        return ImportedView(
            sessions=self._sessions,
            traces=self._done.traces,
            spans=self._done.spans,
            known_spans=self._done.known_spans,
        )

    @property
    def so_far(self) -> str:
        """Say what is stored, where something goes wrong."""
        if not self._sessions and not self._done.spans and not self._done.known_spans:
            return "nothing was imported"
        return f"what is before it was imported: {self._sessions} sessions"

    async def take(self, block: Block) -> None:
        """Store a block, and let it go.

        Raises:
            Refused: something of it is there already and is not the same.
        """
        work: asyncio.Future[restore.Written] | None = None
        known = len(self._marks)
        try:
            self._refuse(block, await find_conflict(self._database, self._project, block))
            at: int | None = 0
            while at is not None:
                step = functools.partial(
                    restore.write, project_id=self._project, block=block, at=at
                )
                work = self._work = self._recorder.write(step, (self._project,))
                # Who sent it may leave, and the writer go on with it: what it does counts as well.
                work.add_done_callback(self._add)
                part = await asyncio.shield(work)
                self._refuse(block, part.conflict)
                at = part.at
            self._marks[known:] = await self._mark(self._marks[known:])
            self._sessions += block.session is not None
        finally:
            if work is None or work.done():
                block.close()
            else:
                work.add_done_callback(lambda _: block.close())

    async def mark_rest(self) -> None:
        """Mark the spans whose call came with a later block, or was here before."""
        if self._work is not None:
            # Where who sent it has left, the writer may still be at it.
            await asyncio.wait((self._work,))
        self._marks = await self._mark(self._marks)
        await self._mark(self._seen)

    async def _mark(self, marks: Sequence[Mark]) -> list[Mark]:
        """Mark spans whose call is there by now; return the others."""
        left: list[Mark] = []
        for start in range(0, len(marks), restore.BATCH_SPANS):
            some = marks[start : start + restore.BATCH_SPANS]
            step = functools.partial(restore_marks.mark, marks=some)
            left += await self._recorder.write(step, (self._project,))
        return left

    def _add(self, work: asyncio.Future[restore.Written]) -> None:
        """Note what a part did, whether or not somebody still waits for it."""
        if work.cancelled() or work.exception() is not None:
            return
        part = work.result()
        self._done.traces += part.traces
        self._done.spans += part.spans
        self._done.known_spans += part.known_spans
        self._marks += part.marks
        self._seen += part.seen

    def _refuse(self, block: Block, found: Conflict | None) -> None:
        if found is None:
            return
        of = "" if block.session is None else f" of the session {block.session.id!r}"
        span = "" if found.span_id is None else f", span {found.span_id.hex()}"
        raise Refused(
            409,
            "conflict",
            f"trace {found.trace_id.hex()}{span}{of}: {found.what}; delete it first, or import into"
            f" another project; {self.so_far}",
        )


async def _take_all(request: web.Request, incoming: Incoming, coming: _Import) -> None:
    """Store what a request brings, up to its end or to what is wrong with it.

    Raises:
        BadArchive: it is none, or damaged.
        BadParameter: it does not come whole, or not in time.
        Refused: something of it is there already and is not the same.
    """
    try:
        async for piece in _pieces(request):
            incoming.feed(piece)
            while (block := await asyncio.to_thread(incoming.next_block)) is not None:
                check_still(request)
                await coming.take(block)
        incoming.end()
    finally:
        # What came stays, whatever ends it: also where the client has left.
        await asyncio.shield(coming.mark_rest())


def _file(media_type: str, name: str, suffix: str) -> web.StreamResponse:
    """Begin an answer that is saved as a file."""
    safe = _ODD.sub("_", name)[:NAME_CHARS]
    return web.StreamResponse(
        headers={
            "Content-Type": media_type,
            "Content-Disposition": f'attachment; filename="{safe}{suffix}"',
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
    )


async def _send(
    request: web.Request, answer: web.StreamResponse, pieces: AsyncIterator[bytes], what: str
) -> web.StreamResponse:
    """Send an answer's pieces; where they break off, so does the connection, and the log says why.

    `what` is exported, for that; no log has the id of a session, which may have to be forgotten.
    """
    if request.method == "HEAD":
        await answer.prepare(request)
        return answer
    try:
        # What fails before the first piece still has an answer of its own.
        first = await anext(pieces, b"")
    except LookupError as error:
        if type(error) is not LookupError:  # a mistake of ours
            raise
        return not_found("session")
    except archive.ArchiveChanged as error:
        raise _changed(what, error) from None
    await answer.prepare(request)
    try:
        await answer.write(first)
        async for piece in pieces:
            await answer.write(piece)
    except (StorageError, archive.ArchiveChanged) as error:
        _log.warning(_BROKE_OFF, what, error)
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # it left
    return answer


def _changed(what: str, error: archive.ArchiveChanged) -> Refused:
    """Make what is answered where something changed before any of it was sent; the log says why."""
    _log.warning(_BROKE_OFF, what, error)
    return Refused(409, "conflict", "it was changed while it was read: ask again", retry_after_s=1)


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Give a body as it comes, however long it is; between two pieces the time is bounded.

    Raises:
        BadParameter: it does not come whole, or not in time.
    """
    patience_s = cast(Client, request.protocol).patience.body_s
    try:
        while True:
            async with asyncio.timeout(patience_s):
                piece = await request.content.readany()
            if not piece:
                return
            yield piece
    except (web.RequestPayloadError, MalformedBody, TimeoutError):
        raise BadParameter("the body did not come whole; what came before is imported") from None
