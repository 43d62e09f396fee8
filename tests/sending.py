"""One attempt at a delivery, for tests."""

import asyncio
import socket
import ssl

from aiohttp.abc import AbstractResolver, ResolveResult

from inferq.outbox import Outcome, Parcel
from inferq.settings import Settings
from inferq.webhook_secrets import new_secret
from inferq.webhooks import AddressRules
from workers.sender import PublicResolver, Sender

SECRET = new_secret()
BODY = '{"type":"job.completed","data":{"text":"ü"}}'


def send(
    url: str,
    settings: Settings,
    *,
    names: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
    secrets: tuple[str, ...] = (SECRET,),
) -> Outcome:
    parcel = Parcel(id="msg_1_completed", attempt=1, url=url, body=BODY, secrets=secrets, proven=False)

    async def attempt() -> Outcome:
        rules = AddressRules(settings)
        resolver = PublicResolver(rules.allows, names)
        sender = Sender(rules, settings.webhook_timeout, resolver, tls)
        try:
            return await sender.send(parcel)
        finally:
            await sender.close()

    return asyncio.run(attempt())


class Names(AbstractResolver):
    """A name service that gives these answers, one after the other, and the last one for ever."""

    def __init__(self, *replies: list[str]) -> None:
        self.replies = list(replies)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.asked.append(host)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in reply
        ]

    async def close(self) -> None:
        return
