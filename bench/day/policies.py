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

    The HPA's own rules: nothing within a tenth of the target; up by so many a minute, or, unless that is said, by four
    or to twice as many at each look; down to the most that was asked for within ``settle_s``, by one in ``down_s``.
    """

    def __init__(
        self,
        name: str,
        *,
        target: float,
        least: int = 1,
        most: int = 500,
        up: int | None = None,
        every_s: float = 15.0,
        stale_s: float = 30.0,
        settle_s: float = 600.0,
        down_s: float = 120.0,
    ) -> None:
        """``target``: runs for each worker. ``up``: more a minute at most. ``stale_s``: age of the figures, which are
        scraped and asked for in turns.
        """
        self.name = name
        self._target, self._least, self._most = target, least, most
        self._every_s, self._stale_s, self._settle_s = every_s, stale_s, settle_s
        self._up, self._down_s = up, down_s
        self._more: deque[tuple[float, int]] = deque()
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
            self._last = min(desired, workers + self._room(now, workers))
            self._more.append((now, self._last - workers))
        else:
            settled = max(count for _, count in self._asked)
            if settled < workers and now >= self._fewer_from:
                self._fewer_from = now + self._down_s
                workers -= 1
            self._last = workers
        return self._last

    def _room(self, now: float, workers: int) -> int:
        """Return how many more may be ordered now."""
        if self._up is None:
            return max(workers, 4)
        while self._more and self._more[0][0] <= now - 60:
            self._more.popleft()
        return max(0, self._up - sum(count for _, count in self._more))
