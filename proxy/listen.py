"""The sockets that we listen on, taken before anything else is begun.

Invariant: who cannot have the port has touched no file and made no connection. Connections that
come before the server is ready wait; none is refused.
"""

import errno
import resource
import socket
from collections.abc import Iterable
from typing import Final

from proxy.sections import ServerConfig, UpstreamConfig

# Connections that wait to be accepted; the kernel's own bound is 4,096 (net.core.somaxconn).
BACKLOG: Final = 1024
# Files that are not connections: the database with its readers, libraries' data, the log; and
# connections that are being turned away.
_OWN_FILES: Final = 96
# At most so many connections are taken where nobody says; an idle one costs some 15 KB.
_MOST: Final = 16_384
_FEWEST: Final = 16
# Names have addresses of protocols that this machine may not speak; one that works is enough.
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class CannotListen(Exception):
    """The port cannot be had; the text says why, and what to do."""


def listen(server: ServerConfig) -> list[socket.socket]:
    """Listen on the port at each address of the host.

    Raises:
        CannotListen: the port is taken or forbidden, or the host has no address here.
    """
    where = f"{server.host}:{server.port}"
    found: list[socket.socket] = []
    refusal: OSError | None = None
    port = server.port
    try:
        addresses = socket.getaddrinfo(server.host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CannotListen(f"{server.host} has no address: {error.strerror or error}") from error
    for family, _, _, _, (address, *_) in addresses:
        try:
            found.append(_listen_at(family, str(address), port, server.write_timeout_s))
        except OSError as error:
            refusal = error
            if error.errno not in _NOT_HERE:
                break
        else:
            port = found[0].getsockname()[1]  # any free one, the same at each address
    if found and (refusal is None or refusal.errno in _NOT_HERE):
        return found
    for taken in found:
        taken.close()
    if refusal is not None and refusal.errno == errno.EADDRINUSE:
        why = "another program listens there; stop it, or choose another port with --port"
    else:
        why = str(refusal.strerror if refusal else "it has no address")
    raise CannotListen(f"cannot listen on {where}: {why}") from refusal


def most_connections(server: ServerConfig, upstreams: Iterable[UpstreamConfig]) -> int:
    """Give how many connections clients may have: `max_connections`, or what open files allow.

    Each may need one to an upstream, beside those that upstreams keep idle and our own files.
    """
    if server.max_connections:
        return server.max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _MOST
    idle = sum(upstream.max_idle_connections for upstream in upstreams)
    left = files - _OWN_FILES - min(idle, files // 4)
    return max(_FEWEST, min(left // 2, _MOST))


def _listen_at(family: int, address: str, port: int, write_timeout_s: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The port of a server that has just ended is free; that of one that runs is not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The last bytes of an answer that nobody takes are held by the kernel, or by a transport
        # that waits for it. Connections inherit this end of the wait (in Linux alone).
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            limit_ms = int(write_timeout_s * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
