"""The rules: promtool's checks and plays, and that each alert is explained and played both ways."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.boards.runbook import sections
from grafana.expressions import RULES, of_rules
from tests.processes import ROOT
from tests.prometheus_server import needs_promtool

DIRECTORY = ROOT / "deploy" / "prometheus"
PLAYS = sorted((DIRECTORY / "tests").glob("*.yml"))
ALERTS = [rule for rule in of_rules() if rule.kind == "alert"]
RECORDED = [rule for rule in of_rules() if rule.kind == "record"]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_configuration_for_compose_is_right(tmp_path: Path) -> None:
    token = tmp_path / "metrics_token"
    token.write_text("secret")
    text = (DIRECTORY / "prometheus.yml").read_text()
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/run/secrets/metrics_token", str(token)))
    (tmp_path / "rules").symlink_to(DIRECTORY / "rules")
    assert "rules found" in promtool("check", "config", config)


@needs_promtool
def test_the_rules_are_right() -> None:
    promtool("check", "rules", "--lint-fatal", RULES)


@needs_promtool
@pytest.mark.parametrize("play", PLAYS, ids=lambda path: path.stem)
def test_alerts_fire_and_do_not_as_played(play: Path) -> None:
    promtool("test", "rules", play)


def played() -> tuple[dict[str, set[bool]], str]:
    """Whether each alert is played firing and not firing, and the text of all plays."""
    found: dict[str, set[bool]] = {}
    for path in PLAYS:
        for play in yaml.safe_load(path.read_text())["tests"]:
            for asked in play.get("alert_rule_test", []):
                found.setdefault(asked["alertname"], set()).add(bool(asked["exp_alerts"]))
    return found, "".join(path.read_text() for path in PLAYS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule.name)
def test_each_alert_is_explained_and_played_both_ways(alert: Any) -> None:
    annotations = alert.fields["annotations"]
    assert alert.fields["labels"]["severity"] in ("page", "ticket")
    assert annotations["summary"].strip()
    assert annotations["description"].strip()
    assert annotations["runbook_url"] == f"docs/runbook.md#{alert.name.lower()}"
    section = sections()[alert.name]
    for part in ("**Means**", "**Callers notice**", "**Look at**", "**Do**"):
        assert part in section
    assert played()[0][alert.name] == {True, False}


def test_the_runbook_explains_no_alert_that_is_gone() -> None:
    assert set(sections()) == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("rule", RECORDED, ids=lambda rule: rule.name)
def test_each_recorded_series_has_a_proper_name_and_a_value_in_a_play(rule: Any) -> None:
    assert rule.name.startswith("inferq:")
    assert len(rule.name.split(":")) == 3
    assert rule.name in played()[1]
