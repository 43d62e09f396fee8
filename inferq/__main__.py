"""Operator commands: ``python -m inferq …``. They talk to Redis, not to the API."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from inferq.credentials import KeyRing
from inferq.errors import InferqError
from inferq.redis_client import job_redis
from inferq.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Operator commands of inferq.")
keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
app.add_typer(keys, name="keys")

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
