"""``python -m chaos``: kill everything, and say what was lost."""

import asyncio
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from chaos import scenarios
from chaos.clients import Clients
from chaos.deliveries import deliver
from chaos.evidence import leftovers, read_outcomes
from chaos.fleet import API_KEY, Fleet
from chaos.ledger import Ledger
from chaos.scenarios import FULL, SMOKE, Scale, Stage
from chaos.verdict import Target, exactly, most, print_scenes, print_targets

app = typer.Typer(add_completion=False)
#: A file gets a hundred columns, as a scene's numbers need.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)

SCENES: Final = {
    "processes": scenarios.kill_processes,
    "redis": scenarios.kill_redis,
    "connections": scenarios.kill_connections,
    "pause": scenarios.pause_redis,
    "zombies": scenarios.stop_workers,
    "network": scenarios.bad_network,
    "poison": scenarios.poison,
    "restarts": scenarios.restart_everything,
    "webhooks": deliver,
}
#: Bytes of Redis memory a forgotten job may still take: its tombstone, which answers 410 for a week.
TOMBSTONE_BYTES: Final = 300
#: Bytes Redis's data may move for reasons of its own: tables that grew, scripts it keeps.
SLACK_BYTES: Final = 4 << 20


@app.command()
def main(
    seed: Annotated[int | None, typer.Option(help="Of all dice; a new one when not given.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="A minute instead of half an hour.")] = False,
    scene: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join([*SCENES, 'engine'])}.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep logs and ledger in this directory.")] = None,
) -> None:
    """Kill workers, APIs, keepers, Redis and its connections under load; exits with 1 when anything was lost."""
    chosen = scene or [*SCENES, "engine"]
    if unknown := set(chosen) - {*SCENES, "engine"}:
        sys.exit(f"chaos: there is no scene {', '.join(sorted(unknown))}; there are {', '.join([*SCENES, 'engine'])}")
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    scale = SMOKE if smoke else FULL
    began = time.monotonic()
    console.print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="inferq-chaos-") as temporary:
        directory = keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        with asyncio.Runner() as runner:
            good = runner.run(_play(directory, seed, scale, chosen))
    console.print(f"seed {seed}: {time.monotonic() - began:.0f} s; {'nothing lost' if good else 'NOT as it must be'}")
    sys.exit(0 if good else 1)


async def _play(directory: Path, seed: int, scale: Scale, chosen: list[str]) -> bool:
    dice = random.Random(seed)  # noqa: S311  # a game that can be played again
    ledger = Ledger(directory / "ledger.sqlite")
    targets: list[Target] = []
    scenes: list[str] = []
    if played := [name for name in SCENES if name in chosen]:
        changes = {"engine": "simulated", "simulated_step": 0.05, "max_num_seqs": scale.slots}
        stage = await _with_fleet(directory / "simulated", ledger, dice, scale, played, changes)
        targets, scenes = stage.targets, stage.scenes
    if "engine" in chosen and scale.real_kills:
        changes = {"engine": "vllm", "max_model_len": 1024, "cpu_kv_cache_gib": 0.5}
        stage = await _with_fleet(directory / "vllm", ledger, dice, scale, ["engine"], changes)
        targets, scenes = [*targets, *stage.targets], [*scenes, *stage.scenes]
    counts = ledger.counts()
    total = [
        exactly("jobs lost, of all accepted", counts.lost, 0),
        exactly("jobs finished", counts.finished, counts.accepted),
        exactly("answers that are not the prompt's", counts.wrong, 0),
        exactly("visibly doubled: answers that changed after they were given", counts.changed, 0),
    ]
    print_scenes(console, ledger, scenes)
    for sentence in ledger.not_as_asked():
        console.print(sentence)
    return print_targets(console, [*total, *targets], judge_timed=scale is FULL)


async def _with_fleet(
    directory: Path, ledger: Ledger, dice: random.Random, scale: Scale, chosen: list[str], changes: dict[str, Any]
) -> Stage:
    """Play scenes on a fleet of their own, end it, and look at what it leaves."""
    directory.mkdir()
    simulated = changes["engine"] == "simulated"
    fleet = Fleet(
        directory,
        dice,
        apis=2,
        keepers=2,
        workers=scale.workers if simulated else 1,
        lease=scale.lease,
        cache_ttl=scale.ttl // 2,
        **changes,
    )
    clients = Clients(ledger, fleet.urls, API_KEY, dice, ttl_s=scale.ttl, simulated=simulated)
    stage = Stage(fleet=fleet, clients=clients, ledger=ledger, dice=dice, scale=scale, say=console.print)
    try:
        await fleet.start()
        await clients.start()
        first = int(fleet.redis.info("memory")["used_memory_dataset"])
        for name in chosen:
            await {**SCENES, "engine": scenarios.kill_engines}[name](stage)
        accepted = ledger.counts().accepted
        left = await scenarios.forgotten(stage, lambda: leftovers(fleet.redis, fleet.settings.engine_queue))
        last = int(fleet.redis.info("memory")["used_memory_dataset"])
        outcomes = read_outcomes(directory)
        console.print(
            f"{stage.scenes[0]} ...: Redis held {first / 1e6:.1f} MB of data at first, {last / 1e6:.1f} at the end"
        )
        if left:
            console.print("left in Redis: " + ", ".join(left[:10]))
        stage.targets += [
            exactly("runs with more than one accepted result", outcomes.doubled(), 0),
            exactly("keys and index entries left in Redis", len(left), 0),
            most("MB of Redis memory gained", (last - first) / 1e6, (SLACK_BYTES + TOMBSTONE_BYTES * accepted) / 1e6),
        ]
        if "zombies" in chosen:
            said = [outcomes.of.get((held.run, held.attempt), "") for held in stage.zombies]
            late = Counter(one for one in said if one)
            console.print(f"{len(said)} runs were with stopped workers; results that came late: {dict(late) or 0}")
            stage.targets.append(exactly("late results refused", late["refused"], late.total()))
    finally:
        await clients.close()
        await fleet.close()
    stage.targets.append(exactly("processes left", len(fleet.left_behind()), 0))
    return stage


app()
