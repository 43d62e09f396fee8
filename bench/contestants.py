"""Four ways from a prompt to its tokens, each behind the same three calls: prepare, measure, rest."""

import asyncio
import json
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import aiohttp
from celery import Celery

from bench.load import LIMIT_S, Failed, Load, closed_loop
from bench.processes import Children, cpu_s, signal_all, wait_until
from bench.prompts import ANSWER_TOKENS
from bench.stack import API_KEY, START_S, Stack, answers, start_redis, start_stack
from deploy.local.child import Child
from deploy.local.stack import free_port
from inferq.settings import Settings, environment_for


class Contestant(ABC):
    """One way to serve prompts. While it rests its processes are stopped and take no CPU."""

    name: str
    #: Processes by the name under which their CPU time is reported.
    processes: dict[str, Child]

    @abstractmethod
    def __init__(self, children: Children, settings: Settings) -> None:
        """Start, and return when the engine is warm."""

    @abstractmethod
    def measure(self, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
        """Answer ``bodies`` from ``clients`` closed loops."""

    def rest(self) -> None:
        """Stop all processes where they are."""
        for child in self.processes.values():
            signal_all(child, signal.SIGSTOP)

    def wake(self) -> None:
        """Let all processes go on."""
        for child in self.processes.values():
            signal_all(child, signal.SIGCONT)

    def cpu_s(self) -> dict[str, float]:
        """Return CPU seconds used so far, by part; what the engine's own processes use is under ``engine``."""
        spent: dict[str, float] = {}
        for name, child in self.processes.items():
            own, below = cpu_s(child)
            if name in ("worker", "server", "direct"):
                spent[name] = own
                spent["engine"] = below
            else:
                spent[name] = own + below
        return spent


class Inferq(Contestant):
    """HTTP, queue, engine, long-poll: all of inferq, as shipped."""

    name = "inferq"

    def __init__(self, children: Children, settings: Settings) -> None:
        self.stack: Stack = start_stack(children, settings)
        stack = self.stack
        assert stack.keeper  # noqa: S101
        assert stack.worker  # noqa: S101
        self.processes = {"api": stack.api, "redis": stack.redis, "keeper": stack.keeper, "worker": stack.worker}

    def measure(self, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
        """See :class:`Contestant`."""
        return asyncio.run(closed_loop(self._send, bodies, clients))

    async def _send(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        headers = {"X-API-Key": API_KEY, "Prefer": "wait=60"}
        async with session.post(f"{self.stack.url}/v1/jobs", json=body, headers=headers) as response:
            job = await response.json()
        if job.get("status") != "completed":
            raise Failed(f"inferq answered {response.status}: {job.get('status') or job}")
        return int(job["usage"]["completion_tokens"])


class VllmServer(Contestant):
    """vLLM's own OpenAI-compatible server, with the same engine arguments."""

    name = "vLLM's server"

    def __init__(self, children: Children, settings: Settings) -> None:
        self._port = free_port()
        command = [sys.executable, "-m", "bench.vllm_server", str(self._port)]
        server = children.start("vllm-server", command, {**environment_for(settings), "VLLM_NO_USAGE_STATS": "1"})
        wait_until(server, lambda: answers(self._port, "/health") == 200, START_S)
        self.processes = {"server": server}
        self.url = f"http://127.0.0.1:{self._port}/v1/completions"

    def measure(self, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
        """See :class:`Contestant`."""
        return asyncio.run(closed_loop(self._send, bodies, clients))

    async def _send(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        async with session.post(self.url, json=body) as response:
            answer = await response.json()
        if response.status != 200:
            raise Failed(f"vLLM's server answered {response.status}")
        return int(answer["usage"]["completion_tokens"])


class Direct(Contestant):
    """The same AsyncLLM without any service around it."""

    name = "AsyncLLM called directly"

    def __init__(self, children: Children, settings: Settings) -> None:
        command = [sys.executable, "-m", "bench.direct"]
        child = children.start("direct", command, environment_for(settings), pipe=True)
        assert child.process.stdin  # noqa: S101  # it was started with pipe
        assert child.process.stdout  # noqa: S101
        self._stdin, self._stdout = child.process.stdin, child.process.stdout
        line = self._stdout.readline()
        if line.strip() != "ready":
            raise Failed(f"the engine did not start; see {child.log}")
        self.processes = {"direct": child}

    def measure(self, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
        """See :class:`Contestant`."""
        asked = {"clients": clients, "prompts": [body["prompt"] for body in bodies], "tokens": bodies[0]["max_tokens"]}
        self._stdin.write(json.dumps(asked) + "\n")
        self._stdin.flush()
        answer = json.loads(self._stdout.readline())
        return Load(seconds=answer["seconds"], latencies=tuple(answer["latencies"]), tokens=answer["tokens"])


class Naive(Contestant):
    """A solo Celery worker that calls ``LLM.generate`` for each task."""

    name = "naive Celery worker"

    def __init__(self, children: Children, settings: Settings) -> None:
        # A Redis of its own: inferq's is stopped while this one is measured.
        self._settings = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
        redis = start_redis(children, self._settings, name="redis-naive")
        command = [
            sys.executable, "-m", "celery", "-A", "bench.naive", "worker", "--pool=solo", "-n", "naive@bench",
            "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=warning",
        ]  # fmt: skip
        worker = children.start("naive", command, environment_for(self._settings))
        self.processes = {"redis": redis, "worker": worker}
        url = self._settings.redis_url
        self._app = Celery("naive", broker=url, backend=url, set_as_current=False)
        until = time.monotonic() + START_S
        while not self._app.control.ping(timeout=1.0):
            if time.monotonic() > until:
                raise Failed(f"the naive worker did not start; see {worker.log}")

    def measure(self, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
        """See :class:`Contestant`. It works one task at a time, so the number of clients only fills its queue."""
        began = time.perf_counter()
        sent = [
            (time.perf_counter(), self._app.send_task("naive.generate", [body["prompt"], ANSWER_TOKENS]))
            for body in bodies
        ]
        latencies, tokens = [], 0
        for start, result in sent:
            tokens += int(result.get(timeout=LIMIT_S)["tokens"])
            latencies.append(time.perf_counter() - start)
        return Load(seconds=time.perf_counter() - began, latencies=tuple(latencies), tokens=tokens)
