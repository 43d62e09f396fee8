"""What a process asks Redis before it starts: whether it may use it, and whether jobs are safe in it.

``python -m inferq.redis_check`` asks for a process that cannot ask itself: status 1 and a sentence when it must not.
"""

import ssl
import sys
from collections.abc import Callable
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from inferq.errors import ConfigurationError, InferqError
from inferq.logs import configure_logging
from inferq.redis_client import connect
from inferq.settings import Settings, load_settings

log = structlog.get_logger()

#: The oldest Redis the scripts run on.
OLDEST: Final = (6, 2)


def check_redis(settings: Settings) -> list[str]:
    """Raise ConfigurationError when Redis is there and cannot be used; log and return what is unwise.

    A Redis that is away is no mistake: what needs it waits for it, so that a stack may start in any order.
    """
    warnings = check_jobs(settings)
    if settings.separate_cache:
        warnings += check_cache(settings)
    for warning in warnings:
        log.warning("redis_check", warning=warning)
    return warnings


def check_jobs(settings: Settings) -> list[str]:
    """As :func:`check_redis`, of the jobs' Redis alone, and without a log line."""
    return _check("REDIS_URL", settings.redis_url, settings, _jobs_are_safe)


def check_cache(settings: Settings) -> list[str]:
    """As :func:`check_redis`, of the Redis of completions alone, and without a log line."""
    return _check("CACHE_REDIS_URL", settings.cache_redis_url, settings, _answers)


def _check(setting: str, url: str, settings: Settings, look: Callable[[str, "Redis"], list[str]]) -> list[str]:
    try:
        with connect(url, settings) as redis:
            return look(setting, redis)
    except NoPermissionError as error:
        raise ConfigurationError(f"{setting}: {error}; docs/operations.md has the rule of a user for inferq") from None
    except AuthenticationError:
        raise ConfigurationError(
            f"{setting}: Redis refuses the login; give user and password, as in redis://user:password@host:6379"
        ) from None
    except (RedisError, OSError) as error:
        if _untrusted(error):
            raise ConfigurationError(
                f"{setting}: the certificate of Redis is not trusted; name its authority, as in ?ssl_ca_certs=/ca.pem"
            ) from None
        return [f"{setting}: Redis is away ({type(error).__name__})"]


def _answers(_: str, redis: "Redis") -> list[str]:
    redis.ping()
    return []


def _jobs_are_safe(setting: str, redis: "Redis") -> list[str]:
    # Who may not look here cannot be told when memory runs out, and Celery would wait for ever without a word.
    info = redis.info("server") | redis.info("memory") | redis.info("persistence")
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise ConfigurationError(f"{setting}: Redis {version} is too old; {OLDEST[0]}.{OLDEST[1]} or later is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        raise ConfigurationError(
            f"{setting}: Redis may evict jobs (maxmemory-policy {policy}); set maxmemory-policy noeviction"
        )
    if not info.get("aof_enabled"):
        return [f"{setting}: Redis keeps no append-only file, so jobs are lost when it ends; set appendonly yes"]
    return []


def _untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    try:
        found = load_settings()
        configure_logging(found)
        check_redis(found)
    except InferqError as error:
        sys.exit(f"inferq: {error}")
