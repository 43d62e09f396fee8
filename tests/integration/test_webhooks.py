"""Webhooks as clients of the API see them; the test is the worker, and starts a courier where one is needed."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from redis import Redis

from api.admission import _repeatable
from api.bootstrap import TENANT, store_bootstrap_key
from api.schemas import JobRequest, Webhook
from inferq.credentials import KeyRing
from inferq.keys import key
from inferq.outbox import Outbox, Outcome
from inferq.scripts import Scripts
from inferq.settings import Settings
from inferq.webhook_secrets import new_secret
from inferq.webhooks import AddressRules
from tests.conftest import OpenClient
from tests.hand_worker import HandWorker, problem, submit
from tests.processes import until
from tests.receiver import Received, Receiver, receiving
from workers.courier import Courier, result_of
from workers.metrics import SENT


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"webhook_allowed_hosts": "127.0.0.1", "webhook_timeout": 2.0, "webhook_retries": "0.05,0.05"}
    )


@pytest.fixture
def secret(client: FlaskClient) -> str:
    answer = client.post("/v1/webhooks/secrets/rotate", json={})
    assert answer.status_code == 200, answer.text
    assert answer.json["old_secrets_end_at"] is None
    secret: str = answer.json["secret"]
    return secret


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (Outcome(good=True, ms=1, status=204), "2xx"),
        (Outcome(good=False, ms=1, status=302), "3xx"),
        (Outcome(good=False, ms=1, status=410, gone=True), "4xx"),
        (Outcome(good=False, ms=1, status=503, down=True), "5xx"),
        (Outcome(good=False, ms=1, down=True, error="No complete answer within 1 s."), "no_answer"),
        (Outcome(good=False, ms=1, unsent=True, error="Not sent."), "refused"),
    ],
)
def test_how_an_attempt_went_in_a_word(outcome: Outcome, result: str) -> None:
    assert result_of(outcome) == result
    assert result in SENT


@contextlib.contextmanager
def a_courier(redis: Redis, settings: Settings, sent: list[str] | None = None) -> Iterator[None]:
    """A keeper's courier, on shift until the end; ``sent`` gets the results of its attempts."""
    outbox = Outbox(Scripts(redis), timeout_s=settings.webhook_timeout, waits_s=settings.webhook_waits_s)
    results = [] if sent is None else sent
    courier = Courier(
        outbox,
        AddressRules(settings),
        timeout_s=settings.webhook_timeout,
        room=8,
        sent=lambda result, _seconds: results.append(result),
    )
    shift = threading.Thread(target=courier.shift, args=(60.0,))
    shift.start()
    try:
        yield
    finally:
        courier.stop()
        shift.join()
        courier.close()


def deliveries(client: FlaskClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.get(job["urls"]["deliveries"])
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json["data"]
    return data


def test_a_job_s_end_is_told_and_logged(
    client: FlaskClient, worker: HandWorker, redis: Redis, settings: Settings, secret: str, receiver: Receiver
) -> None:
    job = submit(client, webhook={"url": receiver.url, "include_output": True})
    assert deliveries(client, job) == []
    worker.finish(worker.claim(), "the answer")
    sent: list[str] = []
    with a_courier(redis, settings, sent):
        until(lambda: deliveries(client, job)[0]["status"] == "delivered")
    (told,) = receiver.got
    payload = told.verified(secret)
    assert payload["type"] == "job.completed"
    read = client.get(job["urls"]["self"]).json
    for name in ("id", "status", "model", "attempt", "created_at", "started_at", "completed_at", "usage", "output"):
        assert payload["data"][name] == read[name], name
    (delivery,) = deliveries(client, job)
    assert delivery["id"] == told.headers["webhook-id"] == f"msg_{job['id']}_completed"
    assert (delivery["event"], delivery["url"], delivery["next_attempt_at"]) == ("job.completed", receiver.url, None)
    (attempt,) = delivery["attempts"]
    assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, 204, None)
    assert attempt["duration_s"] >= 0
    assert attempt["at"]
    again = client.post(delivery["urls"]["redeliver"])
    assert (again.status_code, again.json["status"]) == (202, "pending")
    with a_courier(redis, settings):
        until(lambda: len(receiver.got) == 2)
        until(lambda: deliveries(client, job)[0]["status"] == "delivered")
    assert {one.headers["webhook-id"] for one in receiver.got} == {delivery["id"]}
    assert client.delete(job["urls"]["self"]).status_code == 204
    problem(client.get(job["urls"]["deliveries"]), 410, "gone")
    assert sent == ["2xx"]


