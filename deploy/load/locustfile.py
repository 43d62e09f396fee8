"""Load for Locust, in the mix of a service: prompts that come back, short and long answers, every way to get them.

`docker compose --profile load up load`, then http://127.0.0.1:8089; without Docker (in both cases with a RATE_LIMIT
of the service that is above what one key is to send):

    INFERQ_API_KEY=iq_… locust -f deploy/load/locustfile.py --host http://127.0.0.1:8000

`make bench BENCH=load` runs it for a minute beside the simulated engine. It needs nothing but Locust. Environment:

    INFERQ_API_KEY      the key; else the secret of compose
    INFERQ_WEBHOOK_URL  http://host:port/ under which keepers reach this process (WEBHOOK_ALLOWED_HOSTS must have the
                        host, the tenant a secret); without it nobody asks for webhooks
    INFERQ_LOAD_MOST    answers asked for in all, after which the load ends; 0: no bound
    INFERQ_LOAD_SEED    of the dice: which prompts, in which order
    INFERQ_LOAD_WORDS   1: prompts tell a simulated engine how long its answers are
"""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gevent.event import Event
from gevent.pywsgi import WSGIServer
from locust import HttpUser, between, events, task

SECRET: Final = Path("/run/secrets/bootstrap_api_key")
#: Seconds a request may wait at the server; requests until a client gives up; seconds between short polls.
WAIT_S: Final = 20
POLLS: Final = 30
PAUSE_S: Final = 0.5
#: Share of prompts that others ask too, and how many of those there are. Each is new once: some three in five are hits.
REPEATED: Final = 0.7
COMMON: Final = 40
#: Tokens of answers by share of new prompts: most are short, some long.
TOKENS: Final = ((0.7, 32), (0.25, 128), (0.05, 512))
#: Seconds within which a webhook should have come.
TOLD_S: Final = 60
WEBHOOK_URL: Final = os.environ.get("INFERQ_WEBHOOK_URL", "")
MOST: Final = int(os.environ.get("INFERQ_LOAD_MOST", "0"))
WORDS: Final = os.environ.get("INFERQ_LOAD_WORDS", "") == "1"

random.seed(os.environ.get("INFERQ_LOAD_SEED"))


