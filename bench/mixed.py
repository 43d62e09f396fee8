"""A mixed load by Locust (deploy/load), for a minute: hits, short and long answers, polls, streams, webhooks."""

import csv
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.load import Failed
from bench.processes import Children, wait_until
from bench.stack import API_KEY, make_settings, start_stack
from deploy.local.child import ROOT
from deploy.local.stack import free_port
from grafana.palette import BLUE, GREY, ORANGE, SKY, VERMILLION
from inferq.webhook_secrets import new_secret

USERS: Final = 40
#: Answers asked for at most, whatever the time.
MOST: Final = 20_000
#: The engine: slots, and seconds of a step.
SLOTS, STEP_S = 64, 0.02
#: Seconds that what is under way at the end may take.
END_S: Final = 30
FILE: Final = ROOT / "deploy" / "load" / "locustfile.py"
#: Lines of the picture: what they show, in whose colours. New submits and answers are what clients feel.
_DRAWN: Final = {
    "submit, hit": SKY,
    "submit, new": BLUE,
    "long-poll to the answer": VERMILLION,
    "submit to webhook": ORANGE,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of request, or what several did together: how many, how many failed, milliseconds, how many a second."""

    name: str
    requests: int
    failures: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_s: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """How it went: share of submits that a stored answer met; by second requests a second, and milliseconds (95th
    percentile of the last ten seconds) by name.
    """

    users: int
    seconds: float
    hit_share: float
    per_s: list[tuple[float, float]]
    p95_ms: dict[str, list[tuple[float, float]]]


def find_locust() -> Path:
    """Return Locust: ``LOCUST``, else that of `make bench` (``.venv-load``), else on PATH; raises Failed."""
    places = [os.environ.get("LOCUST", ""), f"{sys.prefix}-load/bin/locust", shutil.which("locust") or ""]
    for place in places:
        if place and Path(place).is_file():
            return Path(place).absolute()
    raise Failed("there is no locust; `make bench` installs requirements-load.txt into .venv-load")


def measure_mixed(children: Children, users: int, seconds: float, seed: int) -> tuple[list[Row], Course]:
    """Run Locust against a stack with the simulated engine. ``seed``: of its dice; what comes when is the machine's."""
    locust = find_locust()
    settings = make_settings(
        engine="simulated",
        simulated_step=STEP_S,
        max_num_seqs=SLOTS,
        webhook_allowed_hosts="127.0.0.1",
        bootstrap_webhook_secret=new_secret(),
    )
    stack = start_stack(children, settings)
    results = children.directory / "locust"
    command = [
        str(locust), "--headless", "--locustfile", str(FILE), "--host", stack.url, "--users", str(users),
        "--spawn-rate", str(max(1, users // 5)), "--run-time", f"{seconds:.0f}s", "--stop-timeout", str(END_S),
        "--csv", str(results), "--csv-full-history", "--only-summary", "--exit-code-on-error", "0",
    ]  # fmt: skip
    environment = os.environ | {
        "INFERQ_API_KEY": API_KEY,
        "INFERQ_WEBHOOK_URL": f"http://127.0.0.1:{free_port()}/",
        "INFERQ_LOAD_MOST": str(MOST),
        "INFERQ_LOAD_WORDS": "1",
        "INFERQ_LOAD_SEED": str(seed),
    }
    process = children.start("locust", command, environment)
    wait_until(stack.api, lambda: not process.alive(), seconds + END_S + 30)
    if process.process.returncode:
        raise Failed(f"locust ended with {process.process.returncode}: {process.last_words()}")
    # A mistake in the locustfile ends a task, not Locust: without this it would be a load that nobody has made.
    for line in _lines(Path(f"{results}_exceptions.csv")):
        raise Failed(f"a client of locust broke {line['Count']} times: {line['Message']}")
    rows = [_row(line) for line in _lines(Path(f"{results}_stats.csv")) if line["Name"] != "Aggregated"]
    return rows, _course(users, seconds, rows, list(_lines(Path(f"{results}_stats_history.csv"))))


def draw(course: Course, directory: Path) -> Path:
    """Draw requests a second and how long clients waited; returns the file."""
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    above.fill_between(*zip(*course.per_s, strict=True), color=SKY)
    above.set_ylabel("requests a second")
    above.set_ylim(bottom=0)
    above.set_title(f"{course.users} clients, {course.hit_share:.0%} of submits answered from the cache", loc="left")
    for name, colour in _DRAWN.items():
        if points := course.p95_ms.get(name):
            below.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, label=name)
    below.set_yscale("log")
    below.set_ylabel("95 of 100 within")
    below.yaxis.set_major_formatter(FuncFormatter(_span))
    below.set_xlabel("seconds")
    below.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    for axes in (above, below):
        axes.set_xlim(left=0)
        axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "load.png"
    figure.savefig(file, dpi=110, metadata={"Software": None})
    return file


def _lines(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _row(line: dict[str, str]) -> Row:
    return Row(
        name=line["Name"],
        requests=int(line["Request Count"]),
        failures=int(line["Failure Count"]),
        p50_ms=_number(line["50%"]),
        p95_ms=_number(line["95%"]),
        p99_ms=_number(line["99%"]),
        per_s=_number(line["Requests/s"]),
    )


def _course(users: int, seconds: float, rows: list[Row], history: list[dict[str, str]]) -> Course:
    counted = {row.name: row.requests for row in rows}
    hits = counted.get("submit, hit", 0) + counted.get("infer, hit", 0)
    asked = sum(count for name, count in counted.items() if name.startswith(("submit, ", "infer, ")))
    began = min(int(line["Timestamp"]) for line in history)
    points: dict[str, list[tuple[float, float]]] = {}
    per_s: list[tuple[float, float]] = []
    for line in history:
        at = float(int(line["Timestamp"]) - began)
        if line["Name"] == "Aggregated":
            per_s.append((at, _number(line["Requests/s"])))
        elif _number(line["95%"]):
            points.setdefault(line["Name"], []).append((at, _number(line["95%"])))
    return Course(users=users, seconds=seconds, hit_share=hits / max(1, asked), per_s=per_s, p95_ms=points)


def _span(ms: float, _: object) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def _number(text: str) -> float:
    return float(text) if text not in ("", "N/A") else 0.0
