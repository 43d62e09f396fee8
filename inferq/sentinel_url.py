"""The address of a Redis that Sentinels watch: ``sentinel://[user:password@]host[:port][,host…]/service[/db]``."""

from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

SCHEME: Final = "sentinel://"
#: Sentinel's own port, where none is given.
PORT: Final = 26379


@dataclass(frozen=True, kw_only=True)
class SentinelUrl:
    """Which Sentinels to ask for the master of which service, and how to log in to it.

    User, password and database are Redis's; Sentinels that want a password get ``?sentinel_password=``.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """Read a URL; None when it is not one of Sentinel's. Raises ValueError that says what is missing."""
        if not url.startswith(SCHEME):
            return None
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        service, _, db = parts.path.strip("/").partition("/")
        if not service:
            raise ValueError("must name the service too, as in sentinel://host:26379/mymaster")
        if db and not db.isdigit():
            raise ValueError("must end in the number of the database, as in sentinel://host:26379/mymaster/0")
        return cls(
            hosts=tuple(_host(one) for one in hosts.split(",")),
            service=service,
            db=int(db or 0),
            username=unquote(username) or None,
            password=unquote(password) or None,
            sentinel_password=parse_qs(parts.query).get("sentinel_password", [None])[0],
        )

    def for_celery(self) -> tuple[str, dict[str, Any]]:
        """Return kombu's spelling of the address: one URL for each Sentinel, and what goes beside it."""
        login = f"{quote(self.username or '')}:{quote(self.password)}@" if self.password else ""
        urls = [f"{SCHEME}{login}{host}:{port}/{self.db}" for host, port in self.hosts]
        options: dict[str, Any] = {"master_name": self.service}
        if self.sentinel_password:
            options["sentinel_kwargs"] = {"password": self.sentinel_password}
        return ";".join(urls), options


def _host(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    if not host or (port and not port.isdigit()):
        raise ValueError("must name hosts and their ports, as in sentinel://one:26379,two:26379/mymaster")
    return host, int(port or PORT)
