"""A page per dashboard: every panel in its place on the grid."""

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from grafana.annotations import ANNOTATIONS
from grafana.boards import BOARDS
from grafana.model import Dashboard, Panel, Place, Row, places
from grafana.preview.asking import Window
from grafana.preview.painters import Mark, paint
from grafana.preview.paper import Box, Paper

#: Inches of a column and of a row of Grafana's grid; dots per inch of the pictures.
COLUMN: Final = 0.72
ROW: Final = 0.38
DPI: Final = 110
COLOURS: Final = 64
_MARGIN: Final = 0.12
_HEAD: Final = 0.75


def draw(prometheus_url: str, start: float, end: float, directory: Path) -> list[Path]:
    """Draw what a Prometheus knows of the time from ``start`` to ``end``, in Unix seconds: a picture per dashboard.

    Returns the files, made in ``directory``. Raises NotAnswered.
    """
    window = Window(prometheus_url, start, end)
    directory.mkdir(parents=True, exist_ok=True)
    marks = _marks(window)
    return [_page(board, window, marks, directory / f"{board.uid}.png") for board in BOARDS]


def _page(board: Dashboard, window: Window, marks: list[Mark], path: Path) -> Path:
    placed = places(board)
    height = _HEAD + ROW * max(place.y + place.height for _, place in placed) + 2 * _MARGIN
    width = 24 * COLUMN + 2 * _MARGIN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=Paper.page)
    figure.text(_MARGIN * 2 / width, 1 - 0.3 / height, board.title, color=Paper.ink, fontsize=17, va="center")
    figure.text(_MARGIN * 2 / width, 1 - 0.6 / height, board.description, color=Paper.faint, fontsize=10.5, va="center")
    for thing, place in placed:
        box = _box(place, height)
        if isinstance(thing, Row):
            corner = box.left / width, (box.bottom + 0.13) / height
            figure.text(*corner, thing.title, color=Paper.ink, fontsize=12, fontweight="bold")
        else:
            _panel(figure, thing, box, window, marks)
    canvas = FigureCanvasAgg(figure)  # no window, whatever the machine
    canvas.draw()  # type: ignore[no-untyped-call]
    # Few colours, a third of the size.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _panel(figure: Figure, panel: Panel, box: Box, window: Window, marks: list[Mark]) -> None:
    width, height = figure.get_size_inches()
    figure.add_artist(
        Rectangle(
            (box.left / width, box.bottom / height),
            box.width / width,
            box.height / height,
            facecolor=Paper.panel,
            edgecolor=Paper.line,
            linewidth=0.8,
            zorder=-1,
        )
    )
    title = box.top - 0.19
    figure.text((box.left + 0.1) / width, title / height, panel.title, color=Paper.ink, fontsize=10, va="center")
    paint(figure, panel, box, window, marks)


def _box(place: Place, height: float) -> Box:
    left = _MARGIN + COLUMN * place.x + 0.04
    top = height - _HEAD - ROW * place.y - 0.04
    return Box(left, top - ROW * place.height + 0.08, COLUMN * place.width - 0.08, ROW * place.height - 0.08)


def _marks(window: Window) -> list[Mark]:
    """Return when the annotations began to say something, within the window."""
    marks = []
    for annotation in ANNOTATIONS:
        for series in window.over(annotation.expr):
            before = window.start - window.step
            for when in series.times:
                # What was there from the start is no event of this time.
                if when - before > 1.5 * window.step and when > window.start + window.step:
                    marks.append(Mark(when, annotation.name, annotation.colour))
                before = when
    return marks
