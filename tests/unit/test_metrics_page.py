"""docs/metrics.md says what the code exports."""

import re

from deploy.metrics_page import PAGE, declared, page
from grafana.coverage import LEFT_OUT, outdated, unknown, unseen
from grafana.families import FAMILIES
from inferq.measures import BOUNDS
from inferq.scripts import lua_source


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "python -m deploy.metrics_page"


def test_no_label_could_name_a_client_or_its_text() -> None:
    labels = {
        label for row in page().splitlines() if row.startswith("| `inferq_") for label in row.split("|")[3].split(",")
    }
    assert {label.strip().strip("`") for label in labels} - {""} == {
        "model", "priority", "line", "state", "outcome", "reason", "step", "version", "role", "method", "route",
        "status", "decision", "result", "policy", "found", "gpu",
    }  # fmt: skip


def test_dashboards_and_rules_name_what_the_code_has_and_all_of_it() -> None:
    existing = {one.name for role in declared().values() for one in role}
    assert unknown(existing) == {}, "named, and exported by nobody"
    assert unseen(existing) == set(), "exported, and neither shown nor alerted on"
    assert outdated(existing) == set(), LEFT_OUT


def test_dashboards_know_metrics_as_they_are() -> None:
    for owner, metrics in declared().items():
        for one in metrics:
            known = FAMILIES[one.name]
            assert (known.kind, set(known.labels)) == (one.kind, set(one.labels)), one.name
            assert known.shared == (owner == "redis"), one.name


def test_scripts_and_keepers_know_the_same_buckets() -> None:
    (listed,) = re.findall(r"local BOUNDS = \{(.*)\}", lua_source("_totals"))
    assert [int(bound) / 1000 for bound in listed.split(", ")] == list(BOUNDS)
