"""``python -m bench``: measure, print tables, write JSON."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import (
    capacity,
    fairness,
    latency,
    metrics,
    mixed,
    overload,
    scale,
    simulation,
    spike,
    streaming,
    tables,
    throughput,
    waiters,
    webhooks,
)
from bench.day import traffic
from bench.day.pictures import draw_day
from bench.day.plays import play
from bench.machine import describe_machine
from bench.processes import Children, children
from bench.stack import DEMO, engine_settings
from deploy.local.child import ROOT

app = typer.Typer(add_completion=False)

#: What is measured when nothing is named: all but what argues for a decision that has been taken.
USUAL = (
    "latency",
    "throughput",
    "scale",
    "spike",
    "fairness",
    "overload",
    "simulation",
    "webhooks",
    "metrics",
    "streaming",
    "capacity",
    "load",
    "day",
)
#: What answers where the engine itself is not what is measured.
ENGINES = ("vllm", "simulated")
Rounds = Annotated[int, typer.Option(min=1, help="Counted rounds; one more warms up.")]


@app.command()
def main(
    what: Annotated[
        list[str] | None, typer.Argument(help=f"{', '.join(USUAL)}, waiters; all but the last when not given.")
    ] = None,
    rounds: Rounds = 5,
    clients: Annotated[list[int] | None, typer.Option(help="Jobs in flight at once.")] = None,
    requests: Annotated[int, typer.Option(min=16, help="Requests of one latency measurement.")] = latency.HITS,
    held_open: Annotated[int, typer.Option("--waiters", min=1, help="Clients held at once.")] = waiters.WAITERS,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants, by name.")] = None,
    deepest: Annotated[int, typer.Option(min=100, help="Jobs waiting, at most.")] = scale.DEPTHS[-1],
    burst: Annotated[int, typer.Option(min=100, help="Requests of the spike.")] = spike.BURST,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of fairness's phases and of the overload.")] = 60.0,
    day: Annotated[int, typer.Option(min=10_000, help="Requests of the simulated day.")] = 2_000_000,
    seed: Annotated[int, typer.Option(help="Of the simulated day and the mixed load.")] = 1,
    users: Annotated[int, typer.Option(min=1, max=500, help="Clients of the mixed load.")] = mixed.USERS,
    engine: Annotated[str, typer.Option(help="vllm, or simulated: then figures say nothing of an engine.")] = "vllm",
    model: Annotated[
        str, typer.Option(help="Model of throughput, spike, webhooks and streaming: a name or directory.")
    ] = DEMO,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = ROOT / "bench-results",
    pictures: Annotated[Path | None, typer.Option(help="Where plots go; beside the JSON when not given.")] = None,
) -> None:
    """Measure inferq beside others in one run and say on which machine."""
    if engine not in ENGINES:
        raise typer.BadParameter(f"--engine is {' or '.join(ENGINES)}, not {engine}")
    behind = engine_settings(engine, model)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    found: dict[str, Any] = {"machine": describe_machine(), "engine": engine, "model": model, "at": at}
    tables.console.print(" · ".join(f"{name} {value}" for name, value in found["machine"].items()))
    out.mkdir(parents=True, exist_ok=True)
    calibration = out / "simulated-timing.json"

    def measure_latency(started: Children) -> Any:
        rows = latency.measure_latency(started, rounds, requests)
        tables.print_latency(rows)
        return [asdict(row) for row in rows]

    def measure_throughput(started: Children) -> Any:
        rows = throughput.measure_throughput(started, rounds, clients or [1, 16, 64], only or [], behind)
        tables.print_throughput(rows)
        return [asdict(row) for row in rows]

    def measure_scale(started: Children) -> Any:
        rows = scale.measure_scale(started, rounds, [depth for depth in scale.DEPTHS if depth <= deepest])
        tables.print_scale(rows)
        return [asdict(row) for row in rows]

    def measure_spike(started: Children) -> Any:
        rows = spike.measure_spike(started, burst, only or [], behind)
        tables.print_spike(rows)
        return [asdict(row) for row in rows]

    def measure_fairness(started: Children) -> Any:
        noise, shares = fairness.measure_fairness(started, seconds / 2)
        tables.print_fairness(noise, shares)
        return {"noise": asdict(noise), "shares": [asdict(one) for one in shares]}

    def measure_overload(started: Children) -> Any:
        overloaded = overload.measure_overload(started, seconds)
        tables.print_overload(overloaded)
        return asdict(overloaded)

    def measure_simulation(started: Children) -> Any:
        timing, rows = simulation.measure_simulation(started, rounds, calibration)
        tables.print_simulation(timing, rows)
        return {"timing": asdict(timing), "rows": [asdict(row) for row in rows]}

    def measure_webhooks(started: Children) -> Any:
        timing, rows = webhooks.measure_webhooks(started, rounds, seconds, (clients or [webhooks.CLIENTS])[0], behind)
        tables.print_webhooks(timing, rows)
        return {"timing": asdict(timing), "throughput": [asdict(row) for row in rows]}

    def measure_metrics(started: Children) -> Any:
        cost, scrapes = metrics.measure_metrics(started, rounds, requests)
        tables.print_metrics(cost, scrapes)
        return {"cost": asdict(cost), "scrapes": [asdict(one) for one in scrapes]}

    def measure_streaming(started: Children) -> Any:
        cost, rows = streaming.measure_streaming(started, rounds, (clients or [streaming.CLIENTS])[0], behind)
        tables.print_streaming(cost, rows)
        return {"cost": asdict(cost), "first_tokens": [asdict(row) for row in rows]}

    def measure_waiters(started: Children) -> Any:
        rows = waiters.measure_waiters(started, held_open, min(waiters.SUBMITS, requests))
        tables.print_waiters(rows)
        return [asdict(row) for row in rows]

    def measure_capacity(started: Children) -> Any:
        costs, weights = capacity.measure_capacity(started, rounds, 2 * requests)
        tables.print_capacity(costs, weights)
        return {"costs": [asdict(one) for one in costs], "weights": asdict(weights)}

    def measure_load(started: Children) -> Any:
        rows, course = mixed.measure_mixed(started, users, seconds, seed)
        tables.print_mixed(rows, course)
        tables.console.print(f"drawn into {mixed.draw(course, pictures or out)}")
        return {"requests": [asdict(row) for row in rows], "course": asdict(course)}

    def measure_day(_: Children) -> Any:
        demand = traffic.Traffic(requests=day, common=max(100, day // 100))
        played = play(demand, seed)
        tables.print_day(played)
        tables.console.print(f"drawn into {', '.join(file.name for file in draw_day(played, pictures or out))}")
        return {"traffic": asdict(demand), "seed": seed, "outcomes": [asdict(one) for one in played.outcomes]}

    measures: dict[str, Callable[[Children], Any]] = {
        "latency": measure_latency,
        "throughput": measure_throughput,
        "scale": measure_scale,
        "spike": measure_spike,
        "fairness": measure_fairness,
        "overload": measure_overload,
        "simulation": measure_simulation,
        "webhooks": measure_webhooks,
        "metrics": measure_metrics,
        "streaming": measure_streaming,
        "capacity": measure_capacity,
        "load": measure_load,
        "day": measure_day,
        "waiters": measure_waiters,
    }
    chosen = what or list(USUAL)
    if unknown := set(chosen) - set(measures):
        raise typer.BadParameter(
            f"there is no measurement {', '.join(sorted(unknown))}; there are {', '.join(measures)}"
        )
    began = time.monotonic()
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="inferq-bench-") as logs, children(Path(logs)) as started:
            found[name] = measures[name](started)
    file = out / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    tables.console.print(f"{time.monotonic() - began:.0f} s; written to {file}")


if __name__ == "__main__":
    app()
