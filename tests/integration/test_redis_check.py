"""What a process says at its start about a Redis that it should not use."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from redis import Redis

from deploy.local.stack import free_port
from inferq.errors import ConfigurationError
from inferq.redis_check import check_redis
from inferq.settings import environment_for
from tests.conftest import make_settings
from tests.processes import ROOT
from tests.redis_server import RedisServer


@pytest.fixture
def redis(own_redis_server: RedisServer) -> Iterator[Redis]:
    with own_redis_server.client() as redis:
        yield redis


def refuses(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^REDIS_URL: .*{what}"):
        check_redis(make_settings(url))


def test_jobs_that_may_be_evicted(own_redis_server: RedisServer, redis: Redis) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    check_redis(make_settings(own_redis_server.url))  # nothing is evicted without a limit
    redis.config_set("maxmemory", "100mb")
    refuses(own_redis_server.url, "may evict jobs .*set maxmemory-policy noeviction")


def test_a_cache_may_evict(own_redis_server: RedisServer, redis_server: RedisServer, redis: Redis) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("maxmemory", "100mb")
    settings = make_settings(redis_server.url)
    check_redis(settings.model_copy(update={"cache_redis_url": own_redis_server.url}))


def test_a_login_that_is_missing_or_wrong(own_redis_server: RedisServer, redis: Redis) -> None:
    redis.config_set("requirepass", "right")
    refuses(own_redis_server.url, "refuses the login")
    refuses(own_redis_server.url.replace("//", "//:wrong@"), "refuses the login")
    check_redis(make_settings(own_redis_server.url.replace("//", "//:right@")))


def test_a_user_who_may_too_little(own_redis_server: RedisServer, redis: Redis) -> None:
    redis.execute_command("ACL", "SETUSER", "inferq", "on", ">secret", "~iq:*", "&*", "+@all", "-@dangerous")
    refuses(own_redis_server.url.replace("//", "//inferq:secret@"), "no permissions.*docs/operations.md")


def test_what_is_unwise_or_away_stops_nothing(own_redis_server: RedisServer) -> None:
    assert "set appendonly yes" in "".join(check_redis(make_settings(own_redis_server.url)))
    assert "Redis is away" in "".join(check_redis(make_settings(f"redis://127.0.0.1:{free_port()}")))


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "gunicorn", "-c", "api/gunicorn_conf.py", "api.wsgi:app"],
        ["-m", "celery", "--quiet", "-A", "workers.app", "worker", "--pool=threads"],
        ["-m", "celery", "--quiet", "-A", "workers.keeper", "worker", "--pool=threads"],
    ],
    ids=["api", "worker", "keeper"],
)
def test_no_process_starts_without_a_login(own_redis_server: RedisServer, redis: Redis, command: list[str]) -> None:
    redis.config_set("requirepass", "right")
    environment = environment_for(make_settings(own_redis_server.url, api_port=free_port()))
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "REDIS_URL: Redis refuses the login" in done.stderr
    assert "Traceback" not in done.stderr
