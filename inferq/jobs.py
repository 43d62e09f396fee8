"""What a client asked for: the job's status and its record as read from Redis."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class JobStatus(StrEnum):
    """Where a job is, in OpenAI's spelling. Transitions: docs/job-states.md."""

    QUEUED = "queued"  #: waits for a slot of its engine
    IN_PROGRESS = "in_progress"  #: its run is in an engine
    CANCELLING = "cancelling"  #: told to stop; the engine has not freed it yet
    COMPLETED = "completed"  #: has an output
    FAILED = "failed"  #: ended with an error
    CANCELLED = "cancelled"  #: stopped by its owner
    EXPIRED = "expired"  #: a deadline passed first

    @property
    def is_terminal(self) -> bool:
        """Whether the job can never change again."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job failed, in a form a program and a person can use."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as its owner sees it. Times are milliseconds since 1970 on Redis's clock."""

    id: str
    status: JobStatus
    model: str
    priority: str
    attempt: int
    cache: str
    created_ms: int
    started_ms: int | None = None
    completed_ms: int | None = None
    expires_ms: int | None = None
    #: 1 is served next; None unless queued.
    position: int | None = None
    #: Until it is expected to start; None unless queued, and when nobody can say.
    wait_ms: int | None = None
    output: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    #: While the job runs: as of the worker's last heartbeat.
    completion_tokens: int | None = None
    #: From the start of the attempt to its first token.
    ttft_ms: int | None = None
    #: The run it is attached to, which log lines of workers name; X-Request-ID of the call that made the job.
    run_id: str = ""
    request_id: str | None = None
    #: When the completion that answered it at once had been stored.
    cached_ms: int | None = None
    error: JobError | None = None
    #: Whether an expired or cancelled job had started.
    ran: bool | None = None
    metadata_json: str | None = field(default=None, repr=False)
    webhook_url: str | None = None

    @classmethod
    def from_records(
        cls,
        job_id: str,
        job: Mapping[str, str],
        run: Mapping[str, str],
        output: str | None = None,
        rank: int | None = None,
        wait_ms: int | None = None,
    ) -> Self:
        """Build a job from the hashes ``job`` and ``run`` that the scripts return (the run may be gone: empty)."""
        status = JobStatus(job["status"])
        done = status is JobStatus.COMPLETED
        running = status in (JobStatus.IN_PROGRESS, JobStatus.CANCELLING)
        error = None
        if "error_code" in job:
            error = JobError(
                code=job["error_code"], message=job["error_message"], retryable=job["error_retryable"] == "1"
            )
        return cls(
            id=job_id,
            status=status,
            model=job["model"],
            priority=job["priority"],
            attempt=int(job["attempt"]),
            cache=job["cache"],
            created_ms=int(job["created_ms"]),
            started_ms=_whole(job, "started_ms"),
            completed_ms=_whole(job, "completed_ms"),
            expires_ms=_whole(job, "expires_ms"),
            position=None if rank is None else rank + 1,
            wait_ms=wait_ms,
            cached_ms=_whole(job, "cached_ms"),
            output=output,
            finish_reason=run.get("finish_reason") if done else None,
            prompt_tokens=_whole(run, "prompt_tokens") if done else None,
            completion_tokens=_whole(run, "completion_tokens" if done else "tokens") if running or done else None,
            ttft_ms=_whole(run, "ttft_ms") if done else None,
            error=error,
            ran=job["ran"] == "1" if "ran" in job else None,
            run_id=job["run"],
            request_id=job.get("request_id"),
            metadata_json=job.get("metadata"),
            webhook_url=job.get("hook_url"),
        )


def _whole(record: Mapping[str, str], name: str) -> int | None:
    return int(record[name]) if record.get(name) else None
