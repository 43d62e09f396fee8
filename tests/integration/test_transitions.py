"""The Lua transitions on real Redis servers (6.2 and the system's), with a clock the test turns."""

import json

import pytest

from inferq.completion_cache import CachedCompletion
from inferq.credentials import KeyRing
from inferq.errors import InferqError
from inferq.ids import new_id
from inferq.job_store import Answer
from inferq.jobs import JobStatus
from inferq.keys import key
from inferq.sweeps import LOST_LIMIT
from tests.world import LEASE, World


def test_a_job_goes_from_queued_to_completed(world: World) -> None:
    job_id = world.submit()
    assert world.read(job_id).position == 1

    world.pass_ms(250)
    run = world.claim()
    assert (run.attempt, run.fence, json.loads(run.request_json)) == (1, 1, {"prompt": "hi"})
    assert world.read(job_id).status is JobStatus.IN_PROGRESS

    world.pass_ms(1000)
    assert world.finish(run, text="hello")
    job = world.read(job_id)
    assert (job.status, job.output, job.finish_reason) == (JobStatus.COMPLETED, "hello", "stop")
    assert (job.started_ms - job.created_ms, job.completed_ms - job.started_ms) == (250, 1000)
    assert not world.redis.exists(key("request", run.id)), "the prompt is not kept longer than it is needed"


def test_runs_are_served_in_order_of_arrival(world: World) -> None:
    jobs = [world.submit() for _ in range(12)]
    assert [world.read(job).position for job in jobs] == list(range(1, 13))
    for job in jobs:
        world.claim()
        assert world.read(job).status is JobStatus.IN_PROGRESS


def test_a_replayed_submit_makes_one_job_and_one_window_entry(world: World) -> None:
    submission = world.submission()
    first = world.jobs.submit(world.caller, submission)
    again = world.jobs.submit(world.caller, submission)
    assert first == again
    assert world.redis.zcard(key("queue", "demo")) == 1


def test_a_replayed_claim_gets_the_same_run(world: World) -> None:
    world.submit()
    world.submit()
    token = new_id()
    first, _ = world.worker.claim(token)
    again, _ = world.worker.claim(token)
    assert first == again
    assert world.redis.zcard(key("queue", "demo")) == 1


def test_a_replayed_completion_counts_once_and_is_accepted(world: World) -> None:
    job = world.submit()
    run = world.claim()
    assert world.finish(run, text="one")
    assert world.finish(run, text="two")
    assert world.read(job).output == "one"


def test_a_second_identical_request_is_a_cache_hit(world: World) -> None:
    fingerprint = new_id()
    world.submit(fingerprint=fingerprint)
    world.finish(world.claim(), text="cached")
    world.pass_ms(5000)
    answer = world.jobs.submit(world.caller, world.submission(fingerprint=fingerprint))
    assert answer.outcome == "hit"
    assert CachedCompletion.from_json(answer.rest[0]).text == "cached"
    assert answer.rest[1] - CachedCompletion.from_json(answer.rest[0]).stored_ms == 5000


def test_a_tenant_does_not_see_anothers_cache(world: World) -> None:
    fingerprint = new_id()
    world.submit(fingerprint=fingerprint)
    world.finish(world.claim())
    stranger = world.new_caller("other")
    assert world.jobs.submit(stranger, world.submission(fingerprint=fingerprint)).outcome == "accepted"


def test_only_if_cached_never_queues(world: World) -> None:
    assert world.jobs.submit(world.caller, world.submission(only_if_cached=True)).outcome == "absent"
    assert world.redis.zcard(key("queue", "demo")) == 0


def test_a_full_queue_refuses(world: World) -> None:
    world.submit(max_depth=1)
    answer = world.jobs.submit(world.caller, world.submission(max_depth=1))
    assert (answer.outcome, answer.rest) == ("full", ("runs", -1))


def test_a_queued_job_is_cancelled_at_once_and_leaves_nothing_to_run(world: World) -> None:
    job = world.submit()
    assert world.jobs.cancel(world.caller, job).outcome == "cancelled"
    assert world.jobs.cancel(world.caller, job).outcome == "cancelled"
    assert world.read(job).status is JobStatus.CANCELLED
    assert world.worker.claim(new_id()) == (None, 0)


def test_a_running_job_is_cancelled_only_when_the_engine_has_freed_it(world: World) -> None:
    job = world.submit()
    run = world.claim()
    assert world.jobs.cancel(world.caller, job).outcome == "cancelling"
    assert world.read(job).status is JobStatus.CANCELLING
    assert world.worker.heartbeat([(run.id, run.fence)], {"state": "ready", "slots": "1"})[0] == {run.id: "cancelled"}
    assert world.worker.release(run) == ("cancelled", 0)
    assert world.read(job).status is JobStatus.CANCELLED
    assert not world.redis.exists(key("run", run.id))


