"""Logs and traces of real processes: one request can be followed by its id, and every line is JSON."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy.local.stack import free_port, status
from inferq.credentials import KeyRing
from inferq.settings import Settings
from inferq.webhook_secrets import new_secret
from tests.conftest import make_settings
from tests.processes import Process, stack, until
from tests.receiver import Received, receiving
from tests.redis_server import RedisServer

TRACE = "0af7651916cd43dd8448eb211c80319c"
PROMPT = "a prompt that nobody else may read"


class Collector:
    """An OpenTelemetry collector in small: keeps what it is sent, by service."""

    def __init__(self) -> None:
        self.spans: defaultdict[str, list[Any]] = defaultdict(list)

    def __call__(self, received: Received, _: BaseHTTPRequestHandler) -> int:
        assert received.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(received.body).resource_spans:
            service = {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"]
            self.spans[service] += [span for scope in resource.scope_spans for span in scope.spans]
        return 200

    def names(self, trace: str) -> set[tuple[str, str]]:
        """Service and name of each span of a trace."""
        return {
            (service, span.name)
            for service, spans in list(self.spans.items())
            for span in list(spans)
            if span.trace_id.hex() == trace
        }


@contextmanager
def running(settings: Settings, directory: Path) -> Iterator[tuple[Process, Process, Process]]:
    """API, worker and keeper, ready."""
    with stack(settings, directory) as started:
        api, worker, keeper = started.api(), started.worker(), started.keeper()
        until(lambda: "engine_ready" in worker.output(), 60, "the worker is ready")
        until(lambda: status("127.0.0.1", settings.api_port, "/readyz") == 200, 30, "the API answers")
        yield api, worker, keeper


def lines(process: Process) -> list[dict[str, Any]]:
    """What a process has logged. Fails when a line is no JSON object."""
    return [json.loads(line) for line in process.output().splitlines() if line]


def test_a_request_is_followed_through_all_processes(
    own_redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(
        own_redis_server.url,
        api_port=free_port(),
        simulated_step=0.001,
        webhook_allowed_hosts="127.0.0.1",
        bootstrap_api_key="iq_tests_0123456789abcdef",
        bootstrap_webhook_secret=new_secret(),
        log_format="json",
        tracing="otlp",
    )
    collector = Collector()
    with receiving(collector) as endpoint, receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{endpoint.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        with running(settings, tmp_path) as (api, worker, keeper):
            answer = httpx2.post(
                f"http://127.0.0.1:{settings.api_port}/v1/jobs",
                json={"prompt": PROMPT, "webhook": {"url": receiver.url}},
                headers={
                    "X-API-Key": "iq_tests_0123456789abcdef",
                    "X-Request-ID": "req-7",
                    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
                    "Prefer": "wait=30",
                },
                timeout=60,
            )
            assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "req-7"
            until(lambda: receiver.got, 30, "the receiver is told")
            assert receiver.got[0].headers["x-request-id"] == "req-7"
            assert receiver.got[0].headers["traceparent"].split("-")[1] == TRACE
            until(
                lambda: (
                    collector.names(TRACE)
                    == {
                        ("inferq-api", "POST /v1/jobs"),
                        ("inferq-worker", "queue"),
                        ("inferq-worker", "attempt"),
                        ("inferq-worker", "engine"),
                        ("inferq-keeper", "webhook job.completed"),
                    }
                ),
                30,
                "the collector has the whole trace",
            )
            job, text = answer.json()["id"], answer.json()["output"]["text"]
            until(lambda: "delivery_attempted" in keeper.output(), 10, "the keeper says so")
            for process in (api, worker, keeper):
                process.close()
    said = {
        process.name: [line for line in lines(process) if line.get("request_id") == "req-7"]
        for process in (api, worker, keeper)
    }
    (request,), (attempt,), (delivery,) = said.values()
    assert (request["event"], attempt["event"], delivery["event"]) == ("request", "attempt_ended", "delivery_attempted")
    assert (request["job"], request["run"], attempt["run"], delivery["delivery"]) == (
        job,
        job,
        job,
        f"msg_{job}_completed",
    )
    assert (request["route"], request["status"], request["tenant"]) == ("/v1/jobs", 200, "development")
    assert request["trace"] == attempt["trace"] == TRACE
    assert request["seconds"] > attempt["seconds"] > 0
    for process in (api, worker, keeper):
        assert not [one for one in (PROMPT, text, "0123456789abcdef", receiver.url) if one in process.output()]
    assert not [line for line in lines(api) if line.get("route") == "/readyz" and line["status"] == 200], "a probe"
    assert {"gunicorn.error"} <= {line.get("logger") for line in lines(api)}
    assert [line for line in lines(worker) if str(line.get("logger", "")).startswith("celery")]


def test_level_and_form_are_settings(own_redis_server: RedisServer, tmp_path: Path) -> None:
    settings = make_settings(
        own_redis_server.url, api_port=free_port(), simulated_step=0.001, log_level="warning", log_format="console"
    )
    with own_redis_server.client() as redis:
        key = KeyRing(redis).create("acme")
    with stack(settings, tmp_path) as started:
        api = started.api()
        until(lambda: status("127.0.0.1", settings.api_port, "/health") == 200, 30, "the API answers")
        url = f"http://127.0.0.1:{settings.api_port}/v1/jobs"
        assert httpx2.post(url, json={"prompt": PROMPT}, headers={"X-API-Key": key}).status_code == 202
        own_redis_server.close()
        assert httpx2.post(url, json={"prompt": PROMPT}, headers={"X-API-Key": key}, timeout=30).status_code == 503
        until(lambda: "store-unavailable" in api.output(), 10, "the failure is told")
    told = [line for line in api.output().splitlines() if " request " in line]
    assert len(told) == 1, "only what failed by our fault is a warning"
    assert "status" in told[0]
    assert "503" in told[0]
    assert not told[0].startswith("{")
