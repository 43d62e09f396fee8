"""deploy/kubernetes: right by the API's schemas, and each name in it is one that the repository knows."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from deploy.local.stack import free_port
from inferq.settings import Settings, load_settings
from tests.kubernetes import (
    COMPONENTS,
    DIRECTORY,
    OURS,
    OVERLAYS,
    Document,
    built,
    containers,
    of_kind,
    overlay,
    own_container,
    paths,
    pods,
    printed_secret,
    secret_files,
    selects,
    settings,
    stage_of,
    with_hpa,
    workloads,
)
from tests.kubernetes_schemas import complaints
from tests.processes import ROOT, until
from tests.redis_server import binaries

#: Of everybody's pods, by overlay and component.
PODS = [(name, component) for name in OVERLAYS for component in COMPONENTS]
#: What containers are told that is no setting of inferq.
FOREIGN = {"HF_TOKEN"}
#: Seconds that a worker needs to end after its grace (docs/operations.md).
DRAIN_MARGIN_S = 15
#: The test waits by itself.
ONCE = Retry(NoBackoff(), 0)


@pytest.mark.parametrize("name", [*OVERLAYS, "hpa"])
def test_it_follows_the_schemas_of_the_api(name: str, tmp_path: Path) -> None:
    documents = with_hpa(tmp_path) if name == "hpa" else overlay(name)
    assert len(documents) > 20
    assert not [complaint for one in documents for complaint in complaints(one)]


def test_names_are_said_once_and_all_is_in_one_namespace() -> None:
    for name in OVERLAYS:
        named = [(one["kind"], one["metadata"]["name"]) for one in overlay(name)]
        assert len(named) == len(set(named))
        assert {one["metadata"].get("namespace") for one in overlay(name) if one["kind"] != "Namespace"} == {"inferq"}
        for one in overlay(name):
            assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "inferq"


def test_the_overlay_in_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (said,) = re.findall(r"^```yaml\n(apiVersion: kustomize(?:.*\n)+?)```$", page, re.MULTILINE)
    place = os.path.relpath(DIRECTORY / "overlays" / "gpu-t4", tmp_path.resolve())
    text = re.sub(r"github\.com/\S+?overlays/gpu-t4\?ref=TAG", place, said)
    assert place in text
    (tmp_path / "kustomization.yaml").write_text(text)
    documents = built(tmp_path)
    assert settings(documents) == settings(overlay("gpu-t4")) | {"RATE_LIMIT": "600"}
    for component, pod in pods(documents).items():
        for container in pod["spec"]["containers"]:
            ours = component in OURS and container["name"] != "proxy"
            assert container["image"].startswith("registry.example.com/inferq-" if ours else "docker.io/")
    for one in of_kind(documents, "PodMonitor", "PrometheusRule").values():
        assert one["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    for directory in re.findall(r"`((?:base|overlays|components)/[\w./-]*)`", page):
        assert (DIRECTORY / directory).exists(), directory


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_components_are_those_of_the_stack(name: str) -> None:
    assert set(workloads(overlay(name))) == set(COMPONENTS)
    assert not of_kind(overlay(name), "Secret"), "secrets are made, not kept here"
    for component, pod in pods(overlay(name)).items():
        wanted = {"app.kubernetes.io/name": "inferq", "app.kubernetes.io/component": component}
        assert wanted.items() <= pod["metadata"]["labels"].items()
        assert selects(workloads(overlay(name))[component]["spec"]["selector"], wanted)


@pytest.mark.parametrize(("name", "component"), PODS)
def test_every_pod_is_kept_small(name: str, component: str) -> None:
    pod = pods(overlay(name))[component]
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, "FLOWER_PORT and its like would be addresses"
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
    for container in spec["containers"]:
        said = container["securityContext"]
        assert said["allowPrivilegeEscalation"] is False
        assert said["readOnlyRootFilesystem"] is True
        assert said["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsNonRoot"} & set(said)
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"], "throttled in the middle of a step, all runs wait"
        assert container["readinessProbe"]
        assert container["livenessProbe"]
    namespaces = of_kind(overlay(name), "Namespace").values()
    assert {one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for one in namespaces} == {"restricted"}


@pytest.mark.parametrize(("name", "component"), [(name, one) for name, one in PODS if one in OURS])
def test_it_runs_a_stage_of_our_dockerfiles_as_its_user_on_its_ports(name: str, component: str) -> None:
    container, pod = own_container(name, component), pods(overlay(name))[component]
    stage = stage_of(component, container["image"])
    user, group = stage.last("USER").split(":")
    assert pod["spec"]["securityContext"].items() >= {"runAsUser": int(user), "runAsGroup": int(group)}.items()
    assert pod["spec"]["securityContext"]["fsGroup"] == int(group), "who may read secrets and write to volumes"
    assert "command" not in container, "dumb-init stays the first process"
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    if component == "flower":
        assert container["args"] == compose["flower"]["command"]
        exposed, listens = str(Settings(_env_file=None).flower_port), "FLOWER_HOST"
    else:
        assert "args" not in container, "what the image runs"
        exposed, listens = stage.last("EXPOSE"), "API_HOST" if component == "api" else "METRICS_HOST"
    assert [str(port["containerPort"]) for port in container["ports"]] == [exposed]
    assert stage.env()[listens] == "0.0.0.0"
    assert stage.env().get(listens.replace("HOST", "PORT"), exposed) == exposed


def test_versions_of_others_are_pinned_and_those_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, component in PODS:
        for container in pods(overlay(name))[component]["spec"]["containers"]:
            if not container["image"].startswith("inferq-"):
                assert re.fullmatch(r"docker\.io/\S+:\d+\.\d+\.\d+-alpine", container["image"])
            if component in compose and component not in OURS:
                assert container["image"] == compose[component]["image"]


@pytest.mark.parametrize("component", OURS)
def test_probes_ask_what_is_there(component: str) -> None:
    container = own_container("keda", component)
    ports = {port["name"] for port in container["ports"]}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        (asked,) = [container[kind][how] for how in ("httpGet", "tcpSocket") if how in container[kind]]
        assert asked["port"] in ports
        assert asked.get("path", "/health") in paths(component) | {"/health"}
    assert {"/health", "/metrics"} <= paths("api")
    assert {"/readyz", "/livez", "/metrics"} == paths("worker")


def test_probes_ask_the_right_question() -> None:
    def path(component: str, kind: str) -> str | None:
        found: str | None = own_container("gpu-t4", component)[kind].get("httpGet", {}).get("path")
        return found

    assert path("api", "readinessProbe") == "/health"
    assert path("api", "livenessProbe") is None, "a Redis that is away is no reason to start the API again"
    for component in ("worker", "keeper"):
        assert path(component, "readinessProbe") == path(component, "startupProbe") == "/readyz"
        assert path(component, "livenessProbe") == "/livez", "who drains is not ready, and alive"
    start = own_container("gpu-t4", "worker")["startupProbe"]
    allowed = start["periodSeconds"] * start["failureThreshold"]
    assert 1800 <= allowed < workloads(overlay("gpu-t4"))["worker"]["spec"]["progressDeadlineSeconds"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_there_is_time_to_end(name: str) -> None:
    values = Settings(_env_file=None)
    grace = {one: pod["spec"]["terminationGracePeriodSeconds"] for one, pod in pods(overlay(name)).items()}
    assert grace["worker"] >= float(settings(overlay(name))["DRAIN_GRACE"]) + DRAIN_MARGIN_S
    assert grace["keeper"] > values.webhook_timeout
    (graceful,) = re.findall(r"^graceful_timeout = (\d+)", (ROOT / "api/gunicorn_conf.py").read_text(), re.MULTILINE)
    command, waits = own_container(name, "api")["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert grace["api"] > int(waits) + int(graceful)
    for component in OURS:
        assert not {"STOPSIGNAL"} & {
            step for step, _ in stage_of(component, own_container(name, component)["image"]).steps
        }


def test_replacing_and_emptying_nodes_leaves_somebody() -> None:
    documents = overlay("gpu-t4")
    strategies = {one: found["spec"].get("strategy", {}) for one, found in workloads(documents).items()}
    assert strategies["worker"] == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, "no second GPU"
    assert strategies["api"] == strategies["keeper"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert strategies["flower"] == strategies["redis-cache"] == {"type": "Recreate"}
    replicas = {one: found["spec"]["replicas"] for one, found in workloads(documents).items()}
    assert replicas == {"api": 2, "keeper": 2, "worker": 1, "flower": 1, "redis": 1, "redis-cache": 1}
    budgets = of_kind(documents, "PodDisruptionBudget").values()
    held = {one for one, pod in pods(documents).items() for budget in budgets
            if selects(budget["spec"]["selector"], pod["metadata"]["labels"])}  # fmt: skip
    assert held == {"api", "keeper", "worker"}
    assert {budget["spec"]["maxUnavailable"] for budget in budgets} == {1}, (
        "a budget that lets nobody go holds nodes up"
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_services_find_their_pods(name: str) -> None:
    for service in of_kind(overlay(name), "Service").values():
        found = [one for one, pod in pods(overlay(name)).items()
                 if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]  # fmt: skip
        assert [f"inferq-{one}" for one in found] == [service["metadata"]["name"]]
        ports = {port["name"] for one in containers(pods(overlay(name))[found[0]]).values() for port in one["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", "nothing is published"


@pytest.mark.parametrize(("name", "component"), PODS)
def test_volumes_are_there_used_and_where_images_write(name: str, component: str) -> None:
    pod = pods(overlay(name))[component]
    claims = set(of_kind(overlay(name), "PersistentVolumeClaim"))
    templates = workloads(overlay(name))[component]["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"]: one for one in pod["spec"].get("volumes", [])}
    mounts = [mount for one in pod["spec"]["containers"] for mount in one.get("volumeMounts", [])]
    assert {mount["name"] for mount in mounts} == {*volumes, *(one["metadata"]["name"] for one in templates)}
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in claims
        if "configMap" in volume:
            assert volume["configMap"]["name"] in of_kind(overlay(name), "ConfigMap")
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
    if component in OURS:
        container = own_container(name, component)
        made = re.findall(
            r"install -d -o 10001 -g 10001 (.+)", "\n".join(stage_of(component, container["image"]).all("RUN"))
        )
        owned = {place for line in made for place in line.split()} - {"/var/cache/inferq"}
        places = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        wanted = {"/tmp", *owned} if component != "keeper" else {"/tmp"}  # /var/lib/inferq is Flower's
        assert places - {"/dev/shm"} == wanted
    if component == "worker":
        assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


@pytest.mark.parametrize(("name", "component"), [(name, one) for name, one in PODS if one in OURS])
def test_it_starts_with_settings_that_are_right(
    name: str, component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container, printed = own_container(name, component), printed_secret()["stringData"]
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    for key, value in (settings(overlay(name)) | stage_of(component, container["image"]).env()).items():
        if key in settings(overlay(name)) or key.lower() in Settings.model_fields:
            assert key.lower() in Settings.model_fields, key
            monkeypatch.setenv(key, value)
    assert {one["name"] for one in container.get("env", [])} <= FOREIGN
    for path, key in secret_files(pods(overlay(name))[component]).items():
        assert path in Settings.model_fields
        (tmp_path / path).write_text(printed[key])
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "secrets"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/run/secrets", True)
    monkeypatch.setattr("inferq.settings.SECRETS", tmp_path)
    loaded = load_settings()
    assert loaded.redis_url == printed["redis_url"]
    assert loaded.separate_cache == (component in ("api", "worker")), "who reads and writes completions"
    assert (loaded.metrics_token is None) == (component == "flower")
    assert (loaded.flower_password is None) == (component != "flower"), "nobody else is told"
    assert loaded.engine == "vllm"
    if component == "worker" and name == "cpu":
        assert ([loaded.model_name], loaded.model_name) in stage_of(component, container["image"]).copies()
    elif name != "cpu":
        assert loaded.model_name == Settings(_env_file=None).model_name


def test_every_secret_is_made_anew_and_used() -> None:
    one, other = printed_secret(), printed_secret()
    assert (one["kind"], one["metadata"]) == ("Secret", {"name": "inferq", "namespace": "inferq"})
    assert not set(one["stringData"].values()) & set(other["stringData"].values())
    for service, key in (("inferq-redis", "redis_url"), ("inferq-redis-cache", "cache_redis_url")):
        assert f":{one['stringData']['redis_password']}@{service}:6379" in one["stringData"][key]
    used, optional = set(), set()
    for reference in references(overlay("keda")):
        assert reference["name"] == "inferq"
        (optional if reference.get("optional") else used).add(reference["key"])
    assert used == set(one["stringData"])
    assert optional == {"hf_token"}


def references(documents: Any) -> list[Document]:
    """Every place in which a key of a secret is named."""
    if isinstance(documents, dict):
        if "secretName" in documents:
            return [{"name": documents["secretName"], "key": item["key"]} for item in documents["items"]]
        if "name" in documents and "key" in documents:
            return [documents]
        documents = list(documents.values())
    return [found for one in documents for found in references(one)] if isinstance(documents, list | tuple) else []


@pytest.mark.parametrize(("component", "policy"), [("redis", "noeviction"), ("redis-cache", "allkeys-lfu")])
def test_redis_keeps_or_evicts_and_wants_the_password(component: str, policy: str, tmp_path: Path) -> None:
    container = own_container("gpu-t4", component)
    (script,) = container["args"]
    port = free_port()
    # As it stands, on a Redis of this machine: 6.2 knows the same options.
    local = script.replace("redis-server ", f"{binaries()['bundled']} --port {port} --bind 127.0.0.1 --dir {tmp_path} ")
    env = {"REDIS_PASSWORD": "a-password", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen([*container["command"], local], env=env, stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, password="a-password", decode_responses=True, retry=ONCE) as redis:
            until(lambda: answers(redis), 10, "Redis answers who knows the password")
            said: Any = redis.config_get("*")
            assert said["maxmemory-policy"] == policy
            assert said["appendonly"] == ("yes" if component == "redis" else "no")
            assert said["save"] == ""
            limit = container["resources"]["limits"]["memory"]
            room = int(said["maxmemory"]) / 2**20 / int(limit.removesuffix("Mi"))
            assert room <= (0.5 if component == "redis" else 0.75), "a rewrite of the file needs as much again"
        assert "a-password" not in Path(f"/proc/{process.pid}/cmdline").read_text(), (
            "and it is Redis itself that is stopped"
        )
        assert "redis-server" in Path(f"/proc/{process.pid}/cmdline").read_text()
        with Redis(port=port, retry=ONCE) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("said", "alive", "ready"),
    [
        ("PONG", True, True),
        # Its disk is full: what it has not written yet is in its memory alone.
        ("MISCONF Errors writing to the AOF file: No space left on device", True, False),
        ("LOADING Redis is loading the dataset in memory", True, False),
    ],
)
@pytest.mark.parametrize("component", ["redis", "redis-cache"])
def test_a_redis_that_answers_is_not_started_again(
    component: str, said: str, alive: bool, ready: bool, tmp_path: Path
) -> None:
    # redis-cli ends with 0 whatever the answer was.
    client = tmp_path / "redis-cli"
    client.write_text(f"#!/bin/sh\necho '{said}'\n")
    client.chmod(0o755)
    for kind, good in (("livenessProbe", alive), ("readinessProbe", ready)):
        command = own_container("gpu-t4", component)[kind]["exec"]["command"]
        done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, timeout=30)
        assert (done.returncode == 0) == good, kind


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False
