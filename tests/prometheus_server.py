"""A real Prometheus for tests, of the system; tests that need one are skipped where there is none."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local.prometheus import RULES
from deploy.local.stack import free_port, status
from tests.exposition import PAGES
from tests.processes import until

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH")


class PrometheusServer:
    """Where it is, and what it says."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, what: str, **fields: str) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(fields)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def value(self, expr: str) -> list[Any]:
        found = self.ask("query", query=expr)
        return [found["result"]] if found["resultType"] == "scalar" else found["result"]


@contextmanager
def prometheus(directory: Path, pages_port: int) -> Iterator[PrometheusServer]:
    """Run one that scrapes an exposition's pages every second, with the rules of the repository."""
    jobs = [
        {
            "job_name": job,
            "metrics_path": f"/{job}",
            # Two keepers, as there are in production: they say the same.
            "static_configs": [{"targets": [f"{host}:{pages_port}" for host in _hosts(job)]}],
        }
        for job in PAGES
    ]
    intervals = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    rules = [str(RULES)]
    config = directory / "prometheus.yml"
    config.write_text(json.dumps({"global": intervals, "rule_files": rules, "scrape_configs": jobs}))
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: status("127.0.0.1", port, "/-/ready") == 200, 30, "Prometheus is ready")
        yield PrometheusServer(port)
    finally:
        process.kill()
        process.wait()


def _hosts(job: str) -> list[str]:
    return ["127.0.0.1", "localhost"] if job == "inferq-keeper" else ["127.0.0.1"]
