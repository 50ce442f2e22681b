"""The servers that share a database: what each must hear of the others, and which does what alone.

Owns how soon that is: what another server committed is told to those who watch, a key that another
server revoked lets nobody in, within ``LOOK_S``, and at once where its word arrives. Invariants:
while the database is away, what is known goes on being used, and health says since when; only the
server that leads prunes, sends on and judges, and it no longer leads from the moment on in which it
knows that its connection is lost. A server that was held for dead loses nothing by it
(storage/owners.py). With SQLite there is none of this.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Final

from proxy.api.hubs import Hubs
from proxy.api.stored_tickets import StoredTickets
from proxy.api.units import iso
from proxy.keyring import Keyring
from proxy.recorder import Recorder
from proxy.sealing import KeyFileError
from proxy.tasks import spawn
from proxy.vault import Vault
from storage import owners
from storage.database import Database, StorageError, Transaction
from storage.owners import DEAD_S
from storage.peer import EVENTS, GRANTS, Peer

# What others did is looked for so often, also where nobody tells: words get lost with connections.
LOOK_S: Final = 1.0
# Signs of life, and tries to lead: a third of what a server is held for dead after.
BEAT_S: Final = 10.0
# Others are told at most so often, and pages look no more often than that.
TELL_S: Final = 0.050
SIZE_S: Final = 60.0
# A lost connection is tried again after this long, doubling up to the second figure.
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 5.0

_log = logging.getLogger("traceway")


class Replicas:
    """A server's part in it. Lives on the event loop; any thread may call ``after_commit``.

    ``away_since_us`` is when the database was lost, by our clock; None while it is there.
    ``database_bytes`` is its size as of the last minute, None where nobody knows.
    """

    def __init__(
        self,
        peer: Peer,
        database: Database,
        recorder: Recorder,
        keyring: Keyring,
        vault: Vault,
        hubs: Hubs,
        *,
        is_command: bool,
    ) -> None:
        self.away_since_us: int | None = None
        self.database_bytes: int | None = None
        self._peer = peer
        self._database = database
        self._recorder = recorder
        self._keyring = keyring
        self._vault = vault
        self._hubs = hubs
        self._is_command = is_command
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._has_committed = self._has_granted = self._is_granted = False
        self._leads = False
        self._lives_since_s: float | None = None
        self._clock_ahead_s: float | None = None  # the database's, of ours that never jumps
        self._beat_s = self._look_s = self._size_s = -LOOK_S
        self._looking = asyncio.Lock()
        self._looked_s = 0.0
        self._event: int | None = None
        self._started: str | None = None
        self._trouble: str | None = None
        self._unopened: str | None = None
        self._oldest_id: int | None = None
        self._tasks: Sequence[asyncio.Task[None]] = ()
        self.tickets = StoredTickets(database, recorder, keyring, self.look_again)

    def leads(self) -> bool:
        """Tell whether this is the server that does what only one may do."""
        return self._leads and not any(task.done() for task in self._tasks)

    def reasons(self) -> list[str]:
        """Say in sentences what is not as it should be; empty when all is."""
        found = []
        if self.away_since_us is not None:
            found.append(
                f"the database has been away since {iso(self.away_since_us)}: {self._trouble}"
            )
        if any(task.done() for task in self._tasks):
            found.append("nothing is heard of other servers, for a bug: restart this one")
        if self._unopened is not None:
            found.append(f"a stored provider key cannot be used here: {self._unopened}")
        return found

    def after_commit(self) -> None:
        """Take note that something was committed here, which others want to know."""
        self._hubs.told()
        if not self._has_committed:
            self._has_committed = True
            self._loop.call_soon_threadsafe(self._wake.set)

    def granted(self) -> None:
        """Take note that who may come in was changed here."""
        self._has_granted = True
        self._wake.set()

    async def look_again(self) -> None:
        """See what the others changed of who may come in, before somebody is refused.

        A browser that was signed in at another server a moment ago may be faster than the word of
        it. Many who ask at once cost one look.
        """
        asked_s = time.monotonic()
        async with self._looking:
            if self._looked_s > asked_s or self.away_since_us is not None:
                return
            self._looked_s = time.monotonic()
            with contextlib.suppress(StorageError):  # `run` will see it too
                await self._look()

    async def join(self) -> None:
        """Be one of those that share the database.

        Raises:
            StorageError: it cannot be reached.
        """
        started = await self._peer.join(self._told)
        now_s = time.monotonic()
        self._beat_s = now_s
        self._lives_since_s = now_s
        given = self._hubs.newest  # before the look: more may be read meanwhile
        seen = await self._peer.look()
        is_another = self._started is not None and started != self._started
        if is_another or seen.event < given:  # it lost its last commits, or may have
            self._hubs.begin_anew(seen.event)
        self._started, self._event = started, seen.event
        self._leads = False
        self._leads = await self._may_lead()
        self._is_granted = True
        if self.away_since_us is not None:
            _log.warning("the database is back; it was away since %s", iso(self.away_since_us))
            self._hubs.told()
        self.away_since_us = self._trouble = None

    def begin(self) -> Sequence[asyncio.Task[None]]:
        """Do all of it from now on, after `join`; give what to cancel at the end."""
        self._tasks = (
            spawn(self.run(), "replicas"),
            spawn(self.tidy_forever(), "what dead replicas left"),
        )
        return self._tasks

    async def run(self) -> None:
        """Hear of the others and have them hear of us, for ever; after `join`."""
        pause_s = RETRY_S
        while True:
            try:
                if self.away_since_us is not None:
                    await self.join()
                    pause_s = RETRY_S
                await self._turn()
            except StorageError as error:
                self._lost(error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def tidy_forever(self) -> None:
        """End what dead servers left, and put into full text what they did not; where it leads."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._tidy()
            except StorageError:
                continue  # the next time

    async def leave(self) -> None:
        """Be none of them any more."""
        self._leads = False
        await self._peer.leave()

    def _told(self, channel: str) -> None:
        if channel == EVENTS:
            self._hubs.told()
        else:
            self._is_granted = True
            self._wake.set()

    def _lost(self, error: StorageError) -> None:
        self._leads = False
        self._lives_since_s = None
        self._trouble = str(error)
        if self.away_since_us is None:
            self.away_since_us = time.time_ns() // 1000
            _log.error("the database is away; calls go on: %s", error)

    async def _turn(self) -> None:
        """Wait until there is something to do, or time to look, and do it."""
        try:
            async with asyncio.timeout_at(self._loop.time() + self._rest_s()):
                await self._wake.wait()
        except TimeoutError:
            pass  # time to look
        self._wake.clear()
        if self._has_granted:
            self._has_granted = False
            await self._peer.tell(GRANTS)
        if self._has_committed:
            self._has_committed = False
            await self._peer.tell(EVENTS)
        now_s = time.monotonic()
        if now_s - self._beat_s >= BEAT_S:
            await self._beat(now_s)
        if self._is_granted or now_s - self._look_s >= LOOK_S:
            self._look_s = now_s
            await self._look()
        if now_s - self._size_s >= SIZE_S:
            self._size_s = now_s
            self.database_bytes = await self._peer.database_bytes()
        await asyncio.sleep(TELL_S)

    def _rest_s(self) -> float:
        return max(self._look_s + LOOK_S - time.monotonic(), 0)

    async def _beat(self, now_s: float) -> None:
        ahead_s = await self._peer.beat() - time.monotonic()
        was_s = ahead_s if self._clock_ahead_s is None else self._clock_ahead_s
        self._clock_ahead_s = ahead_s
        # Where the clock was set, or the host slept, all have been silent for as long.
        has_jumped = abs(ahead_s - was_s) > BEAT_S
        if has_jumped or now_s - self._beat_s > 2 * BEAT_S or self._lives_since_s is None:
            self._lives_since_s = now_s
        self._beat_s = now_s
        self._leads = await self._may_lead()
        self._is_granted |= self._unopened is not None  # the right key file may be there now

    async def _may_lead(self) -> bool:
        """Lead if nobody else does. A command makes way for servers, which do more."""
        if self._is_command and await self._peer.has_others():
            if self._leads:
                self._leads = False
                await self._peer.resign()
            return False
        return self._leads or await self._peer.lead()

    async def _look(self) -> None:
        seen = await self._peer.look()
        if self._event is not None and seen.event < self._event:
            self._hubs.begin_anew(seen.event)
        elif seen.event != self._event:
            self._hubs.told()
        self._event = seen.event
        known = min(self._keyring.number, self._vault.number)
        if seen.grants < known:  # the database lost what it had committed
            self._keyring.number = self._vault.number = 0
        if self._is_granted or seen.grants != known:
            self._is_granted = False
            await self._read_grants()

    async def _read_grants(self) -> None:
        grants, sealed = await self._peer.grants()
        self._keyring.hold(grants)
        self._unopened = None
        try:
            await asyncio.to_thread(self._vault.load, sealed, grants.number)
        except KeyFileError as error:
            self._unopened = str(error)

    async def _tidy(self) -> None:
        if not self._leads:
            return
        oldest_id = await owners.oldest_unheard(self._database)
        if oldest_id is not None and oldest_id == self._oldest_id:
            await self._recorder.indexed()  # whoever stored it does not come to it
        self._oldest_id = oldest_id
        if self._may_judge() and await owners.are_some_left(self._database):
            await self._beat(time.monotonic())
            if not self._may_judge():
                return
            count = await self._recorder.write(self._interrupt)
            if count:
                _log.warning("%d calls of a server that died are marked interrupted", count)

    def _interrupt(self, tx: Transaction) -> int:
        """End the calls of dead servers, in the writer's thread, unless nobody can tell any more.

        It may run long after it was asked for, behind a time in which the database was away.
        """
        return owners.interrupt_dead(tx) if self._may_judge() else 0

    def _may_judge(self) -> bool:
        """Tell whether the others have had the time to give a sign of life."""
        since_s = self._lives_since_s
        return since_s is not None and time.monotonic() - since_s >= DEAD_S
