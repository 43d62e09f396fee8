"""``POST /infer``: the simple form."""

import time

from flask import Blueprint, Response, jsonify, request

from api.admission import HIT
from api.answers import InferBody, InferLater
from api.callers import caller_of
from api.errors import Problem
from api.jobs import preference_applied, retry_after, validated
from api.preferences import wait_of
from api.schemas import InferRequest, JobRequest
from api.services import services
from api.submissions import MOST_SUBMIT_WAIT, submit
from inferq.jobs import JobStatus

blueprint = Blueprint("infer", __name__)

#: HTTP status of a job that ended without an answer within the wait.
_ENDED = {JobStatus.FAILED: 502, JobStatus.CANCELLED: 409, JobStatus.EXPIRED: 504}


@blueprint.post("/infer")
def infer() -> Response:
    """Answer from the cache or within ``Prefer: wait`` with 200, else 202 with the job to ask for."""
    began = time.monotonic()
    svc, caller = services(), caller_of(request)
    simple = validated(caller, InferRequest, request)
    wait_s = wait_of(request, MOST_SUBMIT_WAIT)
    body = JobRequest(prompt=simple.prompt, max_tokens=simple.max_tokens)
    admitted = submit(svc, caller, body, wait_s, request)
    job = admitted.job
    if job and job.status in _ENDED:
        error = job.error
        raise Problem(
            _ENDED[job.status],
            error.code if error else job.status.value,
            error.message if error else f"The job is {job.status}.",
            job_id=job.id,
        )
    text = admitted.completion.text if admitted.completion else job.output if job else None
    if text is not None:
        found: InferBody = {
            "response": text,
            "latency_ms": round((time.monotonic() - began) * 1000, 3),
            "cached": admitted.cache_status == HIT,
            "model": job.model if job else admitted.model,
        }
        answer = jsonify(found)
    elif job:
        url = f"/v1/jobs/{job.id}"
        later: InferLater = {"job_id": job.id, "status": job.status, "status_url": url}
        answer = jsonify(later)
        answer.status_code = 202
        answer.headers["Location"] = url
        answer.headers["Retry-After"] = str(retry_after(job))
    if admitted.replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    answer.headers["Cache-Status"] = admitted.cache_status
    return preference_applied(answer, wait_s)