def test_an_error_reads_the_same_in_the_payload_and_in_the_job(
    client: FlaskClient, worker: HandWorker, redis: Redis, secret: str, receiver: Receiver
) -> None:
    failed = submit(client, prompt="fails", webhook={"url": receiver.url})
    worker.store.fail(worker.claim(), code="prompt_too_long", message="too long", retryable=False)
    expired = submit(client, prompt="late", webhook={"url": receiver.url}, deadline={"start_within_s": 0.001})
    until(lambda: Scripts(redis)("expire", 10), what="its deadline has passed")
    for job, event in ((failed, "failed"), (expired, "expired")):
        read = client.get(job["urls"]["self"]).json
        body = json.loads(redis.hget(key("delivery", f"msg_{job['id']}_{event}"), "body") or "")
        assert body["data"]["error"] == read["error"]
        assert body["data"]["status"] == read["status"] == event


def test_an_attempt_that_fails_is_logged_in_words_and_the_last_makes_a_dead_letter(
    client: FlaskClient, worker: HandWorker, redis: Redis, settings: Settings, secret: str, receiver: Receiver
) -> None:
    receiver.behaviour = lambda _, __: 500
    job = submit(client, webhook={"url": receiver.url})
    worker.finish(worker.claim())
    with a_courier(redis, settings):
        until(lambda: deliveries(client, job)[0]["status"] == "dead")
    (delivery,) = deliveries(client, job)
    assert delivery["reason"] == "No attempt succeeded."
    assert [one["error"] for one in delivery["attempts"]] == ["The receiver answered 500; only 2xx is success."] * 3
    assert len(receiver.got) == 3


def test_a_test_event_reports_what_happened(
    client: FlaskClient, redis: Redis, settings: Settings, secret: str, receiver: Receiver
) -> None:
    with a_courier(redis, settings):
        told = client.post("/v1/webhooks/test", json={"url": receiver.url})
        assert (told.status_code, told.json["status"], told.json["attempts"][0]["status_code"]) == (
            200,
            "delivered",
            204,
        )
        assert receiver.got[0].verified(secret) == json.loads(receiver.got[0].body)
        assert json.loads(receiver.got[0].body)["type"] == "ping"
        receiver.behaviour = lambda _, __: 404
        told = client.post("/v1/webhooks/test", json={"url": receiver.url})
    assert (told.status_code, told.json["status"]) == (200, "dead")
    assert "404" in told.json["attempts"][0]["error"]


def test_without_a_keeper_a_test_event_waits(
    open_client: OpenClient, api_key: str, redis: Redis, settings: Settings, secret: str, receiver: Receiver
) -> None:
    client = open_client(settings.model_copy(update={"webhook_timeout": 0.01, "max_waiters": 1}), api_key)
    with client.application.extensions["inferq"].waiters.watch("someone else"):
        told = client.post("/v1/webhooks/test", json={"url": receiver.url})
    assert (told.status_code, told.json["status"], told.json["attempts"]) == (202, "pending", [])
    assert client.get(told.json["urls"]["self"]).status_code == 202
    with a_courier(redis, settings):
        until(lambda: client.get(told.json["urls"]["self"]).status_code == 200)
    assert client.get(told.json["urls"]["self"]).json["status"] == "delivered"
    problem(client.get("/v1/webhooks/test/msg_nonsense"), 404, "not-found")


def test_the_bootstrap_key_s_tenant_has_a_secret_from_the_start_until_it_rotates_it(
    redis: Redis, settings: Settings, open_client: OpenClient
) -> None:
    key_given, first = "iq_dev_0123456789abcdef", new_secret()
    settings = settings.model_copy(
        update={"bootstrap_api_key": SecretStr(key_given), "bootstrap_webhook_secret": SecretStr(first)}
    )

    def start() -> None:
        thread = store_bootstrap_key(KeyRing(redis), settings)
        assert thread
        thread.join()

    start()
    assert redis.zrange(key("webhook_secrets", TENANT), 0, -1) == [first]
    rotated = open_client(settings, key_given).post("/v1/webhooks/secrets/rotate", json={"keep_old_s": 0})
    start()
    assert redis.zrange(key("webhook_secrets", TENANT), 0, -1) == [rotated.json["secret"]]


