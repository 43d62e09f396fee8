"""A minute of chaos: every scene, as short as it makes sense; matters of seconds are not judged here."""

import re
import subprocess
import sys
from pathlib import Path

import psutil

from tests.processes import ROOT


def test_a_minute_of_chaos_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--smoke", "--seed", "3", "--keep", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MISSED" not in done.stdout
    accepted, finished, lost = re.search(r"│ all +│ +(\d+) │ +(\d+) │ +(\d+) │", done.stdout).groups()
    assert int(accepted) == int(finished) > 100
    assert int(lost) == 0
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]


def test_an_unknown_scene_is_refused_in_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-m", "chaos", "--scene", "x"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("chaos: there is no scene x")
    assert "Traceback" not in done.stderr
