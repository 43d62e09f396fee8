"""The guard of a worker: whatever way the worker ends, its children, shared memory and temporary files go."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.processes import ROOT, until

#: A worker in small: a guard, a child that shares memory with it, a temporary file, and a long sleep.
WORKER = """
import subprocess, sys, tempfile, time
from multiprocessing.shared_memory import SharedMemory
from workers.orphans import start_guard

start_guard()
memory = SharedMemory(create=True, size=4096)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
handle, path = tempfile.mkstemp()
time.sleep(3)  # the guard looks twice a second: it knows the child by now
print(memory.name, child.pid, path, flush=True)
time.sleep(600)
"""

#: A socket where vLLM would make one.
SHORT_PATH = """
import socket, tempfile, uuid
from workers.orphans import start_guard

start_guard()
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(f"{tempfile.gettempdir()}/{uuid.uuid4()}")
print(tempfile.gettempdir())
"""


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_nothing_of_a_worker_outlives_it(end: str) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout
        memory, child, path = worker.stdout.readline().split()
        assert Path("/dev/shm", memory).exists()
        getattr(worker, end)()
        worker.wait(10)
    finally:
        worker.kill()
        worker.wait(10)
        if worker.stdout:
            worker.stdout.close()
    until(lambda: not psutil.pid_exists(int(child)), 5, "the child is gone")
    until(lambda: not Path("/dev/shm", memory).exists(), 5, "the shared memory is gone")
    until(lambda: not Path(path).parent.exists(), 5, "the temporary files are gone")


def test_sockets_find_a_short_path_however_long_that_of_temporary_files_is(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    worker = subprocess.run(
        [sys.executable, "-c", SHORT_PATH],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
    )
    assert worker.returncode == 0, worker.stderr
    directory = Path(worker.stdout.strip())
    until(lambda: not directory.exists(), 5, "the temporary files are gone")
    assert list(long.iterdir()) == []
