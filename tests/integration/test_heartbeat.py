"""What a worker's sign of life renews, and what it does not."""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from inferq.keys import key
from inferq.queue import Bells, make_celery
from tests.conftest import make_settings
from tests.redis_server import RedisServer
from tests.world import LEASE, World
from workers.heartbeat import Heartbeat
from workers.metrics import WorkerMetrics
from workers.runner import Held
from workers.simulated_engine import SimulatedEngine
from workers.timing import Timing


@pytest.fixture
def world(redis_server: RedisServer) -> Iterator[World]:
    with redis_server.client() as redis:
        yield World(redis)


@pytest.mark.parametrize(("state", "renewed"), [("ready", True), ("draining", True), ("dead", False)])
def test_a_lease_is_renewed_only_while_the_engine_lives(
    world: World, redis_server: RedisServer, state: str, renewed: bool
) -> None:
    world.submit()
    run = world.claim()
    held = Held()
    held.add(run)
    heartbeat = Heartbeat(
        store=world.worker,
        held=held,
        bells=Bells(make_celery(make_settings(redis_server.url))),
        engine=SimulatedEngine(slots=4, timing=Timing(base_s=1.0)),
        state=lambda: state,
        metrics=WorkerMetrics(CollectorRegistry(), "demo"),
        lease_s=LEASE / 1000,
    )
    world.pass_ms(1000)
    heartbeat.beat()
    assert world.redis.zscore(key("leases"), run.id) == world.now + (LEASE if renewed else LEASE - 1000)
