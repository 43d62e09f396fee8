"""Ten times what the engine can do, for a minute, from a fixed set of keys that each want an answer soon."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

from bench.clients import Sent, ended, open_loop, session, submit, tenants_of
from bench.load import percentile
from bench.processes import Children
from bench.stack import make_settings, start_stack

KEYS = 20
#: Times the capacity that is offered, for how many seconds.
TIMES = 10
SECONDS = 60.0
#: Seconds within which every job must start.
START_WITHIN_S = 5.0
#: Seconds of ordinary load before, in which the rate is measured.
BEFORE_S = 10.0
WORDS = 20
STEP_S = 0.02
SLOTS = 32


@dataclass(frozen=True, kw_only=True)
class Overload:
    """What was offered, accepted and refused; of the accepted, how many started in time; milliseconds to a refusal and
    to a 202; seconds from the end of the overload until a new job has its result as on an idle service.
    """

    offered: int
    accepted: int
    started_in_time: float
    refused_p50_ms: float
    refused_p99_ms: float
    accepted_p99_ms: float
    busy: float
    recovered_s: float


def measure_overload(children: Children, seconds: float = SECONDS) -> Overload:
    """Measure on a stack with the simulated engine."""
    settings = make_settings(engine="simulated", simulated_step=STEP_S, max_num_seqs=SLOTS)
    stack = start_stack(children, settings)
    with tenants_of(settings) as (ring, _, _redis):
        keys = [ring.create(f"tenant-{number}") for number in range(KEYS)]
    return asyncio.run(_overload(stack.url, keys, seconds))


async def _overload(url: str, keys: list[str], seconds: float) -> Overload:
    capacity = SLOTS / (WORDS * STEP_S)
    prompts = count()

    def body() -> dict[str, Any]:
        return {
            "prompt": f"{next(prompts)} simulate:words={WORDS}",
            "max_tokens": WORDS,
            "deadline": {"start_within_s": START_WITHIN_S},
        }

    async with session() as http:

        async def one(number: int) -> tuple[str, Sent]:
            api_key = keys[number % KEYS]
            return api_key, await submit(http, url, api_key, body())

        await open_loop(one, 0.9 * capacity, min(BEFORE_S, seconds))
        sent = await open_loop(one, TIMES * capacity, seconds)
        over = time.perf_counter()
        while (await submit(http, url, keys[0], body(), wait_s=60)).seconds > 3 * WORDS * STEP_S:
            await asyncio.sleep(0.1)
        recovered = time.perf_counter() - over
        accepted = [(api_key, answer) for api_key, answer in sent if answer.status == 202]
        refused = [answer for _, answer in sent if answer.status == 503]
        jobs = [await ended(http, url, api_key, answer.body["id"]) for api_key, answer in accepted]
    outcomes = Counter(job["status"] for job in jobs)
    return Overload(
        offered=len(sent),
        accepted=len(accepted),
        started_in_time=outcomes["completed"] / max(1, len(accepted)),
        refused_p50_ms=1000 * percentile([answer.seconds for answer in refused] or [0.0], 0.5),
        refused_p99_ms=1000 * percentile([answer.seconds for answer in refused] or [0.0], 0.99),
        accepted_p99_ms=1000 * percentile([answer.seconds for _, answer in accepted] or [0.0], 0.99),
        busy=outcomes["completed"] / (capacity * seconds),
        recovered_s=recovered,
    )
