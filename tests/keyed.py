"""A running server with keys on: projects alpha and beta, with a key of each scope in both."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from proxy.access import COOKIE, OUR_KEY_HEADER
from proxy.keyring import KEY_PREFIX, SIGN_IN_PREFIX, hashed, new_secret
from storage import api_keys
from storage.database import Transaction
from storage.grants import SCOPES, Scope, SignIn
from tests.databases import opened
from tests.running import Running, running

PROJECTS = ("alpha", "beta")
# 2100-01-01.
FAR_US = 4_102_444_800_000_000


@dataclass(frozen=True)
class Holder:
    """Somebody with a key: in a header, or as the cookie of a browser that it signed in."""

    project: str
    project_id: int
    key_id: int
    scope: Scope
    key: str = field(repr=False)
    cookie: str = field(repr=False)

    @property
    def header(self) -> bytes:
        """The key as a line of a raw head, where the provider's may stand beside it."""
        return b"%b: %b\r\n" % (OUR_KEY_HEADER.encode(), self.key.encode())

    @property
    def bearer(self) -> bytes:
        """The key as a line of a raw head, in place of the provider's."""
        return b"Authorization: Bearer %b\r\n" % self.key.encode()

    @property
    def cookie_header(self) -> bytes:
        """The cookie as a line of a raw head."""
        return b"Cookie: %b=%b\r\n" % (COOKIE.encode(), self.cookie.encode())


@dataclass
class Keyed:
    """A server and those who have keys for it, by project and scope: `team["beta", "read"]`."""

    tw: Running
    holders: Mapping[tuple[str, Scope], Holder]
    stack: AsyncExitStack

    def __getitem__(self, who: tuple[str, Scope]) -> Holder:
        return self.holders[who]

    async def by(self, project: str, scope: Scope) -> Running:
        """Give the server as one with this key sees it: each request of its client has it."""
        return await self.with_headers({OUR_KEY_HEADER: self[project, scope].key})

    async def by_cookie(self, project: str, scope: Scope) -> Running:
        """Give the server as the browser sees it that this key signed in."""
        cookie = f"{COOKIE}={self[project, scope].cookie}"
        return await self.with_headers({"Cookie": cookie, "Origin": self.tw.url})

    async def with_headers(self, headers: Mapping[str, str]) -> Running:
        """Give the server with a client of its own, which sends these headers each time."""
        client = aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar())
        return replace(self.tw, client=await self.stack.enter_async_context(client))


@asynccontextmanager
async def keyed(
    folder: Path, upstream_url: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Keyed]:
    """Run a server whose database has projects and keys; `settings` as those of `running`."""
    holders = await prepared(folder)
    async with AsyncExitStack() as stack:
        tw = await stack.enter_async_context(running(folder, upstream_url, settings))
        yield Keyed(tw, holders, stack)


async def prepared(folder: Path) -> Mapping[tuple[str, Scope], Holder]:
    """Make a database with these projects and keys, for a server that is to be started."""
    database = opened(folder / "traceway.db")
    with database.transaction() as tx:
        holders = {(one.project, one.scope): one for one in _made(tx)}
    await database.close()
    return holders


def _made(tx: Transaction) -> list[Holder]:
    made = []
    for project in PROJECTS:
        project_id = api_keys.create_project(tx, project, now_us=1)
        assert isinstance(project_id, int)
        for scope in SCOPES:
            key, cookie = new_secret(KEY_PREFIX), new_secret(SIGN_IN_PREFIX)
            key_id = api_keys.create_key(
                tx,
                project_id=project_id,
                name=f"{project}'s {scope}",
                scope=scope,
                sha256=hashed(key),
                last_four=key[-4:],
                now_us=1,
            )
            assert isinstance(key_id, int)
            one = SignIn(
                sha256=hashed(cookie), key_id=key_id, project_id=project_id, expires_at_us=FAR_US
            )
            api_keys.sign_in(tx, one, now_us=1)
            made.append(Holder(project, project_id, key_id, scope, key, cookie))
    return made
