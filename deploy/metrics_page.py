"""Writes docs/metrics.md from the code; with ``--check`` it only says whether the page is current."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from api.metrics import ApiMetrics
from deploy.local.child import ROOT
from workers.metrics import KeeperMetrics, WorkerMetrics
from workers.queue_collector import QueueCollector

PAGE: Final = ROOT / "docs" / "metrics.md"

_HEAD: Final = """# Metrics

Written from the code by `python -m deploy.metrics_page`. Durations are seconds, sizes bytes. No label ever holds a key,
a tenant, a job, a prompt or an address.

| process | where | who may look |
|---|---|---|
| API | `/metrics` on `API_PORT`, of all its processes | who shows `METRICS_TOKEN` as a bearer token, else nobody |
| worker | `/metrics` on `METRICS_PORT`, vLLM's `vllm:*` too | as above; everybody while there is no token |
| keeper | `/metrics` on `KEEPER_METRICS_PORT` | as for workers |

Workers and keepers, which also export `process_*` and `python_*`, bind `METRICS_HOST`. Port 0 is any free one.

`/readyz` on the port of a worker or keeper is for probes and needs no token.
"""
_SHARED: Final = """
## From Redis, by every keeper

Counted by the scripts that make the transitions, so exact, and right when every worker is dead. **Every keeper exports
the same values: aggregate over keepers with `max by (...)`, never with `sum`.** A counter that a restart of Redis loses
starts again.
"""


def page() -> str:
    """Return the text of the page."""
    worker, keeper = CollectorRegistry(), CollectorRegistry()
    WorkerMetrics(worker, "model")
    KeeperMetrics(keeper)
    return (
        _HEAD
        + _SHARED
        + _table(QueueCollector.describe())
        + "\n## Of each API\n"
        + _table(_declared(ApiMetrics("model").registry))
        + "\n## Of each worker\n"
        + _table(_declared(worker))
        + "\n## Of each keeper process\n"
        + _table(_declared(keeper))
    )


def _declared(registry: CollectorRegistry) -> list[Any]:
    return list(registry._collector_to_names)


def _table(families: Iterable[Any]) -> str:
    rows = ["", "| name | type | labels | what |", "|---|---|---|---|"]
    for family in families:
        # Instruments and families say the same of themselves under other names.
        name = getattr(family, "_name", None) or family.name
        kind = getattr(family, "_type", None) or family.type
        says = getattr(family, "_documentation", None) or family.documentation
        labels = ", ".join(f"`{label}`" for label in family._labelnames)
        suffix = "_total" if kind == "counter" else ""
        rows.append(f"| `{name}{suffix}` | {kind} | {labels} | {says} |")
    return "\n".join(rows) + "\n"


def main(path: Path = PAGE) -> int:
    """Write the page; with ``--check`` return 1 when it is not current."""
    if "--check" in sys.argv:
        return int(path.read_text(encoding="utf-8") != page())
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
