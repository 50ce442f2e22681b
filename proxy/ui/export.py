"""A session as one page that opens without a server: its figures, and all of its conversation.

Invariants: the page has no script, no form and nothing that is loaded from anywhere, and its own
policy says so; it is written part by part, so that no session is too long for it. Each branch
stands once. Texts are whole up to ``TEXT_CHARS`` characters, messages up to ``MAX_BYTES``. Where
something of a session goes meanwhile, the page has no end.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from proxy.api.conversation import PAGE_BYTES, ConversationPage, Conversations
from proxy.api.staying import check_stays
from proxy.api.views import session_view, trace_view
from proxy.ui.conversation import SoFar, sections
from proxy.ui.frame import Frame, Static
from proxy.ui.pictures import pictures
from proxy.ui.session import TRACES, model_view
from storage import breakdown, queries
from storage.archive import ArchiveChanged
from storage.database import Database
from storage.lines import Line
from storage.records import Session
from storage.threads import Turn

MEDIA_TYPE: Final = "text/html; charset=utf-8"
SUFFIX: Final = ".html"
# Messages that are rendered at a time, and bytes of them, unless it is one alone.
MESSAGES: Final = 50
PART_BYTES: Final = 4 * 1024 * 1024
# One message is read up to this: several times what is kept of a body by default.
MAX_BYTES: Final = PAGE_BYTES
# Characters of one text: a thick book.
TEXT_CHARS: Final = 4 * 1024 * 1024
_STYLES: Final = ("style.css", "session.css", "export.css")
_END: Final = b"</div>\n</main>\n</body>\n</html>\n"


class HtmlExport:
    """Writes sessions as pages; `pieces` is what an export of this format is made with."""

    def __init__(
        self, frame: Frame, static: Static, conversations: Conversations, database: Database
    ) -> None:
        self._frame = frame
        self._conversations = conversations
        self._database = database
        self._style = "\n".join(static.text(name) for name in _STYLES)
        digest = hashlib.sha256(self._style.encode()).digest()
        self._style_hash = f"sha256-{base64.b64encode(digest).decode()}"

    async def pieces(self, project_id: int, session_id: str) -> AsyncIterator[bytes]:
        """Write a session.

        Raises:
            LookupError: there is no such session; before the first piece.
            ArchiveChanged: it does not stay meanwhile.
        """
        db = self._database
        session = await queries.get_session(db, project_id, session_id)
        if session is None:
            raise LookupError(session_id)
        seen = session_view(session)
        models = await breakdown.model_shares(db, project_id, seen.id)
        turns, paths = await self._conversations.all(project_id, seen.id)
        yield await self._render(
            "export_begin.html",
            session=seen,
            models=[model_view(share) for share in models],
            states=await breakdown.trace_states(db, project_id, seen.id),
            budget=None,
            style=self._style,
            style_hash=self._style_hash,
            branch_count=sum(_is_branch(path) for path in paths),
        )
        if not any(paths):
            async for part in self._traces(session):
                yield part
        so_far = SoFar()
        branches = 0
        for path in paths:
            branches += _is_branch(path)
            fork = path[0].parent if path else None
            begins = True
            async for page, found in self._pages(project_id, turns, path):
                laid_out = await asyncio.to_thread(sections, page, so_far, _finder(found))
                yield await self._render(
                    "export_lines.html",
                    session=seen,
                    sections=laid_out,
                    begins=begins,
                    branch=branches if _is_branch(path) else 0,
                    fork=fork,
                )
                begins = False
        await check_stays(db, session)
        yield _END

    async def _pages(
        self, project_id: int, turns: Sequence[Turn], path: Sequence[Line]
    ) -> AsyncIterator[tuple[ConversationPage, Mapping[tuple[str, int], str]]]:
        """Give a path page by page, with the pictures of each; fewer where messages are large."""
        start, count = 0, MESSAGES
        while start < len(path):
            lines = range(start, min(start + count, len(path)))
            most_bytes = PART_BYTES if len(lines) > 1 else MAX_BYTES
            page = await self._conversations.lines(
                project_id, turns, path, lines, most_bytes, TEXT_CHARS
            )
            if len(lines) > 1 and any(
                one.truncated and one.length is None for one in page.messages
            ):
                count = len(lines) // 2
                continue
            yield page, await self._pictures(project_id, page)
            start, count = lines.stop, min(MESSAGES, count * 2)

    async def _pictures(
        self, project_id: int, page: ConversationPage
    ) -> Mapping[tuple[str, int], str]:
        """Read the pictures of a page as addresses that hold them."""
        found: dict[tuple[str, int], str] = {}
        for message in page.messages:
            if not any(part.kind == "image" and part.size for part in message.parts):
                continue
            data = await self._conversations.content(project_id, message.id)
            if data is not None:
                found |= await asyncio.to_thread(_addresses, message.id, data)
        return found

    async def _traces(self, session: Session) -> AsyncIterator[bytes]:
        """Write the traces of a session of which no message is known."""
        start = 0
        while traces := await breakdown.page_traces(
            self._database, session.project_id, session.session_id, start, TRACES
        ):
            yield await self._render(
                "export_traces.html", traces=[trace_view(trace) for trace in traces]
            )
            start += len(traces)
        if start < session.trace_count:
            raise ArchiveChanged("a trace")

    async def _render(self, template: str, **context: object) -> bytes:
        return await asyncio.to_thread(
            lambda: self._frame.offline(template, **context).encode("utf-8", "replace")
        )


def _is_branch(path: Sequence[Line]) -> bool:
    """Tell whether a path leaves another one; else it is the newest of its thread."""
    return bool(path) and path[0].parent is not None


def _finder(found: Mapping[tuple[str, int], str]) -> Callable[[str, int], str | None]:
    return lambda message, number: found.get((message, number))


def _addresses(message: str, data: bytes) -> dict[tuple[str, int], str]:
    """Give those pictures of a message that are raster images by their own first bytes."""
    return {
        (message, number): f"data:{image[0]};base64,{base64.b64encode(image[1]).decode()}"
        for number, image in enumerate(pictures(data))
        if image is not None
    }
