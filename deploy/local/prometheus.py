"""A Prometheus beside the local stack, where there is one on PATH."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from deploy.local.child import ROOT
from deploy.local.stack import check_port, status
from deploy.local.supervisor import Piece
from inferq.errors import ConfigurationError
from inferq.settings import Settings

_HOST: Final = "127.0.0.1"
#: How often everything is scraped, and rules are evaluated.
INTERVAL: Final = "15s"
RULES: Final = ROOT / "deploy" / "prometheus" / "rules" / "*.yml"


def find_prometheus() -> str | None:
    """Return the ``prometheus`` on PATH, if there is one."""
    return shutil.which("prometheus")


def why_none(settings: Settings) -> str:
    """Return why the stack runs without a Prometheus; empty when it has one."""
    if settings.prometheus_port == 0:
        return "PROMETHEUS_PORT is 0"
    if not find_prometheus():
        return "no prometheus on PATH"
    try:
        check_port("PROMETHEUS_PORT", _HOST, settings.prometheus_port)
    except ConfigurationError as error:
        # The machine's own, mostly. It is no reason not to serve.
        return str(error)
    return ""


def write_configuration(settings: Settings, directory: Path, *, interval: str = INTERVAL) -> Path:
    """Write the configuration for a stack on this machine, and its token beside it; returns the file."""
    directory.mkdir(parents=True, exist_ok=True)
    token = directory / "metrics_token"
    token.unlink(missing_ok=True)
    if settings.metrics_token:
        with os.fdopen(os.open(token, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(settings.metrics_token.get_secret_value())
    path = directory / "prometheus.yml"
    path.write_text(json.dumps(configuration(settings, token, interval), indent=2) + "\n")  # JSON is YAML
    return path


def configuration(settings: Settings, token: Path, interval: str = INTERVAL) -> dict[str, Any]:
    """Return Prometheus's configuration; ``token`` is the file of ``METRICS_TOKEN``, used when that is set."""
    authorization = {"authorization": {"credentials_file": str(token)}} if settings.metrics_token else {}
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": _timeout(interval), "evaluation_interval": interval},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            _job("prometheus", _HOST, settings.prometheus_port),
            _job("inferq-api", settings.api_host, settings.api_port) | authorization,
            _job("inferq-worker", settings.metrics_host, settings.metrics_port) | authorization,
            _job("inferq-keeper", settings.metrics_host, settings.keeper_metrics_port) | authorization,
            _job("flower", settings.flower_host, settings.flower_port) | {"metrics_path": "/flower/metrics"},
        ],
    }


def prometheus_piece(settings: Settings, directory: Path, *, interval: str = INTERVAL) -> Piece:
    """Return a Prometheus that scrapes the local stack and keeps its data in ``directory``."""
    path = write_configuration(settings, directory, interval=interval)
    address = f"{_HOST}:{settings.prometheus_port}"
    command = [find_prometheus() or "prometheus", f"--config.file={path}", f"--storage.tsdb.path={directory / 'data'}"]
    return Piece(
        name="prometheus",
        command=[*command, f"--web.listen-address={address}", "--storage.tsdb.retention.time=7d"],
        env=os.environ,
        address=f"http://{address}",
        ready=lambda: status(_HOST, settings.prometheus_port, "/-/ready") == 200,
    )


def _job(name: str, host: str, port: int) -> dict[str, Any]:
    reached = _HOST if host in ("0.0.0.0", "::", "") else host  # noqa: S104  # a wildcard is no address to call
    written = f"[{reached}]" if ":" in reached else reached
    return {"job_name": name, "static_configs": [{"targets": [f"{written}:{port}"]}]}


def _timeout(interval: str) -> str:
    return min(interval, "10s", key=lambda text: int(text.removesuffix("s")))
