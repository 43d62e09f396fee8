"""Streaming: what it costs the engine's throughput, and how soon a client has a first token."""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

import aiohttp

from bench.contestants import Inferq
from bench.load import Failed, Load, closed_loop, median, percentile
from bench.processes import Children
from bench.prompts import job_bodies
from bench.stack import API_KEY, make_settings

#: Clients of the throughput, and jobs of one round for each.
CLIENTS, JOBS_EACH = 64, 8
#: Jobs whose first token is timed, per number of clients.
TIMED: Final = {1: 30, 16: 160, 64: 256}

_USED = re.compile(rb'"completion_tokens":(\d+)')
_HEADERS = {"X-API-Key": API_KEY}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Tokens a second when every job is followed, and when every client waits for its whole answer; medians of rounds.

    ``of_throughput``: the share that following costs, the median of pairs that were measured one after the other.
    """

    clients: int
    followed: float
    waited: float
    of_throughput: float


@dataclass(frozen=True, kw_only=True)
class FirstToken:
    """Milliseconds from the engine's first token to the client's.

    The engine's is taken as the claim plus ``ttft_s``; what lies between claim and engine counts as the way to the
    client.
    """

    clients: int
    jobs: int
    p50_ms: float
    p99_ms: float


def measure_streaming(
    children: Children, rounds: int, clients: int, engine: Mapping[str, Any]
) -> tuple[Cost, list[FirstToken]]:
    """Measure both on one stack."""
    settings = make_settings(**engine)
    inferq = Inferq(children, settings)
    return asyncio.run(_measure(f"{inferq.stack.url}/v1/jobs", job_bodies(settings.public_model), rounds, clients))


async def _measure(
    url: str, bodies: Iterator[dict[str, Any]], rounds: int, clients: int
) -> tuple[Cost, list[FirstToken]]:
    async def follow(http: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        return (await _followed(http, url, body))[1]

    async def wait(http: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        async with http.post(url, json=body, headers={**_HEADERS, "Prefer": "wait=60"}) as response:
            return int((await response.json())["usage"]["completion_tokens"])

    loads: dict[bool, list[Load]] = {True: [], False: []}
    for number in range(-1, rounds):  # the first round warms up and is not counted
        # Whoever is first in one round is second in the next.
        for followed in (number % 2 == 0, number % 2 != 0):
            load = await closed_loop(follow if followed else wait, list(islice(bodies, JOBS_EACH * clients)), clients)
            if number >= 0:
                loads[followed].append(load)
    rates = {followed: median([load.tokens_per_s for load in found]) for followed, found in loads.items()}
    pairs = [on.tokens_per_s / off.tokens_per_s for on, off in zip(loads[True], loads[False], strict=True)]
    cost = Cost(clients=clients, followed=rates[True], waited=rates[False], of_throughput=1 - median(pairs))
    return cost, [await _first_tokens(url, bodies, crowd, jobs) for crowd, jobs in TIMED.items() if crowd <= clients]


async def _first_tokens(url: str, bodies: Iterator[dict[str, Any]], clients: int, jobs: int) -> FirstToken:
    late: list[float] = []

    async def timed(http: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        job, tokens, first = await _followed(http, url, body)
        async with http.get(f"{url}/{job}", headers=_HEADERS) as response:
            told = await response.json()
        engine = datetime.fromisoformat(told["started_at"]).timestamp() + told["metrics"]["ttft_s"]
        late.append(1000 * (first - engine))
        return tokens

    await closed_loop(timed, list(islice(bodies, jobs)), clients)
    return FirstToken(clients=clients, jobs=jobs, p50_ms=percentile(late, 0.5), p99_ms=percentile(late, 0.99))


async def _followed(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[str, int, float]:
    """Submit a job and hear its events to the end; returns its id, tokens, and when the first of them came."""
    text, first = b"", 0.0
    async with http.post(url, json=body, headers=_HEADERS | {"Accept": "text/event-stream"}) as response:
        job = response.headers["Location"].rsplit("/", 1)[1]
        async for chunk in response.content.iter_any():
            text += chunk
            if not first and b"event: token" in text:
                first = time.time()
    used = _USED.search(text)
    if not used or b"event: done" not in text:
        raise Failed("a followed job did not end with done")
    return job, int(used[1]), first
