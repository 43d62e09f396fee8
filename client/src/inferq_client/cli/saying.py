"""Words for people, and lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferq_client import Job, Place

#: Control characters that would move a terminal's cursor or worse; line feeds and tabs stay.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def console() -> Console:
    """Return the console on stderr, for what is said about things."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """Write a line to stderr."""
    console().print(text, style=style or None)


def put(text: str) -> None:
    """Write to stdout at once. To a terminal without control characters: an answer is nothing to obey."""
    sys.stdout.write(text.translate(_CONTROL) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def put_json(value: Mapping[str, Any]) -> None:
    """Write a line of JSON to stdout."""
    put(json.dumps(value, ensure_ascii=False) + "\n")


def put_answer(job: Job) -> None:
    """Write the text of a job to stdout, with a line feed at its end."""
    if job.text is not None:
        put(job.text if job.text.endswith("\n") else job.text + "\n")


def put_rows(header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Write rows to stdout: as a table to a terminal, otherwise with tabs between and no header."""
    if not sys.stdout.isatty():
        for row in rows:
            put("\t".join(row) + "\n")
        return
    table = Table(*header, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def place(status: str, where: Place | None) -> str:
    """Say where a job stands."""
    if status != "queued" or where is None or where.position is None:
        return status.replace("_", " ")
    return f"queued, position {where.position}" + (f", {start(where.eta_s)}" if where.eta_s is not None else "")


def start(seconds: float) -> str:
    """Say when something starts."""
    return f"starts in about {span(seconds)}" if seconds >= 0.1 else "starts at once"


def story(job: Job) -> str:
    """Say in a line how a job has ended, or where it is."""
    if not job.terminal:
        tokens = f", {job.usage.completion_tokens} tokens" if job.usage else ""
        return f"{place(job.status, job.queue)}{tokens}"
    parts = [job.status]
    if job.error:
        parts = [f"{job.status}: {job.error.message.rstrip('.')} ({job.error.code})"]
    if job.usage:
        parts.append(f"{job.usage.prompt_tokens or 0} + {job.usage.completion_tokens} tokens")
    if job.output and job.output.finish_reason == "length":
        parts.append("cut off at max_tokens")
    if job.cache == "hit":
        parts.append(f"from the cache, {span(job.cache_age_s or 0)} old")
    elif job.timings.run_s is not None:
        times = job.timings
        first = f", first token {span(times.ttft_s)}" if times.ttft_s is not None else ""
        parts.append(f"waited {span(times.queue_s or 0)}{first}, engine {span(times.run_s or 0)}")
        if job.cache == "coalesced":
            parts.append("shared with others")
    return ", ".join(parts)


def span(seconds: float) -> str:
    """Say seconds as a person would."""
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
