"""``/v1/jobs``: read, cancel, erase, list."""

import time

from flask import Blueprint, Request, Response, jsonify, request

from api.answers import JobList
from api.callers import accept, caller_of, for_callers
from api.errors import Problem
from api.preferences import wait_of
from api.representations import etag, job_body
from api.schemas import Body, parse_body
from api.services import Services, services
from inferq.credentials import Caller
from inferq.ids import is_id, new_id
from inferq.jobs import Job, JobStatus

blueprint = Blueprint("jobs", __name__)

#: Seconds a read may be held open (design: HTTP contract).
MOST_READ_WAIT = 30
#: Seconds after which a client that polls should ask again: at least, and at most.
POLL_RETRY_AFTER = 1
MOST_POLL_RETRY_AFTER = 60


@blueprint.get("/v1/jobs/<job_id>")
def read_job(job_id: str) -> Response:
    """Return a job; with ``Prefer: wait`` once its status or attempt differs from ``If-None-Match``, or from now."""
    svc, caller = services(), caller_of(request)
    seen = request.headers.get("If-None-Match")
    wait_s = wait_of(request, MOST_READ_WAIT)
    job = wait_for_change(svc, caller, checked(job_id), seen, wait_s)
    tag = etag(job)
    if seen is not None and tag in [part.strip() for part in seen.split(",")]:
        answer = Response(status=304)
    else:
        answer = jsonify(job_body(job))
    answer.headers["ETag"] = tag
    answer.headers["Cache-Control"] = "private, no-cache"
    if not job.status.is_terminal:
        answer.headers["Retry-After"] = str(retry_after(job))
    return preference_applied(answer, wait_s)


@blueprint.post("/v1/jobs/<job_id>/cancel")
def cancel_job(job_id: str) -> Response:
    """Cancel: 200 when cancelled, 202 while the engine still has to free the run, 409 when it ended otherwise."""
    svc, caller = services(), caller_of(request)
    answer = accept(svc.jobs.cancel(caller, checked(job_id)))
    if answer.outcome == "ended":
        raise Problem(409, "already-finished", f"The job is {answer.rest[0]} already.")
    body = jsonify(job_body(read(svc, caller, job_id, new_id())))
    body.status_code = 200 if answer.outcome == "cancelled" else 202
    return body


@blueprint.delete("/v1/jobs/<job_id>")
def erase_job(job_id: str) -> Response:
    """Erase prompt and output of a finished job."""
    svc, caller = services(), caller_of(request)
    answer = accept(svc.jobs.erase(caller, checked(job_id)))
    if answer.outcome == "live":
        raise Problem(409, "not-finished", "Only a finished job can be erased; cancel it first.")
    return Response(status=204)


@blueprint.get("/v1/jobs")
def list_jobs() -> Response:
    """List the tenant's jobs, newest first, without outputs."""
    svc, caller = services(), caller_of(request)
    status = request.args.get("status", "")
    if status and status not in set(JobStatus):
        raise _bad_query(caller, "status", "must be one of " + ", ".join(JobStatus))
    limit = request.args.get("limit", "20")
    if not limit.isascii() or not limit.isdigit() or len(limit) > 3 or not 1 <= int(limit) <= 100:
        raise _bad_query(caller, "limit", "must be a whole number from 1 to 100")
    cursor = request.args.get("cursor", "")
    if cursor and not is_id(cursor):
        raise _bad_query(caller, "cursor", "must be the next_cursor of an earlier answer")
    answer = accept(svc.jobs.list(caller, status=status, after=cursor, count=int(limit)))
    found, following = answer.rest
    page: JobList = {"object": "list", "data": [job_body(job) for job in found], "next_cursor": following or None}
    return jsonify(page)


def validated(caller: Caller, model: type[Body], call: Request) -> Body:
    """Parse the body; a caller without a valid key hears 401 and not what is wrong with the body."""
    try:
        return parse_body(call, model)
    except Problem as problem:
        raise for_callers(caller, problem) from None


def wait_for_change(svc: Services, caller: Caller, job_id: str, seen: str | None, wait_s: int) -> Job:
    """Read a job, held until its tag differs from ``seen`` (None: from what it is now), at most ``wait_s`` seconds."""
    poll = new_id()
    job = read(svc, caller, job_id, poll)
    known = [etag(job)] if seen is None else [part.strip() for part in seen.split(",")]
    if not wait_s or job.status.is_terminal or etag(job) not in known:
        return job
    deadline = time.monotonic() + wait_s
    with svc.waiters.watch(job_id) as changed:
        if changed is None:
            return job
        job = read(svc, caller, job_id, poll)  # what happened before we watched
        while etag(job) in known and not job.status.is_terminal and (left := deadline - time.monotonic()) > 0:
            changed.wait(left)
            changed.clear()
            job = read(svc, caller, job_id, poll)
    return job


def read(svc: Services, caller: Caller, job_id: str, poll: str) -> Job:
    """Return the caller's job; raises Problem 401, 404, 410 or 429. ``poll`` names this call among its polls."""
    job: Job = accept(svc.jobs.read(caller, job_id, request=poll)).rest[0]
    return job


def retry_after(job: Job) -> int:
    """Return the seconds after which it is worth asking again: when it is expected to start, at most a minute."""
    return max(POLL_RETRY_AFTER, min(MOST_POLL_RETRY_AFTER, -(-(job.wait_ms or 0) // 1000)))


def preference_applied(answer: Response, wait_s: int) -> Response:
    """Say which ``Prefer: wait`` was honoured (RFC 7240 §3)."""
    if wait_s:
        answer.headers["Preference-Applied"] = f"wait={wait_s}"
    return answer


def checked(job_id: str) -> str:
    """Return ``job_id`` if it can be one; raises Problem 404: what cannot be an id was never one."""
    if not is_id(job_id):
        raise Problem(404, "not-found", "There is no such job.")
    return job_id


def _bad_query(caller: Caller, field: str, message: str) -> Problem:
    errors = [{"field": field, "message": message}]
    return for_callers(caller, Problem(422, "invalid-request", f"{field}: {message}", errors=errors))
