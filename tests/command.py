"""``inferq`` as a person or a pipe runs it."""

import contextlib
import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

import pytest

from inferq_client.__main__ import run as command_line
from tests.processes import ROOT, until

COMMAND = [sys.executable, "-m", "inferq_client"]


def environment(url: str, key: str) -> dict[str, str]:
    return os.environ | {
        "INFERQ_URL": url,
        "INFERQ_API_KEY": key,
        "PYTHONPATH": str(ROOT / "client" / "src"),
        "TERM": "xterm-256color",
        "COLUMNS": "120",
    }


def inferq(url: str, key: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(url, key), capture_output=True, text=True, timeout=60, **options
    )


def inferq_here(url: str, key: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """As :func:`inferq` in this process: starting one takes longer than most commands do."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("INFERQ_URL", url)
        patch.setenv("INFERQ_API_KEY", key)
        patch.setattr("sys.argv", ["inferq", *arguments])
        try:
            code = command_line()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


class Terminal:
    """A command whose stdin, stdout and stderr are one terminal, of which everything is read."""

    def __init__(self, url: str, key: str, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        self._ours: IO[bytes] = os.fdopen(ours, "rb", buffering=0)
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(url, key),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        self._read = b""

    @property
    def output(self) -> str:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := self._ours.read(65536):
                self._read += data
        return self._read.decode(errors="replace").replace("\r\n", "\n")

    def shows(self, text: str, seconds: float = 30.0) -> None:
        until(lambda: text in self.output or self.process.poll() is not None, seconds, f"the terminal shows {text}")
        assert text in self.output, self.output

    def ended(self, seconds: float = 30.0) -> int:
        until(lambda: (self.output, self.process.poll())[1] is not None, seconds, "the command has ended")
        assert self.output is not None
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._ours.close()


@contextlib.contextmanager
def terminal(url: str, key: str, *arguments: str) -> Iterator[Terminal]:
    running = Terminal(url, key, *arguments)
    try:
        yield running
    finally:
        running.close()
