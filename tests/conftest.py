"""Fixtures that everything uses: real Redis servers, settings, stores, the API's test client."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from redis import Redis

from api.app import create_app
from api.services import services
from inferq.credentials import KeyRing
from inferq.settings import Settings
from tests.guard import start_guard
from tests.redis_server import RedisServer, binaries

# The same examples every time, so that a red run is about the code; `long` explores new ones at length, and looks for
# the shortest story that goes wrong.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
hypothesis_settings.register_profile(
    "default", derandomize=True, database=None, deadline=None, max_examples=40, stateful_step_count=60,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=_SLOW,
)  # fmt: skip
hypothesis_settings.register_profile(
    "long", deadline=None, max_examples=1000, stateful_step_count=80, suppress_health_check=_SLOW
)
hypothesis_settings.load_profile("default")


def pytest_configure() -> None:
    start_guard()


#: Files that take longest, mostly by waiting. They come first, beside each other: none of them is the last to run.
LONGEST: Final = (
    "test_vllm_worker.py",
    "test_chaos_smoke.py",
    "test_bench_smoke.py",
    "test_worker_process.py",
    "test_monitoring.py",
    "test_local_stack.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def shared_redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), next(reversed(binaries().values())))
    yield server
    server.close()


@pytest.fixture
def redis_server(shared_redis_server: RedisServer) -> RedisServer:
    """A running Redis without keys."""
    with shared_redis_server.client() as client:
        client.flushall()
    return shared_redis_server


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis the test may kill or pause."""
    server = RedisServer(tmp_path, next(reversed(binaries().values())))
    yield server
    server.close()


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return make_settings(redis_server.url)


def make_settings(url: str, **changes: object) -> Settings:
    return Settings(
        _env_file=None,
        redis_url=url,
        cache_redis_url="",
        **{
            "model_name": "models/demo-mistral",
            "engine": "simulated",
            "metrics_port": 0,
            "keeper_metrics_port": 0,
        }
        | changes,
    )


@pytest.fixture
def api_key(redis: Redis) -> str:
    return KeyRing(redis).create("acme", name="tests")


@pytest.fixture
def client(settings: Settings, api_key: str) -> Iterator[FlaskClient]:
    with api_client(settings, api_key) as client:
        yield client


OpenClient = Callable[..., FlaskClient]


@pytest.fixture
def open_client() -> Iterator[OpenClient]:
    """Opens clients, each of an API of its own, that end with the test: ``open_client(settings, api_key)``."""
    with ExitStack() as opened:
        yield lambda settings, api_key="": opened.enter_context(api_client(settings, api_key))


@contextmanager
def api_client(settings: Settings, api_key: str = "") -> Iterator[FlaskClient]:
    """A client of an API of its own that sends ``api_key`` along."""
    app = create_app(settings)
    client = app.test_client()
    if api_key:
        client.environ_base["HTTP_X_API_KEY"] = api_key
    yield client
    services(app).close()
