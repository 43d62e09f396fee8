"""Measurements as tables on a terminal."""

import sys

from rich.console import Console
from rich.table import Table

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
    throughput,
    waiters,
    webhooks,
)
from bench.day.plays import Played
from workers.timing import Timing

#: A file gets as many columns as the widest table needs.
console = Console(width=None if sys.stdout.isatty() else 120)


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
    """Print what holding clients costs under each worker class."""
    table = Table(
        "worker class", "held", "MiB", "submit p50 ms", "p99", "while held p50", "p99", "x", "all know after s"
    )
    for row in rows:
        table.add_row(
            row.worker_class,
            str(row.held),
            f"{row.mib:.0f}",
            f"{row.submit_p50_ms:.2f}",
            f"{row.submit_p99_ms:.2f}",
            f"{row.submit_held_p50_ms:.2f}",
            f"{row.submit_held_p99_ms:.2f}",
            f"{row.times:.1f}",
            f"{row.all_answered_s:.2f}",
        )
    console.print(table)


def print_scale(rows: list[scale.Row]) -> None:
    """Print what an operation costs at each depth, and what a waiting job weighs."""
    table = Table("operation", "waiting", "us", "rounds", "x shallow", "bytes per waiting job")
    for row in rows:
        table.add_row(
            row.operation,
            f"{row.depth:,}",
            f"{row.us:.0f}",
            f"{row.lowest:.0f} to {row.highest:.0f}",
            f"{row.times:.2f}",
            f"{row.bytes_per_job:.0f}",
        )
    console.print(table)


def print_spike(rows: list[spike.Row]) -> None:
    """Print what became of the burst."""
    counts = ("accepted", "refused", "timed out", "failed", "lost")
    table = Table("burst", *counts, "answer p50 ms", "p99", "result p50 s", "p99", "all done after s")
    for row in rows:
        table.add_row(
            row.service,
            *(str(count) for count in (row.accepted, row.refused, row.timed_out, row.failed, row.lost)),
            f"{row.answer_p50_ms:.0f}",
            f"{row.answer_p99_ms:.0f}",
            f"{row.result_p50_s:.1f}",
            f"{row.result_p99_s:.1f}",
            f"{row.makespan_s:.1f}",
        )
    console.print(table)


def print_fairness(noise: fairness.Noise, shares: list[fairness.Share]) -> None:
    """Print the quiet tenants' wait, and the priorities' shares."""
    table = Table("quiet tenants", "p50 s", "p99 s", title=f"capacity {noise.capacity_per_s:.1f} jobs/s, half offered")
    table.add_row("alone", f"{noise.alone_p50_s:.2f}", f"{noise.alone_p99_s:.2f}")
    table.add_row(f"beside {noise.noisy_sent} noisy jobs", f"{noise.beside_p50_s:.2f}", f"{noise.beside_p99_s:.2f}")
    table.add_row("times", f"{noise.times:.2f}", "")
    console.print(table)
    table = Table("priority", "share of service", "by weight", "ratio")
    for one in shares:
        table.add_row(one.priority, f"{one.share:.3f}", f"{one.weight:.3f}", f"{one.share / one.weight:.2f}")
    console.print(table)


def print_overload(found: overload.Overload) -> None:
    """Print what an overload does."""
    table = Table("ten times the capacity", "")
    table.add_row("offered", str(found.offered))
    table.add_row("accepted", str(found.accepted))
    table.add_row("of the accepted, started in time", f"{100 * found.started_in_time:.2f} %")
    table.add_row("of the engine's capacity, used", f"{100 * found.busy:.0f} %")
    table.add_row("refusal p50, p99 ms", f"{found.refused_p50_ms:.1f}, {found.refused_p99_ms:.1f}")
    table.add_row("202 p99 ms", f"{found.accepted_p99_ms:.1f}")
    table.add_row("seconds to recover", f"{found.recovered_s:.1f}")
    console.print(table)


def print_simulation(timing: Timing, rows: list[simulation.Row]) -> None:
    """Print the calibration, and predicted beside measured."""
    console.print(
        f"calibrated: a step takes {1000 * timing.base_s:.2f} ms, {1000 * timing.sequence_s:.3f} ms a sequence, "
        f"{1000 * timing.prompt_token_s:.3f} ms a prompt token"
    )
    table = Table("clients", "requests", "prompt characters", "tokens", "measured s", "predicted s", "ratio")
    for row in rows:
        load = (row.load.clients, row.load.requests, row.load.characters, row.load.tokens)
        table.add_row(
            *(str(one) for one in load), f"{row.measured_s:.2f}", f"{row.predicted_s:.2f}", f"{row.ratio:.2f}"
        )
    console.print(table)


