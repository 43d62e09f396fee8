"""Dashboards before they are JSON: panels with their queries, in rows."""

import itertools
from dataclasses import dataclass, field
from typing import Final, Literal

from grafana.palette import GOOD, PLAIN, Look

PanelKind = Literal["timeseries", "stat", "heatmap", "bargauge", "text"]
#: Columns of Grafana's grid.
COLUMNS: Final = 24


@dataclass(frozen=True, kw_only=True)
class Query:
    """One expression, how its series are called, and how they look when :data:`grafana.palette.LOOKS` does not say."""

    expr: str
    #: Text with ``{{label}}`` in it.
    legend: str = ""
    look: Look | None = None
    #: Ask for the present value only.
    instant: bool = False


@dataclass(frozen=True)
class Step:
    """From ``value`` on a tile or a line is ``colour``."""

    value: float
    colour: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture. ``unit`` is Grafana's name of it."""

    title: str
    description: str
    queries: tuple[Query, ...] = ()
    kind: PanelKind = "timeseries"
    unit: str = "none"
    width: int = 8
    height: int = 8
    #: The colour below the first step, and the steps.
    base: str = PLAIN
    steps: tuple[Step, ...] = ()
    stacked: bool = False
    low: float | None = 0
    high: float | None = None
    decimals: int | None = None
    #: Said where there is no data.
    empty: str = "no traffic"
    #: Words in place of numbers.
    words: dict[str, str] = field(default_factory=dict)
    #: Whether a tile shows the name of its series instead of the value, or besides it.
    text: Literal["value", "name", "value_and_name"] = "value"
    #: Alerts that a look at this panel explains.
    alerts: tuple[str, ...] = ()
    #: Markdown of a text panel.
    content: str = ""


@dataclass(frozen=True)
class Row:
    """A heading and what stands below it, from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A page."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    #: Minutes that are shown at first.
    minutes: int = 60

    @property
    def panels(self) -> list[Panel]:
        """All panels, row by row."""
        return [panel for row in self.rows for panel in row.panels]


@dataclass(frozen=True)
class Place:
    """Where a panel stands on the grid."""

    x: int
    y: int
    width: int
    height: int

    @property
    def cells(self) -> set[tuple[int, int]]:
        """The cells of the grid that it covers."""
        return set(itertools.product(range(self.x, self.x + self.width), range(self.y, self.y + self.height)))


def places(dashboard: Dashboard) -> list[tuple[Row | Panel, Place]]:
    """Return every heading and panel with its place: the highest, then leftmost, that is free below its heading."""
    found: list[tuple[Row | Panel, Place]] = []
    top = 0
    for row in dashboard.rows:
        found.append((row, Place(0, top, COLUMNS, 1)))
        top += 1
        taken: set[tuple[int, int]] = set()
        for panel in row.panels:
            place = _free_place(panel, top, taken)
            taken |= place.cells
            found.append((panel, place))
        top = 1 + max(y for _, y in taken)
    return found


def _free_place(panel: Panel, top: int, taken: set[tuple[int, int]]) -> Place:
    for y in itertools.count(top):
        for x in range(COLUMNS - panel.width + 1):
            place = Place(x, y, panel.width, panel.height)
            if not place.cells & taken:
                return place
    raise AssertionError("there is always room further down")


def tile(
    title: str,
    description: str,
    expr: str,
    unit: str,
    *steps: Step,
    base: str = GOOD,
    width: int = 4,
    height: int = 4,
    empty: str = "no traffic",
    decimals: int | None = None,
    words: dict[str, str] | None = None,
    alerts: tuple[str, ...] = (),
) -> Panel:
    """Return a tile with one number: ``base`` below the first step, then the colour of the highest step reached."""
    return Panel(
        title=title,
        description=description,
        queries=(Query(expr=expr, legend=title),),
        kind="stat",
        unit=unit,
        width=width,
        height=height,
        base=base,
        steps=steps,
        empty=empty,
        decimals=decimals,
        words=words or {},
        alerts=alerts,
    )


def lines(expressions: dict[str, str]) -> tuple[Query, ...]:
    """Return queries with one line each, called by the keys."""
    return tuple(Query(expr=expr, legend=name) for name, expr in expressions.items())
