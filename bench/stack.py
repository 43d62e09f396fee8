"""inferq as it ships, on a private Redis: the processes that measurements talk to."""

import sys
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from bench.processes import Children, wait_until
from deploy.local.child import Child
from deploy.local.redis_binary import find_redis_server
from deploy.local.stack import free_port
from inferq.settings import Settings, environment_for

#: Seconds a process may take to start.
START_S = 180.0
#: The model where none is named.
DEMO = "models/demo-mistral"
#: The key all measured requests carry.
API_KEY = "iq_bench_notasecret"


def make_settings(**changes: Any) -> Settings:
    """Return the settings all contestants share; limits are out of the way, everything else is as shipped."""
    values: dict[str, Any] = {
        "redis_url": f"redis://127.0.0.1:{free_port()}",
        "cache_redis_url": "",
        "model_name": DEMO,
        "engine": "vllm",
        "max_model_len": 1024,
        "max_num_seqs": 64,
        "rate_limit": 1_000_000,
        "poll_rate_limit": 10_000_000,
        "token_rate_limit": 1_000_000_000,
        "max_jobs_in_flight": 100_000_000,
        "api_port": free_port(),
        "metrics_port": 0,
        "keeper_metrics_port": 0,
        "bootstrap_api_key": API_KEY,
        **changes,
    }
    return Settings(_env_file=None, **values)


def engine_settings(engine: str, model: str = DEMO) -> dict[str, Any]:
    """Return what makes all of inferq run ``model`` on ``engine``; a simulated one takes a millisecond for a token."""
    return {"engine": engine, "model_name": model} | ({"simulated_step": 0.001} if engine == "simulated" else {})


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The processes of one inferq."""

    settings: Settings
    redis: Child
    api: Child
    keeper: Child | None = None
    worker: Child | None = None

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://127.0.0.1:{self.settings.api_port}"


def start_redis(children: Children, settings: Settings, *, name: str = "redis", durable: bool = True) -> Child:
    """Start a Redis; a ``durable`` one appends every write to a file, as a queue's Redis should."""
    port = settings.redis_url.rsplit(":", 1)[1]
    directory = children.directory / f"{name}-data"
    directory.mkdir()
    command = [
        str(find_redis_server()), "--port", port, "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "yes" if durable else "no", "--appendfsync", "everysec", "--dir", str(directory),
        "--loglevel", "warning",
    ]  # fmt: skip
    redis = children.start(name, command)
    wait_until(redis, lambda: _pings(settings.redis_url), 10)
    return redis


def start_api(
    children: Children,
    settings: Settings,
    *,
    app: str = "api.wsgi:app",
    name: str = "api",
    options: tuple[str, ...] = (),
) -> Child:
    """Start ``app`` under the API's own gunicorn settings."""
    command = [sys.executable, "-m", "gunicorn", "-c", str(Path("api", "gunicorn_conf.py")), *options, app]
    api = children.start(name, command, environment_for(settings))
    # The bootstrap key is stored beside the start; the bare view knows no such path and answers 404.
    wait_until(api, lambda: answers(settings.api_port, "/v1/queue") in (200, 404), START_S)
    return api


def start_celery(children: Children, settings: Settings, module: str) -> Child:
    """Start ``workers.<module>`` as the README does."""
    command = [
        sys.executable, "-m", "celery", "-A", f"workers.{module}", "worker", "--pool=threads", "-n", f"{module}@bench",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    return children.start(module, command, environment_for(settings))


def start_stack(children: Children, settings: Settings) -> Stack:
    """Start Redis, API, keeper and a GPU worker; returns when an engine is ready."""
    redis = start_redis(children, settings)
    api = start_api(children, settings)
    keeper = start_celery(children, settings, "keeper")
    worker = start_celery(children, settings, "app")
    wait_until(worker, lambda: answers(settings.api_port, "/readyz") == 200, START_S)
    return Stack(settings=settings, redis=redis, api=api, keeper=keeper, worker=worker)


def _pings(url: str) -> bool:
    try:
        with Redis.from_url(url) as redis:
            return bool(redis.ping())
    except RedisError:
        return False


def answers(port: int, path: str = "/health") -> int | None:
    """Return the HTTP status of a path on loopback; None when nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"X-API-Key": API_KEY})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
