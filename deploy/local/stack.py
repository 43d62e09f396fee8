"""Which processes make up inferq on one machine, and with which settings."""

import contextlib
import http.client
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError

from deploy.local.child import ROOT
from deploy.local.redis_binary import find_redis_server
from deploy.local.supervisor import Piece
from inferq.errors import ConfigurationError
from inferq.keys import key
from inferq.redis_client import job_redis
from inferq.settings import Settings, environment_for, load_settings

#: What a machine without a GPU gets when nobody says otherwise.
LOCAL_DEFAULTS: Final[dict[str, Any]] = {
    "model_name": "models/demo-mistral",
    "max_model_len": 1024,
    "cpu_kv_cache_gib": 0.5,
    "log_format": "console",
}
#: Any free ports for metrics: for stacks nobody scrapes.
FREE_METRICS: Final[dict[str, Any]] = {"metrics_port": 0, "keeper_metrics_port": 0}
_HOST = "127.0.0.1"
_CELERY = [sys.executable, "-m", "celery", "--quiet", "-A"]
# Heartbeats are for Flower, which takes a worker without any for gone.
_QUIET = ["--without-gossip", "--without-mingle"]


def local_settings(**overrides: Any) -> tuple[Settings, bool]:
    """Return the settings of a local stack, and whether its Redis is its own.

    What the environment or ``.env`` says stands; ``overrides`` and the local defaults fill the rest. Raises
    ConfigurationError.
    """
    given = load_settings()
    values = {name: value for name, value in (LOCAL_DEFAULTS | overrides).items() if name not in given.model_fields_set}
    private = "redis_url" not in given.model_fields_set
    if private:
        values["redis_url"] = f"redis://{_HOST}:{_redis_port()}"
    if given.bootstrap_api_key is None:
        values["bootstrap_api_key"] = f"iq_local_{secrets.token_hex(16)}"
    if given.flower_password is None:
        values["flower_password"] = secrets.token_hex(8)
    if given.metrics_token is None:
        values["metrics_token"] = secrets.token_hex(16)
    return load_settings(**values), private


def free_port() -> int:
    """Return a port of loopback that nobody listens on, below those that outgoing connections are given."""
    # A port that the system chooses may become the near end of somebody's connection before its server has started.
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            return port


def check_port(setting: str, host: str, port: int) -> None:
    """Raise ConfigurationError when somebody listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"{setting}: port {port} cannot be used ({os.strerror(error.errno or 0).lower()}); "
                f"set {setting} to a free one"
            ) from None


def redis_piece(settings: Settings, directory: Path) -> Piece:
    """Return a Redis that keeps every write in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    port = settings.redis_url.rsplit(":", 1)[1]
    options = ["--port", port, "--bind", _HOST, "--dir", str(directory), "--save", "", "--appendonly", "yes"]
    command = [str(find_redis_server()), *options, "--maxmemory-policy", "noeviction"]
    return Piece(
        name="redis", command=command, env=os.environ, address=settings.redis_url, ready=lambda: redis_answers(settings)
    )


def api_piece(settings: Settings) -> Piece:
    """Return the API under gunicorn."""
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"), "api.wsgi:app"]
    return Piece(
        name="api",
        command=command,
        env=environment_for(settings),
        address=f"http://{settings.api_host}:{settings.api_port}",
        ready=lambda: status(settings.api_host, settings.api_port, "/health") == 200,
    )


def keeper_piece(settings: Settings) -> Piece:
    """Return the keeper."""
    return Piece(
        name="keeper",
        command=[*_CELERY, "workers.keeper", "worker", "--pool=threads", "-n", "keeper@%h", *_QUIET],
        env=environment_for(settings),
        address="rescues, deadlines, retention, webhooks",
        ready=lambda: _keeper_ticks(settings),
    )


def worker_piece(settings: Settings) -> Piece:
    """Return the worker with its engine. Loading a model may take minutes."""
    return Piece(
        name="worker",
        command=[*_CELERY, "workers.app", "worker", "--pool=threads", "-n", "worker@%h", *_QUIET],
        env=environment_for(settings),
        address=f"{settings.engine} engine with {settings.model_name}",
        ready=lambda: status(settings.api_host, settings.api_port, "/readyz") == 200,
        start_s=900.0,
        stop_s=settings.drain_grace + 15.0,
    )


def flower_piece(settings: Settings) -> Piece:
    """Return Flower, which shows Celery's workers and tasks."""
    return Piece(
        name="flower",
        command=[*_CELERY, "deploy.flower_app", "flower", f"--conf={ROOT / 'deploy' / 'flowerconfig.py'}"],
        env=environment_for(settings),
        address=f"http://{settings.flower_host}:{settings.flower_port}/flower/",
        ready=lambda: status(settings.flower_host, settings.flower_port, "/flower/healthcheck") == 200,
    )


def redis_answers(settings: Settings) -> bool:
    """Return whether the jobs' Redis can be used."""
    try:
        with job_redis(settings) as redis:
            return bool(redis.ping())
    except (RedisError, OSError):
        return False


def status(host: str, port: int, path: str) -> int | None:
    """Return the HTTP status of a GET; None when nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _keeper_ticks(settings: Settings) -> bool:
    try:
        with job_redis(settings) as redis:
            seconds, _ = redis.time()
            ticked = float(redis.hget(key("sweep"), "last_ms") or 0)
            return ticked > 1000.0 * (int(seconds) - 3)
    except (RedisError, OSError):
        return False


def _redis_port() -> int:
    given = os.environ.get("REDIS_PORT", "")
    if not given:
        return free_port()
    if not given.isascii() or not given.isdigit() or not 0 < int(given[:6]) < 65536:
        raise ConfigurationError("REDIS_PORT: must be a port number from 1 to 65535")
    check_port("REDIS_PORT", _HOST, int(given))
    return int(given)
