"""The keeper's side of the record: what must happen although nobody asks."""

from dataclasses import dataclass
from typing import Final

from inferq.scripts import Scripts

#: Rows one sweep handles in one script: a bound on how long Redis is busy (about 5 ms).
BATCH: Final = 200
#: Leases a run may lose before it is given up.
LOST_LIMIT: Final = 10


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What one tick did. ``steady`` is False while rescue waits out a gap in Redis's answers."""

    steady: bool
    rescued: tuple[str, ...]
    expired: int
    dropped: int
    #: Bells each engine's Celery list lacks.
    bells: dict[str, int]


class Sweeps:
    """One tick of the keeper; any number of keepers may tick."""

    def __init__(self, scripts: Scripts, *, lease_ms: int, tick_ms: int) -> None:
        self._scripts = scripts
        self._lease_ms = lease_ms
        self._gap_ms = 3 * tick_ms

    def tick(self) -> Swept:
        """Rescue, expire, drop and count missing bells; raises StoreUnavailable when Redis does not answer."""
        steady, rescued = self._scripts("rescue", self._lease_ms, self._gap_ms, BATCH, LOST_LIMIT)
        expired = self._scripts("expire", BATCH)
        dropped = self._scripts("retain", BATCH)
        rings = self._scripts("ring")
        return Swept(
            steady=bool(steady),
            rescued=tuple(rescued),
            expired=expired,
            dropped=dropped,
            bells={engine: count for engine, count in zip(rings[::2], rings[1::2], strict=True) if count},
        )
