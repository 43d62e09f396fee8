"""A short turn of every measurement: it runs, prints its table and writes its JSON. Figures are not judged here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT


def bench(out: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--rounds", "1", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("bench-*.json")
    found = json.loads(file.read_text())
    assert found["machine"]["cores"]
    return found


def test_latency(tmp_path: Path) -> None:
    rows = bench(tmp_path, "latency", "--requests", "16")["latency"]
    assert [row["request"] for row in rows] == [
        "bare view, one Redis round trip",
        "cache hit",
        "submit of a miss",
        "submit, 1000 waiting, bells on",
    ]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)


def test_metrics(tmp_path: Path) -> None:
    found = bench(tmp_path, "metrics", "--requests", "200")["metrics"]
    assert found["cost"]["on_per_s"] > 0
    assert found["cost"]["off_per_s"] > 0
    assert [one["process"] for one in found["scrapes"]] == ["api", "worker", "keeper"]
    assert all(one["size"] > 5000 for one in found["scrapes"])


def test_waiters(tmp_path: Path) -> None:
    rows = bench(tmp_path, "waiters", "--waiters", "40")["waiters"]
    assert {row["worker_class"]: row["held"] for row in rows} == {"gevent": 40, "gthread": 40}


def test_scale(tmp_path: Path) -> None:
    rows = bench(tmp_path, "scale", "--deepest", "100")["scale"]
    assert [row["operation"] for row in rows] == ["cancel", "claim", "poll", "submit"]


def test_fairness_and_overload(tmp_path: Path) -> None:
    found = bench(tmp_path, "fairness", "overload", "--seconds", "3")
    assert found["fairness"]["noise"]["noisy_sent"] > 0
    assert sum(one["share"] for one in found["fairness"]["shares"]) == pytest.approx(1)
    overload = found["overload"]
    assert overload["offered"] > overload["accepted"] > 0
    assert overload["refused_p99_ms"] > 0, "whoever would start too late was refused"


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_spike(tmp_path: Path) -> None:
    (row,) = bench(tmp_path, "spike", "--burst", "100", "--only", "inferq")["spike"]
    assert (row["service"], row["accepted"], row["lost"]) == ("inferq", 100, 0)


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_webhooks(tmp_path: Path) -> None:
    found = bench(tmp_path, "webhooks", "--seconds", "3", "--clients", "8")["webhooks"]
    assert found["timing"]["events"] == 45
    assert found["timing"]["hung"] > 0
    assert [row["receivers"] for row in found["throughput"]] == ["that answer", "that hang"]


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_throughput(tmp_path: Path) -> None:
    (row,) = bench(tmp_path, "throughput", "--clients", "4", "--only", "inferq")["throughput"]
    assert (row["contestant"], row["clients"]) == ("inferq", 4)
    assert row["tokens_per_s"] > 0
    assert set(row["cpu_ms_per_job"]) == {"api", "redis", "keeper", "worker", "engine"}
