"""Celery, seen from both sides: the application, the task's name, and the bell."""

from typing import Final
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

from inferq.sentinel_url import SentinelUrl
from inferq.settings import Settings

#: The one task of a GPU worker: claim the next run and execute it.
GENERATE_TASK: Final = "inferq.generate"


def generate_queue(engine: str) -> str:
    """Return the Celery queue of an engine."""
    return f"generate.{engine}"


def make_celery(settings: Settings) -> Celery:
    """Return the Celery application on ``REDIS_URL``, with the settings of ``celeryconfig``."""
    sentinel = SentinelUrl.parse(settings.redis_url)
    broker, options = sentinel.for_celery() if sentinel else (_verified(settings.redis_url), {})
    app = Celery("inferq", broker=broker, set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **options}
    return app


def _verified(url: str) -> str:
    # Told nothing, kombu takes any certificate for rediss://. redis-py, behind all our other connections, does not.
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return url
    return parts._replace(query=f"{parts.query}&ssl_cert_reqs=required".lstrip("&")).geturl()


class Bells:
    """Rings an engine's bell: a Celery message without content that makes a free worker claim the next run."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def ring(self, engine: str, count: int) -> int:
        """Send ``count`` bells; returns how many Celery took. A lost bell is only late: the keeper rings again."""
        for sent in range(count):
            try:
                self._celery.send_task(GENERATE_TASK, queue=generate_queue(engine), ignore_result=True)
            except (OperationalError, OSError):
                return sent
        return count
