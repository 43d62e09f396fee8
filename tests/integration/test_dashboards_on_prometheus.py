"""Every expression against a real Prometheus that scrapes what a busy inferq would say, and the pictures of it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grafana.boards import BOARDS
from grafana.expressions import EVERYTHING, of_dashboards, of_rules
from grafana.preview import draw
from grafana.preview.asking import NotAnswered, Window
from tests.exposition import Exposition, serving
from tests.processes import until
from tests.prometheus_server import PrometheusServer, needs_prometheus, prometheus

pytestmark = needs_prometheus

VALUES = {**EVERYTHING, "__rate_interval": "5s", "__range": "10s"}
#: What has no value while all is well.
QUIET = {"Worker restarts"}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    with serving(Exposition()) as port, prometheus(tmp_path_factory.mktemp("busy"), port) as server:
        until(lambda: server.value("count_over_time(inferq_queue_depth[1h]) >= 8"), 60, "some scrapes")
        until(lambda: server.value("inferq:cache_hits:ratio_rate5m"), 60, "rules have been evaluated")
        yield server


def test_every_panel_and_annotation_has_data(busy: PrometheusServer) -> None:
    empty = [
        f"{asked.dashboard}: {asked.panel}: {asked.expr}"
        for asked in of_dashboards(VALUES)
        if asked.panel not in QUIET and not busy.value(asked.expr)
    ]
    assert not empty


def test_every_recorded_series_has_values_and_every_rule_is_healthy(busy: PrometheusServer) -> None:
    healthy = {rule["name"]: rule["health"] for group in busy.ask("rules")["groups"] for rule in group["rules"]}
    for rule in of_rules():
        assert healthy[rule.name] == "ok"
        busy.value(rule.expr)
        if rule.kind == "record":
            assert busy.value(rule.name), rule.name


def test_two_keepers_are_not_two_queues(busy: PrometheusServer) -> None:
    assert len(busy.value('inferq_redis_memory_max_bytes{job="inferq-keeper"}')) == 2
    memory = next(a for a in of_dashboards(VALUES) if a.panel == "Memory of Redis" and a.expr.endswith("> 0"))
    assert float(busy.value(memory.expr)[0]["value"][1]) in (0.85e9, 1e9)
    slots = next(asked for asked in of_dashboards(VALUES) if "inferq_engine_slots" in asked.expr)
    assert float(busy.value(slots.expr)[0]["value"][1]) == 16


def test_each_dashboard_becomes_a_picture(busy: PrometheusServer, tmp_path: Path) -> None:
    now = time.time()
    paths = draw(busy.url, now - 15, now, tmp_path / "pictures")
    assert [path.name for path in paths] == [f"{board.uid}.png" for board in BOARDS]
    before = draw(busy.url, now - 7200, now - 7185, tmp_path / "before")
    for path, empty in zip(paths, before, strict=True):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 1.3 * empty.stat().st_size, "as full of pictures as a time without any data"


def test_an_idle_inferq_gives_words_and_no_numbers_that_are_none(tmp_path: Path) -> None:
    with serving(Exposition(idle=True)) as port, prometheus(tmp_path, port) as server:
        until(lambda: server.value("count_over_time(inferq_queue_depth[1h]) >= 4"), 60, "some scrapes")
        for asked in of_dashboards(VALUES):
            if asked.kind == "stat":
                for series in server.value(asked.expr):
                    assert series["value"][1] not in ("NaN", "+Inf"), f"{asked.panel}: {asked.expr}"
        errors = next(asked for asked in of_dashboards(VALUES) if asked.panel == "Errors")
        assert server.value(errors.expr) == []
        now = time.time()
        draw(server.url, now - 10, now, tmp_path / "pictures")


def test_nobody_there_is_said_in_a_sentence() -> None:
    with pytest.raises(NotAnswered, match=r"no Prometheus answers at http://127\.0\.0\.1:1 "):
        Window("http://127.0.0.1:1", 0, 1)


def test_a_wrong_expression_is_said_in_a_sentence(busy: PrometheusServer) -> None:
    with pytest.raises(NotAnswered, match="refuses"):
        Window(busy.url, 0, 1).last("sum(")
