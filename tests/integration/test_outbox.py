"""The outbox: every end of a job is told once in meaning, and nothing about it is lost."""

import json
from datetime import datetime

import pytest

from inferq.keys import key
from inferq.outbox import Outcome
from inferq.webhook_secrets import new_secret
from tests.post import BAD, EVENTS, URL, WAITS, Post
from tests.world import World


@pytest.fixture
def post(world: World) -> Post:
    return Post(world)


def test_a_completed_job_is_told_with_a_thin_payload(post: Post) -> None:
    world = post.world
    job = post.submit(metadata_json='{"order": "7"}')
    assert post.take() == []
    assert world.finish(world.claim(), text="the answer")
    parcel = post.one()
    assert (parcel.id, parcel.attempt, parcel.url) == (f"msg_{job.id}_completed", 1, URL)
    assert parcel.secrets == (post.secret,)
    body = json.loads(parcel.body)
    assert datetime.fromisoformat(body["timestamp"]).timestamp() * 1000 == world.now
    read = world.read(job.id)
    assert body["type"] == "job.completed"
    assert body["data"] == {
        "id": job.id,
        "status": "completed",
        "model": "demo",
        "attempt": 1,
        "created_at": body["timestamp"],
        "started_at": body["timestamp"],
        "completed_at": body["timestamp"],
        "error": None,
        "usage": {"prompt_tokens": read.prompt_tokens, "completion_tokens": read.completion_tokens},
        "output": None,
        "metadata": {"order": "7"},
        "urls": {"self": f"/v1/jobs/{job.id}"},
    }
    assert post.told(parcel) == "delivered"
    (delivery,) = post.log(job.id)
    assert (delivery.status, [(one.number, one.status, one.ms) for one in delivery.attempts]) == (
        "delivered",
        [(1, 204, 12)],
    )


@pytest.mark.parametrize("day", ["1970-01-01", "2000-02-29", "2023-12-31", "2024-02-29", "2026-03-01", "2100-03-01"])
def test_instants_are_right_in_every_year(post: Post, day: str) -> None:
    at = datetime.fromisoformat(f"{day}T23:59:58.007+00:00")
    post.world.now = round(at.timestamp() * 1000)
    post.world.pass_ms(0)
    post.world.jobs.cancel(post.world.caller, post.submit().id)
    post.world.redis.zadd(key("webhook_secrets", "acme"), {post.secret: "+inf"})
    assert json.loads(post.one().body)["timestamp"] == f"{day}T23:59:58.007Z"


def test_every_end_is_told_and_only_what_was_asked_for(post: Post) -> None:
    world = post.world
    cancelled, expired, failed, poison = post.submit(), post.submit(start_ms=1000), post.submit(), post.submit()
    silent = post.submit(hook_events="completed")
    for job in (cancelled, silent):
        world.jobs.cancel(world.caller, job.id)
    world.tick(2)
    world.worker.fail(world.claim(), code="prompt_too_long", message="too long", retryable=False)
    for _ in range(3):
        world.worker.release(world.claim(), strikes=1)
    told = {}
    while parcels := post.take():
        for parcel in parcels:
            body = json.loads(parcel.body)
            told[body["data"]["id"]] = (body["type"], (body["data"]["error"] or {}).get("code"))
            assert post.told(parcel) == "delivered"
    assert told == {
        cancelled.id: ("job.cancelled", None),
        expired.id: ("job.expired", "deadline_exceeded"),
        failed.id: ("job.failed", "prompt_too_long"),
        poison.id: ("job.failed", "poison"),
    }


def test_a_start_is_told_once_however_often_the_run_is_tried(post: Post) -> None:
    world = post.world
    job = post.submit(hook_events="completed started")
    run = world.claim()
    started = post.one()
    assert post.told(started) == "delivered"
    world.worker.release(run)
    world.finish(world.claim())
    events = ["started"]
    while parcels := post.take():
        for parcel in parcels:
            events.append(parcel.id.rsplit("_", 1)[1])
            post.told(parcel)
    assert sorted(events) == ["completed", "started"]
    assert [one.event for one in post.log(job.id)] == ["job.started", "job.completed"]


def test_each_member_of_a_shared_run_has_its_own(post: Post) -> None:
    jobs = [post.submit(fingerprint="same", metadata_json=json.dumps({"n": str(n)})) for n in range(5)]
    post.world.finish(post.world.claim())
    told = set()
    while parcels := post.take():
        for parcel in parcels:
            data = json.loads(parcel.body)["data"]
            told.add((data["id"], data["metadata"]["n"]))
            post.told(parcel)
    assert told == {(job.id, str(n)) for n, job in enumerate(jobs)}


def test_a_cached_answer_is_a_job_that_is_told(post: Post) -> None:
    world = post.world
    world.submit(fingerprint="same")
    world.finish(world.claim(), text="cached")
    job = post.submit(fingerprint="same", hook_output=True)
    assert (job.cache, job.expires_ms) == ("hit", None)
    parcel = post.one()
    assert json.loads(parcel.body)["data"]["output"] == {"text": "cached", "finish_reason": "stop"}
    post.told(parcel)
    assert world.read(job.id).expires_ms == world.now + 60_000