class Receiver:
    """Where webhooks come in. It believes everybody: whoever waits for a job is woken, nothing else is done."""

    def __init__(self) -> None:
        self._waited: dict[str, Event] = {}
        self._server: WSGIServer | None = None

    def start(self) -> None:
        """Listen on the port of ``INFERQ_WEBHOOK_URL``."""
        port = urlsplit(WEBHOOK_URL).port or 80
        self._server = WSGIServer(("0.0.0.0", port), self._receive, log=None, error_log=None)  # noqa: S104  # a container's
        self._server.start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server:
            self._server.stop(timeout=1)

    def told(self, job: str, seconds: float) -> bool:
        """Wait for the end of ``job`` to be told; it may have been already."""
        came = self._waited.setdefault(job, Event()).wait(seconds)
        del self._waited[job]
        return bool(came)

    def _receive(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        said = json.loads(environ["wsgi.input"].read(65_536))
        self._waited.setdefault(str(said["data"]["id"]), Event()).set()
        start_response("204 No Content", [])
        return []


receiver = Receiver()


@events.test_start.add_listener
def _listen(**_: Any) -> None:
    if WEBHOOK_URL:
        receiver.start()


@events.test_stop.add_listener
def _close(**_: Any) -> None:
    receiver.stop()


class Client(HttpUser):  # type: ignore[misc]  # untyped, and not installed here
    """One client: asks in one of the ways there are, waits for the answer, pauses."""

    wait_time = between(0.2, 1.0)
    asked = 0

    def on_start(self) -> None:
        """Find the key."""
        key = os.environ.get("INFERQ_API_KEY", "") or SECRET.read_text().strip()
        self.client.headers["X-API-Key"] = key

    @task(8)
    def wait_for_the_answer(self) -> None:
        """Submit, and let the server hold the request until there is an answer."""
        if path := self._submit(self._any()):
            self._ended(path, {"Prefer": f"wait={WAIT_S}"}, "long-poll", 0)

    @task(4)
    def poll(self) -> None:
        """Submit, and ask again and again."""
        if path := self._submit(self._any()):
            self._ended(path, {}, "poll", PAUSE_S)

    @task(3)
    def infer(self) -> None:
        """The simple form, answered in one call."""
        self._count()
        body = self._any()
        with self.client.post(
            "/infer", json=body, headers={"Prefer": f"wait={WAIT_S}"}, name="infer", catch_response=True
        ) as answer:
            if answer.status_code == 200:
                hit = answer.json()["cached"]
                answer.request_meta["name"] = "infer, hit" if hit else "infer, new"

    @task(3)
    def follow(self) -> None:
        """Submit, and read the answer while it is written."""
        began = time.perf_counter()
        if path := self._submit(self._any() | {"stream": True}):
            length, error = 0, None
            try:
                for line in self._events(f"{path}/events"):
                    length += len(line)
            except OSError as broken:
                error = broken
            self._fire("stream to its end", began, length, error)

    @task(1)
    def change_its_mind(self) -> None:
        """Submit something long, and cancel it a moment later."""
        path = self._submit(self._new(TOKENS[-1][1]))
        if not path:
            return
        time.sleep(random.uniform(0, 1))
        with self.client.post(f"{path}/cancel", name="cancel", catch_response=True) as answer:
            if answer.status_code == 409:  # it was quicker
                answer.success()

    @task(2 if WEBHOOK_URL else 0)
    def be_told(self) -> None:
        """Submit with a webhook, and wait until it comes."""
        began = time.perf_counter()
        if path := self._submit(self._any() | {"webhook": {"url": WEBHOOK_URL}}):
            came = receiver.told(path.rsplit("/", 1)[1], TOLD_S)
            self._fire("submit to webhook", began, 0, None if came else TimeoutError("no webhook came"))

    def _any(self) -> dict[str, Any]:
        """Return a request that others make too, or a new one of some length."""
        if random.random() < REPEATED:
            return _body(f"Common question {random.randrange(COMMON)}: what is a lease?", TOKENS[0][1])
        (tokens,) = random.choices([tokens for _, tokens in TOKENS], [share for share, _ in TOKENS])
        return self._new(tokens)

    @staticmethod
    def _new(tokens: int) -> dict[str, Any]:
        return _body(f"Question {random.getrandbits(64):x}: what is a lease?", tokens)

    def _submit(self, body: dict[str, Any]) -> str:
        """Submit; returns the path of a job to wait for, or "" when the answer is there or was refused."""
        self._count()
        with self.client.post("/v1/jobs", json=body, name="submit, refused", catch_response=True) as answer:
            if answer.status_code not in (200, 202):
                return ""
            job = answer.json()
            kind = {"hit": "hit", "coalesced": "shared"}.get(job["cache"]["status"], "new")
            answer.request_meta["name"] = f"submit, {kind}"
            # A hit is a whole answer; one with a webhook has an id, and its receiver is told.
            return f"/v1/jobs/{job['id']}" if job["id"] and ("webhook" in body or not job["terminal"]) else ""

    def _ended(self, path: str, headers: dict[str, str], name: str, pause_s: float) -> None:
        began = time.perf_counter()
        for _ in range(POLLS):
            answer = self.client.get(path, headers=headers, name=name)
            if answer.status_code != 200:
                return
            if answer.json()["terminal"]:
                self._fire(f"{name} to the answer", began, 0, None)
                return
            time.sleep(pause_s)

    def _events(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a job's events to the last."""
        with self.client.get(path, stream=True, name="stream, first byte", catch_response=True) as answer:
            yield from answer.iter_lines()

    def _fire(self, name: str, began: float, length: int, error: Exception | None) -> None:
        """Note what is no single request."""
        self.environment.events.request.fire(
            request_type="",
            name=name,
            response_time=1000 * (time.perf_counter() - began),
            response_length=length,
            exception=error,
            context={},
        )

    def _count(self) -> None:
        Client.asked += 1
        if MOST and Client.asked >= MOST:
            self.environment.runner.quit()


def _body(prompt: str, tokens: int) -> dict[str, Any]:
    return {"prompt": f"{prompt} simulate:words={tokens}" if WORDS else prompt, "max_tokens": tokens}
