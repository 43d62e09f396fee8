"""Admission as callers see it: repeats, keys of repeats, sharing, refusals."""

import threading

import pytest
from flask.testing import FlaskClient
from redis import Redis

from inferq.completion_cache import CachedCompletion
from inferq.credentials import KeyLimits, KeyRing
from inferq.ids import new_id
from inferq.keys import key
from inferq.run_store import RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from tests.conftest import OpenClient, make_settings
from tests.hand_worker import HandWorker, problem, submit
from tests.redis_server import RedisServer


def test_an_idempotency_key_makes_a_retry_the_same_job(client: FlaskClient, worker: HandWorker) -> None:
    headers = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
    first = client.post("/v1/jobs", json={"prompt": "hi"}, headers=headers)
    again = client.post(
        "/v1/jobs", json={"prompt": "hi"}, headers={"Idempotency-Key": headers["Idempotency-Key"][1:-1]}
    )
    assert (first.status_code, again.status_code, again.json["id"]) == (202, 202, first.json["id"])
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["RateLimit-Policy"].startswith('"polls"')
    worker.finish(worker.claim(), "once")
    done = client.post("/v1/jobs", json={"prompt": "hi"}, headers=headers)
    assert (done.status_code, done.json["output"]["text"]) == (200, "once")
    other = client.post("/v1/jobs", json={"prompt": "other"}, headers=headers)
    body = problem(other, 422, "idempotency-key-reused")
    assert body["errors"][0]["field"] == "Idempotency-Key"
    for wrong in ("", "x" * 256, "a\u00e9b", "a b"):
        problem(
            client.post(
                "/v1/jobs", json={"prompt": "hi"}, headers={"Idempotency-Key": wrong.encode().decode("latin-1")}
            ),
            400,
            "invalid-idempotency-key",
        )


def test_a_repeat_may_write_the_same_body_in_another_order(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", json={"prompt": "hi", "metadata": {"a": "1", "b": "2"}}, headers=headers)
    body = b'{"metadata": {"b": "2", "a": "1"},  "prompt": "hi"}'
    again = client.post("/v1/jobs", data=body, content_type="application/json", headers=headers)
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])


def test_hits_from_a_cache_server_of_its_own_are_counted(
    redis: Redis, settings: Settings, api_key: str, open_client: OpenClient, own_redis_server: RedisServer
) -> None:
    client = open_client(settings.model_copy(update={"cache_redis_url": own_redis_server.url}), api_key)
    worker = HandWorker(redis, settings)
    submit(client)
    run = worker.claim()
    worker.finish(run, "hello")
    with own_redis_server.client() as cache:
        cache.set(f"iq:cache:{run.scope}:{run.fingerprint}", redis.get(f"iq:cache:{run.scope}:{run.fingerprint}") or "")
    for _ in range(2):
        client.post("/v1/jobs", json={"prompt": "hi"}).close()
    (day,) = client.get("/v1/usage").json["days"].values()
    assert (day["submitted"], day["hits"]) == (1, 2)


def test_a_repeat_may_wait_for_the_job_it_made_before(client: FlaskClient, worker: HandWorker) -> None:
    headers = {"Idempotency-Key": "k", "Prefer": "wait=20"}
    first = client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Idempotency-Key": "k"}).json["id"]
    run = worker.claim()
    threading.Timer(0.3, lambda: worker.finish(run, "done")).start()
    again = client.post("/v1/jobs", json={"prompt": "hi"}, headers=headers)
    assert (again.status_code, again.json["id"], again.json["output"]["text"]) == (200, first, "done")


@pytest.mark.parametrize("apart", [False, True])
def test_a_cached_answer_to_a_keyed_request_is_a_job(
    redis: Redis, settings: Settings, api_key: str, open_client: OpenClient, own_redis_server: RedisServer, apart: bool
) -> None:
    cache = own_redis_server.url if apart else settings.redis_url
    client = open_client(settings.model_copy(update={"cache_redis_url": cache}), api_key)
    worker = HandWorker(redis, settings)
    submit(client)
    run = worker.claim()
    worker.finish(run, "hello")
    if apart:
        name = f"iq:cache:{run.scope}:{run.fingerprint}"
        with own_redis_server.client() as other:
            other.set(name, redis.get(name) or "")
        redis.delete(name)
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", json={"prompt": "hi"}, headers=headers)
    assert (first.status_code, first.headers["Cache-Status"], first.json["cache"]["status"]) == (
        200,
        "inferq; hit",
        "hit",
    )
    assert int(first.headers["Age"]) == first.json["cache"]["age_s"] > 0
    again = client.post("/v1/jobs", json={"prompt": "hi"}, headers=headers)
    assert (again.json["id"], again.headers["Idempotency-Replayed"]) == (first.json["id"], "true")
    assert client.get(first.headers["Location"]).json["output"]["text"] == "hello"


def test_identical_requests_in_flight_are_coalesced(client: FlaskClient, worker: HandWorker) -> None:
    first = submit(client)
    second = client.post("/v1/jobs", json={"prompt": "hi"})
    assert second.json["cache"]["status"] == "coalesced"
    assert second.headers["Cache-Status"] == "inferq; fwd=miss; collapsed"
    worker.finish(worker.claim(), "both")
    for job in (first, second.json):
        assert client.get(job["urls"]["self"]).json["output"]["text"] == "both"


