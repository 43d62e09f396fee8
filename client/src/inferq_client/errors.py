"""Every error the client raises. Texts come from the service and name fields, never prompts, answers or keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from inferq_client.jobs import Job


class InferqError(Exception):
    """Whatever the client raises on purpose."""


class NoAnswer(InferqError):
    """The service was not reached, or its answer was lost on the way.

    ``sent``: whether the request may have arrived. ``retry_after_s`` is always None: nobody could say.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent
        self.retry_after_s: float | None = None


class NotUnderstood(InferqError):
    """What answered does not speak as inferq does: mostly a wrong address, or a proxy with a page of its own."""


class MissingExtra(InferqError):
    """Something needs ``pip install 'inferq-client[cli]'``."""


class BadSignature(InferqError):
    """A webhook was not signed with the secret, or too long ago, or is none."""


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One wrong field, and what would be right."""

    field: str
    message: str


class ApiError(InferqError):
    """The service answered with a problem (RFC 9457, ``application/problem+json``).

    ``status``: of HTTP. ``code``: for programs, as ``invalid-request``. ``detail``: for people. ``errors``: what is
    wrong with which field; ``field``: the first of them. ``request_id``: to be named when asking the operator.
    ``retry_after_s``: seconds after which it may go well. ``violated``: the limits that were used up.
    """

    #: Whether the same call may go well later by itself.
    passing: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
        errors: tuple[FieldError, ...] = (),
        violated: tuple[str, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.errors = errors
        self.field = errors[0].field if errors else None
        self.violated = violated


class BadRequest(ApiError):
    """400, 413, 415, 422: the request is wrong, and will be wrong again."""


class Unauthorized(ApiError):
    """401, 403: no key, a wrong one, or one that may not do this."""


class NotFound(ApiError):
    """404: there is no such job or model, or it is another tenant's."""


class Gone(ApiError):
    """410: the job ended, and its result has expired."""


class Conflict(ApiError):
    """409: the job's state does not allow this."""


class RateLimited(ApiError):
    """429: this key has used up a limit of its own."""

    passing = True


class NoRoom(ApiError):
    """503: the queue or the store is full or away, for everybody."""

    passing = True


class NotCached(ApiError):
    """504 to ``only-if-cached``: no answer is stored."""


class ServerFault(ApiError):
    """5xx: the service, or a proxy before it, made a mistake."""


class BadGateway(ServerFault):
    """502, 504: a proxy did not get an answer from the service."""

    passing = True


class WaitTimeout(InferqError):
    """The job had not ended in time. It lives on: wait again or cancel it. ``job``: as last seen."""

    def __init__(self, job: Job | None, seconds: float) -> None:
        super().__init__(f"the job is still {job.status if job else 'unknown'} after {seconds:g} s")
        self.job = job


class JobNotCompleted(InferqError):
    """The job has ended without an answer: ``job``."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.error.message if job.error else f"the job is {job.status}")
        self.job = job


class JobFailed(JobNotCompleted):
    """It ended with an error."""


class JobCancelled(JobNotCompleted):
    """Its owner stopped it."""


class JobExpired(JobNotCompleted):
    """A deadline passed first."""


ENDS: dict[str, type[JobNotCompleted]] = {"failed": JobFailed, "cancelled": JobCancelled, "expired": JobExpired}
