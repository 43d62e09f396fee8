"""What waits and who works, as ``GET /v1/queue`` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from inferq_client.errors import NotUnderstood


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A worker: ``warming``, ``ready``, ``draining`` or ``dead``; runs it takes together, and has."""

    state: str | None
    slots: int
    running: int


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """An engine: runs that wait, jobs that wait by priority, tokens they reserve, seconds a new job should wait (None:
    nobody can say), seconds the oldest has waited, ready slots, whether an operator has paused it.
    """

    engine: str
    depth: int
    waiting: Mapping[str, int]
    queued_tokens: int
    predicted_wait_s: float | None
    oldest_s: float
    slots: int
    paused: bool
    workers: tuple[WorkerState, ...]


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """All engines, and the runs that are in them."""

    running: int
    engines: tuple[EngineState, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Read the JSON; raises NotUnderstood."""
        try:
            return cls(running=raw["running"], engines=tuple(_engine(one) for one in raw["engines"]), raw=raw)
        except (KeyError, TypeError, AttributeError):
            raise NotUnderstood("what the service sent is not the state of a queue") from None


def _engine(raw: Mapping[str, Any]) -> EngineState:
    return EngineState(
        engine=raw["engine"],
        depth=raw["depth"],
        waiting=raw.get("waiting") or {},
        queued_tokens=raw.get("queued_tokens", 0),
        predicted_wait_s=raw.get("predicted_wait_s"),
        oldest_s=raw.get("oldest_s") or 0.0,
        slots=raw.get("slots", 0),
        paused=bool(raw.get("paused")),
        workers=tuple(
            WorkerState(state=one.get("state"), slots=one.get("slots", 0), running=one.get("running", 0))
            for one in raw.get("workers") or ()
        ),
    )
