"""The same day under several policies, and what they cost."""

import math
from dataclasses import dataclass

from bench.day.fleet import Day, Fleet, Worker
from bench.day.policies import Autoscaled, Fixed, Policy
from bench.day.traffic import DAY_S, HOUR_S, Demand, Traffic, draw
from bench.load import percentile
from workers.timing import PRESETS

#: What a worker is: the preset of docs/simulated-engine.md, which was not measured by us.
WORKER = Worker(timing=PRESETS["t4-mistral-7b-awq"])
#: Runs (waiting and running) for each worker that autoscaled fleets aim at: as many as it holds, with a quarter of its
#: slots free, and with as many again behind them.
FULL, ROOMY, BEHIND = 16, 12, 32
#: Times what the busiest hour keeps busy: a fleet that is exactly as large would never catch up with a burst.
ROOM = 1.25


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A policy's day in figures: GPU-hours, waits in seconds of all but the batch (``worst_s``: the 99th percentile of
    the worst five minutes), the batch's own median, the share of all runs that were refused to the last try or expired,
    and the most workers that were ready.
    """

    policy: str
    gpu_h: float
    p50_s: float
    p99_s: float
    worst_s: float
    batch_p50_s: float
    turned_away: float
    most_ready: int


@dataclass(frozen=True, kw_only=True)
class Played:
    """A day: what came, runs a second that a busy worker ends, and what became of the day under each policy."""

    demand: Demand
    per_worker_s: float
    days: list[Day]
    outcomes: list[Outcome]


def play(traffic: Traffic, seed: int, worker: Worker = WORKER) -> Played:
    """Play one day under each policy."""
    demand = draw(traffic, seed)
    need = needed(demand, worker)
    night, peak = max(1, math.ceil(need[0] * ROOM)), max(1, math.ceil(max(need) * ROOM))
    policies: list[Policy] = [
        Fixed(name=f"fixed: {peak}, for the busiest hour", workers=peak),
        Fixed(name=f"fixed: {2 * peak}, for most bursts", workers=2 * peak),
        Autoscaled(f"runs / {FULL}, at most {2 * peak}", target=FULL, most=2 * peak),
        Autoscaled(f"runs / {ROOMY}, at most {2 * peak}", target=ROOMY, most=2 * peak),
        Autoscaled(f"runs / {BEHIND}, at most {2 * peak}", target=BEHIND, most=2 * peak),
        Autoscaled(f"runs / {FULL}, without a limit", target=FULL),
    ]
    days = [
        Fleet(worker, policy, start=policy.workers if isinstance(policy, Fixed) else night).play(demand)
        for policy in policies
    ]
    return Played(
        demand=demand,
        per_worker_s=len(demand.runs) / (sum(need) * HOUR_S),
        days=days,
        outcomes=[outcome(day, len(demand.runs)) for day in days],
    )


def needed(demand: Demand, worker: Worker) -> list[float]:
    """Return the workers that each hour of the day keeps busy with full batches."""
    found = [0.0] * (DAY_S // HOUR_S)
    mean_prompt = sum(one.prompt for one in demand.runs) / max(1, len(demand.runs))
    for one in demand.runs:
        taken = worker.seconds(one.prompt, one.answer, worker.slots - 1, mean_prompt)
        found[int(one.at) // HOUR_S] += taken / worker.slots / HOUR_S
    return found


def outcome(day: Day, runs: int) -> Outcome:
    """Return a day in figures."""
    waits = sorted(wait for some in day.waits for wait in some)
    return Outcome(
        policy=day.policy,
        gpu_h=day.gpu_s / HOUR_S,
        p50_s=percentile(waits, 0.5),
        p99_s=percentile(waits, 0.99),
        worst_s=max(percentile(some, 0.99) for some in day.waits if some),
        batch_p50_s=percentile(day.batch_waits, 0.5) if day.batch_waits else 0.0,
        turned_away=(day.lost + day.expired) / max(1, runs),
        most_ready=max(day.ready),
    )
