"""What each worker and keeper process counts by itself; what must outlive them is counted in Redis."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from inferq import __version__
from inferq.measures import BOUNDS
from inferq.run_store import Completion
from workers.queue_collector import WORKER_STATES

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here asks for

#: Upper bounds in seconds.
FIRST_TOKEN: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
PER_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
SENDING: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)

ATTEMPT_OUTCOMES: Final = ("completed", "failed", "queued", "cancelled", "expired", "refused")
#: How an attempt at a delivery went: the class of its answer, none, an address that must not be reached, our mistake.
SENT: Final = ("2xx", "3xx", "4xx", "5xx", "no_answer", "refused", "broke")


def _counter(registry: CollectorRegistry, name: str, says: str, **labels: tuple[str, ...]) -> Counter:
    """Return a counter of one label whose series all exist from the start, so that rates see zeros."""
    made = Counter(f"inferq_{name}", says, list(labels), registry=registry)
    for label, values in labels.items():
        for value in values:
            made.labels(**{label: value})
    return made


class BellMetrics:
    """Celery messages this process has sent."""

    def __init__(self, registry: CollectorRegistry, role: str) -> None:
        build = Gauge("inferq_build_info", "1, with version and role.", ["version", "role"], registry=registry)
        build.labels(__version__, role).set(1)
        self._rung = _counter(
            registry, "bells_rung_total", "Celery messages sent to workers.", result=("sent", "failed")
        )

    def rung(self, sent: int, failed: int) -> None:
        """Count bells."""
        self._rung.labels("sent").inc(sent)
        self._rung.labels("failed").inc(failed)


class WorkerMetrics(BellMetrics):
    """A GPU worker."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        super().__init__(registry, "worker")

        def histogram(name: str, says: str, bounds: tuple[float, ...]) -> Histogram:
            made = Histogram(f"inferq_{name}_seconds", says, ["model"], buckets=bounds, registry=registry)
            return made.labels(model)

        def tokens(name: str, says: str) -> Counter:
            return Counter(f"inferq_{name}_tokens_total", says, ["model"], registry=registry).labels(model)

        self._ready = Gauge("inferq_worker_ready", "1 when the worker takes runs.", registry=registry)
        self._state = Gauge("inferq_engine_state", "1 for the engine's state.", ["state"], registry=registry)
        self._load = Gauge("inferq_engine_load_seconds", "Loading and warming up the engine.", registry=registry)
        self._slots = Gauge("inferq_worker_slots", "Runs the engine can hold together.", registry=registry)
        self._running = Gauge("inferq_worker_running", "Runs the worker holds.", registry=registry)
        self._attempts = _counter(registry, "attempts_total", "Attempts by outcome.", outcome=ATTEMPT_OUTCOMES)
        self._first = histogram(
            "time_to_first_token", "From the engine's start on a run to its first token.", FIRST_TOKEN
        )
        self._each = histogram("time_per_output_token", "Per token after the first, by run.", PER_TOKEN)
        self._generation = histogram("generation", "An attempt, from claim to result.", BOUNDS)
        self._read = tokens("prompt", "Prompt tokens read.")
        self._written = tokens("completion", "Tokens written.")
        self._pieces = Counter(
            "inferq_stream_pieces_total", "Pieces of text told while their runs run.", registry=registry
        )
        self._answered = _counter(
            registry, "bells_answered_total", "Bells by what they found.", found=("runs", "nothing")
        )
        self._beats = _counter(registry, "heartbeats_total", "Heartbeats.", result=("done", "missed"))
        self.state("warming", slots=0, running=0)

    def state(self, state: str, *, slots: int, running: int) -> None:
        """Say how the worker is."""
        for name in WORKER_STATES:
            self._state.labels(name).set(name == state)
        self._ready.set(state == "ready")
        self._slots.set(slots)
        self._running.set(running)

    def loaded(self, seconds: float) -> None:
        """Note how long the engine took to be ready."""
        self._load.set(seconds)

    def attempt(self, outcome: str, seconds: float) -> None:
        """Count an attempt."""
        self._attempts.labels(outcome).inc()
        self._generation.observe(seconds)

    def completion(self, completion: Completion, seconds: float) -> None:
        """Count what the engine produced in so many seconds."""
        first_s, tokens = completion.ttft_ms / 1000, completion.completion_tokens
        self._first.observe(first_s)
        if tokens > 1:
            self._each.observe(max(0.0, seconds - first_s) / (tokens - 1))
        self._read.inc(completion.prompt_tokens)
        self._written.inc(tokens)

    def pieces(self, count: int) -> None:
        """Count pieces of text that were told while their runs run."""
        self._pieces.inc(count)

    def bell(self, *, found: bool) -> None:
        """Count a bell that was answered."""
        self._answered.labels("runs" if found else "nothing").inc()

    def beat(self, *, done: bool) -> None:
        """Count a heartbeat."""
        self._beats.labels("done" if done else "missed").inc()


class KeeperMetrics(BellMetrics):
    """A keeper."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "keeper")
        self._sent = _counter(registry, "webhook_attempts_total", "Attempts at deliveries by result.", result=SENT)
        self._sending = Histogram(
            "inferq_webhook_attempt_seconds", "Attempts at deliveries.", buckets=SENDING, registry=registry
        )
        self._ticks = _counter(registry, "keeper_ticks_total", "Sweeps.", result=("done", "missed"))
        self._restored = Counter(
            "inferq_bells_restored_total", "Bells that were lost, rung again by a sweep.", registry=registry
        )

    def sent(self, result: str, seconds: float) -> None:
        """Count an attempt at a delivery."""
        self._sent.labels(result).inc()
        self._sending.observe(seconds)

    def tick(self, *, done: bool) -> None:
        """Count a sweep."""
        self._ticks.labels("done" if done else "missed").inc()

    def restored(self, bells: int) -> None:
        """Count bells that a sweep found missing."""
        self._restored.inc(bells)
