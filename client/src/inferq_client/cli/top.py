"""Queue, workers and engines at a glance."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inferq_client import Inferq, NoAnswer, NotFound, NotUnderstood, QueueState
from inferq_client.cli.saying import say, span, start


def snapshot(client: Inferq) -> dict[str, Any]:
    """Return queue and models as the service says them."""
    return {"queue": client.queue().raw, "models": _models(client)}


def show_once(client: Inferq) -> None:
    """Write what there is to stdout."""
    console = Console(highlight=False, emoji=False)
    console.print(view(client.queue(), _models(client)), soft_wrap=True)


def show(client: Inferq, every_s: float) -> None:
    """Keep the terminal up to date until Ctrl-C. A service that is away for a while ends nothing."""
    try:
        with Live(console=Console(highlight=False, emoji=False), screen=True, auto_refresh=False) as live:
            shown = view(client.queue(), _models(client))
            while True:
                live.update(Group(shown, Text(f"\n{client.url}   {time.strftime('%H:%M:%S')}   Ctrl-C ends", "dim")))
                live.refresh()
                time.sleep(every_s)
                try:
                    shown = view(client.queue(), _models(client))
                except NoAnswer as error:
                    shown = Group(Text(str(error), "red"))
    except KeyboardInterrupt:
        say("")


def view(queue: QueueState, models: dict[str, Any]) -> Group:
    """Return the picture."""
    parts: list[Any] = []
    states = {one.get("id"): one for one in models.get("data", ()) if isinstance(one, dict)}
    for engine in queue.engines:
        state = _state(engine.slots, engine.paused, states.get(engine.engine))
        running = sum(worker.running for worker in engine.workers)
        parts.append(Text.assemble((engine.engine, "bold"), f"  {state}"))
        table = Table(box=None, pad_edge=False, show_header=False)
        waiting = ", ".join(f"{count} {priority}" for priority, count in engine.waiting.items() if count)
        table.add_row("waiting", f"{engine.depth} runs" + (f" ({waiting})" if waiting else ""))
        table.add_row("tokens", f"{engine.queued_tokens:,} reserved by what waits")
        table.add_row("oldest", span(engine.oldest_s) if engine.depth else "-")
        wait = engine.predicted_wait_s
        table.add_row("a new job", "nobody can say" if wait is None else start(wait))
        table.add_row("running", f"{running} of {engine.slots} slots {_bar(running, engine.slots)}")
        for number, worker in enumerate(engine.workers, start=1):
            table.add_row(f"worker {number}", f"{worker.state or 'unknown'}, {worker.running} of {worker.slots} slots")
        parts += [table, Text()]
    if not queue.engines:
        parts.append(Text("no engine has ever been asked for anything"))
    return Group(*parts)


def _models(client: Inferq) -> dict[str, Any]:
    try:
        return client.models()
    except (NotFound, NotUnderstood):
        return {}  # a service of an earlier version


def _state(slots: int, paused: bool, model: dict[str, Any] | None) -> str:
    if paused:
        return "paused by an operator"
    told = (model or {}).get("state") or (model or {}).get("status")
    return str(told or ("ready" if slots else "no ready worker"))


def _bar(part: int, whole: int, width: int = 20) -> str:
    full = round(width * part / whole) if whole else 0
    return "█" * min(width, full) + "░" * max(0, width - full)
