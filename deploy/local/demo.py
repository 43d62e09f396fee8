"""``demo``: one question from the front door to the engine and back, then the same question from the cache."""

import http.client
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.local import stack
from deploy.local.supervisor import Supervisor
from deploy.local.up import ended_by_signals
from inferq.errors import InferqError
from inferq.settings import Settings

#: The question that is followed.
QUESTION: Final = "What happens when a worker dies?"
#: Asked just before it, so that it has to wait: the demo's engine takes two at a time.
BEFORE: Final = (
    "Follow a job through inferq.",
    "How are tenants kept fair?",
    "What does inferq promise?",
    "Who are you?",
)
#: Seconds after which the demo gives up on its answer.
PATIENCE_S: Final = 120.0


class DemoFailed(InferqError):
    """The demo did not get its answer."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: status, headers, decoded body, and the seconds it took."""

    status: int
    headers: http.client.HTTPMessage
    body: dict[str, Any]
    seconds: float


class Client:
    """The HTTP a client of inferq speaks, on one connection."""

    def __init__(self, settings: Settings) -> None:
        self._connection = http.client.HTTPConnection(settings.api_host, settings.api_port, timeout=60)
        key = settings.bootstrap_api_key
        self._headers = {"X-API-Key": key.get_secret_value() if key else "", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Reply:
        """Send a request; header names are given with underscores."""
        began = time.perf_counter()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, json.dumps(body) if body else None, self._headers | named)
        answer = self._connection.getresponse()
        text = answer.read()
        return Reply(answer.status, answer.headers, json.loads(text) if text else {}, time.perf_counter() - began)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def demo(console: Console) -> None:
    """Tell the story; raises InferqError when a piece cannot start or the answer does not come."""
    with tempfile.TemporaryDirectory(prefix="inferq-demo-") as home:
        settings, private = stack.local_settings(
            api_port=stack.free_port(), max_num_seqs=2, lease=2.0, **stack.FREE_METRICS
        )
        supervisor = Supervisor(
            Path(home), lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
        )
        with ended_by_signals(supervisor):
            try:
                console.print("Starting Redis, the API, the keeper and a worker; the engine takes about half a minute.")
                if private:
                    supervisor.start(stack.redis_piece(settings, Path(home, "redis")))
                supervisor.start(stack.api_piece(settings))
                supervisor.start(stack.keeper_piece(settings), stack.worker_piece(settings))
                client = Client(settings)
                try:
                    tell(console, client)
                finally:
                    client.close()
            finally:
                supervisor.stop()
    console.print("Everything is stopped again. `make up` keeps it running.")


def tell(console: Console, client: Client) -> None:
    """Ask, follow the job, show the answer, ask again."""
    console.print()
    for prompt in BEFORE:
        client.call("POST", "/v1/jobs", _body(prompt))
    console.print(Text.assemble(f"{len(BEFORE)} questions are asked, and then: ", (QUESTION, "bold")))
    began = time.perf_counter()
    accepted = client.call("POST", "/v1/jobs", _body(QUESTION))
    if accepted.status != 202:
        raise DemoFailed(f"the API answered {accepted.status}: {accepted.body.get('detail', '')}")
    console.print(
        f"202 Accepted after {1000 * accepted.seconds:.1f} ms: job {accepted.body['id']}",
        highlight=False,
        soft_wrap=True,
    )
    job = follow(console, client, accepted.body, began)
    asked = time.perf_counter() - began
    if job["status"] != "completed":
        raise DemoFailed(f"the job is {job['status']}: {(job['error'] or {}).get('message', '')}")
    console.print(Panel(job["output"]["text"], title="the answer", expand=False))
    again = client.call("POST", "/v1/jobs", _body(QUESTION))
    console.print(comparison(accepted, job, asked, again))


def follow(console: Console, client: Client, job: dict[str, Any], began: float) -> dict[str, Any]:
    """Show where the job is until it has ended; returns it."""
    with Live(console=console, auto_refresh=False, transient=False) as live:
        shown = ""
        while True:
            seconds = time.perf_counter() - began
            line = where(job, seconds)
            # On a terminal the line changes in place; elsewhere each new state is a line of its own.
            if console.is_terminal:
                live.update(Text(line), refresh=True)
            elif (state := line.rpartition("   ")[0]) != shown:
                live.console.print(line, highlight=False)
                shown = state
            if job["terminal"]:
                return job
            if seconds > PATIENCE_S:
                raise DemoFailed(f"the job is still {job['status']} after {seconds:.0f} s")
            time.sleep(0.1)
            reply = client.call("GET", f"/v1/jobs/{job['id']}")
            if reply.status != 200:
                raise DemoFailed(f"the API answered {reply.status}: {reply.body.get('detail', '')}")
            job = reply.body


def where(job: dict[str, Any], seconds: float) -> str:
    """Say in a line where a job is."""
    if job["status"] == "queued":
        return f"queued, position {job['queue']['position']}   {seconds:5.1f} s"
    if job["status"] == "in_progress":
        tokens = (job["usage"] or {"completion_tokens": 0})["completion_tokens"]
        return f"in progress, {tokens} tokens   {seconds:5.1f} s"
    usage = job["usage"] or {"completion_tokens": 0}
    metrics = job["metrics"]
    return (
        f"{job['status']}, {usage['completion_tokens']} tokens   {seconds:5.1f} s "
        f"({metrics['queue_s'] or 0:.1f} s waiting, {metrics['run_s'] or 0:.1f} s in the engine)"
    )


def comparison(accepted: Reply, job: dict[str, Any], asked_s: float, again: Reply) -> Table:
    """Return both ways to the same answer side by side."""
    same = (again.body.get("output") or {}).get("text") == job["output"]["text"]
    table = Table("", "asked first", "asked again", title="the same question twice")
    table.add_row("HTTP status", f"{accepted.status}, then polled", str(again.status))
    table.add_row("cache", job["cache"]["status"], again.body["cache"]["status"])
    table.add_row("Cache-Status", accepted.headers["Cache-Status"], again.headers["Cache-Status"])
    table.add_row("answer", f"{job['usage']['completion_tokens']} tokens", "the same" if same else "another")
    table.add_row("latency", f"{1000 * asked_s:.0f} ms", f"{1000 * again.seconds:.1f} ms", style="bold")
    return table


def _body(prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": 256, "temperature": 0.0}
