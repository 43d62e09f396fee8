"""Request headers that change how a request is answered.

Prefer (RFC 7240), Cache-Control (RFC 9111), Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).
"""

import re
from dataclasses import dataclass

from flask import Request

from api.errors import Problem

_WAIT = re.compile(r"(?:^|[,;\s])wait(?:\s*=\s*\"?(\d{1,9})\"?)?(?=$|[,;\s])", re.IGNORECASE)
#: Visible ASCII: the draft wants a quoted string, and most clients send it bare.
_IDEMPOTENCY_KEY = re.compile(r'"?([\x21\x23-\x7e]{1,255})"?')


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key; None without one, raises Problem 400 for one that cannot be."""
    sent = request.headers.get("Idempotency-Key")
    if sent is None:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(sent.strip())
    if match is None:
        raise Problem(
            400,
            "invalid-idempotency-key",
            "Idempotency-Key: must be 1 to 255 visible ASCII characters, such as a UUID.",
            errors=[{"field": "Idempotency-Key", "message": "must be 1 to 255 visible ASCII characters"}],
        )
    return match[1]


def wait_of(request: Request, most: int) -> int:
    """Return the seconds the client is willing to wait, at most ``most``; 0 without ``Prefer: wait``.

    A bare ``wait``, as some hosted APIs use it, means as long as possible.
    """
    preferences = request.headers.get("Prefer")
    match = _WAIT.search(preferences) if preferences else None
    if match is None:
        return 0
    return most if match[1] is None else min(int(match[1]), most)


@dataclass(frozen=True, kw_only=True)
class CacheDirectives:
    """What the request says about cached completions."""

    no_cache: bool
    no_store: bool
    only_if_cached: bool

    @classmethod
    def of(cls, request: Request) -> "CacheDirectives":
        """Read ``Cache-Control``; directives that mean nothing here are ignored, as RFC 9111 asks."""
        words = {part.split("=", 1)[0].strip().lower() for part in request.headers.get("Cache-Control", "").split(",")}
        return cls(
            no_cache="no-cache" in words,
            no_store="no-store" in words,
            only_if_cached="only-if-cached" in words,
        )
