"""API keys: ``iq_<id>_<secret>``, of which only the secret's SHA-256 is stored."""

import hashlib
import re
import secrets
from dataclasses import dataclass

from redis import Redis

from inferq.errors import BadTenant
from inferq.keys import key

#: What a tenant may be called: its name is a part of Redis keys.
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
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


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """An API key as operators see it. Limits are per minute; None means the service's default."""

    key_id: str
    tenant: str
    name: str
    requests: int | None
    polls: int | None
    created_ms: int
    revoked_ms: int | None


class KeyRing:
    """Creates, lists and revokes API keys."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def create(self, tenant: str, *, name: str = "", requests: int | None = None, polls: int | None = None) -> str:
        """Make a key for ``tenant`` and return it whole: it cannot be read again; raises BadTenant."""
        if not _TENANT.fullmatch(tenant):
            raise BadTenant
        presented = f"iq_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
        self.store(presented, tenant, name=name, requests=requests, polls=polls)
        return presented

    def store(
        self, presented: str, tenant: str, *, name: str = "", requests: int | None = None, polls: int | None = None
    ) -> None:
        """Store a key that exists already (the bootstrap key); raises ValueError when it has not the form of one."""
        credential = Credential.parse(presented)
        if credential is None:
            raise ValueError("a key looks like iq_<id>_<secret>")
        seconds, micros = self._redis.time()
        fields: dict[str, str | int] = {
            "digest": credential.digest,
            "tenant": tenant,
            "name": name,
            "created_ms": seconds * 1000 + micros // 1000,
        }
        if requests is not None:
            fields["requests"] = requests
        if polls is not None:
            fields["polls"] = polls
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key("api_key", credential.key_id), mapping=dict(fields))
            pipe.sadd(key("api_keys"), credential.key_id)
            pipe.execute()

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
            found.append(
                ApiKey(
                    key_id=key_id,
                    tenant=fields["tenant"],
                    name=fields.get("name", ""),
                    requests=int(fields["requests"]) if "requests" in fields else None,
                    polls=int(fields["polls"]) if "polls" in fields else None,
                    created_ms=int(fields["created_ms"]),
                    revoked_ms=int(fields["revoked_ms"]) if fields.get("revoked_ms") else None,
                )
            )
        return sorted(found, key=lambda item: item.created_ms)
