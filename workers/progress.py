"""Is the engine getting on? An engine that hangs holds its runs as surely as a dead one, and says nothing."""

import time
from collections.abc import Callable

from workers.engine import Engine


class Progress:
    """Watches what an engine has written.

    Progress is any change in the tokens of any run, or in the set of runs: a queue inside the engine, a long prompt
    beside short ones and an idle engine are no hang. The limit must exceed the longest prefill.
    """

    def __init__(self, engine: Engine, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``limit_s``: seconds without progress, while the engine has runs, after which it counts as hung."""
        self._engine = engine
        self._limit_s = limit_s
        self._clock = clock
        self._seen: dict[str, int] = {}
        self._since = clock()

    def stalled(self) -> bool:
        """Look at the engine; True when it has had runs and made no progress for the limit."""
        written, now = self._engine.written(), self._clock()
        if not written or written != self._seen:
            self._seen, self._since = written, now
        return now - self._since > self._limit_s


class Pulse:
    """Whether a loop still turns: who watches others may itself be stuck."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``limit_s``: seconds without a beat after which the loop counts as stuck. It begins with one."""
        self._limit_s = limit_s
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Say that the loop has come round."""
        self._last = self._clock()

    @property
    def felt(self) -> bool:
        """Whether it has come round lately."""
        return self._clock() - self._last <= self._limit_s