def test_a_secret_is_rotated_and_the_old_one_signs_on(
    client: FlaskClient, worker: HandWorker, redis: Redis, settings: Settings, secret: str, receiver: Receiver
) -> None:
    answer = client.post("/v1/webhooks/secrets/rotate", json={"keep_old_s": 3600})
    assert answer.json["old_secrets_end_at"]
    submit(client, webhook={"url": receiver.url})
    worker.finish(worker.claim())
    with a_courier(redis, settings):
        until(lambda: receiver.got)
    for each in (secret, answer.json["secret"]):
        assert receiver.got[0].verified(each)
    problem(client.post("/v1/webhooks/secrets/rotate", json={"keep_old_s": -1}), 422, "invalid-request")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://hooks.example.com/", "must begin with https://"),
        ("https://hooks.example.com:8443/", "must use port 443"),
        ("https://10.0.0.1/", "must name a host on the public internet, not 10.0.0.1"),
        ("https://0x0a.1/", "must name a host on the public internet, not 10.0.0.1"),
        ("https://localhost/", "must name a host on the public internet, not localhost"),
        ("https://me:secret@hooks.example.com/", "must not contain a user name or a password"),
        ("https://hooks.example.com/#top", "must not have a fragment"),
        ("https://hooks.example.com/a b", "must not contain spaces"),
        ("mailto:me@example.com", "is not an http or https address"),
        ("nonsense", "is not an http or https address"),
    ],
)
def test_an_address_that_cannot_be_is_refused_when_the_job_is_submitted(
    client: FlaskClient, redis: Redis, secret: str, url: str, says: str
) -> None:
    before = redis.dbsize()
    body = problem(client.post("/v1/jobs", json={"prompt": "hi", "webhook": {"url": url}}), 422, "invalid-request")
    assert body["errors"][0]["field"] == "webhook.url"
    assert says in body["errors"][0]["message"]
    assert says in body["detail"]
    body = problem(client.post("/v1/webhooks/test", json={"url": url}), 422, "invalid-request")
    assert body["errors"][0]["field"] == "url"
    assert redis.dbsize() == before


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ({}, "webhook.url"),
        ({"url": ""}, "webhook.url"),
        ({"url": "https://a.example.com/" + "x" * 2000}, "webhook.url"),
        ({"url": "https://a.example.com", "events": []}, "webhook.events"),
        ({"url": "https://a.example.com", "events": ["done"]}, "webhook.events.0"),
        ({"url": "https://a.example.com", "secret": "x"}, "webhook.secret"),
        ({"url": "https://a.example.com", "include_output": "yes"}, "webhook.include_output"),
        ("https://a.example.com", "webhook"),
    ],
)
def test_a_wrong_webhook_names_its_field(client: FlaskClient, secret: str, webhook: Any, field: str) -> None:
    body = problem(client.post("/v1/jobs", json={"prompt": "hi", "webhook": webhook}), 422, "invalid-request")
    assert body["errors"][0]["field"] == field


def test_without_a_secret_the_caller_is_told_how_to_get_one(client: FlaskClient, receiver: Receiver) -> None:
    answer = client.post("/v1/jobs", json={"prompt": "hi", "webhook": {"url": receiver.url}})
    assert "POST /v1/webhooks/secrets/rotate" in problem(answer, 422, "no-webhook-secret")["detail"]
    problem(client.post("/v1/webhooks/test", json={"url": receiver.url}), 422, "no-webhook-secret")


def test_a_webhook_does_not_change_what_is_cached_or_shared(
    client: FlaskClient, worker: HandWorker, secret: str, receiver: Receiver
) -> None:
    plain = submit(client)
    shared = submit(client, webhook={"url": receiver.url})
    assert shared["cache"]["status"] == "coalesced"
    assert "deliveries" not in plain["urls"]
    worker.finish(worker.claim())
    hit = client.post("/v1/jobs", json={"prompt": "hi", "webhook": {"url": receiver.url}})
    assert (hit.status_code, hit.json["cache"]["status"]) == (200, "hit")
    assert hit.json["id"], "a job, because its receiver will be told of it"
    assert len(deliveries(client, hit.json)) == 1


