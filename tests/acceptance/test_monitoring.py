"""Everything at once under a real Prometheus: every panel and rule has an answer, and nobody is shown a secret."""

import asyncio
import base64
import importlib.util
import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from redis import Redis

from bench.processes import children
from deploy.metrics_page import declared
from grafana.expressions import EVERYTHING, of_dashboards, of_rules
from inferq.keys import CELERY_PREFIX
from showcase.load import PLANTED, perform
from showcase.stack import Showcase, logs
from tests.command import environment
from tests.processes import ROOT
from tests.prometheus_server import PrometheusServer, needs_prometheus

pytestmark = [
    needs_prometheus,
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

SECONDS = 40.0
VALUES = {**EVERYTHING, "__rate_interval": "10m", "__range": "10m"}
#: No card is here, and no new version comes.
ABSENT = {"Busy", "Memory", "Temperature", "Power", "Deploys"}
#: Answers shorter than this may be common words.
TELLING = 20


@dataclass(frozen=True)
class Seen:
    showcase: Showcase
    prometheus: PrometheusServer
    answers: set[str]
    logs: dict[str, str]

    def planted(self) -> list[str]:
        """What may be seen by nobody but its owner."""
        return [PLANTED, *(one for one in self.answers if len(one) >= TELLING), *self.showcase.secrets()]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    directory = tmp_path_factory.mktemp("showcase")
    with children(directory) as started:
        showcase = Showcase(started, engine="vllm", interval="1s")
        showcase.start()
        answers = asyncio.run(perform(showcase, SECONDS, seed=6))
        prometheus = PrometheusServer(showcase.real.prometheus_port)
        last = time.time()
        while not prometheus.value(f"min(timestamp(inferq_build_info)) > {last}"):
            time.sleep(0.2)
        yield Seen(showcase, prometheus, answers, logs(directory))


def test_every_panel_and_annotation_has_data(seen: Seen) -> None:
    empty = [
        f"{asked.dashboard}: {asked.panel}: {asked.expr}"
        for asked in of_dashboards(VALUES)
        if not seen.prometheus.value(asked.expr) and not (asked.panel in ABSENT and _is_absent(asked.expr))
    ]
    assert not empty


def _is_absent(expr: str) -> bool:
    return "inferq_gpu_" in expr or "inferq_build_info" in expr


def test_what_keda_asks_has_a_value(seen: Seen) -> None:
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/overlays/keda/scaled-object.yaml").read_text())
    triggers = next(documents)["spec"]["triggers"]
    (query,) = [one["metadata"]["query"] for one in triggers if one["type"] == "prometheus"]
    known = re.sub(r'model="[^"]+"', f'model="{seen.showcase.real.engine_queue}"', query)
    for expr in (known, *re.split(r"\bor\b", known)):
        (found,) = seen.prometheus.value(expr)
        assert found["metric"] == {}, "one value, as KEDA wants it"


def test_every_rule_is_healthy_and_every_recorded_series_has_values(seen: Seen) -> None:
    healthy = {
        rule["name"]: rule["health"] for group in seen.prometheus.ask("rules")["groups"] for rule in group["rules"]
    }
    for rule in of_rules():
        assert healthy[rule.name] == "ok"
        if rule.kind == "record":
            assert seen.prometheus.value(rule.name), rule.name


def test_what_is_exported_is_what_the_code_declares(seen: Seen) -> None:
    names = set(seen.prometheus.ask("label/__name__/values"))
    known = {one.name: one.kind for metrics in declared().values() for one in metrics}
    exported = {name for name in names if name.startswith("inferq_")}
    series = {name + suffix: name for name, kind in known.items() for suffix in _suffixes(kind)}
    assert exported - set(series) == set()
    missing = set(series) - exported
    assert {name for name in missing if not name.startswith("inferq_gpu_")} == set()


def _suffixes(kind: str) -> tuple[str, ...]:
    return ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)


@pytest.mark.parametrize(
    "happened",
    [
        "inferq_rescues_total",
        "inferq_strikes_total",
        'inferq_runs_given_up_total{reason="poison"}',
        "inferq_fenced_total",
        "inferq_engine_deaths_total",
        'inferq_jobs_finished_total{outcome="expired"}',
        "inferq_cancel_freed_seconds_count",
        'inferq_webhook_deliveries_total{outcome="dead"}',
        'inferq_webhook_attempts_total{result="no_answer"}',
        'inferq_refusals_total{reason="jobs"}',
        "vllm:generation_tokens_total",
    ],
)
def test_it_has_happened(seen: Seen, happened: str) -> None:
    assert float(seen.prometheus.value(f"sum({happened})")[0]["value"][1]) > 0


