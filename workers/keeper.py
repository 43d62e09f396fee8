"""The keeper: a Celery worker without an engine that does what must happen although nobody asks.

``celery -A workers.keeper worker --pool=threads``. Any number may run; each tick is one bounded script per sweep.
"""

import sys
import threading
from functools import partial
from typing import Any, Final

import structlog
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down
from kombu import Queue
from prometheus_client import REGISTRY

from inferq.errors import InferqError, StoreUnavailable
from inferq.job_store import JobStore, ServiceLimits
from inferq.logs import configure_logging
from inferq.outbox import Outbox
from inferq.queue import DELIVER_QUEUE, DELIVER_TASK, Bells, make_celery, ring_keepers
from inferq.redis_check import check_redis
from inferq.redis_client import job_redis
from inferq.scripts import Scripts
from inferq.settings import load_settings
from inferq.sweeps import Sweeps
from inferq.tracing import make_tracer
from inferq.webhooks import AddressRules
from workers.courier import Courier
from workers.exposition import Exposition
from workers.mailbox import listen_forever
from workers.metrics import KeeperMetrics
from workers.progress import Pulse
from workers.queue_collector import QueueCollector

log = structlog.get_logger()

#: Seconds between ticks.
TICK_S: Final = 1.0
#: Seconds without a tick, done or missed, after which a probe is told that the keeper is stuck.
STUCK_S: Final = 60.0
#: Seconds after which a shift of the courier ends, so that Flower sees it come and go.
SHIFT_S: Final = 30.0

try:
    settings = load_settings()
    configure_logging(settings)  # Celery asks for it only after it has begun to start
    tracer = make_tracer(settings, "keeper")
except InferqError as error:
    sys.exit(f"inferq keeper: {error}")

app = make_celery(settings)
app.conf.task_queues = [Queue(DELIVER_QUEUE)]
app.conf.task_default_queue = DELIVER_QUEUE
app.conf.worker_concurrency = 4

_metrics = KeeperMetrics(REGISTRY)
_stop = threading.Event()
_ticks = Pulse(STUCK_S)
_couriers: list[Courier] = []


@app.task(name=DELIVER_TASK, ignore_result=True)
def deliver() -> dict[str, int]:
    """Send what can be sent until there is nothing for a while. The result counts outcomes."""
    (courier,) = _couriers
    # A second shift would only take turns with the first.
    if courier.on_shift():
        return {}
    try:
        done = courier.shift(SHIFT_S)
        if not _stop.is_set() and courier.has_more():
            _ring_keepers()
    except StoreUnavailable as error:
        # What was taken is sent, or under a lease; the next tick rings again.
        log.warning("bell_in_vain", reason=str(error))
        return {}
    return done


def _ring_keepers() -> None:
    sent = ring_keepers(app)
    _metrics.rung(sent, not sent)


def sweep_forever(sweeps: Sweeps, bells: Bells, outbox: Outbox, stop: threading.Event) -> None:
    """Tick until told to stop; Redis being away is logged and waited out."""
    while not stop.wait(TICK_S):
        _ticks.beat()
        try:
            swept = sweeps.tick()
            lacks = outbox.lacks_bell()
        except StoreUnavailable as error:
            log.warning("tick_missed", reason=str(error))
            _metrics.tick(done=False)
            continue
        _metrics.tick(done=True)
        if swept.rescued:
            log.warning("runs_rescued", runs=list(swept.rescued))
        for engine, count in swept.bells.items():
            sent = bells.ring(engine, count)
            _metrics.restored(count)
            _metrics.rung(sent, count - sent)
        if lacks and not _couriers[0].on_shift():
            _ring_keepers()


@setup_logging.connect
def _log(**_: Any) -> None:
    configure_logging(settings)


@worker_init.connect
def _check(**_: Any) -> None:
    try:
        check_redis(settings)
        _offer_metrics()
    except InferqError as error:
        sys.exit(f"inferq keeper: {error}")


def _offer_metrics() -> None:
    scripts = Scripts(job_redis(settings))
    REGISTRY.register(QueueCollector(scripts, JobStore(scripts, ServiceLimits(requests=1, polls=1))))
    Exposition(
        REGISTRY,
        address=(settings.metrics_host, settings.keeper_metrics_port),
        setting="KEEPER_METRICS_PORT",
        token=settings.metrics_token,
        ready=lambda: bool(_couriers),
        # Sweeps begin once Celery is ready, and end before the last deliveries do.
        alive=lambda: not _couriers or _stop.is_set() or _ticks.felt,
    ).start()


@worker_ready.connect
def _start(**_: Any) -> None:
    scripts = Scripts(job_redis(settings))
    sweeps = Sweeps(scripts, lease_ms=round(settings.lease * 1000), tick_ms=round(TICK_S * 1000))
    outbox = Outbox(scripts, timeout_s=settings.webhook_timeout, waits_s=settings.webhook_waits_s)
    courier = Courier(
        outbox,
        AddressRules(settings),
        timeout_s=settings.webhook_timeout,
        room=settings.webhook_concurrency,
        sent=_metrics.sent,
        tracer=tracer,
    )
    _couriers.append(courier)
    threads = {
        "sweeps": partial(sweep_forever, sweeps, Bells(app), outbox, _stop),
        "outbox": partial(listen_forever, job_redis(settings), courier, outbox, app, _stop),
    }
    for name, target in threads.items():
        threading.Thread(target=target, name=name, daemon=True).start()


@worker_shutting_down.connect
def _end(**_: Any) -> None:
    _stop.set()
    for courier in _couriers:
        courier.stop()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    for courier in _couriers:
        courier.close()
    tracer.close()
