"""Closed-loop load over HTTP: so many clients, each sends its next request when the last one is answered."""

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

#: Seconds one request may take before the measurement is called off.
LIMIT_S = 300


class Failed(Exception):
    """A request was not answered as it should be; a measurement with failures is none."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of a load: seconds it took as a whole, seconds of each request, completion tokens received."""

    seconds: float
    latencies: tuple[float, ...]
    tokens: int

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens a second."""
        return self.tokens / self.seconds

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


#: Sends one request and returns the completion tokens of its answer.
Send = Callable[[aiohttp.ClientSession, Any], Awaitable[int]]


async def closed_loop(send: Send, jobs: Sequence[Any], clients: int) -> Load:
    """Send ``jobs`` from ``clients`` clients; raises Failed or aiohttp.ClientError at the first failure."""
    waiting = iter(jobs)
    latencies: list[float] = []
    tokens = 0

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        for job in waiting:
            began = time.perf_counter()
            received = await send(session, job)
            tokens += received  # not in one line: += would read the sum before it waits
            latencies.append(time.perf_counter() - began)

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        return Load(seconds=time.perf_counter() - began, latencies=tuple(latencies), tokens=tokens)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all values do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
