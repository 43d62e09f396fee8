"""Several models behind one API: each engine has its queue, adapters share that of their base model."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from inferq.keys import key
from inferq.operations import Operations
from inferq.run_store import RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from tests.conftest import OpenClient
from tests.hand_worker import HandWorker, problem, submit

MODELS = "small=org/small-7b, large=/models/large, legal=small+/adapters/legal"


@pytest.fixture
def several(settings: Settings) -> Settings:
    return settings.model_copy(update={"models": MODELS, "model_name": "org/small-7b"})


@pytest.fixture
def client(open_client: OpenClient, several: Settings, api_key: str) -> FlaskClient:
    return open_client(several, api_key)


def worker_of(redis: Redis, settings: Settings, model: str) -> HandWorker:
    return HandWorker(redis, settings.model_copy(update={"model_name": model}))


def test_each_engine_has_its_queue_and_adapters_share_that_of_their_base(
    client: FlaskClient, redis: Redis, several: Settings
) -> None:
    jobs = {model: submit(client, model=model) for model in ("large", "legal", "small")}
    assert {model: job["model"] for model, job in jobs.items()} == {name: name for name in jobs}
    assert (redis.zcard(key("queue", "small")), redis.zcard(key("queue", "large"))) == (2, 1)
    large = worker_of(redis, several, "large").claim()
    assert (large.id, large.model) == (jobs["large"]["id"], "large")
    small = worker_of(redis, several, "small")
    assert [small.claim().model for _ in range(2)] == ["legal", "small"]


def test_a_request_without_a_model_means_the_default(client: FlaskClient, redis: Redis, several: Settings) -> None:
    assert submit(client)["model"] == "small"
    assert worker_of(redis, several, "small").claim().model == "small"


def test_what_one_model_has_answered_is_no_answer_of_another(
    client: FlaskClient, redis: Redis, several: Settings
) -> None:
    worker = worker_of(redis, several, "small")
    submit(client, model="small")
    worker.finish(worker.claim(), "said by small")
    for other in ("large", "legal"):
        submit(client, model=other)
    again = client.post("/v1/jobs", json={"prompt": "hi"})
    assert again.json["output"]["text"] == "said by small", "the default by another spelling"


def test_an_unknown_model_is_told_which_there_are(client: FlaskClient) -> None:
    said = problem(client.post("/v1/jobs", json={"prompt": "hi", "model": "org/small-7b"}), 404, "model-not-found")
    assert said["errors"] == [{"field": "model", "message": "must be one of small, large, legal"}]


def test_a_model_without_a_worker_waits_or_is_refused(
    open_client: OpenClient, redis: Redis, several: Settings, api_key: str
) -> None:
    client = open_client(several.model_copy(update={"without_worker": "refuse"}), api_key)

    def ask(**body: Any) -> Any:
        return client.post("/v1/jobs", json={"prompt": "hi", **body})

    refused = ask(model="large")
    problem(refused, 503, "model-not-ready")
    assert int(refused.headers["Retry-After"]) > 0
    assert redis.exists(key("queue", "large")) == 0
    small = worker_of(redis, several, "small")
    small.store.heartbeat([], {"state": "ready", "slots": "4", "running": "0"})
    assert ask(model="large").status_code == 503, "another engine's worker does not serve it"
    assert ask().status_code == ask(model="legal").status_code == 202
    small.finish(small.claim())
    small.store.leave()
    assert ask().status_code == 200, "what is cached needs no worker"
    patient = open_client(several, api_key)
    queued = submit(patient, model="large")
    assert queued["queue"] == {"position": 1, "eta_s": None}, "nobody can say"


def test_models_are_listed_with_whether_they_are_ready(client: FlaskClient, redis: Redis, several: Settings) -> None:
    def states() -> dict[str, str]:
        return {model["id"]: model["state"] for model in client.get("/v1/models").json["data"]}

    assert states() == {"small": "unavailable", "large": "unavailable", "legal": "unavailable"}
    small = worker_of(redis, several, "small")
    small.store.heartbeat([], {"state": "ready", "slots": "4", "running": "0"})
    RunStore(Scripts(redis), engine="large", worker="other", lease_ms=9000).heartbeat(
        [], {"state": "warming", "slots": "4", "running": "0"}
    )
    assert states() == {"small": "ready", "large": "warming", "legal": "ready"}
    Operations(Scripts(redis)).pause("small", paused=True)
    assert states()["legal"] == "paused"
    submit(client, model="legal")
    said = {model["id"]: model for model in client.get("/v1/models").json["data"]}
    assert said["legal"]["base"] == "small"
    assert [(one["base"], one["default"], one["depth"]) for one in said.values()] == [
        (None, True, 1),
        (None, False, 0),
        ("small", False, 1),
    ]
