"""Connections to Redis with bounded waiting."""

from typing import Final

from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from inferq.settings import Settings

#: Connections of one client at most; one Redis thread serves them all.
CONNECTIONS: Final = 64


def connect(url: str, settings: Settings, *, blocking: bool = False) -> "Redis":
    """Return a client whose calls end within about twice ``REDIS_TIMEOUT`` seconds, whatever Redis does.

    One quick retry covers a connection that died while idle; redis-py's default of ten would hold a caller for long.
    ``blocking`` is for pub/sub, where waiting for a message is not a fault.
    """
    # Bounded: a thousand requests at once share these connections instead of opening a thousand.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=settings.redis_timeout,
        decode_responses=True,
        socket_timeout=None if blocking else settings.redis_timeout,
        socket_connect_timeout=settings.redis_timeout,
        socket_keepalive=True,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), 1),
        client_name="inferq",
    )
    return Redis(connection_pool=pool)


def job_redis(settings: Settings) -> "Redis":
    """Return a client of the Redis that keeps jobs, queue and limits."""
    return connect(settings.redis_url, settings)


def cache_redis(settings: Settings) -> "Redis | None":
    """Return a client of the completions' own Redis, or None when they share the jobs' server."""
    return connect(settings.cache_redis_url, settings) if settings.separate_cache else None
