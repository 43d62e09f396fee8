"""What the API counts. Under gunicorn its processes share files (``PROMETHEUS_MULTIPROC_DIR``): any answers for all."""

import atexit
import os
import threading
import time
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from inferq import __version__
from inferq.job_store import RateState

log = structlog.get_logger()

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here asks for

#: Upper bounds in seconds.
ANSWER: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
AGE: Final = (1, 10, 60, 300, 900, 1800, 3600, 7200, 21_600, 86_400)

#: A client may send any word as a method, and must not make a series of it.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
PRIORITIES: Final = ("high", "normal", "low")
DECISIONS: Final = ("cached", "coalesced", "queued", "replayed")
POLICIES: Final = ("requests", "polls", "tokens", "jobs")
#: Why a submit is refused; the first four are a key's own limits.
REASONS: Final = (
    *POLICIES, "too_costly", "unauthorized", "invalid", "model", "idempotency", "webhook", "not_cached",
    "unserved", "runs_full", "tokens_full", "late", "memory_full", "waiters", "store", "error",
)  # fmt: skip
#: What the cache did, by the decision about a request that asked it.
_CACHE: Final = {"cached": "hit", "coalesced": "coalesced", "queued": "miss"}


#: Seconds for which a request is only noted. A killed process takes so much along.
EVERY_S: Final = 0.1

Noted = TypeVar("Noted")
_Answer = tuple[str, str, int, float | None, Iterable[RateState], str | None, str | None]


