"""The outbox: deliveries as keepers send them, and as their owners and operators see them."""

import json
from dataclasses import dataclass
from typing import Any, Final, Self

from inferq.scripts import Scripts

#: Deliveries one script gives a keeper: a bound on how long Redis is busy and on what comes back (20 kB each).
BATCH: Final = 32
#: Seconds of a lease beyond the time an attempt may take.
LEASE_SLACK_S: Final = 5.0

REASONS: Final = {
    "gone": "The receiver answered 410 Gone: the address is disabled.",
    "disabled": "The address is disabled: it answered 410 Gone before.",
    "retries": "No attempt succeeded.",
    "too_late": "No attempt has succeeded for so long that no further one is made.",
}


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A delivery to be sent now, under a lease: which attempt it is, the payload, the secrets to sign with."""

    id: str
    attempt: int
    url: str
    body: str
    secrets: tuple[str, ...]
    #: Whether the receiver's last answer was good.
    proven: bool
    event: str = ""
    #: Of the call that made the job: its X-Request-ID, and the trace it is part of.
    request_id: str | None = None
    trace: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt went: in ms, with the status code if there was one, and in words what was wrong.

    ``down``: the receiver as a whole seems to be, so others that wait for it may be spared the try.
    ``unsent``: it was not asked at all. ``retry_ms``: its Retry-After.
    """

    good: bool
    ms: int
    status: int | None = None
    error: str | None = None
    gone: bool = False
    down: bool = False
    unsent: bool = False
    retry_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of a delivery. ``ms`` is None while it is under way, and when nobody has said how it went."""

    number: int
    at_ms: int
    ms: int | None
    status: int | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event for one address. ``status``: pending, sending, delivered or dead. Times in ms since 1970."""

    id: str
    job: str
    tenant: str
    event: str
    url: str
    status: str
    reason: str | None
    created_ms: int
    ended_ms: int | None
    due_ms: int | None
    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, reply: list[Any]) -> Self:
        """Return what a script's reply says (``delivery_shown``)."""
        name, flat, tried, due, sending = reply
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        attempts = [
            _attempt(int(number), json.loads(text), under_way=bool(sending) and number == fields["number"])
            for number, text in zip(tried[::2], tried[1::2], strict=True)
        ]
        ended = fields.get("ended_ms")
        return cls(
            id=name,
            job=fields["job"],
            tenant=fields["tenant"],
            event=fields["event"],
            url=fields["url"],
            status="sending" if sending else fields["status"],
            reason=REASONS[fields["reason"]] if fields["status"] == "dead" else None,
            created_ms=int(fields["created_ms"]),
            ended_ms=int(ended) if ended else None,
            due_ms=int(due) if due else None,
            attempts=tuple(sorted(attempts, key=lambda attempt: attempt.number)),
        )


def _attempt(number: int, said: dict[str, Any], *, under_way: bool) -> Attempt:
    interrupted = None if "ms" in said or under_way else "The keeper ended before it could say how this went."
    return Attempt(
        number=number,
        at_ms=int(said["at_ms"]),
        ms=said.get("ms"),
        status=said.get("status"),
        error=said.get("error") or interrupted,
    )


class Outbox:
    """The keepers' side. Any number of keepers may take: what one has taken is under a lease."""

    def __init__(self, scripts: Scripts, *, timeout_s: float, waits_s: tuple[float, ...]) -> None:
        """``timeout_s``: how long an attempt may take. ``waits_s``: how long to wait after each failure."""
        self._scripts = scripts
        self._lease_ms = round(1000 * (timeout_s + LEASE_SLACK_S))
        self._waits = json.dumps([round(1000 * wait) for wait in waits_s])
        # A receiver's breaker may hold a delivery back for longer than its schedule; a day more, and it is given up.
        self._patience_ms = round(1000 * (1.1 * sum(waits_s) + 86_400))

    def take(self, *, proven: int, unproven: int) -> tuple[list[Parcel], bool]:
        """Take what can be sent now, so many at most by the receivers' standing; raises StoreUnavailable.

        Returns parcels, and whether there may be more although there was room.
        """
        room = (min(proven, BATCH), min(unproven, BATCH))
        taken, more = self._scripts("take_deliveries", *room, self._lease_ms, self._patience_ms)
        parcels = [
            Parcel(
                id=name,
                attempt=number,
                url=url,
                body=body,
                secrets=tuple(secrets),
                proven=bool(proven),
                event=event,
                request_id=request_id,
                trace=trace,
            )
            for name, number, url, body, secrets, proven, event, request_id, trace in taken
        ]
        return parcels, bool(more)

    def attempted(self, parcel: Parcel, outcome: Outcome, jitter: float) -> str:
        """Note how an attempt went; returns delivered, again, dead, late or forgotten. Raises StoreUnavailable.

        ``jitter``: a random number from 0 to 1.
        """
        said = {
            "good": outcome.good,
            "gone": outcome.gone,
            "down": outcome.down,
            "unsent": outcome.unsent,
            "ms": outcome.ms,
            "status": outcome.status,
            "error": outcome.error,
            "retry_ms": outcome.retry_ms,
        }
        known = json.dumps({name: value for name, value in said.items() if value is not None})
        return str(self._scripts("attempted", parcel.id, parcel.attempt, known, self._waits, f"{jitter:.3f}"))

    def lacks_bell(self) -> bool:
        """Whether something can be sent and no keeper has been told; raises StoreUnavailable."""
        return bool(self._scripts("outbox_bells"))
