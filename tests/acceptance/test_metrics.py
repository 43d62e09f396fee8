"""Metrics of real processes: several of one API, a keeper, and a worker that is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from deploy.local.stack import free_port, status
from inferq.credentials import KeyRing
from inferq.keys import key as queue_key
from tests.conftest import make_settings
from tests.processes import ROOT, Process, stack, until
from tests.redis_server import RedisServer

TOKEN = "a-token-of-sixteen"


def scrape(port: int) -> dict[tuple[str, ...], float]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_of_all_processes_and_what_a_killed_worker_leaves(own_redis_server: RedisServer, tmp_path: Path) -> None:
    settings = make_settings(
        own_redis_server.url,
        api_port=free_port(),
        metrics_port=free_port(),
        keeper_metrics_port=free_port(),
        metrics_token=TOKEN,
        api_processes=2,
        lease=2.0,
        simulated_step=0.002,
        max_num_seqs=2,
    )
    model = settings.public_model
    with own_redis_server.client() as redis:
        key = KeyRing(redis).create("acme")

    def post(body: dict[str, Any], wait: int = 0) -> int:
        headers = {"X-API-Key": key, "Content-Type": "application/json", **({"Prefer": f"wait={wait}"} if wait else {})}
        url = f"http://127.0.0.1:{settings.api_port}/v1/jobs"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)

    def post_and_be_cut_off(body: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            post(body, wait=60)

    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"), "api.wsgi:app"]
    # A start that was killed has left this behind; that of a process which lives is its own.
    temporary = Path(tempfile.gettempdir())
    leftover, used = (
        temporary / f"inferq-metrics-{_ended_process()}-left",
        temporary / f"inferq-metrics-{os.getpid()}-used",
    )
    for directory in (leftover, used):
        directory.mkdir()
    api = Process("api", command, settings, tmp_path / "api.log")
    try:
        with stack(settings, tmp_path) as running:
            running.keeper()
            worker = running.worker()
            until(lambda: api.output().count("Booting worker") == 2, 30, "two API processes")
            until(lambda: "metrics_offered" in worker.output(), 30, "the worker offers metrics")
            until(lambda: scrape(settings.metrics_port)["inferq_worker_ready",], 30, "the worker is ready")
            for port in (settings.metrics_port, settings.keeper_metrics_port):
                until(lambda port=port: status("127.0.0.1", port, "/livez") == 200, 30, "both are alive")

            def kept() -> dict[tuple[str, ...], float]:
                return scrape(settings.keeper_metrics_port)

            assert post({"prompt": "known"}, wait=30) == 200
            answered = ("inferq_bells_answered_total", "runs")
            until(lambda: scrape(settings.metrics_port)[answered] == 1, 20, "the one bell has found a run")
            for _ in range(40):  # each over a connection of its own: both processes get some
                assert post({"prompt": "known"}) == 200
            cached = ("inferq_admissions_total", "cached", model, "normal")

            def told() -> set[float]:
                return {scrape(settings.api_port)[cached] for _ in range(8)}

            until(lambda: told() == {40}, 10, "whoever answers says all")
            assert not leftover.exists()
            assert used.exists()
            used.rmdir()
            # Some seconds of work, for which a client waits that will be cut off.
            long = {"prompt": "simulate:words=1500", "max_tokens": 1500}
            waiting = threading.Thread(target=post_and_be_cut_off, args=(long,))
            waiting.start()
            until(lambda: scrape(settings.api_port)["inferq_http_waiting",] == 1, 30, "one waits")
            until(lambda: kept()["inferq_runs_in_progress", model] == 1, 30, "and its job runs")
            for child in api.descendants():
                child.kill()
            waiting.join()
            until(lambda: scrape(settings.api_port)["inferq_http_waiting",] == 0, 30, "nobody waits at a dead process")
            until(lambda: api.output().count("Booting worker") == 4, 30, "two others")
            assert told() == {40}, "what dead processes counted stays"

            until(lambda: scrape(settings.metrics_port)["inferq_attempts_total", "completed"] == 2, 30, "two attempts")
            done = scrape(settings.metrics_port)
            assert done["inferq_time_to_first_token_seconds_count", model] == 2
            assert done["inferq_completion_tokens_total", model] > 1
            assert done["inferq_heartbeats_total", "done"] > 0
            completed = ("inferq_jobs_finished_total", model, "completed", "normal")
            until(lambda: kept()[completed] == 2, 30, "what was asked by those who were cut off too")
            assert kept()["inferq_workers", model, "ready"] == 1
            for number in range(5):
                post({"prompt": f"simulate:hangs {number}"})
            until(lambda: kept()["inferq_runs_in_progress", model] == 2, 30, "two run")
            assert kept()["inferq_keeper_ticks_total", "done"] > 0
            before = kept()["inferq_bells_restored_total",]
            with own_redis_server.client() as redis:
                # A worker's heartbeat rings what is missing too: whoever looks first.
                until(
                    lambda: (
                        redis.delete(queue_key("bells", model)) is None
                        or kept()["inferq_bells_restored_total",] > before
                    ),
                    30,
                    "bells that are lost are rung again",
                )
            worker.signal(signal.SIGKILL)
            until(lambda: kept()["inferq_rescues_total", model] == 2, 30, "both are taken back")
            left = kept()
            assert left["inferq_queue_depth", model, "normal"] == 5
            assert left["inferq_queue_oldest_seconds", model] > 0
            assert left["inferq_workers", model, "ready"] == left["inferq_engine_slots", model] == 0
            assert left[completed] == 2, "not forgotten with the worker"
            assert left["inferq_redis_up",] == 1

            own_redis_server.close()
            until(lambda: kept()["inferq_redis_up",] == 0, 30, "the keeper says that Redis is away")
            assert not [name for name in kept() if name[0] == "inferq_queue_depth"]
            directories = list(temporary.glob(f"inferq-metrics-{api.pid}-*"))
            assert len(directories) == 1
            api.signal(signal.SIGTERM)
            api.wait()
            assert not directories[0].exists()
    finally:
        api.close()


def _ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
