"""The notebook for Colab: its very cells run here, with the simulated engine; on vLLM in test_monitoring.py."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.memory import preset
from tests.notebook import cells
from tests.processes import ROOT

NOTEBOOK = ROOT / "examples" / "inferq_on_colab.ipynb"
#: Where each code cell is that is tried alone.
CHANGE, GPU, INSTALL, START = 0, 1, 2, 4


def notebook() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    return read


def test_it_is_a_clean_notebook() -> None:
    assert (notebook()["nbformat"], notebook()["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook()["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook()["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]
    assert all(not line.startswith(("!", "%")) for source in cells(NOTEBOOK) for line in source.splitlines())


def test_what_it_points_to_is_there() -> None:
    for text in cells(NOTEBOOK, "markdown"):
        for target in [part.split(")")[0] for part in text.split("](")[1:]]:
            assert (NOTEBOOK.parent / target).is_file(), target


T4 = "Tesla T4, {driver}, 15360, 7.5"


@pytest.mark.parametrize(
    ("answer", "status", "mode", "said"),
    [
        (T4.format(driver="580.82.07"), 0, "gpu", "That will do"),
        (T4.format(driver="610.11"), 0, "gpu", "That will do"),
        (T4.format(driver="550.54.15"), 0, "cpu", "Too old a driver"),
        ("Tesla V100-SXM2-16GB, 580.82.07, 16384, 7.0", 0, "cpu", "Too old a GPU"),
        ("Quadro RTX 4000, 580.82.07, 8192, 7.5", 0, "cpu", "Too little memory"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver", 9, "cpu", "nvidia-smi finds no GPU"),
        (None, 0, "cpu", "no nvidia-smi"),
    ],
)
def test_it_says_whether_the_gpu_will_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str | None,
    status: int,
    mode: str,
    said: str,
) -> None:
    if answer is not None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f'#!/bin/sh\necho "{answer}"\nexit {status}\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("INFERQ_MODE", raising=False)
    namespace: dict[str, Any] = {}
    for source in cells(NOTEBOOK)[CHANGE : GPU + 1]:
        exec(source, namespace)
    output = capsys.readouterr().out
    assert said in output
    assert f"This run: {mode}" in output
    if "driver" in said:
        assert "gpu-cuda12" in output, "what can be done is said"


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("gpu", ["-r requirements.txt"]),
        ("gpu-cuda12", ["vllm=={vllm}+cu129", "https://wheels.vllm.ai/{vllm}/cu129", "nvidia-ml-py=={nvidia-ml-py}"]),
        ("cpu", [".venv-notebook-cpu/local .venv-notebook-cpu/cpu"]),
        ("simulated", [".venv-notebook-simulated/local"]),
    ],
)
def test_each_mode_installs_what_it_needs(mode: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def record(command: Sequence[object], **_: object) -> subprocess.CompletedProcess[str]:
        said.append(" ".join(map(str, command)))
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.delenv("INFERQ_PYTHON", raising=False)
    namespace: dict[str, Any] = {"MODE": mode, "REPOSITORY": "", "os": os, "subprocess": subprocess}
    exec(cells(NOTEBOOK)[INSTALL], namespace)
    pins = namespace["pinned"]("requirements.txt")
    assert set(pins) == {"vllm", "uvloop", "nvidia-ml-py"}
    assert said[0].endswith(f"-m venv --without-pip {ROOT}/.venv-notebook-{mode}")
    for part in wanted:
        assert part.format(**pins) in "\n".join(said)
    assert ("/cpu" in "\n".join(said)) == (mode == "cpu")


def test_on_a_gpu_the_preset_is_used(tmp_path: Path) -> None:
    definitions = cells(NOTEBOOK)[START].split("URL, KEY = ")[0]
    namespace: dict[str, Any] = {"MODE": "gpu", "INFERQ": ROOT, "HOME": tmp_path, "os": os, "Path": Path}
    exec("import subprocess\n" + definitions, namespace)
    assert preset().items() <= namespace["settings"]().items()


def test_all_cells_run_and_nothing_is_left(tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    ours = {
        "INFERQ_MODE": "simulated",
        "INFERQ_PYTHON": sys.executable,
        "SIMULATED_STEP": "0.001",
        "INFERQ_BURST": "20",
    }
    clean = {name: value for name, value in os.environ.items() if name not in ("INFERQ_URL", "INFERQ_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.notebook", str(NOTEBOOK), "--figures", str(figures)],
        cwd=ROOT,
        env=clean | ours | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("worker   ready after", "miss       hit", "20 completed in", "Nothing runs any more."):
        assert said in done.stdout
    assert [path.name for path in sorted(figures.iterdir())] == ["figure-1.png", "figure-2.png"]
    assert not list(tmp_path.glob("inferq-notebook-*"))
    homes = [(one.info["environ"] or {}).get("INFERQ_HOME", "") for one in psutil.process_iter(["environ"])]
    assert not [home for home in homes if home.startswith(str(tmp_path))]
