"""A shell that is given one piece of a document after the other, and remembers variables between them."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil

from tests.processes import until

#: Seconds that a piece may take, on a machine that has other things to do.
PIECE_S = 60.0


class Shell:
    """Its commands find themselves in ``directory``, with ``environment`` and nothing else."""

    def __init__(self, directory: Path, environment: dict[str, str], notes: Path) -> None:
        self._directory = directory
        self._environment = environment
        self._notes = notes
        self._number = 0
        self._beside: list[subprocess.Popen[bytes]] = []
        self._process = self._start(["bash", "--noprofile", "--norc"], subprocess.PIPE, self._notes / "shell.out")

    def run(self, text: str, *, strict: bool = True) -> tuple[int, str, str]:
        """Run a piece; returns its status, stdout and stderr. A ``strict`` one ends at the first command that fails."""
        self._number += 1
        script, out, err, status = (self._notes / f"{self._number}.{name}" for name in ("sh", "out", "err", "status"))
        script.write_text(f"set -eo pipefail\n{text}\nset +eo pipefail\n" if strict else f"{text}\n")
        line = f". {script} >{out} 2>{err} </dev/null; echo $? >{status}.new; mv {status}.new {status}\n"
        assert self._process.stdin
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
        until(lambda: status.exists() or self._process.poll() is not None, PIECE_S, f"this has ended:\n{text}")
        code = int(status.read_text()) if status.exists() else self._process.returncode
        return code, out.read_text(errors="replace"), err.read_text(errors="replace")

    def beside(self, text: str) -> Path:
        """Start a server that goes on until the shell is closed; returns the file of what it says, once it listens."""
        output = self._notes / f"beside{len(self._beside)}.out"
        process = self._start(["bash", "-c", text], subprocess.DEVNULL, output)
        self._beside.append(process)
        until(lambda: _listens(process.pid) or process.poll() is not None, PIECE_S, f"this listens:\n{text}")
        assert process.poll() is None, output.read_text()
        return output

    def close(self) -> None:
        for process in [*self._beside, self._process]:
            if process.stdin:
                process.stdin.close()
            # All it has started; it is waited for below, so its number is still its own.
            with contextlib.suppress(ProcessLookupError):  # it had ended, and was waited for
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, command: list[str], stdin: int, output: Path) -> "subprocess.Popen[bytes]":
        with output.open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=self._directory,
                env=self._environment,
                stdin=stdin,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


def _listens(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return any(socket.status == psutil.CONN_LISTEN for one in family for socket in one.net_connections("tcp"))
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # one that is ending shows its files to root alone
        return False
