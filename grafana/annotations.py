"""Events that are marked on every dashboard."""

from dataclasses import dataclass
from typing import Final

from grafana.palette import GREEN, ORANGE, VERMILLION
from grafana.promql import SCOPE


@dataclass(frozen=True)
class Annotation:
    """A mark wherever ``expr`` has a value."""

    name: str
    expr: str
    #: Text of the mark, with ``{{label}}`` in it.
    text: str
    colour: str


_BUILDS: Final = f"count by (version, role) (inferq_build_info{{{SCOPE}}}"

ANNOTATIONS: Final = (
    Annotation(
        "Deploys",
        f"{_BUILDS}) unless {_BUILDS} offset 2m)",
        "{{role}} {{version}}",
        GREEN,
    ),
    Annotation(
        "Worker restarts",
        f"changes(process_start_time_seconds{{{SCOPE}}}[2m]) > 0 and on (job, instance) inferq_worker_slots{{{SCOPE}}}",
        "{{instance}} started again",
        ORANGE,
    ),
    Annotation(
        "Engine deaths",
        f"max by (model) (increase(inferq_engine_deaths_total{{{SCOPE}}}[2m])) > 0",
        "an engine of {{model}} died",
        VERMILLION,
    ),
)
