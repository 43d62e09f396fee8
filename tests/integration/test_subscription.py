"""A subscription on a real Redis: quiet is not the same as lost."""

import threading
from itertools import islice

import pytest
from redis import Redis
from redis.exceptions import RedisError

from inferq.redis_client import job_redis
from inferq.subscription import messages
from tests.conftest import make_settings
from tests.redis_server import RedisServer


def test_a_quiet_connection_stays_and_what_comes_late_is_heard(redis_server: RedisServer, redis: Redis) -> None:
    with job_redis(make_settings(redis_server.url)) as client:
        heard = messages(client, "news", silence_s=0.1)
        assert next(heard) is None, "what was published before is not known"
        before = redis.info("stats")["total_connections_received"]
        late = threading.Timer(1.0, redis.publish, ("news", "hello"))
        late.start()
        assert list(islice(heard, 1)) == [("news", "hello")]
        late.join()
        assert redis.info("stats")["total_connections_received"] == before, "nobody had to connect again"
        heard.close()


def test_a_half_open_connection_is_noticed(own_redis_server: RedisServer) -> None:
    with job_redis(make_settings(own_redis_server.url)) as client:
        heard = messages(client, "news", silence_s=0.2)
        assert next(heard) is None
        own_redis_server.pause()  # its kernel still takes what is sent
        with pytest.raises(RedisError):
            next(heard)


def test_a_lost_connection_is_an_error(redis_server: RedisServer, redis: Redis) -> None:
    with job_redis(make_settings(redis_server.url)) as client:
        heard = messages(client, "news")
        assert next(heard) is None
        redis.client_kill_filter(_type="pubsub")
        with pytest.raises(RedisError):
            next(heard)
