"""``make newcomer`` without making a Debian: it refuses in a sentence, and installs what README says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT

SCRIPT = ROOT / "deploy" / "newcomer.sh"


def refused(directory: Path, user: int, tools: list[str], **environment: str) -> str:
    """Run the script where PATH has these tools, under another answer to who it is; returns what it said."""
    for tool in tools:
        found = shutil.which(tool)
        (directory / tool).symlink_to(found) if found else (directory / tool).touch(0o755)
    (directory / "id").write_text(f"#!{shutil.which('sh')}\necho {user}\n")
    (directory / "id").chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash") or "bash", SCRIPT],
        env={"PATH": str(directory), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"newcomer: .+\n", done.stderr), "one sentence"
    return done.stderr


def test_whoever_is_not_root_is_told(tmp_path: Path) -> None:
    assert "needs root" in refused(tmp_path, 1000, [])


def test_a_missing_debootstrap_is_named(tmp_path: Path) -> None:
    assert "needs debootstrap" in refused(tmp_path, 0, ["unshare", "git", "python3"])


def test_a_wrong_switch_is_named(tmp_path: Path) -> None:
    assert "not everything" in refused(tmp_path, 0, [], NEWCOMER="everything")


@pytest.mark.parametrize("refuses", [True, False], ids=["namespaces", "room"])
def test_what_the_machine_does_not_give_is_said(tmp_path: Path, refuses: bool) -> None:
    (tmp_path / "unshare").write_text(f"#!{shutil.which('sh')}\nexit {int(refuses)}\n")
    (tmp_path / "unshare").chmod(0o755)
    (tmp_path / "df").write_text(f"#!{shutil.which('sh')}\necho Avail\necho ' 3'\n")
    (tmp_path / "df").chmod(0o755)
    said = refused(tmp_path, 0, ["debootstrap", "setpriv", "git", "python3", "tail", "tr"])
    assert ("which are refused here" if refuses else "has 3 GB free") in said


def test_it_installs_what_the_readme_says() -> None:
    said = re.search(r"`apt install ([\w. -]+)`", (ROOT / "README.md").read_text())
    assert said
    packages = re.search(r"^PACKAGES=(\S+)$", SCRIPT.read_text(), re.MULTILINE)
    assert packages
    assert set(packages[1].split(",")) == {*said[1].split(), "ca-certificates"}