def test_logs_say_nothing_of_prompts_answers_and_secrets(seen: Seen) -> None:
    assert len(seen.answers) > 20
    assert {"app-demo-mistral.log", "flower.log", "prometheus.log", "redis.log"} <= set(seen.logs)
    for name, text in seen.logs.items():
        assert not [planted for planted in seen.planted() if planted in text], name


def test_every_line_of_ours_and_of_vllm_is_json(seen: Seen) -> None:
    ours = {name: text for name, text in seen.logs.items() if name.startswith(("api-", "app-", "keeper-"))}
    assert len(ours) == 6
    for name, text in ours.items():
        lines = text.splitlines()
        said = [json.loads(line) for line in lines if line.startswith("{")]
        assert all({"timestamp", "level", "event"} <= set(one) for one in said), name
        bare = [line for line in lines if line and not line.startswith("{")]
        if "app-demo-mistral" in name:  # torch and the like print, beside what they log
            assert any(one.get("process", "").startswith("EngineCore") for one in said)
            assert not [line for line in bare if re.search(r"\b(INFO|WARNING|ERROR)\b \d\d-\d\d", line)]
        else:  # Celery's farewell
            assert not [line for line in bare if not line.startswith("worker: ")]


def test_nothing_that_is_exported_or_shown_says_anything_of_them(seen: Seen) -> None:
    real, simulated = seen.showcase.real, seen.showcase.simulated
    token = {"Authorization": f"Bearer {real.metrics_token.get_secret_value()}"}
    password = base64.b64encode(f"{real.flower_user}:{real.flower_password.get_secret_value()}".encode()).decode()
    pages = [
        (f"http://127.0.0.1:{port}/metrics", token)
        for one in (real, simulated)
        for port in (one.api_port, one.metrics_port, one.keeper_metrics_port)
    ]
    flower = f"http://127.0.0.1:{real.flower_port}/flower"
    known = {"Authorization": f"Basic {password}"}
    pages += [(flower + path, known) for path in ("/", "/tasks", "/broker", "/metrics", "/api/workers?refresh=1")]
    tasks = _get(flower + "/api/tasks?limit=100", known)
    pages += [(f"{flower}/task/{urllib.parse.quote(uuid)}", known) for uuid in list(json.loads(tasks))[:20]]
    labels = json.dumps(seen.prometheus.ask("series", **{"match[]": '{__name__=~".+"}'}))
    for where, text in [("tasks", tasks), ("labels", labels), *((url, _get(url, headers)) for url, headers in pages)]:
        assert len(text) > 100, where
        assert not [planted for planted in seen.planted() if planted in text], where


def test_celery_s_messages_say_nothing_of_them(seen: Seen) -> None:
    with Redis.from_url(seen.showcase.real.redis_url, decode_responses=True) as redis:
        found: list[Any] = []
        for name in redis.scan_iter(f"{CELERY_PREFIX}*"):
            found += redis.lrange(name, 0, -1) if redis.type(name) == "list" else [redis.type(name)]
    bodies = [base64.b64decode(json.loads(text)["body"]).decode() for text in found if text.startswith("{")]
    for text in [*found, *bodies]:
        assert not [planted for planted in seen.planted() if planted in text]


def _get(url: str, headers: dict[str, str]) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read().decode()


def test_the_notebook_s_cells_run_on_the_real_engine(seen: Seen) -> None:
    """Here, where a warm one is; test_notebook.py has the cells that start and stop everything."""
    real = seen.showcase.real
    url = f"http://127.0.0.1:{real.api_port}"
    asked = {"INFERQ_MODE": "cpu", "INFERQ_BURST": "12", "INFERQ_PYTHON": sys.executable}
    done = subprocess.run(
        [sys.executable, "-m", "tests.notebook", "examples/inferq_on_colab.ipynb"],
        cwd=ROOT,
        env=environment(url, real.bootstrap_api_key.get_secret_value()) | asked,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "When a worker dies, its heartbeat stops" in done.stdout, "the demo model's own sentence"
    assert "12 completed in" in done.stdout
    assert "runs on" in done.stdout
