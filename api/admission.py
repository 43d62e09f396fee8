"""Admission: one request becomes a cached answer, a queued job, or a refusal. Read top to bottom."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from flask import Response, after_this_request, g
from redis import Redis
from redis.exceptions import RedisError

from api.callers import accept, for_callers
from api.errors import Problem, busy
from api.preferences import CacheDirectives
from api.schemas import JobRequest
from api.services import Services
from inferq.catalogue import Model
from inferq.completion_cache import CachedCompletion, fingerprint
from inferq.credentials import Caller
from inferq.errors import StoreUnavailable
from inferq.job_store import Answer, Submission
from inferq.jobs import Job
from inferq.keys import key
from inferq.webhooks import BadAddress

log = structlog.get_logger()

#: Seconds after which a caller may look again for a worker: about as long as one takes to load a model.
UNSERVED_RETRY_AFTER = 30
#: ``Cache-Status`` of an answer from the cache.
HIT = "inferq; hit"


@dataclass(kw_only=True, slots=True)
class Admitted:
    """A stored job or a cached completion. ``cache_status`` is the RFC 9211 value.

    ``replayed``: the job was made by an earlier call with the same Idempotency-Key; only its id is known here.
    """

    cache_status: str
    job_id: str | None = None
    job: Job | None = None
    replayed: bool = False
    completion: CachedCompletion | None = None
    #: Of a cached completion: the model's public name, and when it was read.
    model: str = ""
    now_ms: int = 0

    @property
    def decision(self) -> str:
        """What was decided, in a word: cached, coalesced, queued or replayed."""
        if self.replayed:
            return "replayed"
        if self.cache_status == HIT:
            return "cached"
        return "coalesced" if self.cache_status.endswith("collapsed") else "queued"

    @property
    def age_s(self) -> float | None:
        """Seconds since the completion that answered had been stored."""
        if self.completion:
            return (self.now_ms - self.completion.stored_ms) / 1000
        if self.job and self.job.cached_ms is not None:
            return (self.job.created_ms - self.job.cached_ms) / 1000
        return None


def admit(
    services: Services,
    caller: Caller,
    body: JobRequest,
    cache: CacheDirectives,
    job_id: str,
    idempotency_key: str | None = None,
    *,
    told: bool = False,
) -> Admitted:
    """Admit ``body`` as job ``job_id`` or answer it from the cache; raises Problem 401, 404, 422, 429, 503 or 504.

    ``told``: its events are the answer, which wants its text while it is written, and makes it no other request.
    """
    try:
        model = _model(services, body)
        hook_url = checked_address(services, body.webhook.url, "webhook.url") if body.webhook else None
    except Problem as problem:
        raise for_callers(caller, problem) from None
    admitted = _admit(services, caller, body, (model, hook_url), cache, job_id, idempotency_key, told=told)
    asked = "fwd=request" not in admitted.cache_status
    services.metrics.admitted(model.name, body.priority, admitted.decision, asked, admitted.age_s)
    g.admitted = admitted  # for the request's line in the log
    return admitted


def _admit(
    services: Services,
    caller: Caller,
    body: JobRequest,
    checked: tuple[Model, str | None],
    cache: CacheDirectives,
    job_id: str,
    idempotency_key: str | None,
    *,
    told: bool,
) -> Admitted:
    settings, call = services.settings, g._get_current_object()  # a proxy looks itself up at every use
    model, hook_url = checked
    caching = settings.cache_policy == "all" or (settings.cache_policy == "deterministic" and body.deterministic)
    reading = caching and not cache.no_cache
    submission = Submission(
        job_id=job_id,
        run_id=job_id,  # a run is named after the job that opened it, so logs can be searched for either
        engine=model.engine,
        model=model.name,
        must_be_served=settings.without_worker == "refuse",
        priority=body.priority,
        # No run can be longer than the model's context, whatever was asked for.
        cost=min(body.cost, settings.max_model_len),
        prompt_tokens=min(body.estimated_prompt_tokens, settings.max_model_len),
        fingerprint=fingerprint(body, model.source),
        scope=settings.cache_scope,
        read_cache=reading and services.cache is None,
        store=caching and not cache.no_store,
        share=reading and not cache.no_store,
        only_if_cached=cache.only_if_cached,
        cache_status="miss" if reading else "bypass",
        max_depth=settings.max_queue_depth,
        max_tokens=settings.max_queued_tokens,
        ttl_ms=(body.result_ttl_s or settings.result_ttl) * 1000,
        request_json=body.generation_json(),
        start_ms=_ms(body.deadline.start_within_s if body.deadline else None),
        total_ms=_ms(body.deadline.total_s if body.deadline else None),
        metadata_json=json.dumps(body.metadata) if body.metadata else None,
        stream=body.stream or told,
        request_id=call.request_id,
        trace=call.carrier,
    )
    if idempotency_key is not None:
        submission = replace(
            submission,
            idempotency=_digest(idempotency_key),
            body=_digest(json.dumps([_repeatable(body), str(cache)], sort_keys=True)),
        )
    if body.webhook is not None:
        submission = replace(
            submission,
            hook_url=hook_url,
            hook_events=" ".join(sorted(set(body.webhook.events))),
            hook_output=body.webhook.include_output,
        )
    if services.cache is not None and reading:
        found = _from_cache_server(services.cache, services, caller, submission)
        if isinstance(found, Admitted):
            return found
        submission = replace(submission, completion_json=found)
    answer = accept(services.jobs.submit(caller, submission))
    if answer.outcome == "hit":
        hit = _hit(submission, *answer.rest)
        if hit:
            return hit
        answer = accept(services.jobs.submit(caller, replace(submission, read_cache=False)))
    return _decided(services, submission, answer, reading=reading)


def _from_cache_server(cache: "Redis", services: Services, caller: Caller, submission: Submission) -> Admitted | str:
    """Look the request up when completions live on a Redis of their own, which no script of the jobs' Redis can see.

    Returns the answer; or the stored completion ("": none) where a record must be written.
    """
    known = accept(
        services.jobs.identify(caller, request=submission.job_id, window="requests", idempotency=submission.idempotency)
    )
    (now_ms,) = known.rest
    scope = known.tenant if submission.scope == "tenant" else submission.scope
    try:
        stored = cache.get(key("cache", scope, submission.fingerprint))
    except RedisError as error:
        # Completions can be made again: without their server a hit becomes a miss, not an error.
        log.warning("cache_unavailable", reason=type(error).__name__)
        services.metrics.cache_error()
        return ""
    found = _hit(submission, stored, now_ms) if stored else None
    if found is None or stored is None:
        return ""
    if submission.idempotency is not None or submission.hook_url is not None:
        return str(stored)
    after_this_request(partial(_count_hit_when_sent, services, known.tenant))
    return found


def _count_hit_when_sent(services: Services, tenant: str, response: Response) -> Response:
    """Count a hit once its answer is out: nobody waits for a third round trip."""
    response.call_on_close(partial(_count_hit, services, tenant))
    return response


def _count_hit(services: Services, tenant: str) -> None:
    try:
        services.jobs.count_hit(tenant)
    except StoreUnavailable as error:
        log.warning("hit_not_counted", reason=str(error))


def _hit(submission: Submission, stored: str, now_ms: int) -> Admitted | None:
    """Return the cached answer; None when what is stored is none, as if it were not there."""
    try:
        completion = CachedCompletion.from_json(stored)
    except (TypeError, ValueError) as error:
        log.warning("cache_entry_unreadable", reason=type(error).__name__)
        return None
    return Admitted(cache_status=HIT, completion=completion, model=submission.model, now_ms=now_ms)


def _decided(services: Services, submission: Submission, answer: Answer, *, reading: bool) -> Admitted:
    forwarded = "inferq; fwd=miss" if reading else "inferq; fwd=request"
    match answer.outcome:
        case "repeat":
            return Admitted(cache_status=forwarded, job_id=answer.rest[0], replayed=True)
        case "accepted":
            job, bells = answer.rest
            if bells:
                services.bells.ring(submission.engine, bells)
            status = {"hit": HIT, "coalesced": f"{forwarded}; collapsed"}.get(job.cache, forwarded)
            return Admitted(cache_status=status, job_id=job.id, job=job)
    raise _refusal(submission, answer, forwarded)


def _refusal(submission: Submission, answer: Answer, forwarded: str) -> Problem:
    match answer.outcome, answer.rest:
        case "absent", _:
            detail = "No cached answer to this request, and only-if-cached forbids making one."
            return Problem(504, "not-cached", detail, headers={"Cache-Status": forwarded})
        case "mismatch", _:
            return Problem(
                422,
                "idempotency-key-reused",
                "Idempotency-Key: was sent with another body before; use a new key for a new request.",
                errors=[{"field": "Idempotency-Key", "message": "must not be used for another request"}],
            )
        case "no_secret" | "disabled", _:
            return webhook_refusal(answer.outcome, "webhook.url")
        case "too_costly", (limit,):
            message = f"with the prompt this reserves {submission.cost} tokens; this key may use {limit} a minute"
            return Problem(
                422,
                "invalid-request",
                f"max_tokens: {message}",
                reason="too_costly",
                errors=[{"field": "max_tokens", "message": message}],
            )
        case "late", (wait_ms,):
            deadlines = {"start_within_s": submission.start_ms, "total_s": submission.total_ms}
            within_ms, name = min((ms, name) for name, ms in deadlines.items() if ms is not None)
            return busy(
                f"The job would start in about {wait_ms / 1000:.0f} s, later than deadline.{name} allows.",
                (wait_ms - within_ms) / 1000,
                "late",
            )
        case "unserved", _:
            return Problem(
                503,
                "model-not-ready",
                f"No worker serves {submission.model} at the moment; try again in {UNSERVED_RETRY_AFTER} s.",
                headers={"Retry-After": str(UNSERVED_RETRY_AFTER)},
                reason="unserved",
            )
        case "full", (what, wait_ms):
            # When a tenth of what waits has been worked off there is room, and not only for the quickest.
            return busy(f"As many {what} wait already as the queue may hold.", wait_ms / 10_000, f"{what}_full")
    raise AssertionError(f"the submit script replies nothing like {answer.outcome}")


def checked_address(services: Services, url: str, field: str) -> str:
    """Return a webhook's address in its one spelling; raises Problem 422 that names ``field``."""
    try:
        return str(services.addresses.check(url))
    except BadAddress as error:
        raise Problem(
            422, "invalid-request", f"{field}: {error}", errors=[{"field": field, "message": str(error)}]
        ) from None


