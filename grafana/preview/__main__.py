"""``python -m grafana.preview``: a picture per dashboard."""

import asyncio
import re
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.processes import children
from deploy.local.prometheus import find_prometheus
from grafana.preview.pages import draw
from inferq.errors import InferqError
from showcase.load import perform
from showcase.stack import Showcase

IMAGES: Final = Path("docs/images/dashboards")
#: Of the dice of what happens.
SEED: Final = 6
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def main(
    prometheus: Annotated[
        str, typer.Option(help="Address of the Prometheus that is asked; without one a stack is run for it.")
    ] = "",
    last: Annotated[str, typer.Option(help="How much time is shown, and how long the stack runs: 90s, 10m.")] = "4m",
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the pictures.")] = IMAGES,
    engine: Annotated[str, typer.Option(help="Of the stack's first model: vllm or simulated.")] = "vllm",
) -> None:
    """Draw every dashboard from a running Prometheus, or from a stack of its own to which everything happens."""
    span = re.fullmatch(r"(\d+)([smh])", last)
    if not span:
        raise typer.BadParameter("must be a number and s, m or h, as 10m", param_hint="--last")
    seconds = float(int(span[1]) * _UNITS[span[2]])
    try:
        if prometheus:
            paths = draw(prometheus, time.time() - seconds, time.time(), output)
        else:
            paths = _draw_showcase(seconds, output, engine)
    except InferqError as error:
        typer.echo(f"inferq: {error}", err=True)
        raise typer.Exit(1) from None
    for path in paths:
        typer.echo(path)


def _draw_showcase(seconds: float, output: Path, engine: str) -> list[Path]:
    if find_prometheus() is None:
        raise InferqError("there is no prometheus on PATH; install one, or name one that runs with --prometheus")
    with tempfile.TemporaryDirectory(prefix="inferq-preview-") as logs, children(Path(logs)) as started:
        typer.echo(f"running a stack for {seconds:.0f} s, in which everything happens")
        showcase = Showcase(started, engine=engine, interval="2s")
        showcase.start()
        began = time.time()
        asyncio.run(perform(showcase, seconds, SEED))
        time.sleep(5)  # that the last scrape has been seen
        return draw(showcase.prometheus, began, began + seconds, output)


if __name__ == "__main__":
    typer.run(main)
