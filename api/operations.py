"""What the API offers, route by route: the table that the OpenAPI document is made from.

A new route gets an entry here, under its method and rule; a test holds the table to the routes that exist. Shapes of
answers are in ``api/answers.py``, bodies in ``api/schemas.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from api.answers import (
    DeliveryBody,
    DeliveryList,
    EventBody,
    HealthBody,
    InferBody,
    InferLater,
    JobBody,
    JobList,
    ModelList,
    PingBody,
    QueueBody,
    ReadyBody,
    SecretBody,
    TenantUsageBody,
    ToldBody,
)
from api.examples import CHAT, DATED, JOB, JSON_ANSWER, PLAIN, QUEUED, TOLD
from api.schemas import InferRequest, JobRequest, PingRequest, RotateRequest
from inferq.requests import Strict

#: Codes of problems by status.
Problems = Mapping[int, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer that is no error: what it means, its shape (None: no body), headers by name in ``api/openapi.py``."""

    means: str
    body: Any = None
    headers: tuple[str, ...] = ()
    media: str = "application/json"
    #: Shapes by media type that a client may ask for instead (``Accept``).
    instead: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a route takes and answers. ``problems``: codes by status, beyond those that every caller may meet."""

    name: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    problems: Problems = field(default_factory=dict)
    #: Parameters by name in ``api/openapi.py``, besides those in the path.
    takes: tuple[str, ...] = ()
    body: type[Strict] | None = None
    #: Bodies that a test sends.
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Who may call: callers, everybody, or who shows METRICS_TOKEN.
    open_to: str = "callers"
    #: Routes that go on from an answer with a job.
    leads_to: tuple[str, ...] = ()
    #: What is sent to an address in the body: where in the body it stands, as a JSON pointer, and the payload's shape.
    tells: tuple[str, Any] | None = None
    detail: str = ""


_JOB_ROUTES: Final = ("readJob", "followJob", "cancelJob", "eraseJob", "listDeliveries")
_BODY_PROBLEMS: Final[Problems] = {
    400: ("invalid-json",),
    413: ("content-too-large",),
    415: ("unsupported-media-type",),
    422: ("invalid-request",),
}
_SUBMIT_PROBLEMS: Final[Problems] = {
    **_BODY_PROBLEMS,
    400: ("invalid-json", "invalid-idempotency-key"),
    404: ("not-found", "model-not-found"),
    410: ("gone",),
    503: ("temporary-reduced-capacity", "model-not-ready"),
}
_JOB_PROBLEMS: Final[Problems] = {404: ("not-found",), 410: ("gone",)}
_FOLLOW_PROBLEMS: Final[Problems] = {
    **_JOB_PROBLEMS,
    422: ("invalid-request",),
    503: ("temporary-reduced-capacity",),
}
_SOCKET_PROBLEMS: Final[Problems] = {
    **_FOLLOW_PROBLEMS,
    400: ("bad-handshake",),
    426: ("upgrade-required",),
    501: ("not-implemented",),
}
_LATER: Final = ("Location", "Retry-After", "Cache-Status", "Idempotency-Replayed?", "Preference-Applied?")

_READ: Final = ("ETag", "Retry-After?", "Preference-Applied?")
_AS_BEFORE: Final = Answer(means="As before.", headers=("ETag",))

OPERATIONS: Final[Mapping[str, Operation]] = {
    "POST /v1/jobs": Operation(
        name="createJob", tag="jobs", summary="Submit a job",
        detail="Answered at once; or held until the job has ended with `Prefer: wait`; or, with `Accept:"
        " text/event-stream`, by its events as they happen: `job` first, then as from the route that follows a job.",
        body=JobRequest,
        examples={"a prompt": PLAIN, "a conversation": CHAT, "JSON": JSON_ANSWER, "a webhook": TOLD,
                  "a deadline": DATED},
        takes=("Prefer (submit)", "Idempotency-Key", "Cache-Control"),
        answers={
            202: Answer(means="Accepted.", body=JobBody, example=QUEUED, headers=(*_LATER, "Age?")),
            200: Answer(
                means="The answer was cached, or came within the wait; or events were asked for.", body=JobBody,
                example=JOB, instead={"text/event-stream": EventBody},
                headers=("Location?", "Cache-Status", "Age?", "Idempotency-Replayed?", "Preference-Applied?"),
            ),
        },
        problems={
            **_SUBMIT_PROBLEMS,
            422: ("invalid-request", "idempotency-key-reused", "no-webhook-secret", "webhook-disabled"),
            504: ("not-cached",),
        },
        leads_to=_JOB_ROUTES,
        tells=("/webhook/url", ToldBody),
    ),
    "GET /v1/jobs": Operation(
        name="listJobs", tag="jobs", summary="List jobs, newest first, without outputs",
        takes=("status", "limit", "cursor"),
        answers={200: Answer(means="A page.", body=JobList)},
        problems={422: ("invalid-request",)},
    ),
    "GET /v1/jobs/{job_id}": Operation(
        name="readJob", tag="jobs", summary="Read a job",
        detail="With `Prefer: wait` it is held until status or attempt differ from `If-None-Match`, or from now.",
        takes=("Prefer (read)", "If-None-Match"),
        answers={
            200: Answer(means="The job.", body=JobBody, example=JOB, headers=_READ),
            304: Answer(means="As before.", headers=_READ),
        },
        problems=_JOB_PROBLEMS,
    ),
    "DELETE /v1/jobs/{job_id}": Operation(
        name="eraseJob", tag="jobs", summary="Erase prompt, output and deliveries of a finished job",
        answers={204: Answer(means="Erased.")},
        problems={**_JOB_PROBLEMS, 409: ("not-finished",)},
    ),
    "POST /v1/jobs/{job_id}/cancel": Operation(
        name="cancelJob", tag="jobs", summary="Cancel a job",
        answers={
            200: Answer(means="Cancelled.", body=JobBody),
            202: Answer(means="The engine still has to free it.", body=JobBody),
        },
        problems={**_JOB_PROBLEMS, 409: ("already-finished",)},
    ),
    "GET /v1/jobs/{job_id}/events": Operation(
        name="followJob", tag="jobs", summary="Follow a job as it happens",
        detail="Server-sent events: `status` (with the position while queued, at most once a second), `token` (text as"
        " it is written, of a job with `stream`), `restarted` (the text so far is void), `usage`, then `done` or"
        " `error`. Comments in between keep the connection open. `Last-Event-ID` goes on where a client was cut off.",
        takes=("Last-Event-ID", "last_event_id"),
        answers={
            200: Answer(means="Events, each of this shape.", body=EventBody, media="text/event-stream"),
            204: Answer(means="`Last-Event-ID` was the last: do not come back."),
        },
        problems=_FOLLOW_PROBLEMS,
    ),
    "GET /v1/jobs/{job_id}/ws": Operation(
        name="followJobBySocket", tag="jobs", summary="Follow a job over a WebSocket",
        detail="The same events, each a text message: `{\"event\", \"id\", \"data\"}`.",
        takes=("Last-Event-ID", "last_event_id"),
        answers={101: Answer(means="A WebSocket (RFC 6455).")},
        problems=_SOCKET_PROBLEMS,
    ),
    "POST /infer": Operation(
        name="infer", tag="jobs", summary="The simple form",
        body=InferRequest, examples={"a prompt": {"prompt": "What is inferq?", "max_tokens": 64}},
        takes=("Prefer (submit)", "Idempotency-Key", "Cache-Control"),
        answers={
            200: Answer(
                means="The answer, cached or within the wait.", body=InferBody,
                headers=("Cache-Status", "Idempotency-Replayed?", "Preference-Applied?"),
            ),
            202: Answer(means="Accepted; ask for the job.", body=InferLater, headers=_LATER),
        },
        problems={
            **_SUBMIT_PROBLEMS,
            409: ("cancelled",),
            422: ("invalid-request", "idempotency-key-reused"),
            502: (),  # what the engine says
            504: ("not-cached", "expired"),
        },
        leads_to=_JOB_ROUTES,
    ),
    "GET /v1/jobs/{job_id}/deliveries": Operation(
        name="listDeliveries", tag="webhooks", summary="What a job's webhook was told, attempt by attempt",
        answers={200: Answer(means="The log.", body=DeliveryList)},
        problems=_JOB_PROBLEMS,
    ),
    "POST /v1/jobs/{job_id}/deliveries/{delivery_id}/redeliver": Operation(
        name="redeliver", tag="webhooks", summary="Tell it again, under the same webhook-id",
        answers={202: Answer(means="To be sent.", body=DeliveryBody)},
        problems={**_JOB_PROBLEMS, 422: ("webhook-disabled",)},
    ),
    "POST /v1/webhooks/test": Operation(
        name="testWebhook", tag="webhooks", summary="Send a test event",
        body=PingRequest, examples={"an address": {"url": "https://example.com/webhooks/inferq"}},
        tells=("/url", PingBody),
        answers={
            200: Answer(means="How it went.", body=DeliveryBody),
            202: Answer(means="Not known yet; ask at `urls.self`.", body=DeliveryBody),
        },
        problems={
            **_BODY_PROBLEMS,
            422: ("invalid-request", "no-webhook-secret"), 503: ("temporary-reduced-capacity",)
        },
    ),
    "GET /v1/webhooks/test/{name}": Operation(
        name="readTest", tag="webhooks", summary="How a test event went; forgotten after an hour",
        answers={
            200: Answer(means="How it went.", body=DeliveryBody),
            202: Answer(means="Not known yet.", body=DeliveryBody),
        },
        problems={404: ("not-found",)},
    ),
    "POST /v1/webhooks/secrets/rotate": Operation(
        name="rotateSecret", tag="webhooks", summary="Make a new signing secret",
        detail="Those there were sign beside it for `keep_old_s` seconds.",
        body=RotateRequest, examples={"old ones for an hour": {"keep_old_s": 3600}},
        answers={200: Answer(means="The secret, shown this once.", body=SecretBody)},
        problems={**_BODY_PROBLEMS, 503: ("temporary-reduced-capacity",)},
    ),
    "GET /v1/queue": Operation(
        name="readQueue", tag="service", summary="What waits, how long, and who works",
        answers={200: Answer(means="All engines.", body=QueueBody)},
    ),
    "GET /v1/models": Operation(
        name="listModels", tag="service", summary="Which models are served, and which are ready",
        answers={200: Answer(means="All models.", body=ModelList)},
    ),
    "GET /v1/usage": Operation(
        name="readUsage", tag="service", summary="What the tenant may, has in flight and has used",
        takes=("days",),
        answers={200: Answer(means="By day.", body=TenantUsageBody)},
        problems={422: ("invalid-request",)},
    ),
    "GET /health": Operation(
        name="readHealth", tag="service", summary="For orchestrators", open_to="everybody",
        answers={
            200: Answer(means="Submits can be stored, or the store is only full.", body=HealthBody),
            503: Answer(means="The store does not answer.", body=HealthBody, headers=("Retry-After",)),
        },
    ),
    "GET /readyz": Operation(
        name="readReadiness", tag="service", summary="Is a warm engine there?", open_to="everybody",
        answers={
            200: Answer(means="Yes.", body=ReadyBody),
            503: Answer(means="No.", body=ReadyBody),
        },
    ),
    "GET /metrics": Operation(
        name="readMetrics", tag="service", summary="For Prometheus", open_to="metrics",
        answers={200: Answer(means="All series.", body=str, media="text/plain")},
        problems={401: ("unauthorized",), 403: ("metrics-closed",)},
    ),
    "GET /openapi.json": Operation(
        name="readOpenapi", tag="service", summary="This document", open_to="everybody",
        takes=("If-None-Match",),
        answers={200: Answer(means="OpenAPI 3.1.", body=dict[str, Any], headers=("ETag",)), 304: _AS_BEFORE},
    ),
    "GET /docs": Operation(
        name="readDocs", tag="service", summary="This document, to be read", open_to="everybody",
        takes=("If-None-Match",),
        answers={200: Answer(means="A page.", body=str, media="text/html", headers=("ETag",)), 304: _AS_BEFORE},
    ),
    "GET /": Operation(
        name="readConsole", tag="service", summary="Jobs and the queue, to be looked at", open_to="everybody",
        takes=("If-None-Match",),
        answers={200: Answer(means="A page.", body=str, media="text/html", headers=("ETag",)), 304: _AS_BEFORE},
    ),
}  # fmt: skip

#: Routes that are no part of the API: what its pages are made of.
UNLISTED: Final = frozenset({"GET /docs/{name}", "GET /console/{name}"})