def test_a_hit_on_a_cache_server_of_its_own_is_told_too(
    open_client: OpenClient,
    settings: Settings,
    api_key: str,
    worker: HandWorker,
    own_redis_server: Any,
    redis: Redis,
    secret: str,
    receiver: Receiver,
) -> None:
    client = open_client(settings.model_copy(update={"cache_redis_url": own_redis_server.url}), api_key)
    submit(client)
    run = worker.claim()
    worker.finish(run)
    with own_redis_server.client() as cache:
        name = key("cache", run.scope, run.fingerprint)
        cache.set(name, redis.get(name) or "")
    redis.delete(name)
    hit = client.post("/v1/jobs", json={"prompt": "hi", "webhook": {"url": receiver.url}})
    assert (hit.status_code, hit.json["cache"]["status"]) == (200, "hit")
    assert len(deliveries(client, hit.json)) == 1


def test_another_tenant_sees_nothing_of_a_delivery(
    client: FlaskClient, worker: HandWorker, redis: Redis, open_client: OpenClient, settings: Settings,
    secret: str, receiver: Receiver,
) -> None:  # fmt: skip
    job = submit(client, webhook={"url": receiver.url})
    worker.finish(worker.claim())
    (delivery,) = deliveries(client, job)
    stranger = open_client(settings, KeyRing(redis).create("other"))
    problem(stranger.get(job["urls"]["deliveries"]), 404, "not-found")
    problem(stranger.post(delivery["urls"]["redeliver"]), 404, "not-found")
    problem(client.post(f"{job['urls']['deliveries']}/msg_x/redeliver"), 404, "not-found")
    problem(client.get("/v1/jobs/nonsense/deliveries"), 404, "not-found")


def test_what_is_under_way_is_seen_through_though_the_shift_is_over(
    client: FlaskClient, worker: HandWorker, redis: Redis, settings: Settings, secret: str, receiver: Receiver
) -> None:
    def slow(_: Received, __: BaseHTTPRequestHandler) -> int:
        time.sleep(1.0)
        return 204

    receiver.behaviour = slow
    job = submit(client, webhook={"url": receiver.url})
    worker.finish(worker.claim())
    outbox = Outbox(Scripts(redis), timeout_s=settings.webhook_timeout, waits_s=settings.webhook_waits_s)
    courier = Courier(outbox, AddressRules(settings), timeout_s=settings.webhook_timeout, room=8)
    courier.shift(0.3)
    until(lambda: receiver.got)
    courier.stop()
    courier.close()
    (delivery,) = deliveries(client, job)
    assert (delivery["status"], delivery["attempts"][0]["status_code"]) == ("delivered", 204)


def test_a_shift_lingers_from_the_end_of_its_last_attempt(
    client: FlaskClient, worker: HandWorker, redis: Redis, settings: Settings, secret: str, receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def slow(_: Received, __: BaseHTTPRequestHandler) -> int:
        time.sleep(0.7)
        return 500 if len(receiver.got) == 1 else 204

    monkeypatch.setattr("workers.courier.LINGER_S", 0.5)
    receiver.behaviour = slow
    job = submit(client, webhook={"url": receiver.url})
    worker.finish(worker.claim())
    with a_courier(redis, settings):
        until(lambda: deliveries(client, job)[0]["status"] == "delivered")
    assert len(receiver.got) == 2, "tried again within the same shift"


def test_an_attempt_that_breaks_in_our_own_hands_is_a_failed_one(
    client: FlaskClient, worker: HandWorker, redis: Redis, settings: Settings, secret: str, receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def broken(_: object) -> dict[str, str]:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr("workers.sender.signed_headers", broken)
    job = submit(client, webhook={"url": receiver.url})
    worker.finish(worker.claim())
    with a_courier(redis, settings):
        until(lambda: deliveries(client, job)[0]["status"] == "dead")
    assert {one["error"] for one in deliveries(client, job)[0]["attempts"]} == {
        "The attempt broke off: an error of ours, which is logged."
    }


def test_a_request_without_a_webhook_repeats_one_from_before_there_were_any() -> None:
    assert "webhook" not in _repeatable(JobRequest(prompt="hi"))
    webhook = Webhook(url="https://a.example.com/")
    assert _repeatable(JobRequest(prompt="hi", webhook=webhook))["webhook"]["url"] == webhook.url
