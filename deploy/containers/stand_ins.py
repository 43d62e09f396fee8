"""Stand-ins for images of registries, made from Debian's packages: where no registry can be reached.

They have the names that Dockerfiles and docker-compose.yml use, so that both are used unchanged, and a label, so that
they are known for what they are and go again. Images built on them inherit it. vLLM's has Python and a compiler as the
real one, and of vLLM a name alone: enough to go through what is built on it, with the simulated engine. Grafana and
Locust have none.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

import yaml

from deploy.containers.podman import has_image, podman, run
from deploy.local.child import ROOT

#: Its value is the image that is stood in for.
LABEL: Final = "inferq.stand-in"
#: Python's image has Debian's packages of the same release; the compiler's headers are part of the real one too.
PACKAGES: Final = "python3,python3-dev,python3-venv,ca-certificates"
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")

_REDIS: Final = """FROM {python}
RUN apt-get update -qq && RUNLEVEL=1 apt-get install -qq --no-install-recommends redis-server >/dev/null \\
 && install -d -o redis -g redis /data
WORKDIR /data
"""
_PROMETHEUS: Final = """FROM {python}
RUN apt-get update -qq && RUNLEVEL=1 apt-get install -qq --no-install-recommends prometheus wget >/dev/null \\
 && install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
"""
_VLLM: Final = """FROM {python}
RUN apt-get update -qq && apt-get install -qq --no-install-recommends \\
      gcc libc6-dev python3-pip python3-setuptools python3-wheel >/dev/null \\
 && install -d /usr/lib/python3/dist-packages/vllm && touch /usr/lib/python3/dist-packages/vllm/__init__.py
ENTRYPOINT ["false"]
"""


def python_base() -> tuple[str, str]:
    """Return the base image of our Dockerfiles as they name it, and without its digest."""
    (named,) = re.findall(r"^FROM (\S+) AS base$", (ROOT / "Dockerfile.api").read_text(), re.MULTILINE)
    return named, named.partition("@")[0]


def make_python() -> str:
    """Make the stand-in of the base image if it is not there; returns its name."""
    _, name = python_base()
    if not has_image(name):
        with tempfile.TemporaryDirectory(prefix="inferq-base-", dir="/var/tmp") as work:  # large
            root = Path(work, "root")
            release = name.rpartition("-")[2]
            run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, root)
            (root / "usr" / "bin" / "python").symlink_to("python3")
            if AUTHORITIES.exists():  # those of this machine: it may reach registries through a proxy of its own
                shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
            for left in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(root / left, ignore_errors=True)
                (root / left / "partial").mkdir(parents=True)
            archive = Path(work, "root.tar")
            run("tar", "-C", root, "-cf", archive, ".")
            shutil.rmtree(root)
            podman("import", "--change", f"LABEL {LABEL}={name}", archive, name)
    return name


def make_servers() -> list[str]:
    """Make the stand-ins of Redis and Prometheus under their names in docker-compose.yml; returns these."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    made = []
    for service, text in (("redis", _REDIS), ("prometheus", _PROMETHEUS)):
        made.append(services[service]["image"])
        _make(made[-1], text)
    return made


def make_vllm() -> str:
    """Make the stand-in of vLLM's image under its name in Dockerfile.worker; returns it."""
    (tag,) = re.findall(r"^ARG VLLM_TAG=(\S+)$", (ROOT / "Dockerfile.worker").read_text(), re.MULTILINE)
    name = f"docker.io/vllm/vllm-openai:{tag}"
    _make(name, _VLLM)
    return name


def _make(name: str, text: str) -> None:
    if has_image(name):
        return
    with tempfile.TemporaryDirectory(prefix="inferq-stand-in-") as work:
        Path(work, "Dockerfile").write_text(text.format(python=make_python()))
        podman("build", "--quiet", "--label", f"{LABEL}={name}", "--tag", name, work)


def remove() -> None:
    """Remove all stand-ins, and nothing that came from a registry."""
    for image in podman("images", "--quiet", "--filter", f"label={LABEL}").splitlines():
        podman("rmi", "--force", image)
