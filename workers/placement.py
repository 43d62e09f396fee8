"""Which cores an engine without a GPU computes on, and which are left to the queue (docs/decisions/0006)."""

import contextlib
import os
from typing import Final

import psutil

#: Niceness of an engine that computes on cores which API and Redis may need too: they need little, and soon.
ENGINE_NICENESS: Final = 5


def leave_a_core() -> None:
    """Let the engine compute on all cores but one; to be called before it starts."""
    threads = max(1, len(os.sched_getaffinity(0)) - 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # noqa: TID251  # OpenMP's own switch


def part_cores(engine: list[psutil.Process]) -> None:
    """Keep this worker on the first core, whose threads share one interpreter lock anyway, and its engine off it.

    Otherwise they meet on the same core by chance while another is idle, and every step waits for bookkeeping.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    for process in engine:
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                # Whoever is nicer already, as under nice(1), stays so: only root may take niceness back.
                niceness = max(ENGINE_NICENESS, os.getpriority(os.PRIO_PROCESS, thread.id))
                os.setpriority(os.PRIO_PROCESS, thread.id, niceness)
                os.sched_setaffinity(thread.id, others or [first])
    for thread in psutil.Process().threads():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread.id, [first])
