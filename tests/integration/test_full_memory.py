"""A Redis that is full: no job is half accepted, and whatever finishes work goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from inferq.ids import new_id
from inferq.jobs import JobStatus
from inferq.keys import key
from tests.conftest import OpenClient, make_settings
from tests.redis_server import RedisServer, binaries
from tests.world import World

MIB = 2**20


@pytest.fixture(params=sorted(binaries()))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, binaries()[request.param], "--maxmemory", "12mb")
    yield server
    server.close()


def use(redis: Redis, share: float) -> None:
    """Fill Redis with other people's data to a share of its maxmemory; 1: until it takes no more."""
    size, number = 50_000, 0
    while share == 1 or redis.info("memory")["used_memory"] < share * 12 * MIB:
        try:
            redis.set(f"other:{number}:{size}", "x" * size)
        except OutOfMemoryError:
            if size == 1:
                return
            size = max(1, size // 10)
        number += 1


def use_more(redis: Redis) -> None:
    """Use what Redis has freed since."""
    for number in range(10_000):
        redis.set(f"other:more:{number}", "a" * 100)


def give_back(redis: Redis) -> None:
    redis.delete(*redis.scan_iter("other:*"))


@pytest.mark.parametrize("share", [0.87, 1])
def test_when_redis_is_full_nothing_is_accepted_and_nothing_is_left_of_it(world: World, share: float) -> None:
    use(world.redis, share)
    before = set(world.redis.scan_iter("iq:*"))
    assert world.jobs.submit(world.caller, world.submission()).outcome == "no_memory"
    assert {k for k in set(world.redis.scan_iter("iq:*")) - before if not k.startswith("iq:window")} == {key("memory")}
    give_back(world.redis)
    world.pass_ms(100)
    assert world.jobs.submit(world.caller, world.submission()).outcome == "accepted"


def test_when_redis_is_full_cached_answers_and_reads_go_on(world: World) -> None:
    fingerprint = new_id()
    job = world.submit(fingerprint=fingerprint)
    assert world.finish(world.claim(), text="cached")
    use(world.redis, 1)
    world.pass_ms(100)
    assert world.read(job).output == "cached"
    assert world.jobs.submit(world.caller, world.submission(fingerprint=fingerprint)).outcome == "hit"
    assert world.jobs.overview(None).rest[2]


def test_when_redis_is_full_every_script_that_finishes_work_runs(world: World) -> None:
    world.warm()
    names = ["done", "failed", "released", "cancelled", "stopped", "lost", "late", "waiting"]
    jobs = {name: world.submit(total_ms=40_000 if name == "late" else None) for name in names}
    done, failed, released = world.claim(), world.claim(), world.claim()
    use(world.redis, 1)
    world.pass_ms(100)
    with pytest.raises(OutOfMemoryError):
        use_more(world.redis)
    assert world.finish(done, text="the answer")
    assert world.worker.fail(failed, code="x", message="x", retryable=False)
    assert world.worker.release(released)[0] == "queued"
    again = world.claim()
    assert again.id == released.id
    assert world.jobs.cancel(world.caller, jobs["cancelled"]).outcome == "cancelled"
    stopped, lost = world.claim(), world.claim()
    assert world.jobs.cancel(world.caller, jobs["stopped"]).outcome == "cancelling"
    stop, _ = world.worker.heartbeat([(stopped.id, stopped.fence), (lost.id, lost.fence)], {"state": "ready"})
    assert stop == {stopped.id: "cancelled"}
    assert world.worker.release(stopped)[0] == "cancelled"
    assert world.finish(again)
    assert world.tick(30) == [lost.id]
    world.tick(15)
    assert world.finish(world.claim())
    assert world.finish(world.claim())
    status = {name: world.read(job).status for name, job in jobs.items()}
    assert status == dict.fromkeys(("done", "released", "lost", "waiting"), JobStatus.COMPLETED) | {
        "failed": JobStatus.FAILED,
        "cancelled": JobStatus.CANCELLED,
        "stopped": JobStatus.CANCELLED,
        "late": JobStatus.EXPIRED,
    }
    assert not list(world.redis.scan_iter("iq:cache:*")), "nothing is cached while Redis is full"
    world.pass_ms(61_000)
    world.tick(1)
    assert world.leftovers() <= {key("engines")}, "results are dropped on time"


def test_a_client_hears_503_and_that_it_may_come_back(server: RedisServer, open_client: OpenClient) -> None:
    from inferq.credentials import KeyRing

    with server.client() as redis:
        client = open_client(make_settings(server.url), KeyRing(redis).create("acme"))
        use(redis, 0.9)
        for path in ("/v1/jobs", "/infer"):
            answer = client.post(path, json={"prompt": "no room"})
            assert (answer.status_code, answer.json["code"]) == (503, "temporary-reduced-capacity")
            assert int(answer.headers["Retry-After"]) > 0
        health = client.get("/health")
        assert (health.status_code, health.json["status"], health.json["parts"]["store"]) == (200, "degraded", "full")
