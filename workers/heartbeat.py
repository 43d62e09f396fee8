"""The worker's sign of life: renews leases, says how the worker is, and carries word of runs to stop."""

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from inferq.errors import StoreUnavailable
from inferq.keys import key
from inferq.queue import Bells
from inferq.run_store import RunStore
from workers.engine import Engine
from workers.runner import Held

log = structlog.get_logger()

#: Beats in one lease: a lease survives three lost ones.
BEATS_PER_LEASE: Final = 4


class Heartbeat:
    """A thread with Redis connections of its own, so that nothing slow in the worker can cost it its leases."""

    def __init__(
        self,
        *,
        store: RunStore,
        subscriber: "Redis",
        held: Held,
        bells: Bells,
        engine: Engine,
        state: Callable[[], str],
        lease_s: float,
    ) -> None:
        self._store = store
        self._subscriber = subscriber
        self._held = held
        self._bells = bells
        self._engine = engine
        self._state = state
        self._every_s = lease_s / BEATS_PER_LEASE
        self._soon = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._beat_forever, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def beat_now(self) -> None:
        """Say at once that the state has changed."""
        self.beat()

    def stop(self) -> None:
        """Stop beating and take the worker off the list."""
        self._stopped = True
        self._soon.set()
        try:
            self._store.leave()
        except StoreUnavailable as error:
            log.warning("leave_failed", reason=str(error))

    def beat(self) -> None:
        """Beat once; a failure is logged, the next beat tries again."""
        state = self._state()
        said = {
            "state": state,
            "slots": str(self._engine.slots if state == "ready" else 0),
            "running": str(len(self._held)),
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
        }
        try:
            stop, bells = self._store.heartbeat(self._held.pairs(), said)
        except StoreUnavailable as error:
            log.warning("heartbeat_missed", reason=str(error))
            return
        for run, reason in stop.items():
            log.info("run_told_to_stop", run=run, reason=reason)
            self._engine.abort(run)
        self._bells.ring(self._store.engine, bells)

    def _beat_forever(self) -> None:
        while not self._stopped:
            try:
                with self._subscriber.pubsub(ignore_subscribe_messages=True) as aborts:
                    aborts.subscribe(key("aborts", self._store.engine))
                    self._beat_and_listen(aborts)
            except (RedisError, OSError) as error:
                log.warning("aborts_lost", reason=type(error).__name__)
                self.beat()
                self._soon.wait(self._every_s)

    def _beat_and_listen(self, aborts: PubSub) -> None:
        """Beat on time; between beats stop runs as soon as their abort is published."""
        while not self._stopped:
            self.beat()
            due = time.monotonic() + self._every_s
            while (left := due - time.monotonic()) > 0 and not self._stopped:
                message = aborts.get_message(timeout=left)
                if message and message["type"] == "message":
                    self._engine.abort(message["data"])
