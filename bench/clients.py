"""Clients of a stack with keys of their own: how measurements of many tenants submit and wait."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from redis import Redis

from bench.load import LIMIT_S, Failed
from inferq.credentials import KeyRing
from inferq.redis_client import job_redis
from inferq.scripts import Scripts
from inferq.settings import Settings
from inferq.tenants import Tenants

#: Connections of one measurement at most.
CONNECTIONS = 2000


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one submit: seconds to its answer, HTTP status (0: none), the job's JSON or the problem's."""

    seconds: float
    status: int
    body: dict[str, Any]


@contextmanager
def tenants_of(settings: Settings) -> Iterator[tuple[KeyRing, Tenants, "Redis"]]:
    """Yield what makes keys and sets weights on the Redis of ``settings``."""
    with job_redis(settings) as redis:
        yield KeyRing(redis), Tenants(redis, Scripts(redis)), redis


def session() -> aiohttp.ClientSession:
    """Return a session for thousands of requests at once."""
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS), timeout=timeout)


async def submit(http: aiohttp.ClientSession, url: str, api_key: str, body: dict[str, Any], *, wait_s: int = 0) -> Sent:
    """Submit one job, with ``wait_s`` waiting for its end in the same call."""
    headers = {"X-API-Key": api_key} | ({"Prefer": f"wait={wait_s}"} if wait_s else {})
    began = time.perf_counter()
    async with http.post(f"{url}/v1/jobs", json=body, headers=headers) as response:
        answer = await response.json(content_type=None)
        return Sent(seconds=time.perf_counter() - began, status=response.status, body=answer)


async def ended(http: aiohttp.ClientSession, url: str, api_key: str, job: str) -> dict[str, Any]:
    """Return a job once it has ended; raises Failed when it is unknown."""
    headers = {"X-API-Key": api_key, "Prefer": "wait=30"}
    while True:
        async with http.get(f"{url}/v1/jobs/{job}", headers=headers) as response:
            body: dict[str, Any] = await response.json(content_type=None)
            if response.status != 200:
                raise Failed(f"a job that was accepted answers {response.status}")
            if body["terminal"]:
                return body


async def open_loop(send: Callable[[int], Awaitable[Any]], per_s: float, seconds: float) -> list[Any]:
    """Call ``send`` at a steady rate, whether or not answers come; returns all results once they are there."""
    # Tens of thousands of answers are kept: walking them all, the collector would stop the clock of those under way.
    gc.disable()
    try:
        began = asyncio.get_running_loop().time()
        tasks = []
        for number in range(round(per_s * seconds)):
            due = began + number / per_s - asyncio.get_running_loop().time()
            if due > 0:
                await asyncio.sleep(due)
            tasks.append(asyncio.ensure_future(send(number)))
        return list(await asyncio.gather(*tasks))
    finally:
        gc.enable()
