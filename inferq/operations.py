"""What an operator may do to the queue: pause, purge, look at dead letters, ask them once more."""

from dataclasses import dataclass
from typing import Final

from inferq.errors import InferqError
from inferq.ids import new_id
from inferq.outbox import Delivery
from inferq.scripts import Scripts
from inferq.tenants import checked_name
from inferq.webhook_secrets import new_secret

#: Jobs looked at by one script: a bound on how long Redis is busy.
PAGE: Final = 200


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A run given up for good: when (ms since 1970), why, after how many attempts, dead engines and lost leases."""

    run: str
    buried_ms: int
    engine: str
    attempts: int
    strikes: int
    lost: int
    code: str
    #: (tenant, job id) of those who asked.
    jobs: tuple[tuple[str, str], ...]


class Operations:
    """An operator's hand on the queue, at any time, beside everything that runs."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def pause(self, engine: str, *, paused: bool) -> None:
        """Stop or resume claims of an engine's queue; raises InferqError for an engine nobody has heard of."""
        if self._scripts("pause", engine, int(paused)) == "unknown":
            raise InferqError(f"there is no engine named {engine}; GET /v1/queue lists them")

    def purge(self, tenant: str) -> int:
        """Cancel all queued jobs of a tenant; returns how many."""
        total: int = 0
        cursor = ""
        while True:
            cancelled, cursor = self._scripts("purge", tenant, cursor, PAGE)
            total += cancelled
            if not cursor:
                return total

    def dead_letters(self, count: int) -> list[DeadLetter]:
        """Return the latest dead letters."""
        return [
            DeadLetter(
                run=run,
                buried_ms=buried_ms,
                engine=engine,
                attempts=attempts,
                strikes=strikes,
                lost=lost,
                code=code,
                jobs=tuple(zip(jobs[::2], jobs[1::2], strict=True)),
            )
            for run, buried_ms, engine, attempts, strikes, lost, code, jobs in self._scripts("dead_letters", count)
        ]

    def dead_deliveries(self, count: int) -> list[Delivery]:
        """Return the webhook deliveries that were given up latest."""
        return [Delivery.of(one) for one in self._scripts("dead_deliveries", count, "", "")]

    def retry_delivery(self, delivery: str) -> Delivery:
        """Deliver a dead letter after all, its address enabled again; raises InferqError for an unknown one."""
        return self._one("retry", delivery)

    def drop_delivery(self, delivery: str) -> Delivery:
        """Forget a dead letter; raises InferqError for an unknown one."""
        return self._one("drop", delivery)

    def _one(self, what: str, delivery: str) -> Delivery:
        reply = self._scripts("dead_deliveries", 0, what, delivery)
        if reply == "unknown":
            raise InferqError(f"there is no dead delivery {delivery}; `webhooks dead` shows them")
        return Delivery.of(reply[0])

    def rotate_secret(self, tenant: str, keep_ms: int) -> str:
        """Give a tenant a new webhook secret and return it; those it had sign for ``keep_ms`` more."""
        secret = new_secret()
        self._scripts("rotate_secret", "", checked_name(tenant), secret, keep_ms)
        return secret

    def requeue(self, run: str) -> list[tuple[str, str]]:
        """Ask a dead letter's question again; returns (tenant, new job id). Raises InferqError for an unknown run."""
        new_run, members = new_id(), 1
        while True:
            reply = self._scripts("requeue", run, new_run, *(new_id() for _ in range(members)))
            if reply[0] == "unknown":
                raise InferqError(f"there is no dead letter {run}; `dead-letters list` shows them")
            if reply[0] == "requeued":
                return list(zip(reply[1][::2], reply[1][1::2], strict=True))
            members = reply[1]
