"""``GET /metrics`` of the API: who may look, and what is counted."""

import subprocess
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from inferq.credentials import KeyLimits, KeyRing
from inferq.settings import Settings, environment_for
from tests.conftest import OpenClient
from tests.hand_worker import HandWorker, problem, submit
from tests.processes import ROOT

TOKEN = "a-token-of-sixteen"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"metrics_token": Settings(_env_file=None, metrics_token=TOKEN).metrics_token})


def counts(client: FlaskClient) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")
    return {
        (sample.name.removeprefix("inferq_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer another-token-of", f"Basic {TOKEN}", "Bearer ü"])
def test_metrics_are_for_who_shows_the_token(client: FlaskClient, shown: str) -> None:
    problem(client.get("/metrics", headers={"Authorization": shown}), 401, "unauthorized")


def test_without_a_token_metrics_are_for_nobody(open_client: OpenClient, settings: Settings, api_key: str) -> None:
    client = open_client(settings.model_copy(update={"metrics_token": None}), api_key)
    said = problem(client.get("/metrics", headers={"Authorization": "Bearer "}), 403, "metrics-closed")
    assert "METRICS_TOKEN" in said["detail"]


def test_a_start_in_a_container_clears_what_the_one_before_it_has_left(tmp_path: Path) -> None:
    """Both had the same number, and the temporary files outlived the first."""
    script = (
        "import os, runpy, tempfile; from pathlib import Path;"
        "left = Path(tempfile.gettempdir(), f'inferq-metrics-{os.getpid()}-left'); left.mkdir();"
        "runpy.run_path('api/gunicorn_conf.py'); print(left.exists())"
    )
    env = environment_for(Settings(_env_file=None)) | {"TMPDIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_what_becomes_of_submits(client: FlaskClient, redis: Redis, settings: Settings) -> None:
    model, hand = settings.public_model, HandWorker(redis, settings)
    submit(client, prompt="one")
    submit(client, prompt="one")
    hand.finish(hand.claim())
    assert client.post("/v1/jobs", json={"prompt": "one"}).status_code == 200
    submit(client, prompt="other", priority="low")
    client.post("/v1/jobs", json={"prompt": "apart"}, headers={"Cache-Control": "no-cache", "Idempotency-Key": "k"})
    client.post("/v1/jobs", json={"prompt": "apart"}, headers={"Cache-Control": "no-cache", "Idempotency-Key": "k"})
    found = counts(client)
    decisions = ("cached", "coalesced", "queued", "replayed")
    admitted = {decision: found["admissions_total", decision, model, "normal"] for decision in decisions}
    assert admitted == {"cached": 1, "coalesced": 1, "queued": 2, "replayed": 1}
    assert found["admissions_total", "queued", model, "low"] == 1
    assert {name: found["cache_requests_total", name] for name in ("hit", "miss", "coalesced", "bypass")} == {
        "hit": 1, "miss": 2, "coalesced": 1, "bypass": 1,
    }  # fmt: skip
    assert found["cache_hit_age_seconds_count",] == 1
    assert found["http_requests_total", "POST", "/v1/jobs", "202"] == 5
    assert found["limiter_decisions_total", "allowed", "requests"] == 5
    assert found["limiter_decisions_total", "allowed", "polls"] == 1, "a repeat costs a poll"


def refused(client: FlaskClient, reason: str) -> None:
    assert counts(client)["refusals_total", reason] == 1


def test_why_submits_are_refused(open_client: OpenClient, settings: Settings, redis: Redis) -> None:
    keys = KeyRing(redis)
    client = open_client(settings.model_copy(update={"max_queue_depth": 2}), keys.create("acme"))
    tight = open_client(settings, keys.create("acme", limits=KeyLimits(requests=1, tokens=100)))
    assert client.post("/v1/jobs", json={"prompt": "hi", "surprise": 1}).status_code == 422
    refused(client, "invalid")
    assert client.post("/infer", json={"prompt": "hi"}, headers={"X-API-Key": "iq_no_suchkeyhere"}).status_code == 401
    refused(client, "unauthorized")
    assert client.post("/v1/jobs", json={"prompt": "hi", "model": "another"}).status_code == 404
    refused(client, "model")
    only = {"Cache-Control": "only-if-cached"}
    assert client.post("/v1/jobs", json={"prompt": "hi"}, headers=only).status_code == 504
    refused(client, "not_cached")
    assert client.post("/v1/jobs", json={"prompt": "hi", "webhook": {"url": "https://example.com"}}).status_code == 422
    refused(client, "webhook")
    for number in range(3):
        client.post("/v1/jobs", json={"prompt": f"number {number}"})
    refused(client, "runs_full")
    assert tight.post("/v1/jobs", json={"prompt": "hi", "max_tokens": 101}).status_code == 422
    refused(tight, "too_costly")
    assert tight.post("/v1/jobs", json={"prompt": "hi"}).status_code == 429
    refused(tight, "requests")
    assert counts(tight)["limiter_decisions_total", "limited", "requests"] == 1
    assert sum(value for name, value in counts(client).items() if name[0] == "refusals_total") == 6


def test_nothing_a_client_writes_becomes_a_label(client: FlaskClient) -> None:
    client.open("/v1/jobs/0198c3a4-aaaa-7bbb-8ccc-123456789abc", method="SURPRISE")
    client.get("/v1/jobs/0198c3a4-aaaa-7bbb-8ccc-123456789abc")
    client.get("/there-is-no-such-page")
    found = {labels for labels in counts(client) if labels[0] == "http_requests_total"}
    assert found == {
        ("http_requests_total", "other", "none", "405"),
        ("http_requests_total", "GET", "/v1/jobs/<job_id>", "404"),
        ("http_requests_total", "GET", "none", "404"),
    }


def test_who_asks_to_wait_is_not_timed(client: FlaskClient) -> None:
    client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Prefer": "wait=1"})
    found = counts(client)
    assert ("http_request_seconds_count", "POST", "/v1/jobs") not in found
    assert found["http_requests_total", "POST", "/v1/jobs", "202"] == 1
    assert found["http_waiting",] == 0


def test_why_a_key_s_limits_refuse(open_client: OpenClient, settings: Settings, redis: Redis) -> None:
    keys = KeyRing(redis)

    def client(**limits: int) -> FlaskClient:
        return open_client(settings, keys.create("acme", limits=KeyLimits(**limits)))

    for name, limits in (("tokens", {"tokens": 100}), ("jobs", {"jobs": 1})):
        limited = client(**limits)
        for seed in (1, 2):
            limited.post("/v1/jobs", json={"prompt": "hi", "max_tokens": 60, "seed": seed})
        refused(limited, name)
    polled = client(polls=1)
    for _ in range(2):
        polled.post("/v1/jobs", json={"wrong": 1})
    refused(polled, "polls")
    again = client()
    for prompt in ("one", "another"):
        again.post("/v1/jobs", json={"prompt": prompt}, headers={"Idempotency-Key": "k"})
    refused(again, "idempotency")


def test_a_job_that_would_start_too_late_is_refused_as_that(
    client: FlaskClient, redis: Redis, settings: Settings
) -> None:
    hand = HandWorker(redis, settings)
    hand.store.heartbeat([], {"state": "ready", "slots": "1", "running": "0"})
    submit(client, prompt="first", max_tokens=100)
    run = hand.claim()
    redis.hincrby(f"iq:run:{run.id}", "started_ms", -20_000)
    hand.finish(run)
    for number in range(3):
        submit(client, prompt=f"waits {number}", max_tokens=1000)
    answer = client.post("/v1/jobs", json={"prompt": "urgent", "deadline": {"start_within_s": 1}})
    problem(answer, 503, "temporary-reduced-capacity")
    refused(client, "late")


def test_a_store_that_is_away_is_the_reason(open_client: OpenClient) -> None:
    away = Settings(_env_file=None, redis_url="redis://127.0.0.1:1", cache_redis_url="", metrics_token=TOKEN)
    client = open_client(away, "iq_any_keyofenoughlength")
    assert client.post("/v1/jobs", json={"prompt": "hi"}).status_code == 503
    refused(client, "store")


def test_a_job_that_nobody_could_be_told_of_is_refused_as_that(
    open_client: OpenClient, settings: Settings, api_key: str
) -> None:
    client = open_client(settings.model_copy(update={"max_waiters": 1}), api_key)
    events = {"Accept": "text/event-stream"}
    held = client.post("/v1/jobs", json={"prompt": "first"}, headers=events)
    problem(client.post("/v1/jobs", json={"prompt": "second"}, headers=events), 503, "temporary-reduced-capacity")
    held.close()
    refused(client, "waiters")
