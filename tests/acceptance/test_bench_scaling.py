"""A short turn of what docs/scaling.md is written from: it runs, draws, writes its JSON; figures are not judged."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import ROOT


def bench(out: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--rounds", "1", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("bench-*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_capacity(tmp_path: Path) -> None:
    found = bench(tmp_path, "capacity", "--requests", "16")
    costs = {one["step"]: one["us"] for one in found["capacity"]["costs"]}
    assert {"submit", "hit", "poll", "claim", "complete", "piece of a stream, written"} <= set(costs)
    assert found["capacity"]["weights"]["waiting"] > 0


@pytest.mark.skipif("LOCUST" not in os.environ, reason="`make load-check` runs it")
def test_day_and_load(tmp_path: Path) -> None:
    found = bench(tmp_path, "day", "load", "--day", "10000", "--users", "8", "--seconds", "5")
    assert len(found["day"]["outcomes"]) == 6
    sent = {one["name"]: one["requests"] for one in found["load"]["requests"]}
    assert sum(one["failures"] for one in found["load"]["requests"]) == 0
    assert sent["submit, new"] > 0
    drawn = {file.name for file in tmp_path.glob("*.png") if file.stat().st_size > 10_000}
    assert drawn == {"day-arrivals.png", "day-waits.png", "day-workers.png", "day-cost.png", "load.png"}


def test_compose_has_the_locust_that_is_pinned() -> None:
    (pinned,) = re.findall(r"^locust==(\S+)$", (ROOT / "requirements-load.txt").read_text(), re.MULTILINE)
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["load"]["image"]
    assert image.endswith(f":{pinned}")
