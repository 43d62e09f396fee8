"""Bodies that clients get. Views return these shapes, and the OpenAPI document is made from them.

They are dictionaries to the running program: what is sent costs nothing to describe, and mypy holds the views to it.
"""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from inferq.jobs import JobStatus

Instant = Annotated[str, Field(description="RFC 3339, UTC, in ms.", json_schema_extra={"format": "date-time"})]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
#: Text of which only some values occur.
OneOfPriorities = Annotated[str, WithJsonSchema({"type": "string", "enum": ["low", "normal", "high"]})]
CacheWord = Annotated[str, WithJsonSchema({"type": "string", "enum": ["hit", "miss", "coalesced", "bypass"]})]


class PlaceBody(TypedDict):
    """Where a queued job stands."""

    position: Annotated[int | None, Field(description="1 is served next; may grow, as others may be entitled to more.")]
    eta_s: Annotated[float | None, Field(description="Seconds until it should start; null when nobody can say.")]


class CacheBody(TypedDict):
    """What the cache did for a job."""

    status: CacheWord
    age_s: Annotated[int | None, Field(description="Of the completion that answered.")]


class OutputBody(TypedDict):
    """What the model wrote."""

    text: str
    finish_reason: Annotated[str | None, Field(description="stop, or length: max_tokens was reached.")]


class ErrorBody(TypedDict):
    """Why a job failed or expired."""

    code: Annotated[str, Field(examples=["deadline_exceeded", "poison"])]
    message: str
    retryable: Annotated[bool, Field(description="Whether the same request may well succeed later.")]


class UsageBody(TypedDict):
    """Tokens read and written; while a job runs as of the last heartbeat."""

    prompt_tokens: Count | None
    completion_tokens: Count


class SpansBody(TypedDict):
    """Seconds a job waited, took to its first token, ran, and took altogether; null: not yet."""

    queue_s: Seconds | None
    ttft_s: Seconds | None
    run_s: Seconds | None
    total_s: Seconds | None


class JobUrls(TypedDict, total=False):
    """Where to go on."""

    self: str
    cancel: str
    events: str
    deliveries: Annotated[str, Field(description="Of a job with a webhook.")]


class JobBody(TypedDict):
    """A job. An answer from the cache is one without id: nothing was stored."""

    id: Annotated[str | None, Field(description="A UUIDv7; null when the cache answered and no job was made.")]
    object: Literal["job"]
    status: JobStatus
    terminal: Annotated[bool, Field(description="Whether it can never change again.")]
    model: str
    priority: OneOfPriorities
    attempt: Annotated[int, Field(ge=0, description="How often it has been started.")]
    queue: PlaceBody | None
    cache: CacheBody
    output: OutputBody | None
    error: ErrorBody | None
    usage: UsageBody | None
    metrics: SpansBody
    created_at: Instant | None
    started_at: Instant | None
    completed_at: Instant | None
    expires_at: Annotated[Instant | None, Field(description="When the result is dropped.")]
    metadata: dict[str, str] | None
    request_id: Annotated[str | None, Field(description="X-Request-ID of the call that made it.")]
    urls: JobUrls


class ModelBody(TypedDict):
    """A model that is served."""

    id: Annotated[str, Field(description="Its name, for `model` of a request.")]
    object: Literal["model"]
    state: Annotated[
        Literal["ready", "warming", "paused", "unavailable"],
        Field(description="warming: a worker is loading it; unavailable: no worker serves it now."),
    ]
    base: Annotated[str | None, Field(description="Of an adapter: the model whose engine and queue it shares.")]
    default: Annotated[bool, Field(description="Whether a request without `model` means it.")]
    slots: Annotated[int, Field(ge=0, description="Runs that its ready workers hold together.")]
    depth: Annotated[int, Field(ge=0, description="Runs that wait for its engine.")]


class ModelList(TypedDict):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelBody]


class JobList(TypedDict):
    """A page of jobs, newest first, without outputs."""

    object: Literal["list"]
    data: list[JobBody]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null on the last.")]


class InferBody(TypedDict):
    """The answer, within the wait."""

    response: str
    latency_ms: Seconds
    cached: bool
    model: str


class InferLater(TypedDict):
    """The job to ask for."""

    job_id: str
    status: JobStatus
    status_url: str


class EventBody(TypedDict):
    """One server-sent event: each of the stream is of this shape."""

    event: Annotated[
        str,
        WithJsonSchema({"type": "string", "enum": ["job", "status", "token", "usage", "restarted", "done", "error"]}),
    ]
    id: Annotated[str, Field(description="To go on from, as `Last-Event-ID`.")]
    data: Annotated[str, Field(description="JSON.", json_schema_extra={"contentMediaType": "application/json"})]


