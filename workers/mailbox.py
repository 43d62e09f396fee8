"""Hears that a delivery can be sent: a courier on shift looks at once, otherwise a bell begins one."""

import threading
from typing import Final

import structlog
from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from inferq.errors import StoreUnavailable
from inferq.keys import key
from inferq.outbox import Outbox
from inferq.queue import ring_keepers
from inferq.subscription import messages
from workers.courier import Courier

log = structlog.get_logger()

#: Seconds between tries to subscribe again after a lost connection.
RESUBSCRIBE_DELAY_S: Final = 0.5


def listen_forever(redis: "Redis", courier: Courier, outbox: Outbox, celery: Celery, stop: threading.Event) -> None:
    """Listen until told to stop. What is missed while the connection is away, the keeper's next tick finds."""
    while not stop.is_set():
        try:
            for _ in messages(redis, key("outbox")):
                if stop.is_set():
                    return
                if courier.on_shift():
                    courier.wake()
                elif outbox.lacks_bell():
                    ring_keepers(celery)
        except (RedisError, OSError, StoreUnavailable) as error:
            log.warning("outbox_lost", reason=type(error).__name__)
        stop.wait(RESUBSCRIBE_DELAY_S)
