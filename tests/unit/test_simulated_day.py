"""The simulated day: its model of a worker beside the simulated engine, its queue's rules, its policies."""

import random
import threading

import pytest

from bench.day.fleet import TICK_S, Day, Fleet, Worker
from bench.day.plays import WORKER, needed, play
from bench.day.policies import Autoscaled, Fixed
from bench.day.traffic import BATCH_TENANT, DAY_S, Demand, Request, Traffic, draw, rates
from inferq.requests import GenerationRequest
from workers.simulated_engine import SimulatedEngine
from workers.timing import Timing

SMALL = Traffic(requests=12_000, common=300, bursts=3, batch=0.02)
STEADY = Worker(timing=Timing(base_s=1.0), slots=1, cold_start_s=120.0)


def day_of(runs: list[Request], workers: int = 1, worker: Worker = STEADY) -> Day:
    return Fleet(worker, Fixed(name="fixed", workers=workers), start=workers).play(Demand(runs=runs))


def run(at: float, tenant: int = 1, answer: int = 10, within_s: float | None = None) -> Request:
    return Request(at, tenant, 0, answer, within_s)


def waits(day: Day) -> list[float]:
    return [wait for some in day.waits for wait in some]


def test_the_same_seed_is_the_same_day() -> None:
    assert draw(SMALL, 7).runs == draw(SMALL, 7).runs
    assert draw(SMALL, 7).runs != draw(SMALL, 8).runs


def test_the_wave_is_highest_at_its_hour_and_the_day_has_about_as_many_requests() -> None:
    calm = Traffic(requests=50_000, bursts=0, batch=0)
    rate = rates(calm, random.Random(1))
    assert rate.index(max(rate)) == calm.peak_s
    assert sum(draw(calm, 1).came) == pytest.approx(50_000, rel=0.02)


@pytest.mark.parametrize(("clients", "slots"), [(1, 16), (16, 16), (64, 16)])
def test_a_worker_takes_as_long_as_the_simulated_engine(clients: int, slots: int) -> None:
    """So many equal requests at once, until the last is done; the engine on a clock that only its steps move."""
    prompt, answer = 60, 120
    now = [0.0]
    engine = SimulatedEngine(
        slots=slots, timing=WORKER.timing, clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s)
    )
    text = f"simulate:words={answer} ".ljust(4 * prompt, "x")
    asked = [GenerationRequest(prompt=text, max_tokens=answer) for _ in range(clients)]
    threads = [
        threading.Thread(target=engine.generate, args=(str(number), one, "")) for number, one in enumerate(asked)
    ]
    for thread in threads:
        thread.start()
    while len(engine.written()) < clients:
        pass
    engine.start()
    for thread in threads:
        thread.join(30)
    engine.stop()

    worker = Worker(timing=WORKER.timing, slots=slots)
    together = min(clients, slots)
    each = worker.seconds(asked[0].estimated_prompt_tokens, answer, together - 1, asked[0].estimated_prompt_tokens)
    assert each * -(-clients // slots) == pytest.approx(now[0], rel=0.1)


def test_runs_wait_for_a_free_slot_and_a_tenant_with_many_waits_for_itself() -> None:
    noisy = [run(0.0, tenant=1) for _ in range(20)]
    day = day_of([*noisy, run(1.0, tenant=2)])
    assert sorted(waits(day))[:3] == [0.0, 10.0, 19.0], "the other's first run comes after one whose turn is as near"
    assert day.left == 0


def test_what_would_start_too_late_is_refused_and_comes_back() -> None:
    before = [run(0.0) for _ in range(10)]
    day = day_of([*before, run(1.0, within_s=5.0)])
    assert sum(day.refused) >= 1
    assert day.lost + day.expired + day.started == 11


def test_a_cold_start_is_waited_for_and_paid() -> None:
    class OneMore:
        name = "one more after an hour"

        def wanted(self, now: float, queued: int, running: int, workers: int) -> int:
            return 1 if now < 3600 else 2

    day = Fleet(STEADY, OneMore(), start=1).play(Demand())
    assert day.ready.index(2) * TICK_S == 3600 + STEADY.cold_start_s
    assert day.gpu_s == pytest.approx(DAY_S + DAY_S - 3600)


def test_what_runs_counts_so_that_nobody_is_scaled_away_under_its_work() -> None:
    policy = Autoscaled("test", target=10, least=1, most=8)
    assert [policy.wanted(15.0 * tick, 0, 35, 4) for tick in range(100)][-1] == 4
    idle = Autoscaled("test", target=10, least=1, most=8)
    found = [4]
    for tick in range(100):
        found.append(idle.wanted(15.0 * tick, 0, 0 if tick > 4 else 35, found[-1]))
    assert found[40] == 4, "fewer are asked for only after ten minutes"
    assert found[-1] == 1, "one in two minutes"


def test_no_more_are_asked_for_than_there_may_be() -> None:
    policy = Autoscaled("test", target=10, least=1, most=8)
    assert [policy.wanted(15.0 * tick, 5000, 0, 6) for tick in range(5)][-1] == 8
    slow, workers = Autoscaled("test", target=10, up=2), [6]
    for tick in range(9):
        workers.append(slow.wanted(15.0 * tick, 5000, 0, workers[-1]))
    assert (workers[4], workers[8]) == (8, 10), "two a minute"


def test_every_run_is_accounted_for() -> None:
    played = play(SMALL, 3)
    runs = len(played.demand.runs)
    for day, found in zip(played.days, played.outcomes, strict=True):
        assert day.started + day.lost + day.expired + day.left == runs
        assert found.gpu_h > 0
        assert found.p50_s <= found.p99_s
    assert sum(one.tenant == BATCH_TENANT for one in played.demand.runs) == round(0.02 * SMALL.requests)
    assert max(needed(played.demand, WORKER)) < 1
