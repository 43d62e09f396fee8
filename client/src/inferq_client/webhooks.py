"""Believing a webhook: Standard Webhooks 1.0 (https://www.standardwebhooks.com), as inferq signs them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inferq_client.errors import BadSignature

#: Seconds by which sender and receiver may differ.
TOLERANCE_S: Final = 300


@dataclass(frozen=True, kw_only=True)
class WebhookEvent:
    """What was told. ``id`` stays the same however often it is told: act on it once. ``type``: as ``job.completed``."""

    id: str
    type: str
    timestamp: str
    job_id: str | None
    data: Mapping[str, Any] = field(repr=False)


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> WebhookEvent:
    """Return what a webhook tells; raises BadSignature unless one of the secrets signed these very bytes just now.

    ``body``: as it came, before anything has parsed it. ``secret``: ``whsec_…``, or several while they rotate.
    ``now``: seconds since 1970, of this machine when not given. Raises ValueError for a secret that is none.
    """
    keys = [_key(one) for one in ([secret] if isinstance(secret, str) else secret)]
    given = {name.lower(): value for name, value in headers.items()}
    try:
        told, instant, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError:
        raise BadSignature("the headers webhook-id, webhook-timestamp and webhook-signature are needed") from None
    if not instant.isascii() or not instant.isdigit():
        raise BadSignature("webhook-timestamp must be whole seconds since 1970")
    if abs((time.time() if now is None else now) - int(instant)) > tolerance_s:
        raise BadSignature(f"the webhook was signed more than {tolerance_s:g} s from now; is the clock right?")
    content = body.encode() if isinstance(body, str) else body
    signed = f"{told}.{instant}.".encode() + content
    expected = [hmac.digest(key, signed, hashlib.sha256) for key in keys]
    shown = [
        _decoded(value) for version, _, value in (one.partition(",") for one in signatures.split()) if version == "v1"
    ]
    if not any(hmac.compare_digest(one, other) for one in expected for other in shown):
        raise BadSignature("the webhook was not signed with this secret")
    try:
        event = json.loads(content)
        return WebhookEvent(
            id=told,
            type=event["type"],
            timestamp=event["timestamp"],
            job_id=event["data"].get("id"),
            data=event["data"],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadSignature("what was signed is not an event of inferq") from None


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("a webhook secret looks like whsec_<base64>")
    return key


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""
