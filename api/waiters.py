"""Long-polls: any number of waiters on one Redis subscription per process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from redis import Redis
from redis.exceptions import RedisError

from inferq.jobs import JobStatus
from inferq.keys import key
from inferq.subscription import end, messages

log = structlog.get_logger()

#: Seconds between tries to subscribe again after a lost connection.
RESUBSCRIBE_DELAY = 0.5


class Waiters:
    """Wakes those who wait for a job when Redis announces a change of it.

    A wake-up is a hint to read the record, never the truth itself: after a lost connection everybody is woken, because
    an announcement may have been missed.
    """

    def __init__(self, redis: "Redis", most: int, counted: Callable[[int], None]) -> None:
        """``counted`` is told of each waiter who comes (1) and goes (-1)."""
        self._counted = counted
        self._redis = redis
        self._most = most
        self._lock = threading.Lock()
        #: Per job: who waits, and whether only for its end.
        self._waiting: dict[str, dict[threading.Event, bool]] = {}
        self._count = 0
        self._subscriber: threading.Thread | None = None
        self._subscribed = threading.Event()
        self._closed = threading.Event()
        self._appended: Callable[[list[str]], None] = lambda _runs: None

    def on_appended(self, told: Callable[[list[str]], None]) -> None:
        """Have ``told`` called with runs whose streams have got more, as Redis announces it."""
        self._appended = told

    @contextmanager
    def watch(
        self, job_id: str, *, end_only: bool = False, event: threading.Event | None = None
    ) -> Iterator[threading.Event | None]:
        """Yield an event that is set when the job changes, from before the caller reads it; None when too many wait.

        With ``end_only`` it is set when the job becomes terminal, not at steps on the way. Who brings an ``event`` is
        counted by somebody else.
        """
        counted = self._counted if event is None else lambda _: None
        event = event or threading.Event()
        with self._lock:
            admitted = self._count < self._most
            if admitted:
                self._count += 1
                counted(1)
                self._waiting.setdefault(job_id, {})[event] = end_only
                self._start_subscriber()
        if not admitted:
            yield None
            return
        try:
            # A change between our read and the very first subscription must not be missed.
            self._subscribed.wait(timeout=2.0)
            yield event
        finally:
            with self._lock:
                self._count -= 1
                counted(-1)
                waiting = self._waiting[job_id]
                del waiting[event]
                if not waiting:
                    del self._waiting[job_id]

    def close(self) -> None:
        """Stop listening; those who still wait run into their own time limit."""
        self._closed.set()
        if self._subscriber is not None:
            end(self._subscriber, self._redis)

    def _start_subscriber(self) -> None:
        if self._subscriber is None or not self._subscriber.is_alive():
            self._subscriber = threading.Thread(target=self._subscribe, name="transitions", daemon=True)
            self._subscriber.start()

    def _subscribe(self) -> None:
        while not self._closed.is_set():
            try:
                for message in messages(self._redis, key("transitions"), key("appended")):
                    if message is None:
                        self._subscribed.set()
                        self._wake_all()
                        continue
                    if message[0] == key("appended"):
                        self._appended(message[1].split(" "))
                        continue
                    job_id, status, _attempt = message[1].split(" ")
                    self._wake(job_id, ended=JobStatus(status).is_terminal)
            except (RedisError, OSError, ValueError) as error:  # ValueError: closed while it was read
                if not self._closed.is_set():
                    log.warning("transitions_lost", reason=type(error).__name__)
            self._closed.wait(RESUBSCRIBE_DELAY)

    def _wake(self, job_id: str, *, ended: bool) -> None:
        with self._lock:
            for event, end_only in self._waiting.get(job_id, {}).items():
                if ended or not end_only:
                    event.set()

    def _wake_all(self) -> None:
        with self._lock:
            for waiting in self._waiting.values():
                for event in waiting:
                    event.set()
