"""One Redis seen by an API, workers and a keeper, on a clock the test turns."""

import re
from typing import Any

from redis import Redis

from inferq.completion_cache import CachedCompletion
from inferq.credentials import Credential, KeyLimits, KeyRing
from inferq.ids import new_id
from inferq.job_store import JobStore, ServiceLimits, Submission
from inferq.jobs import Job
from inferq.operations import Operations
from inferq.run_store import ClaimedRun, Completion, RunStore
from inferq.scripts import Scripts
from inferq.sweeps import Sweeps
from inferq.tenants import Tenants

CLOCK = "local function now_ms() return tonumber(redis.call('GET', 'test:now')) end\n"
LEASE = 12_000


class World:
    """One Redis seen by an API, workers and a keeper, at a time the test sets."""

    def __init__(self, redis: Redis) -> None:
        redis.flushall()
        self._look(redis, 1_800_000_000_000)
        self.pass_ms(0)
        self.caller = self.new_caller("acme")

    @classmethod
    def on(cls, redis: Redis, *, now: int, caller: Credential) -> "World":
        """The world as it stands in a Redis, seen by the same caller."""
        world = cls.__new__(cls)
        world._look(redis, now)
        world.pass_ms(0)
        world.caller = caller
        return world

    def _look(self, redis: Redis, now: int) -> None:
        self.redis = redis
        self.now = now
        scripts = Scripts(redis, clock=CLOCK)
        self.jobs = self.store(redis)
        self.tenants = Tenants(redis, scripts)
        self.worker = RunStore(scripts, engine="demo", worker="w1", lease_ms=LEASE)
        self.other = RunStore(scripts, engine="demo", worker="w2", lease_ms=LEASE)
        self.sweeps = Sweeps(scripts, lease_ms=LEASE, tick_ms=1000)
        self.operations = Operations(scripts)

    @staticmethod
    def store(redis: Redis) -> JobStore:
        return JobStore(Scripts(redis, clock=CLOCK), ServiceLimits(requests=5, polls=1000))

    def new_caller(self, tenant: str, **limits: Any) -> Credential:
        fields = KeyLimits(**({"requests": 1_000_000} | limits))
        credential = Credential.parse(KeyRing(self.redis).create(tenant, limits=fields))
        assert credential
        return credential

    def pass_ms(self, ms: int) -> None:
        self.now += ms
        # A script that begins with a removal: time passes although Redis is full.
        self.redis.eval("redis.call('DEL', 'test:none') redis.call('SET', 'test:now', ARGV[1])", 0, self.now)

    def submission(self, **changes: object) -> Submission:
        fields: dict[str, object] = {
            "job_id": new_id(),
            "run_id": new_id(),
            "engine": "demo",
            "model": "demo",
            "priority": "normal",
            "cost": 10,
            "prompt_tokens": 2,
            "fingerprint": new_id(),
            "scope": "tenant",
            "read_cache": True,
            "store": True,
            "share": True,
            "only_if_cached": False,
            "cache_status": "miss",
            "max_depth": 1000,
            "max_tokens": 1_000_000,
            "ttl_ms": 60_000,
            "request_json": '{"prompt":"hi"}',
        }
        return Submission(**(fields | changes))

    def submit(self, caller: Credential | None = None, **changes: object) -> str:
        submission = self.submission(**changes)
        answer = self.jobs.submit(caller or self.caller, submission)
        assert answer.outcome == "accepted", answer
        return submission.job_id

    def claim(self, worker: RunStore | None = None) -> ClaimedRun:
        run, _ = (worker or self.worker).claim(new_id())
        assert run
        return run

    def read(self, job_id: str, caller: Credential | None = None) -> Job:
        answer = self.jobs.read(caller or self.caller, job_id)
        assert answer.outcome == "job", answer
        return answer.rest[0]

    def finish(self, run: ClaimedRun, worker: RunStore | None = None, text: str = "done") -> bool:
        completion = Completion(text=text, finish_reason="stop", prompt_tokens=3, completion_tokens=2, ttft_ms=5)
        entry = CachedCompletion(
            text=text, finish_reason="stop", prompt_tokens=3, completion_tokens=2, model="demo", stored_ms=self.now
        )
        kept, _ = (worker or self.worker).complete(
            run, completion, cache_entry=entry if run.store else None, cache_ttl_s=60
        )
        return kept

    def tick(self, times: int = 1, every_ms: int = 1000) -> list[str]:
        """Let a keeper tick steadily; returns the runs rescued on the way."""
        rescued: list[str] = []
        for _ in range(times):
            self.pass_ms(every_ms)
            rescued += self.sweeps.tick().rescued
        return rescued

    def warm(self, worker: RunStore | None = None, slots: int = 4) -> None:
        (worker or self.worker).heartbeat([], {"state": "ready", "slots": str(slots), "running": "0"})

    def leftovers(self) -> set[str]:
        """Keys below inferq's prefix that belong to jobs and runs, without tombstones, windows and bookkeeping."""
        ignored = re.compile(
            r"iq:(gone:.*|keys?(:.*)?|window:.*|cache:.*|slot:.*|engine:[^:]*(:workers|:totals)?|worker:.*|sweep|outbox:totals|memory|tenants|engines"
            r"|receiver:[^:]*://[^:]*|webhook-secrets:.*|tenant:[^:]*:disabled-webhooks|tenant:[^:]*|tenant:[^:]*:usage:.*|tenant:[^:]*:idempotency:.*)"
        )
        return {k for k in self.redis.scan_iter("iq:*") if not ignored.fullmatch(k)}
