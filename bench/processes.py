"""Child processes of a measurement: started in order, paused while others are measured, ended together."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from deploy.local.child import Child, start_guard


class NotReady(Exception):
    """A process ended or was silent before it was ready."""


class Children:
    """Starts processes and ends them, the last one first. A guard ends them too if this process is killed."""

    def __init__(self, directory: Path) -> None:
        """Keep the processes' logs in ``directory``."""
        self.directory = directory
        self._started: list[Child] = [start_guard(directory / "guard.log")]

    def start(
        self, name: str, command: list[str], env: Mapping[str, str] | None = None, *, pipe: bool = False
    ) -> Child:
        """Start a process that logs into a file of its name."""
        # vLLM leaves sockets among the temporary files; here they go with the logs.
        seen = {**(os.environ if env is None else env), "TMPDIR": str(self.directory)}
        child = Child(name, command, seen, self.directory / f"{name}.log", pipe=pipe)
        self._started.append(child)
        return child

    def close(self) -> None:
        """End all processes. All go on first: a worker hands back and says farewell to a Redis that answers."""
        for child in self._started:
            signal_all(child, signal.SIGCONT)
        for child in reversed(self._started):
            child.stop(10.0)


@contextlib.contextmanager
def children(directory: Path) -> Iterator[Children]:
    """Yield a place to start processes in; all of them have ended when the block has."""
    found = Children(directory)
    try:
        yield found
    finally:
        found.close()


def wait_until(child: Child, condition: Callable[[], object], seconds: float) -> None:
    """Wait for ``condition``; raises NotReady when ``child`` ends first or the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if not child.alive() or time.monotonic() > deadline:
            tail = child.log.read_text(errors="replace")[-2000:]
            raise NotReady(f"{child.name} is not ready; the end of its log:\n{tail}")
        time.sleep(0.05)


def cpu_s(child: Child) -> tuple[float, float]:
    """Return CPU seconds used so far by the process itself, and by its descendants."""
    spent = []
    for process in child.tree():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent.append(times.user + times.system)
    return (spent[0], sum(spent[1:])) if spent else (0.0, 0.0)


def rss_mib(child: Child) -> float:
    """Return resident memory of the process and its descendants, in MiB."""
    total = 0
    for process in child.tree():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 2**20


def signal_all(child: Child, number: signal.Signals) -> None:
    """Send a signal to the process and all its descendants."""
    for process in child.tree():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
