"""Tells what streaming runs have written while they run: one call to Redis for all of a worker's, every few moments."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from inferq.errors import StoreUnavailable
from inferq.run_store import ClaimedRun, RunStore
from workers.engine import Engine

log = structlog.get_logger()

#: Seconds between two looks at what the engine has written: as long a first token waits at most.
LOOK_S: Final = 0.025
#: Seconds between two pieces of a run, for each run that is told: a crowd is told in larger pieces, at the same cost.
#: With a model on a GPU, every look up to forty runs, and every other one above.
PIECE_S: Final = 0.0006
#: With a model on the processor: from here to a client's socket a piece costs a third of a millisecond of its time.
PIECE_ON_CORES_S: Final = 0.006
#: Seconds between two pieces of a run at most.
LONGEST_S: Final = 0.4
#: Seconds before another try when Redis did not answer.
RETRY_S: Final = 0.5


@dataclass(eq=False)
class _Told:
    """How much of an attempt's text has been told: characters, and bytes as UTF-8."""

    fence: int
    chars: int = 0
    bytes: int = 0
    #: When the next piece is due.
    due: float = 0.0


class TokenStreams:
    """A thread with a Redis connection of its own. What it has not told when a run ends comes with the result."""

    def __init__(
        self,
        *,
        store: RunStore,
        engine: Engine,
        counted: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``counted`` is told how many pieces were written."""
        self._store = store
        self._engine = engine
        self._counted = counted
        self._piece_s = PIECE_ON_CORES_S if engine.takes_cores else PIECE_S
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, _Told] = {}
        self._some = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._tell_forever, name="token-streams", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell nothing more."""
        self._stopped.set()
        self._some.set()

    @contextmanager
    def of(self, run: ClaimedRun) -> Iterator[None]:
        """Tell what a run writes meanwhile, if somebody has asked for that."""
        if not run.stream:
            yield
            return
        told = _Told(run.fence)
        with self._lock:
            self._told[run.id] = told
            self._some.set()
        try:
            yield
        finally:
            self._forget(run.id, told)

    def tell(self) -> None:
        """Tell once what is due of all runs; raises StoreUnavailable."""
        now = self._clock()
        with self._lock:
            due = {run: told for run, told in self._told.items() if told.due <= now}
            next_due = now + min(self._piece_s * len(self._told), LONGEST_S)
        if not due:
            return
        pieces, of = [], []
        for run, text in self._engine.texts(due).items():
            told = due[run]
            if len(text) > told.chars:
                pieces.append((run, told.fence, told.bytes, text[told.chars :]))
                of.append((told, text))
        if not pieces:
            return
        ends = self._store.append(pieces)
        for (run, _, start, piece), (told, text), end in zip(pieces, of, ends, strict=True):
            told.due = next_due
            if end < 0:
                self._forget(run, told)
            elif end == start + len(piece.encode()):
                told.chars, told.bytes = len(text), end
            else:  # Redis has lost some, or had an earlier piece already
                told.chars, told.bytes = len(text.encode()[:end].decode(errors="ignore")), end
        self._counted(len(pieces))

    def _forget(self, run: str, told: _Told) -> None:
        with self._lock:
            if self._told.get(run) is told:
                del self._told[run]
            if not self._told and not self._stopped.is_set():
                self._some.clear()

    def _tell_forever(self) -> None:
        while True:
            self._some.wait()
            if self._stopped.wait(LOOK_S):
                return
            try:
                self.tell()
            except StoreUnavailable as error:
                log.warning("text_not_told", reason=str(error))
                self._stopped.wait(RETRY_S)
            except Exception as error:  # never a run's death: its text comes with the result
                log.error("telling_broke", error=type(error).__name__)
                self._stopped.wait(RETRY_S)
