"""What goes over the wire, as data, and how long it is repeated. Nothing here does input or output.

What the client does is written once, in generators (:mod:`inferq_client.dialogues`) that yield the steps below and are
sent what came of them. The two clients only do the steps, one by blocking and one by awaiting.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from inferq_client.errors import (
    ApiError,
    BadGateway,
    BadRequest,
    Conflict,
    FieldError,
    Gone,
    InferqError,
    NoAnswer,
    NoRoom,
    NotCached,
    NotFound,
    NotUnderstood,
    RateLimited,
    ServerFault,
    Unauthorized,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Call:
    """Step: one request. Answered by a Reply or a NoAnswer. ``hold_s``: seconds the service may take on purpose.

    ``repeatable``: whether sending it twice does no more than sending it once.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    hold_s: float = 0.0
    repeatable: bool = True


@dataclass(frozen=True, kw_only=True)
class Follow:
    """Step: open a stream of events. Answered by a Reply (without a body when it is open) or a NoAnswer."""

    call: Call


@dataclass(frozen=True, kw_only=True)
class Next:
    """Step: the next event of the open stream. Answered by a ServerEvent, None at its end, or a NoAnswer."""


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Step: let seconds pass."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Show:
    """Step: hand something to the caller before going on."""

    what: Any


@dataclass(frozen=True, kw_only=True)
class ServerEvent:
    """One server-sent event. ``id``: the last one the stream has named so far."""

    name: str
    data: str = field(repr=False)
    id: str


Step: TypeAlias = Call | Follow | Next | Pause | Show
#: Yields steps, is sent what came of each, and returns the result.
Dialogue: TypeAlias = Generator[Step, Any, T]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An HTTP answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    def json(self) -> Any:
        """Return what the body says; raises NotUnderstood."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise NotUnderstood(f"the service answered {self.status} with something other than JSON") from None

    @property
    def retry_after_s(self) -> float | None:
        """Seconds of ``Retry-After``; inferq sends no dates."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdigit() else None


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: BadRequest, 401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 410: Gone, 413: BadRequest,
    415: BadRequest, 422: BadRequest, 429: RateLimited, 502: BadGateway, 503: NoRoom, 504: BadGateway,
}  # fmt: skip


def problem(reply: Reply) -> InferqError:
    """Return the error that an answer of 3xx, 4xx or 5xx is."""
    kind = _BY_STATUS.get(reply.status, ServerFault if reply.status >= 500 else ApiError)
    try:
        said = reply.json()
    except NotUnderstood:
        said = None
    if not isinstance(said, dict) or "code" not in said:
        # Not inferq's own: a proxy's, or another service's altogether.
        if reply.status < 500 and kind is not RateLimited:
            return NotUnderstood(f"what answered {reply.status} is not inferq; is the address right?")
        return kind(f"the answer was {reply.status}", status=reply.status, retry_after_s=reply.retry_after_s)
    if said["code"] == "not-cached":
        kind = NotCached
    errors = said.get("errors") or ()
    return kind(
        str(said.get("detail") or said.get("title") or said["code"]),
        status=reply.status,
        code=said["code"],
        request_id=said.get("request_id", ""),
        retry_after_s=reply.retry_after_s,
        errors=tuple(FieldError(field=one.get("field", ""), message=one.get("message", "")) for one in errors),
        violated=tuple(said.get("violated-policies") or ()),
    )


#: Seconds before the first repeat, and at most, of calls that were not told when to come again.
BACKOFF_S: Final = (0.25, 8.0)


class Patience:
    """How long a call is repeated: while it was not answered, or refused for a passing reason, ``seconds`` in all."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Begin anew: something has gone well."""
        self._until = self._clock() + self._seconds
        self._failures = 0

    def pause_s(self, error: InferqError, *, repeatable: bool) -> float | None:
        """Return the seconds to wait before another try; None when there is to be none."""
        if isinstance(error, NoAnswer):
            passing = repeatable or not error.sent
        else:
            # 502 and 504 may have reached the service; 429 and 503 say that nothing was done, except where the answer
            # of the store was lost.
            refused = isinstance(error, RateLimited | NoRoom) and error.code != "store-unavailable"
            passing = isinstance(error, ApiError) and error.passing and (repeatable or refused)
        if not passing:
            return None
        pause = self._pause(error)
        self._failures += 1
        return pause if self._clock() + pause < self._until else None

    def _pause(self, error: InferqError) -> float:
        told = error.retry_after_s if isinstance(error, ApiError | NoAnswer) else None
        if told is not None:
            return jittered(max(told, BACKOFF_S[0]))
        first, most = BACKOFF_S
        backoff = min(most, first * 2.0 ** min(self._failures, 16))
        return backoff * random.uniform(0.5, 1.0)  # noqa: S311  # no secret


def jittered(seconds: float) -> float:
    """Return up to a quarter more than ``seconds``: all who were told the same do not come at the same instant."""
    return seconds * random.uniform(1.0, 1.25)  # noqa: S311  # no secret
