"""Ten thousand requests at once, through the queue and straight to vLLM's own server; the real engine behind both."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import aiohttp

from bench.clients import CONNECTIONS, Sent, ended, submit, tenants_of
from bench.contestants import Inferq, VllmServer
from bench.load import percentile
from bench.processes import Children
from bench.prompts import job_bodies
from bench.stack import make_settings

#: Requests of the burst, and the keys that send them.
BURST = 10_000
KEYS = 100
#: Seconds after which a client of a synchronous service gives up, as HTTP clients and proxies commonly do.
PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a burst: how many were accepted (or served), refused, timed out, failed or lost; milliseconds to
    the first answer a client gets, seconds to the result, and seconds until all was done.
    """

    service: str
    accepted: int
    refused: int
    timed_out: int
    failed: int
    lost: int
    answer_p50_ms: float
    answer_p99_ms: float
    result_p50_s: float
    result_p99_s: float
    makespan_s: float


@dataclass
class _Found:
    answers: list[float] = field(default_factory=list)
    results: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def row(self, service: str, makespan_s: float) -> Row:
        answers, results = self.answers or [0.0], self.results or [0.0]
        return Row(
            service=service,
            accepted=self.outcomes["accepted"],
            refused=self.outcomes["refused"],
            timed_out=self.outcomes["timed out"],
            failed=self.outcomes["failed"],
            lost=self.outcomes["lost"],
            answer_p50_ms=1000 * percentile(answers, 0.5),
            answer_p99_ms=1000 * percentile(answers, 0.99),
            result_p50_s=percentile(results, 0.5),
            result_p99_s=percentile(results, 0.99),
            makespan_s=makespan_s,
        )


def measure_spike(children: Children, burst: int, only: Sequence[str], engine: Mapping[str, Any]) -> list[Row]:
    """Send the burst to one service after the other; each is stopped once it has been measured."""
    settings = make_settings(**engine)
    bodies = list(islice(job_bodies(settings.public_model), burst))
    rows = []
    if not only or Inferq.name in only:
        inferq = Inferq(children, settings)
        with tenants_of(settings) as (ring, _, _redis):
            keys = [ring.create(f"tenant-{number}") for number in range(KEYS)]
        rows.append(asyncio.run(_through_the_queue(inferq.stack.url, keys, bodies)))
        inferq.rest()
    if not only or VllmServer.name in only:
        rows.append(asyncio.run(_synchronously(VllmServer(children, settings).url, bodies)))
    return rows


async def _through_the_queue(url: str, keys: list[str], bodies: list[dict[str, Any]]) -> Row:
    """All submit at once; then each client asks for its results with long-polls, a hundred at a time."""
    found = _Found()
    sent: list[tuple[str, float, Sent]] = []
    began = time.perf_counter()
    async with _session() as http:

        async def one(number: int) -> None:
            api_key, start = keys[number % len(keys)], time.perf_counter()
            answer = await submit(http, url, api_key, bodies[number])
            found.answers.append(time.perf_counter() - began)  # a client waits for its connection too
            found.outcomes["accepted" if answer.status == 202 else "refused"] += 1
            if answer.status == 202:
                sent.append((api_key, start, answer))

        await asyncio.gather(*(one(number) for number in range(len(bodies))))
        asking = asyncio.Semaphore(200)

        async def result(api_key: str, start: float, answer: Sent) -> None:
            async with asking:
                job = await ended(http, url, api_key, answer.body["id"])
            if job["status"] != "completed":
                found.outcomes["lost"] += 1
            else:
                found.results.append(job["metrics"]["total_s"])

        await asyncio.gather(*(result(*one) for one in sent))
    return found.row("inferq", time.perf_counter() - began)


async def _synchronously(url: str, bodies: list[dict[str, Any]]) -> Row:
    """All ask at once and hold the line, until they have the answer or give up."""
    found = _Found()
    began = time.perf_counter()
    async with _session() as http:

        async def one(body: dict[str, Any]) -> None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    async with http.post(url, json=body) as response:
                        await response.read()
            except TimeoutError:
                found.outcomes["timed out"] += 1
                return
            except (aiohttp.ClientError, OSError):
                found.outcomes["failed"] += 1
                return
            waited = time.perf_counter() - began
            found.answers.append(waited)
            found.results.append(waited)
            found.outcomes["accepted" if response.status == 200 else "failed"] += 1

        await asyncio.gather(*(one(body) for body in bodies))
    return found.row("vLLM's server", time.perf_counter() - began)


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=600)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS), timeout=timeout)
