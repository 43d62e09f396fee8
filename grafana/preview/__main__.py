"""``python -m grafana.preview``: a picture per dashboard."""

import re
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from grafana.preview.pages import draw
from inferq.errors import InferqError

IMAGES: Final = Path("docs/images/dashboards")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def main(
    prometheus: Annotated[str, typer.Option(help="Address of the Prometheus that is asked.")],
    last: Annotated[str, typer.Option(help="How much time is shown: 90s, 10m, 2h.")] = "10m",
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the pictures.")] = IMAGES,
) -> None:
    """Draw every dashboard from a running Prometheus."""
    span = re.fullmatch(r"(\d+)([smh])", last)
    if not span:
        raise typer.BadParameter("must be a number and s, m or h, as 10m", param_hint="--last")
    end = time.time()
    try:
        paths = draw(prometheus, end - int(span[1]) * _UNITS[span[2]], end, output)
    except InferqError as error:
        typer.echo(f"inferq: {error}", err=True)
        raise typer.Exit(1) from None
    for path in paths:
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
