"""What each process may do in Redis, taken from the scripts it runs: their commands and the keys they may touch.

Redis checks every command of a script as its caller's, so a user needs what its scripts do, and gets nothing else.
"""

import re
from dataclasses import dataclass
from typing import Final

from inferq.keys import CELERY_PREFIX, KEYS, names_in
from inferq.scripts import assemble

#: Names in the table of keys that are channels.
CHANNELS: Final = frozenset({"transitions", "appended", "work", "aborts", "outbox"})

#: Of every user: greeting, login, asking whether the other end lives, transactions, and INFO, by which processes learn
#: of Redis' version and memory.
_CONNECT: Final = frozenset(
    {"hello", "auth", "select", "ping", "client|setname", "info", "time", "multi", "exec", "unwatch"}
)
_RUN: Final = frozenset({"eval", "evalsha", "script|load", "script|exists"})
_LISTEN: Final = frozenset({"subscribe", "unsubscribe"})

#: What Celery does: to ring, and to wait for bells, say that it lives and be asked for it (kombu's Redis transport).
_RING: Final = frozenset({"lpush", "sadd", "smembers", "publish", "watch"})
_CONSUME: Final = frozenset(
    {"brpop", "llen", "rpush", "rpop", "set", "get", "del", "srem", "hget", "hset", "hdel", "hlen", "zadd", "zrem"}
    | {"zrange", "zrangebyscore", "zrevrangebyscore", "exists", "pexpire", "psubscribe", "punsubscribe"}
    | _RUN
)
#: What consumers subscribe to by pattern, in database 0: remote control, events for Flower, gossip of workers. Redis
#: lets a user subscribe to just the patterns that are among its rules, letter by letter, not to what they cover.
_PATTERNS: Final = ("/0.celery.pidbox", "/0.celeryev/*", "/0.celeryev/worker.*")


@dataclass(frozen=True, kw_only=True)
class User:
    """A process: the scripts it runs, what it does besides with which keys, and the channels it listens on.

    ``never``: keys that its scripts know, and do not touch when this process runs them.
    """

    name: str
    what: str
    scripts: tuple[str, ...] = ()
    commands: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    celery: frozenset[str] = frozenset()
    listens: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What stands in the file for the SHA-256 of its password; Redis does not load a file that still has it."""
        return f"#{self.name.removeprefix('inferq-').upper()}_SHA256"

    def rules(self) -> list[str]:
        """Return the rules of the user, without a password."""
        sources = [re.sub(r"--.*", "", assemble(script)) for script in self.scripts]
        commands = set(_CONNECT) | self.commands | self.celery | (_RUN if self.scripts else set())
        names = {*self.keys, *self.listens}
        for source in sources:
            commands |= {found.lower() for found in re.findall(r"redis\.call\('([A-Z]+)'", source)}
            names |= names_in(source) - set(self.never)
        keys = {KEYS[name].replace("{}", "*") for name in names - CHANNELS}
        channels = {KEYS[name].replace("{}", "*") for name in names & CHANNELS}
        if self.celery:
            keys.add(f"{CELERY_PREFIX}*")
            channels.add(f"{CELERY_PREFIX}*")
        subscribed = _PATTERNS if "psubscribe" in self.celery else ()
        return [
            "resetchannels",
            *(f"~{pattern}" for pattern in _widest(keys)),
            *(f"&{pattern}" for pattern in _widest(channels)),
            *(f"&{CELERY_PREFIX}{pattern}" for pattern in subscribed),
            "-@all",
            *(f"+{command}" for command in sorted(commands)),
        ]

    def line(self) -> str:
        """Return the user as a line of an ACL file."""
        return f"user {self.name} on {self.digest} " + " ".join(self.rules())


USERS: Final = (
    User(
        name="inferq-api",
        what="the API",
        scripts=(
            "submit", "hit", "read", "follow", "list", "cancel", "erase", "overview", "identify", "usage", "deliveries",
            "ping", "rotate_secret", "positions",
        ),
        # The bootstrap key, and the streams that followers read.
        commands=frozenset({"hset", "exists", "zadd", "xread"}) | _LISTEN,
        keys=("api_key", "api_keys", "tenants", "webhook_secrets", "events", "cache"),
        celery=_RING,
        listens=("transitions", "appended"),
    ),
    User(
        name="inferq-worker",
        what="GPU workers; they see no API key and no secret that webhooks are signed with",
        scripts=("claim", "heartbeat", "append", "complete", "fail", "release", "leave"),
        commands=_LISTEN,
        celery=_RING | _CONSUME,
        listens=("work", "aborts"),
    ),
    User(
        name="inferq-keeper",
        what="keepers; they see no API key",
        scripts=(
            "rescue", "expire", "retain", "ring", "take_deliveries", "attempted", "outbox_bells", "measures",
            "overview",
        ),
        commands=_LISTEN,
        never=("api_key",),  # nobody's call is checked: a keeper asks for itself
        celery=_RING | _CONSUME,
        listens=("outbox",),
    ),
    User(name="inferq-flower", what="Flower: Celery's messages alone, in which nothing is", celery=_RING | _CONSUME),
    User(
        name="inferq-metrics",
        what="whatever else asks how much waits, as an autoscaler; the keeper's own metrics need no user",
        # KEDA asks by a script of its own for a key's type, then for its length.
        commands=frozenset({"hget", "hmget", "zcard", "llen", "smembers", "type", "scard", "hlen"}) | _RUN,
        keys=("engines", "engine", "queue", "struck", "solitary", "bells"),
    ),
)  # fmt: skip


def acl_file() -> str:
    """Return the whole file. The default user is off: whoever does not say who it is may nothing."""
    lines = [
        # An ACL file has no comments: what stands here is the decision record's and docs/scaling.md's to explain.
        "user default off",
        *(user.line() for user in USERS),
    ]
    return "\n".join(lines) + "\n"


def _widest(patterns: set[str]) -> list[str]:
    """Return the patterns without those that another one covers: ``a:*`` covers ``a:*:b``."""
    prefixes = {pattern[:-1] for pattern in patterns if pattern.endswith("*") and "*" not in pattern[:-1]}
    return sorted(
        pattern
        for pattern in patterns
        if not any(pattern.startswith(prefix) and pattern != f"{prefix}*" for prefix in prefixes)
    )
