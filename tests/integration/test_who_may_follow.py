"""Who may follow a job, and for how long; and who is told that there is no room."""

from flask.testing import FlaskClient
from redis import Redis

from inferq.credentials import KeyRing
from inferq.scripts import Scripts
from inferq.settings import Settings
from inferq.tenants import Tenants
from tests.conftest import OpenClient, make_settings
from tests.hand_worker import HandWorker, problem, submit
from tests.redis_server import RedisServer
from tests.sse import follow


def test_refusals_are_problems_before_the_first_event(
    client: FlaskClient, redis_server: RedisServer, api_key: str, open_client: OpenClient
) -> None:
    job = submit(client)["id"]
    for wrong in ("x", "1-", "1-2-3", "-1-2", "01-2", "1-2-END", "1" * 40 + "-1"):
        body = problem(client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": wrong}), 422, "invalid-request")
        assert body["errors"][0]["field"] == "Last-Event-ID"
    problem(client.get("/v1/jobs/nothing/events"), 404, "not-found")
    problem(client.get(f"/v1/jobs/{job}/events", headers={"X-API-Key": "iq_no_suchkey123"}), 401, "unauthorized")
    problem(client.get(f"/v1/jobs/{job}/ws"), 426, "upgrade-required")
    client.post(f"/v1/jobs/{job}/cancel")
    client.delete(f"/v1/jobs/{job}")
    problem(client.get(f"/v1/jobs/{job}/events"), 410, "gone")
    small = open_client(make_settings(redis_server.url, max_waiters=1), api_key)
    other = submit(small, prompt="another")["id"]
    held = follow(small, other)
    next(held)
    problem(small.get(f"/v1/jobs/{other}/events"), 503, "temporary-reduced-capacity")
    held.close()
    again = follow(small, other)
    assert next(again).name == "status", "who has gone makes room"
    again.close()


def test_a_key_that_is_revoked_meanwhile_follows_no_longer(
    client: FlaskClient, worker: HandWorker, settings: Settings, redis: Redis, api_key: str
) -> None:
    told = follow(client, submit(client)["id"])
    next(told)
    KeyRing(redis).revoke(api_key.split("_")[1])
    worker.claim()
    (last,) = told
    assert (last.name, last.data["code"]) == ("error", "unauthorized")


def test_a_tenant_that_is_suspended_meanwhile_hears_that(
    client: FlaskClient, worker: HandWorker, redis: Redis, settings: Settings
) -> None:
    told = follow(client, submit(client)["id"])
    next(told)
    Tenants(redis, Scripts(redis)).suspend("acme", suspended=True)
    worker.claim()
    (last,) = told
    assert (last.name, last.data["code"]) == ("error", "tenant-suspended")


def test_whoever_may_not_ask_hears_that_and_not_that_there_is_no_room(
    open_client: OpenClient, redis_server: RedisServer, api_key: str
) -> None:
    client = open_client(make_settings(redis_server.url, max_waiters=1), api_key)
    job = submit(client)["id"]
    held = follow(client, job)
    next(held)
    stranger = {"X-API-Key": "iq_nobody_withakeylikethis"}
    problem(client.get(f"/v1/jobs/{job}/events", headers=stranger), 401, "unauthorized")
    submission = {"json": {"prompt": "hi"}, "headers": stranger | {"Accept": "text/event-stream"}}
    problem(client.post("/v1/jobs", **submission), 401, "unauthorized")
    held.close()
