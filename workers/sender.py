"""Makes attempts at deliveries: signed, resolved once, only to public addresses, within a time.

Nothing here knows Redis. What goes wrong is told in words for the receiver's owner.
"""

import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Final

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver
from standardwebhooks import Webhook

from inferq import __version__
from inferq.outbox import Outcome, Parcel
from inferq.tracing import headers_of
from inferq.webhooks import AddressRules, BadAddress, is_public

#: Bytes of an answer that are read.
MOST_READ: Final = 65_536


class Refused(OSError):
    """A name resolved to an address that no webhook may go to."""


class PublicResolver(AbstractResolver):
    """Resolves a name once, and only if all its addresses are public; aiohttp connects to those and no others."""

    def __init__(self, allows: Callable[[str], bool], names: AbstractResolver | None = None) -> None:
        """``allows``: whether a host is allowed whatever it resolves to.

        ``names``: who resolves; by default c-ares, as the system is configured: a slow name server holds no thread.
        """
        self._allows = allows
        self._names = names or AsyncResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return addresses to connect to; raises Refused, or OSError when there are none."""
        found = await self._names.resolve(host, port, family)
        if not self._allows(host):
            for address in {one["host"] for one in found}:
                if not is_public(ip_address(address)):
                    raise Refused(f"{host} resolves to {address}, which is not on the public internet")
        return found

    async def close(self) -> None:
        """Let go of what resolves."""
        await self._names.close()


class Sender:
    """Makes one attempt: one POST, without redirects, within a time."""

    def __init__(
        self, rules: AddressRules, timeout_s: float, resolver: AbstractResolver, tls: ssl.SSLContext | None = None
    ) -> None:
        """``tls``: whose certificates are believed; those of the system by default. Needs a running event loop."""
        self._tls = tls or ssl.create_default_context()
        self._rules = rules
        self._timeout_s = timeout_s
        self._resolver = resolver
        # Every attempt resolves anew and has a connection of its own. No proxies from the environment: no trust_env.
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close what is open, the resolver too."""
        await self._http.close()
        await self._resolver.close()

    async def send(self, parcel: Parcel) -> Outcome:
        """Send a parcel once; whatever goes wrong is in the outcome, in words for the receiver's owner."""
        began = time.monotonic()

        def outcome(**fields: Any) -> Outcome:
            return Outcome(ms=round(1000 * (time.monotonic() - began)), **fields)

        try:
            # Again: settings may have changed since the job was submitted.
            address = self._rules.check(parcel.url)
        except BadAddress as error:
            return outcome(good=False, unsent=True, error=f"Not sent: the address {error}.")
        url = yarl.URL(str(address), encoded=True)
        try:
            async with self._http.post(
                url, data=parcel.body.encode(), headers=signed_headers(parcel), allow_redirects=False, ssl=self._tls
            ) as answer:
                await _read(answer.content)
        except TimeoutError:
            return outcome(good=False, down=True, error=f"No complete answer within {self._timeout_s:g} s.")
        except (UnicodeError, aiohttp.InvalidURL):
            return outcome(good=False, unsent=True, error="Not sent: the address cannot be connected to.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause = getattr(error, "os_error", None) or error
            if isinstance(cause, Refused):
                return outcome(good=False, unsent=True, error=f"Not sent: {cause}.")
            return outcome(good=False, down=True, error=_words(error))
        status = answer.status
        if 200 <= status < 300:
            return outcome(good=True, status=status)
        return outcome(
            good=False,
            status=status,
            gone=status == 410,
            down=status >= 500 or status == 429,
            retry_ms=_retry_after_ms(answer.headers.get("Retry-After", "")),
            error=f"The receiver answered {status}; only 2xx is success"
            + (", and redirects are not followed." if 300 <= status < 400 else "."),
        )


def signed_headers(parcel: Parcel, now_s: float | None = None) -> dict[str, str]:
    """Return the headers of one attempt: id, time, and a signature by each secret (Standard Webhooks 1.0).

    Besides, what the request that made the job was called, and the trace it was part of.
    """
    at = int(time.time() if now_s is None else now_s)
    signatures = [
        Webhook(secret).sign(parcel.id, datetime.fromtimestamp(at, UTC), parcel.body) for secret in parcel.secrets
    ]
    passed_on = headers_of(parcel.trace)
    if parcel.request_id:
        passed_on["X-Request-ID"] = parcel.request_id
    return passed_on | {
        "Content-Type": "application/json",
        "User-Agent": f"inferq/{__version__}",
        "webhook-id": parcel.id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signatures),
    }


async def _read(content: aiohttp.StreamReader) -> None:
    """Read an answer, which nobody needs, so that its sender is not cut off; not more than so much."""
    left = MOST_READ
    while left > 0 and (data := await content.read(left)):
        left -= len(data)


def _words(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "The name of the host could not be resolved."
        case aiohttp.ClientConnectorCertificateError():
            return f"No secure connection: {error.certificate_error}."[:300]
        case aiohttp.ClientConnectorError():
            return f"No connection: {error.os_error.strerror or error.os_error}."[:300]
        case aiohttp.ServerDisconnectedError():
            return "The receiver closed the connection without an answer."
    return f"The connection broke off: {type(error).__name__}."


def _retry_after_ms(value: str) -> int | None:
    """Read Retry-After: seconds or a date (RFC 9110 §10.2.3); None when there is none that can be read."""
    if value.isascii() and value.isdigit() and len(value) < 10:
        return 1000 * int(value)
    try:
        at = parsedate_to_datetime(value)
        since = at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0, round(1000 * (since - time.time())))