def test_the_output_is_told_when_it_is_asked_for_and_small(post: Post) -> None:
    for text, expected in (("small", "small"), ("x" * 30_000, None), ("\u0001" * 5000, None)):
        post.submit(hook_output=True, metadata_json='{"a":"b"}')
        post.world.finish(post.world.claim(), text=text)
        parcel = post.one()
        data = json.loads(parcel.body)["data"]
        assert (data["output"] or {}).get("text") == expected
        assert data["metadata"] == {"a": "b"}
        assert len(parcel.body) < 20_000
        post.told(parcel)


def test_a_job_is_kept_until_its_last_delivery_has_ended(post: Post) -> None:
    world = post.world
    job = post.submit()
    world.finish(world.claim())
    for wait in WAITS:
        assert post.told(post.one(), BAD) == "again"
        assert post.take() == []
        world.tick(round(wait) + 61)
        assert world.read(job.id).expires_ms is None
    assert post.told(post.one(), BAD) == "dead"
    assert world.read(job.id).expires_ms == world.now + 60_000
    assert [one.id for one in world.operations.dead_deliveries(10)] == [f"msg_{job.id}_completed"]
    world.tick(62)
    assert world.jobs.deliveries(world.caller, job.id).outcome == "gone"
    assert world.leftovers() == set(), "a dead letter goes with its job"


def test_what_a_killed_keeper_had_taken_is_taken_again_and_the_log_says_so(post: Post) -> None:
    world = post.world
    job = post.submit()
    world.finish(world.claim())
    lost = post.one()
    assert post.log(job.id)[0].status == "sending"
    world.pass_ms(19_999)
    assert post.take() == []
    world.pass_ms(1)
    again = post.one()
    assert (again.id, again.attempt) == (lost.id, 2)
    (delivery,) = post.log(job.id)
    assert "keeper" in (delivery.attempts[0].error or "")
    assert delivery.attempts[1].error is None
    # The lost keeper lives after all: its failure changes nothing, its success counts.
    assert post.told(lost, BAD) == "late"
    (delivery,) = post.log(job.id)
    assert (delivery.status, delivery.attempts[0].error) == ("sending", BAD.error)
    assert post.told(again) == "delivered"
    assert post.told(again) == "late", "a replay changes nothing"
    assert len(post.log(job.id)[0].attempts) == 2


def test_a_late_success_ends_the_delivery(post: Post) -> None:
    world = post.world
    job = post.submit()
    world.finish(world.claim())
    lost = post.one()
    world.pass_ms(20_000)
    assert post.told(lost) == "delivered"
    assert post.take() == []
    assert post.log(job.id)[0].status == "delivered"


def test_the_log_keeps_the_last_hundred_attempts(post: Post) -> None:
    world = post.world
    job = post.ended()
    for _ in range(103):
        post.one()
        world.pass_ms(20_001)
    attempts = post.log(job.id)[0].attempts
    assert [attempts[0].number, attempts[-1].number, len(attempts)] == [4, 103, 100]


def test_a_word_is_published_when_there_is_something_to_send(post: Post) -> None:
    with post.world.redis.pubsub() as heard:
        heard.subscribe(key("outbox"))
        heard.get_message(timeout=1)
        post.ended()
        assert heard.get_message(timeout=1)["type"] == "message"


def test_what_a_tenant_can_leave_in_redis_is_bounded(post: Post) -> None:
    world = post.world
    secrets = [new_secret() for _ in range(9)]
    for secret in secrets:
        world.jobs.rotate_secret(world.caller, secret, 86_400_000)
        world.pass_ms(1)
    post.ended()
    parcel = post.one()
    assert (len(parcel.secrets), parcel.secrets[0]) == (5, secrets[-1])
    gone = {f"https://hooks.example.com/{number}": number for number in range(1000)}
    world.redis.zadd(key("disabled", "acme"), gone)
    assert post.told(parcel, Outcome(good=False, ms=1, status=410, error="gone", gone=True)) == "dead"
    assert world.redis.zcard(key("disabled", "acme")) == 1000
    assert world.redis.zscore(key("disabled", "acme"), URL) == world.now
    world.redis.hset(key("memory"), mapping={"asked_ms": world.now, "full": "1"})
    assert world.jobs.rotate_secret(world.caller, new_secret(), 0).outcome == "no_memory"
    assert world.jobs.ping(world.caller, "msg_y_ping", URL).outcome == "no_memory"


def test_those_who_share_a_run_and_are_told_are_fewer(post: Post) -> None:
    jobs = [post.submit(fingerprint="same") for _ in range(65)]
    assert [job.cache for job in jobs] == ["miss", *["coalesced"] * 63, "miss"]


