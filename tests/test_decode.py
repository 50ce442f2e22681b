"""Decoding a copy of a compressed body: every coding, cut anywhere, and bombs."""

import gzip
import random
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from proxy.decode import MAX_MEMBERS, PIECE_BYTES, decode, decoder

TEXT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n' * 40


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": (" X-GZip ", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", lambda data: brotli.compress(data, quality=1)),
    "zstd": ("zstd", zstandard.compress),
}
each = pytest.mark.parametrize("name", CODINGS)


def fed(coding: str, pieces: list[bytes], limit_bytes: int = 1 << 30) -> bytes:
    chosen = decoder(coding, limit_bytes)
    assert chosen is not None
    return b"".join(plain for piece in pieces for plain in chosen.feed(piece))


@each
def test_a_body_is_decoded_however_it_is_cut_in_two(name: str) -> None:
    coding, pack = CODINGS[name]
    packed = pack(TEXT)
    for at in range(len(packed) + 1):
        assert fed(coding, [packed[:at], packed[at:]]) == TEXT, at


@each
def test_a_body_is_decoded_byte_by_byte(name: str) -> None:
    coding, pack = CODINGS[name]
    assert fed(coding, [bytes([byte]) for byte in pack(TEXT)]) == TEXT


@each
def test_bodies_larger_than_a_piece_come_out_whole(name: str) -> None:
    coding, pack = CODINGS[name]
    source = random.Random(name)  # noqa: S311 (data, not secrets)
    for size in (PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES):
        for data in (b"a" * size, source.randbytes(size), source.randbytes(size // 8) * 8):
            assert decode(pack(data), coding, 1 << 30) == (data, True)


@each
def test_what_is_left_when_a_piece_is_full_and_all_input_taken_comes_out_too(name: str) -> None:
    coding, pack = CODINGS[name]
    for size in range(PIECE_BYTES, PIECE_BYTES + 600, 20):
        assert len(decode(pack(b"a" * size), coding, 1 << 30)[0]) == size


@each
def test_what_came_of_a_cut_body_is_decoded_as_far_as_it_goes(name: str) -> None:
    coding, pack = CODINGS[name]
    data = random.Random(1).randbytes(300_000)  # noqa: S311 (data, not secrets)
    plain, _ = decode(pack(data)[:200_000], coding, 1 << 30)
    assert data.startswith(plain)
    assert len(plain) > 60_000


@each
def test_a_bomb_stops_at_the_limit_and_never_holds_more_than_a_bounded_piece(name: str) -> None:
    coding, pack = CODINGS[name]
    bomb = decoder(coding, 4 << 20)
    assert bomb is not None
    sizes = [len(piece) for piece in bomb.feed(pack(bytes(64 << 20)))]
    assert sum(sizes) <= 4 << 20
    assert max(sizes) <= 2 << 20
    assert bomb.failed
    assert list(bomb.feed(b"more")) == []


@each
def test_what_is_not_in_its_coding_fails_and_raises_nothing(name: str) -> None:
    coding, _ = CODINGS[name]
    assert decode(b"<html>not compressed</html>", coding, 1 << 20) == (b"", False)


@each
def test_random_bytes_raise_nothing(name: str) -> None:
    coding, pack = CODINGS[name]
    source = random.Random(name)  # noqa: S311 (data, not secrets)
    packed = pack(TEXT)
    for _ in range(300):
        broken = bytearray(packed)
        broken[source.randrange(len(broken))] ^= 1 << source.randrange(8)
        decode(bytes(broken), coding, 1 << 20)
        decode(source.randbytes(50), coding, 1 << 20)


def test_several_members_and_frames_are_one_body() -> None:
    assert decode(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 100) == (b"ab", True)
    assert decode(zstandard.compress(b"a") + zstandard.compress(b"b"), "zstd", 100) == (b"ab", True)


def test_more_members_than_any_server_writes_are_not_read() -> None:
    member = gzip.compress(b"a")
    assert decode(member * MAX_MEMBERS, "gzip", 1 << 20) == (b"a" * MAX_MEMBERS, True)
    one_more = decoder("gzip", 1 << 20, MAX_MEMBERS + 1)
    assert one_more is not None
    assert len(b"".join(one_more.feed(member * (MAX_MEMBERS + 1)))) == MAX_MEMBERS + 1
    assert decode(member * (MAX_MEMBERS + 1), "gzip", 1 << 20) == (b"a" * MAX_MEMBERS, False)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_zlib_never_has_more_left_to_copy_than_a_step(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    class Watched:
        def __init__(self, wbits: int) -> None:
            self.real = zlib_decompressobj(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            piece = self.real.decompress(data, most)
            left.append(len(self.real.unused_data) + len(self.real.unconsumed_tail))
            return piece

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    zlib_decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    pack = gzip.compress if coding == "gzip" else zlib.compress
    for body in (pack(b"") * 900, pack(bytes(64 << 20))):
        decode(body, coding, 1 << 30)
    assert 0 < max(left) <= 4096


def test_a_body_without_a_coding_is_given_as_it_is() -> None:
    assert decoder("", 10) is None
    assert decode(b"plain", " Identity ", 1) == (b"plain", True)


@pytest.mark.parametrize("coding", ["compress", "gzip, br", "nonsense"])
def test_a_coding_that_is_not_known_has_failed_already(coding: str) -> None:
    unknown = decoder(coding, 100)
    assert unknown is not None
    assert unknown.failed
    assert decode(b"anything", coding, 100) == (b"", False)


def test_what_is_too_much_is_told_from_what_is_broken() -> None:
    large, broken = decoder("gzip", 10), decoder("gzip", 10)
    assert large is not None
    assert broken is not None
    list(large.feed(gzip.compress(b"x" * 11)))
    list(broken.feed(b"no gzip at all"))
    assert [(one.failed, one.overflowed) for one in (large, broken)] == [
        (True, True),
        (True, False),
    ]
