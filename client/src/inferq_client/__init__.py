"""inferq over HTTP: submit prompts, wait for answers, stream tokens, cancel, list, and believe webhooks.

from inferq_client import Inferq

with Inferq("http://127.0.0.1:8000", "iq_…") as client:
    print(client.run("What is inferq?", temperature=0).text)
"""

from inferq_client.async_client import AsyncInferq
from inferq_client.dialogues import AUTO
from inferq_client.errors import (
    ApiError,
    BadGateway,
    BadRequest,
    BadSignature,
    Conflict,
    FieldError,
    Gone,
    InferqError,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotCompleted,
    MissingExtra,
    NoAnswer,
    NoRoom,
    NotCached,
    NotFound,
    NotUnderstood,
    RateLimited,
    ServerFault,
    Unauthorized,
    WaitTimeout,
)
from inferq_client.events import Accepted, Ended, Event, Restarted, Status, Token, Used
from inferq_client.jobs import Deadline, Job, JobError, JobOptions, Output, Place, Prompt, Timings, Usage, Webhook
from inferq_client.mapping import Progress
from inferq_client.queue import EngineState, QueueState, WorkerState
from inferq_client.sync_client import Inferq
from inferq_client.version import __version__
from inferq_client.webhooks import WebhookEvent, verify_webhook

__all__ = [
    "AUTO", "Accepted", "ApiError", "AsyncInferq", "BadGateway", "BadRequest", "BadSignature", "Conflict", "Deadline",
    "Ended", "EngineState", "Event", "FieldError", "Gone", "Inferq", "InferqError", "Job", "JobCancelled", "JobError",
    "JobExpired", "JobFailed", "JobNotCompleted", "JobOptions", "MissingExtra", "NoAnswer", "NoRoom", "NotCached",
    "NotFound", "NotUnderstood", "Output", "Place", "Progress", "Prompt", "QueueState", "RateLimited", "Restarted",
    "ServerFault", "Status", "Timings", "Token", "Unauthorized", "Usage", "Used", "WaitTimeout", "Webhook",
    "WebhookEvent", "WorkerState", "__version__", "verify_webhook",
]  # fmt: skip
