"""Milliseconds of a cache hit and of a submit, over HTTP, beside a bare view that does one Redis round trip."""

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import aiohttp
from redis import Redis

from bench.bare_view import KEY
from bench.load import Failed, Load, closed_loop, median, percentile
from bench.processes import Children, signal_all, wait_until
from bench.stack import API_KEY, START_S, answers, make_settings, start_api, start_celery, start_redis
from deploy.local.child import Child
from deploy.local.stack import free_port
from inferq.settings import Settings

#: Requests of one measurement.
HITS = 1000
SUBMITS = 500
#: Jobs that wait where a submit finds a full queue; fewer when fewer requests are measured.
WAITING = 1000
#: Clients of the measurements of requests a second.
CROWD = 16

_HEADERS = {"X-API-Key": API_KEY}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of request: milliseconds at one client, requests a second from many."""

    request: str
    p50_ms: float
    p50_lowest: float
    p50_highest: float
    p99_ms: float
    per_s: float


def measure_latency(children: Children, rounds: int, requests: int = HITS) -> list[Row]:
    """Measure cache hit, bare view and submit in turns; an engine fills the cache and is gone before."""
    settings = make_settings(engine="simulated", simulated_step=0.001)
    start_redis(children, settings)
    start_api(children, settings)
    bare = settings.model_copy(update={"api_port": free_port()})
    busy = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}", "api_port": free_port()})
    busy = busy.model_copy(update={"cache_redis_url": busy.redis_url, "simulated_step": 10.0, "drain_grace": 1.0})
    start_api(children, bare, app="bench.bare_view:create_app()", name="bare")
    url, bare_url = f"http://127.0.0.1:{settings.api_port}/v1/jobs", f"http://127.0.0.1:{bare.api_port}/bare"
    waiting = min(WAITING, requests)
    busy_url, others = _busy(children, busy, waiting)
    known = {"prompt": "What is inferq?", "max_tokens": 64}
    _fill_cache(children, settings, url, known)

    async def post(session: aiohttp.ClientSession, target: str, body: dict[str, Any], status: int) -> int:
        async with session.post(target, json=body, headers=_HEADERS) as response:
            await response.read()
            if response.status != status:
                raise Failed(f"{target} answered {response.status}")
        return 0

    fresh = ({"prompt": f"prompt number {number}", "max_tokens": 64} for number in count())
    kinds: list[tuple[str, Any, Any]] = [
        ("bare view, one Redis round trip", lambda s, b: post(s, bare_url, b, 200), _same(known)),
        ("cache hit", lambda s, b: post(s, url, b, 200), _same(known)),
        ("submit of a miss", lambda s, b: post(s, url, b, 202), fresh),
        (f"submit, {waiting} waiting, bells on", lambda s, b: post(s, busy_url, b, 202), fresh),
    ]
    alone: dict[str, list[Load]] = {}
    crowd: dict[str, list[Load]] = {}
    for round_number in range(-1, rounds):  # the first round warms up and is not counted
        for name, send, bodies in kinds:
            for child in others:  # what is not measured takes no CPU
                signal_all(child, signal.SIGCONT if name.endswith("bells on") else signal.SIGSTOP)
            one = asyncio.run(closed_loop(send, list(islice(bodies, requests)), 1))
            many = asyncio.run(closed_loop(send, list(islice(bodies, requests)), CROWD))
            if round_number >= 0:
                alone.setdefault(name, []).append(one)
                crowd.setdefault(name, []).append(many)
    return [_row(name, alone[name], crowd[name]) for name in alone]


def _same(body: dict[str, Any]) -> Any:
    return (body for _ in count())


def _busy(children: Children, settings: Settings, waiting: int) -> tuple[str, list[Child]]:
    """Start a stack whose slots are taken, with jobs that wait; returns where to submit, and its processes."""
    redis = start_redis(children, settings, name="redis-busy")
    api = start_api(children, settings, name="api-busy")
    keeper = start_celery(children, settings, "keeper")
    worker = start_celery(children, settings, "app")
    wait_until(worker, lambda: answers(settings.api_port, "/readyz") == 200, START_S)
    url = f"http://127.0.0.1:{settings.api_port}/v1/jobs"

    async def submit(session: aiohttp.ClientSession, number: int) -> int:
        async with session.post(url, json={"prompt": f"waits {number}"}, headers=_HEADERS) as response:
            return len(await response.read())

    asyncio.run(closed_loop(submit, range(waiting + settings.max_num_seqs), CROWD))
    return url, [redis, api, keeper, worker]


def _fill_cache(children: Children, settings: Settings, url: str, body: dict[str, Any]) -> None:
    worker = start_celery(children, settings, "app")

    async def ask() -> None:
        async with (
            aiohttp.ClientSession(headers=_HEADERS) as session,
            session.post(url, json=body, headers={"Prefer": "wait=60"}) as response,
        ):
            job = await response.json()
            if job["status"] != "completed":
                raise Failed(f"the first answer did not come: {job['status']}")

    asyncio.run(ask())
    worker.stop(10.0)
    with Redis.from_url(settings.redis_url) as redis:
        completion = next(iter(redis.scan_iter("*:cache:*")))
        redis.set(KEY, redis.get(completion))


def _row(name: str, alone: Sequence[Load], crowd: Sequence[Load]) -> Row:
    halves = [1000 * percentile(load.latencies, 0.5) for load in alone]
    return Row(
        request=name,
        p50_ms=median(halves),
        p50_lowest=min(halves),
        p50_highest=max(halves),
        p99_ms=median([1000 * percentile(load.latencies, 0.99) for load in alone]),
        per_s=median([load.per_s for load in crowd]),
    )
