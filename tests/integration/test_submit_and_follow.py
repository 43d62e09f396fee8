"""A job that is submitted and followed in one request, on a real Redis, with the test playing the worker."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.conftest import OpenClient, make_settings
from tests.hand_worker import HandWorker, problem, submit
from tests.redis_server import RedisServer
from tests.sse import Told, follow, parse

EVENTS = {"Accept": "text/event-stream"}


def tell(client: FlaskClient, headers: dict[str, str] | None = None, **body: Any) -> tuple[Any, Iterator[Told]]:
    answer = client.post("/v1/jobs", json={"prompt": "hi", **body}, headers=EVENTS | (headers or {}))
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream"), answer.text
    return answer, parse(answer.response)


def names(told: list[Told]) -> list[str]:
    return [one.name for one in told]


def test_the_job_comes_first_and_then_what_happens_to_it(client: FlaskClient, worker: HandWorker) -> None:
    answer, told = tell(client)
    first = next(told)
    assert (first.name, first.id) == ("job", "0-0")
    assert (first.data["status"], first.data["queue"]) == ("queued", {"position": 1, "eta_s": None})
    assert answer.headers["Location"] == first.data["urls"]["self"]
    assert answer.headers["Cache-Status"] == "inferq; fwd=miss"
    assert "RateLimit" in answer.headers
    assert next(told).data == {"status": "queued", "attempt": 0, "queue": {"position": 1, "eta_s": None}}
    run = worker.claim()
    assert run.stream, "who is told of a job wants its text while it is written"
    assert next(told) == Told("status", "1-0", {"status": "in_progress", "attempt": 1, "queue": None})
    worker.store.append([(run.id, run.fence, 0, "größe ")])
    assert next(told) == Told("token", "1-8", {"text": "größe "})
    worker.finish(run, "größe zählt")
    assert list(told) == [
        Told("token", "1-14", {"text": "zählt"}),
        Told("usage", "1-14", {"prompt_tokens": 4, "completion_tokens": 3}),
        Told("done", "1-14-end", {"status": "completed", "attempt": 1, "finish_reason": "stop"}),
    ]


def test_whoever_is_cut_off_goes_on_where_they_were(client: FlaskClient, worker: HandWorker) -> None:
    answer, told = tell(client)
    job = next(told).data["id"]
    run = worker.claim()
    worker.store.append([(run.id, run.fence, 0, "abc")])
    while (last := next(told)).name != "token":
        pass
    answer.close()
    worker.finish(run, "abcdef")
    rest = list(follow(client, job, last.id))
    assert (names(rest), rest[0].data) == (["token", "usage", "done"], {"text": "def"})


def test_an_answer_from_the_cache_is_told_at_once(client: FlaskClient, worker: HandWorker) -> None:
    submit(client)
    worker.finish(worker.claim(), "an answer")
    answer, told = tell(client)
    first, *rest = told
    assert answer.headers["Cache-Status"] == "inferq; hit"
    assert "Location" not in answer.headers
    assert (first.data["id"], first.data["output"]["text"]) == (None, "an answer")
    assert rest == [
        Told("token", "0-9", {"text": "an answer"}),
        Told("usage", "0-9", {"prompt_tokens": 4, "completion_tokens": 3}),
        Told("done", "0-9-end", {"status": "completed", "attempt": 0, "finish_reason": "stop"}),
    ]
    _, recorded = tell(client, {"Idempotency-Key": "once"})  # has a record of its own
    first, *rest = recorded
    assert first.data["id"]
    assert names(rest) == ["token", "usage", "done"]


def test_sent_again_it_is_the_same_job(client: FlaskClient, worker: HandWorker) -> None:
    once = {"Idempotency-Key": "once"}
    answer, told = tell(client, once)
    job = next(told).data["id"]
    answer.close()
    again, told = tell(client, once)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert next(told).data["id"] == job
    assert next(told).name == "status"
    worker.finish(worker.claim(), "an answer")
    assert names(list(told))[-3:] == ["token", "usage", "done"]
    _, told = tell(client, once)
    assert next(told).data["id"] == job
    assert names(list(told)) == ["token", "usage", "done"]
    other = client.post("/v1/jobs", json={"prompt": "another"}, headers=EVENTS | once)
    problem(other, 422, "idempotency-key-reused")


def test_how_a_job_is_answered_makes_it_no_other_job(client: FlaskClient) -> None:
    plain = client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Idempotency-Key": "plain-first"})
    _, told = tell(client, {"Idempotency-Key": "plain-first"})
    assert next(told).data["id"] == plain.json["id"]
    _, told = tell(client, {"Idempotency-Key": "told-first"}, prompt="ho")
    again = client.post("/v1/jobs", json={"prompt": "ho"}, headers={"Idempotency-Key": "told-first"})
    assert next(told).data["id"] == again.json["id"]


def test_who_joins_a_run_hears_what_it_has_written(client: FlaskClient, worker: HandWorker) -> None:
    _, first = tell(client)
    assert next(first).name == "job"
    run = worker.claim()
    worker.store.append([(run.id, run.fence, 0, "so far ")])
    answer, told = tell(client)
    assert answer.headers["Cache-Status"] == "inferq; fwd=miss; collapsed"
    opening = [next(told), next(told), next(told)]
    assert names(opening) == ["job", "status", "token"]
    assert opening[2].data == {"text": "so far "}
    worker.finish(run, "so far so good")
    assert next(told).data == {"text": "so good"}


def test_a_media_type_is_written_in_any_case(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Accept": "Text/Event-Stream"})
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    answer.close()


@pytest.mark.parametrize("accept", ["*/*", "application/json, text/event-stream;q=0.5", "text/*;q=0.1, */*", ""])
def test_events_come_only_to_who_prefers_them(client: FlaskClient, accept: str) -> None:
    answer = client.post("/v1/jobs", json={"prompt": "hi"}, headers={"Accept": accept})
    assert (answer.status_code, answer.mimetype) == (202, "application/json")


@pytest.mark.parametrize(
    "accept",
    ["text/event-stream", "Text/Event-Stream; charset=utf-8", "text/event-stream, */*", "a, text/event-stream"],
)
def test_whoever_names_events_gets_them(client: FlaskClient, accept: str) -> None:
    answer, told = tell(client, {"Accept": accept})
    assert next(told).name == "job"
    answer.close()


def test_a_refusal_is_a_problem_and_not_an_event(client: FlaskClient) -> None:
    wrong = client.post("/v1/jobs", json={"prompt": "hi", "model": "none"}, headers=EVENTS)
    problem(wrong, 404, "model-not-found")
    problem(client.post("/v1/jobs", json={}, headers=EVENTS), 422, "invalid-request")


def test_what_cannot_be_followed_is_not_accepted(
    open_client: OpenClient, redis_server: RedisServer, api_key: str
) -> None:
    client = open_client(make_settings(redis_server.url, max_waiters=1), api_key)
    held, _ = tell(client)
    full = client.post("/v1/jobs", json={"prompt": "another"}, headers=EVENTS)
    problem(full, 503, "temporary-reduced-capacity")
    assert int(full.headers["Retry-After"]) >= 1
    assert len(client.get("/v1/jobs").json["data"]) == 1
    held.close()
    answer, _ = tell(client, prompt="another")
    answer.close()
