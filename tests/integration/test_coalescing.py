"""Identical requests in flight share a run; each stays a job of its own."""

from inferq.credentials import Credential
from inferq.ids import new_id
from inferq.jobs import Job, JobStatus
from inferq.keys import key
from tests.world import World


def ask(world: World, caller: Credential | None = None, **changes: object) -> Job:
    answer = world.jobs.submit(caller or world.caller, world.submission(fingerprint="same", **changes))
    assert answer.outcome == "accepted", answer
    return answer.rest[0]


def test_identical_requests_run_once_and_everybody_has_the_answer(world: World) -> None:
    first, second, third = ask(world), ask(world), ask(world)
    assert [job.cache for job in (first, second, third)] == ["miss", "coalesced", "coalesced"]
    assert [job.position for job in (first, second, third)] == [1, 1, 1]
    run = world.claim()
    late = ask(world)
    assert (late.cache, late.status, late.attempt) == ("coalesced", JobStatus.IN_PROGRESS, 1)
    assert world.worker.claim(new_id()) == (None, 0)
    assert world.finish(run, text="once")
    for job in (first, second, third, late):
        assert (world.read(job.id).status, world.read(job.id).output) == (JobStatus.COMPLETED, "once")
    world.pass_ms(60_000)
    world.tick(2)
    assert world.leftovers() == set()


def test_whoever_leaves_takes_nobody_along_and_the_last_one_stops_the_run(world: World) -> None:
    first, second = ask(world), ask(world)
    assert world.jobs.cancel(world.caller, first.id).outcome == "cancelled"
    run = world.claim()
    third = ask(world)
    assert world.jobs.cancel(world.caller, second.id).outcome == "cancelled", "its neighbour goes on"
    assert world.jobs.cancel(world.caller, third.id).outcome == "cancelling", "nobody else is there"
    fresh = ask(world)
    assert fresh.cache == "miss", "nobody joins a run that was told to stop"
    assert world.worker.release(run)[0] == "cancelled"
    assert ask(world).cache == "coalesced", "and its end does not hide the new one"
    assert world.finish(world.claim())
    assert world.read(fresh.id).status is JobStatus.COMPLETED


def test_each_has_its_own_deadline(world: World) -> None:
    hurried, patient = ask(world, start_ms=1000), ask(world)
    world.tick(2)
    assert world.read(hurried.id).status is JobStatus.EXPIRED
    assert world.finish(world.claim())
    assert world.read(patient.id).status is JobStatus.COMPLETED


def test_what_becomes_of_the_run_becomes_of_all(world: World) -> None:
    jobs = [ask(world), ask(world)]
    for _ in range(3):
        world.worker.release(world.claim(), strikes=1)
    assert {world.read(job.id).error.code for job in jobs} == {"poison"}
    ((_, first), (_, second)) = world.operations.requeue(world.operations.dead_letters(1)[0].run)
    assert world.finish(world.claim(), text="later")
    assert {world.read(job).output for job in (first, second)} == {"later"}


def test_a_member_whose_turn_is_earlier_pulls_the_run_forward_and_lets_it_go_when_it_leaves(world: World) -> None:
    world.tenants.set("acme", max_priority="high")
    for _ in range(6):
        world.submit(priority="normal")
    shared = ask(world, priority="low")
    before = world.read(shared.id).position
    hasty = ask(world, priority="high")
    assert hasty.position < before
    assert world.read(shared.id).position == hasty.position
    assert "acme/low" not in flows(world), "whoever comes first pays, and nobody pays twice"
    world.jobs.cancel(world.caller, hasty.id)
    assert world.read(shared.id).position == before
    assert "acme/low" in flows(world)


def test_no_cache_no_store_and_streams_keep_apart(world: World) -> None:
    assert ask(world).cache == "miss"
    assert ask(world, share=False, cache_status="bypass").cache == "bypass"
    streaming = ask(world, stream=True)
    assert streaming.cache == "miss", "a run that writes no stream cannot serve one"
    assert ask(world, stream=True).cache == "coalesced"
    assert ask(world).cache == "coalesced"
    assert world.redis.zcard(key("queue", "demo")) == 3


def test_a_run_has_a_bounded_number_of_members(world: World) -> None:
    for _ in range(256):
        ask(world)
    assert ask(world).cache == "miss"
    assert world.redis.zcard(key("queue", "demo")) == 2


def test_tenants_share_only_in_a_shared_scope(world: World) -> None:
    other = world.new_caller("other")
    ask(world)
    assert ask(world, other).cache == "miss"
    mine = ask(world, scope="shared")
    assert mine.cache == "miss"
    theirs = ask(world, other, scope="shared")
    assert theirs.cache == "coalesced"
    for _ in range(3):
        world.finish(world.claim(), text="answer")
    assert world.read(theirs.id, other).output == "answer"
    assert world.jobs.read(other, mine.id).outcome == "unknown"


