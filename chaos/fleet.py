"""The processes that are killed, and the supervisor that starts them again."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from redis import Redis
from redis.exceptions import RedisError

from chaos.proxy import Proxy
from deploy.local.child import Child, start_guard
from deploy.local.redis_binary import find_redis_server
from deploy.local.stack import free_port, status
from inferq.keys import key
from inferq.settings import Settings, environment_for
from inferq.webhook_secrets import new_secret

API_KEY: Final = "iq_chaos_notasecret"
#: Addresses of the loopback network, each a receiver of webhooks.
RECEIVERS: Final = [f"127.0.9.{number}" for number in range(1, 21)]
#: Seconds between looks of the supervisor.
LOOK_S: Final = 0.2
#: Seconds anything may take to be ready.
READY_S: Final = 180.0


@dataclass
class Member:
    """One place in the fleet; the process in it changes."""

    name: str
    command: list[str]
    env: Mapping[str, str] = field(repr=False)
    child: Child | None = None
    #: Whether the supervisor may start it; a scene that restarts something itself says no meanwhile.
    wanted: bool = True


@dataclass(frozen=True, kw_only=True)
class Aboard:
    """A run that a worker holds: which try of it, and under which fence."""

    run: str
    fence: str
    attempt: str


class Fleet:
    """Redis behind a proxy, APIs, keepers and workers."""

    def __init__(
        self, directory: Path, dice: random.Random, *, apis: int, keepers: int, workers: int, **changes: Any
    ) -> None:
        """``changes``: settings of this fleet."""
        self._directory = directory
        self._redis_port = free_port()
        self._proxy_port = free_port()
        self.proxy = Proxy(self._proxy_port, self._redis_port, dice)
        self.redis = Redis(port=self._redis_port, decode_responses=True, socket_timeout=30)
        values: dict[str, Any] = {
            "redis_url": f"redis://127.0.0.1:{self._proxy_port}",
            "cache_redis_url": "",
            "model_name": "models/demo-mistral",
            "rate_limit": 1_000_000,
            "poll_rate_limit": 10_000_000,
            "bootstrap_api_key": API_KEY,
            "metrics_port": 0,
            "keeper_metrics_port": 0,
            "bootstrap_webhook_secret": new_secret(),
            "webhook_allowed_hosts": ",".join(RECEIVERS),
            "webhook_timeout": 2.0,
            "webhook_retries": ",".join(["0.5", "1", "1", "2", "2", *["3"] * 15]),
            "log_format": "json",
            **changes,
        }
        self.settings = Settings(_env_file=None, **values)
        self._guard = start_guard(directory / "guard.log")
        self._redis = self._redis_member()
        ports = [free_port() for _ in range(apis)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.apis = [self._api_member(number, port) for number, port in enumerate(ports)]
        self.keepers = [self._celery_member("keeper", number) for number in range(keepers)]
        self.workers = [self._celery_member("app", number) for number in range(workers)]
        self.exits: Counter[tuple[str, int]] = Counter()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start everything; returns when a worker is ready."""
        await self.proxy.start()
        self.launch(self._redis)
        await self.until(lambda: bool(self.redis_answers()), "Redis answers")
        for member in [*self.apis, *self.keepers, *self.workers]:
            self.launch(member)
        self._supervisor = asyncio.create_task(self._supervise())
        await self.until(self.all_ready, "all workers are ready")

    async def close(self) -> None:
        """End everything."""
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        children = [member.child for member in [*self.workers, *self.keepers, *self.apis, self._redis] if member.child]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.process.pid, signal.SIGCONT)
        await asyncio.gather(*(asyncio.to_thread(child.stop, 5.0) for child in children))
        await self.proxy.close()
        self.redis.close()
        self._guard.stop(1.0)

    def launch(self, member: Member) -> None:
        """Start the process of a member."""
        member.child = Child(member.name, member.command, member.env, self._directory / f"{member.name}.log")

    def kill(self, member: Member) -> None:
        """``kill -9``; an API with the processes gunicorn forked."""
        child = member.child
        if child is None or not child.alive():
            return
        victims = [one.pid for one in child.tree()] if member in self.apis else [child.process.pid]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def replace(self, member: Member, seconds: float) -> float:
        """Restart a member as a deployment does: SIGTERM, wait, start; returns the seconds it took to end."""
        member.wanted = False
        began = time.monotonic()
        assert member.child  # noqa: S101  # it was started
        member.child.process.terminate()
        await self.until(lambda: not self.alive(member), f"{member.name} has ended after SIGTERM", seconds)
        took = time.monotonic() - began
        self.launch(member)
        member.wanted = True
        return took

    def stop(self, member: Member) -> None:
        """SIGSTOP: the process is there and does nothing."""
        assert member.child  # noqa: S101  # it was started
        os.kill(member.child.process.pid, signal.SIGSTOP)

    def go_on(self, member: Member) -> None:
        """SIGCONT."""
        assert member.child  # noqa: S101  # it was started
        os.kill(member.child.process.pid, signal.SIGCONT)

    def left_behind(self) -> list[int]:
        """Return the pids of processes of this fleet that still run, whoever their parent is."""
        own = self.settings.redis_url
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("REDIS_URL") == own:
                    found.append(process.pid)
        return found

    async def kill_redis(self, down_s: float) -> None:
        """``kill -9`` Redis and start it again on the same append-only file."""
        self._redis.wanted = False
        self.kill(self._redis)
        await self.until(lambda: not self.alive(self._redis), "Redis is gone")
        await asyncio.sleep(down_s)
        self.launch(self._redis)
        await self.until(lambda: bool(self.redis_answers()), "Redis answers again")

    def redis_answers(self) -> bool:
        """Whether Redis can be used, asked beside the proxy."""
        try:
            return bool(self.redis.ping())
        except RedisError:
            return False

    def alive(self, member: Member) -> bool:
        """Whether the member's process runs."""
        return member.child is not None and member.child.alive()

    def worker_id(self, member: Member) -> str | None:
        """Return the id under which a worker's process reports to Redis; None when it does not (yet)."""
        pid = str(member.child.process.pid) if member.child else ""
        ids = self.redis.zrange(key("engine_workers", self.settings.engine_queue), 0, -1)
        return next((worker for worker in ids if self.redis.hget(key("worker", worker), "pid") == pid), None)

    def aboard(self, worker: str) -> list[Aboard]:
        """Return the runs that a worker holds, as Redis knows it."""
        runs = sorted(self.redis.smembers(key("aboard", worker)))
        held = [(run, *self.redis.hmget(key("run", run), "fence", "attempt", "status")) for run in runs]
        return [
            Aboard(run=run, fence=fence, attempt=attempt) for run, fence, attempt, at in held if at == "in_progress"
        ]

    def superseded(self, held: Aboard) -> bool:
        """Whether a run has been taken from the worker that held it, or has ended."""
        fence, state = self.redis.hmget(key("run", held.run), "fence", "status")
        return bool(fence != held.fence or state != "in_progress")

    def ready_workers(self) -> set[str]:
        """Return the pids of workers that say they are ready."""
        ids = self.redis.zrange(key("engine_workers", self.settings.engine_queue), 0, -1)
        said = [self.redis.hmget(key("worker", worker), "state", "pid") for worker in ids]
        return {pid for state, pid in said if state == "ready" and pid}

    def all_ready(self) -> bool:
        """Whether every member does its work."""
        try:
            ready = self.ready_workers()
        except RedisError:
            return False
        pids = {str(member.child.process.pid) for member in self.workers if member.child}
        answering = [status("127.0.0.1", int(url.rsplit(":", 1)[1]), "/health") == 200 for url in self.urls]
        return pids <= ready and all(answering)

    async def until(self, condition: Any, what: str, seconds: float = READY_S) -> None:
        """Wait for a condition; raises TimeoutError that says what did not come."""
        until = time.monotonic() + seconds
        while not await asyncio.to_thread(condition):
            if time.monotonic() > until:
                raise TimeoutError(f"not within {seconds:.0f} s: {what}; logs are in {self._directory}")
            await asyncio.sleep(0.05)

    async def _supervise(self) -> None:
        while True:
            for member in [*self.workers, *self.keepers, *self.apis]:
                if member.child and member.wanted and not member.child.alive():
                    self.exits[member.name.rstrip("0123456789"), member.child.process.returncode] += 1
                    self.launch(member)
            await asyncio.sleep(LOOK_S)

    def _redis_member(self) -> Member:
        data = self._directory / "redis-data"
        data.mkdir()
        # "always": with "everysec" Redis puts a write off while the disk is busy with the second before, and answers
        # all the same; what it then holds in its own memory dies with its process.
        command = [
            str(find_redis_server()), "--port", str(self._redis_port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--dir", str(data), "--loglevel", "warning",
        ]  # fmt: skip
        return Member(name="redis", command=command, env=os.environ)

    def _api_member(self, number: int, port: int) -> Member:
        settings = self.settings.model_copy(update={"api_port": port})
        command = [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py", "api.wsgi:app"]
        return Member(name=f"api{number}", command=command, env=environment_for(settings))

    def _celery_member(self, module: str, number: int) -> Member:
        command = [
            sys.executable, "-m", "celery", "--quiet", "-A", f"workers.{module}", "worker", "--pool=threads",
            "-n", f"{module}{number}@chaos", "--without-gossip", "--without-mingle", "--without-heartbeat",
        ]  # fmt: skip
        name = "worker" if module == "app" else module
        return Member(name=f"{name}{number}", command=command, env=environment_for(self.settings))
