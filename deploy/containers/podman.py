"""Podman, by its command line."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from deploy.local.child import ROOT
from inferq.errors import InferqError

#: Seconds the longest command may take: a build that unpacks torch on a busy machine.
PATIENCE_S: Final = 1800.0
#: Lines of an unhappy command that are shown.
SHOWN: Final = 25


class ContainersFailed(InferqError):
    """Podman, or what ran under it, did not do what was asked."""


def need(*programs: str) -> None:
    """Raise ContainersFailed when one of ``programs`` is not on PATH."""
    for program in programs:
        if shutil.which(program) is None:
            raise ContainersFailed(
                f"there is no {program} on PATH; on Debian: apt-get install podman buildah runc netavark "
                "aardvark-dns debootstrap, and make tools for podman-compose"
            )


def run(*command: str | Path, log: Path | None = None, cwd: Path = ROOT, timeout_s: float = PATIENCE_S) -> str:
    """Run a command and return what it says on standard output; with ``log`` all goes there too."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-SHOWN:])
        raise ContainersFailed(f"{' '.join(words[:4])} … ended with status {done.returncode}:\n{last}")
    return done.stdout


def podman(*arguments: str | Path) -> str:
    """Run ``podman`` and return what it says."""
    return run("podman", *arguments).strip()


def has_image(name: str) -> bool:
    """Return whether an image of that name is here."""
    return subprocess.run(["podman", "image", "exists", name], check=False).returncode == 0


def inspect(name: str) -> dict[str, Any]:
    """Return what podman knows of a container or image."""
    (found,) = json.loads(podman("inspect", name))
    return dict(found)


def healthy(container: str) -> bool:
    """Run the container's health check now; without systemd podman does not run it by itself."""
    done = subprocess.run(["podman", "healthcheck", "run", container], capture_output=True, check=False)
    return done.returncode == 0
