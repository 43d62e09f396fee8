"""What the workers' own logs and Redis itself say, beside what clients saw."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redis import Redis

from inferq.keys import PREFIX, key

#: Keys that stay when no job is left: who may call, who serves, windows and tombstones that end by themselves, totals.
STAY: Final = (
    "key",
    "keys",
    "tenants",
    "engines",
    "engine:",
    "worker:",
    "sweep",
    "memory",
    "window:",
    "gone:",
    "slot:",
    "cache:",
    "celery:",
    "receiver:",
    "outbox:totals",
)
#: Keys of an engine that must be empty when no job is left.
EMPTY: Final = ("queue", "struck", "solitary", "arrivals", "flows", "paces", "waiting_jobs", "active")
#: A tenant's usage by day, and what its Idempotency-Keys have made, are kept longer than its jobs.
KEPT_APART: Final = re.compile(r"tenant:[^:]*(:usage:|:idempotency:|$)|webhook-secrets:")
#: What receivers are to be told, in lines that must be empty.
UNTOLD: Final = (":due", ":sending")


@dataclass
class Outcomes:
    """What workers logged of each attempt: the word for (run, attempt), and completions by run."""

    of: dict[tuple[str, str], str] = field(default_factory=dict)
    completed: Counter[str] = field(default_factory=Counter)

    def doubled(self) -> int:
        """Return how many runs had more than one accepted completion."""
        return len([run for run, times in self.completed.items() if times > 1])


def read_outcomes(directory: Path) -> Outcomes:
    """Read the logs of all workers there were."""
    found = Outcomes()
    for log in directory.glob("worker*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if '"attempt_ended"' not in line or not line.startswith("{"):
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            found.of[event["run"], str(event["attempt"])] = event["outcome"]
            found.completed[event["run"]] += event["outcome"] == "completed"
    return found


def leftovers(redis: "Redis", engine: str) -> list[str]:
    """Return inferq's keys that should not be there when every job has been forgotten."""
    names = list(redis.scan_iter(f"{PREFIX}*", count=1000))
    found = [n for n in names if not n.removeprefix(PREFIX).startswith(STAY) and not KEPT_APART.search(n)]
    found += [name for name in names if name.endswith(":aboard") and redis.scard(name)]
    found += [name for name in names if name.endswith(UNTOLD)]
    found += [key(name, engine) for name in EMPTY if redis.exists(key(name, engine))]
    return sorted(found)


def marks(redis: "Redis") -> dict[str, tuple[int, int]]:
    """Return the strikes and the lost leases of every run there is."""
    names = [name for name in redis.scan_iter(key("run", "*"), count=1000) if name.count(":") == 2]
    said = [(name, *redis.hmget(name, "strikes", "lost")) for name in names]
    return {name: (int(strikes or 0), int(lost or 0)) for name, strikes, lost in said}


def more_marks(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Return how many strikes and how many lost leases have come since."""
    grown = [(now[0] - was[0], now[1] - was[1]) for run, now in after.items() for was in [before.get(run, (0, 0))]]
    return sum(strikes for strikes, _ in grown), sum(lost for _, lost in grown)
