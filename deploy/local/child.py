"""A child process with a log file, in a session of its own, that ends with everything it started."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

#: The repository: where commands run and relative paths start.
ROOT = Path(__file__).resolve().parents[2]
#: Seconds that descendants get to follow a process that has ended; a worker's guard tidies up in them.
TIDY_S = 4.0


class Child:
    """One started process. A terminal's Ctrl-C does not reach it: its parent decides when it ends."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], log: Path, *, pipe: bool = False) -> None:
        """Start ``command``. With ``pipe`` its stdin and stdout are text streams, else stdout goes to the log too."""
        self.name = name
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # commands of this package
                command,
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else output,
                stderr=output,
                start_new_session=True,
                text=True,
            )

    def alive(self) -> bool:
        """Return whether the process itself still runs."""
        return self.process.poll() is None

    def tree(self) -> list[psutil.Process]:
        """Return the process and all its descendants, itself first; empty when it has ended."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def last_words(self) -> str:
        """Return the line of the log that says best why the process ended: our own sentence, else the last one."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        own = [line for line in lines if line.startswith("inferq ")]
        return (own or lines or ["it said nothing"])[-1]

    def stop(self, grace_s: float) -> None:
        """Ask the process to end, and after ``grace_s`` seconds kill it, with whatever it has started."""
        left = self.tree()
        if self.alive():
            for process in left:  # a stopped process cannot end
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(left, timeout=TIDY_S)
        self.kill(left)

    def kill(self, also: list[psutil.Process] | None = None) -> None:
        """Kill the process and its descendants, and those in ``also``, now."""
        for process in {*self.tree(), *(also or [])}:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


def start_guard(log: Path) -> Child:
    """Start the process that ends all our children if we are killed without a chance to do it."""
    command = [sys.executable, "-m", "workers.orphans", str(os.getpid())]
    return Child("guard", command, os.environ, log)
