"""``python -m grafana``: write the dashboards, or with ``--check`` say which are not current."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from grafana.boards import BOARDS, runbook
from grafana.schema import dashboard_json

DIRECTORY: Final = Path(__file__).parent / "dashboards"


def rendered() -> dict[Path, str]:
    """Return each dashboard's file with its text."""
    book = runbook.board()
    every = (*BOARDS, book)
    numbers = runbook.panel_numbers(book)
    return {
        DIRECTORY / f"{board.uid}.json": json.dumps(dashboard_json(board, every, numbers), indent=1) + "\n"
        for board in every
    }


def stale() -> list[Path]:
    """Return the files that are missing, old, or no dashboard's any more."""
    wanted = rendered()
    old = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    return old + [path for path in sorted(DIRECTORY.glob("*.json")) if path not in wanted]


def main(check: Annotated[bool, typer.Option(help="Only say what is not current; exit status 1.")] = False) -> None:
    """Write the dashboards."""
    paths = stale()
    wanted = rendered()
    for path in paths:
        if check:
            typer.echo(f"{path} is not current: run python -m grafana")
        elif path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
    if check and paths:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
