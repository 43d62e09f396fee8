"""Runbook: ``docs/runbook.md`` where alerts are looked at."""

import re
from pathlib import Path
from typing import Final

from grafana.model import Dashboard, Panel, Row, places

RUNBOOK: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
_SECTION: Final = re.compile(r"^### (\w+)$", re.MULTILINE)


def sections(path: Path = RUNBOOK) -> dict[str, str]:
    """Return the text of each alert's section."""
    parts = _SECTION.split(path.read_text())
    return {
        alert: re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
        for alert, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def board() -> Dashboard:
    """Return a page with a panel for each section."""
    panels = tuple(
        Panel(title=alert, description=f"What to do about {alert}.", kind="text", width=12, height=11, content=text)
        for alert, text in sections().items()
    )
    return Dashboard(
        uid="inferq-runbook",
        title="inferq: runbook",
        description="What each alert means, what to look at, what to do.",
        rows=(Row("Alerts", panels),),
    )


def panel_numbers(runbook: Dashboard) -> dict[str, int]:
    """Return the number of each alert's panel."""
    return {thing.title: number for number, (thing, _) in enumerate(places(runbook), 1) if isinstance(thing, Panel)}
