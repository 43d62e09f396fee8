"""Hears what scripts publish for an engine: a run that waits, a run to stop. Hints only; the record is the truth."""

import threading
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import RedisError

from inferq.keys import key
from inferq.subscription import end, messages
from workers.engine import Engine
from workers.slots import IdleSlots

log = structlog.get_logger()

#: Seconds between tries to subscribe again after a lost connection; heartbeats and bells carry the same news meanwhile.
RESUBSCRIBE_DELAY: Final = 0.5


class Listener:
    """One subscription in a thread of its own."""

    def __init__(self, *, redis: "Redis", name: str, engine: Engine, idle: IdleSlots) -> None:
        self._redis = redis
        self._engine = engine
        self._idle = idle
        self._work, self._aborts = key("work", name), key("aborts", name)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen_forever, name="listener", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopped.set()
        end(self._thread, self._redis)

    def _listen_forever(self) -> None:
        while not self._stopped.is_set():
            try:
                for message in messages(self._redis, self._work, self._aborts):
                    if message is None:
                        continue  # bells and heartbeats carry what was missed
                    channel, run = message
                    if channel == self._work:
                        self._idle.knock()
                    else:
                        self._engine.abort(run)
            except (RedisError, OSError, ValueError) as error:  # ValueError: closed while it was read
                if not self._stopped.is_set():
                    log.warning("subscription_lost", reason=type(error).__name__)
            self._stopped.wait(RESUBSCRIBE_DELAY)
