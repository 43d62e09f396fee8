"""Whatever a client sends: a job, an answer, or a problem that says what is wrong; never a 500."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferq.credentials import KeyLimits, KeyRing
from inferq.ids import new_id
from tests.conftest import api_client, make_settings
from tests.redis_server import RedisServer

GENERATED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=30)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
prompts = st.text(min_size=1, max_size=60)
#: Bodies that are right, field by field.
right = st.fixed_dictionaries(
    {"prompt": prompts},
    optional={
        "max_tokens": st.integers(1, 1_000_000),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.01, 1),
        "top_k": st.integers(0, 100),
        "seed": st.integers(0, 2**63 - 1),
        "stop": st.lists(st.text(min_size=1, max_size=5), max_size=16),
        "presence_penalty": st.floats(-2, 2),
        "priority": st.sampled_from(["low", "normal", "high"]),
        "metadata": st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4),
        "deadline": st.fixed_dictionaries(
            {}, optional={"start_within_s": st.floats(1, 1000), "total_s": st.floats(1, 1000)}
        ),
        "result_ttl_s": st.integers(1, 1000),
    },
)
#: Right ones with anything put over some fields, and plain nonsense.
fields = st.sampled_from(
    ["prompt", "messages", "max_tokens", "temperature", "stop", "seed", "response_format", "metadata", "deadline", "x"]
)
bodies = (
    right | st.builds(lambda body, bad: body | bad, right, st.dictionaries(fields, anything, max_size=3)) | anything
)
paths = st.sampled_from(["/v1/jobs", "/infer"])
directives = st.sampled_from(["", "no-cache", "no-store", "no-cache, max-age=0", "nonsense=1"])


@pytest.fixture(scope="module")
def client(shared_redis_server: RedisServer) -> Any:
    with shared_redis_server.client() as redis:
        redis.flushall()
        key = KeyRing(redis).create("acme", limits=KeyLimits(requests=1_000_000, polls=1_000_000, tokens=1_000_000_000))
    with api_client(make_settings(shared_redis_server.url), key) as client:
        yield client


def check(client: FlaskClient, answer: Any) -> None:
    assert answer.status_code in (200, 202, 400, 404, 405, 413, 415, 422), answer.text
    if answer.status_code >= 400:
        assert answer.mimetype == "application/problem+json"
        problem = answer.json
        assert problem["status"] == answer.status_code
        assert problem["code"]
        assert problem["detail"]
        assert problem["request_id"] == answer.headers["X-Request-ID"]
        if answer.status_code == 422:
            assert problem["errors"]
            assert all(error["message"] for error in problem["errors"])
    if answer.status_code == 202:
        found = client.get(answer.headers["Location"])
        assert found.status_code == 200
        assert found.json["status"] in ("queued", "expired")


@GENERATED
@given(path=paths, body=bodies, cache=directives)
def test_any_json(client: FlaskClient, path: str, body: Any, cache: str) -> None:
    answer = client.post(path, data=json.dumps(body), content_type="application/json", headers={"Cache-Control": cache})
    check(client, answer)


@GENERATED
@given(body=right)
def test_right_bodies_are_accepted_and_come_back_as_they_were_sent(client: FlaskClient, body: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job = client.get(answer.headers["Location"]).json
    assert job["metadata"] == (body.get("metadata") or None)


@GENERATED
@given(path=paths, raw=st.binary(max_size=200), mimetype=st.sampled_from(["application/json", "text/plain", ""]))
def test_any_bytes(client: FlaskClient, path: str, raw: bytes, mimetype: str) -> None:
    check(client, client.post(path, data=raw, content_type=mimetype))


@GENERATED
@given(
    job=st.text(min_size=1, max_size=40).filter(lambda text: "/" not in text), suffix=st.sampled_from(["", "/cancel"])
)
def test_any_job_id(client: FlaskClient, job: str, suffix: str) -> None:
    method = client.post if suffix else client.get
    check(client, method(f"/v1/jobs/{job}{suffix}"))
    assert client.get(f"/v1/jobs/{new_id()}").status_code == 404


@GENERATED
@given(
    headers=st.dictionaries(
        st.sampled_from(["Prefer", "If-None-Match", "Cache-Control", "X-Request-ID", "Idempotency-Key"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).filter(
            lambda text: "wait" not in text
        ),
        max_size=4,
    ),
    query=st.dictionaries(st.sampled_from(["status", "limit", "cursor"]), st.text(max_size=12), max_size=3),
)
def test_any_header_and_query(client: FlaskClient, headers: dict[str, str], query: dict[str, str]) -> None:
    check(client, client.get("/v1/jobs", headers=headers, query_string=query))
