"""How long a killed worker's runs stay with it."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from chaos.fleet import Aboard, Fleet

#: Seconds between looks; the measure cannot be finer.
LOOK_S: Final = 0.1


@dataclass
class _Lost:
    held: Aboard
    killed: float


class Recoveries:
    """Watches runs of killed workers until they are in the queue again, or further."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._open: list[_Lost] = []
        #: Seconds from kill to rescue, one per run.
        self.seconds: list[float] = []

    def note(self, held: list[Aboard], killed: float) -> None:
        """Watch what a worker held that was killed at ``killed`` (monotonic seconds)."""
        self._open += [_Lost(one, killed) for one in held]

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            with contextlib.suppress(RedisError):  # being away is part of the game; the time goes on
                await asyncio.to_thread(self._look)
            await asyncio.sleep(LOOK_S)

    async def all_back(self, seconds: float) -> bool:
        """Wait until no run is with a killed worker; False after ``seconds``."""
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            await asyncio.sleep(LOOK_S)
        return not self._open

    def _look(self) -> None:
        for lost in list(self._open):
            if self._fleet.superseded(lost.held):
                self.seconds.append(time.monotonic() - lost.killed)
                self._open.remove(lost)