def test_refusals_name_the_limit_and_when_to_come_back(
    open_client: OpenClient, settings: Settings, redis: Redis
) -> None:
    tokens = open_client(settings, KeyRing(redis).create("acme", limits=KeyLimits(tokens=300)))
    submit(tokens)
    refused = tokens.post("/v1/jobs", json={"prompt": "more"})
    assert problem(refused, 429, "quota-exceeded")["violated-policies"] == ["tokens"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    body = problem(tokens.post("/v1/jobs", json={"prompt": "much", "max_tokens": 1000}), 422, "invalid-request")
    assert body["errors"][0]["field"] == "max_tokens"
    jobs = open_client(settings, KeyRing(redis).create("acme", limits=KeyLimits(jobs=1)))
    submit(jobs, prompt="one")
    refused = jobs.post("/v1/jobs", json={"prompt": "two"})
    assert problem(refused, 429, "quota-exceeded")["violated-policies"] == ["jobs"]
    full = open_client(settings.model_copy(update={"max_queue_depth": 2}), KeyRing(redis).create("acme"))
    refused = full.post("/v1/jobs", json={"prompt": "three"})
    problem(refused, 503, "temporary-reduced-capacity")
    assert int(refused.headers["Retry-After"]) >= 1


def test_a_job_that_would_start_too_late_is_refused(client: FlaskClient, worker: HandWorker) -> None:
    worker.store.heartbeat([], {"state": "ready", "slots": "1"})
    submit(client, prompt="first")
    run = worker.claim()
    worker.store._scripts._redis.hset(f"iq:run:{run.id}", "started_ms", "0")  # as if it had taken ages
    worker.finish(run)
    for number in range(3):
        submit(client, prompt=f"waiting {number}")
    refused = client.post("/v1/jobs", json={"prompt": "urgent", "deadline": {"start_within_s": 10}})
    problem(refused, 503, "temporary-reduced-capacity")
    assert int(refused.headers["Retry-After"]) == 600, "ages, but nobody is told to wait for longer than this"
    waiting = client.get("/v1/jobs?status=queued").json["data"][0]
    answer = client.get(waiting["urls"]["self"])
    assert answer.json["queue"]["eta_s"] > 60
    assert answer.headers["Retry-After"] == "60"
    (engine,) = client.get("/v1/queue").json["engines"]
    assert (engine["waiting"], engine["depth"]) == ({"high": 0, "normal": 3, "low": 0}, 3)
    assert engine["predicted_wait_s"] > 60


@pytest.mark.parametrize(
    ("deadline", "named"),
    [
        ({"total_s": 10}, "total_s"),
        ({"start_within_s": 40, "total_s": 10}, "total_s"),
        ({"start_within_s": 5, "total_s": 50}, "start_within_s"),
    ],
)
def test_the_deadline_that_would_be_missed_is_named(
    client: FlaskClient, worker: HandWorker, deadline: dict[str, int], named: str
) -> None:
    worker.store.heartbeat([], {"state": "ready", "slots": "1"})
    submit(client, prompt="first")
    run = worker.claim()
    worker.store._scripts._redis.hincrby(f"iq:run:{run.id}", "started_ms", -60_000)  # it took a minute
    worker.finish(run)
    submit(client, prompt="waits")
    body = problem(
        client.post("/v1/jobs", json={"prompt": "x", "deadline": deadline}), 503, "temporary-reduced-capacity"
    )
    assert f"deadline.{named} " in body["detail"]


def test_a_cache_entry_nobody_can_read_is_none(client: FlaskClient, worker: HandWorker, redis: Redis) -> None:
    submit(client)
    run = worker.claim()
    worker.finish(run)
    for text in ("{", '{"text": "of another form"}'):
        redis.set(f"iq:cache:{run.scope}:{run.fingerprint}", text)
        answer = client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Idempotency-Key": text.encode().hex()[:8]})
        assert answer.status_code == 202, answer.text
        answer = client.post("/v1/jobs", json={"prompt": "hi"})
        assert (answer.status_code, answer.json["cache"]["status"]) == (202, "coalesced")
        worker.finish(worker.claim())


def test_nothing_is_reserved_beyond_the_context_of_the_model(
    client: FlaskClient, redis: Redis, settings: Settings
) -> None:
    job = submit(client, prompt="word " * 100_000, max_tokens=100)["id"]
    assert redis.hget(key("run", job), "cost") == str(settings.max_model_len)


def test_completions_on_their_own_redis_are_found_and_missed_without_harm(
    redis_server: RedisServer, own_redis_server: RedisServer, api_key: str, open_client: OpenClient
) -> None:
    settings = make_settings(redis_server.url)
    settings = settings.model_copy(update={"cache_redis_url": own_redis_server.url, "redis_timeout": 0.5})
    client = open_client(settings, api_key)
    submit(client)
    entry = CachedCompletion(
        text="from afar", finish_reason="stop", prompt_tokens=1, completion_tokens=1, model="m", stored_ms=0
    )
    with redis_server.client() as jobs, own_redis_server.client() as cache:
        run, _ = RunStore(Scripts(jobs), engine=settings.engine_queue, worker="w", lease_ms=9000).claim(new_id())
        cache.set(f"iq:cache:{run.scope}:{run.fingerprint}", entry.to_json())
    assert client.post("/v1/jobs", json={"prompt": "hi"}).json["output"]["text"] == "from afar"
    own_redis_server.kill()
    submit(client)
