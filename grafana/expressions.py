"""Every expression of dashboards and rules, for tests and for whoever wants to ask a Prometheus."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from grafana.annotations import ANNOTATIONS
from grafana.boards import BOARDS
from grafana.families import FAMILIES

RULES: Final = Path(__file__).parents[1] / "deploy" / "prometheus" / "rules" / "inferq.yml"
#: Values of a dashboard's variables that leave nothing out.
EVERYTHING: Final[Mapping[str, str]] = {
    "job": ".+",
    "instance": ".+",
    "model": ".+",
    "priority": ".+",
    "__rate_interval": "1m",
    "__range": "1h",
}
_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
_SELECTED: Final = re.compile(r'"[^"]*"|([a-zA-Z_:][a-zA-Z0-9_:]*)')
_PREFIXES: Final = ("inferq_", "vllm:", "flower_")
_FAMILY_OF: Final = {series: family.name for family in FAMILIES.values() for series in family.series}


@dataclass(frozen=True)
class Asked:
    """A panel's or an annotation's expression, its variables filled in."""

    dashboard: str
    panel: str
    expr: str
    kind: Literal["timeseries", "stat", "heatmap", "bargauge", "text", "annotation"]


@dataclass(frozen=True)
class Rule:
    """A recording rule or an alert."""

    name: str
    kind: Literal["record", "alert"]
    expr: str
    fields: Mapping[str, Any]


def filled(expr: str, values: Mapping[str, str] = EVERYTHING) -> str:
    """Return ``expr`` with its variables filled in; raises KeyError for one that has no value."""
    return _VARIABLE.sub(lambda found: values[found[1]], expr)


def of_dashboards(values: Mapping[str, str] = EVERYTHING) -> Iterator[Asked]:
    """Yield what every panel and annotation of every dashboard asks."""
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                yield Asked(board.title, panel.title, filled(query.expr, values), panel.kind)
        for annotation in ANNOTATIONS:
            yield Asked(board.title, annotation.name, filled(annotation.expr, values), "annotation")


def of_rules(path: Path = RULES) -> Iterator[Rule]:
    """Yield every recording rule and alert."""
    for group in yaml.safe_load(path.read_text())["groups"]:
        for fields in group["rules"]:
            kind: Literal["record", "alert"] = "alert" if "alert" in fields else "record"
            yield Rule(fields[kind], kind, fields["expr"], fields)


def named(expr: str) -> set[str]:
    """Return the metrics that an expression names, histograms without suffix; recorded series are left out."""
    words = {found[1] for found in _SELECTED.finditer(expr) if found[1]}
    return {_FAMILY_OF.get(word, word) for word in words if word in _FAMILY_OF or word.startswith(_PREFIXES)}


def all_named() -> dict[str, list[str]]:
    """Return every metric that a dashboard or a rule names, with where."""
    where: dict[str, list[str]] = {}
    for asked in of_dashboards():
        for name in named(asked.expr):
            where.setdefault(name, []).append(f"{asked.dashboard}: {asked.panel}")
    for rule in of_rules():
        for name in named(rule.expr):
            where.setdefault(name, []).append(f"rule {rule.name}")
    return where
