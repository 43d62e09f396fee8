"""Connections to Redis with bounded waiting, by URL; Sentinel URLs included."""

import time
from typing import Any, Final

from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
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


class PatientPool(BlockingConnectionPool):  # type: ignore[misc]  # redis-py is not typed here
    """Bounded connections. Whoever finds all of them busy waits: when Redis answers others it is only a crowd, and when
    it answers nobody, not longer than a call of its own would.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._answered = time.monotonic()
        super().__init__(*args, **options)

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Return a connection; raises ConnectionError when there is none in time."""
        until = time.monotonic() + CROWD_WAIT_S
        while True:
            try:
                return super().get_connection(*args, **options)
            except RedisConnectionError:
                now = time.monotonic()
                if now > until or now - self._answered > self.timeout or self._has_free():
                    raise

    def release(self, connection: Any) -> None:
        """Take a connection back; one that is still open has had its answer."""
        if connection.is_connected:
            self._answered = time.monotonic()
        super().release(connection)

    def _has_free(self) -> bool:
        # Then it was not for want of a connection, but one could not be opened.
        return bool(not self.pool.empty())


class MasterPool(SentinelConnectionPool, PatientPool):  # type: ignore[misc]  # redis-py is not typed here
    """Bounded connections to whichever server Sentinel names as the master when they are opened."""


def job_redis(settings: Settings) -> "Redis":
    """Return a client of the Redis that keeps jobs, queue and limits."""
    return connect(settings.redis_url, settings)


def cache_redis(settings: Settings) -> "Redis | None":
    """Return a client of the completions' own Redis, or None when they share the jobs' server."""
    return connect(settings.cache_redis_url, settings) if settings.separate_cache else None
