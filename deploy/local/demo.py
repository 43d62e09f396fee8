"""``demo``: one question from the front door to the engine and back, then the same question from the cache."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.local import stack
from deploy.local.supervisor import PieceFailed, Supervisor
from deploy.local.up import ended_by_signals
from inferq.errors import InferqError
from inferq_client import Accepted, Ended, Inferq, Job, JobOptions, Place, Restarted, Status, Token
from inferq_client import InferqError as ClientError

#: The question that is followed.
QUESTION: Final = "What happens when a worker dies?"
#: Asked just before it, so that it has to wait: the demo's engine takes two at a time.
BEFORE: Final = (
    "Follow a job through inferq.",
    "How are tenants kept fair?",
    "What does inferq promise?",
    "Who are you?",
)
#: How all of them are asked. After so many seconds nobody waits for an answer any more.
ASKED: Final[JobOptions] = {"max_tokens": 256, "temperature": 0.0, "deadline": {"total_s": 120.0}}


class DemoFailed(InferqError):
    """The demo did not get its answer."""


def demo(console: Console) -> None:
    """Tell the story; raises InferqError when a piece cannot start or the answer does not come."""
    with logs() as home:
        settings, private = stack.local_settings(
            api_port=stack.free_port(), max_num_seqs=2, lease=2.0, **stack.FREE_METRICS
        )
        supervisor = Supervisor(home, lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
        with ended_by_signals(supervisor):
            try:
                console.print("Starting Redis, the API, the keeper and a worker; the engine takes about half a minute.")
                if private:
                    supervisor.start(stack.redis_piece(settings, home / "redis"))
                supervisor.start(stack.api_piece(settings))
                supervisor.start(stack.keeper_piece(settings), stack.worker_piece(settings))
                key = settings.bootstrap_api_key
                url = f"http://{settings.api_host}:{settings.api_port}"
                with Inferq(url, key.get_secret_value() if key else "") as client:
                    tell(console, client)
            except ClientError as error:
                raise DemoFailed(f"the demo did not get its answer: {error} (logs: {home})") from None
            finally:
                supervisor.stop()
    console.print("Everything is stopped again. `make up` keeps it running.")


@contextlib.contextmanager
def logs() -> Iterator[Path]:
    """Give a directory that goes again, unless a piece or the demo fails: then its logs say why."""
    home = Path(tempfile.mkdtemp(prefix="inferq-demo-"))
    try:
        yield home
    except (PieceFailed, DemoFailed):
        raise
    except BaseException:
        shutil.rmtree(home)
        raise
    shutil.rmtree(home)


def tell(console: Console, client: Inferq) -> None:
    """Ask, follow the job, show the answer, ask again."""
    console.print()
    for prompt in BEFORE:
        client.submit(prompt, **ASKED)
    console.print(Text.assemble(f"{len(BEFORE)} questions are asked, and then: ", (QUESTION, "bold")))
    began = time.perf_counter()
    job = follow(console, client, began)
    asked_s = time.perf_counter() - began
    began = time.perf_counter()
    again = client.submit(QUESTION, idempotency_key=None, **ASKED)
    console.print(comparison(job, asked_s, again, time.perf_counter() - began))


def follow(console: Console, client: Inferq, began: float) -> Job:
    """Ask the question and show where its job is, and the answer as it comes; returns the completed job."""
    answer, state, shown, job = "", "", "", None
    with Live(console=console, auto_refresh=False) as live:
        for event in client.stream(QUESTION, **ASKED):
            seconds = time.perf_counter() - began
            match event:
                case Accepted():
                    line = f"202 Accepted after {1000 * seconds:.1f} ms: job {event.job.id}"
                    live.console.print(line, highlight=False, soft_wrap=True)
                    state = where(event.job.status, event.job.queue)
                case Status():
                    state = where(event.status, event.queue)
                case Token():
                    answer += event.text
                case Restarted():
                    answer = ""
                case Ended():
                    job, state = event.job, ending(event.job)
            # On a terminal the lines change in place; elsewhere each new state is a line of its own.
            if console.is_terminal:
                live.update(Group(f"{state}   {seconds:5.1f} s", *boxed(answer)), refresh=True)
            elif state != shown:
                live.console.print(f"{state}   {seconds:5.1f} s", highlight=False)
            shown = state
    if job is None:
        raise DemoFailed("the story of the job has no end")
    if not console.is_terminal:
        console.print(*boxed(answer))
    return job


def boxed(answer: str) -> list[RenderableType]:
    """Return the answer so far in a box; nothing before its first word."""
    return [Panel(Text(answer), title="the answer", expand=False)] if answer else []


def where(status: str, place: Place | None) -> str:
    """Say where a job is."""
    return f"queued, position {place.position}" if place else status.replace("_", " ")


def ending(job: Job) -> str:
    """Say how a job ended."""
    tokens = job.usage.completion_tokens if job.usage else 0
    spent = f"{job.timings.queue_s or 0:.1f} s waiting, {job.timings.run_s or 0:.1f} s in the engine"
    return f"{job.status}, {tokens} tokens ({spent})"


def comparison(job: Job, asked_s: float, again: Job, again_s: float) -> Table:
    """Return both ways to the same answer side by side."""
    table = Table("", "asked first", "asked again", title="the same question twice")
    table.add_row("HTTP status", "202, then a stream of events", "200")
    table.add_row("cache", job.cache, again.cache)
    table.add_row(
        "answer",
        f"{job.usage.completion_tokens if job.usage else 0} tokens",
        "the same" if again.text == job.text else "another",
    )
    table.add_row("latency", f"{1000 * asked_s:.0f} ms", f"{1000 * again_s:.1f} ms", style="bold")
    return table
