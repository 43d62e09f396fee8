"""What happens in the showcase: steady traffic, and one after the other everything that can go wrong."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp

from showcase.stack import LEASE_S, SIMULATED, Showcase

#: Words that are in every prompt, for whoever looks where they are not to be.
PLANTED: Final = "planted-in-the-prompt"
#: Requests a second to each model.
REAL_PER_S: Final = 10.0
SIMULATED_PER_S: Final = 3.0
PRIORITIES: Final = ("high", "normal", "low")

Json = dict[str, Any]


class Traffic:
    """One client of both APIs. ``answers`` are texts it was given."""

    def __init__(self, showcase: Showcase, session: aiohttp.ClientSession, dice: random.Random) -> None:
        self._showcase = showcase
        self._session = session
        self._dice = dice
        self._number = 0
        self.answers: set[str] = set()
        self._urls = {
            one.public_model: f"http://127.0.0.1:{one.api_port}" for one in (showcase.real, showcase.simulated)
        }
        self._real = showcase.real.public_model

    async def run(self, seconds: float) -> None:
        """Send for so long, then wait until nothing is under way."""
        until = asyncio.get_running_loop().time() + seconds
        steady = [
            self._steadily(until, REAL_PER_S, self._ask_real),
            self._steadily(until, SIMULATED_PER_S, self._ask_simulated),
            self._steadily(until, 0.5, self._cancel_one),
            self._steadily(until, 0.5, self._fail_one),
            self._steadily(until, 0.5, self._expire_one),
            self._steadily(until, 0.3, self._be_refused),
            self._in_turn(seconds),
        ]
        await asyncio.gather(*steady)

    async def _in_turn(self, seconds: float) -> None:
        """Let an engine die until its run is given up, a worker freeze, a worker be killed."""
        await asyncio.sleep(0.15 * seconds)
        poison = await self._submit(SIMULATED, {"prompt": f"{PLANTED} simulate:dies"})
        await self._ended(SIMULATED, poison)
        await self._hold_one()
        await self._showcase.freeze(2.5 * LEASE_S)
        await asyncio.sleep(0.1 * seconds)
        await self._hold_one()
        self._showcase.kill()
        await self._hold_one()  # by the worker that was started in its place

    async def _steadily(self, until: float, per_s: float, do: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        under_way: set[asyncio.Task[None]] = set()
        while loop.time() < until:
            task = asyncio.create_task(_done(do()))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(self._dice.expovariate(per_s))
        await asyncio.gather(*under_way)

    async def _ask_real(self) -> None:
        """A question: new, one of a few that are asked again and again, or past the cache; some want a webhook."""
        kind = self._dice.random()
        body: Json = {"prompt": f"{PLANTED} question {self._new()}", "max_tokens": self._dice.randint(16, 96)}
        body["priority"] = self._dice.choice(PRIORITIES)
        headers: dict[str, str] = {}
        if kind < 0.5:
            body = {"prompt": f"{PLANTED} asked again {self._dice.randrange(12)}", "max_tokens": 48, "temperature": 0}
        elif kind < 0.6:
            headers["Cache-Control"] = "no-cache"
        if kind > 0.85:
            body["webhook"] = {"url": self._showcase.receivers.url(self._number)}
        if kind < 0.8:
            headers["Prefer"] = "wait=20"
        elif kind < 0.9:
            headers["Idempotency-Key"] = f"key-{self._number // 4}"
            body = {"prompt": f"{PLANTED} repeated {self._number // 4}", "max_tokens": 16}
        job = await self._send("POST", self._real, "/v1/jobs", body, headers)
        if job.get("id"):
            await self._look(self._real, job["id"])
        if job.get("output"):
            self.answers.add(job["output"]["text"])

    async def _ask_simulated(self) -> None:
        words = self._dice.randint(20, 200)
        body = {"prompt": f"{PLANTED} {self._new()} simulate:words={words}", "priority": self._dice.choice(PRIORITIES)}
        job = await self._send("POST", SIMULATED, "/v1/jobs", body, {"Prefer": "wait=20"})
        if job.get("output"):
            self.answers.add(job["output"]["text"])

    async def _hold_one(self) -> None:
        """Return when a run of the simulated engine is in progress that will be for some seconds."""
        await self._running(SIMULATED, {"prompt": f"{PLANTED} {self._new()} simulate:words=400", "max_tokens": 400})

    async def _cancel_one(self) -> None:
        model = self._dice.choice([self._real, SIMULATED])
        body = {"prompt": f"{PLANTED} {self._new()} simulate:words=900", "max_tokens": 900, "priority": "high"}
        job = await self._running(model, body)
        await self._send("POST", model, f"/v1/jobs/{job}/cancel")

    async def _fail_one(self) -> None:
        await self._submit(SIMULATED, {"prompt": f"{PLANTED} {self._new()} simulate:fails"})

    async def _expire_one(self) -> None:
        prompt = f"{PLANTED} {self._new()} simulate:words=900 simulate:slow"
        body = {"prompt": prompt, "max_tokens": 900, "priority": "high", "deadline": {"total_s": 0.7}}
        await self._send("POST", SIMULATED, "/v1/jobs", body)

    async def _be_refused(self) -> None:
        """All the ways in which a request is turned away."""
        keys, model, body = self._showcase.keys, self._real, {"prompt": f"{PLANTED} {self._new()}", "max_tokens": 64}
        for headers, wrong in (
            ({"X-API-Key": "iq_nobody_knowsthiskey"}, body),
            ({}, {**body, "surprise": 1}),
            ({}, {**body, "model": "another"}),
            ({"Cache-Control": "only-if-cached"}, body),
            ({"X-API-Key": keys.plain}, {**body, "webhook": {"url": "https://example.com/"}}),
            ({"X-API-Key": keys.few_tokens}, body),
            ({"X-API-Key": keys.few_tokens}, {**body, "max_tokens": 500}),
            ({"X-API-Key": keys.few_requests}, body),
            ({"X-API-Key": keys.few_requests}, body),
            ({"X-API-Key": keys.few_jobs}, body),
            ({"X-API-Key": keys.few_jobs}, {**body, "seed": 1}),
            ({"Idempotency-Key": "used"}, {**body, "prompt": f"{PLANTED} one"}),
            ({"Idempotency-Key": "used"}, {**body, "prompt": f"{PLANTED} another"}),
        ):
            await self._send("POST", model, "/v1/jobs", wrong, headers)
        for _ in range(2):
            await self._send("GET", model, "/v1/queue", headers={"X-API-Key": keys.few_polls})
        await self._send("GET", model, "/there-is-no-such-page")

    async def _look(self, model: str, job: str) -> None:
        """Poll as a browser does: the second time nothing has changed."""
        seen = await self._session.get(f"{self._urls[model]}/v1/jobs/{job}", headers=self._headers())
        tag = seen.headers.get("ETag", "")
        seen.release()
        await self._send("GET", model, f"/v1/jobs/{job}", headers={"If-None-Match": tag})

    async def _submit(self, model: str, body: Json) -> str:
        """Return the id of a job that was accepted."""
        while True:
            job = await self._send("POST", model, "/v1/jobs", body)
            if job.get("id"):
                return str(job["id"])
            await asyncio.sleep(0.2)

    async def _running(self, model: str, body: Json) -> str:
        """Return the id of a job once it is in progress, or has ended."""
        job = await self._submit(model, body)
        while (await self._send("GET", model, f"/v1/jobs/{job}", headers={"Prefer": "wait=5"})).get(
            "status"
        ) == "queued":
            await asyncio.sleep(0.02)
        return job

    async def _ended(self, model: str, job: str) -> None:
        while not (await self._send("GET", model, f"/v1/jobs/{job}", headers={"Prefer": "wait=5"})).get("terminal"):
            await asyncio.sleep(0.1)

    async def _send(
        self, method: str, model: str, path: str, body: Json | None = None, headers: dict[str, str] | None = None
    ) -> Json:
        url = self._urls[model] + path
        async with self._session.request(method, url, json=body, headers=self._headers() | (headers or {})) as answer:
            if "json" not in answer.content_type or answer.status >= 400:
                return {}
            found: Json = await answer.json(content_type=None)
            return found

    def _headers(self) -> dict[str, str]:
        return {"X-API-Key": self._showcase.keys.any}

    def _new(self) -> int:
        self._number += 1
        return self._number


async def _done(doing: Awaitable[None]) -> None:
    await doing


async def perform(showcase: Showcase, seconds: float, seed: int) -> set[str]:
    """Let everything happen for so many seconds; returns the answers that clients got."""
    await showcase.receivers.start()
    supervising = asyncio.create_task(showcase.restart_forever())
    timeout = aiohttp.ClientTimeout(total=90)
    try:
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            traffic = Traffic(showcase, session, random.Random(seed))  # noqa: S311  # the same story every time
            await traffic.run(seconds)
            return traffic.answers
    finally:
        supervising.cancel()
        await showcase.receivers.close()