def print_webhooks(timing: webhooks.Timing, rows: list[webhooks.Throughput]) -> None:
    """Print how soon receivers were told, and what the engine did meanwhile."""
    table = Table(
        "told beside as many receivers that hang", "p50 s", "p99 s", "longest s", "keeper MiB before", "after"
    )
    figures = (timing.p50_s, timing.p99_s, timing.longest_s)
    memory = (timing.keeper_before_mib, timing.keeper_after_mib)
    table.add_row(str(timing.events), *(f"{one:.2f}" for one in figures), *(f"{one:.0f}" for one in memory))
    console.print(table)
    table = Table("receivers", "tokens/s", "lowest", "highest")
    for row in rows:
        table.add_row(row.receivers, f"{row.tokens_per_s:,.0f}", f"{row.lowest:,.0f}", f"{row.highest:,.0f}")
    console.print(table)


def print_metrics(cost: metrics.Cost, scrapes: list[metrics.Scrape]) -> None:
    """Print what metrics cost, and how long a scrape takes."""
    table = Table("submits", "p50 ms", f"per s, {metrics.CROWD} clients")
    table.add_row("with metrics", f"{cost.on_ms:.3f}", f"{cost.on_per_s:.0f}")
    table.add_row("without", f"{cost.off_ms:.3f}", f"{cost.off_per_s:.0f}")
    table.add_row("cost", f"{100 * (cost.on_ms / cost.off_ms - 1):.1f} %", f"{100 * cost.of_throughput:.1f} %")
    console.print(table)
    table = Table("scraped under load", "scrapes", "p50 ms", "p99 ms", "bytes")
    for one in scrapes:
        table.add_row(one.process, str(one.scrapes), f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.size:,}")
    console.print(table)


def print_streaming(cost: streaming.Cost, rows: list[streaming.FirstToken]) -> None:
    """Print what following costs, and how soon a first token is there."""
    table = Table(f"{cost.clients} clients", "tokens/s")
    table.add_row("follow their jobs", f"{cost.followed:,.0f}")
    table.add_row("wait for the whole answer", f"{cost.waited:,.0f}")
    table.add_row("cost of following", f"{100 * cost.of_throughput:.1f} %")
    console.print(table)
    table = Table("first token, engine to client", "jobs", "p50 ms", "p99 ms")
    for row in rows:
        table.add_row(f"{row.clients} clients", str(row.jobs), f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}")
    console.print(table)


def print_capacity(costs: list[capacity.Cost], weights: capacity.Weights) -> None:
    """Print what one Redis spends on each step, and what it keeps weighs."""
    table = Table("step", "µs of Redis' CPU", "rounds", f"a second at {capacity.BUSY:.0%} of a core")
    for one in costs:
        table.add_row(one.step, f"{one.us:.0f}", f"{one.lowest:.0f} to {one.highest:.0f}", f"{one.per_s:,.0f}")
    console.print(table)
    table = Table(f"kept, with {weights.jobs:,} of them", "bytes each")
    table.add_row("job that waits, prompt of 200 characters", f"{weights.waiting:,.0f}")
    table.add_row("job that has ended, answer of 64 tokens", f"{weights.ended:,.0f}")
    table.add_row("stored completion of 64 tokens", f"{weights.completion:,.0f}")
    console.print(table)


def print_mixed(rows: list[mixed.Row], course: mixed.Course) -> None:
    """Print what Locust's clients did and how long it took them."""
    title = f"{course.users} clients, {course.seconds:.0f} s, {course.hit_share:.0%} of submits answered from the cache"
    table = Table("request", "sent", "failed", "p50 ms", "p95 ms", "p99 ms", "a second", title=title)
    for row in rows:
        times = (f"{value:.0f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms))
        table.add_row(row.name, str(row.requests), str(row.failures), *times, f"{row.per_s:.1f}")
    console.print(table)


def print_day(played: Played) -> None:
    """Print what each policy makes of the simulated day."""
    title = (
        f"{sum(played.demand.came):,} requests, {played.demand.hit_share:.1%} answered from the cache, "
        f"{len(played.demand.runs):,} runs"
    )
    table = Table("workers", "GPU-hours", "p50 s", "p99 s", "p99 of the worst 5 min", "batch p50 s", "turned away",
                  "most ready", title=title)  # fmt: skip
    for one in played.outcomes:
        waits = (f"{value:.1f}" for value in (one.p50_s, one.p99_s, one.worst_s, one.batch_p50_s))
        table.add_row(one.policy, f"{one.gpu_h:.0f}", *waits, f"{one.turned_away:.2%}", str(one.most_ready))
    console.print(table)
