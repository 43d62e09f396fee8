"""Shows each attempt in Flower as a task of its own, although Celery's task is a shift that makes many."""

import threading
import time
from collections import deque
from typing import Any, Final

import structlog
from celery import Celery
from kombu.exceptions import KombuError

from workers.runner import Attempt

log = structlog.get_logger()

#: What attempts are called in Flower.
NAME: Final = "inferq.attempt"
#: Seconds between messages, each of which tells of all attempts since the last.
EVERY_S: Final = 0.5
#: Attempts kept while the broker is away; older ones are shown nowhere, and are in the log.
KEPT: Final = 1000
#: Celery's event for an outcome; all others are failures.
_EVENTS: Final = {
    "completed": "task-succeeded",
    "queued": "task-retried",
    "cancelled": "task-revoked",
    "expired": "task-revoked",
    "refused": "task-rejected",
}


class AttemptEvents:
    """Sends on a thread and a connection of its own: whoever executes runs only leaves a note."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._ended: deque[tuple[float, Attempt]] = deque(maxlen=KEPT)

    def add(self, attempt: Attempt) -> None:
        """Note an attempt that has just ended."""
        self._ended.append((time.time(), attempt))

    def start(self, hostname: str) -> None:
        """Send from now on, as the worker that Celery calls ``hostname``."""
        threading.Thread(target=self._send_forever, args=(hostname,), name="attempt-events", daemon=True).start()

    def _send_forever(self, hostname: str) -> None:
        while True:
            try:
                with self._app.connection_for_write() as connection:
                    dispatcher = self._app.events.Dispatcher(
                        connection, hostname=hostname, buffer_group=["task"], buffer_limit=3 * KEPT
                    )
                    while True:
                        time.sleep(EVERY_S)
                        self._send(dispatcher)
            except (KombuError, OSError, *self._app.connection_for_write().connection_errors) as error:
                log.warning("attempts_not_shown", reason=type(error).__name__)
                time.sleep(EVERY_S)

    def _send(self, dispatcher: Any) -> None:
        if not self._ended:
            return
        while self._ended:
            ended, attempt = self._ended.popleft()
            for event, fields in events_of(attempt, ended):
                dispatcher.send(event, **fields)
        dispatcher.flush()


def events_of(attempt: Attempt, ended: float) -> list[tuple[str, dict[str, Any]]]:
    """Return Celery's events for an attempt that ended at ``ended`` (seconds since 1970)."""
    uuid = f"{attempt.run}.{attempt.attempt}"
    said = (
        f"job={attempt.run} attempt={attempt.attempt} outcome={attempt.outcome} tokens={attempt.tokens}"
        f" seconds={attempt.seconds:.3f}"
    )
    received = {"uuid": uuid, "name": NAME, "args": "()", "kwargs": "{}", "timestamp": ended - attempt.seconds}
    event = _EVENTS.get(attempt.outcome, "task-failed")
    fields: dict[str, Any] = {"uuid": uuid, "timestamp": ended, "runtime": attempt.seconds, "result": said}
    if event in ("task-failed", "task-retried"):
        fields["exception"] = said
    return [("task-received", received), (event, fields)]
