"""The HTTP contract on a real Redis, with the test playing the worker."""

import json
import threading
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from inferq.completion_cache import CachedCompletion
from inferq.credentials import KeyLimits, KeyRing
from inferq.ids import new_id
from inferq.run_store import ClaimedRun, Completion, RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from tests.conftest import OpenClient, make_settings
from tests.redis_server import RedisServer


class HandWorker:
    """A worker whose every step the test takes."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.store = RunStore(Scripts(redis), engine=settings.engine_queue, worker="hand", lease_ms=12_000)

    def claim(self) -> ClaimedRun:
        run, _ = self.store.claim(new_id())
        assert run
        return run

    def finish(self, run: ClaimedRun, text: str = "an answer") -> None:
        completion = Completion(text=text, finish_reason="stop", prompt_tokens=4, completion_tokens=3, ttft_ms=7)
        entry = CachedCompletion(
            text=text, finish_reason="stop", prompt_tokens=4, completion_tokens=3, model=run.model, stored_ms=0
        )
        assert self.store.complete(run, completion, cache_entry=entry if run.store else None, cache_ttl_s=60)[0]


@pytest.fixture
def worker(redis: Redis, settings: Settings) -> HandWorker:
    return HandWorker(redis, settings)


def submit(client: FlaskClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"prompt": "hi", **body})
    assert answer.status_code == 202, answer.text
    return answer.json


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(answer.json)
    assert (answer.json["status"], answer.json["code"]) == (status, code)
    return answer.json


def test_submit_answers_202_with_where_to_look(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", json={"prompt": "hi", "metadata": {"order": "7"}})
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["urls"]["self"] == f"/v1/jobs/{answer.json['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Cache-Status"] == "inferq; fwd=miss"
    assert (answer.json["status"], answer.json["terminal"]) == ("queued", False)
    assert answer.json["queue"]["position"] == 1
    read = client.get(answer.headers["Location"]).json
    assert read == answer.json
    assert read["metadata"] == {"order": "7"}


def test_a_finished_job_shows_output_usage_and_times(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client)
    worker.finish(worker.claim(), "hello")
    body = client.get(job["urls"]["self"]).json
    assert (body["status"], body["terminal"], body["attempt"]) == ("completed", True, 1)
    assert body["output"] == {"text": "hello", "finish_reason": "stop"}
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 3}
    assert body["metrics"]["total_s"] >= body["metrics"]["run_s"] >= 0
    assert body["expires_at"] > body["completed_at"] >= body["started_at"] >= body["created_at"]


def test_the_second_identical_request_is_answered_from_the_cache(client: FlaskClient, worker: HandWorker) -> None:
    submit(client)
    worker.finish(worker.claim(), "hello")
    answer = client.post("/v1/jobs", json={"prompt": "hi"})
    assert answer.status_code == 200
    assert (answer.json["id"], answer.json["urls"], answer.json["cache"]["status"]) == (None, {}, "hit")
    assert answer.json["output"]["text"] == "hello"
    assert answer.headers["Cache-Status"] == "inferq; hit"
    assert int(answer.headers["Age"]) >= 0
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "change", [{"max_tokens": 7}, {"seed": 1}, {"prompt": "hi "}, {"stop": ["x"]}, {"temperature": 0.5}]
)
def test_anything_that_may_change_the_output_misses(
    client: FlaskClient, worker: HandWorker, change: dict[str, Any]
) -> None:
    submit(client)
    worker.finish(worker.claim())
    assert client.post("/v1/jobs", json={"prompt": "hi", **change}).status_code == 202


def test_metadata_and_priority_do_not_change_the_output(client: FlaskClient, worker: HandWorker) -> None:
    submit(client)
    worker.finish(worker.claim())
    body = {"prompt": "hi", "metadata": {"a": "b"}, "priority": "low", "result_ttl_s": 9, "max_tokens": 256}
    assert client.post("/v1/jobs", json=body).status_code == 200


def test_no_cache_runs_again_and_stores(client: FlaskClient, worker: HandWorker) -> None:
    submit(client)
    worker.finish(worker.claim(), "old")
    answer = client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Cache-Control": "no-cache"})
    assert (answer.status_code, answer.json["cache"]["status"]) == (202, "bypass")
    worker.finish(worker.claim(), "new")
    assert client.post("/v1/jobs", json={"prompt": "hi"}).json["output"]["text"] == "new"


def test_no_store_leaves_nothing_in_the_cache(client: FlaskClient, worker: HandWorker) -> None:
    client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Cache-Control": "no-store"})
    worker.finish(worker.claim())
    problem(
        client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Cache-Control": "only-if-cached"}), 504, "not-cached"
    )


def test_an_etag_spares_the_body_until_something_changes(client: FlaskClient, worker: HandWorker) -> None:
    url = submit(client)["urls"]["self"]
    tag = client.get(url).headers["ETag"]
    unchanged = client.get(url, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.data, unchanged.headers["ETag"]) == (304, b"", tag)
    worker.claim()
    changed = client.get(url, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json["status"]) == (200, "in_progress")


def test_a_long_poll_is_answered_when_the_job_changes(client: FlaskClient, worker: HandWorker) -> None:
    url = submit(client)["urls"]["self"]
    tag = client.get(url).headers["ETag"]
    timer = threading.Timer(0.3, lambda: worker.finish(worker.claim()))
    timer.start()
    seen = []
    while not seen or not seen[-1]["terminal"]:
        answer = client.get(url, headers={"If-None-Match": tag, "Prefer": "wait=20"})
        assert answer.headers["Preference-Applied"] == "wait=20"
        tag = answer.headers["ETag"]
        seen.append(answer.json)
    timer.join()
    assert len(seen) <= 2
    assert seen[-1]["output"]["text"] == "an answer"


def test_a_submit_that_waits_is_answered_with_the_result(client: FlaskClient, worker: HandWorker) -> None:
    timer = threading.Timer(0.3, lambda: worker.finish(worker.claim(), "worth it"))
    timer.start()
    answer = client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Prefer": "respond-async, wait=20"})
    timer.join()
    assert (answer.status_code, answer.json["output"]["text"]) == (200, "worth it")


def test_waiters_above_the_bound_are_answered_at_once(
    open_client: OpenClient, redis_server: RedisServer, api_key: str
) -> None:
    client = open_client(make_settings(redis_server.url, max_waiters=1), api_key)
    url = submit(client)["urls"]["self"]
    with client.application.extensions["inferq"].waiters.watch(new_id()):
        assert client.get(url, headers={"Prefer": "wait=30"}).json["status"] == "queued"
        assert client.post("/v1/jobs", json={"prompt": "x"}, headers={"Prefer": "wait=60"}).status_code == 202


def test_cancel_of_a_queued_job_is_immediate_and_repeatable(client: FlaskClient) -> None:
    job = submit(client)
    for _ in range(2):
        answer = client.post(job["urls"]["cancel"])
        assert (answer.status_code, answer.json["status"]) == (200, "cancelled")


def test_cancel_of_a_running_job_waits_for_the_engine(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client)
    run = worker.claim()
    for _ in range(2):
        answer = client.post(job["urls"]["cancel"])
        assert (answer.status_code, answer.json["status"]) == (202, "cancelling")
    worker.store.release(run)
    assert client.get(job["urls"]["self"]).json["status"] == "cancelled"


def test_cancel_of_a_finished_job_is_a_conflict(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client)
    worker.finish(worker.claim())
    problem(client.post(job["urls"]["cancel"]), 409, "already-finished")


def test_erase_needs_a_finished_job_and_leaves_410(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client)
    problem(client.delete(job["urls"]["self"]), 409, "not-finished")
    worker.finish(worker.claim())
    assert client.delete(job["urls"]["self"]).status_code == 204
    problem(client.get(job["urls"]["self"]), 410, "gone")


def test_jobs_are_listed_in_pages(client: FlaskClient) -> None:
    ids = [submit(client)["id"] for _ in range(3)]
    first = client.get("/v1/jobs?limit=2").json
    assert [job["id"] for job in first["data"]] == sorted(ids, reverse=True)[:2]
    rest = client.get(f"/v1/jobs?limit=2&cursor={first['next_cursor']}").json
    assert [job["id"] for job in rest["data"]] == [min(ids)]
    assert rest["next_cursor"] is None
    assert client.get("/v1/jobs?status=completed").json["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "status=running", "cursor=../../etc"])
def test_a_wrong_query_names_its_field(client: FlaskClient, query: str) -> None:
    body = problem(client.get(f"/v1/jobs?{query}"), 422, "invalid-request")
    assert body["errors"][0]["field"] == query.split("=")[0]


def test_infer_is_the_simple_form(client: FlaskClient, worker: HandWorker) -> None:
    accepted = client.post("/infer", json={"prompt": "hi", "max_tokens": 9})
    assert accepted.status_code == 202
    assert client.get(accepted.json["status_url"]).json["id"] == accepted.json["job_id"]
    worker.finish(worker.claim(), "hello")
    hit = client.post("/infer", json={"prompt": "hi", "max_tokens": 9})
    assert hit.status_code == 200
    assert hit.json.pop("latency_ms") > 0
    assert hit.json["cached"] is True
    assert (hit.json["response"], hit.json["model"]) == ("hello", "demo-mistral")


def test_the_queue_is_shown_with_depth_and_age(client: FlaskClient) -> None:
    submit(client)
    body = client.get("/v1/queue").json
    assert body["engines"][0]["depth"] == 1
    assert body["running"] == 0


def test_health_and_readiness_are_different_questions(client: FlaskClient, worker: HandWorker) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/readyz").status_code == 503
    worker.store.heartbeat([], {"state": "ready", "slots": "4"})
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("state", ["warming", "draining", "dead"])
def test_readiness_says_in_which_state_a_worker_is(client: FlaskClient, worker: HandWorker, state: str) -> None:
    worker.store.heartbeat([], {"state": state, "slots": "0", "running": "3"})
    answer = client.get("/readyz")
    assert answer.status_code == 503
    (engine,) = answer.json["engines"]
    assert engine["workers"] == [{"state": state, "slots": 0, "running": 3}]


def test_rate_limit_headers_and_429_with_the_violated_policy(
    open_client: OpenClient, settings: Settings, redis: Redis
) -> None:
    client = open_client(settings, KeyRing(redis).create("acme", limits=KeyLimits(requests=2)))
    first = client.post("/v1/jobs", json={"prompt": "a"})
    assert first.headers["RateLimit-Policy"].startswith('"requests";q=2;w=60, "tokens";q=1000000;')
    assert first.headers["RateLimit"].startswith('"requests";r=1;t=')
    client.post("/v1/jobs", json={"prompt": "b"})
    refused = client.post("/v1/jobs", json={"prompt": "c"})
    body = problem(refused, 429, "quota-exceeded")
    assert body["violated-policies"] == ["requests"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "nonsense"},
        {"X-API-Key": "iq_abc_0123456789abcdef"},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer iq_abc_\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"},
    ],
)
@pytest.mark.parametrize("body", [b'{"prompt": "hi"}', b"{"])
def test_without_a_valid_key_nobody_gets_in(
    open_client: OpenClient, settings: Settings, headers: dict[str, str], body: bytes
) -> None:
    client = open_client(settings)
    answer = client.post("/v1/jobs", data=body, content_type="application/json", headers=headers)
    problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_both_ways_to_send_a_key_work(open_client: OpenClient, settings: Settings, api_key: str) -> None:
    client = open_client(settings)
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {api_key}"}).status_code == 200
    assert client.get("/v1/jobs", headers={"X-API-Key": api_key}).status_code == 200


BAD_FIELDS: list[tuple[str, Any]] = [
    ("prompt", ""),
    ("prompt", 7),
    ("prompt", None),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 10**9),
    ("max_tokens", 1.5),
    ("max_tokens", "64"),
    ("max_tokens", True),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("temperature", -0.1),
    ("top_p", 0),
    ("stop", ["x"] * 10_000),
    ("stop", [""]),
    ("stop", "x"),
    ("seed", -1),
    ("priority", "urgent"),
    ("metadata", {"k": 1}),
    ("deadline", {"total_s": 0}),
    ("unknown", 1),
    ("response_format", {"type": "xml"}),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_wrong_field_is_named(client: FlaskClient, field: str, value: Any) -> None:
    answer = client.post("/v1/jobs", json={"prompt": "hi", field: value})
    body = problem(answer, 422, "invalid-request")
    # A missing prompt is a fault of the whole body: the sentence names the field.
    named = [error["field"].split(".")[0] for error in body["errors"]]
    assert field in named or field in body["detail"]
    assert len(answer.data) < 10_000


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"prompt": "\\ud800"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b'{"prompt": "hi"}', "text/plain", 415),
        (b"prompt=hi", "application/x-www-form-urlencoded", 415),
        (b'{"prompt": "' + b"x" * 1_100_000 + b'"}', "application/json", 413),
    ],
)
def test_a_body_that_is_no_request_is_refused(client: FlaskClient, data: bytes, content_type: str, status: int) -> None:
    answer = client.post("/v1/jobs", data=data, content_type=content_type)
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"


def test_nul_bytes_and_every_script_are_text_like_any_other(client: FlaskClient, worker: HandWorker) -> None:
    prompt = "a\x00b 天気 🙂 \u202e"
    submit(client, prompt=prompt)
    assert json.loads(worker.claim().request_json)["prompt"] == prompt


def test_another_tenant_s_job_is_not_found(client: FlaskClient, redis: Redis) -> None:
    url = submit(client)["urls"]["self"]
    stranger = {"X-API-Key": KeyRing(redis).create("other")}
    problem(client.get(url, headers=stranger), 404, "not-found")
    problem(client.post(f"{url}/cancel", headers=stranger), 404, "not-found")
    problem(client.delete(url, headers=stranger), 404, "not-found")


@pytest.mark.parametrize("path", ["/nowhere", "/v1/jobs/not-an-id", f"/v1/jobs/{new_id()}"])
def test_what_does_not_exist_is_404(client: FlaskClient, path: str) -> None:
    problem(client.get(path), 404, "not-found")


def test_a_wrong_method_says_which_are_allowed(client: FlaskClient) -> None:
    answer = client.put("/v1/jobs")
    problem(answer, 405, "method-not-allowed")
    assert "POST" in answer.headers["Allow"]


def test_every_answer_carries_a_request_id(client: FlaskClient) -> None:
    assert client.get("/health", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    made = client.get("/nowhere", headers={"X-Request-ID": "not one\tof ours"})
    assert made.headers["X-Request-ID"] == made.json["request_id"]


def test_when_redis_is_down_submits_are_503_and_work_again_when_it_is_back(
    open_client: OpenClient, own_redis_server: RedisServer
) -> None:
    settings = make_settings(own_redis_server.url, redis_timeout=0.5)
    with own_redis_server.client() as redis:
        key = KeyRing(redis).create("acme")
    client = open_client(settings, key)
    submit(client)
    own_redis_server.kill()
    for answer in (client.post("/v1/jobs", json={"prompt": "hi"}), client.get("/v1/jobs")):
        problem(answer, 503, "store-unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert client.get("/health").status_code == 503
    own_redis_server.start()
    with own_redis_server.client() as redis:
        KeyRing(redis).store(key, "acme")
    submit(client)
    own_redis_server.pause()
    problem(client.post("/v1/jobs", json={"prompt": "hi"}), 503, "store-unavailable")
    own_redis_server.resume()
    submit(client)


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


@pytest.mark.parametrize("number", ["1e999", "-1e999", str(10**30)])
def test_a_schema_with_numbers_no_engine_can_read_is_refused(client: FlaskClient, number: str) -> None:
    schema = f'{{"type": "json_schema", "json_schema": {{"type": "integer", "maximum": {number}}}}}'
    body = f'{{"prompt": "hi", "response_format": {schema}}}'
    refused = client.post("/v1/jobs", data=body, content_type="application/json")
    assert problem(refused, 422, "invalid-request")["errors"][0]["field"] == "response_format.json_schema"


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


def test_usage_is_the_tenant_s_own(client: FlaskClient, worker: HandWorker) -> None:
    submit(client)
    worker.finish(worker.claim())
    usage = client.get("/v1/usage").json
    assert (usage["object"], usage["tenant"], usage["weight"], usage["in_flight"]) == ("usage", "acme", 1.0, 0)
    (day,) = usage["days"].values()
    assert day == {"submitted": 1, "completed": 1, "tokens": 7, "prompt_tokens": 4, "completion_tokens": 3}
    for days in ("0", "41", "x", "-1", "0000402000000", "\u0663"):
        assert problem(client.get(f"/v1/usage?days={days}"), 422, "invalid-request")["errors"][0]["field"] == "days"
        assert problem(client.get(f"/v1/jobs?limit={days}000"), 422, "invalid-request")["errors"][0]["field"] == "limit"