class AttemptBody(TypedDict):
    """One try of a delivery; without duration while it is under way."""

    number: Annotated[int, Field(ge=1)]
    at: Instant | None
    duration_s: Seconds | None
    status_code: int | None
    error: str | None


class DeliveryUrls(TypedDict, total=False):
    """Where to go on: `redeliver` for a job's event, `self` for a test."""

    redeliver: str
    self: str


class DeliveryBody(TypedDict):
    """One event for one address, with all attempts."""

    id: Annotated[str, Field(description="The `webhook-id` that the receiver sees.")]
    object: Literal["delivery"]
    event: Annotated[str, Field(examples=["completed", "ping"])]
    url: str
    status: Annotated[str, WithJsonSchema({"type": "string", "enum": ["pending", "sending", "delivered", "dead"]})]
    reason: Annotated[str | None, Field(description="Why it was given up.")]
    attempts: list[AttemptBody]
    created_at: Instant | None
    ended_at: Instant | None
    next_attempt_at: Instant | None
    urls: DeliveryUrls


class DeliveryList(TypedDict):
    """What a job's receiver was told."""

    object: Literal["list"]
    data: list[DeliveryBody]


class SecretBody(TypedDict):
    """A new signing secret, shown this once."""

    object: Literal["webhook_secret"]
    secret: str
    old_secrets_end_at: Instant | None


class WaitingBody(TypedDict):
    """Jobs by priority."""

    high: Count
    normal: Count
    low: Count


class WorkerBody(TypedDict):
    """What a worker last said of itself."""

    state: Annotated[str | None, Field(description="warming, ready, draining or dead.")]
    slots: Count
    running: Count


class EngineBody(TypedDict):
    """An engine's queue and workers."""

    engine: str
    depth: Annotated[int, Field(ge=0, description="Runs that wait.")]
    waiting: WaitingBody
    queued_tokens: Count
    predicted_wait_s: Annotated[float | None, Field(description="Of a new job; null when nobody can say.")]
    oldest_s: Seconds
    slots: Count
    paused: bool
    workers: list[WorkerBody]


class QueueBody(TypedDict):
    """All engines."""

    object: Literal["queue"]
    running: Count
    engines: list[EngineBody]


class TenantUsageBody(TypedDict):
    """What the caller's tenant may, has in flight, and has used."""

    object: Literal["usage"]
    tenant: str
    weight: float
    max_priority: OneOfPriorities
    limits: Annotated[dict[str, int], Field(description="Ceilings by policy; a policy that is absent has none.")]
    in_flight: Count
    waiting: WaitingBody
    days: Annotated[
        dict[str, dict[str, int]], Field(description="By ISO date (UTC), the latest first: jobs by outcome, tokens.")
    ]


class HealthParts(TypedDict):
    """What health is made of."""

    store: Literal["ok", "full", "unavailable"]
    workers: Literal["ready", "none ready", "unknown"]


class HealthBody(TypedDict):
    """Whether submits can be stored."""

    status: Literal["ok", "degraded", "unavailable"]
    parts: HealthParts


class ReadyBody(TypedDict):
    """Whether a warm engine is there."""

    ready: bool
    engines: list[EngineBody]


class ToldJob(TypedDict):
    """A job as its webhook tells of it."""

    id: str
    status: JobStatus
    model: str
    attempt: Count
    created_at: Instant
    started_at: Instant | None
    completed_at: Instant | None
    error: ErrorBody | None
    usage: UsageBody | None
    output: Annotated[OutputBody | None, Field(description="If asked for, and the whole stays below 20,000 bytes.")]
    metadata: Annotated[dict[str, str] | None, Field(description="Null where the whole would have 20,000 bytes.")]
    urls: JobUrls


class ToldBody(TypedDict):
    """An event of a job."""

    type: Literal["job.started", "job.completed", "job.failed", "job.cancelled", "job.expired"]
    timestamp: Annotated[Instant, Field(description="When it happened.")]
    data: ToldJob


class PingData(TypedDict):
    """What is told of no job."""

    id: Annotated[str, Field(description="As `webhook-id`.")]


class PingBody(TypedDict):
    """A test event."""

    type: Literal["ping"]
    timestamp: Instant
    data: PingData


class FieldError(TypedDict):
    """A field, and what would be right."""

    field: str
    message: str


class _Problem(TypedDict):
    type: Annotated[str, Field(examples=["urn:inferq:problem:invalid-request"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    code: Annotated[str, Field(description="For programs; it does not change.")]
    request_id: Annotated[str, Field(description="X-Request-ID of the answer; the log has it too.")]


class ProblemBody(_Problem, total=False):
    """An error (RFC 9457)."""

    errors: Annotated[list[FieldError], Field(description="What is wrong, field by field; the first 20.")]
    job_id: Annotated[str, Field(description="The job that ended without an answer (`POST /infer`).")]
    violated_policies: Annotated[list[str], Field(alias="violated-policies")]
