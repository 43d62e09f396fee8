"""What a streaming job tells while it is followed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from inferq_client.jobs import Job, Place, Usage


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The first event of :meth:`Inferq.stream`: the job as it was accepted, or answered at once."""

    job: Job


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where the job is; while it is queued, about once a second with its place."""

    status: str
    attempt: int
    queue: Place | None


@dataclass(frozen=True, kw_only=True)
class Token:
    """The next piece of the answer."""

    text: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Used:
    """Tokens used, when all are there."""

    usage: Usage


@dataclass(frozen=True, kw_only=True)
class Restarted:
    """The engine has to begin again: the text so far is void."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The last event: the completed job. A job that ended otherwise is raised as JobFailed and its like."""

    job: Job


Event: TypeAlias = Accepted | Status | Token | Used | Restarted | Ended
