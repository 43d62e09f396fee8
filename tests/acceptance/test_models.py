"""Several models with real workers; adapters in the real engine are in test_vllm_worker."""

from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from inferq.credentials import KeyRing
from tests.conftest import api_client, make_settings
from tests.processes import stack, until
from tests.redis_server import RedisServer


def answer(client: FlaskClient, **body: Any) -> str:
    said = client.post("/v1/jobs", json={"max_tokens": 16, "temperature": 0, **body}, headers={"Prefer": "wait=60"})
    assert said.status_code == 200, said.text
    assert said.json["status"] == "completed", said.json["error"]
    return str(said.json["output"]["text"])


def test_a_worker_serves_one_engine(own_redis_server: RedisServer, tmp_path: Path) -> None:
    settings = make_settings(
        own_redis_server.url, models="small=org/small, large=org/large", model_name="small", simulated_step=0.001
    )
    with own_redis_server.client() as client, stack(settings, tmp_path) as running:
        key = KeyRing(client).create("acme")
        workers = [running.worker(), running.worker(model_name="org/large")]
        for worker in workers:
            until(lambda worker=worker: "engine_ready" in worker.output(), 60, "the worker is ready")
        with api_client(settings, key) as api:
            for number in range(4):
                assert answer(api, prompt=f"one {number}", model="small")
                assert answer(api, prompt=f"one {number}", model="large")
        for worker in workers:
            assert worker.output().count("attempt_ended") == 4


def test_a_directory_without_an_adapter_stops_the_start(own_redis_server: RedisServer, tmp_path: Path) -> None:
    settings = make_settings(
        own_redis_server.url, models=f"demo=org/demo, bad=demo+{tmp_path}", model_name="demo", engine="vllm"
    )
    with stack(settings, tmp_path) as running:
        worker = running.worker()
        assert worker.wait(60) != 0
        last = worker.output().splitlines()[-1]
        assert last == f"inferq worker: MODELS: {tmp_path} holds no LoRA adapter (adapter_config.json with r)"
