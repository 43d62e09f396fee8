"""Secrets that webhooks are signed with (Standard Webhooks 1.0)."""

import base64
import binascii
import secrets
from typing import Final

#: How a secret begins.
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # no secret: how all of them begin
#: Bytes of a secret: as many as the specification allows at least and at most, and as many as we make.
SECRET_BYTES: Final = (24, 64, 32)


def new_secret() -> str:
    """Return a new signing secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES[2])).decode()


def check_secret(secret: str) -> str:
    """Return ``secret`` if it is one; raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]:
        raise ValueError(f"must be {SECRET_PREFIX} and the base64 of {SECRET_BYTES[0]} to {SECRET_BYTES[1]} bytes")
    return secret
