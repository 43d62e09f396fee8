"""The processes of the showcase: two models, two keepers, Flower, and a Prometheus that scrapes them all."""

import asyncio
import json
import secrets
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis import Redis

from bench.processes import Children, wait_until
from bench.receivers import Receivers
from bench.stack import API_KEY, START_S, answers, start_api, start_redis
from deploy.local.child import Child
from deploy.local.prometheus import configuration, prometheus_piece
from deploy.local.stack import flower_piece, free_port
from inferq.credentials import KeyLimits, KeyRing
from inferq.scripts import Scripts
from inferq.settings import Settings, environment_for
from inferq.tenants import Tenants
from inferq.webhook_secrets import new_secret

#: What receivers answer with; None: they hang. Each is a host of the loopback network.
RECEIVERS: Final[dict[str, int | None]] = {
    "127.0.0.2": 204,
    "127.0.0.3": 500,
    "127.0.0.4": 404,
    "127.0.0.5": 302,
    "127.0.0.6": None,
}
#: Bytes that Redis may use: enough, so that its memory is seen as a share.
MEMORY: Final = 256 * 2**20
#: The model of the simulated engine.
SIMULATED: Final = "simulated-model"
#: Seconds of a lease: short, so that rescues are seen.
LEASE_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Keys:
    """API keys: of a tenant that may everything, one that has no webhook secret, and those with little of something."""

    any: str
    plain: str
    few_requests: str
    few_polls: str
    few_tokens: str
    few_jobs: str

    def all(self) -> list[str]:
        """Return them all."""
        return [self.any, self.plain, self.few_requests, self.few_polls, self.few_tokens, self.few_jobs]


class Showcase:
    """Everything running. ``real`` and ``simulated`` are the settings of the two models' processes."""

    def __init__(self, children: Children, *, engine: str, interval: str) -> None:
        """``engine``: of the first model, vllm or simulated. ``interval``: how often Prometheus comes."""
        self._children = children
        self.webhook_secret = new_secret()
        self.real = Settings(
            _env_file=None,
            redis_url=f"redis://127.0.0.1:{free_port()}",
            cache_redis_url="",
            model_name="models/demo-mistral",
            engine=engine,
            max_model_len=1024,
            max_num_seqs=8,
            cpu_kv_cache_gib=0.5,
            lease=LEASE_S,
            api_port=free_port(),
            metrics_port=free_port(),
            keeper_metrics_port=free_port(),
            metrics_token=secrets.token_hex(16),
            flower_port=free_port(),
            flower_password=secrets.token_hex(16),
            flower_db=str(children.directory / "flower-db"),
            prometheus_port=free_port(),
            bootstrap_api_key=API_KEY,  # by which start_api sees that the API is ready
            webhook_allowed_hosts=",".join(RECEIVERS),
            webhook_timeout=1.0,
            webhook_retries="0.5,1",
        )
        ports = {"api_port": free_port(), "metrics_port": free_port(), "keeper_metrics_port": free_port()}
        changes = {"model_name": SIMULATED, "engine": "simulated", "max_num_seqs": 4, "drain_grace": 1.0}
        self.simulated = self.real.model_copy(update=ports | changes)
        self.receivers = Receivers(self.webhook_secret, list(RECEIVERS), RECEIVERS.__getitem__)
        self._interval = interval
        self._ending = False

    def start(self) -> None:
        """Start all, Prometheus first of those it scrapes: then it has seen every counter at zero."""
        redis = start_redis(self._children, self.real)
        with Redis.from_url(self.real.redis_url, decode_responses=True) as client:
            client.config_set("maxmemory", MEMORY)
            self.keys = self._make_keys(client)
        self._start_prometheus()
        for settings in (self.real, self.simulated):
            start_api(self._children, settings, name=f"api-{settings.public_model}")
            self._celery("keeper", settings)
        piece = flower_piece(self.real)
        flower = self._children.start("flower", piece.command, piece.env)
        wait_until(flower, piece.ready, START_S)
        worker = self._celery("app", self.real)
        self.patient = self._celery("app", self.simulated)
        for settings in (self.simulated, self.real):
            wait_until(worker, partial(_ready, settings.metrics_port), START_S)
        assert redis.alive()  # noqa: S101  # nothing above makes sense without it

    @property
    def prometheus(self) -> str:
        """The address of Prometheus."""
        return f"http://127.0.0.1:{self.real.prometheus_port}"

    def secrets(self) -> list[str]:
        """Return what nobody may ever be shown: keys, secrets, tokens, passwords."""
        settings = self.real
        hidden = [settings.metrics_token, settings.flower_password]
        return [API_KEY, *self.keys.all(), self.webhook_secret, *(one.get_secret_value() for one in hidden if one)]

    async def restart_forever(self) -> None:
        """Start the simulated engine's worker again whenever it has ended, as a supervisor does."""
        while True:
            await asyncio.sleep(0.2)
            if not self.patient.alive():
                self.patient = self._celery("app", self.simulated)

    async def freeze(self, seconds: float) -> None:
        """Let the simulated engine's worker stand still."""
        frozen = self.patient
        frozen.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        frozen.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the simulated engine's worker."""
        self.patient.process.kill()

    def _make_keys(self, client: "Redis") -> Keys:
        ring = KeyRing(client)
        Tenants(client, Scripts(client)).set("acme", max_priority="high")
        first = ring.create("acme", limits=KeyLimits(requests=1_000_000, polls=1_000_000))
        ring.store(
            first, "acme", limits=KeyLimits(requests=1_000_000, polls=1_000_000), webhook_secret=self.webhook_secret
        )
        return Keys(
            any=first,
            plain=ring.create("plain"),
            few_requests=ring.create("plain", limits=KeyLimits(requests=1)),
            few_polls=ring.create("plain", limits=KeyLimits(polls=1)),
            few_tokens=ring.create("plain", limits=KeyLimits(tokens=100)),
            few_jobs=ring.create("plain", limits=KeyLimits(jobs=1)),
        )

    def _start_prometheus(self) -> None:
        directory = self._children.directory / "prometheus"
        piece = prometheus_piece(self.real, directory, interval=self._interval)
        path = directory / "prometheus.yml"
        written: dict[str, Any] = configuration(self.real, directory / "metrics_token", self._interval)
        more = configuration(self.simulated, directory / "metrics_token", self._interval)
        for job, other in zip(written["scrape_configs"], more["scrape_configs"], strict=True):
            if job["job_name"].startswith("inferq-"):
                job["static_configs"] += other["static_configs"]
        path.write_text(json.dumps(written))
        process = self._children.start("prometheus", piece.command, piece.env)
        wait_until(process, piece.ready, START_S)

    def _celery(self, module: str, settings: Settings) -> Child:
        name = f"{module}-{settings.public_model}"
        command = [
            sys.executable, "-m", "celery", "--quiet", "-A", f"workers.{module}", "worker", "--pool=threads", "-n",
            f"{name}@showcase",
            "--without-gossip", "--without-mingle",
        ]  # fmt: skip
        return self._children.start(name, command, environment_for(settings))


def logs(directory: Path) -> dict[str, str]:
    """Return what all processes have written, by file."""
    return {path.name: path.read_text(errors="replace") for path in directory.glob("*.log")}


def _ready(port: int) -> bool:
    return answers(port, "/readyz") == 200
