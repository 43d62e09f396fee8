"""A thousand clients held at once, long-polls, event streams and WebSockets, under each worker class that could."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from bench.load import Failed, percentile
from bench.processes import Children, rss_mib
from bench.stack import API_KEY, make_settings, start_api, start_redis

#: Clients held at once, a third of each kind.
WAITERS = 1000
#: Submits sent one after the other while they are held.
SUBMITS = 300
#: gunicorn's options: green threads, or as many threads as there are waiters and some more.
CLASSES = {"gevent": ("-k", "gevent"), "gthread": ("-k", "gthread", "--threads", str(WAITERS + 64))}

_HEADERS = {"X-API-Key": API_KEY}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One worker class: MiB that the waiters cost, milliseconds of a submit without and with them, and the seconds
    from the first cancel until the last waiter knows.
    """

    worker_class: str
    held: int
    mib: float
    submit_p50_ms: float
    submit_p99_ms: float
    submit_held_p50_ms: float
    submit_held_p99_ms: float
    all_answered_s: float

    @property
    def times(self) -> float:
        """How much longer the 99th percentile of a submit is while they wait."""
        return self.submit_held_p99_ms / self.submit_p99_ms


def measure_waiters(children: Children, waiters: int = WAITERS, submits: int = SUBMITS) -> list[Row]:
    """Measure each worker class with an API and a Redis of its own; no engine runs, jobs are cancelled to end them."""
    rows = []
    for name, options in CLASSES.items():
        settings = make_settings(engine="simulated")
        redis = start_redis(children, settings, name=f"redis-{name}")
        api = start_api(children, settings, name=f"api-{name}", options=options)
        url = f"http://127.0.0.1:{settings.api_port}/v1/jobs"
        before = rss_mib(api)
        rows.append(asyncio.run(_measure(name, url, waiters, submits, before, lambda api=api: rss_mib(api))))
        api.stop(5)
        redis.stop(5)
    return rows


async def _measure(name: str, url: str, waiters: int, submits: int, before: float, rss: Any) -> Row:
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=_HEADERS, timeout=timeout, connector=connector) as session:
        jobs = [await _submit(session, url, number) for number in range(waiters)]
        alone = await _submits(session, url, range(waiters, waiters + submits))
        ways = (_poll, _follow, _listen)
        polls = [asyncio.create_task(ways[place % 3](session, f"{url}/{job}")) for place, job in enumerate(jobs)]
        await asyncio.sleep(1 + waiters / 250)  # all of them have arrived and wait
        held = sum(not poll.done() for poll in polls)
        grown = rss() - before
        crowded = await _submits(session, url, range(waiters + submits, waiters + 2 * submits))
        began = time.perf_counter()
        for job in jobs:
            async with session.post(f"{url}/{job}/cancel") as response:
                await response.read()
        statuses = await asyncio.gather(*polls)
        if set(statuses) != {"cancelled"}:
            raise Failed(f"waiters were answered {set(statuses)}")
        return Row(
            worker_class=name,
            held=held,
            mib=grown,
            submit_p50_ms=1000 * percentile(alone, 0.5),
            submit_p99_ms=1000 * percentile(alone, 0.99),
            submit_held_p50_ms=1000 * percentile(crowded, 0.5),
            submit_held_p99_ms=1000 * percentile(crowded, 0.99),
            all_answered_s=time.perf_counter() - began,
        )


async def _submit(session: aiohttp.ClientSession, url: str, number: int) -> str:
    async with session.post(url, json={"prompt": f"number {number}", "max_tokens": 8}) as response:
        if response.status != 202:
            raise Failed(f"a submit was answered {response.status}")
        return str((await response.json())["id"])


async def _submits(session: aiohttp.ClientSession, url: str, numbers: range) -> list[float]:
    found = []
    for number in numbers:
        began = time.perf_counter()
        await _submit(session, url, number)
        found.append(time.perf_counter() - began)
    return found


async def _poll(session: aiohttp.ClientSession, url: str) -> str:
    """Ask until the job has ended; a held request comes back after 30 s at the latest."""
    while True:
        async with session.get(url, headers={"Prefer": "wait=30"}) as response:
            job = await response.json()
        if response.status != 200:
            raise Failed(f"a poll was answered {response.status}")
        if job["terminal"]:
            return str(job["status"])


async def _follow(session: aiohttp.ClientSession, url: str) -> str:
    """Read the job's events to the last."""
    while True:
        async with session.get(f"{url}/events") as response:
            said = await response.read()
        if response.status == 200:
            return _ended(said.rsplit(b"data: ", 1)[1])
        await _refused(response.status)


async def _listen(session: aiohttp.ClientSession, url: str) -> str:
    """The same over a WebSocket."""
    said = b"{}"
    while True:
        try:
            async with session.ws_connect(f"{url}/ws") as websocket:
                async for message in websocket:
                    said = message.data.encode()
            return _ended(orjson.dumps(orjson.loads(said)["data"]))
        except aiohttp.WSServerHandshakeError as error:
            await _refused(error.status)


async def _refused(status: int) -> None:
    """Wait a moment before another try, as a client that is told there is no room now."""
    if status != 503:
        raise Failed(f"a follower was answered {status}")
    await asyncio.sleep(1)


def _ended(data: bytes) -> str:
    return str(orjson.loads(data).get("status"))
