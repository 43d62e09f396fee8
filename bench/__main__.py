"""``python -m bench``: measure, print tables, write JSON."""

import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench import latency, throughput, waiters
from bench.machine import describe_machine
from bench.processes import children
from deploy.local.child import ROOT

app = typer.Typer(add_completion=False)
console = Console()

Rounds = Annotated[int, typer.Option(min=1, help="Counted rounds; one more warms up.")]


@app.command()
def main(
    what: Annotated[
        list[str] | None, typer.Argument(help="latency, throughput, waiters; the first two when not given.")
    ] = None,
    rounds: Rounds = 5,
    clients: Annotated[list[int] | None, typer.Option(help="Jobs in flight at once.")] = None,
    requests: Annotated[int, typer.Option(min=16, help="Requests of one latency measurement.")] = latency.HITS,
    held_open: Annotated[int, typer.Option("--waiters", min=1, help="Long-polls held at once.")] = waiters.WAITERS,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants, by name.")] = None,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = ROOT / "bench-results",
) -> None:
    """Measure inferq beside others in one run and say on which machine."""
    found: dict[str, Any] = {"machine": describe_machine(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    console.print(" · ".join(f"{name} {value}" for name, value in found["machine"].items()))
    chosen = what or ["latency", "throughput"]
    began = time.monotonic()
    if "latency" in chosen:
        with tempfile.TemporaryDirectory(prefix="inferq-bench-") as logs, children(Path(logs)) as started:
            rows = latency.measure_latency(started, rounds, requests)
        print_latency(rows)
        found["latency"] = latency.as_json(rows)
    if "throughput" in chosen:
        with tempfile.TemporaryDirectory(prefix="inferq-bench-") as logs, children(Path(logs)) as started:
            lines = throughput.measure_throughput(started, rounds, clients or [1, 16, 64], only or [])
        print_throughput(lines)
        found["throughput"] = throughput.as_json(lines)
    if "waiters" in chosen:
        with tempfile.TemporaryDirectory(prefix="inferq-bench-") as logs, children(Path(logs)) as started:
            held = waiters.measure_waiters(started, held_open)
        print_waiters(held)
        found["waiters"] = waiters.as_json(held)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    console.print(f"{time.monotonic() - began:.0f} s; written to {file}")


def print_latency(rows: list[latency.Row]) -> None:
    """Print milliseconds per request, and each as a multiple of the bare view."""
    table = Table("request", "p50 ms", "rounds", "p99 ms", "x bare view", f"per s, {latency.CROWD} clients")
    for row in rows:
        table.add_row(
            row.request,
            f"{row.p50_ms:.2f}",
            f"{row.p50_lowest:.2f} to {row.p50_highest:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.p50_ms / rows[0].p50_ms:.2f}",
            f"{row.per_s:.0f}",
        )
    console.print(table)


def print_throughput(rows: list[throughput.Row]) -> None:
    """Print tokens a second, each as a share of the engine called directly and of vLLM's server."""
    base = {(row.contestant, row.clients): row.tokens_per_s for row in rows}
    table = Table("in flight", "contestant", "tokens/s", "rounds", "of direct", "of server", "p50 s", "CPU ms per job")
    for row in rows:
        table.add_row(
            str(row.clients),
            row.contestant,
            f"{row.tokens_per_s:.0f}",
            f"{row.lowest:.0f} to {row.highest:.0f}",
            *(
                f"{row.tokens_per_s / base[name, row.clients]:.2f}" if (name, row.clients) in base else ""
                for name in ("AsyncLLM called directly", "vLLM's server")
            ),
            f"{row.p50_s:.2f}",
            ", ".join(f"{part} {ms:.1f}" for part, ms in row.cpu_ms_per_job.items()),
        )
    console.print(table)


def print_waiters(rows: list[waiters.Row]) -> None:
    """Print what holding long-polls costs under each worker class."""
    table = Table("worker class", "held", "MiB", "submit p50 ms", "while held", "p99", "all answered after s")
    for row in rows:
        table.add_row(
            row.worker_class,
            str(row.held),
            f"{row.mib:.0f}",
            f"{row.submit_p50_ms:.2f}",
            f"{row.submit_held_p50_ms:.2f}",
            f"{row.submit_held_p99_ms:.2f}",
            f"{row.all_answered_s:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    app()
