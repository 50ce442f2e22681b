"""What all pages share: the templates' environment, the frame, headers, and static files.

Invariants: who is not let in is shown nothing but that. Every page and every fragment has the
headers below, so that text of strangers that got through all escaping would still run nothing. A
static file's address names its content, so that it may be kept for ever.
"""

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp_jinja2
import jinja2
from aiohttp import web

from proxy import __version__
from proxy.access import Principal, maybe_principal_of
from proxy.api.params import BadParameter
from proxy.keyring import Keyring
from proxy.ui import view
from proxy.ui.spans import state
from storage.database import StorageError

_FOLDER: Final = Path(__file__).parent
_SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none';"
        " base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # A page of another site that opens one of ours gets no hold of its window.
    "Cross-Origin-Opener-Policy": "same-origin",
    # Nothing to others; our own forms must say where they come from, and with "no-referrer" a
    # browser gives their Origin as null (Fetch, "append a request Origin header").
    "Referrer-Policy": "same-origin",
}
_A_YEAR: Final = "public, max-age=31536000, immutable"

# Pages that are there in every project.
_EVERYWHERE: Final = ("/sessions", "/traces", "/settings")

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """What the frame shows of who looks: their project, and what they may do beside reading.

    ``projects`` are those that they may look at instead, none where there is no choice; ``back`` is
    the page to be on in another one. ``names_project`` is False where there is one and no key.
    """

    project: str
    projects: Sequence[str]
    back: str
    names_project: bool
    manages: bool
    is_signed_in: bool


class Static:
    """The files of static/, held in memory; `version` is a hash of them all.

    The version is a folder in their address: modules that import each other by a relative path
    stay in it, which they would not with a query.
    """

    def __init__(self, folder: Path = _FOLDER / "static") -> None:
        self._files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        digest = hashlib.sha256()
        for name, data in self._files.items():
            digest.update(b"%b\0%d\0%b" % (name.encode(), len(data), data))
        self.version = digest.hexdigest()[:16]

    def text(self, name: str) -> str:
        """Give a file's text."""
        return self._files[name].decode()

    async def serve(self, request: web.Request) -> web.Response:
        """GET /static/{version}/{name}."""
        name = request.match_info["name"]
        if request.match_info["version"] != self.version or name not in self._files:
            raise web.HTTPNotFound
        kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
        return web.Response(
            body=self._files[name],
            content_type=kind or "application/octet-stream",
            charset="utf-8",
            headers={**_SECURITY, "Cache-Control": _A_YEAR},
        )


class Frame:
    """Renders pages; `reasons` says why calls are not recorded as they should be."""

    def __init__(
        self,
        app: web.Application,
        static: Static,
        reasons: Callable[[], list[str]],
        keyring: Keyring,
    ) -> None:
        self._static = static
        self._reasons = reasons
        self._keyring = keyring
        self._environment = aiohttp_jinja2.setup(
            app,
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            default_helpers=False,
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(view=view, state=state, offline=False)

    def render(
        self,
        request: web.Request,
        template: str,
        *,
        status: int = 200,
        principal: Principal | None = None,
        **context: object,
    ) -> web.Response:
        """Answer with a page, or with a fragment of one, to whoever asks for it or `principal`."""
        principal = principal or maybe_principal_of(request)
        shared = {
            "viewer": None if principal is None else self._viewer(request, principal),
            "path": request.path,
            "static": f"/static/{self._static.version}",
            "version": __version__,
            "degraded": self._reasons(),
            "now": datetime.now(UTC),
        }
        # Not by the library's context processors: their middleware would stand before the proxy.
        response = aiohttp_jinja2.render_template(
            template, request, {**shared, **context}, status=status
        )
        response.headers.update(_SECURITY)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _viewer(self, request: web.Request, principal: Principal) -> Viewer:
        names = sorted(project.name for project in self._keyring.projects)
        may_choose = principal.way in ("cookie", "open") and principal.scope == "admin"
        return Viewer(
            project=principal.project.name,
            projects=names if may_choose and len(names) > 1 else (),
            back=next((path for path in _EVERYWHERE if request.path.startswith(path)), "/sessions"),
            names_project=self._keyring.keys_are_on or len(names) > 1,
            manages=principal.scope == "admin",
            is_signed_in=principal.way == "cookie",
        )

    def offline(self, template: str, **context: object) -> str:
        """Render a part of a page that is opened without a server: it has no address of ours."""
        shared = {"offline": True, "version": __version__, "now": datetime.now(UTC)}
        return self._environment.get_template(template).render({**shared, **context})

    @property
    def keys_are_on(self) -> bool:
        """Whether clients need a key of ours."""
        return self._keyring.keys_are_on

    def text(self, text: str) -> web.Response:
        """Answer with plain text."""
        return web.Response(text=text, headers={**_SECURITY, "Cache-Control": "no-store"})

    def page(self, handler: Page) -> Page:
        """Turn what a handler of a page cannot answer into a page that says so."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except BadParameter as error:
                status, title, message = 400, "That cannot be shown", str(error)
            except web.HTTPNotFound:
                status, title, message = 404, "Not here", "There is nothing at this address."
            except StorageError as error:
                status, title, message = 503, "The database does not answer", str(error)
            return self.render(request, "problem.html", status=status, title=title, message=message)

        return handle


def came_by_https(request: web.Request) -> bool:
    """Tell whether the browser uses TLS, which ends at a proxy before us.

    A form's Origin says so, and else `X-Forwarded-Proto`: whoever lies there lies to themselves.
    """
    if "Origin" in request.headers:
        return request.headers["Origin"].lower().startswith("https://")
    first = request.headers.get("X-Forwarded-Proto", request.scheme).partition(",")[0]
    return first.strip().lower() == "https"


def origin(request: web.Request) -> str:
    """Give the address of this server as the browser knows it, without a path."""
    return f"{'https' if came_by_https(request) else 'http'}://{request.host}"
