"""A guard that outlives a worker by a moment and removes what it left behind: processes and temporary files.

vLLM's child processes survive a ``kill -9`` of their parent and hold the GPU's memory. The guard is a process of its
own: ``python -m workers.orphans PID [DIRECTORY]``. It remembers the descendants of PID while PID lives, kills those
that are left when it is gone, then removes DIRECTORY. (A parent-death signal would not do: vLLM starts its children
itself, and some are grandchildren.)
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

#: Seconds between looks at the process tree.
LOOK_S: Final = 0.5
#: Bytes of a directory below which sockets can live: the kernel takes 107 for the whole path (unix(7)), and vLLM's
#: sockets have a UUID for a name.
SOCKET_DIRECTORY_BYTES: Final = 107 - 1 - 36
#: Seconds that Python's own clean-up of shared memory may take once its users are gone.
TRACKER_S: Final = 2.0


def start_guard() -> "subprocess.Popen[bytes]":
    """Start the guard of this process and give it temporary files of its own, which go when the guard goes.

    vLLM leaves a socket behind for every connection between its processes, even when it is stopped properly. The guard
    has a session of its own, so that a signal to the worker's group misses it.
    """
    directory = _make_directory()
    tempfile.tempdir = directory
    os.environ["TMPDIR"] = directory  # noqa: TID251  # for the processes that the engine starts
    return subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", "workers.orphans", str(os.getpid()), directory],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _make_directory() -> str:
    """Make a directory among the temporary files; in /tmp when a socket's path would be too long elsewhere."""
    directory = tempfile.mkdtemp(prefix="inferq-engine-")
    if len(os.fsencode(directory)) <= SOCKET_DIRECTORY_BYTES:
        return directory
    os.rmdir(directory)
    return tempfile.mkdtemp(prefix="inferq-engine-", dir="/tmp")  # made by mkdtemp, for its owner alone


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
    # Python's resource tracker unlinks shared memory once its last user is gone, and ends by itself.
    trackers = [process for process in left if _is_tracker(process)]
    _kill([process for process in left if process not in trackers])
    psutil.wait_procs(trackers, timeout=TRACKER_S)
    _kill(trackers)
    return len(left)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


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
    for leftover in sys.argv[2:]:
        shutil.rmtree(Path(leftover), ignore_errors=True)
