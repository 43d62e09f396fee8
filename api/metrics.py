"""What the API counts. Under gunicorn its processes share files (``PROMETHEUS_MULTIPROC_DIR``): any answers for all."""

import os
from collections.abc import Iterable
from typing import Final

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

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here asks for

#: Upper bounds in seconds.
ANSWER: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
AGE: Final = (1, 10, 60, 300, 900, 1800, 3600, 7200, 21_600, 86_400)

PRIORITIES: Final = ("high", "normal", "low")
DECISIONS: Final = ("cached", "coalesced", "queued", "replayed")
POLICIES: Final = ("requests", "polls", "tokens", "jobs")
#: Why a submit is refused; the first four are a key's own limits.
REASONS: Final = (
    *POLICIES, "too_costly", "unauthorized", "invalid", "model", "idempotency", "webhook", "not_cached",
    "runs_full", "tokens_full", "late", "memory_full", "store", "error",
)  # fmt: skip
#: What the cache did, by the decision about a request that asked it.
_CACHE: Final = {"cached": "hit", "coalesced": "coalesced", "queued": "miss"}


class ApiMetrics:
    """Counters of one API process. A method for each thing that happens."""

    def __init__(self, model: str) -> None:
        # In one process this is what is shown; of several it is only where the files are written from.
        self._registry = registry = CollectorRegistry()
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
        admissions = Counter(
            "inferq_admissions_total", "Submits that were not refused.", ["model", "priority", "decision"],
            registry=registry,
        )  # fmt: skip
        self._admissions = {
            (priority, decision): admissions.labels(model, priority, decision)
            for priority in PRIORITIES for decision in DECISIONS
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

    def answered(self, method: str, route: str, status: int, seconds: float, *, held: bool) -> None:
        """Count a request; how long it took only when it was not held on purpose."""
        self._requests.labels(method, route, status).inc()
        if not held:
            self._seconds.labels(method, route).observe(seconds)

    def waits(self, by: int) -> None:
        """Count a request that begins (1) or ends (-1) to be held."""
        self._waiting.inc(by)

    def admitted(self, priority: str, decision: str, *, asked_cache: bool, age_s: float | None) -> None:
        """Count a submit, and what the cache did for it."""
        self._admissions[priority, decision].inc()
        if decision != "replayed":
            self._cache[_CACHE[decision] if asked_cache else "bypass"].inc()
        if age_s is not None:
            self._age.observe(age_s)

    def refused(self, reason: str) -> None:
        """Count a submit that was refused."""
        self._refusals[reason].inc()

    def cache_error(self) -> None:
        """Count a look into the cache's own Redis that had no answer."""
        self._cache["error"].inc()

    def limited(self, policies: Iterable[str], violated: str | None) -> None:
        """Count what the limits of a key were asked."""
        for policy in policies:
            self._limiter[policy, "limited" if policy == violated else "allowed"].inc()

    def rung(self, sent: int, failed: int) -> None:
        """Count Celery messages."""
        self._sent.inc(sent)
        self._failed.inc(failed)

    def exposition(self) -> tuple[bytes, str]:
        """Return the text for Prometheus, of all processes of this API, and its content type."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # noqa: TID251  # set by gunicorn_conf, where prometheus_client asks
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST

    @property
    def registry(self) -> CollectorRegistry:
        """What this process declares, for documentation."""
        return self._registry
