"""The cache of beginnings: what is found, for whom, and how much it holds."""

import gc
import hashlib

import msgspec
import pytest

from proxy import prefixes
from proxy.prefixes import Head, Owner, Prefix, Prefixes
from proxy.providers.openai import operation_of
from storage.chain import Point

CHAT = operation_of("POST", "/v1/chat/completions")
RESPONSES = operation_of("POST", "/v1/responses")
OWNER = Owner(1, b"caller", "session", CHAT)
SECRET = b"sk-canary-0123456789"


def a_prefix(data: bytes, *clean: bytes, points: int = 0) -> Prefix:
    return Prefix(
        body=data,
        end=len(data),
        opened=0,
        sha256=hashlib.sha256(data),
        clean=clean,
        head=Head(points=(Point(b"m", 0, True),) * points),
    )


def test_the_longest_beginning_is_found_and_only_where_it_is_one() -> None:
    cache = Prefixes()
    short, long, other = a_prefix(b"ab"), a_prefix(b"abcd"), a_prefix(b"abX")
    for prefix in (short, long, other):
        cache.put(OWNER, prefix)
    assert cache.find(OWNER, b"abcde", ()) is long
    assert cache.find(OWNER, b"abcd", ()) is long
    assert cache.find(OWNER, b"abc", ()) is short
    assert cache.find(OWNER, b"xab", ()) is None


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(OWNER, project_id=2),
        msgspec.structs.replace(OWNER, caller=None),
        msgspec.structs.replace(OWNER, session_id=""),
        msgspec.structs.replace(OWNER, operation=RESPONSES),
    ],
)
def test_nothing_is_taken_over_from_another_owner(other: Owner) -> None:
    cache = Prefixes()
    cache.put(OWNER, a_prefix(b"ab"))
    assert cache.find(other, b"abc", ()) is None


def test_a_prefix_stands_in_place_of_the_one_that_it_goes_on_from() -> None:
    cache = Prefixes()
    first, second = a_prefix(b"ab"), a_prefix(b"abcd")
    cache.put(OWNER, first)
    cache.put(OWNER, second, first)
    assert cache.find(OWNER, b"abX", ()) is None
    assert cache.held_bytes == second.weight


def test_what_is_new_must_hold_no_secret() -> None:
    cache = Prefixes()
    known = b"[known " + SECRET[:9]
    cache.put(OWNER, a_prefix(known, SECRET))
    assert cache.find(OWNER, known + b" and new", [SECRET]) is not None
    assert cache.find(OWNER, known + b" and " + SECRET, [SECRET]) is None
    assert cache.find(OWNER, known + SECRET[9:], [SECRET]) is None
    assert cache.find(OWNER, known + b" and tw_sk_123", []) is None


def test_a_key_of_ours_that_begins_in_what_is_known_is_found() -> None:
    cache = Prefixes()
    cache.put(OWNER, a_prefix(b"known tw_sk"))
    assert cache.find(OWNER, b"known tw_sk_1234", []) is None


def test_a_secret_that_the_last_call_did_not_have_is_looked_for_in_all() -> None:
    cache = Prefixes()
    cache.put(OWNER, a_prefix(b"known " + SECRET + b"!"))
    assert cache.find(OWNER, b"known " + SECRET + b"! and new", [SECRET]) is None
    assert cache.find(OWNER, b"known " + SECRET + b"! and new", [b"another-secret"]) is not None


def test_the_bytes_held_are_bounded_and_who_was_longest_without_a_call_goes_first() -> None:
    one = a_prefix(b"x" * 1000, points=3)
    cache = Prefixes(max_bytes=3 * one.weight)
    owners = [msgspec.structs.replace(OWNER, session_id=str(n)) for n in range(4)]
    for owner in owners[:3]:
        cache.put(owner, a_prefix(b"x" * 1000, points=3))
    cache.put(owners[0], one, cache.find(owners[0], b"x" * 1000, ()))
    cache.put(owners[3], a_prefix(b"x" * 1000, points=3))
    found = [cache.find(owner, b"x" * 1000, ()) is not None for owner in owners]
    assert found == [True, False, True, True]
    assert cache.held_bytes == 3 * one.weight
    assert one.weight > 1000


def test_a_view_weighs_as_much_as_the_body_that_it_keeps() -> None:
    body = b"x" * 5000
    whole, part = a_prefix(body), a_prefix(b"")
    view = msgspec.structs.replace(whole, end=10)
    assert bytes(view.data) == body[:10]
    assert view.weight == whole.weight == part.weight + 5000


def test_what_is_kept_does_not_keep_the_garbage_collector_busy() -> None:
    cache = Prefixes()
    gc.collect()
    before = len(gc.get_objects())
    for n in range(1000):
        owner = Owner(1, b"caller", f"session {n}", CHAT)
        cache.put(owner, a_prefix(b"%04d" % n, b"secret", points=3))
    gc.collect()
    # The list of an owner's, and nothing of what is in it.
    assert len(gc.get_objects()) - before < 1100


def test_one_larger_than_all_room_is_not_kept() -> None:
    cache = Prefixes(max_bytes=2000)
    cache.put(OWNER, a_prefix(b"x" * 5000))
    assert cache.find(OWNER, b"x" * 5000, ()) is None
    assert cache.held_bytes == 0


def test_of_one_caller_so_many_conversations_are_known_at_once() -> None:
    cache = Prefixes()
    for n in range(prefixes.MAX_OF_ONE_CALLER + 1):
        cache.put(OWNER, a_prefix(b"%04d" % n))
    assert cache.find(OWNER, b"0000", ()) is None
    assert cache.find(OWNER, b"0001", ()) is not None
    assert cache.held_bytes == prefixes.MAX_OF_ONE_CALLER * a_prefix(b"0000").weight


def test_when_it_is_cleared_nothing_is_known() -> None:
    cache = Prefixes()
    cache.put(OWNER, a_prefix(b"ab"))
    cache.clear()
    assert cache.find(OWNER, b"ab", ()) is None
    assert cache.held_bytes == 0
