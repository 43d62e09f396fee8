"""The HTTP contract on a real Redis, with the test playing the worker."""

import json
import threading
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from inferq.credentials import KeyLimits, KeyRing
from inferq.ids import new_id
from inferq.settings import Settings
from tests.conftest import OpenClient, make_settings
from tests.hand_worker import HandWorker, problem, submit
from tests.redis_server import RedisServer


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
    timer = threading.Thread(target=lambda: worker.finish(worker.claim_when_there_is_one(), "worth it"))
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


@pytest.mark.parametrize("path", ["/nowhere", "/v1/jobs/not-an-id", "/v1/jobs/01a2108b-6ce9-7cb9-8e1d-253249fb28d0"])
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


@pytest.mark.parametrize("number", ["1e999", "-1e999", str(10**30)])
def test_a_schema_with_numbers_no_engine_can_read_is_refused(client: FlaskClient, number: str) -> None:
    schema = f'{{"type": "json_schema", "json_schema": {{"type": "integer", "maximum": {number}}}}}'
    body = f'{{"prompt": "hi", "response_format": {schema}}}'
    refused = client.post("/v1/jobs", data=body, content_type="application/json")
    assert problem(refused, 422, "invalid-request")["errors"][0]["field"] == "response_format.json_schema"


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
