"""An engine without a GPU and its worker do not meet on a core."""

import json
import os
import subprocess
import sys

import pytest

from tests.processes import ROOT

_PROGRAM = """
import json, os, subprocess, sys, psutil
from workers.placement import part_cores
with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as engine:
    part_cores([psutil.Process(engine.pid)])
    where = [sorted(os.sched_getaffinity(pid)) for pid in (0, engine.pid)]
    print(json.dumps([*where, os.getpriority(os.PRIO_PROCESS, engine.pid)]))
    engine.communicate(b"\\n")
"""


@pytest.mark.parametrize("already", [0, 10])
def test_the_worker_keeps_the_first_core_and_its_engine_the_others(already: int) -> None:
    command = ["nice", "-n", str(already), sys.executable, "-c", _PROGRAM]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=30).stdout
    worker, engine, niceness = json.loads(said)
    first, *others = sorted(os.sched_getaffinity(0))
    assert worker == [first]
    assert engine == (others or [first])
    assert niceness == max(5, min(19, os.getpriority(os.PRIO_PROCESS, 0) + already))
