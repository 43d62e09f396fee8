"""docker-compose.yml brought up under podman-compose, asked for everything it offers, and killed piece by piece."""

import base64
import http.client
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from deploy.containers.images import Say, expect, until
from deploy.containers.podman import healthy, inspect, podman, run
from deploy.local.child import ROOT
from deploy.local.stack import free_port

PROJECT: Final = "inferq-check"
SERVICES: Final = ("redis", "redis-cache", "api", "keeper", "worker-cpu", "flower", "prometheus", "receiver")
#: Killed one after the other, each while jobs are waiting and running.
VICTIMS: Final = ("worker-cpu", "keeper", "api", "redis", "redis-cache", "flower", "prometheus")
#: Jobs that are in flight while something dies, and tokens of each.
JOBS: Final = 24
TOKENS: Final = 200
#: Seconds for a service to be healthy again, an engine to be warm, and jobs to end.
UP_S: Final = 120.0
WARM_S: Final = 900.0
DONE_S: Final = 300.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; status 0 when there was none."""

    status: int
    text: str = ""

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        return dict(json.loads(self.text))


class Stack:
    """The project under podman-compose, its ports on loopback."""

    def __init__(self) -> None:
        self.ports = {name: free_port() for name in ("api", "flower", "prometheus", "grafana")}
        self._env = {f"{name.upper()}_PUBLISH": f"127.0.0.1:{port}" for name, port in self.ports.items()}
        run(ROOT / "deploy" / "compose" / "secrets.sh")
        self.secrets = {file.name: file.read_text() for file in (ROOT / "secrets").iterdir()}

    def compose(self, *arguments: str) -> None:
        """Run podman-compose on the project."""
        variables = [f"{name}={value}" for name, value in self._env.items()]
        files = ["--file", "docker-compose.yml", "--file", "deploy/containers/check.yml"]
        options = ["--in-pod", "false", "--project-name", PROJECT, "--env-file", "deploy/compose/cpu.env", *files]
        run("env", *variables, "podman-compose", *options, "--profile", "cpu", *arguments)

    def ask(self, service: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Answer:
        """Send a request to a published port; header names are given with underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[service], timeout=40)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named["Content-Type"] = "application/json"
        try:
            connection.request("POST" if body is not None else "GET", path, json.dumps(body) if body else None, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode())
        except (OSError, http.client.HTTPException):
            return Answer(0)
        finally:
            connection.close()

    def api(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> Answer:
        """Ask the API, with the key."""
        return self.ask("api", path, body, X_API_Key=self.secrets["bootstrap_api_key"], **headers)


def container(service: str) -> str:
    """Return the name podman-compose gives a service's container."""
    return f"{PROJECT}_{service}_1"


@contextmanager
def running(say: Say) -> Iterator[Stack]:
    """The stack, up and healthy; all of it goes again, with its volumes."""
    stack = Stack()
    try:
        stack.compose("up", "--detach", "--no-build", *SERVICES)
        began = time.monotonic()
        for service in SERVICES:
            if service != "receiver":
                wait_until_healthy(service)
        say(f"all healthy after {time.monotonic() - began:.0f} s: {', '.join(SERVICES)}")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")


def wait_until_healthy(service: str) -> None:
    """Wait for a service's own health check; raises ContainersFailed."""
    name = container(service)
    until(lambda: healthy(name), WARM_S if service == "worker-cpu" else UP_S, f"{service} is healthy", name)


def check(say: Say) -> None:
    """Bring the stack up, use it, kill it piece by piece; raises ContainersFailed."""
    with running(say) as stack:
        use(stack, say)
        for victim in VICTIMS:
            survive(stack, victim, say)


def use(stack: Stack, say: Say) -> None:
    """A job, its webhook, a cache hit, metrics, Flower."""
    question = {"prompt": "What happens when a worker dies?", "max_tokens": 128, "temperature": 0}
    told = {"webhook": {"url": "http://receiver:9000/webhooks/inferq"}}
    accepted = stack.api("/v1/jobs", question | told)
    expect(accepted.status == 202, f"a job is accepted ({accepted.status}: {accepted.text})")
    job = finished(stack, accepted.body["id"])
    say(f"job: {job['status']}, {job['usage']['completion_tokens']} tokens: {job['output']['text'][:60]}…")
    again = stack.api("/v1/jobs", question)
    expect(again.status == 200 and again.body["cache"]["status"] == "hit", "the same question is a cache hit")
    expect(again.body["output"]["text"] == job["output"]["text"], "with the same answer")
    say("cache: hit, from redis-cache")
    until(
        lambda: job["id"] in podman("logs", container("receiver")), UP_S, "the webhook is received", container("keeper")
    )
    say("webhook: received, its signature verified")
    expect(stack.ask("api", "/metrics").status == 401, "metrics are closed without the token")
    until(lambda: set(targets(stack).values()) == {"up"}, UP_S, "Prometheus reaches every target")
    say(f"prometheus: up: {', '.join(sorted(targets(stack)))}")
    expect(stack.ask("flower", "/flower/workers").status == 401, "Flower asks for a password")
    login = base64.b64encode(f"admin:{stack.secrets['flower_password']}".encode()).decode()
    page = stack.ask("flower", "/flower/workers", Authorization=f"Basic {login}")
    expect(page.status == 200 and "worker@" in page.text and "keeper@" in page.text, "Flower shows worker and keeper")
    say("flower: shows worker and keeper, to who has the password")


def targets(stack: Stack) -> dict[str, str]:
    """Return how Prometheus finds the processes it scrapes, by job."""
    answer = stack.ask("prometheus", "/api/v1/targets")
    found = answer.body["data"]["activeTargets"] if answer.status == 200 else []
    health = {target["labels"]["job"]: target["health"] for target in found}
    return {job: health.get(job, "missing") for job in (*JOB_NAMES, *health)}


#: What Prometheus must scrape: the jobs of deploy/prometheus/prometheus.yml.
JOB_NAMES: Final = ("prometheus", "inferq-api", "inferq-worker", "inferq-keeper", "flower")


def survive(stack: Stack, victim: str, say: Say) -> None:
    """Kill a service's process while jobs are in flight; it must come back by itself and every job must end well."""
    jobs = [submit(stack) for _ in range(JOBS)]
    name = container(victim)
    pid = int(inspect(name)["State"]["Pid"])
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)  # as a crash would: nobody has asked podman to stop it, so its restart policy counts
    jobs += [submit(stack) for _ in range(JOBS // 4)]
    until(lambda: inspect(name)["State"]["Pid"] not in (0, pid), UP_S, f"{victim} is started again", name)
    wait_until_healthy(victim)
    back = time.monotonic() - began
    for job in jobs:
        finished(stack, job)
    say(f"{victim}: killed, healthy again after {back:.0f} s; {len(jobs)} of {len(jobs)} jobs completed")


def submit(stack: Stack) -> str:
    """Submit a job nobody has submitted; an answer that does not come is asked for again under the same key."""
    key = secrets.token_hex(8)
    body = {"prompt": f"{key}: what is a lease?", "max_tokens": TOKENS}
    accepted = Answer(0)

    def done() -> bool:
        nonlocal accepted
        accepted = stack.api("/v1/jobs", body, Idempotency_Key=key)
        return accepted.status in (200, 202)

    until(done, UP_S, "a submit is accepted", container("api"))
    return str(accepted.body["id"])


def finished(stack: Stack, job: str) -> dict[str, Any]:
    """Wait for a job's end and return it; raises ContainersFailed when it is lost or not completed."""
    last = Answer(0)

    def ended() -> bool:
        nonlocal last
        last = stack.api(f"/v1/jobs/{job}", Prefer="wait=10")
        expect(last.status not in (404, 410), f"job {job} is not lost")
        return last.status == 200 and bool(last.body["terminal"])

    until(ended, DONE_S, f"job {job} has ended", container("worker-cpu"))
    expect(last.body["status"] == "completed", f"job {job} is completed: {last.text}")
    return last.body
