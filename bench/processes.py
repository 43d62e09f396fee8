"""Child processes of a measurement: started in order, paused while others are measured, ended together."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parent.parent


class NotReady(Exception):
    """A process ended or was silent before it was ready."""


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Child:
    """One process and whatever it starts. ``pipe`` gives it stdin and stdout as text streams."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], log: Path, *, pipe: bool = False) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # commands of this package
                command,
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else output,
                stderr=output,
                start_new_session=True,
                text=True,
            )

    @property
    def stdin(self) -> IO[str]:
        """The stream the process reads, when it was started with ``pipe``."""
        assert self._process.stdin is not None  # noqa: S101
        return self._process.stdin

    @property
    def stdout(self) -> IO[str]:
        """The stream the process writes, when it was started with ``pipe``."""
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout

    def tree(self) -> list[psutil.Process]:
        """Return the process and all its descendants, first itself."""
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> tuple[float, float]:
        """Return CPU seconds used so far by the process itself, and by its descendants."""
        spent = []
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent.append(times.user + times.system)
        return (spent[0], sum(spent[1:])) if spent else (0.0, 0.0)

    def rss_mib(self) -> float:
        """Return resident memory of the process and its descendants, in MiB."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 2**20

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its descendants."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def wait_until(self, condition: Callable[[], object], seconds: float) -> None:
        """Wait for ``condition``; raises NotReady when the process ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise NotReady(f"{self.name} is not ready; the end of its log:\n{tail}")
            time.sleep(0.05)

    def close(self) -> None:
        """End the process and whatever it started."""
        left = self.tree()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def children(directory: Path) -> Iterator["Children"]:
    """Yield a place to start processes in; all of them have ended when the block has."""
    found = Children(directory)
    try:
        yield found
    finally:
        found.close()


class Children:
    """Starts processes and ends them, the last one first. A guard ends them too if this process is killed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Child] = []
        self.start("guard", [sys.executable, "-m", "workers.orphans", str(os.getpid())])

    def start(
        self, name: str, command: list[str], env: Mapping[str, str] | None = None, *, pipe: bool = False
    ) -> Child:
        """Start a process that logs into a file of its name."""
        child = Child(name, command, os.environ if env is None else env, self._directory / f"{name}.log", pipe=pipe)
        self._started.append(child)
        return child

    def close(self) -> None:
        """End all processes."""
        for child in reversed(self._started):
            child.close()
