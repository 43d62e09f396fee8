"""The Prometheus of `make up`: its configuration, and when there is none."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from deploy.local.prometheus import prometheus_piece, why_none, write_configuration
from tests.conftest import make_settings
from tests.prometheus_server import needs_prometheus, needs_promtool

URL = "redis://127.0.0.1:1"


@needs_promtool
def test_the_configuration_scrapes_every_process_and_promtool_agrees(tmp_path: Path) -> None:
    settings = make_settings(URL, api_host="0.0.0.0", metrics_token="topsecret-0123456789abcdef")
    ports = {"metrics_port": 9101, "keeper_metrics_port": 9102}
    path = write_configuration(settings.model_copy(update=ports), tmp_path)
    done = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
    config = json.loads(path.read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs["inferq-api"]["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]
    assert jobs["inferq-worker"]["static_configs"] == [{"targets": ["127.0.0.1:9101"]}]
    assert jobs["inferq-keeper"]["static_configs"] == [{"targets": ["127.0.0.1:9102"]}]
    assert jobs["flower"]["metrics_path"] == "/flower/metrics"
    assert "topsecret-0123456789abcdef" not in path.read_text()


def test_the_token_is_in_a_file_of_its_own_that_nobody_else_reads(tmp_path: Path) -> None:
    path = write_configuration(make_settings(URL, metrics_token="topsecret-0123456789abcdef"), tmp_path)
    token = Path(json.loads(path.read_text())["scrape_configs"][1]["authorization"]["credentials_file"])
    assert token.read_text() == "topsecret-0123456789abcdef"
    assert token.stat().st_mode & 0o777 == 0o600
    write_configuration(make_settings(URL), tmp_path)
    assert not token.exists(), "a token that is no longer set is not kept"
    assert "authorization" not in path.read_text()


def test_it_may_be_missing_or_unwanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert why_none(make_settings(URL, prometheus_port=0)) == "PROMETHEUS_PORT is 0"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_none(make_settings(URL)) == "no prometheus on PATH"


@needs_prometheus
def test_a_port_that_is_taken_is_no_reason_not_to_serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"PROMETHEUS_PORT: port {port} cannot be used" in why_none(make_settings(URL, prometheus_port=port))


def test_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    piece = prometheus_piece(make_settings(URL, prometheus_port=9999), tmp_path)
    assert "--web.listen-address=127.0.0.1:9999" in piece.command
