"""Exports what is in Redis. Every keeper says the same: aggregate over them with ``max``, never with ``sum``."""

from collections.abc import Iterator
from typing import Final

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferq.errors import StoreUnavailable
from inferq.job_store import EngineState, JobStore
from inferq.measures import EngineMeasures, Measures, read_measures
from inferq.scripts import Scripts

log = structlog.get_logger()

PRIORITIES: Final = ("high", "normal", "low")
OUTCOMES: Final = ("completed", "failed", "cancelled", "expired")
WORKER_STATES: Final = ("warming", "ready", "draining", "dead")
REASONS: Final = ("poison", "worker_lost")
STEPS: Final = ("complete", "fail", "release")

_UP: Final = (
    "inferq_redis_up",
    "1 when Redis answered this scrape; when 0, all else that is read from Redis is absent.",
)


class QueueCollector(Collector):
    """Asks Redis at each scrape."""

    def __init__(self, scripts: Scripts, jobs: JobStore) -> None:
        self._scripts = scripts
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """Yield all families, or only that Redis did not answer."""
        try:
            measures = read_measures(self._scripts, self._jobs)
        except StoreUnavailable as error:
            log.warning("measures_missed", reason=str(error))
            yield GaugeMetricFamily(*_UP, value=0)
            return
        yield GaugeMetricFamily(*_UP, value=1)
        yield from whole_families(measures)
        families = EngineFamilies()
        for state in measures.states:
            families.add_state(state)
        for engine in measures.engines:
            families.add_engine(engine)
        yield from families.all

    @staticmethod
    def describe() -> Iterator[Metric]:
        """Yield the families without samples: nothing is asked when the collector is registered."""
        yield GaugeMetricFamily(*_UP)
        yield from whole_families()
        yield from EngineFamilies().all


def whole_families(m: Measures | None = None) -> Iterator[Metric]:
    """Yield what has no engine; without values for None."""
    gauges: tuple[tuple[str, str, float | None], ...] = (
        ("dead_letters", "Runs given up that wait for an operator.", m.dead_letters if m else None),
        ("webhook_backlog", "Deliveries that have not ended.", m.backlog if m else None),
        ("webhook_oldest_seconds", "Age of the oldest of them; 0: none.", m.oldest_delivery_s if m else None),
        ("webhook_dead_letters", "Deliveries given up.", m.dead_deliveries if m else None),
        ("redis_memory_used_bytes", "Memory Redis uses.", m.memory_used if m else None),
        ("redis_memory_max_bytes", "Memory Redis may use; 0: no limit.", m.memory_max if m else None),
    )
    for name, says, value in gauges:
        yield GaugeMetricFamily(f"inferq_{name}", says, value=value)
    ended = CounterMetricFamily("inferq_webhook_deliveries", "Deliveries by how they ended.", labels=["outcome"])
    if m:
        for outcome in ("delivered", "dead"):
            ended.add_metric([outcome], m.deliveries.get(outcome, 0))
    yield ended


class EngineFamilies:
    """The families with a series for each engine, which is called ``model`` outside."""

    def __init__(self) -> None:
        self.all: list[Metric] = []
        self.depth = self._gauge("queue_depth", "Jobs that wait.", "priority")
        self.lines = self._gauge("queue_runs", "Runs that wait; suspects wait in lines of their own.", "line")
        self.tokens = self._gauge("queue_tokens", "Tokens reserved by what waits.")
        self.oldest = self._gauge("queue_oldest_seconds", "Age of the oldest run that waits; 0: none.")
        self.predicted = self._gauge(
            "queue_predicted_wait_seconds", "How long a new job would wait; absent when nobody can say."
        )
        self.paused = self._gauge("queue_paused", "1 when an operator has paused the engine.")
        self.running = self._gauge("runs_in_progress", "Runs in engines.")
        self.slots = self._gauge("engine_slots", "Slots of workers that are ready.")
        self.workers = self._gauge("workers", "Workers that give signs of life.", "state")
        self.bells = self._gauge("bells_waiting", "Celery messages in the engine's list.")
        self.finished = self._counter("jobs_finished", "Jobs that have ended.", "priority", "outcome")
        self.rescues = self._counter("rescues", "Runs taken back from a worker whose lease had ended.")
        self.strikes = self._counter("strikes", "Strikes for runs that were in an engine when it died.")
        self.given_up = self._counter("runs_given_up", "Runs given up for good.", "reason")
        self.fenced = self._counter(
            "fenced", "Writes refused because the attempt was another worker's by then.", "step"
        )
        self.deaths = self._counter("engine_deaths", "Engines that died or hung, as their workers said.")
        self.waits = self._histogram("job_queue_wait_seconds", "From submit to the first start of a job.", "priority")
        self.durations = self._histogram("job_duration_seconds", "From submit to completion of a job.", "priority")
        self.freed = self._histogram(
            "cancel_freed_seconds", "From cancel or deadline of a run until its engine had freed it."
        )

    def add_state(self, state: EngineState) -> None:
        """Add what ``GET /v1/queue`` says too."""
        model = state.engine
        for priority in PRIORITIES:
            self.depth.add_metric([model, priority], state.waiting.get(priority, 0))
        self.tokens.add_metric([model], state.tokens)
        self.oldest.add_metric([model], state.oldest_s)
        if state.wait_ms is not None:
            self.predicted.add_metric([model], state.wait_ms / 1000)
        self.paused.add_metric([model], int(state.paused))
        self.slots.add_metric([model], state.slots)
        said = [worker.get("state") for worker in state.workers]
        for name in WORKER_STATES:
            self.workers.add_metric([model, name], said.count(name))

    def add_engine(self, engine: EngineMeasures) -> None:
        """Add lines and totals."""
        model, totals = engine.engine, engine.totals
        for line, count in engine.lines.items():
            self.lines.add_metric([model, line], count)
        self.running.add_metric([model], engine.running)
        self.bells.add_metric([model], engine.bells)
        for priority in PRIORITIES:
            for outcome in OUTCOMES:
                self.finished.add_metric([model, priority, outcome], totals.get(f"finished {priority} {outcome}", 0))
            for family, name in ((self.waits, "wait"), (self.durations, "duration")):
                buckets, total = engine.histogram(f"{name} {priority}")
                family.add_metric([model, priority], buckets, total)
        self.rescues.add_metric([model], totals.get("rescues", 0))
        self.strikes.add_metric([model], totals.get("strikes", 0))
        self.deaths.add_metric([model], totals.get("deaths", 0))
        for reason in REASONS:
            self.given_up.add_metric([model, reason], totals.get(f"given_up {reason}", 0))
        for step in STEPS:
            self.fenced.add_metric([model, step], totals.get(f"fenced {step}", 0))
        self.freed.add_metric([model], *engine.histogram("freed"))

    def _gauge(self, name: str, says: str, *labels: str) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"inferq_{name}", says, labels=["model", *labels])
        self.all.append(family)
        return family

    def _counter(self, name: str, says: str, *labels: str) -> CounterMetricFamily:
        family = CounterMetricFamily(f"inferq_{name}", says, labels=["model", *labels])
        self.all.append(family)
        return family

    def _histogram(self, name: str, says: str, *labels: str) -> HistogramMetricFamily:
        family = HistogramMetricFamily(f"inferq_{name}", says, labels=["model", *labels])
        self.all.append(family)
        return family
