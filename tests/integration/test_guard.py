"""A test run that is killed leaves no process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.processes import ROOT, until
from tests.redis_server import binaries

CONFTEST = """
from tests.guard import start_guard

def pytest_configure():
    start_guard()
"""
#: A child in a session of its own, one whose parent has ended, and a Redis, which has overwritten its environment.
TEST = """
import os, subprocess, sys, time
from pathlib import Path
from tests.guard import mind

def test_starts_things():
    here = Path(__file__).parent
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    orphan = subprocess.check_output(["sh", "-c", "sleep 600 > /dev/null & echo $!"], text=True)
    redis = subprocess.Popen([os.environ["REDIS"], "--port", "0", "--unixsocket", "s", "--dir", str(here)])
    mind(redis.pid)
    deadline = time.monotonic() + 30
    while not Path(here, "s").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pids = [os.getpid(), child.pid, int(orphan), redis.pid]
    Path(here, "pids.new").write_text(" ".join(map(str, pids)))
    Path(here, "pids.new").rename(here / "pids")
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("end", "options"), [(signal.SIGKILL, []), (signal.SIGTERM, ["-p", "xdist", "-n", "1"])], ids=["killed", "xdist"]
)
def test_what_a_run_has_started_ends_with_it(tmp_path: Path, end: signal.Signals, options: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_small.py").write_text(TEST)
    pids = tmp_path / "pids"
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", *options],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            # Others' plugins take longer than the test.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "REDIS": binaries()["bundled"],
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: pids.exists() or run.poll() is not None, 60, "the small run has started everything")
        assert run.poll() is None, run.communicate()[0]
        left = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        assert len(left) == 4
        run.send_signal(end)
        run.wait(30)
    finally:
        run.kill()
        run.wait()
        if run.stdout:
            run.stdout.close()
    gone, alive = psutil.wait_procs(left, timeout=15)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert gone
