"""``/v1/jobs``: submit, read, cancel, erase, list."""

import time
from typing import Any

from flask import Blueprint, Response, jsonify, request

from api.admission import Admitted, admit
from api.callers import accept, caller_of
from api.errors import Problem
from api.preferences import CacheDirectives, wait_of
from api.representations import age_s, cached_body, etag, job_body
from api.schemas import Body, JobRequest, parse_body
from api.services import Services, services
from inferq.credentials import Credential
from inferq.ids import is_id, new_id
from inferq.jobs import Job, JobStatus

blueprint = Blueprint("jobs", __name__)

#: Seconds a submit and a read may be held open (design: HTTP contract).
MOST_SUBMIT_WAIT = 60
MOST_READ_WAIT = 30
#: Seconds after which a client that polls should ask again, until the wait can be predicted.
POLL_RETRY_AFTER = 1


@blueprint.post("/v1/jobs")
def create_job() -> Response:
    """Admit a job: 202, or 200 when the answer is cached or comes within ``Prefer: wait``."""
    svc, caller = services(), caller_of(request)
    body = validated(svc, caller, JobRequest)
    admitted, job = submit(svc, caller, body, wait_of(request, MOST_SUBMIT_WAIT))
    if admitted.completion:
        answer = jsonify(
            cached_body(admitted.completion, model=admitted.model, priority=body.priority, now_ms=admitted.now_ms)
        )
        answer.headers["Age"] = str(age_s(admitted.completion, admitted.now_ms))
    else:
        answer = jsonify(job_body(job) if job else queued_body(admitted, body))
        answer.status_code = 200 if job and job.status.is_terminal else 202
        answer.headers["Location"] = f"/v1/jobs/{admitted.job_id}"
        if answer.status_code == 202:
            answer.headers["Retry-After"] = str(POLL_RETRY_AFTER)
    answer.headers["Cache-Status"] = admitted.cache_status
    return preference_applied(answer, MOST_SUBMIT_WAIT)


@blueprint.get("/v1/jobs/<job_id>")
def read_job(job_id: str) -> Response:
    """Return a job; with ``Prefer: wait`` once its status or attempt differs from ``If-None-Match``, or from now."""
    svc, caller = services(), caller_of(request)
    seen = request.headers.get("If-None-Match")
    job = wait_for_change(svc, caller, checked(job_id), seen, wait_of(request, MOST_READ_WAIT))
    tag = etag(job)
    if seen is not None and tag in [part.strip() for part in seen.split(",")]:
        answer = Response(status=304)
    else:
        answer = jsonify(job_body(job))
    answer.headers["ETag"] = tag
    answer.headers["Cache-Control"] = "private, no-cache"
    if not job.status.is_terminal:
        answer.headers["Retry-After"] = str(POLL_RETRY_AFTER)
    return preference_applied(answer, MOST_READ_WAIT)


@blueprint.post("/v1/jobs/<job_id>/cancel")
def cancel_job(job_id: str) -> Response:
    """Cancel: 200 when cancelled, 202 while the engine still has to free the run, 409 when it ended otherwise."""
    svc, caller = services(), caller_of(request)
    answer = accept(svc.jobs.cancel(caller, checked(job_id)), "polls")
    if answer.outcome == "ended":
        raise Problem(409, "already-finished", f"The job is {answer.rest[0]} already.")
    body = jsonify(job_body(_read(svc, caller, job_id, new_id())))
    body.status_code = 200 if answer.outcome == "cancelled" else 202
    return body


@blueprint.delete("/v1/jobs/<job_id>")
def erase_job(job_id: str) -> Response:
    """Erase prompt and output of a finished job."""
    svc, caller = services(), caller_of(request)
    answer = accept(svc.jobs.erase(caller, checked(job_id)), "polls")
    if answer.outcome == "live":
        raise Problem(409, "not-finished", "Only a finished job can be erased; cancel it first.")
    return Response(status=204)


