"""A noisy tenant beside quiet ones, and a tenant's priorities beside their shares; on the simulated engine as a T4."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

from bench.clients import ended, open_loop, session, submit, tenants_of
from bench.load import Failed, percentile
from bench.processes import Children
from bench.stack import Stack, make_settings, start_stack
from inferq.operations import Operations
from inferq.scripts import Scripts

#: Quiet tenants; together they offer half of what the engine can do.
QUIET = 8
#: How many times as much as a quiet tenant the noisy one sends.
NOISE = 100
#: Seconds of a phase.
PHASE_S = 30.0
#: Jobs of each priority that wait while shares are counted; as many jobs are counted, so that none runs out.
BACKLOG = 150
SHARES = {"high": 4 / 7, "normal": 2 / 7, "low": 1 / 7}
#: Answers end by themselves after 8 to 64 words.
MAX_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Seconds from submit to result of the quiet tenants (median and p99), without and with the noisy one."""

    capacity_per_s: float
    alone_p50_s: float
    alone_p99_s: float
    beside_p50_s: float
    beside_p99_s: float
    noisy_sent: int

    @property
    def times(self) -> float:
        """How many times as long the median is beside the noisy tenant."""
        return self.beside_p50_s / self.alone_p50_s


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of one tenant's completed jobs, the part of one priority, and what its weight says."""

    priority: str
    share: float
    weight: float


def measure_fairness(children: Children, seconds: float = PHASE_S) -> tuple[Noise, list[Share]]:
    """Measure both on one stack."""
    settings = make_settings(engine="simulated", simulated_timing="t4-mistral-7b-awq", max_num_seqs=16)
    stack = start_stack(children, settings)
    prompts = count()

    def body(**changes: Any) -> dict[str, Any]:
        return {"prompt": f"question {next(prompts)}", "max_tokens": MAX_TOKENS, **changes}

    with tenants_of(settings) as (ring, tenants, _):
        quiet = [ring.create(f"quiet-{number}") for number in range(QUIET)]
        noisy = ring.create("noisy")
        mixed = ring.create("mixed")
        tenants.set("mixed", max_priority="high")
    capacity = asyncio.run(_capacity(stack, quiet[0], body, 2 if seconds < PHASE_S / 2 else 6))
    noise = asyncio.run(_noise(stack, capacity, quiet, noisy, body, seconds))
    with tenants_of(settings) as (_, _, redis):
        Operations(Scripts(redis)).purge("noisy")
    return noise, asyncio.run(_shares(stack, mixed, body, min(BACKLOG, max(16, round(5 * seconds)))))


async def _capacity(stack: Stack, api_key: str, body: Any, batches: int) -> float:
    """Return the jobs a second the engine does when it is full."""
    jobs = batches * stack.settings.max_num_seqs
    async with session() as http:
        began = time.perf_counter()
        await asyncio.gather(*(_result(http, stack.url, api_key, body()) for _ in range(jobs)))
        return jobs / (time.perf_counter() - began)


async def _result(http: Any, url: str, api_key: str, body: dict[str, Any]) -> float:
    began = time.perf_counter()
    answer = await submit(http, url, api_key, body, wait_s=60)
    job = answer.body
    if answer.status == 202:
        job = await ended(http, url, api_key, job["id"])
    if job.get("status") != "completed":
        raise Failed(f"a quiet tenant's job came to {answer.status}: {job.get('status')}")
    return time.perf_counter() - began


async def _noise(stack: Stack, capacity: float, quiet: list[str], noisy: str, body: Any, seconds: float) -> Noise:
    rate = 0.5 * capacity
    async with session() as http:

        def ask(number: int) -> Any:
            return _result(http, stack.url, quiet[number % QUIET], body())

        alone = await open_loop(ask, rate, seconds)
        loud = asyncio.ensure_future(
            open_loop(lambda _: submit(http, stack.url, noisy, body()), NOISE * rate / QUIET, seconds)
        )
        beside = await open_loop(ask, rate, seconds)
        sent = [one for one in await loud if one.status == 202]
    return Noise(
        capacity_per_s=capacity,
        alone_p50_s=percentile(alone, 0.5),
        alone_p99_s=percentile(alone, 0.99),
        beside_p50_s=percentile(beside, 0.5),
        beside_p99_s=percentile(beside, 0.99),
        noisy_sent=len(sent),
    )


async def _shares(stack: Stack, api_key: str, body: Any, backlog: int) -> list[Share]:
    """Keep jobs of all priorities waiting, and see which are completed first."""
    async with session() as http:
        sent = []
        for _ in range(backlog):
            sent += [await submit(http, stack.url, api_key, body(priority=priority)) for priority in SHARES]
        jobs = [one.body["id"] for one in sent]
        finished = await asyncio.gather(*(ended(http, stack.url, api_key, job) for job in jobs))
    order = sorted(finished, key=lambda job: str(job["started_at"]))
    # The first batch was taken before all had come.
    first = stack.settings.max_num_seqs
    counted = Counter(job["priority"] for job in order[first : first + backlog])
    return [
        Share(priority=priority, share=counted[priority] / backlog, weight=weight)
        for priority, weight in SHARES.items()
    ]
