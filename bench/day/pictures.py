"""The day in pictures: what came, waits, workers, cost. In colours that colour-blind people tell apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from bench.day.fleet import TICK_S
from bench.day.plays import Played
from bench.day.traffic import DAY_S, HOUR_S
from bench.load import percentile
from grafana.palette import BLUE, GREY, ORANGE, SKY, VERMILLION

#: Waits below this many seconds are drawn as this: an idle fleet has none, and a logarithm no zero.
SHORTEST_S: Final = 0.1
_FIVE: Final = 5
_HOURS: Final = [(5 * place + 2.5) / 60 for place in range(DAY_S // 300)]


def draw_day(played: Played, directory: Path) -> list[Path]:
    """Draw four pictures into ``directory``; returns their files."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures = {
        "day-arrivals": _arrivals(played),
        "day-waits": _waits(played),
        "day-workers": _workers(played),
        "day-cost": _cost(played),
    }
    files = []
    for name, figure in pictures.items():
        file = directory / f"{name}.png"
        # Without a date and a version: the same day is the same file.
        figure.savefig(file, dpi=110, metadata={"Software": None})
        files.append(file)
    return files


def _arrivals(played: Played) -> Figure:
    figure, (axes,) = _figure(1, 4.2)
    served = played.days[2]  # autoscaled, with a limit
    came, met, ended = (_per_s(counts) for counts in (played.demand.came, played.demand.met, served.ended))
    axes.stackplot(
        _HOURS,
        met,
        ended,
        colors=[SKY, BLUE],
        labels=["answered from the cache", f"answered by engines ({served.policy})"],
    )
    axes.plot(_HOURS, came, color="black", linewidth=1.2, label="came")
    axes.set_ylabel("requests a second")
    axes.set_title(
        f"{sum(played.demand.came):,} requests in a day, {played.demand.hit_share:.0%} answered from the cache"
    )
    axes.legend(loc="upper left", frameon=False)
    axes.set_ylim(bottom=0)
    return figure


def _waits(played: Played) -> Figure:
    figure, rows = _figure(len(played.days), 1.8)
    for axes, day in zip(rows, played.days, strict=True):
        for share, colour, label in (
            (0.99, VERMILLION, "99 of 100 waited at most"),
            (0.5, BLUE, "half waited at most"),
        ):
            axes.plot(
                _HOURS,
                [max(SHORTEST_S, percentile(some, share)) if some else SHORTEST_S for some in day.waits],
                color=colour,
                linewidth=1.4 if share == 0.5 else 1.1,
                label=label,
            )
        axes.set_yscale("log")
        axes.set_ylim(SHORTEST_S * 0.8, 2000)
        axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
        axes.set_yticks([0.1, 1, 10, 100, 1000])
        axes.set_ylabel("wait")
        axes.set_title(day.policy, loc="left", fontsize=10)
    rows[0].legend(loc="upper right", frameon=False, ncols=2, bbox_to_anchor=(1.0, 1.3))
    return figure


def _workers(played: Played) -> Figure:
    figure, rows = _figure(len(played.days), 1.8)
    # A fleet without a limit would press the others flat: it leaves the picture, and says how far it went.
    *_, highest, most = sorted(max(day.wanted) for day in played.days)
    for axes, day in zip(rows, played.days, strict=True):
        hours = [tick * TICK_S / HOUR_S for tick in range(len(day.ready))]
        axes.fill_between(hours, day.ready, step="post", color=SKY, label="ready")
        axes.step(hours, day.wanted, where="post", color=BLUE, linewidth=1.2, label="wanted")
        busy = [count / played.per_worker_s for count in _per_s(day.ended)]
        axes.plot(_HOURS, busy, color="black", linewidth=1.0, linestyle="--", label="enough for what was served")
        axes.set_ylim(0, highest * 1.15)
        if max(day.wanted) > highest:
            place = day.wanted.index(most)
            axes.annotate(
                f"up to {most}", (hours[place], highest * 1.02), (hours[place] + 0.5, highest * 1.02), va="top"
            )
        axes.set_ylabel("workers")
        axes.set_title(day.policy, loc="left", fontsize=10)
    rows[0].legend(loc="upper right", frameon=False, ncols=3, bbox_to_anchor=(1.0, 1.3))
    return figure


def _cost(played: Played) -> Figure:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    hours, waits = figure.subplots(1, 2, sharey=True)
    names = [one.policy.replace(", ", ",\n") for one in played.outcomes]
    for axes, values, label, colour, form in (
        (hours, [one.gpu_h for one in played.outcomes], "GPU-hours", SKY, "{:.0f}"),
        (waits, [one.p99_s for one in played.outcomes], "99 of 100 waited at most, seconds", ORANGE, "{:.1f}"),
    ):
        # What would press the others flat is cut off, and says how far it goes.
        *_, second, longest = sorted(values)
        edge = max(0.1, longest if longest < 3 * second else 1.2 * second)
        bars = axes.barh(names, [min(value, edge) for value in values], color=colour)
        labels = [form.format(value) + (" …" if value > edge else "") for value in values]
        axes.bar_label(bars, labels, padding=4)
        axes.set_xlim(0, edge * 1.18)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    hours.invert_yaxis()
    return figure


def _figure(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels below each other on one day's hours."""
    figure = Figure(figsize=(10, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)
    found = [row[0] for row in panels]
    for axes in found:
        axes.set_xlim(0, 24)
        axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    found[-1].xaxis.set_major_locator(MultipleLocator(3))
    found[-1].set_xlabel("hour of the day")
    return figure, found


def _per_s(by_minute: Sequence[int]) -> list[float]:
    """Return the mean a second of each five minutes."""
    return [sum(by_minute[place : place + _FIVE]) / (60 * _FIVE) for place in range(0, len(by_minute), _FIVE)]


def _seconds(value: float, _: object) -> str:
    return f"{value:g} s"
