"""Who may ask: holders of API keys (``iq_<id>_<secret>``, only the secret's SHA-256 is stored) and of tokens."""

import hashlib
import math
import re
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis

from inferq.keys import key
from inferq.tenants import POLICIES, Priority, checked_name

_FORM = re.compile(r"iq_([A-Za-z0-9]{1,32})_([A-Za-z0-9_-]{8,128})")


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A presented key, split and hashed: what scripts compare."""

    key_id: str
    digest: str

    @classmethod
    def parse(cls, presented: str) -> "Credential | None":
        """Split a presented key; None when it does not have the form of one."""
        match = _FORM.fullmatch(presented)
        if match is None:
            return None
        return cls(key_id=match[1], digest=hashlib.sha256(match[2].encode()).hexdigest())

    def for_scripts(self) -> dict[str, Any]:
        """Return what scripts compare with what is stored."""
        return {"key": self.key_id, "digest": self.digest}


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """What a key may do: requests, polls and tokens a minute, jobs in flight, highest priority.

    None means its tenant's, or the service's. A key can tighten its tenant's limits, never widen them.
    """

    requests: int | None = None
    polls: int | None = None
    tokens: int | None = None
    jobs: int | None = None
    max_priority: Priority | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom a verified token names. Scripts take it on trust, and look only whether the tenant is there."""

    tenant: str
    #: What its rate windows are called; never the id of a key, which has no dot.
    window: str
    limits: KeyLimits
    #: When the token ends, in seconds since 1970.
    until: float = math.inf

    def for_scripts(self) -> dict[str, Any]:
        """Return what scripts take on trust."""
        given = {name: value for name, value in asdict(self.limits).items() if value is not None}
        return {"key": self.window, "token": {"tenant": self.tenant, **given}}


#: Who is asking.
Caller = Credential | Subject


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """An API key as operators see it."""

    key_id: str
    tenant: str
    name: str
    limits: KeyLimits
    created_ms: int
    revoked_ms: int | None


class KeyRing:
    """Creates, lists and revokes API keys."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def create(self, tenant: str, *, name: str = "", limits: KeyLimits | None = None) -> str:
        """Make a key for ``tenant`` and return it whole: it cannot be read again; raises BadTenant."""
        presented = f"iq_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
        self.store(presented, tenant, name=name, limits=limits)
        return presented

    def store(
        self, presented: str, tenant: str, *, name: str = "", limits: KeyLimits | None = None, webhook_secret: str = ""
    ) -> None:
        """Store a key that exists already (the bootstrap key); raises BadTenant, and ValueError for what is no key.

        ``webhook_secret``: what its tenant signs webhooks with, if it has no secret yet.
        """
        credential = Credential.parse(presented)
        if credential is None:
            raise ValueError("a key looks like iq_<id>_<secret>")
        seconds, micros = self._redis.time()
        fields: dict[str, str | int] = {
            "digest": credential.digest,
            "tenant": checked_name(tenant),
            "name": name,
            "created_ms": seconds * 1000 + micros // 1000,
        }
        fields.update({limit: value for limit, value in asdict(limits or KeyLimits()).items() if value is not None})
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key("api_key", credential.key_id), mapping=dict(fields))
            pipe.sadd(key("api_keys"), credential.key_id)
            pipe.sadd(key("tenants"), tenant)
            pipe.execute()
        if webhook_secret and not self._redis.exists(key("webhook_secrets", tenant)):
            self._redis.zadd(key("webhook_secrets", tenant), {webhook_secret: "+inf"})

    def revoke(self, key_id: str) -> bool:
        """Revoke a key for good; returns False when there is none of that id."""
        if not self._redis.exists(key("api_key", key_id)):
            return False
        seconds, micros = self._redis.time()
        self._redis.hset(key("api_key", key_id), "revoked_ms", str(seconds * 1000 + micros // 1000))
        return True

    def list(self) -> list[ApiKey]:
        """Return all keys, oldest first."""
        found = []
        for key_id in self._redis.smembers(key("api_keys")):
            fields = self._redis.hgetall(key("api_key", key_id))
            numbers = {policy: int(fields[policy]) for policy in POLICIES if policy in fields}
            found.append(
                ApiKey(
                    key_id=key_id,
                    tenant=fields["tenant"],
                    name=fields.get("name", ""),
                    limits=KeyLimits(**numbers, max_priority=fields.get("max_priority")),
                    created_ms=int(fields["created_ms"]),
                    revoked_ms=int(fields["revoked_ms"]) if fields.get("revoked_ms") else None,
                )
            )
        return sorted(found, key=lambda item: item.created_ms)
