"""Dashboards: current, and by the rules of Grafana's dashboard-linter, which is not at hand here."""

import itertools
import json
import re
from typing import Any

import pytest
import yaml

from grafana.__main__ import DIRECTORY, stale
from grafana.boards import BOARDS
from grafana.coverage import LEFT_OUT, outdated, unknown, unseen
from grafana.expressions import EVERYTHING, all_named, filled, named, of_dashboards, of_rules
from grafana.families import FAMILIES
from grafana.looks import known, label_names, values
from grafana.model import places
from grafana.palette import LOOKS, PALETTE
from grafana.preview.units import shown

PAGES = {path.stem: json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("*.json"))}
EXCLUDED = yaml.safe_load((DIRECTORY / ".lint").read_text())["exclusions"]
#: Units of Grafana that we use; the linter knows many more.
UNITS = {"none", "short", "percentunit", "s", "bytes", "reqps", "celsius", "watt"}
SELECTOR = re.compile(r"[a-zA-Z_:][\w:]*(\{[^}]*\})?")

pages = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def asking(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in page["panels"] if panel["type"] not in ("row", "text")]


def excluded(rule: str, panel: str) -> bool:
    return any(entry["panel"] == panel for entry in EXCLUDED.get(rule, {}).get("entries", []))


def colours(thing: Any) -> set[str]:
    return set(re.findall(r"#[0-9A-Fa-f]{6}\b", json.dumps(thing)))


def test_what_is_committed_is_what_is_generated() -> None:
    assert stale() == [], "run python -m grafana"


def test_dashboards_have_names_of_their_own() -> None:
    assert (
        len({page["uid"] for page in PAGES.values()}) == len({page["title"] for page in PAGES.values()}) == len(PAGES)
    )
    assert all(page["uid"] == name for name, page in PAGES.items())


@pages
def test_a_page_is_of_the_schema_and_uneditable(page: dict[str, Any]) -> None:
    assert page["schemaVersion"] >= 39
    assert page["editable"] is False
    assert page["id"] is None
    assert page["time"]["from"].startswith("now-")
    assert {link["url"] for link in page["links"]} == {f"/d/{uid}" for uid in PAGES if uid != page["uid"]}
    assert all(link["includeVars"] and link["keepTime"] for link in page["links"])


@pages
def test_the_variables_are_as_the_linter_wants_them(page: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in page["templating"]["list"]}
    datasource = variables.pop("datasource")
    assert (datasource["type"], datasource["query"], datasource["label"]) == ("datasource", "prometheus", "Data source")
    assert set(variables) == {"job", "instance", "model", "priority"}
    for name, variable in variables.items():
        assert variable["label"] == name.title()
        assert variable["datasource"]["uid"] == "${datasource}"
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".+"
        assert variable["type"] == "query"
        assert variable["refresh"] == 2, "on change of the time range"
        assert re.fullmatch(rf"label_values\(.+, {name}\)", variable["query"])


