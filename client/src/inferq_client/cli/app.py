"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inferq_client import Job, __version__
from inferq_client.cli import top as top_view
from inferq_client.cli.batch import Batch, run_batch
from inferq_client.cli.ending import Exit, connected
from inferq_client.cli.following import Followed, on_terminal
from inferq_client.cli.options import (
    JobId,
    Json,
    Key,
    MaxTokens,
    Model,
    Priority,
    Seed,
    Temperature,
    Url,
    given,
    pairs,
    prompt_of,
)
from inferq_client.cli.saying import put, put_answer, put_json, put_rows, say, story
from inferq_client.mapping import CONCURRENCY

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ask inferq: submit prompts, follow jobs, work off files.",
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Say the version.")] = False) -> None:
    """Ask inferq: submit prompts, follow jobs, work off files."""
    if version:
        put(f"inferq {__version__}\n")
        raise typer.Exit


@app.command()
def submit(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    url: Url = None,
    api_key: Key = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text; may be repeated.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask as a message of a conversation.")] = False,
    priority: Priority = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Where to tell of the job's end.")] = None,
    start_within: Annotated[float | None, typer.Option(metavar="SECONDS", help="Not worth starting later.")] = None,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="Not worth having later.")] = None,
    cache: Annotated[str, typer.Option(metavar="CONTROL", help="no-cache, no-store or only-if-cached.")] = "",
    idempotency_key: Annotated[str | None, typer.Option(metavar="KEY", help="The same key, the same job.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Or only say the job's id.")] = True,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Wait no longer; the job lives on.")] = None,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Write tokens as they come.  [default: on a terminal]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask one question. Ctrl-C cancels it."""
    limits = given(start_within_s=start_within, total_s=deadline)
    body = given(
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        stop=stop or [],
        priority=priority,
        metadata=pairs(metadata or []),
        webhook={"url": webhook} if webhook else None,
        deadline=limits or None,
    )
    asked = prompt_of(prompt, system, chat=chat)
    how = {"cache_control": cache, **given(idempotency_key=idempotency_key)}
    streaming = on_terminal() and timeout is None and not as_json if stream is None else stream
    with connected(url, api_key) as client:
        if not wait:
            job = client.submit(asked, **how, **body)
            put_json(job.raw) if as_json else put(f"{job.id}\n")
            return
        following = Followed(client)
        if streaming and not as_json:
            job = following.stream(client.stream(asked, **how, **body))
        else:
            job = following.watch(client.submit(asked, **how, **body), timeout, silent=as_json)
        _tell_end(job, as_json=as_json)


@app.command()
def get(
    job: JobId,
    url: Url = None,
    api_key: Key = None,
    wait: Annotated[bool, typer.Option("--wait", help="For its end.")] = False,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Wait no longer.")] = None,
    as_json: Json = False,
) -> None:
    """Show a job: its answer on stdout, what there is to say about it on stderr."""
    with connected(url, api_key) as client:
        found = client.wait(job, timeout_s=timeout) if wait else client.get(job)
        if not as_json:
            put_answer(found)
        _tell_end(found, as_json=as_json)


@app.command()
def cancel(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Their ids.")],
    url: Url = None,
    api_key: Key = None,
    as_json: Json = False,
) -> None:
    """Cancel jobs."""
    with connected(url, api_key) as client:
        for name in jobs:
            job = client.cancel(name)
            put_json(job.raw) if as_json else put(f"{job.id} {job.status}\n")


@app.command("list")
def list_jobs(
    url: Url = None,
    api_key: Key = None,
    status: Annotated[str | None, typer.Option(help="Only these, as queued or completed.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="The latest so many; 0 for all.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first: a table on a terminal, otherwise tabs between."""
    with connected(url, api_key) as client:
        found = client.list(status=status, limit=limit or None)
        if as_json:
            for job in found:
                put_json(job.raw)
            return
        put_rows(("job", "status", "priority", "created", "tokens", "total s", "cache"), (_row(job) for job in found))


@app.command()
def batch(
    prompts: Annotated[
        Path, typer.Argument(help="A line each: a JSON string, or an object as POST /v1/jobs takes it.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where results go, a line each.")],
    url: Url = None,
    api_key: Key = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Jobs under way at once.")] = CONCURRENCY,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    priority: Priority = None,
    name: Annotated[str | None, typer.Option(help="Another name asks the same lines anew.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what has failed before.")] = False,
    as_json: Json = False,
) -> None:
    """Work off a file. Interrupted, the same command goes on: nothing is run twice."""
    body = given(model=model, max_tokens=max_tokens, temperature=temperature, seed=seed, priority=priority)
    with connected(url, api_key) as client:
        work = Batch(prompts, output, name=name or "", options=body, retry_failed=retry_failed)
        counts = run_batch(work, client.url, api_key, concurrency)
        if as_json:
            put_json(counts)
        if counts["completed"] < counts["lines"]:
            raise typer.Exit(Exit.NOT_COMPLETED)


@app.command()
def top(
    url: Url = None,
    api_key: Key = None,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once; as where stdout is no terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Watch queue, workers and engines until Ctrl-C."""
    with connected(url, api_key) as client:
        if as_json:
            put_json(top_view.snapshot(client))
        elif once or not on_terminal():
            top_view.show_once(client)
        else:
            top_view.show(client, every)


def _tell_end(job: Job, *, as_json: bool) -> None:
    if as_json:
        put_json(job.raw)
    else:
        say(story(job) + (f"   {job.id}" if job.id else ""), "dim")
    if job.terminal and job.status != "completed":
        raise typer.Exit(Exit.NOT_COMPLETED)


def _row(job: Job) -> tuple[str, ...]:
    created = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if job.created_at else ""
    tokens = str(job.usage.completion_tokens) if job.usage else ""
    total = "" if job.timings.total_s is None else f"{job.timings.total_s:.2f}"
    return (job.id or "", job.status, job.priority, created, tokens, total, job.cache)
