"""A guard that outlives a worker by a moment and ends the engine processes it left behind.

vLLM's child processes survive a ``kill -9`` of their parent and hold the GPU's memory. The guard is a process of its
own: ``python -m workers.orphans PID``. It remembers the descendants of PID while PID lives, and kills those that are
left when it is gone. (A parent-death signal would not do: vLLM starts its children itself, and some are grandchildren.)
"""

import subprocess
import sys
import time
from typing import Final

import psutil

#: Seconds between looks at the process tree.
LOOK_S: Final = 0.5


def start_guard(pid: int) -> "subprocess.Popen[bytes]":
    """Start the guard of process ``pid`` in a session of its own, so that a signal to the worker's group misses it."""
    return subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", "workers.orphans", str(pid)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def guard(pid: int) -> int:
    """Watch ``pid`` until it ends, then kill what it left; returns how many processes were killed."""
    try:
        worker = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return 0
    seen: set[psutil.Process] = set()
    while _alive(worker):
        try:
            seen.update(worker.children(recursive=True))
        except psutil.NoSuchProcess:
            break
        time.sleep(LOOK_S)
    me = psutil.Process()
    # psutil compares start times: a reused pid is not taken for the old process.
    left = [process for process in seen if process != me and _alive(process)]
    left += [child for process in left for child in _children(process) if child not in left]
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return len(left)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    guard(int(sys.argv[1]))
