"""Bells are rung by a thread of their own: whoever asks for one does not wait for Celery's Redis."""

import threading

from inferq.keys import key
from inferq.queue import Bells, Ringer, make_celery
from tests.conftest import make_settings
from tests.processes import until
from tests.redis_server import RedisServer


def test_nobody_waits_while_the_broker_hangs_and_the_bells_are_rung_afterwards(own_redis_server: RedisServer) -> None:
    ringer = Ringer(Bells(make_celery(make_settings(own_redis_server.url))), lambda *_: None)
    ringer.ring("demo", 1)
    with own_redis_server.client() as redis:
        until(lambda: redis.llen(key("bells", "demo")) == 1)
        asking = threading.Thread(target=lambda: [ringer.ring("demo", 1) for _ in range(20)])
        own_redis_server.pause()
        try:
            asking.start()
            asking.join(30)
            assert not asking.is_alive(), "all have asked although nothing can be rung"
        finally:
            own_redis_server.resume()
        until(lambda: redis.llen(key("bells", "demo")) >= 20)


def test_no_bells_start_no_thread() -> None:
    before = {thread.name for thread in threading.enumerate()}
    Ringer(Bells(make_celery(make_settings("redis://127.0.0.1:1"))), lambda *_: None).ring("demo", 0)
    assert {thread.name for thread in threading.enumerate()} == before
