"""Webhook receivers on this machine's own addresses: some answer, some hang, all remember."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One attempt as its receiver saw it: at which host, of which event, what was answered (None: never anything),
    and seconds since the event had happened.
    """

    host: str
    id: str
    status: int | None
    age_s: float
    signed: bool
    body: bytes


class Receivers:
    """One server on many addresses of the loopback network, each a receiver of its own to inferq."""

    def __init__(
        self,
        secret: str,
        hosts: Sequence[str],
        answer: Callable[[str], int | None],
        delay_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``answer``: the status a host answers with; None: it hangs. ``delay_s``: seconds until it answers."""
        self._delay_s = delay_s
        self.hosts = list(hosts)
        self.port = 0
        self.arrived: list[Arrival] = []
        self._answer = answer
        self._webhook = Webhook(secret)
        self._closing = asyncio.Event()
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Listen on all addresses, at one port."""
        await self._runner.setup()
        for host in self.hosts:
            site = web.TCPSite(self._runner, host, self.port, backlog=256)
            await site.start()
            self.port = self.port or self._runner.addresses[0][1]

    async def close(self) -> None:
        """Let go of those that hang, and listen no more."""
        self._closing.set()
        await self._runner.cleanup()

    def url(self, number: int) -> str:
        """Return the address of one of the receivers."""
        return f"http://{self.hosts[number % len(self.hosts)]}:{self.port}/hook"

    async def _receive(self, request: web.Request) -> web.Response:
        body, at = await request.read(), time.time()
        host = (request.host or "").split(":")[0]
        status = self._answer(host)
        event: dict[str, Any] = json.loads(body)
        self.arrived.append(
            Arrival(
                host=host,
                id=request.headers.get("webhook-id", ""),
                status=status,
                age_s=at - datetime.fromisoformat(event["timestamp"]).timestamp(),
                signed=self._signed(body, request),
                body=body,
            )
        )
        if status is None:
            await self._closing.wait()
        else:
            await asyncio.sleep(self._delay_s())
        return web.Response(status=status or 503)

    def _signed(self, body: bytes, request: web.Request) -> bool:
        try:
            self._webhook.verify(body, dict(request.headers), json_parse=False)
        except WebhookVerificationError:
            return False
        return True
