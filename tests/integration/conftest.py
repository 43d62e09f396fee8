"""The world of scripts on real Redis servers: the one in the wheel (6.2), and the system's."""

from collections.abc import Iterator

import pytest
from redis import Redis

from inferq.settings import Settings
from tests.hand_worker import HandWorker
from tests.redis_server import RedisServer, binaries
from tests.world import World


@pytest.fixture(scope="module", params=sorted(binaries()))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), binaries()[request.param])
    yield server
    server.close()


@pytest.fixture
def world(server: RedisServer) -> Iterator[World]:
    with server.client() as redis:
        yield World(redis)


@pytest.fixture
def worker(redis: Redis, settings: Settings) -> HandWorker:
    return HandWorker(redis, settings)
