"""Attempts as Flower hears of them, over a broker that goes away and comes back."""

import base64
import json
import time

import pytest
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from inferq.keys import CELERY_PREFIX
from inferq.queue import make_celery
from tests.conftest import make_settings
from tests.processes import until
from tests.redis_server import RedisServer
from workers.attempt_events import EVERY_S, KEPT, AttemptEvents, events_of
from workers.runner import Attempt


def attempt(outcome: str = "completed", number: int = 1) -> Attempt:
    return Attempt(outcome=outcome, run="run", attempt=number, tokens=7, seconds=0.25)


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        ("completed", "task-succeeded"),
        ("failed", "task-failed"),
        ("queued", "task-retried"),
        ("cancelled", "task-revoked"),
        ("expired", "task-revoked"),
        ("refused", "task-rejected"),
    ],
)
def test_an_outcome_has_its_event(outcome: str, event: str) -> None:
    (received, _), (ended, said) = events_of(attempt(outcome), 100.0)
    assert (received, ended) == ("task-received", event)
    assert said["uuid"] == "run.1"
    assert said["result"] == f"outcome={outcome} tokens=7 seconds=0.250 attempt=1 job=run"


class Ears:
    """Hears all of Celery's events from now on."""

    def __init__(self, redis: Redis) -> None:
        self._heard: set[str] = set()
        self._subscription = redis.pubsub(ignore_subscribe_messages=True)
        self._subscription.psubscribe(f"{CELERY_PREFIX}*celeryev*")
        self._subscription.get_message(timeout=5)  # that it is subscribed

    def heard(self) -> set[str]:
        """The attempts that were told as having succeeded."""
        while message := self._subscription.get_message():
            body = base64.b64decode(json.loads(message["data"])["body"])
            self._heard |= {event["uuid"] for event in json.loads(body) if event["type"] == "task-succeeded"}
        return self._heard


def test_what_could_not_be_told_is_told_later(own_redis_server: RedisServer) -> None:
    app = make_celery(make_settings(own_redis_server.url))
    events = AttemptEvents(app)
    for number in (1, 2):
        events.add(attempt(number=number))
    with app.connection_for_write() as connection:
        dispatcher = events.dispatcher(connection, "worker@test")
        own_redis_server.kill()
        with pytest.raises((KombuError, RedisError, OSError)):
            events.tell(dispatcher)
    assert len(events) == 2
    own_redis_server.start()
    with own_redis_server.client() as redis:
        ears = Ears(redis)
        events.start("worker@test")
        until(lambda: ears.heard() == {"run.1", "run.2"}, 20, "both are heard")
        assert len(events) == 0


def test_an_outage_of_the_broker_does_not_end_the_telling(own_redis_server: RedisServer) -> None:
    events = AttemptEvents(make_celery(make_settings(own_redis_server.url)))
    events.start("worker@test")
    with own_redis_server.client() as redis:
        ears = Ears(redis)
        events.add(attempt(number=1))
        until(lambda: ears.heard() == {"run.1"}, 20, "the first is heard")
    own_redis_server.kill()
    events.add(attempt(number=2))
    time.sleep(3 * EVERY_S)  # it tries meanwhile
    own_redis_server.start()
    with own_redis_server.client() as redis:
        ears = Ears(redis)
        until(lambda: events.add(attempt(number=3)) or "run.3" in ears.heard(), 20, "one of those after it is heard")


def test_a_broker_that_stays_away_costs_bounded_memory() -> None:
    events = AttemptEvents(make_celery(make_settings("redis://127.0.0.1:1")))
    for number in range(3 * KEPT):
        events.add(attempt(number=number))
    assert len(events) == KEPT
