"""What a test run has started ends with it, also when the run is killed and no fixture can end anything.

Every process of pytest (with xdist: the one that is called, and its workers) has a guard beside it, in a session of its
own: ``python -m tests.guard PID MARK``. When PID is gone the guard kills what PID left: descendants that it saw while
PID lived, which hold wherever a child has moved to, and whatever has MARK in its environment, which holds for what was
started a moment ago. Redis overwrites its environment, so whoever starts one says so. (A parent-death signal would not
do: it is sent when the *thread* ends that started the child, and grandchildren do not get it.)
"""

import contextlib
import os
import select
import subprocess
import sys
import uuid
from typing import Final

import psutil

#: The mark's name in the environment.
MARK: Final = "INFERQ_TEST_RUN"
#: Seconds between looks at the process tree; a look takes some milliseconds.
LOOK_S: Final = 0.5
#: Seconds for those that tidy up after others: removing temporary files and shared memory.
TIDY_S: Final = 5.0
_TIDIES: Final = ("workers.orphans", "multiprocessing.resource_tracker")

_guard: "subprocess.Popen[bytes] | None" = None


def start_guard() -> None:
    """Start the guard of this process."""
    global _guard
    if _guard:
        return
    mark = os.environ[MARK] = uuid.uuid4().hex
    _guard = subprocess.Popen(
        [sys.executable, "-m", "tests.guard", str(os.getpid()), mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def mind(pid: int) -> None:
    """Tell the guard of a child that it may know by no mark."""
    if _guard and _guard.stdin:
        _guard.stdin.write(f"{pid}\n".encode())
        _guard.stdin.flush()


def guard(pid: int, mark: str) -> None:
    """Wait for the end of ``pid``, then kill what it left."""
    run, seen = psutil.Process(pid), set[psutil.Process]()
    poll = select.poll()
    end = os.pidfd_open(pid)
    poll.register(end, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN)
    os.set_blocking(sys.stdin.fileno(), False)
    while end not in (ready := [file for file, _ in poll.poll(1000 * LOOK_S)]):
        if ready and not _hear(seen):
            poll.unregister(sys.stdin)
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.update(run.children(recursive=True))
    _hear(seen)
    while left := _left(seen, mark):
        tidying = [process for process in left if _has_word(process, _TIDIES)]
        _kill([process for process in left if process not in tidying])
        psutil.wait_procs(tidying, timeout=TIDY_S)
        _kill(tidying)
        psutil.wait_procs(left, timeout=TIDY_S)


def _hear(seen: set[psutil.Process]) -> bool:
    """Take in what was said by ``mind``; returns whether more may come."""
    try:
        said = os.read(sys.stdin.fileno(), 65536)
    except BlockingIOError:
        return True
    for pid in said.split():
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.add(psutil.Process(int(pid)))
    return bool(said)


def _left(seen: set[psutil.Process], mark: str) -> list[psutil.Process]:
    # psutil compares start times: a number that was given anew is not taken for the old process.
    found = {process for process in seen if process.is_running()}
    for process in found.copy():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(process.children(recursive=True))
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(MARK) == mark:
            found.add(process)
    return [process for process in found if _alive(process) and not _has_word(process, ("tests.guard",))]


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _has_word(process: psutil.Process, words: tuple[str, ...]) -> bool:
    """Return whether one of its arguments names one of these modules; other guards look after others' children."""
    try:
        return any(word in argument for argument in process.cmdline() for word in words)
    except psutil.Error:
        return False


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        guard(int(sys.argv[1]), sys.argv[2])
