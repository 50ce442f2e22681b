"""Projects, keys and sign-ins in the database: each function is a part of one write transaction.

Invariant: a key is stored as its hash, and its row stays for ever: that one was ever made is what
turns keys on, and revoking the last one lets nobody in. Who is let in by what is access.py's.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.database import Params, Row, Transaction
from storage.grants import ApiKey, Grants, Project, Scope, SignIn
from storage.parameters import clean_text

# What all keys and projects of a server have room for in memory and on a page; a team has dozens.
MAX_PROJECTS: Final = 1_000
MAX_KEYS: Final = 10_000
# Browsers that are signed in with one key; the oldest of more is signed out.
MAX_SIGN_INS: Final = 100


@dataclass(frozen=True, slots=True)
class Conflict:
    """It cannot be, for what is there already; ``reason`` says what. Nothing was written."""

    reason: str


CHANGE: Final = """
UPDATE counters SET value = value + 1 WHERE name = 'grants' RETURNING value
"""


def begin_change(tx: Transaction) -> int:
    """Number a change of who may come in, or with which provider's key; return its number.

    The first statement of its transaction: others change nothing of it until that ends.
    """
    ((number,),) = tx.execute(CHANGE, {})
    return int(number)


NUMBER: Final = "SELECT value FROM counters WHERE name = 'grants'"
PROJECTS: Final = "SELECT id, name, created_at_us, session_budget_nusd FROM projects ORDER BY id"
KEYS: Final = """
SELECT id, project_id, name, scope, sha256, last_four, created_at_us, last_used_at_us,
revoked_at_us, calls_per_minute FROM api_keys ORDER BY id
"""
SIGN_INS: Final = """
SELECT sha256, key_id, project_id, expires_at_us FROM sign_ins ORDER BY expires_at_us
"""


def grants(tx: Transaction) -> Grants:
    """Read all of them."""
    return grants_of(*(tx.execute(sql, {}) for sql in GRANTS))


# Each is one read, without parameters; the number first, so that it is never too high.
GRANTS: Final = (NUMBER, PROJECTS, KEYS, SIGN_INS)


def grants_of(
    number: Sequence[Row], projects: Sequence[Row], keys: Sequence[Row], sign_ins: Sequence[Row]
) -> Grants:
    """Give what the reads of ``GRANTS`` say."""
    return Grants(
        number=number[0][0],
        projects=tuple(
            Project(id=id_, name=name, created_at_us=created, session_budget_nusd=budget)
            for id_, name, created, budget in projects
        ),
        keys=tuple(
            ApiKey(
                id=id_,
                project_id=project_id,
                name=name,
                scope=scope,
                sha256=sha256,
                last_four=last_four,
                created_at_us=created,
                last_used_at_us=used,
                revoked_at_us=revoked,
                calls_per_minute=calls,
            )
            for (
                id_,
                project_id,
                name,
                scope,
                sha256,
                last_four,
                created,
                used,
                revoked,
                calls,
            ) in keys
        ),
        sign_ins=tuple(
            SignIn(sha256=sha256, key_id=key_id, project_id=project_id, expires_at_us=expires)
            for sha256, key_id, project_id, expires in sign_ins
        ),
    )


COUNT_PROJECTS: Final = "SELECT COUNT(*) FROM projects"
FIND_PROJECT: Final = "SELECT id FROM projects WHERE name = :name"
ADD_PROJECT: Final = """
INSERT INTO projects (name, created_at_us) VALUES (:name, :now_us) RETURNING id
"""


def create_project(
    tx: Transaction, name: str, now_us: int, tries: list[int] | None = None
) -> int | Conflict:
    """Make a project; return its id, or why not: the name is taken, or there are too many.

    ``tries`` takes the id of each try of one change; one that was committed after all, though its
    answer was lost, is the project.
    """
    tries = [] if tries is None else tries
    if found := tx.execute(FIND_PROJECT, {"name": name}):
        if found[0][0] in tries:
            return int(found[0][0])
        return Conflict(f"there is a project {name!r} already")
    ((count,),) = tx.execute(COUNT_PROJECTS, {})
    if count >= MAX_PROJECTS:
        return Conflict(f"there are {MAX_PROJECTS} projects; that is as many as there may be")
    ((project_id,),) = tx.execute(ADD_PROJECT, {"name": name, "now_us": now_us})
    tries.append(int(project_id))
    return int(project_id)


SET_BUDGET: Final = """
UPDATE projects SET session_budget_nusd = :budget_nusd WHERE id = :project_id
"""


def set_session_budget(tx: Transaction, project_id: int, budget_nusd: int | None) -> None:
    """Set what a session of the project may cost unless a call says otherwise; None: no limit."""
    tx.execute(SET_BUDGET, {"project_id": project_id, "budget_nusd": budget_nusd})


RENAME: Final = "UPDATE projects SET name = :name WHERE id = :project_id"


def rename_project(tx: Transaction, project_id: int, name: str) -> Conflict | None:
    """Give a project another name, or say that another has it."""
    found = tx.execute(FIND_PROJECT, {"name": name})
    if found and found != [(project_id,)]:
        return Conflict(f"there is a project {name!r} already")
    tx.execute(RENAME, {"project_id": project_id, "name": name})
    return None


KNOWN_KEY: Final = "SELECT id FROM api_keys WHERE sha256 = :sha256"
COUNT_KEYS: Final = "SELECT COUNT(*) FROM api_keys"
ADD_KEY: Final = """
INSERT INTO api_keys (
  project_id, name, scope, sha256, last_four, created_at_us, calls_per_minute
) VALUES (
  :project_id, :name, :scope, :sha256, :last_four, :created_at_us, :calls_per_minute
) RETURNING id
"""


def create_key(
    tx: Transaction,
    *,
    project_id: int,
    name: str,
    scope: Scope,
    sha256: bytes,
    last_four: str,
    now_us: int,
    calls_per_minute: int | None = None,
) -> int | Conflict:
    """Note a new key by its hash; return its id, or why not: there are too many."""
    # A transaction whose connection was lost in its commit is run again, committed or not.
    if known := tx.execute(KNOWN_KEY, {"sha256": sha256}):
        return int(known[0][0])
    ((count,),) = tx.execute(COUNT_KEYS, {})
    if count >= MAX_KEYS:
        return Conflict(
            f"{MAX_KEYS} keys were made, revoked ones included; that is as many as there may be"
        )
    key: Params = {
        "project_id": project_id,
        "name": clean_text(name),
        "scope": scope,
        "sha256": sha256,
        "last_four": last_four,
        "created_at_us": now_us,
        "calls_per_minute": calls_per_minute,
    }
    ((key_id,),) = tx.execute(ADD_KEY, key)
    return int(key_id)


REVOKE: Final = """
UPDATE api_keys SET revoked_at_us = COALESCE(revoked_at_us, :now_us) WHERE id = :key_id
"""
SIGN_OUT_ALL: Final = "DELETE FROM sign_ins WHERE key_id = :key_id"


def revoke_key(tx: Transaction, key_id: int, now_us: int) -> None:
    """Take what a key gave, also from the browsers that it let in; once is for ever."""
    tx.execute(REVOKE, {"key_id": key_id, "now_us": now_us})
    tx.execute(SIGN_OUT_ALL, {"key_id": key_id})


USED: Final = """
UPDATE api_keys SET last_used_at_us = :now_us
WHERE id = :key_id AND (last_used_at_us IS NULL OR last_used_at_us < :now_us)
"""


def note_use(tx: Transaction, key_id: int, now_us: int) -> None:
    """Note that a key was used."""
    tx.execute(USED, {"key_id": key_id, "now_us": now_us})


EXPIRE: Final = "DELETE FROM sign_ins WHERE expires_at_us <= :now_us"
MAKE_ROOM: Final = """
DELETE FROM sign_ins WHERE key_id = :key_id AND sha256 NOT IN (
  SELECT sha256 FROM sign_ins WHERE key_id = :key_id ORDER BY expires_at_us DESC LIMIT :room
)
"""
SIGN_IN: Final = """
INSERT INTO sign_ins (sha256, key_id, project_id, expires_at_us)
VALUES (:sha256, :key_id, :project_id, :expires_at_us)
ON CONFLICT (sha256) DO NOTHING
"""


def sign_in(tx: Transaction, one: SignIn, now_us: int) -> None:
    """Let a browser in, unless an earlier try did, and forget those whose time is over."""
    tx.execute(EXPIRE, {"now_us": now_us})
    tx.execute(MAKE_ROOM, {"key_id": one.key_id, "room": MAX_SIGN_INS - 1})
    tx.execute(
        SIGN_IN,
        {
            "sha256": one.sha256,
            "key_id": one.key_id,
            "project_id": one.project_id,
            "expires_at_us": one.expires_at_us,
        },
    )


SIGN_OUT: Final = "DELETE FROM sign_ins WHERE sha256 = :sha256"


def sign_out(tx: Transaction, sha256: bytes) -> None:
    """Forget a browser."""
    tx.execute(SIGN_OUT, {"sha256": sha256})


SWITCH: Final = "UPDATE sign_ins SET project_id = :project_id WHERE sha256 = :sha256"


def switch_project(tx: Transaction, sha256: bytes, project_id: int) -> None:
    """Have a browser look at another project."""
    tx.execute(SWITCH, {"sha256": sha256, "project_id": project_id})


SIGN_ALL_OUT: Final = "DELETE FROM sign_ins RETURNING key_id"
KEY_IDS: Final = "SELECT id FROM api_keys"
ADD_LOST_KEY: Final = """
INSERT INTO api_keys (
  id, project_id, name, scope, sha256, last_four, created_at_us, revoked_at_us
) VALUES (
  :id, 1, 'lost with damage', 'read', :sha256, '????', :now_us, :now_us
)
"""


def make_up_for_lost_keys(tx: Transaction, now_us: int, *, are_lost: bool) -> int:
    """Have keys be needed as before, though some may be lost; return how many are signed out.

    One that is revoked stands for those that are lost. Its id is above all that were given, so that
    none is given twice; and since they name keys by id, sign-ins end.
    """
    signed_in = [key_id for (key_id,) in tx.execute(SIGN_ALL_OUT, {})]
    known = {key_id for (key_id,) in tx.execute(KEY_IDS, {})}
    if are_lost or not known.issuperset(signed_in):
        # There are never more keys, and before the first such row their ids have no gaps.
        highest = max((MAX_KEYS, *known, *signed_in))
        row: Params = {"id": highest + 1, "sha256": secrets.token_bytes(32), "now_us": now_us}
        tx.execute(ADD_LOST_KEY, row)
    return len(signed_in)
