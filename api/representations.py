"""How jobs look as JSON."""

import json
from datetime import UTC, datetime

from api.answers import DeliveryBody, DeliveryUrls, ErrorBody, JobBody, JobUrls, PlaceBody, UsageBody
from inferq.completion_cache import CachedCompletion
from inferq.jobs import Job, JobStatus
from inferq.outbox import Delivery


def job_body(job: Job) -> JobBody:
    """Return the JSON of a stored job (design: "Job")."""
    url = f"/v1/jobs/{job.id}"
    urls: JobUrls = {"self": url, "cancel": f"{url}/cancel", "events": f"{url}/events"}
    if job.webhook_url:
        urls["deliveries"] = f"{url}/deliveries"
    return {
        "id": job.id,
        "object": "job",
        "status": job.status,
        "terminal": job.status.is_terminal,
        "model": job.model,
        "priority": job.priority,
        "attempt": job.attempt,
        "queue": queue_body(job),
        "cache": {
            "status": job.cache,
            "age_s": None if job.cached_ms is None else age_s(job.cached_ms, job.created_ms),
        },
        "output": None if job.output is None else {"text": job.output, "finish_reason": job.finish_reason},
        "error": error_body(job),
        "usage": None if job.completion_tokens is None else usage_body(job.prompt_tokens, job.completion_tokens),
        "metrics": {
            "queue_s": _span(job.created_ms, job.started_ms),
            "ttft_s": None if job.ttft_ms is None else job.ttft_ms / 1000,
            "run_s": _span(job.started_ms, job.completed_ms),
            "total_s": _span(job.created_ms, job.completed_ms),
        },
        "created_at": instant(job.created_ms),
        "started_at": instant(job.started_ms),
        "completed_at": instant(job.completed_ms),
        "expires_at": instant(job.expires_ms),
        "metadata": json.loads(job.metadata_json) if job.metadata_json else None,
        "request_id": job.request_id,
        "urls": urls,
    }


def delivery_body(delivery: Delivery) -> DeliveryBody:
    """Return the JSON of a webhook delivery with all its attempts."""
    job = f"/v1/jobs/{delivery.job}/deliveries/{delivery.id}/redeliver"
    urls: DeliveryUrls = {"redeliver": job} if delivery.job else {"self": f"/v1/webhooks/test/{delivery.id}"}
    return {
        "id": delivery.id,
        "object": "delivery",
        "event": delivery.event,
        "url": delivery.url,
        "status": delivery.status,
        "reason": delivery.reason,
        "attempts": [
            {
                "number": attempt.number,
                "at": instant(attempt.at_ms),
                "duration_s": None if attempt.ms is None else attempt.ms / 1000,
                "status_code": attempt.status,
                "error": attempt.error,
            }
            for attempt in delivery.attempts
        ],
        "created_at": instant(delivery.created_ms),
        "ended_at": instant(delivery.ended_ms),
        "next_attempt_at": instant(delivery.due_ms),
        "urls": urls,
    }


def cached_body(completion: CachedCompletion, *, model: str, priority: str, now_ms: int, request_id: str) -> JobBody:
    """Return the JSON of a job that never was: the answer came from the cache and nothing was stored."""
    now = instant(now_ms)
    return {
        "id": None,
        "object": "job",
        "status": JobStatus.COMPLETED,
        "terminal": True,
        "model": model,
        "priority": priority,
        "attempt": 0,
        "queue": None,
        "cache": {"status": "hit", "age_s": age_s(completion.stored_ms, now_ms)},
        "output": {"text": completion.text, "finish_reason": completion.finish_reason},
        "error": None,
        "usage": usage_body(completion.prompt_tokens, completion.completion_tokens),
        "metrics": {"queue_s": 0.0, "ttft_s": None, "run_s": None, "total_s": 0.0},
        "created_at": now,
        "started_at": None,
        "completed_at": now,
        "expires_at": None,
        "metadata": None,
        "request_id": request_id,
        "urls": {},
    }


def age_s(stored_ms: int, now_ms: int) -> int:
    """Return whole seconds since a completion was stored (RFC 9111 ``Age``)."""
    return max(0, (now_ms - stored_ms) // 1000)


def etag(job: Job) -> str:
    """Return the weak tag of a job: status and attempt, not the position, which changes with every neighbour."""
    return f'W/"{job.status.value}.{job.attempt}"'


def queue_body(job: Job) -> PlaceBody | None:
    """Return where a job stands; None unless it waits."""
    if job.status is not JobStatus.QUEUED:
        return None
    return {"position": job.position, "eta_s": _span(0, job.wait_ms)}


def error_body(job: Job) -> ErrorBody | None:
    """Return why a job has no output; None when there is nothing to say."""
    if job.status is JobStatus.EXPIRED:
        when = "while it ran" if job.ran else "before it started"
        return {"code": "deadline_exceeded", "message": f"The deadline passed {when}.", "retryable": True}
    if job.error is None:
        return None
    return {"code": job.error.code, "message": job.error.message, "retryable": job.error.retryable}


def usage_body(prompt: int | None, completion: int) -> UsageBody:
    """Return tokens read and written."""
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def _span(start_ms: int | None, end_ms: int | None) -> float | None:
    return None if start_ms is None or end_ms is None else max(0, end_ms - start_ms) / 1000


def instant(ms: int | None) -> str | None:
    """Return ms since 1970 as RFC 3339 has them."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
