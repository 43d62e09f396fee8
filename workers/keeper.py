"""The keeper: a Celery worker without an engine that does what must happen although nobody asks.

``celery -A workers.keeper worker --pool=threads``. Any number may run; each tick is one bounded script per sweep.
"""

import sys
import threading
from typing import Any, Final

import structlog
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutting_down
from kombu import Queue

from inferq.errors import InferqError, StoreUnavailable
from inferq.logs import configure_logging
from inferq.queue import Bells, make_celery
from inferq.redis_check import check_redis
from inferq.redis_client import job_redis
from inferq.scripts import Scripts
from inferq.settings import load_settings
from inferq.sweeps import Sweeps

log = structlog.get_logger()

#: Seconds between ticks.
TICK_S: Final = 1.0

try:
    settings = load_settings()
except InferqError as error:
    sys.exit(f"inferq keeper: {error}")

app = make_celery(settings)
app.conf.task_queues = [Queue("webhooks")]
app.conf.task_default_queue = "webhooks"
app.conf.worker_concurrency = 4

_stop = threading.Event()


def sweep_forever(sweeps: Sweeps, bells: Bells, stop: threading.Event) -> None:
    """Tick until told to stop; Redis being away is logged and waited out."""
    while not stop.wait(TICK_S):
        try:
            swept = sweeps.tick()
        except StoreUnavailable as error:
            log.warning("tick_missed", reason=str(error))
            continue
        if swept.rescued:
            log.warning("runs_rescued", runs=list(swept.rescued))
        for engine, count in swept.bells.items():
            bells.ring(engine, count)


@setup_logging.connect
def _log(**_: Any) -> None:
    configure_logging(settings.log_format)


@worker_init.connect
def _check(**_: Any) -> None:
    try:
        check_redis(settings)
    except InferqError as error:
        sys.exit(f"inferq keeper: {error}")


@worker_ready.connect
def _start(**_: Any) -> None:
    sweeps = Sweeps(Scripts(job_redis(settings)), lease_ms=round(settings.lease * 1000), tick_ms=round(TICK_S * 1000))
    threading.Thread(target=sweep_forever, args=(sweeps, Bells(app), _stop), name="sweeps", daemon=True).start()


@worker_shutting_down.connect
def _end(**_: Any) -> None:
    _stop.set()
