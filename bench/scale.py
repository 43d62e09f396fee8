"""What an operation costs when a hundred, ten thousand and a million jobs wait, and what a waiting job weighs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis import Redis

from bench.load import median, percentile
from bench.processes import Children
from bench.stack import make_settings, start_redis
from inferq.credentials import Credential, KeyRing
from inferq.ids import new_id
from inferq.job_store import JobStore, ServiceLimits, Submission
from inferq.keys import key
from inferq.redis_client import job_redis
from inferq.run_store import RunStore
from inferq.scripts import Scripts

#: Jobs that wait while the operations are measured.
DEPTHS = (100, 10_000, 1_000_000)
#: Calls of each operation in one round.
CALLS = 500
#: Keys that the waiting jobs belong to, each of another tenant.
KEYS = 100
ENGINE = "bench"
_REQUEST = '{"prompt":"' + "x" * 200 + '","max_tokens":256}'


@dataclass(frozen=True, kw_only=True)
class Row:
    """One operation at one depth: microseconds seen by a client (median, and lowest and highest round), beside the
    smallest depth; bytes of Redis memory per waiting job with a prompt of 200 characters.
    """

    depth: int
    operation: str
    us: float
    lowest: float
    highest: float
    times: float
    bytes_per_job: float


class Filled:
    """A Redis of its own with so many jobs waiting, and the operations on it."""

    def __init__(self, children: Children, depth: int) -> None:
        settings = make_settings(engine="simulated")
        start_redis(children, settings, name=f"redis-{depth}", durable=False)
        self.redis: Redis = job_redis(settings)
        self.depth = depth
        self._scripts = Scripts(self.redis)
        self._jobs = JobStore(self._scripts, ServiceLimits(requests=10**7, polls=10**7))
        self._runs = RunStore(self._scripts, engine=ENGINE, worker="bench", lease_ms=600_000)
        ring = KeyRing(self.redis)
        self._callers = [self._parsed(ring.create(f"tenant-{number}")) for number in range(KEYS)]
        self._runs.heartbeat([], {"state": "ready", "slots": "1"})
        before = self._memory()
        self._ids = self._fill()
        # Rate windows empty themselves within a minute, however many jobs wait.
        self.redis.delete(*self.redis.scan_iter(key("window", "*", "*"), count=1000))
        self.bytes_per_job = (self._memory() - before) / depth

    def measure(self, calls: int) -> dict[str, float]:
        """Return the median microseconds of each operation, the depth being the same before and after."""
        operations: dict[str, list[float]] = {"submit": [], "poll": [], "claim": [], "cancel": []}
        for number in range(calls):
            caller = self._callers[number % KEYS]
            submission = make_submission()
            self._timed(operations["submit"], partial(self._jobs.submit, caller, submission))
            known, job = self._ids[number * 7919 % len(self._ids)]
            self._timed(operations["poll"], partial(self._jobs.read, known, job))
            run, _ = self._timed(operations["claim"], partial(self._runs.claim, new_id()))
            assert run  # noqa: S101  # the queue is full of them
            self._runs.release(run)
            self._timed(operations["cancel"], partial(self._jobs.cancel, caller, submission.job_id))
        return {name: 1e6 * percentile(seconds, 0.5) for name, seconds in operations.items()}

    @staticmethod
    def _timed(found: list[float], call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        found.append(time.perf_counter() - began)
        return result

    def _fill(self) -> list[tuple[Credential, str]]:
        """Submit as the API does; returns some jobs with their owners."""
        sample: list[tuple[Credential, str]] = []
        for number in range(self.depth):
            caller, submission = self._callers[number % KEYS], make_submission()
            self._jobs.submit(caller, submission)
            if number * CALLS // self.depth >= len(sample):
                sample.append((caller, submission.job_id))
        return sample

    @staticmethod
    def _parsed(presented: str) -> Credential:
        credential = Credential.parse(presented)
        assert credential  # noqa: S101  # just made
        return credential

    def _memory(self) -> int:
        return int(self.redis.info("memory")["used_memory"])


def make_submission(**changes: Any) -> Submission:
    """Return what the API asks of the submit script for a new prompt of 200 characters, with ``changes``."""
    fields: dict[str, Any] = {
        "job_id": new_id(),
        "run_id": new_id(),
        "engine": ENGINE,
        "model": ENGINE,
        "priority": "normal",
        "cost": 306,
        "prompt_tokens": 50,
        "fingerprint": f"{new_id()}{new_id()}"[:64],
        "scope": "tenant",
        "read_cache": True,
        "store": True,
        "share": True,
        "only_if_cached": False,
        "cache_status": "miss",
        "max_depth": 10**9,
        "max_tokens": 10**15,
        "ttl_ms": 86_400_000,
        "request_json": _REQUEST,
    }
    return Submission(**(fields | changes))


def measure_scale(children: Children, rounds: int, depths: Sequence[int] = DEPTHS) -> list[Row]:
    """Fill a Redis for each depth, then measure them in turns."""
    filled = [Filled(children, depth) for depth in depths]
    found: dict[tuple[int, str], list[float]] = {}
    for round_number in range(-1, rounds):  # the first round warms up and is not counted
        for one in filled:
            for operation, us in one.measure(CALLS).items():
                if round_number >= 0:
                    found.setdefault((one.depth, operation), []).append(us)
    weights = {one.depth: one.bytes_per_job for one in filled}
    return [
        Row(
            depth=depth,
            operation=operation,
            us=median(us),
            lowest=min(us),
            highest=max(us),
            times=median(us) / median(found[depths[0], operation]),
            bytes_per_job=weights[depth],
        )
        for (depth, operation), us in sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
