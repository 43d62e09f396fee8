"""Followers of jobs: any number of them on one reader of event streams per process."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from api.waiters import Waiters
from inferq.errors import StoreUnavailable
from inferq.event_streams import MOST_PIECES, EventStreams, Piece, Place, Standing

log = structlog.get_logger()

#: Pieces of a run kept for its followers; whoever is slower reads from Redis again.
RECENT: Final = 64
#: Seconds between two looks at the queue for one follower, and followers that are looked up together.
STANDING_S: Final = 1.0
TOGETHER: Final = 25
#: Followers a second that are told a new position: a thousand woken at once would hold up whoever submits.
TOLD_PER_S: Final = 500
#: Seconds before another try when Redis did not answer.
RETRY_S: Final = 0.5


class Follower(threading.Event):
    """One client that follows one job; set when there may be something to tell it."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = False
        #: The client has gone.
        self.gone = False
        self.run_id = ""

    def set(self) -> None:
        """Say that the job's record has changed."""
        self._changed = True
        super().set()

    def wake(self) -> None:
        """Say that there is something else: text, a position, the client's end."""
        super().set()

    def leave(self) -> None:
        """Say that the client has gone."""
        self.gone = True
        self.wake()

    def take_change(self) -> bool:
        """Whether the record has changed since this was asked last."""
        changed, self._changed = self._changed, False
        return changed


@dataclass(eq=False)
class _Channel:
    """One run that is followed here."""

    after: Place
    pieces: deque[Piece] = field(default_factory=lambda: deque(maxlen=RECENT))
    followers: set[Follower] = field(default_factory=set)
    waits: bool = False
    standing: Standing | None = None


class Streams:
    """Reads what is new for all followers in one call and wakes them; none holds a connection.

    Each follower takes what it needs when its client has room for it, so a slow client costs no memory: what is kept
    is the latest of each run, and the rest is in Redis.
    """

    def __init__(self, store: EventStreams, waiters: Waiters, counted: Callable[[int], None]) -> None:
        """``counted`` is told of each follower who comes (1) and goes (-1)."""
        self._store = store
        self._waiters = waiters
        self._counted = counted
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._dirty: set[str] = set()
        self._news = threading.Event()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        waiters.on_appended(self._appended)

    @contextmanager
    def follow(self, job_id: str) -> Iterator[Follower | None]:
        """Yield a follower of a job, from before its record is read; None when too many wait."""
        follower = Follower()
        with self._waiters.watch(job_id, event=follower) as admitted:
            if admitted is None:
                yield None
                return
            self._counted(1)
            try:
                yield follower
            finally:
                self._counted(-1)
                self._detach(follower)

    def attach(self, follower: Follower, run_id: str, place: Place, *, waits: bool) -> None:
        """Tell a follower of what its run writes after ``place``; and of where it stands while it ``waits``."""
        with self._lock:
            channel = self._channels.setdefault(run_id, _Channel(after=place))
            if not channel.pieces:  # a place is what a client says: one beyond the text must not hide it from others
                channel.after = min(channel.after, place)
            if channel.waits != waits:
                channel.waits, channel.standing = waits, None
            if follower in channel.followers:
                return
            follower.run_id = run_id
            channel.followers.add(follower)
            if not waits:
                self._dirty.add(run_id)  # what came between the read and now was told to nobody
                self._news.set()
            self._start()

    def news(self, follower: Follower, place: Place) -> tuple[str, Place] | None:
        """Return the text after ``place`` and where it ends; None when it must be read from Redis."""
        text = ""
        with self._lock:
            pieces = [piece for piece in self._channels[follower.run_id].pieces if piece.end > place]
        for piece in pieces:
            more = piece.after(place)
            if more is None:
                return None
            text, place = text + more, piece.end
        return text, place

    def standing(self, follower: Follower) -> Standing | None:
        """Return where the follower's run waits, as far as anybody has looked."""
        return self._channels[follower.run_id].standing

    def close(self) -> None:
        """Read nothing more."""
        self._closed.set()
        self._news.set()
        for thread in self._threads:
            thread.join()

    def _detach(self, follower: Follower) -> None:
        with self._lock:
            channel = self._channels.get(follower.run_id)
            if channel:
                channel.followers.discard(follower)
                if not channel.followers:
                    del self._channels[follower.run_id]

    def _appended(self, runs: list[str]) -> None:
        with self._lock:
            followed = self._channels.keys() & runs
            self._dirty |= followed
        if followed:
            self._news.set()

    def _start(self) -> None:
        # Started when first needed: a web server forks after its application is made.
        if not self._threads:
            for target in (self._read_forever, self._look_forever):
                self._threads.append(threading.Thread(target=target, name="streams", daemon=True))
                self._threads[-1].start()

    def _read_forever(self) -> None:
        while self._news.wait() and not self._closed.is_set():
            self._news.clear()
            with self._lock:
                dirty, self._dirty = self._dirty, set()
                after = {run: self._channels[run].after for run in dirty if run in self._channels}
            try:
                found = self._store.pieces(after) if after else {}
                self._hand_out(found)
            except StoreUnavailable as error:
                log.warning("streams_not_read", reason=str(error))
                self._later(after)
            except Exception as error:  # one entry that cannot be read must not silence all others
                log.error("streams_broke", error=type(error).__name__)
                self._later(after)

    def _later(self, runs: Iterable[str]) -> None:
        self._closed.wait(RETRY_S)
        self._appended(list(runs))

    def _hand_out(self, found: dict[str, list[Piece]]) -> None:
        woken: list[Follower] = []
        with self._lock:
            for run, pieces in found.items():
                channel = self._channels.get(run)
                if channel:
                    channel.pieces.extend(pieces)
                    channel.after = pieces[-1].end
                    woken += channel.followers
        for follower in woken:
            follower.wake()
        self._appended([run for run, pieces in found.items() if len(pieces) == MOST_PIECES])

    def _look_forever(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                waiting = [run for run, channel in self._channels.items() if channel.waits]
            parts = [waiting[start : start + TOGETHER] for start in range(0, len(waiting), TOGETHER)]
            for part in parts:
                try:
                    self._stand(self._store.standings(part))
                except StoreUnavailable as error:
                    log.warning("positions_not_read", reason=str(error))
                except Exception as error:  # as above
                    log.error("positions_broke", error=type(error).__name__)
                self._closed.wait(max(STANDING_S, len(waiting) / TOLD_PER_S) / len(parts))
            if not parts:
                self._closed.wait(STANDING_S)

    def _stand(self, standings: dict[str, Standing]) -> None:
        woken: list[Follower] = []
        with self._lock:
            for run, standing in standings.items():
                channel = self._channels.get(run)
                if channel is None:
                    continue
                before, channel.standing = channel.standing, standing
                if before is None or before.position != standing.position:
                    woken += channel.followers
        for follower in woken:
            follower.wake()
