"""When an engine counts as hung."""

from typing import Any, cast

from prometheus_client import CollectorRegistry

from inferq.settings import Settings
from workers.lifecycle import Worker
from workers.progress import Progress, Pulse


class Written:
    """As much of an engine as Progress looks at."""

    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}

    def written(self) -> dict[str, int]:
        return dict(self.tokens)


def test_only_an_engine_with_runs_and_no_new_tokens_is_stalled() -> None:
    engine, now = Written(), [0.0]
    progress = Progress(cast(Any, engine), 10.0, clock=lambda: now[0])

    def after(seconds: float, **tokens: int) -> bool:
        now[0] += seconds
        engine.tokens = tokens
        return progress.stalled()

    assert not after(100), "idle"
    assert not after(100, a=0), "just begun"
    assert not after(9, a=0)
    assert not after(9, a=1), "a token"
    assert not after(9, a=1, b=0), "a new run"
    assert not after(10, a=1, b=0)
    assert after(0.1, a=1, b=0)
    assert not after(0, b=0), "one has ended"


def test_a_loop_is_stuck_when_it_has_not_come_round_for_the_limit() -> None:
    now = [0.0]
    pulse = Pulse(60.0, clock=lambda: now[0])
    now[0] = 60.0
    assert pulse.felt, "it has only begun"
    now[0] = 60.1
    assert not pulse.felt
    pulse.beat()
    assert pulse.felt


def test_a_worker_is_stuck_when_nobody_watches_its_engine_and_it_does_not_end() -> None:
    now = [0.0]
    settings = Settings(_env_file=None, engine="simulated", redis_url="redis://127.0.0.1:1")
    worker = Worker(settings, registry=CollectorRegistry())
    worker._watch = Pulse(60.0, clock=lambda: now[0])
    now[0] = 1000.0
    assert worker._alive(), "a model may take its time"
    for state, alive in (("ready", False), ("dead", False), ("draining", True)):
        worker.state = state
        assert worker._alive() == alive, state
    worker._watch.beat()
    for state in ("ready", "dead"):
        worker.state = state
        assert worker._alive(), "it is about to end, or in order"
