"""The worker's sign of life: renews leases, says how the worker is, and learns which runs to stop."""

import os
import socket
import threading
from collections.abc import Callable
from typing import Final

import structlog

from inferq.errors import StoreUnavailable
from inferq.queue import Ringer
from inferq.run_store import RunStore
from workers.engine import Engine
from workers.metrics import WorkerMetrics
from workers.runner import Held

log = structlog.get_logger()

#: Beats in one lease: a lease survives three lost ones.
BEATS_PER_LEASE: Final = 4


class Heartbeat:
    """A thread with a Redis connection of its own, so that nothing slow in the worker can cost it its leases."""

    def __init__(
        self,
        *,
        store: RunStore,
        held: Held,
        bells: Ringer,
        engine: Engine,
        state: Callable[[], str],
        lease_s: float,
        metrics: WorkerMetrics,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._held = held
        self._bells = bells
        self._engine = engine
        self._state = state
        self._every_s = lease_s / BEATS_PER_LEASE
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_forever, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and take the worker off the list."""
        self._stopped.set()
        try:
            self._store.leave()
        except StoreUnavailable as error:
            log.warning("leave_failed", reason=str(error))

    def beat(self) -> None:
        """Beat once; a failure is logged, the next beat tries again."""
        state = self._state()
        self._metrics.state(state, slots=self._engine.slots, running=len(self._held))
        said = {
            "state": state,
            "slots": str(self._engine.slots if state == "ready" else 0),
            "running": str(len(self._held)),
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
        }
        # What an engine that is dead or hung holds is not alive, however well this process does.
        held = [] if state == "dead" else self._held.pairs()
        try:
            stop, bells = self._store.heartbeat(held, said, self._engine.written())
        except StoreUnavailable as error:
            log.warning("heartbeat_missed", reason=str(error))
            self._metrics.beat(done=False)
            return
        self._metrics.beat(done=True)
        for run, reason in stop.items():
            log.info("run_told_to_stop", run=run, reason=reason)
            self._engine.abort(run)
        self._bells.ring(self._store.engine, bells)

    def _beat_forever(self) -> None:
        while not self._stopped.is_set():
            self.beat()
            self._stopped.wait(self._every_s)
