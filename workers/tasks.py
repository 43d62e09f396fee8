"""Celery's task of a GPU worker: a few lines between a bell and the runner."""

import time
from collections import Counter
from typing import Final

import structlog
from celery import Celery

from inferq.errors import StoreUnavailable
from inferq.queue import GENERATE_TASK
from workers.attempt_events import AttemptEvents
from workers.lifecycle import Worker

log = structlog.get_logger()

#: Seconds a slot that found nothing waits for more before it goes back to Celery.
LINGER_S: Final = 2.0
#: Seconds after which a slot goes back to Celery although runs wait, so that Flower sees it come and go.
SHIFT_S: Final = 30.0


def register(app: Celery, worker: Worker, attempts: AttemptEvents) -> None:
    """Give ``app`` the task that answers a bell; ``attempts`` is told of each attempt."""

    @app.task(name=GENERATE_TASK, ignore_result=True)
    def generate() -> dict[str, int]:
        """Claim runs and see them through until none waits. The result counts outcomes and tokens, never text.

        A bell wakes a slot; while there is work the slot stays awake and claims by itself. A Celery message for every
        run would cost as much as the rest of the queue together.
        """
        done: Counter[str] = Counter()
        runner, until = worker.runner, time.monotonic() + SHIFT_S
        try:
            while time.monotonic() < until:
                attempt = runner.run_next()
                if attempt.outcome != "nothing":
                    attempts.add(attempt)
                    done[attempt.outcome] += 1
                    done["tokens"] += attempt.tokens
                if not attempt.more and not runner.idle.wait(LINGER_S):
                    break
        except StoreUnavailable as error:
            # The run, if any, is still in the queue or under a lease: the keeper rings again.
            log.warning("bell_in_vain", reason=str(error))
        worker.metrics.bell(found=bool(done))
        return dict(done)
