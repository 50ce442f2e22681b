"""With which key a project calls an upstream, where it comes from, and that nobody sees it."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import vault
from proxy.sealing import KeyFile, KeyFileError
from proxy.vault import BadKey, ProviderKey, Vault
from storage.grants import Project, SealedKey

KEY = "sk-proj-0123456789abcdef"
OTHER = "sk-other-0123456789abcdef"
A = Project(id=1, name="team-a", created_at_us=0)
B = Project(id=2, name="team-b", created_at_us=0)
NAMES = ("openai", "my-own")


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "traceway.db.key")


def a_vault(key_file: KeyFile, upstreams: tuple[str, ...] = NAMES, **environ: str) -> Vault:
    named = {f"TRACEWAY_PROVIDER_KEY_{name}": key for name, key in environ.items()}
    return Vault(named, upstreams, key_file)


def store(held: Vault, project: Project, upstream: str, key: str) -> SealedKey:
    sealed = held.seal(project.id, upstream, key, now_us=7)
    held.keep(sealed, key)
    return sealed


def test_a_project_without_a_key_has_none(key_file: KeyFile) -> None:
    assert a_vault(key_file).key(A, "openai") is None


def test_the_stored_key_wins_over_the_environments_and_the_projects_over_that_of_all(
    key_file: KeyFile,
) -> None:
    held = a_vault(key_file, OPENAI="of-all-of-them-1", OPENAI__TEAM_A="of-team-a-alone-1")
    assert held.key(A, "openai") == "of-team-a-alone-1"
    assert held.key(B, "openai") == "of-all-of-them-1"
    assert held.key(A, "my-own") is None
    store(held, A, "openai", KEY)
    assert (held.key(A, "openai"), held.key(B, "openai")) == (KEY, "of-all-of-them-1")
    held.forget(1, "openai")
    assert held.key(A, "openai") == "of-team-a-alone-1"


def test_names_are_written_in_upper_case_with_underscores(key_file: KeyFile) -> None:
    held = a_vault(key_file, MY_OWN="of-all-of-them-1", MY_OWN__TEAM_B="of-team-b-alone-1")
    assert held.key(A, "my-own") == "of-all-of-them-1"
    assert held.key(B, "my-own") == "of-team-b-alone-1"


@pytest.mark.parametrize(
    ("upstream", "project"), [("openai--team", "a"), ("openai__team-a", None), ("openai_", "a")]
)
def test_no_variable_can_be_read_in_two_ways(
    key_file: KeyFile, upstream: str, project: str | None
) -> None:
    assert vault.variable(upstream, project) is None
    names = ("openai", upstream)
    held = a_vault(key_file, names, OPENAI__TEAM_A="of-team-a-alone-1", OPENAI___A="x-123456789")
    assert held.key(A, upstream) is None
    assert held.key(replace(A, name="a"), upstream) is None
    assert held.key(A, "openai") == "of-team-a-alone-1"


def test_an_empty_variable_is_none(key_file: KeyFile) -> None:
    assert a_vault(key_file, OPENAI="").key(A, "openai") is None


def test_a_variable_of_no_upstream_is_logged_without_its_key(
    key_file: KeyFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    a_vault(key_file, OPENIA=KEY, OPENAI=OTHER, MY_OWN__ANYBODY=OTHER)
    (record,) = caplog.records
    assert record.getMessage() == (
        "TRACEWAY_PROVIDER_KEY_OPENIA is of no upstream that is configured: expected"
        " TRACEWAY_PROVIDER_KEY_MY_OWN, TRACEWAY_PROVIDER_KEY_OPENAI"
    )


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("sk-12", "has 8 to 4096 printable"),
        ("s1" * 2049, "has 8 to 4096 printable"),
        ("sk-0123 456789", "no white space"),
        ("sk-0123456789\n", "no white space"),
        ("sk-0123456789é", "printable characters of ASCII"),
        ("tw_sk_0123456789", "tw_sk_ keys are our own"),
        ("Bearer-tw_sk_01", "tw_sk_ keys are our own"),
        ("anything", "may be an ordinary word"),
        ("a-long-password", "may be an ordinary word"),
    ],
)
def test_what_cannot_be_a_key_is_refused_without_being_quoted(
    key_file: KeyFile, key: str, why: str
) -> None:
    with pytest.raises(BadKey) as raised:
        vault.checked(key)
    assert why in str(raised.value)
    with pytest.raises(BadKey) as of_environment:
        a_vault(key_file, OPENAI=key)
    said = str(of_environment.value)
    assert said == f"TRACEWAY_PROVIDER_KEY_OPENAI (environment): {raised.value}"
    assert key not in said


@pytest.mark.parametrize("key", ["anything1", "s" * 16, "a1" * 2048, "!\"#$%&'()*+,-./0~"])
def test_what_can_be_a_key_is_taken_as_it_is(key: str) -> None:
    assert vault.checked(key) == key


def test_stored_keys_are_there_after_a_restart(key_file: KeyFile) -> None:
    held = a_vault(key_file)
    stored = [store(held, A, "openai", KEY), store(held, B, "openai", OTHER)]
    assert not any(KEY.encode() in one.sealed for one in stored)
    again = a_vault(KeyFile(key_file.path))
    again.load(stored)
    assert (again.key(A, "openai"), again.key(B, "openai")) == (KEY, OTHER)
    assert again.key(A, "my-own") is None


@pytest.mark.parametrize("change", [{"project_id": 2}, {"upstream": "my-own"}, {"sealed": b"\x01"}])
def test_a_row_that_was_moved_or_changed_is_refused(
    key_file: KeyFile, change: dict[str, object]
) -> None:
    sealed = store(a_vault(key_file), A, "openai", KEY)
    again = a_vault(KeyFile(key_file.path))
    with pytest.raises(KeyFileError, match="does not open"):
        again.load([replace(sealed, **change)])  # type: ignore[arg-type]
    assert again.key(A, "openai") is None


def test_stored_keys_without_their_file_are_refused_and_no_new_one_is_made(
    key_file: KeyFile,
) -> None:
    held = a_vault(key_file)
    sealed = store(held, A, "openai", KEY)
    key_file.path.unlink()
    with pytest.raises(KeyFileError, match="it is not there"):
        a_vault(KeyFile(key_file.path)).load([sealed])
    with pytest.raises(KeyFileError, match="it is not there"):
        held.seal(1, "my-own", OTHER, now_us=8)
    assert not key_file.path.exists()


def test_without_stored_keys_no_file_is_needed_and_none_is_made(key_file: KeyFile) -> None:
    held = a_vault(key_file, OPENAI=KEY)
    held.load([])
    assert held.key(A, "openai") == KEY
    assert not key_file.path.exists()


def test_a_list_shows_where_keys_come_from_and_their_last_four_characters(
    key_file: KeyFile,
) -> None:
    held = a_vault(key_file, OPENAI=OTHER, MY_OWN="short-1234567")
    store(held, A, "openai", KEY)
    store(held, A, "gone", KEY)
    assert held.shown(A) == [
        ProviderKey(upstream="gone", source="stored", last_four="cdef", created_at_us=7),
        ProviderKey(upstream="my-own", source="environment", last_four=""),
        ProviderKey(upstream="openai", source="stored", last_four="cdef", created_at_us=7),
    ]
    assert [one.source for one in held.shown(B)] == ["environment", "environment"]


async def test_a_key_is_looked_up_on_the_loop_without_reading_a_file(key_file: KeyFile) -> None:
    held = a_vault(key_file)
    await asyncio.to_thread(store, held, A, "openai", KEY)
    key_file.path.unlink()
    assert held.key(A, "openai") == KEY


def test_nothing_shows_a_key(key_file: KeyFile) -> None:
    held = a_vault(key_file, OPENAI=OTHER)
    store(held, A, "openai", KEY)
    shown = repr(held) + repr(held.shown(A)) + repr(list(held._stored.values()))
    assert KEY not in shown
    assert OTHER not in shown


def test_an_older_state_does_not_replace_a_newer_and_what_is_gone_is_not_used(
    key_file: KeyFile,
) -> None:
    held = a_vault(key_file)
    old = store(held, A, "openai", "sk-old-0123456789abcdef")
    new = store(held, A, "openai", "sk-new-0123456789abcdef")
    held.load([new], 3)
    held.load([old], 2)
    assert held.key(A, "openai") == "sk-new-0123456789abcdef"
    held.forget(A.id, "openai", 5)
    held.load([new], 4)
    assert held.key(A, "openai") is None
    held.load([], 6)
    assert held.number == 6


def test_one_that_cannot_be_opened_here_leaves_the_others_in_use_and_no_key_file_is_made(
    key_file: KeyFile, tmp_path: Path
) -> None:
    good = store(a_vault(key_file), A, "openai", "sk-old-0123456789abcdef")
    other = store(a_vault(KeyFile(tmp_path / "b")), B, "openai", "sk-new-0123456789abcdef")
    held = a_vault(key_file)
    with pytest.raises(KeyFileError):
        held.load([good, other], 1)
    assert held.key(A, "openai") == "sk-old-0123456789abcdef"
    assert held.key(B, "openai") is None
    elsewhere = a_vault(KeyFile(tmp_path / "c"))
    with pytest.raises(KeyFileError):
        elsewhere.load([good], 1)
    with pytest.raises(KeyFileError):
        elsewhere.seal(A.id, "openai", "sk-new-0123456789abcdef", 0)
    assert not (tmp_path / "c").exists()
