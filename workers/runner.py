"""One attempt: claim a run, let the engine do it, write down what came of it. No Celery, no vLLM."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import structlog
from redis import Redis
from redis.exceptions import RedisError

from inferq.completion_cache import CACHEABLE, CachedCompletion
from inferq.errors import EngineDead, EngineGone, RequestFailed, RunAborted, StoreUnavailable
from inferq.ids import new_id
from inferq.keys import key
from inferq.queue import Ringer
from inferq.requests import GenerationRequest
from inferq.run_store import ClaimedRun, Completion, RunStore
from inferq.tracing import Span, Tracer, Value, trace_of
from workers.engine import Engine
from workers.metrics import WorkerMetrics
from workers.slots import IdleSlots
from workers.token_streams import TokenStreams

log = structlog.get_logger()

Written = TypeVar("Written")

#: Seconds between tries to write a result while Redis is away. The lease ends the trying: a rescued run is refused.
RETRY_DELAY = 0.5


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What came of one bell. ``outcome``: nothing (no run waited), completed, failed, queued (handed back), cancelled,
    expired, refused (the attempt was no longer ours).
    """

    outcome: str
    run: str = ""
    attempt: int = 0
    tokens: int = 0
    seconds: float = 0.0
    #: Whether it is worth claiming again at once.
    more: bool = False


class Ended(NamedTuple):
    """How an attempt ended: its outcome, what the engine wrote, and how many runs wait; one when nobody has asked."""

    outcome: str
    completion: Completion | None = None
    waiting: int = 1


