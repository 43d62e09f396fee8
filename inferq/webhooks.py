"""Webhooks: what is told, and where it may go.

The address rules keep a client from reaching into the network that inferq runs in (server-side request forgery). They
are applied to the text of the address when a job is submitted, and to every address its host resolves to, at each
attempt, by whoever connects.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import HttpUrl, TypeAdapter, ValidationError

from inferq.errors import InferqError
from inferq.settings import Settings

#: What a job can tell, in the order in which it happens; all but the first are ends.
Event = Literal["started", "completed", "failed", "cancelled", "expired"]
#: What is told when nothing else was asked for.
ENDS: Final[tuple[Event, ...]] = ("completed", "failed", "cancelled", "expired")

#: Characters of an address.
MAX_URL: Final = 2000

_URL: Final = TypeAdapter(HttpUrl)
#: A name of several labels whose last one is not a number.
_PUBLIC_NAME: Final = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?!\d+\.?$)[a-z0-9-]{1,63}\.?")
#: Names that lead nowhere outside (RFC 6761, RFC 6762, ICANN's reserved .internal).
_INSIDE: Final = (".localhost", ".local", ".internal")
#: Public IPv6 as IANA has given it out; what embeds an IPv4 address or names a relay lies inside and is taken out.
_IPV6: Final = ipaddress.ip_network("2000::/3")
_IPV6_NOT: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments, Teredo (2001::/32) among them
        "2002::/16",  # 6to4: embeds an IPv4 address
        "3fff::/20",  # documentation
    )
)
#: The relay of 6to4.
_IPV4_NOT: Final = ipaddress.ip_network("192.88.99.0/24")


class BadAddress(InferqError):
    """An address a webhook must not be sent to; the text says why, as the end of a sentence about it."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """A webhook's address, checked and in one spelling. ``open``: the operator allows its host whatever it is."""

    scheme: str
    host: str
    port: int
    path: str
    query: str | None
    open: bool

    def __str__(self) -> str:
        usual = {"https": 443, "http": 80}[self.scheme]
        port = "" if self.port == usual else f":{self.port}"
        query = "" if self.query is None else f"?{self.query}"
        return f"{self.scheme}://{self.host}{port}{self.path}{query}"


class AddressRules:
    """What an operator's settings allow."""

    def __init__(self, settings: Settings) -> None:
        self._http = settings.webhook_allow_http
        self._ports = settings.webhook_port_list
        self._open = settings.webhook_open_hosts

    def allows(self, host: str) -> bool:
        """Whether the operator allows a host whatever address it has."""
        return host.strip("[]").lower() in self._open

    def check(self, url: str) -> Address:
        """Return the address that ``url`` names; raises BadAddress.

        The text is read as browsers read it (WHATWG), so that every spelling of an address is seen as what it is.
        """
        if any(ord(character) <= 0x20 or character in "\\\x7f" for character in url):
            raise BadAddress("must not contain spaces, control characters or backslashes")
        try:
            read = _URL.validate_python(url)
        except ValidationError as error:
            raise BadAddress(f"is not an http or https address: {error.errors()[0]['msg']}") from None
        host = read.host or ""
        if read.username is not None or read.password is not None:
            raise BadAddress("must not contain a user name or a password")
        if read.fragment is not None:
            raise BadAddress("must not have a fragment (#…): it is never sent")
        port = read.port or 0
        is_open = self.allows(host)
        if not is_open:
            self._closed(read.scheme, host, port)
        address = Address(
            scheme=read.scheme, host=host, port=port, path=read.path or "/", query=read.query, open=is_open
        )
        if len(str(address)) > MAX_URL:
            raise BadAddress(f"may have at most {MAX_URL} characters, those outside ASCII percent-encoded")
        return address

    def _closed(self, scheme: str, host: str, port: int) -> None:
        if scheme != "https" and not self._http:
            raise BadAddress("must begin with https://")
        if port not in self._ports and not (scheme == "http" and port == 80):
            raise BadAddress(f"must use port {' or '.join(str(port) for port in sorted(self._ports))}")
        try:
            literal = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            if not _PUBLIC_NAME.fullmatch(host) or len(host) > 253 or host.rstrip(".").endswith(_INSIDE):
                raise BadAddress(f"must name a host on the public internet, not {host[:100]}") from None
        else:
            if not is_public(literal):
                raise BadAddress(f"must name a host on the public internet, not {literal}")


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the public internet's own, not private, special, or another in disguise."""
    if isinstance(address, ipaddress.IPv6Address):
        if address not in _IPV6 or any(address in network for network in _IPV6_NOT):
            return False
    elif address in _IPV4_NOT:
        return False
    return address.is_global and not address.is_multicast
