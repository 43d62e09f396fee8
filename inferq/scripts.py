"""Loads the Lua scripts: one small file per transition, on one clock and one key table."""

from functools import cache
from importlib.resources import files
from typing import Any, cast

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import RedisError

from inferq.errors import StoreUnavailable
from inferq.keys import lua_table


@cache
def lua_source(name: str) -> str:
    """Return the text of ``inferq/lua/<name>.lua``."""
    return files("inferq").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


class Scripts:
    """Runs scripts by name on one Redis.

    ``clock`` is Lua that defines ``now_ms()``; a test gives another one. Every script may be sent twice by redis-py's
    retries: each says in its head why that is safe.
    """

    def __init__(self, redis: "Redis", clock: str | None = None) -> None:
        self._redis = redis
        self._prelude = (clock or lua_source("_clock")) + lua_table() + lua_source("_shared")
        self._loaded: dict[str, Script] = {}

    def __call__(self, name: str, *arguments: str | bytes | int) -> Any:
        """Run script ``name`` with ``arguments`` as ARGV; raises StoreUnavailable when Redis does not do it."""
        script = self._loaded.get(name)
        if script is None:
            script = cast(Script, self._redis.register_script(self._prelude + lua_source(name)))
            self._loaded[name] = script
        try:
            return script(args=list(arguments))
        except RedisError as error:
            raise StoreUnavailable(f"Redis did not run {name}: {type(error).__name__}") from error
