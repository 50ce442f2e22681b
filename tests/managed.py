"""A server with keys: making projects and keys as an admin does, over the API."""

from dataclasses import dataclass
from typing import Any

import orjson

from tests.api.asking import Reply
from tests.running import CHAT, Running
from tests.wire import Received


@dataclass
class Keyed:
    """A server whose keys are on; `admin` is an admin's."""

    tw: Running
    admin: str

    async def asks(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        project: str | None = None,
    ) -> Reply:
        """Make a request of the API, by default as the admin."""
        headers = {"Authorization": f"Bearer {key or self.admin}"}
        if project is not None:
            headers["X-Traceway-Project"] = project
        data = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else None
        async with self.tw.client.request(
            method, self.tw.url + path, data=data, headers=headers
        ) as answer:
            said = await answer.read()
            return Reply(answer.status, dict(answer.headers), orjson.loads(said) if said else None)

    async def makes_project(self, name: str) -> None:
        """Make a project."""
        assert (await self.asks("POST", "/api/projects", {"name": name})).status == 201

    async def makes_key(self, scope: str = "write", project: str | None = None) -> str:
        """Make a key."""
        asked = {"name": "a", "scope": scope}
        reply = await self.asks("POST", "/api/keys", asked, project=project)
        assert reply.status == 201, reply
        return str(reply.body["key"])

    async def sets_provider_key(
        self, key: str, upstream: str = "openai", project: str | None = None
    ) -> None:
        """Store a provider key."""
        path = f"/api/provider-keys/{upstream}"
        reply = await self.asks("PUT", path, {"key": key}, project=project)
        assert reply.status == 200, reply

    async def calls(
        self,
        key: str,
        *,
        headers: bytes = b"",
        body: bytes = b"{}",
        target: bytes = CHAT.encode(),
        method: bytes = b"POST",
    ) -> Received:
        """Make a call with a key of ours alone."""
        headers = b"Authorization: Bearer %b\r\n%b" % (key.encode(), headers)
        headers += b"Content-Type: application/json\r\n"
        return await self.tw.raw(target, method=method, headers=headers, body=body)


async def with_keys(tw: Running) -> Keyed:
    """Turn keys on by making the first one, an admin's."""
    asked = {"name": "admin", "scope": "admin"}
    async with tw.client.post(tw.url + "/api/keys", json=asked) as answer:
        assert answer.status == 201, await answer.read()
        return Keyed(tw, (await answer.json())["key"])
