"""What metrics cost a submit, and how long a scrape takes under load."""

import asyncio
import time
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final

import aiohttp

from bench.load import Failed, Load, closed_loop, median, percentile
from bench.processes import Children, wait_until
from bench.stack import API_KEY, START_S, answers, make_settings, start_api, start_celery, start_redis
from deploy.local.stack import free_port
from inferq.settings import Settings

#: Submits of one measurement, and clients that send them.
SUBMITS: Final = 1000
CROWD: Final = 16
#: Seconds between two scrapes of one process: a hundred times as often as Prometheus comes.
EVERY_S: Final = 0.1
TOKEN: Final = "bench-not-a-secret"  # noqa: S105  # of processes on loopback that live for minutes


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Submits with metrics and without: p50 in ms from one client, submits a second from many, medians of rounds.

    ``of_throughput``: the share of submits a second that metrics cost, the median of pairs that were measured together.
    """

    on_ms: float
    off_ms: float
    on_per_s: float
    off_per_s: float
    of_throughput: float


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """Scrapes of one process while submits are sent as fast as they are answered. ``size``: bytes of the text."""

    process: str
    scrapes: int
    p50_ms: float
    p99_ms: float
    size: int


def measure_metrics(children: Children, rounds: int, requests: int = SUBMITS) -> tuple[Cost, list[Scrape]]:
    """Submit to an API with and to one without metrics, in turns; then scrape under load."""
    settings = make_settings(
        engine="simulated",
        simulated_step=0.001,
        max_queue_depth=10_000_000,
        metrics_token=TOKEN,
        metrics_port=free_port(),
        keeper_metrics_port=free_port(),
    )
    start_redis(children, settings)
    apis = {with_metrics: _apis(children, settings, with_metrics=with_metrics) for with_metrics in (True, False)}
    bodies = ({"prompt": f"prompt number {number}", "max_tokens": 8} for number in count())
    alone: dict[bool, list[Load]] = {True: [], False: []}
    crowd: dict[bool, list[Load]] = {True: [], False: []}
    for number in range(-1, rounds):  # the first round warms up and is not counted
        # Whoever is first in one round is second in the next.
        for with_metrics in (number % 2 == 0, number % 2 != 0):
            for port in apis[with_metrics]:
                one = asyncio.run(closed_loop(_submit(port), list(islice(bodies, requests)), 1))
                many = asyncio.run(closed_loop(_submit(port), list(islice(bodies, requests)), CROWD))
                if number >= 0:
                    alone[with_metrics].append(one)
                    crowd[with_metrics].append(many)
    p50s = {which: median([1000 * percentile(load.latencies, 0.5) for load in alone[which]]) for which in alone}
    pairs = median([on.per_s / off.per_s for on, off in zip(crowd[True], crowd[False], strict=True)])
    rates = {which: median([load.per_s for load in crowd[which]]) for which in crowd}
    cost = Cost(
        on_ms=p50s[True], off_ms=p50s[False], on_per_s=rates[True], off_per_s=rates[False], of_throughput=1 - pairs
    )
    settings = settings.model_copy(update={"api_port": apis[True][0]})
    start_celery(children, settings, "keeper")
    worker = start_celery(children, settings, "app")
    wait_until(worker, lambda: answers(settings.api_port, "/readyz") == 200, START_S)
    wait_until(worker, lambda: answers(settings.keeper_metrics_port, "/readyz") == 200, START_S)
    ports = {"api": settings.api_port, "worker": settings.metrics_port, "keeper": settings.keeper_metrics_port}
    load = list(islice(bodies, 2 * rounds * requests))
    return cost, asyncio.run(_scrape_under(settings.api_port, load, ports))


def _apis(children: Children, settings: Settings, *, with_metrics: bool) -> list[int]:
    """Start two APIs of a kind: two processes of the same program differ by a few percent for as long as they live."""
    ports = []
    for number in (1, 2):
        own = settings.model_copy(update={"api_port": free_port()})
        app = "api.wsgi:app" if with_metrics else "bench.uncounted:create_app()"
        start_api(children, own, app=app, name=f"api-{with_metrics}-{number}")
        ports.append(own.api_port)
    return ports


def _submit(port: int) -> Any:
    url, headers = f"http://127.0.0.1:{port}/v1/jobs", {"X-API-Key": API_KEY}

    async def submit(session: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        async with session.post(url, json=body, headers=headers) as response:
            await response.read()
            if response.status != 202:
                raise Failed(f"{url} answered {response.status}")
        return 0

    return submit


async def _scrape_under(port: int, load: list[dict[str, Any]], ports: dict[str, int]) -> list[Scrape]:
    found: dict[str, list[float]] = {process: [] for process in ports}
    sizes: dict[str, int] = {}

    async def scrape(session: aiohttp.ClientSession, process: str) -> None:
        while True:
            began = time.perf_counter()
            async with session.get(f"http://127.0.0.1:{ports[process]}/metrics") as response:
                text = await response.read()
                if response.status != 200:
                    raise Failed(f"the {process}'s metrics answered {response.status}")
            found[process].append(time.perf_counter() - began)
            sizes[process] = len(text)
            await asyncio.sleep(EVERY_S)

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        scrapers = [asyncio.create_task(scrape(session, process)) for process in ports]
        await closed_loop(_submit(port), load, CROWD)
        for scraper in scrapers:
            if scraper.done():
                scraper.result()  # what was wrong
            scraper.cancel()
        await asyncio.gather(*scrapers, return_exceptions=True)
    return [
        Scrape(
            process=process,
            scrapes=len(taken),
            p50_ms=1000 * percentile(taken, 0.5),
            p99_ms=1000 * percentile(taken, 0.99),
            size=sizes[process],
        )
        for process, taken in found.items()
    ]
