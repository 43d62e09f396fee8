"""Dockerfiles: what is in each image, and that it is enough; who runs it; that all of it is pinned."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dockerfiles import API, IMAGES, WORKER, Stage
from tests.processes import ROOT

LOCKS = ROOT / "deploy" / "locks"
#: Who is locked for what: the requirements that must be in each lock, as they are pinned there.
LOCKED = {
    "build.txt": ["requirements-build.txt"],
    "base.txt": ["requirements-base.txt", "requirements-image.txt"],
    "worker-cpu.txt": ["requirements-cpu.txt", "requirements-image.txt"],
    "worker-gpu.txt": ["requirements.txt", "requirements-image.txt"],
}
PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==(\S+)")


def pins(path: Path) -> dict[str, str]:
    """Pinned packages of a requirements file, with those of the files it names."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(path.parent / line.removeprefix("-r ").strip())
        elif match := PIN.match(line):
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def unpacked(stage: Stage, into: Path) -> Path:
    """What the stage copies from the repository, laid out as in the image's /app."""
    for sources, target in stage.copies():
        for source in sources:
            place = into / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    return into


@pytest.mark.parametrize(
    ("image", "entries"),
    [
        ("api", ["api.app", "inferq.__main__"]),
        ("keeper", ["workers.keeper", "deploy.flower_app", "deploy.flowerconfig", "inferq.__main__"]),
        ("cpu", ["workers.app", "workers.orphans", "inferq.__main__"]),
        ("gpu", ["workers.app", "workers.orphans", "inferq.__main__"]),
    ],
)
def test_an_image_has_all_that_its_processes_import(image: str, entries: list[str], tmp_path: Path) -> None:
    app = unpacked(IMAGES[image], tmp_path)
    env = {"PATH": os.environ["PATH"], "ENGINE": "simulated", "FLOWER_PASSWORD": "flower-password-0123"}
    code = "import " + ", ".join(entries)
    done = subprocess.run([sys.executable, "-c", code], cwd=app, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (app / "probe.py").exists()


def test_an_image_has_its_own_room_and_the_shared_one() -> None:
    rooms = {
        name: {source for sources, _ in stage.copies() for source in sources if (ROOT / source).is_dir()}
        for name, stage in IMAGES.items()
    }
    assert rooms == {
        "api": {"inferq", "api"},
        "keeper": {"inferq", "workers"},
        "cpu": {"inferq", "workers", "models/demo-mistral"},
        "gpu": {"inferq", "workers"},
    }


def test_the_context_lets_in_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "all is kept out unless it is let in"
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = {
        source
        for file in (API, WORKER)
        for stage in file.values()
        for sources, _ in stage.copies()
        for source in sources
    }
    for source in copied:
        assert (ROOT / source).exists()
        name = source + "/" if (ROOT / source).is_dir() else source
        assert any(fnmatch.fnmatch(name, pattern) for pattern in allowed), f"{source} is not in the build context"
    for pattern in allowed:
        assert any(fnmatch.fnmatch(source + ("/" if (ROOT / source).is_dir() else ""), pattern) for source in copied), (
            f"{pattern} is let in, and nobody copies it"
        )


@pytest.mark.parametrize("image", IMAGES)
def test_nobody_is_root_and_an_init_process_starts_one_other(image: str) -> None:
    stage = IMAGES[image]
    assert stage.last("USER") == "10001:10001"
    # Without --single-child it would hand SIGTERM to the engine's processes too, and end what should drain.
    assert stage.words("ENTRYPOINT") == ["dumb-init", "--single-child", "--"]
    assert "dumb-init" in pins(LOCKS / "base.txt")


@pytest.mark.parametrize("image", IMAGES)
def test_a_health_check_asks_the_port_that_is_exposed(image: str) -> None:
    stage = IMAGES[image]
    asked = re.search(r"probe\.py \$(\w+) (/\w+)", " ".join(stage.words("HEALTHCHECK")))
    assert asked
    assert stage.env()[asked[1]] == stage.last("EXPOSE")
    assert asked[2] == ("/health" if image == "api" else "/readyz")


@pytest.mark.parametrize("image", IMAGES)
def test_labels_say_what_it_is(image: str) -> None:
    labels = IMAGES[image].last("LABEL")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_bases_are_pinned() -> None:
    python = {file["base"].base for file in (API, WORKER)}
    assert len(python) == 1, "one base for all"
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", python.pop())
    vllm = pins(ROOT / "requirements.txt")["vllm"]
    assert f"ARG VLLM_TAG=v{vllm}" in (ROOT / "Dockerfile.worker").read_text().splitlines()
    for stage in [*API.values(), *WORKER.values()]:
        assert stage.base.split("@")[0].endswith("-slim-bookworm") or stage.base in {
            *API,
            *WORKER,
            "scratch",
            "docker.io/vllm/vllm-openai:${VLLM_TAG}",
        }


def test_what_changes_often_is_copied_after_what_is_installed() -> None:
    for stage in IMAGES.values():
        steps = [name + " " + rest for name, rest in stage.steps]
        installed = next(i for i, step in enumerate(steps) if step.startswith("COPY --from=packages"))
        assert installed < next(i for i, step in enumerate(steps) if step.startswith("COPY inferq"))
        assert steps[-1].startswith("LABEL"), "a revision, new with each commit, spoils no layer"
    for file in (API, WORKER):
        for name, stage in file.items():
            if name.startswith("packages"):
                assert all(source.startswith("deploy/locks/") for sources, _ in stage.copies() for source in sources)


@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_has_what_the_requirements_pin(lock: str) -> None:
    locked = pins(LOCKS / lock)
    for source in LOCKED[lock]:
        for name, version in pins(ROOT / source).items():
            if lock == "worker-gpu.txt" and name == "vllm":
                assert name not in locked, "vLLM is what its image has"
                continue
            assert locked.get(name) == version, f"{name}: run `make lock`"


@pytest.mark.parametrize("lock", LOCKED)
def test_every_package_of_a_lock_has_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[a-zA-Z0-9])", (LOCKS / lock).read_text(), flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert PIN.match(entry)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_what_a_gpu_engine_compiles_is_kept_and_may_be_run() -> None:
    # Docker mounts a tmpfs without leave to run what is in it.
    env = WORKER["gpu"].env()
    assert env["HOME"] == "/tmp"
    for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"):
        assert env[name].startswith("/var/cache/inferq/compiled"), name


def test_no_cuda_build_gets_beside_the_cpu_torch() -> None:
    locked = pins(LOCKS / "worker-cpu.txt")
    assert locked["torch"].endswith("+cpu")
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(locked)
