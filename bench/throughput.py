"""Tokens a second through the whole path, against the engine alone and two other ways to serve it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bench.contestants import Contestant, Direct, Inferq, Naive, VllmServer
from bench.load import Load, median, percentile
from bench.processes import Children
from bench.prompts import job_bodies
from bench.stack import make_settings

#: Share of a GPU that all contestants take together: those who rest keep their part of its memory.
GPU_SHARE = 0.85
#: Jobs of one measurement, by the number of clients: a few seconds each.
JOBS = {1: 8, 16: 128, 64: 768}
#: The naive worker does one task after the other; more of them would only take longer.
NAIVE_JOBS = 8


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant at one concurrency: tokens a second (median, lowest and highest round), latency in seconds,
    and CPU milliseconds per job by part.
    """

    contestant: str
    clients: int
    tokens_per_s: float
    lowest: float
    highest: float
    p50_s: float
    p99_s: float
    cpu_ms_per_job: dict[str, float]


def measure_throughput(
    children: Children, rounds: int, clients: Sequence[int], only: Sequence[str], engine: Mapping[str, Any]
) -> list[Row]:
    """Start all contestants, warm them up, and measure them in turns; those who wait their turn are stopped."""
    kinds: tuple[type[Contestant], ...] = (Inferq, VllmServer, Direct, Naive)
    chosen = [kind for kind in kinds if not only or kind.name in only]
    settings = make_settings(gpu_memory_util=GPU_SHARE / max(1, len(chosen)), **engine)
    contestants: list[Contestant] = []
    for kind in chosen:
        contestants.append(kind(children, settings))
        contestants[-1].rest()
    bodies = job_bodies(settings.public_model)
    loads: dict[tuple[str, int], list[Load]] = {}
    spent: dict[tuple[str, int], list[dict[str, float]]] = {}
    for round_number in range(-1, rounds):  # the first round warms up and is not counted
        for contestant in contestants:
            contestant.wake()
            time.sleep(1)  # heartbeats and connections find their feet
            for count in clients:
                jobs = min(JOBS.get(count, 4 * count), NAIVE_JOBS if contestant.name == Naive.name else 10**6)
                before = contestant.cpu_s()
                load = contestant.measure(list(islice(bodies, jobs)), count)
                after = contestant.cpu_s()
                if round_number >= 0:
                    key = (contestant.name, count)
                    loads.setdefault(key, []).append(load)
                    spent.setdefault(key, []).append({part: (after[part] - before[part]) / jobs for part in after})
            contestant.rest()
    return [_row(name, count, found, spent[name, count]) for (name, count), found in sorted(loads.items(), key=_order)]


def _order(item: tuple[tuple[str, int], list[Load]]) -> tuple[int, str]:
    return item[0][1], item[0][0]


def _row(name: str, clients: int, loads: list[Load], spent: list[dict[str, float]]) -> Row:
    rates = [load.tokens_per_s for load in loads]
    latencies = [seconds for load in loads for seconds in load.latencies]
    return Row(
        contestant=name,
        clients=clients,
        tokens_per_s=median(rates),
        lowest=min(rates),
        highest=max(rates),
        p50_s=percentile(latencies, 0.5),
        p99_s=percentile(latencies, 0.99),
        cpu_ms_per_job={part: 1000 * median([one[part] for one in spent]) for part in spent[0]},
    )
