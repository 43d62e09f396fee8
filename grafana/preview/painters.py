"""How each kind of panel is drawn."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from grafana.looks import called, known
from grafana.model import Panel
from grafana.palette import PLAIN, Look
from grafana.preview.asking import Series, Window
from grafana.preview.paper import Box, Paper
from grafana.preview.units import shown

_DASHES: Final = {"solid": "-", "dash": (0, (5, 2.5)), "dot": (0, (1.2, 1.6))}


#: Steps between ticks of an axis of seconds.
_ROUND_SECONDS: Final = (2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Mark:
    """An event of an annotation."""

    when: float
    name: str
    colour: str


@dataclass(frozen=True)
class Line:
    """A series with its name and look."""

    name: str
    look: Look
    series: Series


def paint(figure: Figure, panel: Panel, box: Box, window: Window, marks: list[Mark]) -> None:
    """Ask what a panel asks, and draw it."""
    found = lines(panel, window)
    if not any(line.series.values for line in found):
        width, height = figure.get_size_inches()
        middle = (box.left + box.width / 2) / width, (box.bottom + 0.42 * box.height) / height
        figure.text(*middle, panel.empty, color=Paper.faint, fontsize=13, ha="center", va="center")
    elif panel.kind == "stat":
        _stat(figure, panel, box, window, found)
    elif panel.kind == "bargauge":
        _bars(figure, panel, box, found)
    else:
        axes = box.within(0.72, 0.74 if panel.kind == "timeseries" else 0.36, 0.14, 0.42).axes(figure)
        _time_axis(axes, window)
        if panel.kind == "heatmap":
            _heatmap(axes, panel, window, found)
        else:
            _timeseries(axes, panel, window, found, marks)


def lines(panel: Panel, window: Window) -> list[Line]:
    """Return the series of all queries of a panel, named and coloured; those nobody knew beforehand in shades."""
    looks = {name: look for query in panel.queries for name, look in known(query)}
    answers = [
        (query, window.last(query.expr) if query.instant else window.over(query.expr)) for query in panel.queries
    ]
    named = [(called(query.legend, dict(each.labels)), each) for query, found in answers for each in found]
    strangers = sorted({name for name, _ in named if name not in looks})
    if panel.kind == "bargauge":  # in the order of the answer
        return [Line(name, looks.get(name, Look(PLAIN)), each) for name, each in named]
    shades = dict(zip(strangers, _shades(len(strangers)), strict=True))
    order = {name: place for place, name in enumerate([*looks, *strangers])}
    named.sort(key=lambda pair: order[pair[0]])
    return [Line(name, looks.get(name) or Look(shades[name]), each) for name, each in named]


def _shades(count: int) -> list[str]:
    base = np.array([int(PLAIN[place : place + 2], 16) for place in (1, 3, 5)])
    found = []
    for share in np.linspace(-0.3, 0.65, count) if count > 1 else np.zeros(count):
        colour = base * (1 + share) if share < 0 else base + (255 - base) * share
        found.append("#" + "".join(f"{int(part):02x}" for part in colour))
    return found


def _time_axis(axes: Axes, window: Window) -> None:
    axes.set_xlim(window.start, window.end)
    axes.xaxis.set_major_locator(MultipleLocator(_round_step(window.end - window.start, 4)))
    pattern = "%H:%M" if window.end - window.start > 300 else "%H:%M:%S"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda when, _: f"{datetime.fromtimestamp(when):{pattern}}"))
    axes.tick_params(colors=Paper.faint, labelsize=8, length=0)
    axes.grid(color=Paper.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _timeseries(axes: Axes, panel: Panel, window: Window, found: list[Line], marks: list[Mark]) -> None:
    times = np.arange(window.start, window.end + window.step / 2, window.step)
    bottom = np.zeros(len(times))
    for line in found:
        values = _on(times, line.series, window.step)
        style = _DASHES[line.look.line]
        if panel.stacked:
            top = bottom + np.nan_to_num(values)
            area = axes.fill_between(times, bottom, top, where=~np.isnan(values), color=line.look.colour, linewidth=0)
            area.set(alpha=0.8, label=line.name)
            bottom = top
        else:
            axes.plot(times, values, color=line.look.colour, linestyle=style, linewidth=1.7, label=line.name)
    # All zero: an axis to one instead of to thousandths.
    top = axes.get_ylim()[1] if any(any(line.series.values) for line in found) else 1.0
    axes.set_ylim(panel.low, panel.high or 1.04 * top)
    for step in panel.steps:
        if axes.get_ylim()[0] < step.value < axes.get_ylim()[1]:
            axes.axhline(step.value, color=step.colour, linewidth=1.2, alpha=0.9)
    for mark in marks:
        axes.axvline(mark.when, color=mark.colour, linewidth=1, linestyle=(0, (3, 3)), alpha=0.9)
    _ticks(axes, panel)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    _legend(axes)


def _ticks(axes: Axes, panel: Panel) -> None:
    low, high = axes.get_ylim()
    if panel.unit == "s" and high > 10:
        axes.yaxis.set_major_locator(MultipleLocator(_round_step(high - low, 5)))
    elif panel.unit == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2((high - low) / 5))))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _round_step(span: float, most: int) -> float:
    return next((step for step in _ROUND_SECONDS if span / step <= most), 86400 * math.ceil(span / 86400 / most))


def _legend(axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    columns = max(1, min(len(unique), int(axes.bbox.width // (34 + 9.5 * max(map(len, unique))))))
    most = 3 * columns
    axes.legend(
        list(unique.values())[:most],
        list(unique)[:most],
        loc="upper left",
        bbox_to_anchor=(-0.06, -0.1),
        ncol=columns,
        frameon=False,
        fontsize=8,
        labelcolor=Paper.ink,
        handlelength=2.0,
        columnspacing=1.4,
        labelspacing=0.25,
        borderpad=0.2,
    )


def _on(times: np.ndarray, series: Series, step: float) -> np.ndarray:
    """Put values on the common instants; NaN where there are none."""
    values = np.full(len(times), np.nan)
    for when, value in zip(series.times, series.values, strict=True):
        place = round((when - times[0]) / step)
        if 0 <= place < len(times):
            values[place] = value
    return values


def _heatmap(axes: Axes, panel: Panel, window: Window, found: list[Line]) -> None:
    times = np.arange(window.start, window.end + window.step / 2, window.step)
    buckets = sorted(found, key=lambda line: float(line.series.labels["le"]))
    counts = np.array([_on(times, line.series, window.step) for line in buckets])
    counts = np.diff(np.nan_to_num(counts), axis=0, prepend=0)
    edges = np.append(times, times[-1] + window.step) - window.step / 2
    counts[counts <= 1e-9] = np.nan  # as filterValues in the dashboard: nothing is drawn
    axes.pcolormesh(edges, np.arange(len(buckets) + 1), counts, cmap="viridis", norm=PowerNorm(0.5, vmin=0))
    names = [_bound(line.series.labels["le"], panel.unit) for line in buckets]
    every = max(1, len(names) // 7)
    axes.set_yticks([place + 1 for place in range(0, len(names), every)], names[::every])
    axes.set_ylim(0, len(buckets))


def _bound(le: str, unit: str) -> str:
    return "more" if le == "+Inf" else shown(float(le), unit)


def _stat(figure: Figure, panel: Panel, box: Box, window: Window, found: list[Line]) -> None:
    width, height = figure.get_size_inches()
    shown_lines = [
        line for line in found if line.series.values and line.series.times[-1] > window.end - 3 * window.step
    ]
    shown_lines = shown_lines or found[:1]
    for place, line in enumerate(shown_lines):
        value = line.series.values[-1]
        if panel.text == "name":
            text, colour = line.name, line.look.colour
        else:
            text, colour = (
                panel.words.get(f"{value:g}") or shown(value, panel.unit, panel.decimals),
                _reached(panel, value),
            )
            spark = box.within(0.02, 0.02, 0.02, box.height * 0.68).axes(figure)
            spark.set_axis_off()
            spark.plot(line.series.times, line.series.values, color=colour, linewidth=1.4)
            spark.fill_between(line.series.times, line.series.values, color=colour, alpha=0.18)
            spark.set_ylim(bottom=min(0, *line.series.values))
        middle = (
            (box.left + box.width * (place + 0.5) / len(shown_lines)) / width,
            (box.bottom + 0.52 * box.height) / height,
        )
        size = min(30, 110 * box.width / len(shown_lines) / max(len(text), 4) * 0.9)
        figure.text(*middle, text, color=colour, fontsize=size, ha="center", va="center", fontweight="bold")


def _reached(panel: Panel, value: float) -> str:
    colour = panel.base
    for step in panel.steps:
        if value >= step.value:
            colour = step.colour
    return colour


def _bars(figure: Figure, panel: Panel, box: Box, found: list[Line]) -> None:
    axes = box.within(1.25, 0.1, 0.8, 0.42).axes(figure)
    values = [line.series.values[-1] for line in found]
    places = range(len(found))
    most = max(values) or 1
    axes.barh(places, [most] * len(found), color=Paper.grid, height=0.7)
    axes.barh(places, values, color=[line.look.colour for line in found], height=0.7)
    for place, value in zip(places, values, strict=True):
        axes.text(
            most * 1.02, place, shown(value, panel.unit, panel.decimals), color=Paper.ink, fontsize=9, va="center"
        )
    axes.set_yticks(list(places), [line.name for line in found])
    axes.set_xlim(0, most)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.tick_params(colors=Paper.ink, labelsize=9, length=0)
    axes.xaxis.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
