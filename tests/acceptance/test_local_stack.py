"""``make up`` and ``make demo`` as a person meets them: real processes, the simulated engine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.stack import free_port
from tests.processes import ROOT, until
from tests.redis_server import RedisServer

#: Seconds in which a worker has imported vLLM, on a slow machine.
VLLM_START_S = 180.0


def environment(**changes: str) -> dict[str, str]:
    ours = {
        "ENGINE": "simulated",
        "API_PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "KEEPER_METRICS_PORT": str(free_port()),
        "PROMETHEUS_PORT": str(free_port()),
        "SIMULATED_STEP": "0.001",
    }
    clean = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "REDIS_PORT", "MODEL_NAME")}
    return clean | ours | changes


class Up:
    """``python -m deploy.local up`` with its output in a file, and all processes that ever belonged to it."""

    def __init__(self, home: Path, **changes: str) -> None:
        self.env = environment(INFERQ_HOME=str(home), **changes)
        self.output_file = home / "output.txt"
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local", "up"],
                cwd=ROOT,
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def ready(self) -> None:
        until(lambda: "Ctrl-C stops everything" in self.output or self.process.poll() is not None, 60, "up is ready")
        assert self.process.poll() is None, self.output

    def key(self) -> str:
        return re.search(r"key +(iq_\S+)", self.output)[1]

    def infer(self, prompt: str) -> dict[str, object]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.env['API_PORT']}/infer",
            json.dumps({"prompt": prompt, "max_tokens": 8}).encode(),
            {"X-API-Key": self.key(), "Content-Type": "application/json", "Prefer": "wait=30"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        if self.process.poll() is None:
            left = self.descendants()
            self.process.kill()
            for process in left:
                if process.is_running():
                    process.kill()
        self.process.wait()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    try:
        running.ready()
        yield running
    finally:
        running.close()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def stopped_by(running: Up, number: signal.Signals) -> None:
    left = running.descendants()
    assert len(left) >= 5
    running.process.send_signal(number)
    assert running.process.wait(40) == 0
    assert "stopped" in running.output.splitlines()[-1]
    until(lambda: gone(left), 5, "no process is left")


def test_up_starts_a_killed_worker_again_and_leaves_nothing_when_told_to_stop(up: Up) -> None:
    assert up.infer("hello")["cached"] is False
    assert up.infer("hello")["cached"] is True
    # Celery puts its node first into its title, which may be no longer than command line and environment were.
    worker = next(process for process in up.descendants() if any("worker@" in part for part in process.cmdline()))
    worker.kill()
    until(lambda: up.output.count("worker   ready") == 2, 30, "the worker is ready again")
    assert "the worker ended (status -9); it starts again in 1 s" in up.output
    assert up.infer("after the restart")["response"]
    stopped_by(up, signal.SIGTERM)


def test_nothing_outlives_a_killed_supervisor(up: Up) -> None:
    left = up.descendants()
    up.process.kill()
    until(lambda: gone(left), 15, "no process is left")


def test_jobs_survive_a_restart_of_the_stack(tmp_path: Path) -> None:
    key = "iq_keep_0123456789"
    for cached in (False, True):
        running = Up(tmp_path, BOOTSTRAP_API_KEY=key)
        try:
            running.ready()
            assert running.key() == key
            assert running.infer("kept")["cached"] is cached
            stopped_by(running, signal.SIGINT)
        finally:
            running.close()


def refused(home: Path, seconds: float = 60, **changes: str) -> str:
    running = Up(home, **changes)
    try:
        assert running.process.wait(seconds) == 1, running.output
        left = [process for process in psutil.process_iter(["environ"]) if _belongs(process, home)]
        assert not left
        return running.output
    finally:
        running.close()


def _belongs(process: psutil.Process, home: Path) -> bool:
    return (process.info["environ"] or {}).get("INFERQ_HOME") == str(home) and process.status() != "zombie"


def test_a_taken_port_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        output = refused(tmp_path, API_PORT=str(taken.getsockname()[1]))
    assert output.startswith("inferq: API_PORT: port")
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ENGINE": "nonsense"}, "ENGINE"),
        ({"REDIS_PORT": "many"}, "REDIS_PORT"),
        ({"BOOTSTRAP_API_KEY": "secret"}, "BOOTSTRAP_API_KEY"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "REDIS_URL"),
    ],
)
def test_a_wrong_setting_is_said_in_a_sentence(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    output = refused(tmp_path, **changes)
    assert named in output
    assert "Traceback" not in output
    assert len(output.splitlines()) == 1


def test_a_worker_that_cannot_start_ends_the_stack_with_its_reason(tmp_path: Path) -> None:
    output = refused(
        tmp_path, VLLM_START_S, MAX_NUM_SEQS="4", ENGINE="vllm", MODEL_NAME="models/no-such-model", HF_HUB_OFFLINE="1"
    )
    assert "the worker did not start" in output
    assert "no-such-model" in output
    assert "Traceback" not in output


def test_another_redis_is_used_when_one_is_named(redis_server: RedisServer, tmp_path: Path) -> None:
    running = Up(tmp_path, REDIS_URL=redis_server.url)
    try:
        running.ready()
        assert running.infer("elsewhere")["response"]
        with redis_server.client() as client:
            assert client.keys("iq:*")
        assert not [process for process in running.descendants() if process.name().startswith("redis-server")]
    finally:
        running.close()


def test_the_demo_tells_its_story_and_cleans_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", "demo"],
        cwd=ROOT,
        env=environment(INFERQ_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("202 Accepted", "queued, position", "completed", "the answer", "asked again", "the same", "hit"):
        assert part in done.stdout
    assert "\x1b" not in done.stdout, "no control codes where there is no terminal"
    assert not [process for process in psutil.process_iter(["environ"]) if _belongs(process, tmp_path)]