class ApiMetrics:
    """Counters of one API process. A method for each thing that happens."""

    def __init__(self, models: Iterable[str]) -> None:
        # In one process this is what is shown; of several it is only where the files are written from.
        self._registry = registry = CollectorRegistry()
        #: What has been noted and not been counted yet: arguments of answered() and admitted().
        self._answers: deque[_Answer] = deque()
        self._submits: deque[tuple[str, str, str, bool, float | None]] = deque()
        self._counting: threading.Thread | None = None
        build = Gauge(
            "inferq_build_info", "1, with version and role.", ["version", "role"], registry=registry,
            multiprocess_mode="mostrecent",
        )  # fmt: skip
        build.labels(__version__, "api").set(1)
        self._requests = Counter(
            "inferq_http_requests_total", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "inferq_http_request_seconds", "Requests that did not ask to wait.", ["method", "route"],
            buckets=ANSWER, registry=registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "inferq_http_waiting", "Requests held by Prefer: wait.", registry=registry, multiprocess_mode="livesum"
        )
        self._following = Gauge(
            "inferq_http_streams", "Event streams and WebSockets that are open.", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        admissions = Counter(
            "inferq_admissions_total", "Submits that were not refused.", ["model", "priority", "decision"],
            registry=registry,
        )  # fmt: skip
        self._admissions = {
            (model, priority, decision): admissions.labels(model, priority, decision)
            for model in models for priority in PRIORITIES for decision in DECISIONS
        }  # fmt: skip
        refusals = Counter("inferq_refusals_total", "Submits that were refused.", ["reason"], registry=registry)
        self._refusals = {reason: refusals.labels(reason) for reason in REASONS}
        cache = Counter(
            "inferq_cache_requests_total", "Submits by what the cache did; error: its own Redis did not answer.",
            ["result"], registry=registry,
        )  # fmt: skip
        self._cache = {name: cache.labels(name) for name in ("hit", "miss", "coalesced", "bypass", "error")}
        self._age = Histogram(
            "inferq_cache_hit_age_seconds", "Age of completions that answered.", buckets=AGE, registry=registry
        )
        limiter = Counter(
            "inferq_limiter_decisions_total", "Decisions about a key's limits.", ["policy", "decision"],
            registry=registry,
        )  # fmt: skip
        self._limiter = {
            (policy, decision): limiter.labels(policy, decision)
            for policy in POLICIES for decision in ("allowed", "limited")
        }  # fmt: skip
        bells = Counter("inferq_bells_rung_total", "Celery messages sent to workers.", ["result"], registry=registry)
        self._sent, self._failed = bells.labels("sent"), bells.labels("failed")

    def answered(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float | None,
        rates: Iterable[RateState] = (),
        violated: str | None = None,
        refusal: str | None = None,
    ) -> None:
        """Count a request.

        ``seconds``: how long it took; None when it was held on purpose. ``rates``: the limits that were asked, and
        ``violated`` that which was. ``refusal``: why a submit was refused.
        """
        self._answers.append((method, route, status, seconds, rates, violated, refusal))
        self._count_soon()

    def waits(self, by: int) -> None:
        """Count a request that begins (1) or ends (-1) to be held."""
        self._waiting.inc(by)

    def follows(self, by: int) -> None:
        """Count an event stream or WebSocket that opens (1) or closes (-1)."""
        self._following.inc(by)

    def admitted(self, model: str, priority: str, decision: str, asked_cache: bool, age_s: float | None) -> None:
        """Count a submit, and what the cache did for it: whether it was asked, how old was what it had."""
        self._submits.append((model, priority, decision, asked_cache, age_s))

    def cache_error(self) -> None:
        """Count a look into the cache's own Redis that had no answer."""
        self._cache["error"].inc()

    def rung(self, sent: int, failed: int) -> None:
        """Count Celery messages."""
        self._sent.inc(sent)
        self._failed.inc(failed)

    def exposition(self) -> tuple[bytes, str]:
        """Return the text for Prometheus, of all processes of this API, and its content type."""
        self._count()
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # noqa: TID251  # set by gunicorn_conf, where prometheus_client asks
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST

    @property
    def registry(self) -> CollectorRegistry:
        """What this process declares, for documentation."""
        return self._registry

    def _count_soon(self) -> None:
        # Started when it is first needed: a web server forks after its application is made.
        if self._counting is None or not self._counting.is_alive():
            self._counting = threading.Thread(target=self._count_forever, name="metrics", daemon=True)
            self._counting.start()
            atexit.register(self._count)

    def _count_forever(self) -> None:
        while True:
            time.sleep(EVERY_S)
            try:
                self._count()
            except Exception as error:  # a mistake in one count must not be the end of all others
                log.error("counting_broke", error=type(error).__name__)

    def _count(self) -> None:
        """Count what has been noted: many at once, for a fraction of what each would cost within its request."""
        submits = list(_drained(self._submits))
        times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        requests: Tally[tuple[str, str, int]] = Tally()
        limits: Tally[tuple[str, str]] = Tally()
        for named, route, status, seconds, rates, violated, refusal in _drained(self._answers):
            method = named if named in METHODS else "other"
            requests[method, route, status] += 1
            if seconds is not None:
                times[method, route].append(seconds)
            for rate in rates:
                limits[rate.policy, "limited" if rate.policy == violated else "allowed"] += 1
            if refusal:
                self._refusals[refusal].inc()
        for (method, route, status), count in requests.items():
            self._requests.labels(method, route, status).inc(count)
        for (method, route), taken in times.items():
            timer = self._seconds.labels(method, route)
            for seconds in taken:
                timer.observe(seconds)
        for limit, count in limits.items():
            self._limiter[limit].inc(count)
        for (model, priority, decision, asked), count in Tally(submit[:4] for submit in submits).items():
            self._admissions[model, priority, decision].inc(count)
            if decision != "replayed":
                self._cache[_CACHE[decision] if asked else "bypass"].inc(count)
        for *_, age_s in submits:
            if age_s is not None:
                self._age.observe(age_s)


def _drained(noted: deque[Noted]) -> Iterator[Noted]:
    """Take what is there, whoever else takes or adds meanwhile."""
    while True:
        try:
            yield noted.popleft()
        except IndexError:
            return
