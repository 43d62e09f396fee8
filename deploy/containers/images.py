"""The images: built from a directory of wheels, and each run as it is meant to be: not as root, on a read-only root."""

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.containers import stand_ins
from deploy.containers.podman import ContainersFailed, healthy, inspect, podman, run
from deploy.local.child import ROOT

#: Where wheels and logs of builds are kept.
HOME: Final = ROOT / ".inferq" / "containers"
WHEELS: Final = HOME / "wheels"
#: Images by their names in docker-compose.yml: Dockerfile, stage, lock.
IMAGES: Final = {
    "localhost/inferq-api:local": ("Dockerfile.api", "api", "base.txt"),
    "localhost/inferq-keeper:local": ("Dockerfile.worker", "keeper", "base.txt"),
    "localhost/inferq-worker:local-cpu": ("Dockerfile.worker", "cpu", "worker-cpu.txt"),
    "localhost/inferq-worker:local-gpu": ("Dockerfile.worker", "gpu", "worker-gpu.txt"),
}
#: Seconds for an engine to load its model in a container on a busy machine.
WARM_S: Final = 900.0
#: Seconds for anything else to be healthy.
UP_S: Final = 180.0
#: What `docker run` gets for the hardening that docker-compose.yml has.
HARDENED: Final = (
    "--read-only",
    "--tmpfs",
    "/tmp:mode=1777",  # noqa: S108  # in the container
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)

Say = Callable[[str], None]


def fetch_wheels() -> None:
    """Bring what the locks name into a directory, with this machine's pip: its cache, its index, its authorities."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    download: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--dest",
        WHEELS,
    ]
    source = ["--only-binary", ":all:", "--no-binary", "gunicorn-h1c"]
    for lock in ("build.txt", "base.txt", "worker-cpu.txt", "worker-gpu.txt"):
        wanted = [*download, *source, "-r", ROOT / "deploy" / "locks" / lock]
        try:
            run(*wanted, "--no-index", "--find-links", WHEELS)  # all there from last time: no index needs asking
        except ContainersFailed:
            run(*wanted, "--find-links", WHEELS)


def build(say: Say) -> None:
    """Build all images that can be built without a registry."""
    stand_in = stand_ins.make_python()
    stand_ins.make_vllm()
    say(f"base: a stand-in for {stand_in} from Debian's packages")
    began = time.monotonic()
    fetch_wheels()
    say(f"wheels: {sum(1 for _ in WHEELS.iterdir())} files, after {time.monotonic() - began:.0f} s")
    named, _ = stand_ins.python_base()
    for tag, (dockerfile, stage, _) in IMAGES.items():
        began = time.monotonic()
        log = HOME / "logs" / f"build-{stage}.log"
        # The formats differ in that OCI's knows no health checks.
        run(
            *("podman", "build", "--format", "docker", "--file", dockerfile, "--target", stage, "--tag", tag),
            *("--build-context", f"{named}=container-image://{stand_in}", "--build-context", f"wheels={WHEELS}"),
            *("--build-arg", "PIP_NO_INDEX=1", "--build-arg", f"REVISION={_revision()}", "."),
            log=log,
        )
        own = (inspect(tag)["Size"] - inspect(stand_in)["Size"]) / 2**20
        say(f"{tag}: built in {time.monotonic() - began:.0f} s, {own:.0f} MiB above its base")


def check_runs(say: Say) -> None:
    """Run the images in a pod with a Redis, the worker with its real engine; raises ContainersFailed."""
    for tag in IMAGES:
        expect(inspect(tag)["Config"]["User"] == "10001:10001", f"{tag} runs as nobody in particular")
        said = podman("run", "--rm", *HARDENED, "--entrypoint", "sh", tag, "-c", "touch /app/x 2>&1; id -u; ls /app")
        expect("Read-only" in said and "10001" in said, f"{tag} cannot write, and is not root")
        other = {"api": "workers", "keeper": "api", "worker": "api"}[tag.partition("inferq-")[2].partition(":")[0]]
        expect(other not in said.split(), f"{tag} does not have {other}/")
    with pod_with_redis() as pod:
        api = podman("run", "--detach", "--pod", pod, *HARDENED, "localhost/inferq-api:local")
        until(lambda: healthy(api), UP_S, "the API is healthy, read-only and not root")
        say("inferq-api: healthy, read-only, uid 10001")
        keeper = podman("run", "--detach", "--pod", pod, *HARDENED, "localhost/inferq-keeper:local")
        until(lambda: healthy(keeper), UP_S, "the keeper is healthy")
        say("inferq-keeper: healthy, read-only, uid 10001")
        gpu = ("--env", "ENGINE=simulated", "localhost/inferq-worker:local-gpu")
        worker = podman("run", "--detach", "--pod", pod, *HARDENED, *gpu)
        until(lambda: healthy(worker), UP_S, "the GPU's image runs the simulated engine", worker)
        podman("rm", "--force", "--time", "60", worker)
        say("inferq-worker (gpu): on a base without vLLM it runs the simulated engine")
        model = (
            "--env",
            "MODEL_NAME=models/demo-mistral",
            "--env",
            "MAX_MODEL_LEN=1024",
            "--env",
            "CPU_KV_CACHE_GIB=0.5",
        )
        caches = ("--tmpfs", "/var/cache/inferq:mode=1777")  # a volume where it should outlive the container
        worker = podman(
            "run", "--detach", "--pod", pod, *HARDENED, *caches, *model, "localhost/inferq-worker:local-cpu"
        )
        began = time.monotonic()
        until(
            lambda: healthy(worker) or not inspect(worker)["State"]["Running"],
            WARM_S,
            "the worker has a warm engine",
            worker,
        )
        expect(healthy(worker), "the worker has not ended while it warmed up")
        say(f"inferq-worker (cpu): vLLM warm after {time.monotonic() - began:.0f} s, read-only, uid 10001")
        began = time.monotonic()
        podman("stop", "--time", "60", worker)
        status = inspect(worker)["State"]["ExitCode"]
        until(lambda: status == 0, 0, f"the worker drains on SIGTERM (status {status})", worker)
        say(f"inferq-worker (cpu): drained and ended with status 0 after {time.monotonic() - began:.0f} s")


@contextmanager
def pod_with_redis() -> Iterator[str]:
    """A pod in which loopback is shared, with a Redis in it; it goes again."""
    redis, _ = stand_ins.make_servers()
    pod = f"inferq-check-{secrets.token_hex(4)}"
    podman("pod", "create", "--name", pod)
    try:
        podman("run", "--detach", "--pod", pod, "--user", "redis", redis, "redis-server", "--save", "")
        yield pod
    finally:
        podman("pod", "rm", "--force", "--time", "5", pod)


def expect(holds: bool, what: str) -> None:
    """Raise ContainersFailed that says what was expected."""
    if not holds:
        raise ContainersFailed(f"expected: {what}")


def until(holds: Callable[[], bool], seconds: float, what: str, container: str = "") -> None:
    """Wait for a condition; raises ContainersFailed, with the last words of ``container``."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            said = ""
            if container:
                logs = subprocess.run(
                    ["podman", "logs", "--tail", "20", container], capture_output=True, text=True, check=False
                )
                said = "\n" + logs.stdout + logs.stderr
            raise ContainersFailed(f"not within {seconds:.0f} s: {what}{said}")
        time.sleep(0.5)


def _revision() -> str:
    return run("git", "rev-parse", "--short", "HEAD").strip()
