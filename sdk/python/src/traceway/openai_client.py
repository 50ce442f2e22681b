"""OpenAI's Python clients, pointed at the proxy; the package itself is never imported here.

The seam is `_prepare_request`, a hook that the client has for this: it is called for each attempt
of each request, with the request as it goes out. A subclass with it is made of the client's own
class, so that `with_options` and `copy`, which make another of the same class, keep it. Invariant:
what goes wrong here leaves the call as the application made it.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote, urlsplit

from traceway.sender import log

if TYPE_CHECKING:
    from traceway.client import Traceway

C = TypeVar("C")

_OWNER: Final = "_traceway_client"
_OPENAI_HOST: Final = "api.openai.com"


def wrapped(traceway: "Traceway", client: C, upstream: str | None) -> C:
    """Give a copy of the client that calls through the proxy, or the client itself."""
    if getattr(type(client), _OWNER, None) is traceway:
        return client
    try:
        return cast(C, _copied(traceway, client, upstream))
    except Exception as error:
        log.warning("traceway: a %s was not wrapped: %s", type(client).__name__, error)
        return client


def _copied(traceway: "Traceway", client: Any, upstream: str | None) -> Any:
    original = type(client)
    if hasattr(original, _OWNER):  # another Traceway's
        original = original.__bases__[0]
    if not callable(getattr(original, "_prepare_request", None)):
        raise TypeError("it is no OpenAI client, or one that this version does not know")
    proxy = f"{traceway.url}/api/proxy/"
    base_url = str(client.base_url)
    if upstream is None and base_url.startswith(proxy):
        copy = client.copy()
    else:
        if upstream is None and urlsplit(base_url).hostname != _OPENAI_HOST:
            # Its key must not go to somebody else.
            raise ValueError(f"it calls {base_url}: say by `upstream` what the proxy calls that")
        path = urlsplit(base_url).path.strip("/")
        copy = client.copy(base_url=f"{proxy}{quote(upstream or 'openai', safe='')}/{path}")
    copy.__class__ = _class(traceway, original, proxy)
    return copy


def _class(traceway: "Traceway", original: type, proxy: str) -> type:
    """Give a subclass of a client's class, of the same name, whose requests are ours."""
    prepare: Callable[..., Any] = original._prepare_request  # type: ignore[attr-defined]
    hook: Callable[..., Any]
    if inspect.iscoroutinefunction(prepare):

        async def hook_async(self: Any, request: Any) -> None:
            await prepare(self, request)
            _add_headers(traceway, request, proxy)

        hook = hook_async
    else:

        def hook_sync(self: Any, request: Any) -> None:
            prepare(self, request)
            _add_headers(traceway, request, proxy)

        hook = hook_sync
    fields = {_OWNER: traceway, "_prepare_request": hook, "__module__": original.__module__}
    return type(original.__name__, (original,), fields)


def _add_headers(traceway: "Traceway", request: Any, proxy: str) -> None:
    # The edge: a call of the application's must not fail for what we say about it.
    try:
        # A copy may have been pointed elsewhere, and our key is nobody else's.
        if str(request.url).startswith(proxy):
            for name, value in traceway.headers().items():
                if name not in request.headers:  # what the application says itself stands
                    # As bytes: text it would encode as whatever the other headers are.
                    request.headers.update([(name.encode(), value.encode())])
    except Exception as error:
        traceway.complain(f"a call went out without its trace: {error}")
