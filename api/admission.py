"""Admission: one request becomes a cached answer, a queued job, or a refusal. Read top to bottom."""

import json
from dataclasses import dataclass

import structlog
from redis import Redis
from redis.exceptions import RedisError

from api.callers import accept
from api.errors import Problem
from api.preferences import CacheDirectives
from api.schemas import JobRequest
from api.services import Services
from inferq.completion_cache import CachedCompletion, fingerprint
from inferq.credentials import Credential
from inferq.ids import new_id
from inferq.job_store import Answer, Submission
from inferq.keys import key

log = structlog.get_logger()

#: Seconds after which a caller may try again when queue or store is full, until the wait can be predicted.
FULL_RETRY_AFTER = 5


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A stored job (``job_id``) or a cached completion, never both. ``cache_status`` is the RFC 9211 value."""

    model: str
    cache_status: str
    now_ms: int
    job_id: str | None = None
    position: int | None = None
    completion: CachedCompletion | None = None


def admit(services: Services, caller: Credential, body: JobRequest, cache: CacheDirectives, job_id: str) -> Admitted:
    """Admit ``body`` as job ``job_id`` or answer it from the cache; raises Problem 401, 404, 429, 503 or 504."""
    settings = services.settings
    model = _model(settings.public_model, body)
    caching = settings.cache_policy == "all" or (settings.cache_policy == "deterministic" and body.deterministic)
    reading = caching and not cache.no_cache
    submission = Submission(
        job_id=job_id,
        run_id=new_id(),
        engine=settings.engine_queue,
        model=model,
        priority="normal" if body.priority == "high" else body.priority,
        cost=body.cost,
        fingerprint=fingerprint(body, settings.model_name),
        scope=settings.cache_scope,
        read_cache=reading and services.cache is None,
        store=caching and not cache.no_store,
        only_if_cached=cache.only_if_cached,
        cache_status="miss" if reading else "bypass",
        max_depth=settings.max_queue_depth,
        ttl_ms=(body.result_ttl_s or settings.result_ttl) * 1000,
        request_json=body.generation_json(),
        start_ms=_ms(body.deadline.start_within_s if body.deadline else None),
        total_ms=_ms(body.deadline.total_s if body.deadline else None),
        metadata_json=json.dumps(body.metadata) if body.metadata else None,
    )
    if services.cache is not None and reading:
        found = _from_cache_server(services.cache, services, caller, submission)
        if found:
            return found
    answer = accept(services.jobs.submit(caller, submission), "requests")
    return _decided(services, submission, answer, reading=reading)


def _from_cache_server(
    cache: "Redis", services: Services, caller: Credential, submission: Submission
) -> Admitted | None:
    """Look the request up when completions live on a Redis of their own, which no script of the jobs' Redis can see."""
    known = accept(services.jobs.identify(caller, request=submission.job_id, window="requests"), "requests")
    scope = known.tenant if submission.scope == "tenant" else submission.scope
    try:
        stored = cache.get(key("cache", scope, submission.fingerprint))
    except RedisError as error:
        # Completions can be made again: without their server a hit becomes a miss, not an error.
        log.warning("cache_unavailable", reason=type(error).__name__)
        return None
    if stored is None:
        return None
    completion = CachedCompletion.from_json(stored)
    return Admitted(model=submission.model, cache_status="inferq; hit", now_ms=known.rest[0], completion=completion)


def _decided(services: Services, submission: Submission, answer: Answer, *, reading: bool) -> Admitted:
    forwarded = "inferq; fwd=miss" if reading else "inferq; fwd=request"
    match answer.outcome:
        case "hit":
            stored, now_ms = answer.rest
            completion = CachedCompletion.from_json(stored)
            return Admitted(model=submission.model, cache_status="inferq; hit", now_ms=now_ms, completion=completion)
        case "absent":
            raise Problem(
                504,
                "not-cached",
                "No cached answer to this request, and only-if-cached forbids making one.",
                headers={"Cache-Status": forwarded},
            )
        case "no_memory":
            raise Problem(
                503,
                "temporary-reduced-capacity",
                "The job store is nearly full; reads and cached answers go on. Try again later.",
                headers={"Retry-After": str(FULL_RETRY_AFTER)},
            )
        case "full":
            raise Problem(
                503,
                "temporary-reduced-capacity",
                f"{answer.rest[0]} runs wait already, which is all the queue may hold. Try again later.",
                headers={"Retry-After": str(FULL_RETRY_AFTER)},
            )
    position, bells, created_ms = answer.rest
    if bells:
        services.bells.ring(submission.engine, bells)
    return Admitted(
        model=submission.model,
        cache_status=forwarded,
        now_ms=int(created_ms),
        job_id=submission.job_id,
        position=position,
    )


def _model(served: str, body: JobRequest) -> str:
    if body.model not in ("", served):
        raise Problem(
            404,
            "model-not-found",
            f"model: this service has no such model; it serves {served}.",
            errors=[{"field": "model", "message": f"must be {served}"}],
        )
    return served


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, int(seconds * 1000))
