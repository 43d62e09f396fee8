"""How many workers there should be: a fixed number, or as many as what waits and runs asks for."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol


class Policy(Protocol):
    """Decides once a tick."""

    @property
    def name(self) -> str:
        """What it is called in tables and pictures."""

    def wanted(self, now: float, queued: int, running: int, workers: int) -> int:
        """Return how many workers there should be, given runs that wait and run and workers that are ordered."""


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Always the same."""

    name: str
    workers: int

    def wanted(self, now: float, queued: int, running: int, workers: int) -> int:
        """See :class:`Policy`."""
        return self.workers


class Autoscaled:
    """As KEDA drives Kubernetes' HorizontalPodAutoscaler with queued and running runs over a target for each worker.

    The HPA's own rules: nothing within a tenth of the target; up by at most four or twice as many at a time; down to
    the most that was asked for within ``settle_s``, by one a minute or a tenth of the fleet.
    """

    def __init__(
        self,
        name: str,
        *,
        target: float,
        least: int = 1,
        most: int = 500,
        every_s: float = 15.0,
        stale_s: float = 30.0,
        settle_s: float = 600.0,
    ) -> None:
        """``target``: runs for each worker. ``stale_s``: age of the figures, scraped and asked for in turns."""
        self.name = name
        self._target, self._least, self._most = target, least, most
        self._every_s, self._stale_s, self._settle_s = every_s, stale_s, settle_s
        self._seen: deque[tuple[float, int]] = deque()
        self._asked: deque[tuple[float, int]] = deque()
        self._next = 0.0
        self._fewer_from = 0.0
        self._last = least

    def wanted(self, now: float, queued: int, running: int, workers: int) -> int:
        """See :class:`Policy`."""
        self._seen.append((now, queued + running))
        if now < self._next:
            return self._last
        self._next = now + self._every_s
        while len(self._seen) > 1 and self._seen[1][0] <= now - self._stale_s:
            self._seen.popleft()
        load = self._seen[0][1]
        near = workers > 0 and abs(load / (self._target * workers) - 1) <= 0.1
        desired = workers if near else math.ceil(load / self._target)
        desired = max(self._least, min(self._most, desired))
        self._asked.append((now, desired))
        while self._asked[0][0] < now - self._settle_s:
            self._asked.popleft()
        if desired >= workers:
            self._last = min(desired, max(2 * workers, workers + 4))
        else:
            settled = max(count for _, count in self._asked)
            if settled < workers and now >= self._fewer_from:
                self._fewer_from = now + 60
                workers = max(settled, workers - max(1, workers // 10))
            self._last = workers
        return self._last
