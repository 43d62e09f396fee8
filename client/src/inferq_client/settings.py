"""Where the service is and who asks. The only module that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from inferq_client.errors import InferqError

#: Where `make up` has its API.
DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, kw_only=True)
class Service:
    """An address and a key."""

    url: str
    api_key: str = field(repr=False)


def service(url: str | None, api_key: str | None) -> Service:
    """Fill what is not given from ``INFERQ_URL`` and ``INFERQ_API_KEY``; raises InferqError for a wrong one."""
    url = url or os.environ.get("INFERQ_URL") or DEFAULT_URL
    api_key = api_key or os.environ.get("INFERQ_API_KEY") or ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InferqError("INFERQ_URL must be an address such as http://127.0.0.1:8000")
    if not api_key.isascii() or any(not one.isprintable() or one == " " for one in api_key):
        raise InferqError("INFERQ_API_KEY must be printable ASCII without spaces, as `keys create` shows it")
    return Service(url=url.rstrip("/"), api_key=api_key)
