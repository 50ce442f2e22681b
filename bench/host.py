"""What the host of a virtual machine does to a measurement: seconds that it gave to others."""

import asyncio
import time
from pathlib import Path
from typing import Final

# Of the processors' time; a second in which the host took more is set aside, with those next to it.
STOLEN: Final = 0.01


class Host:
    """The seconds in which the host of a virtual machine gave its processors to others."""

    def __init__(self) -> None:
        self.stolen: set[int] = set()

    async def watch(self) -> None:
        """Look each second until it is cancelled."""
        before = _ticks()
        while True:
            await asyncio.sleep(1)
            now = _ticks()
            stolen, spent = now[0] - before[0], now[1] - before[1]
            if stolen > STOLEN * spent:
                second = int(time.monotonic())
                self.stolen |= {second - 2, second - 1, second, second + 1}
            before = now


def _ticks() -> tuple[int, int]:
    """Give how much of the processors' time the host took, and how much there was."""
    try:
        times = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0, 0
    return times[7], sum(times)
