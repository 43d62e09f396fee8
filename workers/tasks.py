"""Celery's task of a GPU worker: a few lines between a bell and the runner."""

from dataclasses import asdict
from typing import Any

import structlog
from celery import Celery

from inferq.errors import StoreUnavailable
from inferq.queue import GENERATE_TASK
from workers.lifecycle import Worker

log = structlog.get_logger()


def register(app: Celery, worker: Worker) -> None:
    """Give ``app`` the task that answers a bell."""

    @app.task(name=GENERATE_TASK, ignore_result=True)
    def generate() -> dict[str, Any]:
        """Claim the next run and see it through. The result names run and outcome, never text."""
        try:
            return asdict(worker.runner.run_next())
        except StoreUnavailable as error:
            # The run, if any, is still in the queue or under a lease: the keeper rings again.
            log.warning("bell_in_vain", reason=str(error))
            return {"outcome": "store unavailable"}
