"""Shows each attempt in Flower as a task of its own, although Celery's task is a shift that makes many."""

import threading
import time
from collections import deque
from typing import Any, Final

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

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

    def __len__(self) -> int:
        """How many wait to be told."""
        return len(self._ended)

    def start(self, hostname: str) -> None:
        """Send from now on, as the worker that Celery calls ``hostname``."""
        threading.Thread(target=self._tell_forever, args=(hostname,), name="attempt-events", daemon=True).start()

    def dispatcher(self, connection: Any, hostname: str) -> Any:
        """Return Celery's dispatcher of events, which keeps them until it is told to send all in one message."""
        # What cannot be sent is an error: the dispatcher's own memory for it has no bound.
        return self._app.events.Dispatcher(
            connection, hostname=hostname, buffer_group=["task"], buffer_limit=3 * KEPT, buffer_while_offline=False
        )

    def tell(self, dispatcher: Any) -> None:
        """Send what has been noted; what could not be sent stays noted. Raises what the broker's client raises."""
        batch = [self._ended.popleft() for _ in range(len(self._ended))]
        try:
            for ended, attempt in batch:
                for event, fields in events_of(attempt, ended):
                    dispatcher.send(event, **fields)
            dispatcher.flush()
        except BaseException:
            self._ended.extendleft(reversed(batch))
            raise

    def _tell_forever(self, hostname: str) -> None:
        while True:
            try:
                with self._app.connection_for_write() as connection:
                    dispatcher = self.dispatcher(connection, hostname)
                    while True:
                        time.sleep(EVERY_S)
                        self.tell(dispatcher)
            except (KombuError, RedisError, OSError) as error:
                log.warning("attempts_not_shown", reason=type(error).__name__)
                time.sleep(EVERY_S)


def events_of(attempt: Attempt, ended: float) -> list[tuple[str, dict[str, Any]]]:
    """Return Celery's events for an attempt that ended at ``ended`` (seconds since 1970)."""
    uuid = f"{attempt.run}.{attempt.attempt}"
    # Flower's list shows some forty characters, so first what the list does not say elsewhere.
    said = (
        f"outcome={attempt.outcome} tokens={attempt.tokens} seconds={attempt.seconds:.3f}"
        f" attempt={attempt.attempt} job={attempt.run}"
    )
    received = {"uuid": uuid, "name": NAME, "args": "()", "kwargs": "{}", "timestamp": ended - attempt.seconds}
    event = _EVENTS.get(attempt.outcome, "task-failed")
    fields: dict[str, Any] = {"uuid": uuid, "timestamp": ended, "runtime": attempt.seconds, "result": said}
    if event in ("task-failed", "task-retried"):
        fields["exception"] = said
    return [("task-received", received), (event, fields)]
