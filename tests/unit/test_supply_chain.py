"""What others build on: workflows, updates, licences."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.processes import ROOT
from tests.unit.test_images import LOCKED, LOCKS, pins

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize(
    ("schema", "files"),
    [("vendor.github-workflows", WORKFLOWS), ("vendor.dependabot", [ROOT / ".github" / "dependabot.yml"])],
)
def test_github_takes_them(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_only_and_its_actions_are_pinned(workflow: Path) -> None:
    loaded = yaml.safe_load(workflow.read_text())
    assert loaded["permissions"] == {"contents": "read"}
    for job in loaded["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])


def test_ci_runs_what_developers_run() -> None:
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]["steps"]
    assert steps[-1]["run"] == ".ci/run"
    assert "sudo apt-get" in steps[-2]["run"], "make installs what vLLM loads for root alone, which a runner is not"
    assert {"libnuma1", "redis-server", "prometheus"} <= set(steps[-2]["run"].split())
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["images"]["strategy"]
    for image in matrix["matrix"]["include"]:
        assert re.search(rf"^FROM \S+ AS {image['target']}$", (ROOT / image["file"]).read_text(), re.MULTILINE)


def test_an_audit_asks_for_releases_that_an_index_knows(tmp_path: Path) -> None:
    # PyPI knows torch 2.13.0 and not 2.13.0+cpu; what it does not know fails a strict audit.
    tool = tmp_path / "bin" / "pip-audit"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor last; do :; done\ngrep "==" "$last"\n')
    tool.chmod(0o755)
    (tmp_path / "tools").touch()
    command = ["make", "--no-print-directory", "audit", f"SUPPLY={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    asked = set(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))
    assert asked == {
        (name, version.partition("+")[0])
        for lock in set(LOCKED) - {"build.txt"}
        for name, version in pins(LOCKS / lock).items()
    }


def test_every_file_of_requirements_pins_exactly() -> None:
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            assert line.startswith(("#", "-r ", "-e ./")) or "==" in line, f"{path.name}: {line}"


def test_the_licence_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    for dockerfile in ("Dockerfile.api", "Dockerfile.worker"):
        for licence in re.findall(r'image\.licenses="([^"]*)"', (ROOT / dockerfile).read_text()):
            assert licence == "MIT"


def test_the_licence_of_every_locked_package_is_listed() -> None:
    rows = re.findall(r"^\| (\S+) \| (.*) \|$", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    listed = {re.sub(r"[-_.]+", "-", name).lower(): licence for name, licence in rows}
    for lock in set(LOCKED) - {"build.txt"}:
        for name in pins(LOCKS / lock):
            assert listed.get(name), f"{name}: run `make licences`"
