"""What kustomize makes of deploy/kubernetes, read as far as tests ask."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from api.operations import OPERATIONS
from tests.dockerfiles import IMAGES, Stage
from tests.processes import ROOT

DIRECTORY = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu-t4", "keda")
#: The components that are ours: which image's stage each runs, by overlay where they differ.
STAGES = {"api": "api", "keeper": "keeper", "flower": "keeper"}
OURS = (*STAGES, "worker")
COMPONENTS = (*OURS, "redis", "redis-cache")

Document = dict[str, Any]


def kubectl() -> str:
    """The one that requirements-dev.txt installs, else the system's."""
    own = Path(sys.executable).with_name("kubectl")
    found = str(own) if own.is_file() else shutil.which("kubectl")
    assert found, "kubectl: install requirements-dev.txt"
    return found


@cache
def built(path: Path) -> tuple[Document, ...]:
    done = subprocess.run([kubectl(), "kustomize", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "kustomize warns of what it will not take any more"
    return tuple(yaml.load_all(done.stdout, yaml.CSafeLoader))  # libyaml's: ten times as fast, with large dashboards


@cache
def with_hpa(directory: Path) -> tuple[Document, ...]:
    """The overlay for CPUs with the API's autoscaler, put together as an operator would."""
    places = {"resources": DIRECTORY / "overlays" / "cpu", "components": DIRECTORY / "components" / "api-hpa"}
    own = {name: [os.path.relpath(place, directory.resolve())] for name, place in places.items()}
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(own))
    return built(directory)


def overlay(name: str) -> tuple[Document, ...]:
    return built(DIRECTORY / "overlays" / name)


def of_kind(documents: tuple[Document, ...], *kinds: str) -> dict[str, Document]:
    return {one["metadata"]["name"]: one for one in documents if one["kind"] in kinds}


def workloads(documents: tuple[Document, ...]) -> dict[str, Document]:
    """Deployments and stateful sets by component."""
    found = of_kind(documents, "Deployment", "StatefulSet").values()
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in found}


def pods(documents: tuple[Document, ...]) -> dict[str, Document]:
    """The pods' templates by component."""
    return {name: one["spec"]["template"] for name, one in workloads(documents).items()}


def containers(pod: Document) -> dict[str, Document]:
    return {one["name"]: one for one in pod["spec"]["containers"]}


def stage_of(component: str, image: str) -> Stage:
    """The stage of our Dockerfiles that a container of ``component`` with this image runs."""
    name = STAGES.get(component) or image.removeprefix("inferq-worker:local-")
    assert image.startswith(f"inferq-{'worker' if component == 'worker' else name}:local"), image
    return IMAGES[name]


def settings(documents: tuple[Document, ...]) -> dict[str, str]:
    """What all of inferq's processes are told."""
    (name,) = {one["configMapRef"]["name"] for one in containers(pods(documents)["worker"])["worker"]["envFrom"]}
    data: dict[str, str] = of_kind(documents, "ConfigMap")[name]["data"]
    return data


def printed_secret() -> Document:
    done = subprocess.run([DIRECTORY / "secrets.sh"], capture_output=True, text=True, timeout=30, check=True)
    secret: Document = yaml.safe_load(done.stdout)
    return secret


def secret_files(pod: Document) -> dict[str, str]:
    """The keys of the secret that a pod finds in files, by path."""
    return {
        item["path"]: item["key"]
        for volume in pod["spec"].get("volumes", [])
        for item in volume.get("secret", {}).get("items", [])
    }


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a label selector of Kubernetes matches; raises KeyError for an operator nobody uses here."""
    equal = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    asked = {"In": lambda one: labels.get(one["key"]) in one["values"]}
    return equal and all(asked[one["operator"]](one) for one in selector.get("matchExpressions", []))


def own_container(name: str, component: str) -> Document:
    return containers(pods(overlay(name))[component])[component if component in OURS else "redis"]


def paths(component: str) -> set[str]:
    """What a probe may ask of a component."""
    if component == "api":
        return {route.partition(" ")[2] for route in OPERATIONS if route.startswith("GET ")}
    if component == "flower":
        prefix = re.search(r'^url_prefix: Final = "(\w+)"', (ROOT / "deploy/flowerconfig.py").read_text(), re.MULTILINE)
        assert prefix
        return {f"/{prefix[1]}/healthcheck", f"/{prefix[1]}/metrics"}
    return set(re.findall(r'case "(/\w+)"', (ROOT / "workers" / "exposition.py").read_text()))
