"""What one Redis carries: its processor time for each step of a job's life, and its memory for each thing it keeps.

The time of its own process, not that of a client: a client on the same cores would be measured with it otherwise.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from bench.load import median
from bench.processes import Children
from bench.scale import ENGINE, make_submission
from bench.stack import make_settings, start_redis
from inferq.completion_cache import CachedCompletion
from inferq.credentials import Credential, KeyRing
from inferq.event_streams import EventStreams, Place
from inferq.ids import new_id
from inferq.job_store import JobStore, ServiceLimits
from inferq.keys import key
from inferq.redis_client import job_redis
from inferq.run_store import ClaimedRun, Completion, RunStore
from inferq.scripts import Scripts

#: Jobs of one round.
JOBS: Final = 2000
#: Share of a core that Redis may be busy in the long run, so that bursts and rewrites of its file find room.
BUSY: Final = 0.7
#: Runs of one heartbeat and one telling of pieces: a worker's slots on a T4.
SLOTS: Final = 16
#: An answer of 64 tokens, and a piece of one.
_ANSWER: Final = "token " * 64
_PIECE: Final = "a few tokens, "


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One step: microseconds of Redis' processor (median, lowest and highest round), and how many a second fill a core
    to ``BUSY``.
    """

    step: str
    us: float
    lowest: float
    highest: float

    @property
    def per_s(self) -> float:
        """So many a second, and nothing else, keep Redis busy to ``BUSY``."""
        return 1e6 * BUSY / self.us


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Bytes of Redis' memory: of a job that waits (prompt of 200 characters), of one that has ended (answer of 64
    tokens), and of a stored completion. Measured with so many, bookkeeping included.
    """

    waiting: float
    ended: float
    completion: float
    jobs: int


class OneRedis:
    """A Redis of its own with an append-only file, and everything that API and workers ask of it."""

    def __init__(self, children: Children, jobs: int) -> None:
        self._count = jobs
        settings = make_settings(engine="simulated")
        start_redis(children, settings)
        self.redis: Redis = job_redis(settings)
        scripts = Scripts(self.redis)
        self._jobs = JobStore(scripts, ServiceLimits(requests=10**7, polls=10**7))
        self._runs = RunStore(scripts, engine=ENGINE, worker="bench", lease_ms=600_000)
        self._streams = EventStreams(self.redis, scripts)

    def round(self) -> tuple[dict[str, float], Weights]:
        """Take so many jobs through their lives; returns microseconds by step, and what they weigh."""
        spent: dict[str, float] = {}
        self.redis.flushdb()
        caller = Credential.parse(KeyRing(self.redis).create("acme"))
        assert caller  # noqa: S101  # just made
        self._runs.heartbeat([], {"state": "ready", "slots": str(SLOTS)})
        made = [make_submission(stream=number % 4 == 0) for number in range(self._count)]
        empty = self._memory()
        with self._spending(spent, "submit", self._count):
            for submission in made:
                self._jobs.submit(caller, submission)
        self._forget_windows()
        waiting = self._memory()
        with self._spending(spent, "poll", self._count):
            for submission in made:
                self._jobs.read(caller, submission.job_id)
        runs: list[ClaimedRun] = []
        with self._spending(spent, "claim", self._count):
            for _ in made:
                run, _bells = self._runs.claim(new_id())
                assert run  # noqa: S101  # as many wait as are claimed
                runs.append(run)
        self._worker_steps(spent, runs)
        with self._spending(spent, "complete", self._count):
            for run in runs:
                self._complete(run)
        with self._spending(spent, "bell (send and receive)", self._count):
            for _ in made:
                self.redis.lpush("bells", "x" * 500)  # Celery's message has about so many bytes
                self.redis.brpop("bells", 1)
        with self._spending(spent, "hit", self._count):
            for submission in made:
                self._jobs.submit(caller, make_submission(fingerprint=submission.fingerprint))
        self._forget_windows()
        ended = self._memory()
        stored = list(self.redis.scan_iter(key("cache", "*", "*"), count=1000))
        self.redis.delete(*stored)
        without = self._memory()
        weights = Weights(
            waiting=(waiting - empty) / self._count,
            ended=(without - empty) / self._count,
            completion=(ended - without) / self._count,
            jobs=self._count,
        )
        return spent, weights

    def _worker_steps(self, spent: dict[str, float], runs: list[ClaimedRun]) -> None:
        """What a worker does while runs run, and a follower of them."""
        held = [(run.id, run.fence) for run in runs[:SLOTS]]
        with self._spending(spent, f"heartbeat of {SLOTS} runs", 200):
            for _ in range(200):
                self._runs.heartbeat(held, {"state": "ready", "slots": str(SLOTS)})
        told = [run for run in runs if run.stream][:SLOTS]
        with self._spending(spent, "piece of a stream, written", 50 * len(told)):
            for number in range(50):
                self._runs.append([(run.id, run.fence, number * len(_PIECE), _PIECE) for run in told])
        with self._spending(spent, "piece of a stream, read", 50 * len(told)):
            for number in range(50):
                self._streams.pieces({run.id: Place(run.fence, number * len(_PIECE)) for run in told})

    def _complete(self, run: ClaimedRun) -> None:
        said: dict[str, Any] = {
            "text": _ANSWER,
            "finish_reason": "stop",
            "prompt_tokens": 50,
            "completion_tokens": 64,
        }
        entry = CachedCompletion(**said, model=ENGINE, stored_ms=round(1000 * time.time()))
        self._runs.complete(run, Completion(**said, ttft_ms=50), cache_entry=entry, cache_ttl_s=3600)

    def _forget_windows(self) -> None:
        """Rate windows empty themselves within a minute, however many jobs there are."""
        names = list(self.redis.scan_iter(key("window", "*", "*"), count=1000))
        if names:
            self.redis.delete(*names)

    @contextmanager
    def _spending(self, spent: dict[str, float], step: str, times: int) -> Iterator[None]:
        before = self._cpu_s()
        yield
        spent[step] = 1e6 * (self._cpu_s() - before) / times

    def _cpu_s(self) -> float:
        info = self.redis.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def _memory(self) -> int:
        return int(self.redis.info("memory")["used_memory"])


def measure_capacity(children: Children, rounds: int, jobs: int = JOBS) -> tuple[list[Cost], Weights]:
    """Measure all steps in turns, round after round; the first one warms up and is not counted."""
    one = OneRedis(children, jobs)
    found: dict[str, list[float]] = {}
    one.round()
    for _ in range(rounds):
        spent, weights = one.round()
        for step, us in spent.items():
            found.setdefault(step, []).append(us)
    # A life: what every job costs whose client asks twice.
    life = {"submit": 1, "bell (send and receive)": 1, "claim": 1, "complete": 1, "poll": 2}
    found["a whole job, polled twice"] = [
        sum(times * found[step][number] for step, times in life.items()) for number in range(rounds)
    ]
    costs = [Cost(step=step, us=median(us), lowest=min(us), highest=max(us)) for step, us in found.items()]
    return costs, weights