class Held:
    """The runs this worker has in memory, with their fences: what the heartbeat renews."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, int] = {}

    def add(self, run: ClaimedRun) -> None:
        """Start to hold a run."""
        with self._lock:
            self._runs[run.id] = run.fence

    def remove(self, run: ClaimedRun) -> None:
        """Hold a run no more, unless a newer attempt of it is held by now."""
        with self._lock:
            if self._runs.get(run.id) == run.fence:
                del self._runs[run.id]

    def pairs(self) -> list[tuple[str, int]]:
        """Return (run id, fence) of every run held."""
        with self._lock:
            return list(self._runs.items())

    def __len__(self) -> int:
        return len(self._runs)


class Runner:
    """Executes runs on one engine, from as many threads as the engine has slots."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: RunStore,
        bells: Ringer,
        cache: "Redis | None",
        cache_ttl_s: int,
        metrics: WorkerMetrics,
        streams: TokenStreams,
        tracer: Tracer,
    ) -> None:
        self._engine = engine
        self._streams = streams
        self._metrics = metrics
        self._tracer = tracer
        self._store = store
        self._bells = bells
        self._cache = cache
        self._cache_ttl_s = cache_ttl_s
        self.held = Held()
        self.idle = IdleSlots()
        #: Set when the worker drains or its engine has died: nothing more is claimed.
        self.closed = threading.Event()
        #: Set when the process is about to end: threads stop waiting for Redis.
        self.leaving = threading.Event()

    def close(self) -> None:
        """Claim nothing more; slots that wait for work stop waiting."""
        self.closed.set()
        self.idle.close()

    def run_next(self) -> Attempt:
        """Claim the next run and see it through; raises StoreUnavailable when it could not even be claimed."""
        if self.closed.is_set():
            return Attempt(outcome="nothing")
        heard = self.idle.heard
        run, bells = self._store.claim(new_id())
        self.idle.learn(heard, run.left if run else 0)
        if run is None:
            return Attempt(outcome="nothing")
        self.held.add(run)
        began = time.monotonic()
        about = {"run": run.id, "attempt": run.attempt} | ({"request_id": run.request_id} if run.request_id else {})
        with structlog.contextvars.bound_contextvars(**about):  # every line of this attempt names it
            try:
                self._bells.ring(self._store.engine, bells)
                ended = self._traced(run)
            finally:
                self.held.remove(run)
            seconds = time.monotonic() - began
            self._metrics.attempt(ended.outcome, seconds)
            log.info("attempt_ended", **_line(run, ended, seconds))
        return Attempt(
            outcome=ended.outcome,
            run=run.id,
            attempt=run.attempt,
            tokens=ended.completion.completion_tokens if ended.completion else 0,
            seconds=seconds,
            more=ended.waiting > 0,
        )

    def _traced(self, run: ClaimedRun) -> Ended:
        about: dict[str, Value | None] = {
            "inferq__run": run.id,
            "inferq__attempt": run.attempt,
            "inferq__request_id": run.request_id,
        }
        if run.attempt == 1:
            self._tracer.past("queue", run.trace, round(1000 * time.time()) - run.waited_ms, **about)
        with self._tracer.span("attempt", "consumer", run.trace, **about) as span:
            ended = self._execute(run, span)
            span.note(inferq__outcome=ended.outcome)
            if ended.outcome in ("failed", "refused"):
                span.failed(ended.outcome)
            return ended

    def _generate(self, run: ClaimedRun, span: Span) -> Completion:
        request = GenerationRequest.model_validate_json(run.request_json)
        with self._tracer.span("engine", "internal", span.carrier, gen_ai__request__model=run.model) as engine:
            began = time.monotonic()
            with self._streams.of(run):
                completion = self._engine.generate(run.id, request, run.scope)
            self._metrics.completion(completion, time.monotonic() - began)
            engine.note(
                gen_ai__usage__input_tokens=completion.prompt_tokens,
                gen_ai__usage__output_tokens=completion.completion_tokens,
                inferq__finish_reason=completion.finish_reason,
                inferq__ttft_ms=completion.ttft_ms,
            )
        return completion

    def _execute(self, run: ClaimedRun, span: Span) -> Ended:
        try:
            completion = self._generate(run, span)
        except RequestFailed as error:
            code, message, retryable = error.code, str(error), error.retryable
            kept = self._write(lambda: self._store.fail(run, code=code, message=message, retryable=retryable))
            return Ended("failed" if kept else "refused")
        except RunAborted:
            return Ended(self._hand_back(run, strikes=0))
        except EngineGone:
            self.close()
            return Ended(self._hand_back(run, strikes=0))
        except EngineDead:
            self.close()
            return Ended(self._hand_back(run, strikes=1))
        except MemoryError:
            # Nobody knows what else in this process lacks a piece now.
            self.close()
            self._engine.kill()
            return Ended(self._hand_back(run, strikes=1))
        except Exception as error:  # a bug must not strand a run until its lease ends
            log.error("attempt_broke", error=type(error).__name__)
            kept = self._write(
                lambda: self._store.fail(
                    run, code="internal_error", message="the worker made a mistake; it has been logged", retryable=True
                )
            )
            return Ended("failed" if kept else "refused")
        entry = self._entry(run, completion)
        if entry and self._cache is not None:
            self._cache_apart(run, entry)
            entry = None
        heard = self.idle.heard
        kept, waiting = self._write(
            lambda: self._store.complete(run, completion, cache_entry=entry, cache_ttl_s=self._cache_ttl_s)
        ) or (False, 0)
        self.idle.learn(heard, waiting)
        return Ended("completed" if kept else "refused", completion, waiting)

    def _entry(self, run: ClaimedRun, completion: Completion) -> CachedCompletion | None:
        if not run.store or completion.finish_reason not in CACHEABLE:
            return None
        return CachedCompletion(
            text=completion.text,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            model=run.model,
            stored_ms=time.time_ns() // 1_000_000,
        )

    def _cache_apart(self, run: ClaimedRun, entry: CachedCompletion) -> None:
        """Write to the completions' own Redis, before the run completes: who reads the result may ask again at once."""
        assert self._cache is not None  # noqa: S101  # the caller has checked; said for the type checker
        try:
            self._cache.set(key("cache", run.scope, run.fingerprint), entry.to_json(), ex=self._cache_ttl_s)
        except RedisError as error:
            log.warning("cache_unavailable", reason=type(error).__name__)

    def _hand_back(self, run: ClaimedRun, *, strikes: int) -> str:
        outcome, bells = self._write(lambda: self._store.release(run, strikes=strikes)) or ("refused", 0)
        self._bells.ring(self._store.engine, bells)
        return outcome

    def _write(self, transition: Callable[[], Written]) -> Written | None:
        """Make a transition, however long Redis is away: what the engine has produced is not thrown away.

        Returns None when the process must end before Redis is back; the rescue takes over.
        """
        while True:
            try:
                return transition()
            except StoreUnavailable as error:
                log.warning("result_waits_for_store", reason=str(error))
                if self.leaving.wait(RETRY_DELAY):
                    return None


def _line(run: ClaimedRun, ended: Ended, seconds: float) -> dict[str, str | int | float]:
    said: dict[str, str | int | float] = {"outcome": ended.outcome, "seconds": round(seconds, 3)}
    if run.attempt == 1:
        said["queue_s"] = run.waited_ms / 1000
    if ended.completion:
        said |= {
            "ttft_s": ended.completion.ttft_ms / 1000,
            "prompt_tokens": ended.completion.prompt_tokens,
            "tokens": ended.completion.completion_tokens,
            "finish_reason": ended.completion.finish_reason,
        }
    trace = trace_of(run.trace)
    return said | {"trace": trace} if trace else said