def webhook_refusal(outcome: str, field: str) -> Problem:
    """Return why a tenant's webhooks cannot go to an address now."""
    message = {
        "no_secret": "there is no secret to sign with yet; make one with POST /v1/webhooks/secrets/rotate",
        "disabled": "this address answered 410 Gone and is disabled; a test that it answers with 2xx enables it"
        " (POST /v1/webhooks/test)",
    }[outcome]
    code = {"no_secret": "no-webhook-secret", "disabled": "webhook-disabled"}[outcome]
    return Problem(422, code, f"{field}: {message}.", errors=[{"field": field, "message": message}])


def _repeatable(body: JobRequest) -> dict[str, Any]:
    """Return what makes a body the same as another; a field that came later counts only when it is used."""
    unused = {name for name in ("webhook", "stream") if not getattr(body, name)}
    return body.model_dump(mode="json", exclude=unused)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _model(services: Services, body: JobRequest) -> Model:
    if not body.model:
        return services.default_model
    model = services.models.find(body.model)
    if model is None:
        served = ", ".join(services.models.names)
        raise Problem(
            404,
            "model-not-found",
            f"model: this service has no such model; it serves {served}.",
            errors=[
                {
                    "field": "model",
                    "message": f"must be {served}" if len(services.models) == 1 else f"must be one of {served}",
                }
            ],
        )
    return model


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, int(seconds * 1000))
