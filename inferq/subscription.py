"""Listening to what scripts publish, on a connection that may die without a word."""

import threading
import time
from collections.abc import Iterator
from typing import Final

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: Seconds without a message after which Redis is asked for one, and again after which the connection counts as lost.
SILENCE_S: Final = 2.0

#: Seconds a listening thread may take to end.
END_S: Final = 5.0


def end(listening: threading.Thread, redis: "Redis") -> None:
    """End the thread that reads ``messages`` of ``redis``, once it has been told not to begin again."""
    until = time.monotonic() + END_S
    while listening.is_alive() and time.monotonic() < until:
        redis.connection_pool.disconnect()  # again: it may just have connected
        listening.join(0.1)


def messages(redis: "Redis", *channels: str, silence_s: float = SILENCE_S) -> Iterator[tuple[str, str] | None]:
    """Yield None when all ``channels`` are subscribed (what came before may have been missed), then (channel, text) of
    every message.

    Raises RedisError or OSError when the connection is lost. A half-open one, whose other end is gone without having
    said so, would otherwise look like a quiet one for ever: publishers never wait for their readers.
    """
    with redis.pubsub() as subscription:
        subscription.subscribe(*channels)
        awaited, asked = len(channels), False
        while True:
            try:
                # Not get_message(): with a time limit it polls the socket twice for each message.
                response = subscription.connection.read_response(
                    disconnect_on_error=False, push_request=True, timeout=silence_s
                )
            except RedisTimeoutError:
                if asked:
                    raise RedisConnectionError(f"nothing was heard for {2 * silence_s:.0f} s") from None
                asked = True
                subscription.ping()
                continue
            asked = False
            message = subscription.handle_message(response)
            if message["type"] == "subscribe":
                awaited -= 1
                if not awaited:
                    yield None
            elif message["type"] == "message":
                yield message["channel"], message["data"]
