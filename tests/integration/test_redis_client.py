"""Connections to Redis are few: a crowd waits for them, and nobody waits for a Redis that answers nobody."""

import contextlib
import socket
import threading
import time

import pytest
from redis.exceptions import RedisError

from deploy.local.stack import free_port
from inferq.redis_client import CONNECTIONS, PatientQueue, connect
from tests.conftest import make_settings
from tests.redis_server import RedisServer

#: Seconds that Redis may take, five times as long as a call does take here: a busy machine is not a dead Redis.
TIMEOUT_S = 1.0
TURN_S = 0.2
#: A crowd needs longer than one call may take, twice over.
TURNS = 12


def test_a_crowd_waits_its_turn_longer_than_redis_may_take(redis_server: RedisServer) -> None:
    settings = make_settings(redis_server.url, redis_timeout=TIMEOUT_S)
    client = connect(settings.redis_url, settings)
    answers: list[object] = []

    def ask() -> None:
        answers.append(client.blpop(["nothing"], timeout=TURN_S) is None)

    with client:
        threads = [threading.Thread(target=ask) for _ in range(TURNS * CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [True] * (TURNS * CONNECTIONS), "the last ones waited for all turns but their own"


def test_a_crowd_is_served_in_the_order_it_came(redis_server: RedisServer) -> None:
    settings = make_settings(redis_server.url, redis_timeout=TIMEOUT_S)
    client = connect(settings.redis_url, settings)
    ended: list[int] = []

    def ask(number: int) -> None:
        client.blpop(["nothing"], timeout=TURN_S)
        ended.append(number)

    with client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(TURNS * CONNECTIONS)]
        for thread in threads:
            thread.start()
            time.sleep(0.001)
        for thread in threads:
            thread.join()
    assert max(abs(place - number) for place, number in enumerate(ended)) < 2 * CONNECTIONS


@pytest.mark.parametrize("away", [True, False])
def test_nobody_waits_for_a_redis_that_answers_nobody(own_redis_server: RedisServer, away: bool) -> None:
    url = f"redis://127.0.0.1:{free_port()}" if away else own_redis_server.url
    settings = make_settings(url, redis_timeout=0.3)
    took: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        with pytest.raises(RedisError):
            client.ping()
        took.append(time.monotonic() - began)

    if not away:
        own_redis_server.pause()
    with connect(settings.redis_url, settings) as client:
        threads = [threading.Thread(target=ask) for _ in range(15 * CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if not away:
        own_redis_server.resume()
    assert len(took) == 15 * CONNECTIONS
    assert max(took) < 5, "not until fifteen turns have been in vain, nor the ten seconds of a crowd"


def test_a_redis_that_takes_no_connection_is_not_asked_over_and_over() -> None:
    asked = 0

    def refuse(door: socket.socket) -> None:
        nonlocal asked
        with contextlib.suppress(OSError):
            while True:
                caller, _ = door.accept()
                asked += 1
                caller.close()

    with socket.create_server(("127.0.0.1", 0)) as door:
        refusing = threading.Thread(target=refuse, args=(door,))
        refusing.start()
        settings = make_settings(f"redis://127.0.0.1:{door.getsockname()[1]}", redis_timeout=1.0)
        with connect(settings.redis_url, settings) as client, pytest.raises(RedisError):
            client.ping()
        door.shutdown(socket.SHUT_RDWR)
    refusing.join()
    assert 1 <= asked <= 8


@pytest.mark.parametrize("served", [False, True], ids=["waiting", "just served"])
def test_whoever_is_killed_while_it_waits_keeps_no_connection(monkeypatch: pytest.MonkeyPatch, served: bool) -> None:
    queue = PatientQueue(1)

    def killed(_: threading.Event, timeout: float) -> bool:
        if served:
            queue.put_nowait(None)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Event, "wait", killed)
    with pytest.raises(KeyboardInterrupt):
        queue.get(timeout=1.0)
    monkeypatch.undo()
    if not served:
        queue.put_nowait(None)
    assert queue.queue == [None]
    assert queue.get(timeout=1.0) is None
