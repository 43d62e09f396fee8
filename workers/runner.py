"""One attempt: claim a run, let the engine do it, write down what came of it. No Celery, no vLLM."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

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
    ) -> None:
        self._engine = engine
        self._streams = streams
        self._metrics = metrics
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
        try:
            self._bells.ring(self._store.engine, bells)
            outcome, tokens, waiting = self._execute(run)
        finally:
            self.held.remove(run)
        seconds = time.monotonic() - began
        self._metrics.attempt(outcome, seconds)
        log.info("attempt_ended", run=run.id, attempt=run.attempt, outcome=outcome, tokens=tokens, seconds=seconds)
        return Attempt(
            outcome=outcome, run=run.id, attempt=run.attempt, tokens=tokens, seconds=seconds, more=waiting > 0
        )

    def _execute(self, run: ClaimedRun) -> tuple[str, int, int]:
        """Return the outcome, tokens written, and how many runs wait; one when nobody has asked."""
        try:
            request = GenerationRequest.model_validate_json(run.request_json)
            began = time.monotonic()
            with self._streams.of(run):
                completion = self._engine.generate(run.id, request, run.scope)
            self._metrics.completion(completion, time.monotonic() - began)
        except RequestFailed as error:
            code, message, retryable = error.code, str(error), error.retryable
            kept = self._write(lambda: self._store.fail(run, code=code, message=message, retryable=retryable))
            return ("failed" if kept else "refused"), 0, 1
        except RunAborted:
            return self._hand_back(run, strikes=0), 0, 1
        except EngineGone:
            self.close()
            return self._hand_back(run, strikes=0), 0, 1
        except EngineDead:
            self.close()
            return self._hand_back(run, strikes=1), 0, 1
        except MemoryError:
            # Nobody knows what else in this process lacks a piece now.
            self.close()
            self._engine.kill()
            return self._hand_back(run, strikes=1), 0, 1
        except Exception as error:  # a bug must not strand a run until its lease ends
            log.error("attempt_broke", run=run.id, error=type(error).__name__)
            kept = self._write(
                lambda: self._store.fail(
                    run, code="internal_error", message="the worker made a mistake; it has been logged", retryable=True
                )
            )
            return ("failed" if kept else "refused"), 0, 1
        entry = self._entry(run, completion)
        if entry and self._cache is not None:
            self._cache_apart(run, entry)
            entry = None
        heard = self.idle.heard
        kept, waiting = self._write(
            lambda: self._store.complete(run, completion, cache_entry=entry, cache_ttl_s=self._cache_ttl_s)
        ) or (False, 0)
        self.idle.learn(heard, waiting)
        return ("completed" if kept else "refused"), completion.completion_tokens, waiting

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