def test_each_is_charged_for_its_own(world: World) -> None:
    caller = world.new_caller("acme", tokens=100, jobs=2)
    ask(world, caller, cost=40)
    ask(world, caller, cost=40)
    refused = world.jobs.submit(caller, world.submission(fingerprint="same", cost=40))
    assert (refused.outcome, refused.rest) == ("limited", ("tokens",))
    assert world.finish(world.claim())
    (day,) = world.tenants.usage("acme", 1).days.values()
    assert (day["submitted"], day["coalesced"], day["completed"], day["tokens"]) == (2, 1, 2, 10)


def flows(world: World) -> dict[str, float]:
    return dict(world.redis.zrange(key("flows", "demo"), 0, -1, withscores=True))


def test_nobody_is_in_debt_while_nobody_waits(world: World) -> None:
    first, second = ask(world), ask(world)
    run = world.claim()
    world.jobs.cancel(world.caller, first.id)
    assert flows(world) == {}, "the second pays from now on, but nobody waits to whom it could owe anything"
    assert world.finish(run)
    assert world.read(second.id).status is JobStatus.COMPLETED


def test_a_hundred_duplicates_take_a_tenant_no_further_ahead_than_one(world: World) -> None:
    other = world.new_caller("other")
    for _ in range(100):
        ask(world, cost=100)
    for _ in range(20):
        world.submit(other, cost=100)
    mine = world.submit(cost=100)
    assert world.read(mine).position <= 5


def test_when_the_one_who_pays_leaves_the_next_one_pays(world: World) -> None:
    first, second = ask(world, cost=100), ask(world, cost=100)
    world.submit(cost=100, fingerprint=new_id())
    before = flows(world)
    assert world.jobs.cancel(world.caller, first.id).outcome == "cancelled"
    assert flows(world) == before, "one run is paid for as it was"
    assert world.jobs.cancel(world.caller, second.id).outcome == "cancelled"
    assert flows(world)["acme/normal"] == before["acme/normal"] - 100_000


def test_when_the_one_who_pays_expires_as_the_run_is_claimed_the_next_one_pays(world: World) -> None:
    first, second = ask(world, cost=100, start_ms=1000), ask(world, cost=100)
    world.submit(cost=100)
    before = flows(world)
    world.pass_ms(1001)
    world.claim()
    assert [world.read(job.id).status.value for job in (first, second)] == ["expired", "in_progress"]
    assert flows(world) == before


def test_a_run_whose_jobs_have_all_expired_takes_nobody_s_turn(world: World) -> None:
    world.submit(cost=5000, start_ms=1000)
    world.submit(world.new_caller("other"), cost=6000)
    world.submit(cost=10_000)
    world.pass_ms(1001)
    world.claim()
    assert world.redis.hget(key("engine", "demo"), "v") == "6000000"
    assert flows(world) == {"acme/normal": 10_000_000}, "what it had reserved is given back in full"


def test_whoever_would_start_too_late_does_not_join_either(world: World) -> None:
    world.warm(slots=1)
    world.submit(cost=100)
    run = world.claim()
    world.pass_ms(1000)
    world.finish(run)
    for _ in range(10):
        world.submit(cost=100)
    ask(world, cost=100)
    world.claim()
    hurried = world.submission(fingerprint="same", cost=100, start_ms=2000)
    assert world.jobs.submit(world.caller, hurried).outcome == "late"
    assert ask(world, cost=100, start_ms=60_000).cache == "coalesced"


def test_of_a_dead_letter_s_jobs_one_pays_again(world: World) -> None:
    for _ in range(3):
        ask(world, cost=100)
    for _ in range(3):
        world.worker.release(world.claim(), strikes=1)
    world.submit(cost=1, fingerprint=new_id())
    before = flows(world)["acme/normal"]
    jobs = [job for _, job in world.operations.requeue(world.operations.dead_letters(1)[0].run)]
    assert len(jobs) == 3
    assert flows(world)["acme/normal"] == before + 100_000
    for job in jobs:
        world.jobs.cancel(world.caller, job)
    assert flows(world)["acme/normal"] == before


def test_of_a_dead_letter_s_tenants_one_pays_again(world: World) -> None:
    other = world.new_caller("other")
    ask(world, cost=100, scope="shared")
    ask(world, other, cost=100, scope="shared")
    for _ in range(3):
        world.worker.release(world.claim(), strikes=1)
    world.submit(cost=100)
    before = flows(world)
    world.operations.requeue(world.operations.dead_letters(1)[0].run)
    assert flows(world).keys() - before.keys() == {"other/normal"}, "acme paid before, now the other is first"
    assert flows(world)["acme/normal"] == before["acme/normal"]
