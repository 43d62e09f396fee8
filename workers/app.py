"""Celery's entry of a GPU worker: ``celery -A workers.app worker --pool=threads``."""

import sys
from typing import Any, Final

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down
from kombu import Queue

from inferq.errors import InferqError
from inferq.logs import configure_logging
from inferq.queue import generate_queue, make_celery
from inferq.redis_check import check_redis
from inferq.settings import load_settings
from workers.attempt_events import AttemptEvents
from workers.lifecycle import Worker
from workers.tasks import register

#: Seconds after which Celery's loop looks again whether a thread is free; otherwise it may sleep for a whole second.
CONSUMER_TURN_S: Final = 0.05

try:
    settings = load_settings()
    configure_logging(settings)  # Celery asks for it only after it has begun to start
    worker = Worker(settings)
except InferqError as error:
    sys.exit(f"inferq worker: {error}")

app = make_celery(settings)
# One queue: a worker serves one engine. One thread per slot: that many runs are in the engine together.
app.conf.task_queues = [Queue(generate_queue(settings.engine_queue))]
app.conf.task_default_queue = generate_queue(settings.engine_queue)
app.conf.worker_concurrency = settings.max_num_seqs
attempts = AttemptEvents(app)
register(app, worker, attempts)


@setup_logging.connect
def _log(**_: Any) -> None:
    configure_logging(settings)


@worker_init.connect
def _warm_up(**_: Any) -> None:
    try:
        check_redis(settings)
        worker.offer_metrics()
    except InferqError as error:
        sys.exit(f"inferq worker: {error}")
    # In the main thread, before Celery consumes: the engine's processes are tied to a thread that lives as long as
    # the worker, and no bell is heard before there is somebody to answer it.
    try:
        worker.warm_up()
    except InferqError as error:
        worker.close()
        reason = " ".join(str(error).split())  # one line: supervisors show the last one
        sys.exit(f"inferq worker: the engine cannot start with MODEL_NAME={settings.model_name}: {reason}")


@worker_ready.connect
def _consume(sender: Any, **_: Any) -> None:
    # While all threads are busy Celery does not listen for bells, and nothing tells its loop that one is free again.
    sender.hub.call_repeatedly(CONSUMER_TURN_S, lambda: None)
    attempts.start(sender.hostname)
    worker.consume()


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    worker.drain()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    worker.close()
