"""``up``: the whole stack in the foreground."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploy.local import stack
from deploy.local.child import ROOT
from deploy.local.prometheus import prometheus_piece, why_none
from deploy.local.supervisor import Supervisor
from inferq.errors import ConfigurationError
from inferq.settings import Settings

#: Where a local stack keeps its Redis data and logs, so that jobs survive a restart.
HOME = Path(os.environ.get("INFERQ_HOME", ROOT / ".inferq"))


def up(console: Console) -> None:
    """Run until Ctrl-C or SIGTERM; raises InferqError when a piece cannot start."""
    settings, private = stack.local_settings(flower_db=str(HOME / "flower"))
    stack.check_port("API_PORT", settings.api_host, settings.api_port)
    stack.check_port("FLOWER_PORT", settings.flower_host, settings.flower_port)
    stack.check_port("METRICS_PORT", settings.metrics_host, settings.metrics_port)
    stack.check_port("KEEPER_METRICS_PORT", settings.metrics_host, settings.keeper_metrics_port)
    without_prometheus = why_none(settings)
    if not private and not stack.redis_answers(settings):
        raise ConfigurationError(f"REDIS_URL: no Redis answers at {_without_password(settings.redis_url)}")
    logs = HOME / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with _alone(HOME / "lock"):
        supervisor = Supervisor(logs, lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
        with ended_by_signals(supervisor):
            try:
                if private:
                    supervisor.start(stack.redis_piece(settings, HOME / "redis"))
                supervisor.start(stack.api_piece(settings))
                watching = [] if without_prometheus else [prometheus_piece(settings, HOME / "prometheus")]
                supervisor.start(
                    stack.keeper_piece(settings), stack.worker_piece(settings), stack.flower_piece(settings), *watching
                )
                console.print(
                    welcome(settings, logs, without_prometheus), highlight=False, markup=False, soft_wrap=True
                )
                supervisor.watch()
                console.print("stopping; running jobs may finish first, Ctrl-C again does not wait for them")
            finally:
                supervisor.stop()
    console.print("stopped")


def welcome(settings: Settings, logs: Path, without_prometheus: str) -> str:
    """Return what a person needs to know to use the stack; ``without_prometheus``: why there is none, if so."""
    key = settings.bootstrap_api_key.get_secret_value() if settings.bootstrap_api_key else ""
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else ""
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    ports = f"{settings.metrics_port}, {settings.keeper_metrics_port}"
    base = f"http://{settings.api_host}:{settings.api_port}"
    prometheus = f"none: {without_prometheus}" if without_prometheus else f"http://127.0.0.1:{settings.prometheus_port}"
    return f"""
inferq is up.
  API      {base}
  Flower   http://{settings.flower_host}:{settings.flower_port}/flower/ as {settings.flower_user}, password {password}
  key      {key}
  metrics  {base}/metrics, and on ports {ports} (worker, keeper)
           with Authorization: Bearer {token}
           Prometheus: {prometheus}
  logs     {logs}

  export INFERQ_URL={base} INFERQ_API_KEY={key}
  .venv/bin/inferq submit "What is inferq?"

  curl {base}/infer -H 'X-API-Key: {key}' -H 'Prefer: wait=30' \\
       --json '{{"prompt": "What is inferq?", "max_tokens": 64}}'

Ctrl-C stops everything.
"""


@contextmanager
def ended_by_signals(supervisor: Supervisor) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the stack in order, and a second one at once."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if supervisor.stopping.is_set():
            supervisor.kill()
        supervisor.stopping.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold the lock of this checkout: two Redis servers must not write to the same files."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError("another `make up` runs in this directory; stop it first") from None
        yield


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
