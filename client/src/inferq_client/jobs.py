"""Jobs and what belongs to them, as the service shows them. Fields that a later version adds are in ``raw``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self, TypeAlias, TypedDict

from inferq_client.errors import ENDS, JobNotCompleted, NotUnderstood

#: A text, or a conversation: ``[{"role": "user", "content": "…"}]``.
Prompt: TypeAlias = str | Sequence[Mapping[str, str]]


class Deadline(TypedDict, total=False):
    """Seconds from the submission, after which the job is not worth starting, or having."""

    start_within_s: float
    total_s: float


class Webhook(TypedDict, total=False):
    """Where to tell of the job, which events, and whether with the text."""

    url: str
    events: list[Literal["started", "completed", "failed", "cancelled", "expired"]]
    include_output: bool


class JobOptions(TypedDict, total=False):
    """What a submission may say besides the prompt; the service checks it and names what is wrong."""

    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: list[str]
    presence_penalty: float
    frequency_penalty: float
    response_format: dict[str, Any]
    priority: Literal["low", "normal", "high"]
    metadata: dict[str, str]
    webhook: Webhook
    deadline: Deadline
    result_ttl_s: int


@dataclass(frozen=True, kw_only=True)
class Output:
    """The text, and why it ends: ``stop``, or ``length`` when ``max_tokens`` were used up."""

    text: str = field(repr=False)
    finish_reason: str | None


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job has no output. ``retryable``: whether submitting it again may go well."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a queued job stands: 1 is next; seconds until it should start (None: nobody can say)."""

    position: int | None
    eta_s: float | None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens."""

    prompt_tokens: int | None
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds: in the queue, from there to the first token, in the engine, and from submission to end."""

    queue_s: float | None
    ttft_s: float | None
    run_s: float | None
    total_s: float | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it was when the service answered. It does not change: ask again."""

    #: None for an answer from the cache of which no record was made.
    id: str | None
    status: str
    terminal: bool
    model: str
    priority: str
    attempt: int
    queue: Place | None
    #: ``hit``, ``miss``, ``coalesced`` or ``bypass``, and the age in seconds of a hit.
    cache: str
    cache_age_s: float | None
    output: Output | None
    error: JobError | None
    usage: Usage | None
    timings: Timings
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    metadata: Mapping[str, str] | None
    #: Whether this submission had been made before, under the same Idempotency-Key.
    replayed: bool = False
    #: The JSON it was read from.
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def text(self) -> str | None:
        """The answer, when there is one."""
        return self.output.text if self.output else None

    def checked(self) -> Self:
        """Return the job itself when it is completed; raises JobFailed, JobCancelled or JobExpired when it ended so."""
        if self.terminal and self.status != "completed":
            raise ENDS.get(self.status, JobNotCompleted)(self)
        return self

    @classmethod
    def of(cls, raw: Any, *, replayed: bool = False) -> Self:
        """Read the JSON of a job; raises NotUnderstood."""
        try:
            return cls._of(raw, replayed)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise NotUnderstood("what the service sent is not a job") from None

    @classmethod
    def _of(cls, raw: Mapping[str, Any], replayed: bool) -> Self:
        output, error, usage, queue = (raw.get(name) for name in ("output", "error", "usage", "queue"))
        metrics, cache = raw.get("metrics") or {}, raw.get("cache") or {}
        return cls(
            id=raw["id"],
            status=raw["status"],
            terminal=bool(raw["terminal"]),
            model=raw.get("model", ""),
            priority=raw.get("priority", ""),
            attempt=raw.get("attempt", 0),
            queue=Place(position=queue.get("position"), eta_s=queue.get("eta_s")) if queue else None,
            cache=cache.get("status", ""),
            cache_age_s=cache.get("age_s"),
            output=Output(text=output["text"], finish_reason=output.get("finish_reason")) if output else None,
            error=job_error(error) if error else None,
            usage=job_usage(usage) if usage else None,
            timings=Timings(**{name: metrics.get(name) for name in ("queue_s", "ttft_s", "run_s", "total_s")}),
            created_at=_instant(raw.get("created_at")),
            started_at=_instant(raw.get("started_at")),
            completed_at=_instant(raw.get("completed_at")),
            expires_at=_instant(raw.get("expires_at")),
            metadata=raw.get("metadata"),
            replayed=replayed,
            raw=raw,
        )


def job_error(raw: Mapping[str, Any]) -> JobError:
    """Read the JSON of a job's error."""
    return JobError(
        code=raw.get("code", ""), message=raw.get("message", ""), retryable=bool(raw.get("retryable", False))
    )


def job_usage(raw: Mapping[str, Any]) -> Usage:
    """Read the JSON of a job's usage."""
    return Usage(prompt_tokens=raw.get("prompt_tokens"), completion_tokens=raw.get("completion_tokens") or 0)


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
