"""A tenant with a secret, its jobs, and a keeper's hand in the outbox."""

from typing import Any

from inferq.credentials import Credential
from inferq.job_store import Answer
from inferq.jobs import Job
from inferq.keys import key
from inferq.outbox import Delivery, Outbox, Outcome, Parcel
from tests.world import World

URL = "https://hooks.example.com/in"
EVENTS = "cancelled completed expired failed"
WAITS = (5.0, 300.0)
GOOD = Outcome(good=True, ms=12, status=204)
BAD = Outcome(good=False, ms=30, status=500, error="The receiver answered 500.", down=True)


class Post:
    """A tenant with a secret, its jobs, and a keeper's hand in the outbox."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outbox = Outbox(world.operations._scripts, timeout_s=15.0, waits_s=WAITS)
        self.secret = world.operations.rotate_secret("acme", 1000)

    def submit(self, caller: Credential | None = None, **changes: Any) -> Job:
        fields = {"hook_url": URL, "hook_events": EVENTS} | changes
        answer = self.world.jobs.submit(caller or self.world.caller, self.world.submission(**fields))
        assert answer.outcome == "accepted", answer
        job: Job = answer.rest[0]
        return job

    def ended(self, caller: Credential | None = None, **changes: Any) -> Job:
        """A job that has just been completed."""
        job = self.submit(caller, **changes)
        assert self.world.finish(self.world.claim())
        return job

    def prove(self, origin: str) -> None:
        """Let a receiver have answered well."""
        self.ended(hook_url=f"{origin}/")
        (name,) = [f"acme {origin}"]
        self.world.redis.zadd(key("receivers", "unproven", "acme"), {name: 0})
        self.world.redis.zadd(key("turns", "unproven"), {"acme": 0})
        (parcel,) = self.outbox.take(proven=0, unproven=1)[0]
        assert parcel.url == f"{origin}/"
        assert self.told(parcel) == "delivered"

    def take(self, most: int = 10) -> list[Parcel]:
        return self.outbox.take(proven=most, unproven=most)[0]

    def one(self) -> Parcel:
        (parcel,) = self.take()
        return parcel

    def told(self, parcel: Parcel, outcome: Outcome = GOOD) -> str:
        return self.outbox.attempted(parcel, outcome, 0.5)

    def log(self, job: str) -> list[Delivery]:
        answer: Answer = self.world.jobs.deliveries(self.world.caller, job)
        assert answer.outcome == "deliveries", answer
        found: list[Delivery] = answer.rest[0]
        return found
