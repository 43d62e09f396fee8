"""``POST /v1/jobs``: submit; answered at once, at the job's end, or by its events as they happen."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from threading import Event as Changed
from typing import Final

from flask import Blueprint, Request, Response, g, jsonify, request

from api.admission import Admitted, admit
from api.answers import JobBody
from api.callers import accept, caller_of, for_callers
from api.errors import Problem
from api.events import EVENTS, begin, event_stream, follow
from api.follow import Event, told_from_cache
from api.jobs import preference_applied, read, retry_after, validated
from api.preferences import CacheDirectives, idempotency_key, wait_of
from api.representations import age_s, cached_body, job_body
from api.schemas import JobRequest
from api.services import Services, services
from inferq.credentials import Caller
from inferq.event_streams import Followed, Place
from inferq.ids import new_id
from inferq.jobs import Job

blueprint = Blueprint("submissions", __name__)

#: Seconds a submit may be held open (design: HTTP contract).
MOST_SUBMIT_WAIT: Final = 60


@blueprint.post("/v1/jobs")
def create_job() -> Response:
    """Admit a job: 202, or 200 when the answer is cached, comes within ``Prefer: wait``, or is told by events."""
    call: Request = request._get_current_object()  # type: ignore[attr-defined]  # a proxy looks itself up at every use
    svc, caller = services(), caller_of(call)
    body = validated(caller, JobRequest, call)
    if wants_events(call):
        return _tell(svc, caller, body, call)
    wait_s = wait_of(call, MOST_SUBMIT_WAIT)
    admitted = submit(svc, caller, body, wait_s, call)
    answer = jsonify(_body(admitted, admitted.job, body))
    job = admitted.job
    if job:
        answer.status_code = 200 if job.status.is_terminal else 202
        if answer.status_code == 202:
            answer.headers["Retry-After"] = str(retry_after(job))
    return preference_applied(_described(answer, admitted, job), wait_s)


def wants_events(call: Request) -> bool:
    """Whether the client would rather have events than a job (RFC 9110 §12.5.1)."""
    if EVENTS not in call.environ.get("HTTP_ACCEPT", "").lower():
        return False

    def named(media: str) -> float:
        """Return the highest weight a type was given by its name, whatever its parameters."""
        asked = ((one.partition(";")[0].strip().lower(), weight) for one, weight in call.accept_mimetypes)
        return max((weight for one, weight in asked if one == media), default=0.0)

    return named(EVENTS) > named("application/json")


def submit(svc: Services, caller: Caller, body: JobRequest, wait_s: int, call: Request) -> Admitted:
    """Admit ``body``; with ``wait_s`` wait for its end. What is returned has a job or a completion."""
    job_id, directives, repeatable = _asked(caller, call)
    if not wait_s:
        admitted = admit(svc, caller, body, directives, job_id, repeatable)
        if admitted.completion or admitted.job:
            return admitted
        return replace(admitted, job=read(svc, caller, admitted.job_id or "", job_id))
    until = time.monotonic() + wait_s
    with svc.waiters.watch(job_id, end_only=True) as changed:
        admitted = admit(svc, caller, body, directives, job_id, repeatable)
        if admitted.completion or (admitted.job and (changed is None or admitted.job.status.is_terminal)):
            return admitted
        if admitted.job and changed:
            return replace(admitted, job=_ended(svc, caller, job_id, changed, job_id, until))
    # An earlier call made the job: it has another id than the one that was watched.
    earlier = admitted.job_id or ""
    with svc.waiters.watch(earlier, end_only=True) as changed:
        job = read(svc, caller, earlier, job_id)
        if changed and not job.status.is_terminal:
            job = _ended(svc, caller, earlier, changed, job_id, until)
    return replace(admitted, job=job)


def _ended(svc: Services, caller: Caller, job_id: str, changed: Changed, poll: str, until: float) -> Job:
    """Return the job once it has ended, or as it is at ``until``."""
    while (left := until - time.monotonic()) > 0:
        changed.wait(left)
        changed.clear()
        job = read(svc, caller, job_id, poll)
        if job.status.is_terminal:
            return job
    return read(svc, caller, job_id, poll)


def _tell(svc: Services, caller: Caller, body: JobRequest, call: Request) -> Response:
    """Admit ``body`` and answer with what then happens, the job first; nothing is admitted that cannot be followed."""
    job_id, directives, repeatable = _asked(caller, call)
    with ExitStack() as held:
        follower = begin(held, svc, caller, job_id)
        admitted = admit(svc, caller, body, directives, job_id, repeatable, told=True)
        if admitted.completion:
            job, told = None, iter([told_from_cache(admitted.completion)])
        else:
            if admitted.replayed:  # an earlier call made the job: it has another id than the one that is followed
                held.close()
                follower = begin(held, svc, caller, admitted.job_id or "")
            first = _first_reading(svc, caller, admitted)
            job, told = first.job, follow(svc, caller, follower, first, Place())
        opening = Event(name="job", id=str(Place()), data=_body(admitted, job, body))
        return _described(event_stream(held, call, _opened(opening, told)), admitted, job)


def _first_reading(svc: Services, caller: Caller, admitted: Admitted) -> Followed:
    """Return what is known of a job that was just submitted: of its text nothing, but what the cache had."""
    if admitted.job:
        return Followed(job=admitted.job, fence=0, pieces=[])
    followed: Followed = accept(svc.jobs.follow(caller, admitted.job_id or "", Place(), first=False)).rest[0]
    return followed


def _opened(opening: Event, told: Iterator[list[Event]]) -> Iterator[list[Event]]:
    yield [opening, *next(told, [])]
    yield from told


def _asked(caller: Caller, call: Request) -> tuple[str, CacheDirectives, str | None]:
    """Return an id for the job, and what the headers say of cache and repeats; raises Problem 400 or 401."""
    try:
        return new_id(), CacheDirectives.of(call), idempotency_key(call)
    except Problem as problem:
        raise for_callers(caller, problem) from None


def _body(admitted: Admitted, job: Job | None, body: JobRequest) -> JobBody:
    if admitted.completion:
        return cached_body(
            admitted.completion,
            model=admitted.model,
            priority=body.priority,
            now_ms=admitted.now_ms,
            request_id=g.request_id,
        )
    assert job, "who is admitted has a job or a completion"  # noqa: S101  # for the type checker
    return job_body(job)


def _described(answer: Response, admitted: Admitted, job: Job | None) -> Response:
    """Add the headers that say where the job is and what the cache had."""
    if admitted.completion:
        answer.headers["Age"] = str(age_s(admitted.completion.stored_ms, admitted.now_ms))
    elif job:
        answer.headers["Location"] = f"/v1/jobs/{job.id}"
        if job.cached_ms is not None:
            answer.headers["Age"] = str(age_s(job.cached_ms, job.created_ms))
    if admitted.replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    answer.headers["Cache-Status"] = admitted.cache_status
    return answer