def test_a_result_that_arrives_while_cancelling_wins(world: World) -> None:
    job = world.submit()
    run = world.claim()
    world.jobs.cancel(world.caller, job)
    assert world.finish(run)
    assert world.read(job).status is JobStatus.COMPLETED
    assert world.jobs.cancel(world.caller, job).rest == ("completed",)


def test_a_rescued_run_that_was_cancelling_ends_cancelled(world: World) -> None:
    job = world.submit()
    run = world.claim()
    world.jobs.cancel(world.caller, job)
    assert world.tick(30) == [run.id]
    assert world.read(job).status is JobStatus.CANCELLED


def test_a_lost_worker_s_run_is_served_again_under_its_old_tag(world: World) -> None:
    first, second = world.submit(), world.submit()
    run = world.claim()
    assert world.tick(30) == [run.id]
    assert [world.read(job).position for job in (first, second)] == [1, 2]
    again = world.claim(world.other)
    assert (again.id, again.attempt, again.fence) == (run.id, 2, 2)
    assert world.redis.hget(key("run", run.id), "strikes") == "0"


def test_a_zombie_s_result_is_refused(world: World) -> None:
    job = world.submit()
    zombie = world.claim()
    world.tick(30)
    assert not world.finish(zombie, text="while it waits again")
    run = world.claim(world.other)
    assert not world.finish(zombie, text="from the dead")
    assert not world.worker.fail(zombie, code="x", message="x", retryable=False)
    assert world.worker.release(zombie) == ("refused", 0)
    assert world.finish(run, world.other, text="alive")
    assert not world.finish(zombie, text="from the dead")
    assert world.read(job).output == "alive"


def test_a_beating_worker_keeps_its_run(world: World) -> None:
    world.submit()
    run = world.claim()
    for _ in range(30):
        assert world.tick(3) == []
        assert world.worker.heartbeat([(run.id, run.fence)], {"state": "ready", "slots": "1"})[0] == {}
    assert world.finish(run)


def test_nobody_is_rescued_until_redis_has_answered_for_a_whole_lease(world: World) -> None:
    world.submit()
    run = world.claim()
    world.tick(2)
    world.pass_ms(20_000)  # Redis was away: every lease is over
    assert world.tick(11) == []
    assert world.tick(3) == [run.id]


def test_a_run_that_loses_every_worker_is_given_up(world: World) -> None:
    job = world.submit()
    for _ in range(LOST_LIMIT):
        world.claim()
        world.tick(30)
    assert world.read(job).error.code == "worker_lost"
    assert world.worker.claim(new_id()) == (None, 0)


def test_a_released_run_waits_again_under_its_old_tag(world: World) -> None:
    first, second = world.submit(), world.submit()
    run = world.claim()
    assert world.worker.release(run)[0] == "queued"
    assert [world.read(job).position for job in (first, second)] == [1, 2]


def test_a_lease_without_a_running_run_does_not_stay(world: World) -> None:
    world.submit()
    run = world.claim()
    world.finish(run)
    world.redis.zadd(key("leases"), {run.id: 1})
    assert world.tick(15) == []
    assert world.redis.zcard(key("leases")) == 0


def test_a_paused_engine_claims_nothing_until_it_is_resumed(world: World) -> None:
    world.warm()
    job = world.submit()
    world.operations.pause("demo", paused=True)
    assert world.worker.claim(new_id()) == (None, 0)
    assert world.sweeps.tick().bells == {}, "nobody rings in vain"
    assert world.jobs.overview(None).rest[0][0].paused
    world.operations.pause("demo", paused=False)
    assert world.sweeps.tick().bells == {"demo": 1}
    assert world.finish(world.claim())
    assert world.read(job).status is JobStatus.COMPLETED
    with pytest.raises(InferqError, match="no engine named nowhere"):
        world.operations.pause("nowhere", paused=True)


def test_a_purge_cancels_what_waits_of_one_tenant_only(world: World) -> None:
    running = world.submit()
    run = world.claim()
    mine = [world.submit() for _ in range(450)]
    other = world.new_caller("other")
    theirs = world.submission()
    world.jobs.submit(other, theirs)
    assert world.operations.purge("acme") == 450
    assert {world.read(job).status for job in mine} == {JobStatus.CANCELLED}
    assert world.operations.purge("acme") == 0
    assert world.finish(run)
    assert world.read(running).status is JobStatus.COMPLETED
    assert world.jobs.read(other, theirs.job_id).rest[0].status is JobStatus.QUEUED


