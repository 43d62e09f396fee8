"""Operator commands: ``python -m inferq …``. They talk to Redis, not to the API."""

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferq.credentials import KeyLimits, KeyRing
from inferq.doctor import examine, examine_receiver
from inferq.errors import InferqError
from inferq.findings import Finding, Level
from inferq.findings import found as finding
from inferq.operations import Operations
from inferq.redis_client import job_redis
from inferq.scripts import Scripts
from inferq.settings import load_settings
from inferq.tenants import USAGE_DAYS, Priority, Tenants

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Operator commands of inferq.")
keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
app.add_typer(keys, name="keys")

dead_letters = typer.Typer(no_args_is_help=True, help="Runs given up for good: list them, ask them again.")
app.add_typer(dead_letters, name="dead-letters")

EngineName = Annotated[str, typer.Argument(help="As GET /v1/queue names it.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Per minute; the tenant's or the service's when not given.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Jobs in flight; the tenant's or the service's when not given.")]
MaxPriority = Annotated[Priority | None, typer.Option(help="Jobs of a higher priority are accepted with this one.")]
Ceiling = Annotated[int | None, typer.Option(min=0, help="Of each of its keys; 0 takes the ceiling away.")]

tenants = typer.Typer(no_args_is_help=True, help="Weights and limits of tenants, and what they use.")
app.add_typer(tenants, name="tenants")

webhooks = typer.Typer(no_args_is_help=True, help="Secrets of webhooks, and deliveries given up for good.")
app.add_typer(webhooks, name="webhooks")
DeliveryName = Annotated[str, typer.Argument(help="The delivery, as the list names it.")]


@app.callback()
def main() -> None:
    """Operator commands of inferq."""


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Argument(help="Who owns the jobs made with this key.")],
    name: Annotated[str, typer.Option(help="A word to know the key by.")] = "",
    rate_limit: Limit = None,
    poll_rate_limit: Limit = None,
    token_rate_limit: Limit = None,
    max_jobs: Jobs = None,
    max_priority: MaxPriority = None,
) -> None:
    """Make a key and print it. It is shown once: only its hash is kept."""
    limits = KeyLimits(
        requests=rate_limit, polls=poll_rate_limit, tokens=token_rate_limit, jobs=max_jobs, max_priority=max_priority
    )
    typer.echo(_ring().create(tenant, name=name, limits=limits))


