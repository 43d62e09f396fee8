"""Loads the Lua scripts: one small file per transition, on one clock and one key table."""

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final, cast

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import RedisError

from inferq.errors import StoreUnavailable
from inferq.keys import lua_table, names_in


@cache
def lua_source(name: str) -> str:
    """Return the text of ``inferq/lua/<name>.lua``."""
    return files("inferq").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def assemble(name: str, clock: str | None = None) -> str:
    """Return the whole script ``name``: a clock, the keys and shared steps it uses, and its own file."""
    return link(lua_source(name), clock)


#: A line of a script: what only the rest of it uses is defined there, so that a short way out before it stays short.
LATER: Final = "-- LATER\n"


def link(text: str, clock: str | None = None) -> str:
    """Return ``text`` with what it uses before it: a clock, keys, and shared steps.

    What it does not use is left out: Redis runs the text from the top on every call, and defining all of the shared
    steps would take as long as doing one.
    """
    linked, defined, named = clock or lua_source("_clock"), set[str](), set[str]()
    for part in text.split(LATER):
        steps: list[str] = []
        for step in reversed(_shared_steps()):
            used = _code("\n".join([*steps, part]))
            if any(re.search(rf"\b{name}\b", used) for name in re.findall(_DEFINES, step)):
                steps.insert(0, step)
        steps = [step for step in steps if step not in defined]
        body = "\n".join([*steps, part])
        linked += lua_table(_code(body), named) + body
        defined.update(steps)
        named |= names_in(_code(body))
    return linked


_DEFINES = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)
_COMMENT = re.compile(r"--.*")


#: Files of shared steps; a step uses only steps above it, in its file or an earlier one.
SHARED: Final = ("_records", "_totals", "_fair_queue", "_outbox", "_runs", "_waits", "_limits")


@cache
def _shared_steps() -> tuple[str, ...]:
    """Return all shared steps in order; an empty line separates two."""
    steps = [step for name in SHARED for step in lua_source(name).split("\n\n")]
    return tuple(step for step in steps if re.search(_DEFINES, step))


def _code(text: str) -> str:
    return _COMMENT.sub("", text)


class Scripts:
    """Runs scripts by name on one Redis.

    ``clock`` is Lua that defines ``now_ms()``; a test gives another one. Every script may be sent twice by redis-py's
    retries: each says in its head why that is safe.
    """

    def __init__(self, redis: "Redis", clock: str | None = None) -> None:
        self._redis = redis
        self._clock = clock
        self._loaded: dict[str, Script] = {}

    def __call__(self, name: str, *arguments: str | bytes | int) -> Any:
        """Run script ``name`` with ``arguments`` as ARGV; raises StoreUnavailable when Redis does not do it."""
        script = self._loaded.get(name)
        if script is None:
            script = cast(Script, self._redis.register_script(assemble(name, self._clock)))
            self._loaded[name] = script
        try:
            return script(args=list(arguments))
        except RedisError as error:
            raise StoreUnavailable(f"Redis did not run {name}: {type(error).__name__}") from error
