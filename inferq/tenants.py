"""Tenants: owners of keys and jobs, with a weight in the queue, a highest priority and limits."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

from redis import Redis

from inferq.errors import BadTenant, InferqError
from inferq.keys import key
from inferq.scripts import Scripts

Priority = Literal["low", "normal", "high"]

#: What a tenant may be called: its name is a part of Redis keys.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: A weight is stored in thousandths.
_WEIGHT_UNIT: Final = 1000
#: Weights an operator may give; beyond them queues would be starved for all practical purposes.
WEIGHTS: Final = (0.01, 1000.0)
#: Days of usage that are kept, today included (``USAGE_DAYS`` in the scripts).
USAGE_DAYS: Final = 40
#: Policies a tenant's keys may be limited by.
POLICIES: Final = ("requests", "polls", "tokens", "jobs")


def checked_name(tenant: str) -> str:
    """Return the name if it can be one; raises BadTenant."""
    if not _NAME.fullmatch(tenant):
        raise BadTenant
    return tenant


@dataclass(frozen=True, kw_only=True)
class TenantUsage:
    """What a tenant may, has in flight, and has used by day."""

    tenant: str
    weight: float
    max_priority: str
    #: Ceilings of each of its keys, by policy; a policy that is absent has none.
    limits: dict[str, int]
    in_flight: int
    #: Jobs that wait, by priority.
    waiting: dict[str, int]
    #: By ISO date (UTC), the latest first: jobs by outcome, cache hits, tokens.
    days: dict[str, dict[str, int]]

    @classmethod
    def of(cls, tenant: str, reply: tuple[Any, ...]) -> Self:
        """Read what the script ``usage`` replies after its rates."""
        fields, in_flight, waits, days = reply
        said = dict(zip(fields[::2], fields[1::2], strict=True))
        waiting = dict.fromkeys(("high", "normal", "low"), 0)
        for counts in waits[1::2]:
            for priority, count in zip(waiting, counts, strict=True):
                waiting[priority] += count
        return cls(
            tenant=tenant,
            weight=int(said.get("weight", _WEIGHT_UNIT)) / _WEIGHT_UNIT,
            max_priority=said.get("max_priority", "normal"),
            limits={name: int(said[name]) for name in POLICIES if name in said},
            in_flight=sum(int(count) for count in in_flight[1::2]),
            waiting=waiting,
            days={
                datetime.fromtimestamp(day * 86400, UTC).date().isoformat(): {
                    name: int(count) for name, count in zip(counts[::2], counts[1::2], strict=True)
                }
                for day, counts in zip(days[::2], days[1::2], strict=True)
            },
        )


class Tenants:
    """An operator's view of tenants."""

    def __init__(self, redis: "Redis", scripts: Scripts) -> None:
        self._redis = redis
        self._scripts = scripts

    def list(self) -> list[str]:
        """Return the names of all tenants that ever had a key, or were set."""
        return sorted(self._redis.smembers(key("tenants")))

    def set(
        self,
        tenant: str,
        *,
        weight: float | None = None,
        max_priority: Priority | None = None,
        limits: dict[str, int] | None = None,
    ) -> None:
        """Change what is given; a limit of 0 takes the ceiling away. Raises BadTenant and InferqError."""
        name = checked_name(tenant)
        changes: dict[str, str | int] = {}
        if weight is not None:
            if not WEIGHTS[0] <= weight <= WEIGHTS[1]:
                raise InferqError(f"a weight is a number from {WEIGHTS[0]} to {WEIGHTS[1]:.0f}; 1 is everybody's")
            changes["weight"] = round(weight * _WEIGHT_UNIT)
        if max_priority is not None:
            changes["max_priority"] = max_priority
        changes.update({policy: count for policy, count in (limits or {}).items() if count})
        none = [policy for policy, count in (limits or {}).items() if not count]
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(key("tenants"), name)
            if changes:
                pipe.hset(key("tenant", name), mapping=dict(changes))
            if none:
                pipe.hdel(key("tenant", name), *none)
            pipe.execute()

    def suspend(self, tenant: str, *, suspended: bool) -> None:
        """Refuse every key and token of a tenant, or no longer; raises InferqError for one nobody has heard of.

        Its jobs go on.
        """
        name = checked_name(tenant)
        if not self._redis.sismember(key("tenants"), name):
            raise InferqError(f"there is no tenant named {name}; `tenants list` shows them")
        if suspended:
            self._redis.hset(key("tenant", name), "suspended_ms", str(self._redis.time()[0] * 1000))
        else:
            self._redis.hdel(key("tenant", name), "suspended_ms")

    def is_suspended(self, tenant: str) -> bool:
        """Whether a tenant's keys and tokens are refused."""
        return bool(self._redis.hexists(key("tenant", tenant), "suspended_ms"))

    def usage(self, tenant: str, days: int) -> TenantUsage:
        """Return a tenant's usage of today and the days before."""
        reply = self._scripts("usage", "", checked_name(tenant), days)
        return TenantUsage.of(tenant, tuple(reply[3:]))