@pages
def test_panels_have_title_description_unit_source_and_a_number_of_their_own(page: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in page["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in page["panels"]:
        assert panel["title"]
    for panel in asking(page):
        assert len(panel["description"]) > 10, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["fieldConfig"]["defaults"]["noValue"], "words instead of an empty panel"
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"], "no targets"
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFG"[: len(panel["targets"])])
        assert all(target["datasource"] == panel["datasource"] and target["expr"] for target in panel["targets"])


@pages
def test_panels_do_not_overlap(page: dict[str, Any]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] <= at["x"] + at["w"] <= 24
        covered = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not covered & cells, panel["title"]
        cells |= covered


@pages
def test_every_selector_is_within_job_and_instance_and_every_rate_fits_the_step(page: dict[str, Any]) -> None:
    for panel in asking(page):
        for target in panel["targets"]:
            expr = target["expr"]
            selectors = [found[1] for found in SELECTOR.finditer(expr) if named(found[0]) and found[1]]
            for rule, matcher in (
                ("target-job-rule", 'job=~"$job"'),
                ("target-instance-rule", 'instance=~"$instance"'),
            ):
                if excluded(rule, panel["title"]):
                    continue
                assert selectors, expr
                assert all(matcher in selector for selector in selectors), expr
            assert set(re.findall(r"rate\([^\[]*\[([^\]]+)\]", expr)) <= {"$__rate_interval"}, expr
            for counter in re.findall(r"(\w+)\([\w:]+_total\{", expr):
                assert counter in ("rate", "increase"), expr


def test_what_is_excluded_from_the_linter_exists() -> None:
    titles = {panel.title for board in BOARDS for panel in board.panels}
    assert {entry["panel"] for rule in EXCLUDED.values() for entry in rule["entries"]} <= titles
    assert all(rule["reason"] for rule in EXCLUDED.values())


@pages
def test_colours_are_of_the_palette(page: dict[str, Any]) -> None:
    assert colours(page) <= set(PALETTE)
    for panel in asking(page):
        mode = panel["fieldConfig"]["defaults"]["color"]["mode"]
        assert mode in ("thresholds", "fixed", "shades"), "Grafana's palettes mix red and green"


def test_one_look_per_name_and_a_look_for_every_name_that_is_known() -> None:
    for board in BOARDS:
        for panel in board.panels:
            drawn = [name for query in panel.queries for name, _ in known(query)]
            assert len(set(drawn)) == len(drawn), panel.title
            if panel.kind != "timeseries":
                continue
            for query in panel.queries:
                labels = label_names(query.legend)
                if not labels:
                    assert query.legend in drawn, f"{panel.title}: {query.legend}"
                elif len(labels) == 1:
                    assert set(values(query, labels[0])) <= set(LOOKS), f"{panel.title}: {query.legend}"


def test_bad_news_can_be_told_without_colour() -> None:
    for name in ("failed", "dead", "missed", "limited", "error", "5xx"):
        assert LOOKS[name].line != "solid", name


@pages
def test_links_lead_to_the_runbook(page: dict[str, Any]) -> None:
    numbers = {panel["id"]: panel["title"] for panel in PAGES["inferq-runbook"]["panels"]}
    for panel in asking(page):
        for link in panel["links"]:
            number = int(re.fullmatch(r"/d/inferq-runbook\?viewPanel=(\d+)", link["url"])[1])
            assert link["title"] == f"Runbook: {numbers[number]}"


def test_every_alert_is_linked_from_a_panel() -> None:
    linked = {alert for board in BOARDS for panel in board.panels for alert in panel.alerts}
    assert linked == {rule.name for rule in of_rules() if rule.kind == "alert"}


def test_series_that_all_keepers_share_are_counted_once() -> None:
    for where, expr in [(asked.panel, asked.expr) for asked in of_dashboards()] + [
        (r.name, r.expr) for r in of_rules()
    ]:
        for name in named(expr):
            if not FAMILIES[name].shared:
                continue
            for before in re.findall(
                rf"([a-z_]+)(?: by \([^)]*\))? ?\((?:rate\(|increase\(|deriv\(|max_over_time\()?{name}\w*", expr
            ):
                assert before in ("max", "absent", "changes", "rate", "increase"), f"{where}: {expr}"


def test_no_variable_is_left_and_none_is_unknown() -> None:
    for asked in of_dashboards():
        assert "$" not in asked.expr
    with pytest.raises(KeyError):
        filled('up{job="$nobody"}')
    assert filled('rate(x[$__rate_interval]) + y{a=~"${model}"}', {**EVERYTHING, "model": "m"}) == (
        'rate(x[1m]) + y{a=~"m"}'
    )


def test_the_metrics_in_an_expression_are_found() -> None:
    expr = (
        'histogram_quantile(0.9, sum by (le) (rate(inferq_generation_seconds_bucket{job="inferq_x"}[5m]))) > vllm:what'
    )
    assert named(expr) == {"inferq_generation_seconds", "vllm:what"}


def test_every_known_metric_is_shown_or_alerted_on() -> None:
    existing = [name for name in FAMILIES if name.startswith("inferq_")]
    assert unseen(existing) == set()
    assert unknown(existing) == {}
    assert outdated(existing) == set()
    assert unseen([*existing, "inferq_forgotten_total"]) == {"inferq_forgotten_total"}
    assert "inferq_queue_depth" in unknown([name for name in existing if name != "inferq_queue_depth"])
    assert {name for name in all_named() if name not in FAMILIES} == set()
    assert all(reason for reason in LEFT_OUT.values())


def test_a_label_that_a_metric_lacks_is_an_error() -> None:
    from grafana.promql import rate

    with pytest.raises(ValueError, match="no label state"):
        rate("inferq_jobs_finished_total", "state")


def test_tiles_fill_what_is_free() -> None:
    overview = next(board for board in BOARDS if board.uid == "inferq-overview")
    at = {thing.title: place for thing, place in places(overview)}
    assert (at["Held open"].x, at["Held open"].y) == (at["Redis"].x, at["Redis"].y + at["Redis"].height)


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.0123, "percentunit", 1, "1.2%"),
        (95.0, "s", None, "1.58 min"),
        (0.0035, "s", None, "3.5 ms"),
        (0, "s", None, "0 s"),
        (3 * 2**30, "bytes", None, "3 GiB"),
        (12_300, "short", None, "12.3 K"),
        (88.0, "celsius", None, "88 °C"),
        (41.2, "reqps", None, "41.2 req/s"),
        (1234.0, "none", None, "1234"),
        (64.0, "watt", 0, "64 W"),
    ],
)
def test_values_are_written_as_grafana_writes_them(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert shown(value, unit, decimals) == text


def test_series_of_one_panel_do_not_look_alike() -> None:
    for board in BOARDS:
        for panel in board.panels:
            # Areas have no lines: there the colour alone tells.
            looks = dict(pair for query in panel.queries for pair in known(query))
            seen = [look.colour if panel.stacked else look for look in looks.values()]
            assert len(set(seen)) == len(seen), f"{board.title}: {panel.title}: {looks}"