def test_redeliver_sends_the_same_event_again(post: Post) -> None:
    world = post.world
    job = post.submit()
    world.finish(world.claim())
    first = post.one()
    post.told(first)
    assert world.read(job.id).expires_ms
    assert world.jobs.redeliver(world.caller, job.id, first.id).outcome == "deliveries"
    assert world.read(job.id).expires_ms is None
    again = post.one()
    assert (again.id, again.body, again.attempt) == (first.id, first.body, 2)
    assert world.jobs.redeliver(world.caller, job.id, first.id).rest[0][0].status == "sending"
    assert post.take() == [], "it is under way already"
    post.told(again)
    assert world.read(job.id).expires_ms
    assert world.jobs.redeliver(world.caller, job.id, "msg_nonsense").outcome == "no_delivery"
    other = world.new_caller("other")
    assert world.jobs.redeliver(other, job.id, first.id).outcome == "unknown"


def test_operators_send_dead_letters_again_or_drop_them(post: Post) -> None:
    world = post.world
    jobs = [post.submit() for _ in range(2)]
    for _ in jobs:
        world.finish(world.claim())
    for _ in range(len(WAITS) + 1):
        for _ in jobs:
            post.told(post.one(), BAD)
            world.pass_ms(301_000)
    dead = {one.id for one in world.operations.dead_deliveries(10)}
    assert dead == {f"msg_{job.id}_completed" for job in jobs}
    world.operations.retry_delivery(f"msg_{jobs[0].id}_completed")
    world.operations.drop_delivery(f"msg_{jobs[1].id}_completed")
    assert world.operations.dead_deliveries(10) == []
    world.pass_ms(301_000)
    assert post.told(post.one()) == "delivered"
    assert world.jobs.deliveries(world.caller, jobs[1].id).rest[0] == []


def test_erasing_a_job_erases_its_deliveries(post: Post) -> None:
    world = post.world
    job = post.submit()
    world.finish(world.claim())
    under_way = post.one()
    assert world.jobs.erase(world.caller, job.id).outcome == "erased"
    assert post.told(under_way) == "forgotten"
    assert world.leftovers() == set()


def test_secrets_sign_side_by_side_while_they_rotate(post: Post) -> None:
    world = post.world
    second = new_secret()
    assert world.jobs.rotate_secret(world.caller, second, 60_000).rest == (world.now + 60_000,)
    third = new_secret()
    world.jobs.rotate_secret(world.caller, third, 3_600_000)
    post.submit()
    world.finish(world.claim())
    parcel = post.one()
    assert parcel.secrets[0] == third
    assert set(parcel.secrets) == {post.secret, second, third}
    post.told(parcel, BAD)
    world.pass_ms(60_001)
    assert set(post.one().secrets) == {second, third}, "a secret that ends does not live longer by another rotation"
    last = new_secret()
    for _ in range(2):  # a replay
        assert world.jobs.rotate_secret(world.caller, last, 0).outcome == "rotated"
    assert world.redis.zrange(key("webhook_secrets", "acme"), 0, -1) == [last]


def test_without_a_secret_nothing_is_accepted_that_would_have_to_be_signed(world: World) -> None:
    refused = world.jobs.submit(world.caller, world.submission(hook_url=URL, hook_events=EVENTS))
    assert refused.outcome == "no_secret"
    assert world.jobs.ping(world.caller, "msg_x_ping", URL).outcome == "no_secret"


def test_a_test_event_is_tried_once_and_forgotten_after_an_hour(post: Post) -> None:
    world = post.world
    world.jobs.ping(world.caller, "msg_x_ping", URL)
    parcel = post.one()
    assert json.loads(parcel.body)["type"] == "ping"
    assert post.told(parcel, BAD) == "dead"
    (delivery,) = world.jobs.ping_result(world.caller, "msg_x_ping").rest[0]
    assert (delivery.status, delivery.attempts[0].status) == ("dead", 500)
    assert world.operations.dead_deliveries(10) == []
    assert 0 < world.redis.pttl(key("delivery", "msg_x_ping")) <= 3_600_000
    assert world.jobs.ping_result(world.new_caller("other"), "msg_x_ping").outcome == "unknown"


def test_the_outbox_lacks_a_bell_while_something_can_be_sent(post: Post) -> None:
    world = post.world
    assert not post.outbox.lacks_bell()
    post.submit()
    world.finish(world.claim())
    assert post.outbox.lacks_bell()
    world.redis.lpush(key("deliver_bells"), "bell")
    assert not post.outbox.lacks_bell()
    world.redis.delete(key("deliver_bells"))
    post.one()
    assert not post.outbox.lacks_bell()


def test_a_dead_letter_s_requeued_jobs_are_told_of_too(post: Post) -> None:
    world = post.world
    post.submit()
    for _ in range(3):
        world.worker.release(world.claim(), strikes=1)
    post.told(post.one())
    ((_, again),) = world.operations.requeue(world.operations.dead_letters(1)[0].run)
    world.finish(world.claim())
    assert post.one().id == f"msg_{again}_completed"
