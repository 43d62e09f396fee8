"""What keepers export of the state in Redis: totals that outlive every process, and what waits."""

import re
from dataclasses import dataclass
from typing import Final

from inferq.job_store import EngineState, JobStore
from inferq.scripts import Scripts

#: Upper bounds in seconds of the histograms that the scripts keep (``BOUNDS`` in ``_totals.lua``, in ms).
BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


@dataclass(frozen=True, kw_only=True)
class EngineMeasures:
    """One engine: runs that wait by line, runs in engines, Celery messages in its list, and totals by field."""

    engine: str
    lines: dict[str, int]
    running: int
    bells: int
    totals: dict[str, int]

    def histogram(self, name: str) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative (upper bound in seconds, count) pairs and the sum in seconds."""
        counted = 0
        buckets: list[tuple[str, float]] = []
        for number, bound in enumerate([*map(str, BOUNDS), "+Inf"], start=1):
            counted += self.totals.get(f"{name} {number}", 0)
            buckets.append((bound, counted))
        return buckets, self.totals.get(f"{name} sum", 0) / 1000


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The whole of it. Ages in seconds, memory in bytes (``memory_max``: 0 for no limit)."""

    states: list[EngineState]
    engines: list[EngineMeasures]
    deliveries: dict[str, int]
    backlog: int
    oldest_delivery_s: float
    dead_letters: int
    dead_deliveries: int
    memory_used: int
    memory_max: int


def read_measures(scripts: Scripts, jobs: JobStore) -> Measures:
    """Ask Redis; raises StoreUnavailable."""
    states = jobs.overview(None).rest[0]
    engines, deliveries, (backlog, oldest_ms, dead, dead_deliveries), memory = scripts("measures")
    return Measures(
        states=states,
        engines=[
            EngineMeasures(
                engine=engine,
                lines={"queue": queued, "struck": struck, "solitary": solitary},
                running=running,
                bells=bells,
                totals=_counts(totals),
            )
            for engine, totals, queued, struck, solitary, running, bells in engines
        ],
        deliveries=_counts(deliveries),
        backlog=backlog,
        oldest_delivery_s=oldest_ms / 1000,
        dead_letters=dead,
        dead_deliveries=dead_deliveries,
        memory_used=_bytes(memory, "used_memory"),
        memory_max=_bytes(memory, "maxmemory"),
    )


def _counts(flat: list[str]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}


def _bytes(info: str, name: str) -> int:
    found = re.search(rf"^{name}:(\d+)", info, re.MULTILINE)
    return int(found[1]) if found else 0