@keys.command("list")
def list_keys() -> None:
    """List all keys with tenant, limits and revocation; never the secret."""
    table = Table("id", "tenant", "name", "requests/min", "polls/min", "tokens/min", "jobs", "created", "revoked")
    for key in _ring().list():
        numbers = (key.limits.requests, key.limits.polls, key.limits.tokens, key.limits.jobs)
        table.add_row(
            key.key_id,
            key.tenant,
            key.name,
            *(str(number or "default") for number in numbers),
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


@tenants.command("list")
def list_tenants(
    days: Annotated[int, typer.Option(min=1, max=USAGE_DAYS, help="Days to add up, today included.")] = 1,
) -> None:
    """List all tenants: weight, what waits and is in flight, and jobs and tokens of the last days."""
    found = _tenants()
    outcomes = ("completed", "failed", "cancelled", "expired")
    table = Table("tenant", "weight", "max priority", "waiting", "in flight", "submitted", "hits", *outcomes, "tokens")
    for name in found.list():
        usage = found.usage(name, days)
        total: Counter[str] = Counter()
        for day in usage.days.values():
            total.update(day)
        table.add_row(
            f"{name} (suspended)" if found.is_suspended(name) else name,
            f"{usage.weight:g}",
            usage.max_priority,
            str(sum(usage.waiting.values())),
            str(usage.in_flight),
            *(str(total[what]) for what in ("submitted", "hits", *outcomes, "tokens")),
        )
    Console().print(table)


@tenants.command("set")
def set_tenant(
    tenant: Annotated[str, typer.Argument(help="Its name.")],
    weight: Annotated[float | None, typer.Option(help="Its share of the engine; 1 is everybody's.")] = None,
    max_priority: MaxPriority = None,
    rate_limit: Ceiling = None,
    poll_rate_limit: Ceiling = None,
    token_rate_limit: Ceiling = None,
    max_jobs: Ceiling = None,
) -> None:
    """Change a tenant's weight, highest priority, or ceilings; what is not given stays."""
    given = {"requests": rate_limit, "polls": poll_rate_limit, "tokens": token_rate_limit, "jobs": max_jobs}
    limits = {policy: count for policy, count in given.items() if count is not None}
    _tenants().set(tenant, weight=weight, max_priority=max_priority, limits=limits)
    typer.echo(f"changed {tenant}")


@tenants.command("suspend")
def suspend_tenant(tenant: Annotated[str, typer.Argument(help="Whose keys and tokens are refused.")]) -> None:
    """Refuse all keys and tokens of a tenant from now on; its jobs go on."""
    _tenants().suspend(tenant, suspended=True)
    typer.echo(f"suspended {tenant}")


@tenants.command("reinstate")
def reinstate_tenant(tenant: Annotated[str, typer.Argument(help="Whose keys and tokens are good again.")]) -> None:
    """Take a suspension back."""
    _tenants().suspend(tenant, suspended=False)
    typer.echo(f"reinstated {tenant}")


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


@webhooks.command("rotate")
def rotate_secret(
    tenant: Annotated[str, typer.Argument(help="Whose webhooks are signed with it.")],
    keep_old: Annotated[int, typer.Option(min=0, help="Seconds for which old secrets sign beside it.")] = 86_400,
) -> None:
    """Make a new signing secret and print it. It is shown once."""
    typer.echo(_operations().rotate_secret(tenant, keep_old * 1000))


@webhooks.command("dead")
def list_dead_deliveries(count: Annotated[int, typer.Option(min=1, max=1000, help="The latest so many.")] = 50) -> None:
    """List deliveries given up for good, with what was wrong at the last attempt."""
    table = Table("delivery", "since", "tenant", "address", "attempts", "why", "last attempt")
    for one in _operations().dead_deliveries(count):
        last = one.attempts[-1].error or "" if one.attempts else ""
        table.add_row(
            one.id, _day(one.ended_ms or 0), one.tenant, one.url, str(len(one.attempts)), one.reason or "", last
        )
    Console().print(table)


@webhooks.command("retry")
def retry_delivery(delivery: DeliveryName) -> None:
    """Deliver a dead letter after all; its address is enabled again."""
    typer.echo(f"to be sent to {_operations().retry_delivery(delivery).url}")


@webhooks.command("drop")
def drop_delivery(delivery: DeliveryName) -> None:
    """Forget a dead letter; its job can no longer deliver it."""
    _operations().drop_delivery(delivery)
    typer.echo(f"dropped {delivery}")


@app.command("doctor")
def doctor(
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Also see whether this receiver is reached.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write findings as JSON.")] = False,
) -> None:
    """Look at everything and say what is wrong and what to do. Exit status 1 when there is a problem."""
    try:
        settings = load_settings()
    except InferqError as error:
        findings = [finding("settings-wrong", sentence=str(error)[:1].upper() + str(error)[1:])]
    else:
        findings = [*examine(settings), *([examine_receiver(settings, webhook)] if webhook else [])]
    problems = [one for one in findings if one.level is Level.PROBLEM]
    if as_json:
        told = [{"check": one.check, **asdict(one)} for one in findings]
        typer.echo(json.dumps({"ok": not problems, "findings": told}))
    else:
        _tell(findings)
    raise typer.Exit(1 if problems else 0)


def _tell(findings: list[Finding]) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    looks = {Level.FINE: ("fine", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("PROBLEM", "red")}
    for one in findings:
        word, colour = looks[one.level]
        console.print(Text.assemble((f"{word:8}", colour), f"  {one.check:9} {one.says}"))
        if one.do:
            console.print(f"{'':21}{one.do}")


def _operations() -> Operations:
    return Operations(Scripts(job_redis(load_settings())))


def _tenants() -> Tenants:
    redis = job_redis(load_settings())
    return Tenants(redis, Scripts(redis))


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
