"""The API key that exists from the start, for development and first steps."""

import threading

import structlog
from redis import Redis
from redis.exceptions import RedisError

from inferq.credentials import KeyRing
from inferq.keys import key
from inferq.settings import Settings

log = structlog.get_logger()

#: The tenant that owns the bootstrap key.
TENANT = "development"
#: Seconds between tries while Redis is away.
RETRY_DELAY = 1.0


def store_bootstrap_key(keys: KeyRing, redis: "Redis", settings: Settings) -> threading.Thread | None:
    """Store ``BOOTSTRAP_API_KEY`` if there is one, as soon as Redis answers; the API starts without waiting for it.

    Its tenant signs webhooks with ``BOOTSTRAP_WEBHOOK_SECRET``, until it has rotated it.
    Storing them again changes nothing, and does not bring back a key that was revoked.
    """
    if settings.bootstrap_api_key is None:
        return None
    presented = settings.bootstrap_api_key.get_secret_value()
    secret = settings.bootstrap_webhook_secret
    first_secret = secret.get_secret_value() if secret else ""
    thread = threading.Thread(
        target=_store, args=(keys, redis, presented, first_secret), name="bootstrap-key", daemon=True
    )
    thread.start()
    return thread


def _store(keys: KeyRing, redis: "Redis", presented: str, secret: str) -> None:
    wait = threading.Event()
    while True:
        try:
            keys.store(presented, TENANT, name="bootstrap")
            secrets = key("webhook_secrets", TENANT)
            if secret and not redis.exists(secrets):
                redis.zadd(secrets, {secret: "+inf"}, nx=True)
        except RedisError as error:
            log.warning("bootstrap_key_waits_for_store", reason=type(error).__name__)
            wait.wait(RETRY_DELAY)
            continue
        return