def test_a_dead_letter_is_listed_and_asked_again_as_a_new_job(world: World) -> None:
    job = world.submit(metadata_json='{"a":"b"}')
    for _ in range(3):
        world.worker.release(world.claim(), strikes=1)
    (letter,) = world.operations.dead_letters(10)
    assert (letter.code, letter.strikes, letter.attempts, letter.jobs) == ("poison", 3, 3, (("acme", job),))
    ((tenant, again),) = world.operations.requeue(letter.run)
    assert (tenant, world.operations.dead_letters(10)) == ("acme", [])
    assert world.read(job).status is JobStatus.FAILED, "what has ended never changes"
    run = world.claim()
    assert run.request_json == '{"prompt":"hi"}'
    assert world.finish(run, text="at last")
    assert (world.read(again).output, world.read(again).metadata_json) == ("at last", '{"a":"b"}')
    with pytest.raises(InferqError, match="no dead letter"):
        world.operations.requeue(letter.run)


def test_records_of_the_version_before_are_seen_through_and_leave_the_sums_right(world: World) -> None:
    """As they were before there were flows: no charge, no key, no arrival, and nothing summed."""
    running = world.submit(cost=1)
    ran = world.claim()
    jobs = [world.submit() for _ in range(4)]
    for job in [running, *jobs]:
        run = world.redis.hget(key("job", job), "run") or ""
        world.redis.hset(key("job", job), "v", "1")
        world.redis.hdel(key("job", job), "charge", "key")
        world.redis.hset(key("run", run), "v", "1")
        world.redis.hdel(key("run", run), "reads", "share", "arrived_ms")
    gone = ("engine", "waiting_jobs", "active", "arrivals", "flows")
    world.redis.delete(*(key(name, "demo") for name in gone), key("in_flight", "acme"))
    assert world.finish(ran)
    assert world.jobs.cancel(world.caller, jobs[3]).outcome == "cancelled"
    assert world.finish(world.claim())
    poison = world.claim()
    assert world.worker.release(world.claim())[0] == "queued"
    assert world.finish(world.claim())
    for _ in range(3):
        world.worker.release(poison, strikes=1)
        poison = world.worker.claim(new_id())[0] or poison
    assert [world.read(job).status.value for job in jobs] == ["completed", "failed", "completed", "cancelled"]
    sums = world.redis.hgetall(key("engine", "demo"))
    assert {sums.get(name, "0") for name in ("tokens", "running", "weight")} == {"0"}
    ((_, again),) = world.operations.requeue(poison.id)
    assert world.finish(world.claim())
    assert world.read(again).status is JobStatus.COMPLETED
    assert not world.redis.exists(*(key(name, "demo") for name in gone[1:]), key("in_flight", "acme"))


def test_a_failed_job_says_why(world: World) -> None:
    job = world.submit()
    assert world.worker.fail(world.claim(), code="prompt_too_long", message="too long", retryable=False)
    failed = world.read(job)
    assert (failed.status, failed.error.code, failed.error.retryable) == (JobStatus.FAILED, "prompt_too_long", False)


def test_a_queued_job_expires_without_any_worker(world: World) -> None:
    job = world.submit(start_ms=2000)
    world.tick(3)
    assert (world.read(job).status, world.read(job).ran) == (JobStatus.EXPIRED, False)
    assert world.redis.zcard(key("queue", "demo")) == 0


def test_a_job_past_its_start_deadline_is_not_claimed(world: World) -> None:
    late, fresh = world.submit(start_ms=2000), world.submit()
    world.pass_ms(2001)
    world.claim()
    assert world.read(late).status is JobStatus.EXPIRED
    assert world.read(fresh).status is JobStatus.IN_PROGRESS


def test_a_started_job_no_longer_has_a_start_deadline(world: World) -> None:
    job = world.submit(start_ms=2000)
    run = world.claim()
    world.tick(5)
    assert world.read(job).status is JobStatus.IN_PROGRESS
    assert world.finish(run)


def test_a_running_job_past_its_total_deadline_is_stopped_then_expires(world: World) -> None:
    job = world.submit(total_ms=2000)
    run = world.claim()
    world.tick(3)
    assert world.worker.heartbeat([(run.id, run.fence)], {"state": "ready", "slots": "1"})[0] == {run.id: "expired"}
    assert world.worker.release(run) == ("expired", 0)
    assert (world.read(job).status, world.read(job).ran) == (JobStatus.EXPIRED, True)


