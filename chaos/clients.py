"""Clients that submit at a steady rate whatever happens, wait for the end of what was accepted, and look again."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from chaos.ledger import Ledger
from workers.simulated_engine import simulated_words

#: Seconds a client lets one call take.
CALL_S: Final = 30.0
#: Seconds between tries of a client whose call failed.
RETRY_S: Final = 0.5
#: What else than plain jobs there is, by share.
KINDS: Final = (("cancelled", 0.05), ("hurried", 0.03), ("faulty", 0.02))
#: Errors of a call to a service that is being killed.
TROUBLE: Final = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class Clients:
    """A crowd with one purse: its ledger."""

    def __init__(
        self, ledger: Ledger, urls: Sequence[str], api_key: str, dice: random.Random, *, ttl_s: int, simulated: bool
    ) -> None:
        """``ttl_s``: how long results are kept. ``simulated``: the answers of the engine are known."""
        self._ledger = ledger
        self._urls = list(urls)
        self._dice = dice
        self._ttl_s = ttl_s
        self._simulated = simulated
        self._headers = {"X-API-Key": api_key}
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._rate = 0.0
        self._pump: asyncio.Task[None] | None = None
        self.scene = ""
        #: Jobs with a webhook whose deliveries have not all ended, as far as their clients know.
        self.telling: set[str] = set()
        #: What the service says of the deliveries of jobs, once they have ended.
        self.logs: dict[str, list[dict[str, Any]]] = {}

    async def start(self) -> None:
        """Open for business."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, headers=self._headers)
        self._pump = asyncio.create_task(self._submit_forever())

    async def close(self) -> None:
        """End all clients."""
        for task in [*self._tasks, *([self._pump] if self._pump else [])]:
            task.cancel()
        await asyncio.gather(*self._tasks, *([self._pump] if self._pump else []), return_exceptions=True)
        if self._session:
            await self._session.close()

    def rate(self, per_s: float, scene: str) -> None:
        """From now on submit so many jobs a second, on behalf of a scene."""
        self._rate, self.scene = per_s, scene

    async def drained(self, seconds: float) -> bool:
        """Wait until every accepted job has ended, as far as its client can see; False after ``seconds``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._ledger.open_jobs():
            if loop.time() > until:
                return False
            await asyncio.sleep(0.2)
        return True

    async def told(self, seconds: float) -> bool:
        """Wait until every delivery has ended, as the service says; False after ``seconds``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.telling:
            if loop.time() > until:
                return False
            await asyncio.sleep(0.2)
        return True

    def submit(self, prompt: str, *, kind: str = "plain", max_tokens: int = 64, webhook: str | None = None) -> None:
        """Send one client with one job; ``webhook``: the address that is to be told of its end."""
        task = asyncio.create_task(self._one(self.scene, prompt, kind, max_tokens, webhook))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _submit_forever(self) -> None:
        while True:
            if not self._rate:
                await asyncio.sleep(0.1)
                continue
            self._number += 1
            kind = self._kind()
            prompt = f"question {self._number}" + (" simulate:fails" if kind == "faulty" else "")
            self.submit(prompt, kind=kind, max_tokens=self._dice.randint(8, 64))
            await asyncio.sleep(self._dice.expovariate(self._rate))

    def _kind(self) -> str:
        throw = self._dice.random()
        for kind, share in KINDS if self._simulated else ():
            throw -= share
            if throw < 0:
                return kind
        return "plain"

    async def _one(self, scene: str, prompt: str, kind: str, max_tokens: int, webhook: str | None) -> None:
        body: dict[str, Any] = {"prompt": prompt, "max_tokens": max_tokens, "result_ttl_s": self._ttl_s}
        body["temperature"] = 0
        if webhook:
            body["webhook"] = {"url": webhook}
        if kind == "hurried":
            body["deadline"] = {"total_s": 1.5}
        try:
            status, answer = await self._call("POST", "/v1/jobs", json=body)
        except TROUBLE as error:
            self._ledger.refused(scene, type(error).__name__)
            return
        if status != 202:
            self._ledger.refused(scene, str(answer.get("code", status)))
            return
        job = answer["id"]
        expected = " ".join(simulated_words(prompt, 0, max_tokens)) if self._simulated else None
        self._ledger.accepted(job, scene=scene, kind=kind, expected=expected)
        if webhook:
            self.telling.add(job)
        if kind == "cancelled":
            await asyncio.sleep(self._dice.uniform(0, 2))
            with contextlib.suppress(*TROUBLE):
                await self._call("POST", f"/v1/jobs/{job}/cancel")
        await self._see_through(job)

    async def _see_through(self, job: str) -> None:
        found = await self._ask(job, wait=True)
        if found is None:
            self._ledger.vanished(job)
            return
        self._ledger.ended(job, found)
        if job in self.telling:
            self.logs[job] = await self._delivered(job)
            self.telling.discard(job)
        await asyncio.sleep(self._dice.uniform(0.1, 0.5) * self._ttl_s)
        again = await self._ask(job, wait=False)
        if again is not None:  # it may have been kept long enough meanwhile
            self._ledger.seen_again(job, again)

    async def _delivered(self, job: str) -> list[dict[str, Any]]:
        """Ask until the deliveries of a job have ended; returns what the service says of them."""
        while True:
            try:
                status, body = await self._call("GET", f"/v1/jobs/{job}/deliveries")
            except TROUBLE:
                status, body = 0, {}
            if status in (404, 410):
                return []
            if status == 200 and all(one["status"] in ("delivered", "dead") for one in body["data"]):
                return list(body["data"])
            await asyncio.sleep(RETRY_S)

    async def _ask(self, job: str, *, wait: bool) -> dict[str, Any] | None:
        """Ask until the job has ended; None when the service does not know it (any more)."""
        headers = {"Prefer": "wait=20"} if wait else {}
        while True:
            try:
                status, body = await self._call("GET", f"/v1/jobs/{job}", headers=headers)
            except TROUBLE:
                status, body = 0, {}
            if status in (404, 410):
                return None
            if status == 200 and body["terminal"]:
                return body
            if status != 200:
                await asyncio.sleep(RETRY_S)

    async def _call(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """Call one API, or the next when nobody listens there, as a load balancer would."""
        assert self._session  # noqa: S101  # started
        urls = self._dice.sample(self._urls, len(self._urls))
        for number, url in enumerate(urls, start=1):
            try:
                async with self._session.request(method, url + path, **options) as response:
                    return response.status, await response.json(content_type=None)
            except aiohttp.ClientConnectorError:
                if number == len(urls):
                    raise
        raise AssertionError("there is no API")
