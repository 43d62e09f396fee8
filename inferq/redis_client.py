"""Connections to Redis with bounded waiting, by URL; Sentinel URLs included."""

import threading
import time
from collections import deque
from queue import Empty, Full
from typing import Any, Final

from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from inferq.sentinel_url import SentinelUrl
from inferq.settings import Settings

#: Connections of one client at most; one Redis thread serves them all, and opening many when a spike begins takes time.
CONNECTIONS: Final = 16
#: Seconds to wait for one of them while Redis answers others: thousands of requests at once take their time.
CROWD_WAIT_S: Final = 10.0


def connect(url: str, settings: Settings) -> "Redis":
    """Return a client whose calls end within about twice ``REDIS_TIMEOUT`` seconds, whatever Redis does.

    When all connections are busy a call waits for one first, as long as others get answers.
    One quick retry covers a connection that died while idle; redis-py's default of ten would hold a caller for long.
    """
    timeouts = {"socket_timeout": settings.redis_timeout, "socket_connect_timeout": settings.redis_timeout}
    options: dict[str, Any] = {
        # Bounded: a thousand requests at once share these connections instead of opening a thousand.
        "max_connections": CONNECTIONS,
        "timeout": settings.redis_timeout,
        "decode_responses": True,
        "socket_keepalive": True,
        "retry": Retry(ExponentialBackoff(cap=0.1, base=0.01), 1),
        "client_name": "inferq",
        **timeouts,
    }
    address = SentinelUrl.parse(url)
    if address is None:
        return Redis.from_pool(PatientPool.from_url(url, **options))
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs={**timeouts, "password": address.sentinel_password})
    login = {"username": address.username, "password": address.password, "db": address.db}
    return Redis.from_pool(MasterPool(address.service, sentinel, **login, **options))


class PatientQueue:
    """Idle connections, the last one used first. Whoever finds none waits in a line: as long as others get answers, and
    when Redis answers nobody, not longer than a call of its own would take.
    """

    def __init__(self, maxsize: int) -> None:
        self._most = maxsize
        self._lock = threading.Lock()
        self._line: deque[_Waiter] = deque()
        self._answered = time.monotonic()
        #: Idle connections; None stands for one that has not been made.
        self.queue: list[Any] = []

    def get(self, block: bool = True, timeout: float = 0.0) -> Any:
        """Return a connection or None; raises Empty when nobody has been answered for ``timeout`` seconds."""
        with self._lock:
            if self.queue:
                return self.queue.pop()
            waiter = _Waiter()
            self._line.append(waiter)
        until = time.monotonic() + CROWD_WAIT_S
        try:
            while not waiter.served.wait(timeout):
                now = time.monotonic()
                if now > until or now - self._answered > timeout:
                    raise Empty
        except Empty:
            if self._left(waiter):
                raise
        except BaseException:
            # Killed while it waited, it must not be given a connection, nor keep one it has just been given.
            if not self._left(waiter):
                self.put_nowait(waiter.connection)
            raise
        return waiter.connection

    def _left(self, waiter: "_Waiter") -> bool:
        """Leave the line; False when there is a connection already."""
        with self._lock:
            if waiter.served.is_set():
                return False
            self._line.remove(waiter)
            return True

    def put_nowait(self, connection: Any) -> None:
        """Take a connection back, or give it to whoever is first in the line; raises Full."""
        with self._lock:
            if connection is not None and connection.is_connected:
                self._answered = time.monotonic()  # one that is still open has had its answer
            if self._line:
                self._line.popleft().serve(connection)
            elif len(self.queue) < self._most:
                self.queue.append(connection)
            else:
                raise Full


class _Waiter:
    def __init__(self) -> None:
        self.served = threading.Event()
        self.connection: Any = None

    def serve(self, connection: Any) -> None:
        self.connection = connection
        self.served.set()


class PatientPool(BlockingConnectionPool):  # type: ignore[misc]  # redis-py is not typed here
    """Bounded connections; a crowd waits for them in order."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, queue_class=PatientQueue, **options)


class MasterPool(SentinelConnectionPool, PatientPool):  # type: ignore[misc]  # redis-py is not typed here
    """Bounded connections to whichever server Sentinel names as the master when they are opened."""


def job_redis(settings: Settings) -> "Redis":
    """Return a client of the Redis that keeps jobs, queue and limits."""
    return connect(settings.redis_url, settings)


def cache_redis(settings: Settings) -> "Redis | None":
    """Return a client of the completions' own Redis, or None when they share the jobs' server."""
    return connect(settings.cache_redis_url, settings) if settings.separate_cache else None
