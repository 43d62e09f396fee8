"""KEDA's object: it looks where jobs are, and its question has the answers that make it scale as it should."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferq.keys import KEYS, key
from inferq.settings import Settings, load_settings
from tests.kubernetes import DIRECTORY, Document, of_kind, overlay, settings, workloads
from tests.kubernetes_schemas import complaints
from tests.prometheus_server import needs_promtool

PROMETHEUS = Path("deploy/prometheus/rules/inferq.yml")
CHANGED = DIRECTORY / "overlays" / "keda" / "rules.yml"


def scaled() -> Document:
    (found,) = of_kind(overlay("keda"), "ScaledObject").values()
    spec: Document = found["spec"]
    return spec


def trigger(kind: str) -> Document:
    (found,) = [one for one in scaled()["triggers"] if one["type"] == kind]
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in settings(overlay("keda")).items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_it_scales_the_workers_to_none_and_back(told: Settings) -> None:
    spec = scaled()
    worker = workloads(overlay("keda"))["worker"]
    assert worker["metadata"]["name"] == spec["scaleTargetRef"]["name"]
    assert "replicas" not in worker["spec"], "each apply would take back what KEDA has set"
    assert spec["minReplicaCount"] == 0 < spec["maxReplicaCount"]
    assert told.without_worker == "queue", "or no job would wait that wakes a worker"
    claims = of_kind(overlay("keda"), "PersistentVolumeClaim")
    for name in ("inferq-models", "inferq-compiled"):
        assert claims[name]["spec"]["accessModes"] == ["ReadWriteMany"], "workers are on several nodes"


def test_it_asks_for_the_engine_that_the_workers_serve(told: Settings) -> None:
    query = trigger("prometheus")["metadata"]["query"]
    assert query.count(f'model="{told.engine_queue}"') == query.count("model=") == 3
    assert float(trigger("prometheus")["metadata"]["threshold"]) == 2 * told.max_num_seqs
    assert trigger("redis")["metadata"]["listName"] == key("queue", told.engine_queue)
    assert "{}" in KEYS["queue"]


def test_it_wakes_a_worker_without_prometheus() -> None:
    metadata = trigger("redis")["metadata"]
    services = of_kind(overlay("keda"), "Service")
    (host, namespace), port = metadata["address"].split(".")[:2], metadata["address"].rpartition(":")[2]
    assert services[host]["metadata"]["namespace"] == namespace
    assert [str(one["port"]) for one in services[host]["spec"]["ports"]] == [port]
    assert metadata["activationListLength"] == "0", "one that waits is enough"
    assert int(metadata["listLength"]) >= Settings(_env_file=None).max_queue_depth, "and never asks for a second worker"
    login = of_kind(overlay("keda"), "TriggerAuthentication")[trigger("redis")["authenticationRef"]["name"]]
    (secret,) = login["spec"]["secretTargetRef"]
    assert (secret["parameter"], secret["name"], secret["key"]) == ("password", "inferq", "redis_password")


def test_nothing_known_stops_nobody() -> None:
    assert trigger("prometheus")["metadata"]["ignoreNullValues"] == "false", "no answer is not zero"
    assert scaled()["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert scaled()["fallback"]["replicas"] >= 1, "KEDA ignores a fallback to none"


@needs_promtool
@pytest.mark.parametrize(
    ("state", "series", "value"),
    [
        ("idle", {"runs": 0, "running": 0}, 0),
        ("runs wait", {"runs": 40, "running": 0}, 42),
        ("runs wait and run", {"runs": 40, "running": 16}, 58),
        ("the last ones run", {"runs": 0, "running": 3}, 3),
        ("they wait for an operator", {"runs": 40, "running": 0, "paused": 1}, 0),
        ("paused while some run", {"runs": 40, "running": 5, "paused": 1}, 5),
        ("a model nobody has asked for yet", {}, 0),
        ("Redis is away", {"up": 0}, None),
        ("no keeper tells", {"up": None}, None),
    ],
)
def test_its_question_has_the_right_answer(
    state: str, series: dict[str, Any], value: int | None, tmp_path: Path
) -> None:
    model = 'model="Mistral-7B-Instruct-v0.2-AWQ"'
    known: dict[str, int] = {}
    if "runs" in series:
        known[f'inferq_queue_runs{{{model},line="queue"'] = series["runs"]
        known[f'inferq_queue_runs{{{model},line="struck"'] = 2 if series["runs"] else 0
        known[f"inferq_queue_paused{{{model}"] = series.get("paused", 0)
        known[f"inferq_runs_in_progress{{{model}"] = series["running"]
        known['inferq_queue_runs{model="another",line="queue"'] = 1000
        known['inferq_runs_in_progress{model="another"'] = 1000
    if series.get("up", 1) is not None:
        known["inferq_redis_up{"] = series.get("up", 1)
    # Two keepers, that say the same.
    told = [
        {"series": f'{name}{"" if name.endswith("{") else ","}instance="{keeper}"}}', "values": f"{number}x5"}
        for name, number in known.items()
        for keeper in ("one", "two")
    ]
    asked: dict[str, Any] = {"expr": trigger("prometheus")["metadata"]["query"], "eval_time": "2m"}
    asked["exp_samples"] = [] if value is None else [{"labels": "{}", "value": value}]
    play(tmp_path, [], {"name": state, "interval": "1m", "input_series": told, "promql_expr_test": [asked]})


def play(directory: Path, rules: list[str], *tests: Document) -> None:
    file = directory / "play.yml"
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "1m", "tests": list(tests)}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


#: Gauges of jobs that wait for half an hour, while there is no worker or while one is ready.
WAITING = {
    'inferq_queue_depth{model="m",priority="normal"}': "3x60",
    'inferq_queue_oldest_seconds{model="m"}': "60+60x60",
    'inferq_queue_paused{model="m"}': "0x60",
}


@needs_promtool
@pytest.mark.parametrize(
    ("series", "minute", "alerts"),
    [
        # Nothing waits, and no worker is there: as it should be.
        ({"inferq_queue_depth": "0x60", 'inferq_workers{model="m",state="ready"}': "0x60"}, 50, []),
        # A worker is on its way.
        (
            WAITING | {'inferq_workers{model="m",state="ready"}': "0x60", 'inferq_engine_slots{model="m"}': "0x60"},
            15,
            [],
        ),
        (
            WAITING | {'inferq_workers{model="m",state="ready"}': "0x60", 'inferq_engine_slots{model="m"}': "0x60"},
            25,
            ["InferqNoReadyWorker", "InferqWorkerMissing"],
        ),
        (
            WAITING
            | {'inferq_workers{model="m",state="ready"}': "1x60", 'inferq_engine_slots{model="m"}': "16x60"}
            | {'up{job="inferq-worker"}': "1x60"},
            15,
            ["InferqOldestJobTooOld", "InferqQueueStalled"],
        ),
    ],
    ids=["idle", "starting", "not started", "stuck"],
)
def test_no_worker_is_no_alarm_where_none_is_needed(
    series: dict[str, str], minute: int, alerts: list[str], tmp_path: Path
) -> None:
    (rule,) = of_kind(overlay("keda"), "PrometheusRule").values()
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": rule["spec"]["groups"]}))
    told = [{"series": name, "values": values} for name, values in series.items()]
    changed = [one["alert"] for group in yaml.safe_load(CHANGED.read_text())["groups"] for one in group["rules"]]
    firing = f'ALERTS{{alertstate="firing",alertname=~"{"|".join(changed)}"}}'
    asked = {"expr": f"count by (alertname) ({firing})", "eval_time": f"{minute}m"}
    asked["exp_samples"] = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)]  # type: ignore[assignment]
    play(tmp_path, [str(file)], {"interval": "1m", "input_series": told, "promql_expr_test": [asked]})


def test_the_schema_would_say_what_is_wrong() -> None:
    (right,) = of_kind(overlay("keda"), "ScaledObject").values()
    assert not list(complaints(right))
    assert list(complaints(right | {"spec": right["spec"] | {"minReplicas": 0}}))
    assert list(complaints(right | {"spec": right["spec"] | {"minReplicaCount": "none"}}))