@blueprint.get("/v1/jobs")
def list_jobs() -> Response:
    """List the tenant's jobs, newest first, without outputs."""
    svc, caller = services(), caller_of(request)
    status = request.args.get("status", "")
    if status and status not in set(JobStatus):
        raise _bad_query("status", "must be one of " + ", ".join(JobStatus))
    limit = request.args.get("limit", "20")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:6]) <= 100:
        raise _bad_query("limit", "must be a whole number from 1 to 100")
    cursor = request.args.get("cursor", "")
    if cursor and not is_id(cursor):
        raise _bad_query("cursor", "must be the next_cursor of an earlier answer")
    answer = accept(svc.jobs.list(caller, status=status, after=cursor, count=int(limit)), "polls")
    found, following = answer.rest
    return jsonify({"object": "list", "data": [job_body(job) for job in found], "next_cursor": following or None})


def validated(svc: Services, caller: Credential, model: type[Body]) -> Body:
    """Parse the body; a caller without a valid key hears 401 and not what is wrong with the body."""
    try:
        return parse_body(request, model)
    except Problem:
        accept(svc.jobs.identify(caller, request=new_id(), window="polls"), "polls")
        raise


def submit(svc: Services, caller: Credential, body: JobRequest, wait_s: int) -> tuple[Admitted, Job | None]:
    """Admit ``body``; with ``wait_s`` wait for its end. The job is None when there was no reason to read it."""
    job_id, directives = new_id(), CacheDirectives.of(request)
    if not wait_s:
        return admit(svc, caller, body, directives, job_id), None
    deadline = time.monotonic() + wait_s
    with svc.waiters.watch(job_id, end_only=True) as changed:
        admitted = admit(svc, caller, body, directives, job_id)
        if admitted.completion or changed is None:
            return admitted, None
        while (left := deadline - time.monotonic()) > 0:
            changed.wait(left)
            changed.clear()
            job = _read(svc, caller, job_id, job_id)
            if job.status.is_terminal:
                return admitted, job
    return admitted, _read(svc, caller, job_id, job_id)


def wait_for_change(svc: Services, caller: Credential, job_id: str, seen: str | None, wait_s: int) -> Job:
    """Read a job, held until its tag differs from ``seen`` (None: from what it is now), at most ``wait_s`` seconds."""
    poll = new_id()
    job = _read(svc, caller, job_id, poll)
    known = [etag(job)] if seen is None else [part.strip() for part in seen.split(",")]
    if not wait_s or job.status.is_terminal or etag(job) not in known:
        return job
    deadline = time.monotonic() + wait_s
    with svc.waiters.watch(job_id) as changed:
        if changed is None:
            return job
        job = _read(svc, caller, job_id, poll)  # what happened before we watched
        while etag(job) in known and not job.status.is_terminal and (left := deadline - time.monotonic()) > 0:
            changed.wait(left)
            changed.clear()
            job = _read(svc, caller, job_id, poll)
    return job


def _read(svc: Services, caller: Credential, job_id: str, poll: str) -> Job:
    job: Job = accept(svc.jobs.read(caller, job_id, request=poll), "polls").rest[0]
    return job


def queued_body(admitted: Admitted, body: JobRequest) -> dict[str, Any]:
    """Return the JSON of a job just queued, as a read would show it, without reading it."""
    return job_body(
        Job(
            id=admitted.job_id or "",
            status=JobStatus.QUEUED,
            model=admitted.model,
            priority="normal" if body.priority == "high" else body.priority,
            attempt=0,
            cache="miss" if admitted.cache_status.endswith("miss") else "bypass",
            created_ms=admitted.now_ms,
            position=admitted.position,
        )
    )


def preference_applied(answer: Response, most: int) -> Response:
    """Say which ``Prefer: wait`` was honoured (RFC 7240 §3)."""
    wait_s = wait_of(request, most)
    if wait_s:
        answer.headers["Preference-Applied"] = f"wait={wait_s}"
    return answer


def checked(job_id: str) -> str:
    """Return ``job_id`` if it can be one; raises Problem 404: what cannot be an id was never one."""
    if not is_id(job_id):
        raise Problem(404, "not-found", "There is no such job.")
    return job_id


def _bad_query(field: str, message: str) -> Problem:
    return Problem(422, "invalid-request", f"{field}: {message}", errors=[{"field": field, "message": message}])
