"""A bar for :meth:`Inferq.map`, by rich: part of the extra ``cli``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inferq_client.errors import MissingExtra
from inferq_client.mapping import Progress, Report

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
except ImportError:
    raise MissingExtra("a progress bar needs: pip install 'inferq-client[cli]'") from None


@contextmanager
def bar(label: str = "", console: Console | None = None, done: int = 0) -> Iterator[Report]:
    """Yield what moves a bar on stderr; where that is no terminal, nothing is drawn."""
    console = console or Console(stderr=True)
    columns = [
        *([TextColumn("{task.description}")] if label else []),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    with Bars(*columns, console=console, transient=False, disable=not console.is_terminal) as bars:
        task = bars.add_task(label, total=None, completed=done, rate="")

        def report(progress: Progress) -> None:
            bars.update(
                task,
                completed=done + progress.done,
                total=None if progress.total is None else done + progress.total,
                rate=f"{progress.rate:.1f}/s",
            )

        yield report
