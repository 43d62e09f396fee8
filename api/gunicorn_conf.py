"""gunicorn's settings of the API, each with its reason."""

import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from inferq.errors import InferqError
from inferq.settings import load_settings

try:
    settings = load_settings()
except InferqError as error:
    raise SystemExit(f"inferq api: {error}") from None

bind = f"{settings.api_host}:{settings.api_port}"
# One process serves about a thousand requests a second; more of them would take cores from an engine on the CPU.
workers = settings.api_processes
# Green threads: a thousand long-polls cost little, and nothing here computes for long (docs/decisions/0002).
worker_class = "gevent"
# Above the bound on long-polls, so that however many wait there is room for requests that do not.
worker_connections = settings.max_waiters + 2000
# A long-poll may be held for 60 s; the arbiter must not take its worker for stuck.
timeout = 90
graceful_timeout = 30
keepalive = 75
accesslog = None  # a request's line is written by api/access.py
loglevel = settings.log_level
if settings.log_format == "json":
    logconfig_dict = {
        "formatters": {"json": {"()": "inferq.log_lines.JsonLines"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": loglevel.upper(), "handlers": ["stderr"]},
        "loggers": {"gunicorn.error": {"level": loglevel.upper(), "handlers": [], "propagate": True}},
    }
control_socket_disable = True

# Every connection is an open file, and many systems allow 1024 unless asked.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = worker_connections + 512
if _soft != resource.RLIM_INFINITY and _soft < _wanted:
    _most = _wanted if _hard == resource.RLIM_INFINITY else min(_wanted, _hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _hard))


def _metrics_directory() -> Path:
    """Make the directory in which processes share their counts, new for each start; those of old starts go."""
    known = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")  # noqa: TID251  # set below, and read again on SIGHUP
    if Path(known).name.startswith(f"inferq-metrics-{os.getpid()}-"):
        return Path(known)
    for left in Path(tempfile.gettempdir()).glob("inferq-metrics-*-*"):
        owner = left.name.split("-")[2]
        # One that has our own number is of an earlier start: in a container each is given the same.
        if owner.isdigit() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner))):
            shutil.rmtree(left, ignore_errors=True)  # somebody else's, perhaps
    return Path(tempfile.mkdtemp(prefix=f"inferq-metrics-{os.getpid()}-"))


# prometheus_client asks for it when it is imported, which the workers do.
_metrics = _metrics_directory()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics)  # noqa: TID251  # the library's own switch, not a setting of ours


def child_exit(_: Any, worker: Any) -> None:
    """Forget how many waiters a dead process had; what it has counted stays.

    By hand: prometheus_client must not be imported here, as it imports ssl, which gevent patches in the workers.
    """
    for gauge in _metrics.glob(f"gauge_live*_{worker.pid}.db"):
        gauge.unlink()


def on_exit(_: Any) -> None:
    """Leave nothing behind."""
    shutil.rmtree(_metrics, ignore_errors=True)


def on_starting(_: Any) -> None:
    """Do not start beside a Redis or with keys of tokens that cannot be used; what is away is waited for.

    Asked by processes of their own: a worker inherits what is imported here, and gevent must patch ssl before redis-py
    has imported it, or TLS breaks.
    """
    for check in ("inferq.redis_check", *(["api.tokens"] if settings.jwt_algorithm else [])):
        if subprocess.run([sys.executable, "-m", check], check=False).returncode:  # noqa: S603  # two names, above
            raise SystemExit(1)


def post_worker_init(worker: Any) -> None:
    """Keep the collector from walking what is loaded by now and stays: pauses in the middle of requests."""
    gc.collect()
    gc.freeze()
