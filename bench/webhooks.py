"""Webhooks while half of their receivers hang: how soon the others are told, and what the engine notices of it."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import aiohttp
import psutil

from bench.clients import ended, open_loop, session, submit
from bench.contestants import Inferq
from bench.load import Load, closed_loop, median, percentile
from bench.processes import Children
from bench.prompts import job_bodies
from bench.receivers import Receivers
from bench.stack import API_KEY, make_settings
from inferq.webhook_secrets import new_secret

#: Addresses of the loopback network, each a receiver of its own; every other one hangs.
HOSTS = [f"127.0.8.{number}" for number in range(1, 201)]
HANGING = frozenset(HOSTS[::2])
#: Jobs a second while events are timed, and for how many seconds.
PER_S = 30.0

#: Clients of the throughput, and jobs of one round for each.
CLIENTS, JOBS_EACH = 64, 8


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Events at receivers that answer, beside as many that hang: seconds from the job's end to the receiver, and MiB
    the keeper held before and after.
    """

    events: int
    hung: int
    p50_s: float
    p99_s: float
    longest_s: float
    keeper_before_mib: float
    keeper_after_mib: float


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Tokens a second with one kind of receivers: median, lowest and highest round."""

    receivers: str
    tokens_per_s: float
    lowest: float
    highest: float


def measure_webhooks(
    children: Children, rounds: int, seconds: float, clients: int, engine: Mapping[str, Any]
) -> tuple[Timing, list[Throughput]]:
    """Measure both on one stack."""
    secret = new_secret()
    settings = make_settings(webhook_allowed_hosts=",".join(HOSTS), bootstrap_webhook_secret=secret, **engine)
    inferq = Inferq(children, settings)
    keeper = psutil.Process(inferq.processes["keeper"].process.pid)
    bodies = job_bodies(settings.public_model)
    return asyncio.run(_measure(inferq.stack.url, secret, bodies, keeper, rounds, seconds, clients))


async def _measure(
    url: str,
    secret: str,
    bodies: Iterator[dict[str, Any]],
    keeper: psutil.Process,
    rounds: int,
    seconds: float,
    clients: int,
) -> tuple[Timing, list[Throughput]]:
    receivers = Receivers(secret, HOSTS, lambda host: None if host in HANGING else 204)
    await receivers.start()
    try:
        timing = await _timing(url, receivers, bodies, keeper, seconds)
        loads = await _throughput(url, receivers, bodies, rounds, clients)
    finally:
        await receivers.close()
    return timing, [
        Throughput(
            receivers=kind,
            tokens_per_s=median([load.tokens_per_s for load in found]),
            lowest=min(load.tokens_per_s for load in found),
            highest=max(load.tokens_per_s for load in found),
        )
        for kind, found in loads.items()
    ]


async def _throughput(
    url: str, receivers: Receivers, bodies: Iterator[dict[str, Any]], rounds: int, clients: int
) -> dict[str, list[Load]]:
    """Run the same load in turns, told to receivers that answer and to receivers that hang."""
    kinds = {"that answer": 1, "that hang": 0}
    loads: dict[str, list[Load]] = {kind: [] for kind in kinds}

    async def send(http: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        headers = {"X-API-Key": API_KEY, "Prefer": "wait=60"}
        async with http.post(f"{url}/v1/jobs", json=body, headers=headers) as response:
            return int((await response.json())["usage"]["completion_tokens"])

    for number in range(-1, rounds):  # the first round warms up and is not counted
        for kind, offset in kinds.items():
            jobs = [
                {**body, "webhook": {"url": receivers.url(2 * place + offset)}}
                for place, body in enumerate(islice(bodies, JOBS_EACH * clients))
            ]
            load = await closed_loop(send, jobs, clients)
            if number >= 0:
                loads[kind].append(load)
    return loads


async def _timing(
    url: str, receivers: Receivers, bodies: Iterator[dict[str, Any]], keeper: psutil.Process, seconds: float
) -> Timing:
    before = keeper.memory_info().rss
    async with session() as http:

        async def one(number: int) -> str:
            body = {**next(bodies), "webhook": {"url": receivers.url(number)}}
            sent = await submit(http, url, API_KEY, body)
            return str((await ended(http, url, API_KEY, sent.body["id"]))["id"])

        jobs = await open_loop(one, PER_S, seconds)
        told = {f"msg_{job}_completed" for job in jobs[1::2]}  # those whose receiver answers
        until = time.monotonic() + 30
        while told - {arrival.id for arrival in receivers.arrived} and time.monotonic() < until:
            await asyncio.sleep(0.1)
    ages = [arrival.age_s for arrival in receivers.arrived if arrival.id in told]
    if missing := told - {arrival.id for arrival in receivers.arrived}:
        raise TimeoutError(f"{len(missing)} events have not arrived")
    return Timing(
        events=len(told),
        hung=len([arrival for arrival in receivers.arrived if arrival.host in HANGING]),
        p50_s=percentile(ages, 0.5),
        p99_s=percentile(ages, 0.99),
        longest_s=max(ages),
        keeper_before_mib=before / 2**20,
        keeper_after_mib=keeper.memory_info().rss / 2**20,
    )
