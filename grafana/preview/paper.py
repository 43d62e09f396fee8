"""What pages are drawn on: places in inches, and the colours of Grafana's dark theme."""

from dataclasses import dataclass
from typing import ClassVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Box:
    """A rectangle on the page, in inches from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def top(self) -> float:
        """The upper edge."""
        return self.bottom + self.height

    def within(self, left: float, bottom: float, right: float, top: float) -> "Box":
        """Return the rectangle without margins of so many inches."""
        return Box(self.left + left, self.bottom + bottom, self.width - left - right, self.height - bottom - top)

    def axes(self, figure: Figure) -> Axes:
        """Return axes that fill the rectangle."""
        width, height = figure.get_size_inches()
        place = (self.left / width, self.bottom / height, self.width / width, self.height / height)
        return figure.add_axes(place, facecolor=Paper.panel)


class Paper:
    """Colours."""

    page: ClassVar = "#111217"
    panel: ClassVar = "#181b1f"
    line: ClassVar = "#2c3235"
    grid: ClassVar = "#2a2e33"
    ink: ClassVar = "#d8d9da"
    faint: ClassVar = "#9fa3a8"
