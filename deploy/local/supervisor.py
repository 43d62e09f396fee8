"""Starts pieces in order, starts them again when they end by themselves, and stops them in the opposite order."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.local.child import Child, start_guard
from inferq.errors import InferqError

#: Seconds before a piece that ended is started again: doubled each time, up to the second value.
RESTART_DELAY: Final = (1.0, 30.0)
#: Seconds a piece must have run for its delay to start over.
SETTLED_S: Final = 60.0
#: Seconds between looks at the pieces.
LOOK_S: Final = 0.1


class PieceFailed(InferqError):
    """A piece could not start."""


class Stopped(InferqError):
    """Somebody asked for the end while pieces were starting."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One process of the stack: how it starts, how one sees that it is ready, how long it may take to end."""

    name: str
    command: list[str]
    env: Mapping[str, str] = field(repr=False)
    #: Where it can be reached, for people.
    address: str
    ready: Callable[[], bool]
    #: Seconds until it must be ready, and for ending by itself after SIGTERM.
    start_s: float = 30.0
    stop_s: float = 10.0


@dataclass
class _Kept:
    """A piece with its process and the history of its restarts."""

    piece: Piece
    child: Child
    started: float
    delay: float = RESTART_DELAY[0]
    restart_at: float | None = None
    ready: bool = False


class Supervisor:
    """Keeps pieces running until :meth:`stop`. ``say`` gets one line per event."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self._logs = logs
        self._say = say
        self._kept: list[_Kept] = []
        self._guard = start_guard(logs / "guard.log")
        self.stopping = threading.Event()

    def start(self, *pieces: Piece) -> None:
        """Start ``pieces`` together and return when all are ready; raises PieceFailed or Stopped."""
        waiting = [self._launch(piece) for piece in pieces]
        self._kept += waiting
        while waiting:
            if self.stopping.is_set():
                raise Stopped
            for kept in list(waiting):
                piece, child, took = kept.piece, kept.child, time.monotonic() - kept.started
                if not child.alive():
                    raise PieceFailed(f"the {piece.name} did not start: {child.last_words()} (log: {child.log})")
                if self._became_ready(kept):
                    waiting.remove(kept)
                elif took > piece.start_s:
                    raise PieceFailed(f"the {piece.name} is not ready after {piece.start_s:.0f} s (log: {child.log})")
            self.stopping.wait(LOOK_S)

    def watch(self) -> None:
        """Start again what ends by itself; returns when :attr:`stopping` is set."""
        while not self.stopping.wait(LOOK_S):
            for kept in self._kept:
                self._look_at(kept)

    def stop(self) -> None:
        """End all pieces, the last started first; returns when no process is left."""
        self.stopping.set()
        for kept in reversed(self._kept):
            kept.child.stop(kept.piece.stop_s)
        self._guard.stop(1.0)

    def kill(self) -> None:
        """End everything at once."""
        self.stopping.set()
        for kept in self._kept:
            kept.child.kill()

    def _launch(self, piece: Piece) -> _Kept:
        child = Child(piece.name, piece.command, piece.env, self._logs / f"{piece.name}.log")
        return _Kept(piece=piece, child=child, started=time.monotonic())

    def _became_ready(self, kept: _Kept) -> bool:
        kept.ready = kept.piece.ready()
        if kept.ready:
            took = time.monotonic() - kept.started
            self._say(f"{kept.piece.name:<8} ready after {took:4.1f} s   {kept.piece.address}")
        return kept.ready

    def _look_at(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.child.alive():
            if not kept.ready:
                self._became_ready(kept)
            return
        if kept.restart_at is None:
            if now - kept.started > SETTLED_S:
                kept.delay = RESTART_DELAY[0]
            status = kept.child.process.returncode
            self._say(f"the {kept.piece.name} ended (status {status}); it starts again in {kept.delay:.0f} s")
            kept.restart_at = now + kept.delay
            kept.delay = min(2 * kept.delay, RESTART_DELAY[1])
        elif now >= kept.restart_at:
            fresh = self._launch(kept.piece)
            kept.child, kept.started, kept.restart_at, kept.ready = fresh.child, fresh.started, None, False
