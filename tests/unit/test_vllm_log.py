"""vLLM's processes log as the rest does: they must be able to import what writes the lines."""

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

#: As the `celery` command does: the root is on the path while the application is imported, and not after.
LIKE_CELERY = f"""
import importlib, multiprocessing, sys

if __name__ == "__main__":
    sys.path.insert(0, {str(ROOT)!r})
    from inferq.settings import load_settings
    from workers.engine import _make_vllm_log
    _make_vllm_log(load_settings())
    sys.path.remove({str(ROOT)!r})
    child = multiprocessing.get_context("spawn").Process(target=importlib.import_module, args=("inferq.log_lines",))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


def test_processes_that_the_engine_starts_find_inferq(tmp_path: Path) -> None:
    script = tmp_path / "like_celery.py"
    script.write_text(LIKE_CELERY)
    env = {"PATH": os.environ["PATH"], "LOG_FORMAT": "json"}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
