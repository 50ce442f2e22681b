"""The sockets that we listen on: each address, one port, and clear words where it cannot be."""

import errno
import resource
import socket
from typing import Any

import pytest

from proxy.listen import CannotListen, listen, most_connections
from proxy.sections import OPENAI, ServerConfig


def test_a_port_that_was_taken_answers_before_anybody_serves_it() -> None:
    (sock,) = listen(ServerConfig(port=0))
    with sock, socket.create_connection(sock.getsockname()):
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_name_with_two_addresses_has_one_port_at_both(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, "127.0.0.1", "127.0.0.2")
    first, second = listen(ServerConfig(host="localhost", port=0))
    with first, second:
        assert [first.getsockname()[0], second.getsockname()[0]] == ["127.0.0.1", "127.0.0.2"]
        assert first.getsockname()[1] == second.getsockname()[1]


def test_one_address_that_this_machine_has_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, "192.0.2.1", "127.0.0.1")  # the first is for documentation (RFC 5737)
    (sock,) = listen(ServerConfig(host="localhost", port=0))
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_host_without_an_address_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, "192.0.2.1")
    with pytest.raises(CannotListen, match="cannot listen on localhost:0: Cannot assign"):
        listen(ServerConfig(host="localhost", port=0))


def test_a_name_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CannotListen, match="localhost has no address: Name or service not known"):
        listen(ServerConfig(host="localhost", port=0))


def test_a_taken_port_is_refused_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port}: another program listens there"):
            listen(ServerConfig(port=port))


def test_a_port_that_is_taken_at_one_address_is_had_at_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses(monkeypatch, "127.0.0.2", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match="--port"):
            listen(ServerConfig(host="localhost", port=port))
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.2", port)) == errno.ECONNREFUSED


def addresses(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    def look_up(_: str, port: int, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    ("files", "connections"),
    [
        (64, 16),
        (256, 48),
        (1024, 336),
        (4096, 1872),
        (1 << 20, 16_384),
        (resource.RLIM_INFINITY, 16_384),
    ],
)
def test_as_many_connections_are_taken_as_there_are_files_for(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert most_connections(ServerConfig(), [OPENAI]) == connections
    assert most_connections(ServerConfig(max_connections=7), [OPENAI]) == 7


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
def test_bytes_that_a_client_does_not_take_hold_their_connection_for_a_bounded_time() -> None:
    (sock,) = listen(ServerConfig(port=0, write_timeout_s=0.2))
    with sock, socket.create_connection(sock.getsockname()):
        accepted, _ = sock.accept()
        with accepted:
            accepted.settimeout(10)
            with pytest.raises(TimeoutError) as ended:
                accepted.sendall(b"x" * (64 << 20))  # more than the kernel holds
            assert ended.value.errno == errno.ETIMEDOUT  # the kernel's word, not that of settimeout
