"""One trace from the request to the webhook, in this process, and what no trace may say."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from redis import Redis

from api.app import create_app
from api.services import services
from inferq.errors import ConfigurationError
from inferq.outbox import Outbox
from inferq.queue import Bells, Ringer, make_celery
from inferq.run_store import RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings, load_settings
from inferq.spans import OpenTelemetryTracer
from inferq.tracing import Tracer, carrier_of, headers_of, trace_of
from inferq.webhook_secrets import new_secret
from inferq.webhooks import AddressRules
from tests.conftest import make_settings
from tests.processes import until
from tests.receiver import Receiver, receiving
from workers.courier import Courier
from workers.metrics import WorkerMetrics
from workers.runner import Runner
from workers.simulated_engine import SimulatedEngine
from workers.timing import Timing
from workers.token_streams import TokenStreams

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PROMPT = "a prompt that nobody else may read"


class Path:
    """All that a job meets, each part with a tracer of its own that writes into one memory."""

    def __init__(self, settings: Settings, redis: Redis, key: str, *, tracing: bool) -> None:
        self.spans = InMemorySpanExporter()
        scripts = Scripts(redis)

        def tracer(role: str) -> Tracer:
            return OpenTelemetryTracer(role, SimpleSpanProcessor(self.spans)) if tracing else Tracer()

        self.app = create_app(settings, tracer("api"))
        self.client = self.app.test_client()
        self.client.environ_base["HTTP_X_API_KEY"] = key
        self.engine = SimulatedEngine(slots=1, timing=Timing(base_s=0.001))
        self.engine.start()
        store = RunStore(scripts, engine=settings.engine_queue, worker="w", lease_ms=9000)
        self.runner = Runner(
            engine=self.engine,
            store=store,
            bells=Ringer(Bells(make_celery(settings)), lambda _sent, _failed: None),
            cache=None,
            cache_ttl_s=60,
            metrics=WorkerMetrics(CollectorRegistry(), settings.public_model),
            tracer=tracer("worker"),
            streams=TokenStreams(store=store, engine=self.engine, counted=lambda _: None),
        )
        outbox = Outbox(scripts, timeout_s=settings.webhook_timeout, waits_s=settings.webhook_waits_s)
        self.courier = Courier(outbox, AddressRules(settings), timeout_s=5.0, room=4, tracer=tracer("keeper"))

    def close(self) -> None:
        self.engine.stop()
        self.courier.stop()
        self.courier.close()
        services(self.app).close()

    def travel(self, receiver: Receiver, prompt: str = PROMPT) -> str:
        """Let a job come, run and be told; returns its id."""
        headers = {"X-Request-ID": "req-1", "traceparent": PARENT, "tracestate": "them=1"}
        body = {"prompt": prompt, "webhook": {"url": receiver.url}}
        answer = self.client.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        self.runner.run_next()
        self.courier.shift(0.5)
        until(lambda: receiver.got, 10, "the receiver is told")
        return answer.json["id"]

    def span(self, name: str) -> ReadableSpan:
        (found,) = [one for one in self.spans.get_finished_spans() if one.name == name]
        return found


@contextmanager
def a_path(redis: Redis, settings: Settings, key: str, *, tracing: bool = True) -> Iterator[tuple[Path, Receiver]]:
    own = settings.model_copy(update={"webhook_allowed_hosts": "127.0.0.1"})
    with receiving() as receiver:
        path = Path(own, redis, key, tracing=tracing)
        rotated = path.client.post("/v1/webhooks/secrets/rotate", json={})
        assert rotated.status_code == 200, new_secret()
        path.spans.clear()
        try:
            yield path, receiver
        finally:
            path.close()


def test_request_queue_attempt_engine_and_webhook_are_one_trace(redis: Redis, settings: Settings, api_key: str) -> None:
    with a_path(redis, settings, api_key) as (path, receiver):
        job = path.travel(receiver)
        spans = path.spans.get_finished_spans()
        assert {span.context.trace_id for span in spans} == {int(TRACE, 16)}
        request, queue, attempt = path.span("POST /v1/jobs"), path.span("queue"), path.span("attempt")
        engine, webhook = path.span("engine"), path.span("webhook job.completed")
        parents = [span.parent.span_id for span in (queue, attempt, engine, webhook)]
        ours = request.context.span_id
        assert (request.parent.span_id, parents) == (
            int("b7ad6b7169203331", 16),
            [ours, ours, attempt.context.span_id, ours],
        )
        assert (request.kind, attempt.kind, webhook.kind) == (SpanKind.SERVER, SpanKind.CONSUMER, SpanKind.CLIENT)
        assert request.attributes["inferq.job"] == request.attributes["inferq.run"] == job
        assert request.attributes["http.route"] == "/v1/jobs"
        assert request.attributes["http.response.status_code"] == 202
        assert request.attributes["inferq.decision"] == "queued"
        assert attempt.attributes["inferq.run"] == job
        assert attempt.attributes["inferq.attempt"] == 1
        assert attempt.attributes["inferq.outcome"] == "completed"
        assert engine.attributes["gen_ai.usage.output_tokens"] > 0
        assert webhook.attributes["http.response.status_code"] == 204
        assert queue.start_time <= queue.end_time <= attempt.end_time
        assert {span.resource.attributes["service.name"] for span in spans} == {
            "inferq-api",
            "inferq-worker",
            "inferq-keeper",
        }
        sent = receiver.got[0].headers
        assert sent["x-request-id"] == "req-1"
        assert sent["traceparent"] == f"00-{TRACE}-{webhook.context.span_id:016x}-01"
        assert sent["tracestate"] == "them=1"
        text = json.dumps([[span.name, dict(span.attributes), span.status.description] for span in spans])
        answer = path.client.get(f"/v1/jobs/{job}").json["output"]["text"]
        assert not [one for one in (PROMPT, answer, api_key, receiver.url) if one in text]


def test_what_goes_wrong_is_said_by_its_code(redis: Redis, settings: Settings, api_key: str) -> None:
    with a_path(redis, settings, api_key) as (path, receiver):
        receiver.behaviour = lambda _, __: 503
        path.travel(receiver, prompt="simulate:fails")
        attempt, engine, webhook = path.span("attempt"), path.span("engine"), path.span("webhook job.failed")
        assert [one.status.status_code for one in (attempt, engine, webhook)] == 3 * [StatusCode.ERROR]
        assert [one.attributes["error.type"] for one in (attempt, engine, webhook)] == [
            "failed",
            "RequestFailed",
            "503",
        ]


def test_without_tracing_a_trace_is_passed_on_as_it_came(redis: Redis, settings: Settings, api_key: str) -> None:
    with a_path(redis, settings, api_key, tracing=False) as (path, receiver):
        path.travel(receiver)
        sent = receiver.got[0].headers
        assert (sent["traceparent"], sent["tracestate"], sent["x-request-id"]) == (PARENT, "them=1", "req-1")
        assert path.spans.get_finished_spans() == ()


def test_probes_are_no_traces(redis: Redis, settings: Settings, api_key: str) -> None:
    with a_path(redis, settings, api_key) as (path, _):
        for probe in ("/health", "/readyz", "/metrics"):
            path.client.get(probe)
        assert path.spans.get_finished_spans() == ()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        PARENT.upper(),
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        PARENT + "-more",
        PARENT + "\n",
    ],
)
def test_what_is_no_traceparent_is_not_passed_on(header: str) -> None:
    assert carrier_of(header, "them=1") is None


def test_a_carrier_says_what_it_was_made_of() -> None:
    assert headers_of(carrier_of(PARENT, "them=1")) == {"traceparent": PARENT, "tracestate": "them=1"}
    assert headers_of(carrier_of(PARENT, "x" * 513)) == {"traceparent": PARENT}
    assert trace_of(carrier_of(PARENT)) == TRACE
    assert (headers_of(None), trace_of(None)) == ({}, None)


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferq.settings.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"^wrong setting: TRACING: otlp needs `pip install"):
        load_settings(_env_file=None, tracing="otlp")
    assert make_settings("redis://127.0.0.1:1").tracing == "off"
