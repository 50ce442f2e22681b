"""Whole exchanges over an upstream's pool, for its tests over TCP and over TLS."""

import asyncio

from proxy.upstream import Exchange, Request, Upstream

GET = Request(method=b"GET", target=b"/x", headers=[(b"Host", b"up")])
POST = Request(method=b"POST", target=b"/x", headers=[(b"Content-Length", b"2")], body=b"{}")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def call(pool: Upstream, request: Request = GET) -> bytes:
    """Make a whole exchange; give its body."""
    async with asyncio.timeout(10):
        exchange = await pool.open(request)
        try:
            return await body_of(exchange)
        finally:
            exchange.close()


async def body_of(exchange: Exchange) -> bytes:
    """Read the rest of an answer's body."""
    body = b""
    while piece := await exchange.answer.read():
        body += piece
    return body
