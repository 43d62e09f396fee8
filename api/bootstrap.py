"""The API key that exists from the start, for development and first steps."""

import threading

import structlog
from redis.exceptions import RedisError

from inferq.credentials import KeyRing
from inferq.settings import Settings

log = structlog.get_logger()

#: The tenant that owns the bootstrap key.
TENANT = "development"
#: Seconds between tries while Redis is away.
RETRY_DELAY = 1.0


def store_bootstrap_key(keys: KeyRing, settings: Settings) -> threading.Thread | None:
    """Store ``BOOTSTRAP_API_KEY`` if there is one, as soon as Redis answers; the API starts without waiting for it.

    Its tenant signs webhooks with ``BOOTSTRAP_WEBHOOK_SECRET``, until it has rotated it.
    Storing them again changes nothing, and does not bring back a key that was revoked.
    """
    if settings.bootstrap_api_key is None:
        return None
    presented = settings.bootstrap_api_key.get_secret_value()
    secret = settings.bootstrap_webhook_secret
    first_secret = secret.get_secret_value() if secret else ""
    arguments = (keys, presented, first_secret)
    thread = threading.Thread(target=_store, args=arguments, name="bootstrap-key", daemon=True)
    thread.start()
    return thread


def _store(keys: KeyRing, presented: str, secret: str) -> None:
    wait = threading.Event()
    while True:
        try:
            keys.store(presented, TENANT, name="bootstrap", webhook_secret=secret)
        except RedisError as error:
            log.warning("bootstrap_key_waits_for_store", reason=type(error).__name__)
            wait.wait(RETRY_DELAY)
            continue
        return
