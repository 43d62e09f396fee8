"""docker-compose.yml: right by the Compose specification, and each name in it is one that the repository knows."""

import re
import shutil
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferq.settings import Settings, load_settings
from tests.dockerfiles import API, IMAGES, WORKER
from tests.processes import ROOT

FILE = ROOT / "docker-compose.yml"
#: Which image's stage each service of ours runs.
OURS = {"api": "api", "worker-gpu": "gpu", "worker-cpu": "cpu", "keeper": "keeper", "flower": "keeper"}
#: Seconds that a worker needs to end after its grace (docs/operations.md).
DRAIN_MARGIN_S = 15
#: What containers are told that is no setting of inferq.
FOREIGN = {"HF_TOKEN"}


@cache
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


@cache
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def default(text: str) -> str:
    """A value as it is when no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)(s|m)", default(text))
    assert match
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


def port_of(service: str) -> str:
    (port,) = [default(text).rsplit(":", 1)[1] for text in services()[service]["ports"]]
    return port


def test_it_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_services_are_those_of_the_stack() -> None:
    known = {*OURS, "redis", "redis-cache", "prometheus", "grafana", "load"}
    assert set(services()) == known
    assert {name: one["profiles"] for name, one in services().items() if "profiles" in one} == {
        "worker-gpu": ["gpu"],
        "worker-cpu": ["cpu"],
        "load": ["load"],
    }


def test_what_can_be_set_from_outside_is_a_setting_or_explained() -> None:
    explained = (ROOT / "docs" / "deploying.md").read_text()
    for name in set(re.findall(r"\$\{(\w+)", FILE.read_text())):
        assert name.lower() in Settings.model_fields or f"`{name}`" in explained, name


def test_what_settings_are_given_are_settings_and_their_values_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for service in OURS:
        for name, value in services()[service]["environment"].items():
            assert name.lower() in Settings.model_fields or name in FOREIGN, f"{service}: {name}"
            monkeypatch.setenv(name, default(value))
        settings = load_settings()
        assert settings.separate_cache
        monkeypatch.undo()


def test_the_defaults_are_those_of_the_settings() -> None:
    values = Settings(_env_file=None)
    for name, value in compose()["x-environment"].items():
        if "${" in value:
            assert default(value) == str(getattr(values, name.lower())), name


def test_the_file_for_machines_without_a_gpu_sets_what_is_asked() -> None:
    lines = (ROOT / "deploy" / "compose" / "cpu.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given.pop("COMPOSE_PROFILES") == "cpu"
    assert set(given) <= {name for name, value in compose()["x-environment"].items() if "${" in value}
    assert (ROOT / given["MODEL_NAME"]).is_dir()
    assert ([given["MODEL_NAME"]], given["MODEL_NAME"]) in WORKER["cpu"].copies()


@pytest.mark.parametrize("service", OURS)
def test_it_runs_a_stage_of_our_dockerfiles(service: str) -> None:
    build = services()[service]["build"]
    file = {"Dockerfile.api": API, "Dockerfile.worker": WORKER}[build["dockerfile"]]
    assert file[build.get("target", list(file)[-1])] is IMAGES[OURS[service]]
    assert services()[service]["image"].startswith("inferq-")


def test_versions_of_others_are_pinned() -> None:
    for name, service in services().items():
        if name not in OURS:
            assert re.fullmatch(r"docker\.io/\S+:v?\d+\.\d+\.\d+(-alpine)?", service["image"]), name


def test_commands_start_what_is_there() -> None:
    for service in OURS:
        words = services()[service].get("command") or IMAGES[OURS[service]].words("CMD")
        sources = {source for sources, _ in IMAGES[OURS[service]].copies() for source in sources}
        for word in words:
            if re.fullmatch(r"(workers|deploy|api)\.\w+(:\w+)?", word):
                path = word.partition(":")[0].replace(".", "/") + ".py"
            elif word.endswith(".py"):
                path = word.rpartition("=")[2]
            else:
                continue
            assert (ROOT / path).is_file(), f"{service}: {word}"
            assert sources & {path, path.split("/")[0]}, f"{service}: {path} is not in its image"


def test_files_and_directories_that_are_mounted_are_there() -> None:
    for name, service in services().items():
        for mount in service.get("volumes", []):
            source, _, rest = mount.partition(":")
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert rest.endswith(":ro"), f"{name} must not write into the repository"
            else:
                assert source in compose()["volumes"], f"{name}: {source}"


def test_each_volume_network_and_secret_is_declared_and_used() -> None:
    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for service in services().values():
        used["volumes"] |= {mount.split(":")[0] for mount in service.get("volumes", []) if not mount.startswith("./")}
        used["networks"] |= set(service["networks"])
        used["secrets"] |= set(service.get("secrets", []))
    for kind, names in used.items():
        assert names == set(compose()[kind]), kind


def test_volumes_of_ours_belong_to_the_user_in_the_image() -> None:
    for service, image in OURS.items():
        for mount in services()[service].get("volumes", []):
            place = mount.split(":")[1]
            made = [step for step in IMAGES[image].all("RUN") if "install -d -o 10001 -g 10001" in step]
            assert any(place in step.split() for step in made), f"{service}: {place}"


def test_nothing_is_published_beyond_this_machine() -> None:
    for name, service in services().items():
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", default(port)), f"{name}: {port}"
    assert compose()["networks"]["data"]["internal"]
    assert services()["redis"]["networks"] == services()["redis-cache"]["networks"] == ["data"]


@pytest.mark.parametrize("name", sorted(yaml.safe_load(FILE.read_text())["services"]))
def test_every_service_is_kept_small(name: str) -> None:
    service = services()[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "load" else "unless-stopped")
    assert service["logging"]["options"]["max-size"]


def test_every_service_can_be_asked_for_its_health() -> None:
    for name, service in services().items():
        if name in OURS:
            assert IMAGES[OURS[name]].all("HEALTHCHECK")
        else:
            assert "healthcheck" in service or name == "load"
    check = services()["flower"]["healthcheck"]["test"]
    assert check == ["CMD", "python", "probe.py", port_of("flower"), "/flower/healthcheck"]
    assert f":{port_of('prometheus')}/" in " ".join(services()["prometheus"]["healthcheck"]["test"])
    assert f":{port_of('grafana')}/" in " ".join(services()["grafana"]["healthcheck"]["test"])


@pytest.mark.parametrize(
    ("said", "healthy"), [("PONG", True), ("LOADING Redis is loading the dataset in memory", False)]
)
@pytest.mark.parametrize("service", ["redis", "redis-cache"])
def test_a_redis_that_still_reads_its_file_is_not_healthy(
    service: str, said: str, healthy: bool, tmp_path: Path
) -> None:
    # redis-cli ends with 0 whatever the answer was.
    client = tmp_path / "redis-cli"
    client.write_text(f"#!/bin/sh\necho '{said}'\n")
    client.chmod(0o755)
    kind, *words = services()[service]["healthcheck"]["test"]
    command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, timeout=30)
    assert (done.returncode == 0) == healthy


def test_who_needs_redis_waits_for_it() -> None:
    for name in OURS:
        assert services()[name]["depends_on"] == {
            "redis": {"condition": "service_healthy"},
            "redis-cache": {"condition": "service_healthy"},
        }


def test_the_two_redis_keep_and_evict() -> None:
    def options(service: str) -> dict[str, str]:
        words = services()[service]["command"][1:]
        return dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))

    jobs, cache = options("redis"), options("redis-cache")
    assert (jobs["appendonly"], jobs["maxmemory-policy"]) == ("yes", "noeviction")
    assert (cache["appendonly"], cache["maxmemory-policy"]) == ("no", "allkeys-lfu")
    assert "redis:/data" in services()["redis"]["volumes"]


def test_there_is_time_to_end() -> None:
    values = Settings(_env_file=None)
    for worker in ("worker-gpu", "worker-cpu"):
        assert seconds(services()[worker]["stop_grace_period"]) >= values.drain_grace + DRAIN_MARGIN_S
        assert services()[worker]["shm_size"] == "2gb"
    assert seconds(services()["keeper"]["stop_grace_period"]) > values.webhook_timeout
    (graceful,) = re.findall(r"^graceful_timeout = (\d+)", (ROOT / "api/gunicorn_conf.py").read_text(), re.MULTILINE)
    assert seconds(services()["api"]["stop_grace_period"]) > int(graceful)


def test_prometheus_asks_where_the_services_are() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    names = set(services()) | {"worker"}
    for worker in ("worker-gpu", "worker-cpu"):
        assert services()[worker]["networks"]["data"]["aliases"] == ["worker"]
    ports = {
        "api": services()["api"]["environment"]["API_PORT"],
        "worker": services()["worker-cpu"]["environment"]["METRICS_PORT"],
        "keeper": services()["keeper"]["environment"]["KEEPER_METRICS_PORT"],
    }
    for service, port in ports.items():
        (asked,) = jobs[f"inferq-{service}"]["dns_sd_configs"]
        assert asked["names"] == [service]
        assert service in names
        assert str(asked["port"]) == port
        token = Path(jobs[f"inferq-{service}"]["authorization"]["credentials_file"])
        assert token.parent == Path("/run/secrets")
        assert token.name in services()["prometheus"]["secrets"]
    assert jobs["flower"]["static_configs"] == [{"targets": [f"flower:{port_of('flower')}"]}]
    mounts = dict(mount.split(":")[:2] for mount in services()["prometheus"]["volumes"])
    assert mounts["./deploy/prometheus/rules"] == "/etc/prometheus/rules"
    assert config["rule_files"] == ["rules/*.yml"], "beside the configuration"


def test_grafana_finds_prometheus_and_its_dashboards() -> None:
    provisioning = ROOT / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{port_of('prometheus')}"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "inferq.yml").read_text())["providers"]
    mounts = dict(mount.split(":")[:2] for mount in services()["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    environment = services()["grafana"]["environment"]
    home = Path(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (ROOT / "grafana" / "dashboards" / home.name).is_file()
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"


def test_load_is_sent_to_the_api() -> None:
    command = services()["load"]["command"]
    assert command[command.index("--host") + 1] == "http://api:8000"
    assert command[command.index("--locustfile") + 1] == "/load/locustfile.py"
    assert services()["load"]["volumes"] == ["./deploy/load:/load:ro"]
    assert (ROOT / "deploy" / "load" / "locustfile.py").is_file()


def test_secrets_are_made_anew_for_each_installation_and_are_what_inferq_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(place: Path) -> dict[str, str]:
        (place / "deploy" / "compose").mkdir(parents=True, exist_ok=True)
        script = shutil.copy(ROOT / "deploy" / "compose" / "secrets.sh", place / "deploy" / "compose")
        subprocess.run([script], check=True, capture_output=True, timeout=30)
        assert stat.S_IMODE((place / "secrets").stat().st_mode) == 0o700, "nobody else on this machine"
        # Docker mounts the file as it is: the user in the container must be able to read it.
        assert {stat.S_IMODE(file.stat().st_mode) for file in (place / "secrets").iterdir()} == {0o444}
        return {file.name: file.read_text() for file in (place / "secrets").iterdir()}

    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    assert set(one) == set(compose()["secrets"])
    assert {secret["file"] for secret in compose()["secrets"].values()} == {f"./secrets/{name}" for name in one}
    assert not set(one.values()) & set(other.values())
    assert make(tmp_path / "one") == one, "what is there stays"
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("inferq.settings.SECRETS", tmp_path / "one" / "secrets")
    settings = load_settings()
    for name in set(one) & set(Settings.model_fields):
        assert getattr(settings, name).get_secret_value() == one[name]
    assert set(one) - set(Settings.model_fields) == {"grafana_password"}
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
