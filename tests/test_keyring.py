"""What a server knows of who may come in: at once what was written, and nothing else."""

import secrets
from dataclasses import replace

import pytest

from proxy.keyring import KEY_PREFIX, AuthMode, Keyring, hashed, new_secret
from storage.grants import ApiKey, Grants, Project, SignIn

MINUTE_US = 60_000_000
DEFAULT = Project(id=1, name="default", created_at_us=0)
OTHER = Project(id=2, name="other", created_at_us=0)
SECRET = new_secret(KEY_PREFIX)
KEY = ApiKey(
    id=7,
    project_id=2,
    name="k",
    scope="read",
    sha256=hashed(SECRET),
    last_four=SECRET[-4:],
    created_at_us=0,
)
SIGN_IN = SignIn(sha256=hashed("cookie"), key_id=7, project_id=2, expires_at_us=100)


def grants(*keys: ApiKey, sign_ins: tuple[SignIn, ...] = ()) -> Grants:
    return Grants(projects=(DEFAULT, OTHER), keys=keys, sign_ins=sign_ins)


def keyring(*keys: ApiKey, sign_ins: tuple[SignIn, ...] = (), mode: AuthMode = "auto") -> Keyring:
    return Keyring(mode, grants(*keys, sign_ins=sign_ins))


def test_a_secret_has_256_random_bits_and_is_known_by_all_of_them() -> None:
    made = {new_secret(KEY_PREFIX) for _ in range(100)}
    assert len(made) == 100
    assert {len(one) for one in made} == {len(KEY_PREFIX) + len(secrets.token_urlsafe(32))}
    assert all(one.startswith("tw_sk_") for one in made)
    assert len(hashed(SECRET)) == 32


@pytest.mark.parametrize("text", ["", "\udcff\ud800", "\0", "ключ", "a" * 100_000])
def test_any_text_has_a_hash(text: str) -> None:
    assert keyring(KEY).key(text) is None
    assert keyring(KEY).sign_in(text, 0) is None


def test_a_key_is_found_by_the_whole_of_it_alone() -> None:
    ring = keyring(KEY)
    assert ring.key(SECRET) == KEY
    for other in (SECRET[:-1], SECRET + "a", SECRET.swapcase(), hashed(SECRET).hex(), "7", "k"):
        assert ring.key(other) is None


@pytest.mark.parametrize(
    ("mode", "keys", "on"),
    [
        ("auto", (), False),
        ("auto", (KEY,), True),
        ("auto", (replace(KEY, revoked_at_us=1),), True),
        ("keys", (), True),
        ("off", (KEY,), False),
    ],
)
def test_keys_are_on_once_one_was_made(mode: AuthMode, keys: tuple[ApiKey, ...], on: bool) -> None:
    assert keyring(*keys, mode=mode).keys_are_on is on


def test_what_is_held_anew_is_all_that_is_known() -> None:
    ring = keyring(KEY, sign_ins=(SIGN_IN,))
    assert ring.is_good(KEY)
    assert ring.sign_in("cookie", 0) == (SIGN_IN, KEY)
    revoked = replace(KEY, revoked_at_us=1)
    ring.hold(grants(revoked, sign_ins=(SIGN_IN,)))
    assert ring.key(SECRET) is None
    assert not ring.is_good(KEY)
    assert ring.key_by_id(7) == revoked
    assert ring.sign_in("cookie", 0) is None
    assert not ring.is_signed_in(SIGN_IN, 0)
    ring.hold(Grants(projects=(DEFAULT,)))
    assert (ring.keys, ring.projects, ring.project(2), ring.project_named("other")) == (
        (),
        (DEFAULT,),
        None,
        None,
    )


def test_a_browser_is_in_until_its_time_is_over_or_it_signed_out() -> None:
    ring = keyring(KEY, sign_ins=(SIGN_IN,))
    assert ring.is_signed_in(SIGN_IN, 99)
    assert ring.sign_in("cookie", 99) == (SIGN_IN, KEY)
    assert not ring.is_signed_in(SIGN_IN, 100)
    assert ring.sign_in("cookie", 100) is None
    ring.hold(grants(KEY))
    assert not ring.is_signed_in(SIGN_IN, 0)
    ring.hold(grants(sign_ins=(SIGN_IN,)))  # of a key that nobody knows
    assert not ring.is_signed_in(SIGN_IN, 0)


def test_projects_are_found_by_id_and_by_name() -> None:
    ring = keyring()
    assert (ring.project(2), ring.project_named("other"), ring.default_project) == (
        OTHER,
        OTHER,
        DEFAULT,
    )
    assert (ring.project(3), ring.project_named("Other"), ring.project_named("")) == (None,) * 3
    ring.hold(Grants(projects=(replace(DEFAULT, name="first"), OTHER)))
    assert ring.project_named("default") is None
    assert ring.default_project.name == "first"


def test_a_use_is_to_be_written_down_once_a_minute() -> None:
    ring = keyring(KEY)
    assert ring.used(KEY, 1_000)
    assert not ring.used(KEY, 1_000 + MINUTE_US - 1)
    assert ring.used(KEY, 1_000 + MINUTE_US)
    found = ring.key_by_id(7)
    assert found is not None
    assert found.last_used_at_us == 1_000 + MINUTE_US
    assert ring.key(SECRET) == found


def test_a_use_that_is_not_written_yet_is_not_forgotten() -> None:
    ring = keyring(KEY)
    ring.used(KEY, 5_000)
    ring.hold(grants(KEY))
    assert ring.keys[0].last_used_at_us == 5_000
    ring.hold(grants(replace(KEY, last_used_at_us=4_000)))
    assert ring.keys[0].last_used_at_us == 5_000
    ring.hold(grants(replace(KEY, last_used_at_us=6_000)))
    assert ring.keys[0].last_used_at_us == 6_000


def test_no_secret_is_in_what_is_printed() -> None:
    ring = keyring(KEY, sign_ins=(SIGN_IN,))
    shown = f"{ring.keys!r} {SIGN_IN!r} {grants(KEY, sign_ins=(SIGN_IN,))!r} {vars(ring)!r}"
    assert SECRET not in shown
    assert KEY.sha256.hex() not in f"{KEY!r}{SIGN_IN!r}"
    assert repr(KEY.sha256) not in f"{KEY!r}{SIGN_IN!r}"


def test_an_older_state_does_not_replace_a_newer() -> None:
    ring = keyring(KEY)
    ring.hold(replace(grants(replace(KEY, revoked_at_us=1)), number=2))
    ring.hold(replace(grants(KEY), number=1))
    assert not ring.is_good(KEY)
    ring.hold(replace(grants(KEY), number=2))
    assert ring.is_good(KEY)
