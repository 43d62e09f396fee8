"""A short turn of every measurement: it runs, prints its table and writes its JSON. Figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT

#: All in one run, on the engine that costs least; the real engine is measured by `make bench` alone.
SMOKE = [
    *("latency", "metrics", "scale", "fairness", "overload", "spike", "webhooks", "throughput", "streaming", "waiters"),
    *("--engine", "simulated", "--only", "inferq", "--rounds", "1", "--requests", "50", "--deepest", "100"),
    *("--seconds", "2", "--burst", "100", "--clients", "4", "--waiters", "40"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out: Path = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "bench", *SMOKE, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("bench-*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_machine_is_told(found: dict[str, Any]) -> None:
    assert found["machine"]["cores"]


def test_latency(found: dict[str, Any]) -> None:
    rows = found["latency"]
    assert [row["request"] for row in rows] == [
        "bare view, one Redis round trip",
        "cache hit",
        "submit of a miss",
        "submit, 50 waiting, bells on",
    ]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)


def test_metrics(found: dict[str, Any]) -> None:
    metrics = found["metrics"]
    assert metrics["cost"]["on_per_s"] > 0
    assert metrics["cost"]["off_per_s"] > 0
    assert [one["process"] for one in metrics["scrapes"]] == ["api", "worker", "keeper"]
    assert all(one["size"] > 5000 for one in metrics["scrapes"])


def test_waiters(found: dict[str, Any]) -> None:
    assert {row["worker_class"]: row["held"] for row in found["waiters"]} == {"gevent": 40, "gthread": 40}


def test_scale(found: dict[str, Any]) -> None:
    assert [row["operation"] for row in found["scale"]] == ["cancel", "claim", "poll", "submit"]


def test_fairness(found: dict[str, Any]) -> None:
    assert found["fairness"]["noise"]["noisy_sent"] > 0
    assert sum(one["share"] for one in found["fairness"]["shares"]) == pytest.approx(1)


def test_overload(found: dict[str, Any]) -> None:
    overload = found["overload"]
    assert overload["offered"] > overload["accepted"] > 0
    assert overload["refused_p99_ms"] > 0, "whoever would start too late was refused"


def test_spike(found: dict[str, Any]) -> None:
    (row,) = found["spike"]
    assert (row["service"], row["accepted"], row["lost"]) == ("inferq", 100, 0)


def test_webhooks(found: dict[str, Any]) -> None:
    webhooks = found["webhooks"]
    assert webhooks["timing"]["events"] == 30
    assert webhooks["timing"]["hung"] > 0
    assert [row["receivers"] for row in webhooks["throughput"]] == ["that answer", "that hang"]


def test_throughput(found: dict[str, Any]) -> None:
    (row,) = found["throughput"]
    assert (row["contestant"], row["clients"]) == ("inferq", 4)
    assert row["tokens_per_s"] > 0
    assert set(row["cpu_ms_per_job"]) == {"api", "redis", "keeper", "worker", "engine"}


def test_streaming(found: dict[str, Any]) -> None:
    assert found["streaming"]["cost"]["clients"] == 4
    assert found["streaming"]["first_tokens"][0]["p50_ms"] > 0