def test_a_running_job_s_deadline_is_kept_although_no_keeper_lives(world: World) -> None:
    job, waits = world.submit(total_ms=2000), world.submit(start_ms=2000)
    run = world.claim()
    world.pass_ms(2001)
    assert world.worker.heartbeat([(run.id, run.fence)], {"state": "ready", "slots": "1"})[0] == {run.id: "expired"}
    assert world.worker.release(run)[0] == "expired"
    assert [world.read(one).status for one in (job, waits)] == [JobStatus.EXPIRED] * 2


def test_a_result_is_kept_for_its_time_then_gone_and_nothing_is_left(world: World) -> None:
    job = world.submit(ttl_ms=10_000)
    world.finish(world.claim())
    world.pass_ms(9_999)
    assert world.read(job).status is JobStatus.COMPLETED
    world.pass_ms(1)
    assert world.jobs.read(world.caller, job).outcome == "gone"
    world.tick(1)
    assert world.jobs.read(world.caller, job).outcome == "gone"
    assert world.jobs.read(world.new_caller("other"), job).outcome == "unknown"
    assert world.leftovers() == set()


def test_only_a_finished_job_can_be_erased(world: World) -> None:
    job = world.submit()
    assert world.jobs.erase(world.caller, job).outcome == "live"
    world.finish(world.claim())
    assert world.jobs.erase(world.caller, job).outcome == "erased"
    assert world.jobs.read(world.caller, job).outcome == "gone"
    assert world.leftovers() == set()


@pytest.mark.parametrize("call", ["read", "cancel", "erase"])
def test_another_tenant_s_job_does_not_exist(world: World, call: str) -> None:
    job = world.submit()
    answer: Answer = getattr(world.jobs, call)(world.new_caller("other"), job)
    assert answer.outcome == "unknown"


def test_the_window_slides_exactly(world: World) -> None:
    caller = world.new_caller("acme", requests=3)
    outcomes = []
    for _ in range(4):
        outcomes.append(world.jobs.submit(caller, world.submission()).outcome)
        world.pass_ms(10_000)
    assert outcomes == ["accepted", "accepted", "accepted", "limited"]
    world.pass_ms(19_999)
    refused = world.jobs.submit(caller, world.submission())
    assert (refused.outcome, refused.rates[0].reset_ms, refused.rates[0].remaining) == ("limited", 1, 0)
    world.pass_ms(1)
    assert world.jobs.submit(caller, world.submission()).outcome == "accepted"
    assert world.jobs.submit(caller, world.submission()).outcome == "limited"


def test_a_revoked_key_is_unauthorized(world: World) -> None:
    KeyRing(world.redis).revoke(world.caller.key_id)
    assert world.jobs.submit(world.caller, world.submission()).outcome == "unauthorized"


def test_bells_ring_up_to_twice_the_ready_slots(world: World) -> None:
    assert world.jobs.submit(world.caller, world.submission()).rest[1] == 0, "nobody is there to hear a bell"
    world.warm(slots=2)
    rings = [world.jobs.submit(world.caller, world.submission()).rest[1] for _ in range(6)]
    assert rings == [1] * 6, "no bell has been heard yet"
    assert world.sweeps.tick().bells == {"demo": 4}
    world.redis.lpush(key("bells", "demo"), *"abcd")
    assert world.jobs.submit(world.caller, world.submission()).rest[1] == 0
    assert world.sweeps.tick().bells == {}


def test_a_silent_or_leaving_worker_s_slots_no_longer_count(world: World) -> None:
    world.submit()
    world.warm(slots=2)
    world.warm(world.other, slots=3)
    world.worker.leave()
    assert world.jobs.overview(None).rest[0][0].slots == 3
    world.pass_ms(LEASE + 1)
    assert world.jobs.overview(None).rest[0][0].slots == 0


def test_jobs_are_listed_newest_first_by_page_and_status(world: World) -> None:
    jobs = [world.submit() for _ in range(5)]
    world.claim()
    page = world.jobs.list(world.caller, status="", after="", count=2)
    newest = sorted(jobs, reverse=True)
    assert [job.id for job in page.rest[0]] == newest[:2]
    following = world.jobs.list(world.caller, status="", after=page.rest[1], count=10)
    assert [job.id for job in following.rest[0]] == newest[2:]
    assert following.rest[1] == ""
    running = world.jobs.list(world.caller, status="in_progress", after="", count=10)
    assert [job.id for job in running.rest[0]] == [jobs[0]]
