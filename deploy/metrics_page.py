"""Writes docs/metrics.md from the code; with ``--check`` it only says whether the page is current."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from api.metrics import ApiMetrics
from deploy.local.child import ROOT
from workers.gpu import GpuCollector
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

`/readyz` and `/livez` on the port of a worker or keeper are for probes and need no token: does it take work; is it so
stuck that only a new start helps?
"""
_OF: Final = "\n## Of each {} process\n"
_SHARED: Final = """
## From Redis, by every keeper

Counted by the scripts that make the transitions, so exact, and right when every worker is dead. **Every keeper exports
the same values: aggregate over keepers with `max by (...)`, never with `sum`.** A counter that a restart of Redis loses
starts again.
"""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A metric as the code declares it; a counter is named with its ``_total``."""

    name: str
    kind: str
    labels: tuple[str, ...]
    says: str


def declared() -> dict[str, list[Declared]]:
    """Return all metrics of inferq by who has them: redis (every keeper), api, worker, keeper."""
    worker, keeper = CollectorRegistry(), CollectorRegistry()
    WorkerMetrics(worker, "model")
    KeeperMetrics(keeper)
    return {
        "redis": [_read(family) for family in QueueCollector.describe()],
        "api": _all(ApiMetrics("model").registry),
        "worker": [*_all(worker), *(_read(family) for family in GpuCollector.describe())],
        "keeper": _all(keeper),
    }


def page() -> str:
    """Return the text of the page."""
    heads = {"redis": _SHARED, "api": _OF.format("API"), "worker": _OF.format("worker"), "keeper": _OF.format("keeper")}
    return _HEAD + "".join(heads[owner] + _table(metrics) for owner, metrics in declared().items())


def _all(registry: CollectorRegistry) -> list[Declared]:
    return [_read(instrument) for instrument in registry._collector_to_names]


def _read(metric: Any) -> Declared:
    # Instruments and families say the same of themselves under other names.
    name = getattr(metric, "_name", None) or metric.name
    kind = getattr(metric, "_type", None) or metric.type
    says = getattr(metric, "_documentation", None) or metric.documentation
    suffix = "_total" if kind == "counter" else ""
    return Declared(name=f"{name}{suffix}", kind=kind, labels=tuple(metric._labelnames), says=says)


def _table(metrics: Iterable[Declared]) -> str:
    rows = ["", "| name | type | labels | what |", "|---|---|---|---|"]
    for one in metrics:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{one.name}` | {one.kind} | {labels} | {one.says} |")
    return "\n".join(rows) + "\n"


def main(path: Path = PAGE) -> int:
    """Write the page; with ``--check`` return 1 when it is not current."""
    if "--check" in sys.argv:
        return int(path.read_text(encoding="utf-8") != page())
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
