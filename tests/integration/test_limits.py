"""Limits of a key: exact windows of requests and tokens, jobs in flight, its tenant's; repeats of a submission."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.credentials import Credential
from inferq.errors import BadTenant, InferqError
from inferq.ids import new_id
from inferq.job_store import Answer
from inferq.jobs import JobStatus
from inferq.keys import key
from tests.redis_server import RedisServer
from tests.world import World


def submit(world: World, caller: Credential, **changes: object) -> Answer:
    return world.jobs.submit(caller, world.submission(**changes))


def limited(answer: Answer) -> str:
    return answer.rest[0] if answer.outcome == "limited" else answer.outcome


def test_tokens_are_charged_as_reserved_and_settled_as_used(world: World) -> None:
    caller = world.new_caller("acme", tokens=100)
    assert [limited(submit(world, caller, cost=40)) for _ in range(3)] == ["accepted", "accepted", "tokens"]
    world.finish(world.claim())  # of its 40 tokens it used 5
    answer = submit(world, caller, cost=40)
    assert answer.outcome == "accepted"
    (tokens,) = [rate for rate in answer.rates if rate.policy == "tokens"]
    assert (tokens.limit, tokens.remaining) == (100, 100 - 5 - 40 - 40)
    refused = submit(world, caller, cost=40)
    (tokens,) = [rate for rate in refused.rates if rate.policy == "tokens"]
    assert (limited(refused), tokens.reset_ms) == ("tokens", 60_000)
    world.pass_ms(60_000)
    assert limited(submit(world, caller, cost=100)) == "accepted"


def test_a_cancelled_job_gives_its_tokens_back_and_a_hit_takes_none(world: World) -> None:
    caller = world.new_caller("acme", tokens=100)
    fingerprint = new_id()
    job = world.submit(caller, cost=100, fingerprint=fingerprint)
    assert limited(submit(world, caller, cost=1)) == "tokens"
    world.jobs.cancel(caller, job)
    world.submit(caller, cost=100, fingerprint=fingerprint)
    world.finish(world.claim())
    world.submit(caller, cost=95)
    assert submit(world, caller, cost=100, fingerprint=fingerprint).outcome == "hit"
    assert limited(submit(world, caller, cost=1)) == "tokens"


def test_a_request_that_can_never_fit_says_so(world: World) -> None:
    caller = world.new_caller("acme", tokens=100)
    answer = submit(world, caller, cost=101)
    assert (answer.outcome, answer.rest) == ("too_costly", (100,))


def test_jobs_in_flight_are_bounded_per_key(world: World) -> None:
    caller, other = world.new_caller("acme", jobs=2), world.new_caller("acme", jobs=2)
    first = world.submit(caller)
    world.submit(caller)
    assert limited(submit(world, caller)) == "jobs"
    assert limited(submit(world, other)) == "accepted"
    world.jobs.cancel(caller, first)
    assert limited(submit(world, caller)) == "accepted"
    assert limited(submit(world, caller)) == "jobs"
    world.finish(world.claim())
    assert limited(submit(world, caller)) == "accepted"


def test_a_key_tightens_its_tenant_s_limits_and_never_widens_them(world: World) -> None:
    world.tenants.set("acme", limits={"jobs": 2, "requests": 4})
    wide, tight = world.new_caller("acme", jobs=100), world.new_caller("acme", jobs=1)
    assert [limited(submit(world, wide)) for _ in range(5)] == ["accepted", "accepted", "jobs", "jobs", "requests"]
    assert [limited(submit(world, tight)) for _ in range(2)] == ["accepted", "jobs"]
    world.tenants.set("acme", limits={"jobs": 0, "requests": 0})
    assert [limited(submit(world, wide)) for _ in range(3)] == ["accepted"] * 3
    with pytest.raises(InferqError, match="a weight is a number"):
        world.tenants.set("acme", weight=0)
    with pytest.raises(BadTenant):
        world.tenants.set("a:b", weight=1)


@given(
    limit=st.integers(1, 5),
    jobs=st.integers(1, 6),
    steps=st.lists(
        st.tuples(st.sampled_from(["submit", "submit", "submit", "finish", "cancel"]), st.integers(0, 25_000)),
        min_size=10,
        max_size=60,
    ),
)
def test_no_minute_has_more_requests_than_allowed_and_no_moment_more_jobs(
    server: RedisServer, limit: int, jobs: int, steps: list[tuple[str, int]]
) -> None:
    with server.client() as redis:
        world = World(redis)
        caller = world.new_caller("acme", requests=limit, jobs=jobs)
        accepted: list[int] = []
        live: list[str] = []
        for what, pause in steps:
            world.pass_ms(pause)
            if what == "submit":
                submission = world.submission()
                answer = world.jobs.submit(caller, submission)
                in_window = [at for at in accepted if at > world.now - 60_000]
                if limited(answer) == "requests":
                    assert len(in_window) == limit, "nobody is refused below the limit"
                else:
                    accepted.append(world.now)
                    assert len(in_window) < limit
                    assert (limited(answer) == "jobs") == (len(live) == jobs)
                if answer.outcome == "accepted":
                    live.append(submission.job_id)
            elif live and what == "cancel":
                assert world.jobs.cancel(caller, live[0]).outcome in ("cancelled", "limited")
                if world.redis.hget(key("job", live[0]), "status") == "cancelled":
                    live.pop(0)
            elif live and (run := world.worker.claim(new_id())[0]):
                world.finish(run)
                live = [job for job in live if world.redis.hget(key("job", job), "status") != "completed"]


def test_many_processes_at_once_let_no_more_through_than_the_limits_allow(server: RedisServer) -> None:
    """Real threads on real connections, each a process of its own as far as Redis can tell."""
    with server.client() as redis:
        world = World(redis)
        caller = world.new_caller("acme", requests=60, jobs=25)
        outcomes: list[str] = []

        def ask() -> None:
            with server.client() as own:
                store = World.store(own)
                outcomes.extend(limited(store.submit(caller, world.submission())) for _ in range(20))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {what: outcomes.count(what) for what in set(outcomes)} == {"accepted": 25, "jobs": 35, "requests": 100}


def repeat(world: World, caller: Credential, idempotency: str, body: str = "b", **changes: object) -> Answer:
    return submit(world, caller, idempotency=idempotency, body=body, **changes)


def test_a_repeat_gets_the_same_job_and_costs_a_poll(world: World) -> None:
    caller = world.new_caller("acme", requests=1)
    first = repeat(world, caller, "k")
    again = repeat(world, caller, "k")
    assert (first.outcome, again.outcome, again.rest) == ("accepted", "repeat", (first.rest[0].id,))
    assert [rate.policy for rate in again.rates] == ["polls"]
    assert repeat(world, caller, "k", body="other").outcome == "mismatch"
    assert world.redis.zcard(key("queue", "demo")) == 1


def test_a_key_belongs_to_its_tenant(world: World) -> None:
    mine, colleague, stranger = world.new_caller("acme"), world.new_caller("acme"), world.new_caller("other")
    job = repeat(world, mine, "k").rest[0].id
    assert repeat(world, colleague, "k").rest == (job,)
    assert repeat(world, stranger, "k").outcome == "accepted"


def test_a_repeat_is_known_for_a_day_after_the_end(world: World) -> None:
    job = repeat(world, world.caller, "k", ttl_ms=1000).rest[0].id
    assert world.redis.pttl(key("idempotency", "acme", "k")) == -1, "however long the job takes"
    world.finish(world.claim())
    assert world.redis.pttl(key("idempotency", "acme", "k")) == pytest.approx(86_400_000, abs=5000)
    world.pass_ms(1000)
    world.tick(1)
    assert repeat(world, world.caller, "k").rest == (job,), "although its result is gone"
    assert world.jobs.read(world.caller, job).outcome == "gone"


def test_a_cache_hit_with_a_key_is_a_job_its_repeats_find(world: World) -> None:
    fingerprint = new_id()
    world.submit(fingerprint=fingerprint)
    world.finish(world.claim(), text="cached")
    world.pass_ms(3000)
    job = repeat(world, world.caller, "k", fingerprint=fingerprint).rest[0]
    assert (job.status, job.output, job.cache, job.attempt) == (JobStatus.COMPLETED, "cached", "hit", 0)
    assert job.created_ms - job.cached_ms == 3000
    assert repeat(world, world.caller, "k", fingerprint=fingerprint).rest == (job.id,)
    assert world.read(job.id).completion_tokens == 2
    world.pass_ms(60_000)
    world.tick(2)
    assert world.leftovers() == set()


@pytest.mark.parametrize("entry", ["", "{", "[]", "3", '{"text": "no more"}'])
def test_an_unreadable_completion_is_none(world: World, entry: str) -> None:
    fingerprint = new_id()
    world.redis.set(key("cache", "acme", fingerprint), entry)
    job = repeat(world, world.caller, "k", fingerprint=fingerprint).rest[0]
    assert (job.status, job.cache) == (JobStatus.QUEUED, "miss")


def test_a_race_of_the_same_key_makes_one_job(server: RedisServer) -> None:
    with server.client() as redis:
        world = World(redis)
        jobs: list[str] = []

        def ask() -> None:
            with server.client() as own:
                answer = World.store(own).submit(world.caller, world.submission(idempotency="k", body="b"))
                jobs.append(answer.rest[0] if answer.outcome == "repeat" else answer.rest[0].id)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(jobs), len(set(jobs))) == (16, 1)


def test_when_tokens_come_back_is_told_however_many_small_jobs_the_minute_holds(world: World) -> None:
    caller = world.new_caller("acme", tokens=300)
    for _ in range(150):
        world.submit(caller, cost=2)
        world.pass_ms(10)
    refused = submit(world, caller, cost=240)  # until 120 of them have left
    (tokens,) = [rate for rate in refused.rates if rate.policy == "tokens"]
    assert tokens.reset_ms == 60_000 - 10 * (150 - 119)


def test_a_minute_with_thousands_of_jobs_is_forgotten_in_a_few_steps(world: World) -> None:
    caller = world.new_caller("acme", tokens=2500, requests=10_000)
    for _ in range(2500):
        world.submit(caller, cost=1, max_depth=5000)
    world.pass_ms(60_001)
    assert [limited(submit(world, caller, cost=1500, max_depth=5000)) for _ in range(3)] == [
        "tokens",
        "accepted",
        "tokens",
    ]
    assert world.redis.zcard(key("window", caller.key_id, "tokens")) == 1
