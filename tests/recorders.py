"""A recorder on a real database, for its tests; the database can be held or made to fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from proxy.capture import Budget
from proxy.pricing import Prices
from proxy.recorder import Recorder
from proxy.settle import Settler
from storage.database import Database
from tests.calling import Gate
from tests.databases import opened


@dataclass
class Recording:
    """A recorder under test; `gate` stands before its database."""

    recorder: Recorder
    settler: Settler
    budget: Budget
    gate: Gate
    database: Database

    async def flush(self) -> None:
        """Wait until everything that was queued is saved or lost."""
        await self.recorder.write(lambda _: None)

    async def rows(self, sql: str) -> list[Any]:
        return await self.database.read(sql, {})


Begin = Callable[..., Awaitable[Recording]]


@asynccontextmanager
async def recording(
    folder: Path,
    durability: Literal["safe", "strict", "fast"] = "safe",
    budget: Budget | None = None,
) -> AsyncIterator[Recording]:
    """Run a recorder; at the end everything that it held must be given back."""
    database = opened(folder / "traceway.db")
    gate = Gate(database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "transaction", gate.transaction)
        settler, budget = Settler(Prices()), budget or Budget(64 << 20)
        recorder = Recorder(database, settler, budget, durability)
        try:
            yield Recording(recorder, settler, budget, gate, database)
        finally:
            gate.fails_forever = None
            gate.open()
            async with asyncio.timeout(10):
                await recorder.close()
            await database.close()
