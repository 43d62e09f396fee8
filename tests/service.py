"""The whole service for its clients: a Redis, the API under gunicorn, a keeper, a worker with a simulated engine."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from deploy.local.stack import free_port, status
from inferq.credentials import KeyRing
from inferq.settings import Settings
from inferq_client import Inferq
from tests.conftest import make_settings
from tests.processes import Stack, stack, until
from tests.redis_server import RedisServer, binaries

#: Seconds that a token of the simulated engine takes.
STEP_S = 0.005
_NUMBERS = itertools.count()


@dataclass
class Service:
    url: str
    key: str
    settings: Settings
    redis: Redis
    stack: Stack

    def tenant(self) -> str:
        """Return a key of a tenant of its own."""
        return KeyRing(self.redis).create(f"tenant-{next(_NUMBERS)}", name="tests")

    def submitted(self, key: str) -> int:
        """Jobs that were ever accepted from the key's tenant."""
        with Inferq(self.url, key) as client:
            return sum(day.get("submitted", 0) for day in client.usage()["days"].values())


@contextlib.contextmanager
def serving(directory: Path, **changes: object) -> Iterator[Service]:
    server = RedisServer(directory, next(reversed(binaries().values())))
    settings = make_settings(
        server.url,
        **{
            "api_port": free_port(),
            "rate_limit": 1_000_000,
            "poll_rate_limit": 1_000_000,
            "max_num_seqs": 4,
            "simulated_step": STEP_S,
            "lease": 2.0,
            "redis_timeout": 0.5,
            "webhook_allowed_hosts": "127.0.0.1",
        }
        | changes,
    )
    try:
        with stack(settings, directory) as processes, server.client() as redis:
            processes.api()
            processes.keeper()
            processes.worker()
            key = KeyRing(redis).create("acme", name="tests")
            host, port = settings.api_host, settings.api_port
            until(lambda: status(host, port, "/readyz") == 200, 30, "the service is ready")
            yield Service(f"http://{host}:{port}", key, settings, redis, processes)
    finally:
        server.close()
