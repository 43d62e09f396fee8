"""Real Celery workers with the simulated engine: jobs run, workers are killed, drained, and their engines die."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from deploy.local.stack import free_port
from deploy.local.stack import status as listening
from inferq.keys import key
from inferq.settings import Settings
from tests.conftest import api_client, make_settings
from tests.processes import Stack, stack, until
from tests.redis_server import RedisServer, binaries


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return make_settings(redis_server.url, lease=2.0, drain_grace=1.0, max_num_seqs=4, simulated_step=0.005)


@pytest.fixture
def running(settings: Settings, tmp_path: Path) -> Iterator[Stack]:
    with stack(settings, tmp_path) as running:
        yield running


@pytest.fixture
def client(settings: Settings, api_key: str) -> Iterator[FlaskClient]:
    with api_client(settings, api_key) as client:
        yield client


def ready(client: FlaskClient) -> None:
    until(lambda: client.get("/readyz").status_code == 200, what="a ready worker")


def submit(client: FlaskClient, prompt: str, **body: Any) -> str:
    answer = client.post("/v1/jobs", json={"prompt": prompt, **body})
    assert answer.status_code == 202, answer.text
    return answer.json["id"]


def status(client: FlaskClient, job: str) -> str:
    return client.get(f"/v1/jobs/{job}").json["status"]


def finished(client: FlaskClient, *jobs: str, seconds: float = 30.0) -> list[dict[str, Any]]:
    until(lambda: all(client.get(f"/v1/jobs/{job}").json["terminal"] for job in jobs), seconds, "all jobs ended")
    return [client.get(f"/v1/jobs/{job}").json for job in jobs]


def test_jobs_run_and_the_same_prompt_is_cached(client: FlaskClient, running: Stack, redis: Redis) -> None:
    worker = running.worker()
    ready(client)
    jobs = [submit(client, f"question {number}") for number in range(20)]
    bodies = finished(client, *jobs)
    assert {body["status"] for body in bodies} == {"completed"}
    assert {body["attempt"] for body in bodies} == {1}
    again = client.post("/v1/jobs", json={"prompt": "question 3"})
    assert (again.status_code, again.json["output"]) == (200, bodies[3]["output"])
    assert redis.zcard(key("leases")) == redis.zcard(key("queue", "demo-mistral")) == 0
    assert "question" not in worker.output(), "prompts do not appear in logs"
    assert bodies[0]["output"]["text"] not in worker.output()


def test_jobs_that_waited_for_a_worker_are_rung_for_when_it_is_ready(client: FlaskClient, running: Stack) -> None:
    jobs = [submit(client, f"early {number}") for number in range(10)]
    running.worker()
    running.keeper()
    finished(client, *jobs)


def test_a_killed_worker_s_jobs_are_finished_by_the_next_once(client: FlaskClient, running: Stack) -> None:
    running.keeper()
    first = running.worker()
    ready(client)
    jobs = [submit(client, f"simulate:slow {number}") for number in range(6)]
    until(lambda: [status(client, job) for job in jobs].count("in_progress") == 4)
    first.signal(signal.SIGKILL)
    running.worker()
    bodies = finished(client, *jobs)
    assert {body["status"] for body in bodies} == {"completed"}
    assert sorted(body["attempt"] for body in bodies) == [1, 1, 2, 2, 2, 2]


def test_when_one_keeper_is_killed_another_goes_on(client: FlaskClient, running: Stack) -> None:
    keepers = [running.keeper(), running.keeper()]
    worker = running.worker()
    ready(client)
    job = submit(client, "simulate:slow orphan")
    until(lambda: status(client, job) == "in_progress")
    keepers[0].signal(signal.SIGKILL)
    worker.signal(signal.SIGKILL)
    until(lambda: status(client, job) == "queued", 20, "the other keeper has rescued it")
    assert keepers[1].alive()


def test_a_cancelled_running_job_is_freed_and_the_rest_goes_on(client: FlaskClient, running: Stack) -> None:
    running.worker(simulated_step=0.1)
    ready(client)
    doomed, other = submit(client, "simulate:slow doomed"), submit(client, "other", max_tokens=8)
    until(lambda: status(client, doomed) == "in_progress")
    assert client.post(f"/v1/jobs/{doomed}/cancel").status_code == 202
    until(lambda: status(client, doomed) == "cancelled", 10)
    assert finished(client, other)[0]["status"] == "completed"


def test_sigterm_lets_short_jobs_finish_and_hands_long_ones_back_without_a_strike(
    client: FlaskClient, running: Stack, redis: Redis
) -> None:
    worker = running.worker()
    ready(client)
    short, long = submit(client, "short", max_tokens=20), submit(client, "simulate:slow", max_tokens=64)
    until(lambda: status(client, long) == "in_progress")
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert status(client, short) == "completed"
    body = client.get(f"/v1/jobs/{long}").json
    if body["status"] == "queued":
        run = redis.hget(key("job", long), "run")
        assert redis.hmget(key("run", run), "strikes", "lost") == ["0", "0"]
    assert client.get("/readyz").status_code == 503
    running.worker()
    assert finished(client, long)[0]["status"] == "completed"


def test_a_draining_worker_is_not_ready_at_once_while_its_job_goes_on(client: FlaskClient, running: Stack) -> None:
    port = free_port()
    worker = running.worker(simulated_step=0.05, drain_grace=60.0, metrics_port=port)
    ready(client)
    job = submit(client, "simulate:slow", max_tokens=8)  # eight seconds
    until(lambda: status(client, job) == "in_progress")
    worker.signal(signal.SIGTERM)
    until(lambda: client.get("/readyz").status_code == 503, 5, "not ready any more")
    assert [listening("127.0.0.1", port, path) for path in ("/readyz", "/livez")] == [503, 200], (
        "a probe that kills leaves it alone"
    )
    body = client.get(f"/v1/jobs/{job}").json
    assert (body["status"], body["attempt"]) == ("in_progress", 1), "it was red before the job had ended"
    (engine,) = client.get("/readyz").json["engines"]
    assert [(said["state"], said["running"]) for said in engine["workers"]] == [("draining", 1)]
    waiting = submit(client, "not for this worker")
    assert finished(client, job)[0]["attempt"] == 1
    assert worker.wait(20) == 0
    assert status(client, waiting) == "queued"


def test_a_running_job_says_how_many_tokens_it_has(client: FlaskClient, running: Stack) -> None:
    running.worker(simulated_step=0.05)
    ready(client)
    job = submit(client, "simulate:slow")
    until(lambda: ((client.get(f"/v1/jobs/{job}").json["usage"]) or {}).get("completion_tokens"), 20, "tokens are told")
    body = client.get(f"/v1/jobs/{job}").json
    assert body["status"] == "in_progress"
    assert body["usage"]["prompt_tokens"] is None


def test_a_failed_request_fails_alone(client: FlaskClient, running: Stack) -> None:
    running.worker()
    ready(client)
    bad, good = submit(client, "simulate:fails"), submit(client, "good")
    bodies = finished(client, bad, good)
    assert [body["status"] for body in bodies] == ["failed", "completed"]
    assert bodies[0]["error"]["code"] == "simulated_failure"


def test_a_dead_engine_ends_the_worker_and_its_jobs_go_to_the_next(client: FlaskClient, running: Stack) -> None:
    running.keeper()
    worker = running.worker()
    ready(client)
    neighbour = submit(client, "simulate:slow neighbour")
    until(lambda: status(client, neighbour) == "in_progress")
    killer = submit(client, "simulate:dies")
    assert worker.wait(20) == 70
    client.post(f"/v1/jobs/{killer}/cancel")
    running.worker()
    assert finished(client, neighbour)[0]["status"] == "completed"


def test_a_poison_prompt_ends_three_engines_at_most_and_only_its_own_job(
    client: FlaskClient, running: Stack, redis: Redis
) -> None:
    running.keeper()
    jobs = [submit(client, f"innocent {number}", max_tokens=40) for number in range(31)]
    poison = submit(client, "simulate:dies")
    deaths = 0
    worker = running.worker(max_num_seqs=32)
    deadline = time.monotonic() + 90
    while not all(client.get(f"/v1/jobs/{job}").json["terminal"] for job in [*jobs, poison]):
        assert time.monotonic() < deadline, [status(client, job) for job in [*jobs, poison]]
        if not worker.alive():
            assert worker.wait() == 70
            deaths += 1
            worker = running.worker(max_num_seqs=32)
        time.sleep(0.1)
    assert {status(client, job) for job in jobs} == {"completed"}
    body = client.get(f"/v1/jobs/{poison}").json
    assert (body["status"], body["error"]["code"], body["attempt"]) == ("failed", "poison", 3)
    assert deaths <= 3
    assert redis.zcard(key("dead_letters")) == 1


def test_a_worker_out_of_memory_ends_and_its_jobs_go_to_the_next(client: FlaskClient, running: Stack) -> None:
    running.keeper()
    worker = running.worker()
    ready(client)
    neighbour = submit(client, "simulate:slow neighbour")
    until(lambda: status(client, neighbour) == "in_progress")
    glutton = submit(client, "simulate:oom")
    assert worker.wait(20) == 70
    client.post(f"/v1/jobs/{glutton}/cancel")
    running.worker()
    assert finished(client, neighbour)[0]["status"] == "completed"


def test_a_hung_engine_ends_the_worker_and_its_neighbours_go_on(client: FlaskClient, running: Stack) -> None:
    running.keeper()
    worker = running.worker(engine_hang=1.0)
    ready(client)
    neighbour, hanging = submit(client, "simulate:slow neighbour"), submit(client, "simulate:hangs")
    assert worker.wait(30) == 70
    assert "engine_hung" in worker.output()
    client.post(f"/v1/jobs/{hanging}/cancel")
    running.worker(engine_hang=1.0)
    assert finished(client, neighbour)[0]["status"] == "completed"
    assert status(client, hanging) == "cancelled"


def test_a_slow_engine_does_not_count_as_hung(client: FlaskClient, running: Stack) -> None:
    worker = running.worker(engine_hang=1.0)
    ready(client)
    slow = submit(client, "simulate:slow busy", max_tokens=64)  # over a second in the engine
    assert finished(client, slow)[0]["attempt"] == 1
    assert worker.alive()


def test_a_worker_outlives_an_outage_of_redis(own_redis_server: RedisServer, tmp_path: Path) -> None:
    from inferq.credentials import KeyRing

    settings = make_settings(own_redis_server.url, lease=2.0, redis_timeout=0.5, simulated_step=0.005)
    with own_redis_server.client() as redis:
        api_key = KeyRing(redis).create("acme")
    with stack(settings, tmp_path) as running, api_client(settings, api_key) as client:
        running.worker()
        running.keeper()
        ready(client)
        finished(client, submit(client, "before"))
        slow = submit(client, "simulate:slow through it")
        until(lambda: status(client, slow) == "in_progress")
        own_redis_server.pause()
        time.sleep(4)  # the outage itself: two leases long
        own_redis_server.resume()
        body = finished(client, slow, submit(client, "after"))[0]
        assert (body["status"], body["attempt"]) == ("completed", 1), "nobody is rescued because Redis was away"


def test_what_was_accepted_outlives_a_killed_redis_with_an_append_only_file(tmp_path: Path) -> None:
    from inferq.credentials import KeyRing

    server = RedisServer(tmp_path, next(iter(binaries().values())), "--appendonly", "yes", "--appendfsync", "always")
    try:
        settings = make_settings(server.url, lease=2.0, redis_timeout=0.5, max_num_seqs=4, simulated_step=0.005)
        with server.client() as redis:
            api_key = KeyRing(redis).create("acme")
        with stack(settings, tmp_path) as running, api_client(settings, api_key) as client:
            running.worker()
            running.keeper()
            ready(client)
            jobs = [submit(client, f"simulate:slow {number}") for number in range(12)]
            until(lambda: [status(client, job) for job in jobs].count("in_progress") == 4)
            server.kill()
            refused = client.post("/v1/jobs", json={"prompt": "nobody is there"})
            assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
            server.start()
            bodies = finished(client, *jobs, seconds=60)
            assert {body["status"] for body in bodies} == {"completed"}
            assert {body["attempt"] for body in bodies} == {1}, "results waited in their workers"
    finally:
        server.close()
