"""Operator commands: ``python -m inferq …``. They talk to Redis, not to the API."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from inferq.credentials import KeyRing
from inferq.errors import InferqError
from inferq.operations import Operations
from inferq.redis_client import job_redis
from inferq.scripts import Scripts
from inferq.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Operator commands of inferq.")
keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
app.add_typer(keys, name="keys")

dead_letters = typer.Typer(no_args_is_help=True, help="Runs given up for good: list them, ask them again.")
app.add_typer(dead_letters, name="dead-letters")

EngineName = Annotated[str, typer.Argument(help="As GET /v1/queue names it.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Per minute; the service's default when not given.")]


@app.callback()
def main() -> None:
    """Operator commands of inferq."""


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Argument(help="Who owns the jobs made with this key.")],
    name: Annotated[str, typer.Option(help="A word to know the key by.")] = "",
    rate_limit: Limit = None,
    poll_rate_limit: Limit = None,
) -> None:
    """Make a key and print it. It is shown once: only its hash is kept."""
    typer.echo(_ring().create(tenant, name=name, requests=rate_limit, polls=poll_rate_limit))


@keys.command("list")
def list_keys() -> None:
    """List all keys with tenant, limits and revocation; never the secret."""
    table = Table("id", "tenant", "name", "requests/min", "polls/min", "created", "revoked")
    for key in _ring().list():
        table.add_row(
            key.key_id,
            key.tenant,
            key.name,
            str(key.requests or "default"),
            str(key.polls or "default"),
            _day(key.created_ms),
            _day(key.revoked_ms) if key.revoked_ms else "",
        )
    Console().print(table)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The id: the part between iq_ and the secret.")]) -> None:
    """Revoke a key at once and for good."""
    if not _ring().revoke(key_id):
        raise InferqError(f"there is no key with the id {key_id}")
    typer.echo(f"revoked {key_id}")


@app.command("pause")
def pause(engine: EngineName) -> None:
    """Let an engine's runs finish and claim no more. Jobs are still accepted, and wait."""
    _operations().pause(engine, paused=True)
    typer.echo(f"paused {engine}")


@app.command("resume")
def resume(engine: EngineName) -> None:
    """Claim again."""
    _operations().pause(engine, paused=False)
    typer.echo(f"resumed {engine}")


@app.command("purge")
def purge(tenant: Annotated[str, typer.Argument(help="Whose queued jobs are cancelled.")]) -> None:
    """Cancel all queued jobs of a tenant; those that run go on."""
    typer.echo(f"cancelled {_operations().purge(tenant)} jobs of {tenant}")


@dead_letters.command("list")
def list_dead_letters(count: Annotated[int, typer.Option(min=1, max=1000, help="The latest so many.")] = 50) -> None:
    """List runs given up for good; never what was asked."""
    table = Table("run", "since", "engine", "code", "attempts", "dead engines", "lost leases", "jobs")
    for letter in _operations().dead_letters(count):
        jobs = "\n".join(f"{tenant} {job}" for tenant, job in letter.jobs)
        counts = (str(letter.attempts), str(letter.strikes), str(letter.lost))
        table.add_row(letter.run, _day(letter.buried_ms), letter.engine, letter.code, *counts, jobs)
    Console().print(table)


@dead_letters.command("requeue")
def requeue_dead_letter(run: Annotated[str, typer.Argument(help="The run, as the list names it.")]) -> None:
    """Ask once more, as new jobs of the same tenants: a failed job stays failed."""
    for tenant, job in _operations().requeue(run):
        typer.echo(f"{tenant} {job}")


def _operations() -> Operations:
    return Operations(Scripts(job_redis(load_settings())))


def _ring() -> KeyRing:
    return KeyRing(job_redis(load_settings()))


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def run() -> int:
    """Run the command line; errors an operator can cause are one sentence and exit status 1."""
    try:
        app()
    except InferqError as error:
        typer.echo(f"inferq: {error}", err=True)
    except RedisError as error:
        typer.echo(f"inferq: Redis does not answer ({type(error).__name__}); is REDIS_URL right?", err=True)
    return 1


if __name__ == "__main__":
    raise SystemExit(run())
