"""The rules of deploy/prometheus/rules as objects of the Prometheus operator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.local.child import ROOT

RULES: Final = ROOT / "deploy" / "prometheus" / "rules" / "inferq.yml"
DIRECTORY: Final = ROOT / "deploy" / "kubernetes"
#: Alerts that take the place of others where workers come and go.
SCALED: Final = DIRECTORY / "overlays" / "keda" / "rules.yml"

_HEAD: Final = "# Written from {} by `python -m deploy.kubernetes`.\n"


def written() -> Mapping[Path, str]:
    """Return each file that is made, with what is to be in it."""
    rules, scaled = _groups(RULES), _groups(SCALED)
    return {
        DIRECTORY / "components" / "monitoring" / "prometheus-rule.yaml": _file(rules, RULES),
        DIRECTORY / "overlays" / "keda" / "prometheus-rule.yaml": _file(replaced(rules, scaled), RULES, SCALED),
    }


def replaced(groups: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``groups`` with the alerts of ``others`` in the place of those of the same group and name.

    Raises ValueError for one that takes nobody's place.
    """
    wanted = {(group["name"], rule["alert"]): rule for group in others for rule in group["rules"]}
    found = [
        group | {"rules": [wanted.pop((group["name"], rule.get("alert")), rule) for rule in group["rules"]]}
        for group in groups
    ]
    if wanted:
        raise ValueError(f"takes nobody's place: {', '.join(alert for _, alert in wanted)}")
    return found


def _groups(path: Path) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return groups


def _file(groups: list[dict[str, Any]], *sources: Path) -> str:
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "inferq", "labels": {"app.kubernetes.io/name": "inferq"}},
        "spec": {"groups": groups},
    }
    head = _HEAD.format(" and ".join(str(source.relative_to(ROOT)) for source in sources))
    return head + yaml.safe_dump(rule, sort_keys=False, width=120)
