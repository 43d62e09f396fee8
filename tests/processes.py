"""Real inferq processes for tests: GPU worker, keeper, API. Each ends with its test, whatever happens."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from inferq.settings import Settings, environment_for

ROOT = Path(__file__).resolve().parent.parent


def until(condition: Callable[[], object], seconds: float = 30.0, what: str | Callable[[], str] = "") -> object:
    """Wait for a condition; its value is returned. ``what`` it is, or what to say of it when it has not come.

    What has not come at once is looked for less often, or the looking would slow what is waited for.
    """
    began = time.monotonic()
    deadline = began + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {seconds} s: {said or condition}")
        time.sleep(min(0.1, max(0.02, (time.monotonic() - began) / 50)))


class Process:
    """A child with its own log file; ``kill -9`` reaches it alone, ``close`` reaches all it ever started."""

    def __init__(self, name: str, command: list[str], settings: Settings, log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment_for(settings), stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self._process.pid

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 30.0) -> int:
        return self._process.wait(seconds)

    def close(self) -> None:
        left = self.descendants()
        if self.alive():
            self._process.kill()
            self._process.wait()
        # The worker's own guard ends them and removes their files; what it leaves within 5 s is a matter of ours.
        psutil.wait_procs(left, timeout=5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Stack:
    """Starts processes with the same settings and ends them together."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self._directory = directory
        self._processes: list[Process] = []

    def celery(self, module: str, **changes: object) -> Process:
        celery = [sys.executable, "-m", "celery", "--quiet", "-A", f"workers.{module}", "worker", "--pool=threads"]
        options = [
            "--without-gossip",
            "--without-mingle",
            "-n",
            f"{module}{len(self._processes)}@t",
        ]
        return self._start(module, [*celery, *options], **changes)

    def worker(self, **changes: object) -> Process:
        return self.celery("app", **changes)

    def keeper(self) -> Process:
        return self.celery("keeper")

    def api(self) -> Process:
        command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"), "api.wsgi:app"]
        return self._start("api", command)

    def _start(self, name: str, command: list[str], **changes: object) -> Process:
        settings = self.settings.model_copy(update=changes)
        log = self._directory / f"{name}{len(self._processes)}.log"
        process = Process(name, command, settings, log)
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.close()


@contextlib.contextmanager
def stack(settings: Settings, directory: Path) -> Iterator[Stack]:
    running = Stack(settings, directory)
    try:
        yield running
    except BaseException:
        for process in running._processes:
            print(f"--- {process.name}\n{process.output()[-4000:]}")
        raise
    finally:
        running.close()
