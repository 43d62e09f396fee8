"""Celery, seen from both sides: the application, the task's name, and the bell."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

from inferq.sentinel_url import SentinelUrl
from inferq.settings import Settings

#: The one task of a GPU worker: claim the next run and execute it.
GENERATE_TASK: Final = "inferq.generate"
#: The one task of a keeper: send what the outbox holds. And its queue.
DELIVER_TASK: Final = "inferq.deliver"
DELIVER_QUEUE: Final = "webhooks"


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


def ring_keepers(celery: Celery) -> bool:
    """Send one bell to the keepers; False when Celery did not take it. They look by themselves every second."""
    try:
        celery.send_task(DELIVER_TASK, queue=DELIVER_QUEUE, ignore_result=True)
    except (OperationalError, OSError):
        return False
    return True


class Ringer:
    """Rings on a thread of its own: nobody else waits when Celery's connection hangs, and a late bell is no harm."""

    def __init__(self, bells: Bells, rung: Callable[[int, int], None]) -> None:
        """``rung`` is told how many were sent, and how many Celery did not take."""
        self._bells = bells
        self._rung = rung
        self._changed = threading.Condition()
        self._asked: Counter[str] = Counter()
        self._thread: threading.Thread | None = None

    def ring(self, engine: str, count: int) -> None:
        """Ask for ``count`` bells; returns at once."""
        if not count:
            return
        with self._changed:
            self._asked[engine] += count
            # Started when it is first needed: a web server forks after its application is made.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._ring_forever, name="ringer", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _ring_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked)
                asked, self._asked = self._asked, Counter()
            for engine, count in asked.items():
                sent = self._bells.ring(engine, count)
                self._rung(sent, count - sent)
