"""Runs a notebook's code cells in order, in one namespace, as *Run all* does: ``python -m tests.notebook FILE``.

Without Jupyter, so that no kernel has to be installed. Figures are drawn into files where ``--figures`` says.
"""

import argparse
import json
import sys
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt


def cells(path: Path, kind: str = "code") -> list[str]:
    """Return the sources of its cells of one kind."""
    notebook = json.loads(path.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def execute(path: Path, figures: Path | None = None) -> dict[str, Any]:
    """Run all code cells and return what they have defined. What they raise says in its traceback which cell it was."""
    matplotlib.use("agg")
    numbers = count(1)

    def draw() -> None:
        for number in plt.get_fignums():
            if figures:
                figures.mkdir(parents=True, exist_ok=True)
                plt.figure(number).savefig(figures / f"figure-{next(numbers)}.png", dpi=100)
            plt.close(number)

    plt.show = draw
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(cells(path), start=1):
        exec(compile(source, f"<code cell {number}>", "exec"), namespace)
    return namespace


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("notebook", type=Path)
    reader.add_argument("--figures", type=Path, help="where to draw them, as PNG")
    told = reader.parse_args()
    warnings.simplefilter("error")
    execute(told.notebook, told.figures)
    sys.stdout.flush()
