"""Receivers: when each is tried, how many at once, whom it may delay."""

import pytest

from inferq.keys import key
from inferq.outbox import Outcome
from tests.post import BAD, EVENTS, GOOD, URL, WAITS, Post
from tests.world import World


@pytest.fixture
def post(world: World) -> Post:
    return Post(world)


def test_retries_follow_the_schedule_with_jitter_and_the_receiver_s_own_wish(post: Post) -> None:
    world = post.world
    post.submit()
    world.finish(world.claim())
    parcel = post.one()
    assert post.outbox.attempted(parcel, BAD, 1.0) == "again"
    due = world.redis.zscore(key("due", "acme https://hooks.example.com"), parcel.id)
    assert due == world.now + 5500
    world.pass_ms(5499)
    assert post.take() == []
    world.pass_ms(1)
    asked = Outcome(good=False, ms=1, status=503, error="busy", down=True, retry_ms=3_600_000)
    assert post.told(post.one(), asked) == "again"
    world.pass_ms(3_599_999)
    assert post.take() == []
    world.pass_ms(1)
    assert post.one().attempt == 3


def test_gone_disables_the_address_for_its_tenant_until_a_test_succeeds(post: Post) -> None:
    world = post.world
    job, waiting = post.submit(), post.submit()
    for _ in range(2):
        world.finish(world.claim())
    assert post.told(post.one(), Outcome(good=False, ms=1, status=410, error="gone", gone=True)) == "dead"
    assert post.take() == []
    reasons = {one.reason for name in (job, waiting) for one in post.log(name.id)}
    assert reasons == {
        "The receiver answered 410 Gone: the address is disabled.",
        "The address is disabled: it answered 410 Gone before.",
    }
    refused = world.jobs.submit(world.caller, world.submission(hook_url=URL, hook_events=EVENTS))
    assert refused.outcome == "disabled"
    other = world.new_caller("other")
    world.operations.rotate_secret("other", 0)
    post.submit(other)
    assert world.jobs.redeliver(world.caller, job.id, f"msg_{job.id}_completed").outcome == "disabled"
    world.jobs.ping(world.caller, "msg_x_ping", URL)
    assert post.told(post.one()) == "delivered"
    post.submit()
    again = world.jobs.redeliver(world.caller, job.id, f"msg_{job.id}_completed")
    assert again.rest[0][0].status == "pending"
    assert post.told(post.one()) == "delivered"


def test_a_dead_receiver_is_tried_by_one_at_a_time_and_then_rarely(post: Post) -> None:
    world = post.world
    for _ in range(8):
        post.submit()
        world.finish(world.claim())
    for number in range(5):
        parcel = post.one()
        assert post.told(parcel, BAD) == "again", number
    assert post.take() == [], "its breaker is open"
    world.pass_ms(5_001)
    parcel = post.one()
    assert post.take() == [], "one looks whether it is back"
    assert post.told(parcel) == "delivered"
    assert len(post.take()) == 4, "it is, and gets four at once"


def test_slow_and_dead_receivers_are_sent_to_from_other_places(post: Post) -> None:
    world = post.world
    for number in range(60):
        post.ended(hook_url=f"https://dead{number}.example.com/")
    parcels = post.take(8)
    assert len(parcels) == 8
    assert not any(parcel.proven for parcel in parcels)
    post.prove("https://well.example.com")
    for _ in range(6):
        post.ended(hook_url="https://well.example.com/")
    parcels, _ = post.outbox.take(proven=8, unproven=0)
    assert [parcel.url for parcel in parcels] == ["https://well.example.com/"] * 4
    assert all(parcel.proven for parcel in parcels)
    assert post.told(parcels[0], Outcome(good=True, ms=1001, status=200)) == "delivered"
    assert post.outbox.take(proven=8, unproven=0)[0] == [], "it answers, but not quickly"
    for parcel in parcels[1:]:
        post.told(parcel)
    post.told(
        post.outbox.take(proven=1, unproven=0)[0][0], Outcome(good=False, ms=2000, error="Not sent.", unsent=True)
    )
    post.told(post.outbox.take(proven=1, unproven=0)[0][0], BAD)
    assert world.redis.hget(key("receiver", "acme https://well.example.com"), "standing") == "unproven"


def test_tenants_take_turns_whatever_has_waited_longer(post: Post) -> None:
    world = post.world
    other = world.new_caller("other")
    world.operations.rotate_secret("other", 0)
    for number in range(40):
        post.ended(hook_url=f"https://dead{number}.example.com/")
    assert len(post.outbox.take(proven=0, unproven=3)[0]) == 3
    world.pass_ms(100)
    for number in range(2):
        post.ended(other, hook_url=f"https://late{number}.example.com/")
    for _ in range(2):
        urls = [parcel.url for parcel in post.outbox.take(proven=0, unproven=2)[0]]
        assert len([url for url in urls if "late" in url]) == 1, urls
    assert len(post.outbox.take(proven=0, unproven=9)[0]) == 9, "and when nobody else waits it has all turns"


def test_what_is_hopeless_holds_nobody_up(post: Post) -> None:
    world = post.world
    other = world.new_caller("other")
    world.operations.rotate_secret("other", 0)
    for _ in range(250):
        post.ended()
    world.redis.zadd(key("disabled", "acme"), {URL: world.now})
    world.pass_ms(10)
    post.ended(other, hook_url="https://late.example.com/")
    parcels, more = post.outbox.take(proven=9, unproven=9)
    while more and not parcels:
        parcels, more = post.outbox.take(proven=9, unproven=9)
    assert [parcel.url for parcel in parcels] == ["https://late.example.com/"]
    while more:
        _, more = post.outbox.take(proven=9, unproven=9)
    assert len(world.operations.dead_deliveries(1000)) == 250


def test_a_delivery_is_given_up_when_its_receiver_has_been_away_for_days(post: Post) -> None:
    world = post.world
    job = post.ended()
    world.pass_ms(10 * 86_400_000)
    assert post.told(post.one(), BAD) == "again", "nobody has tried yet, however long keepers were away"
    assert post.take() == []
    world.pass_ms(5_500)
    assert post.take() == []
    assert post.log(job.id)[0].status == "dead"


def test_what_a_receiver_asks_for_does_not_make_it_late(post: Post) -> None:
    world = post.world
    post.ended()
    busy = Outcome(good=False, ms=1, status=404, error="later", retry_ms=10**12)
    for number in range(len(WAITS)):
        assert post.told(post.one(), busy) == "again", number
        world.pass_ms(86_399_999)
        assert post.take() == [], "a day at most"
        world.pass_ms(1)
    assert post.told(post.one(), busy) == "dead"


def test_a_failure_is_counted_once_however_often_it_is_told(post: Post) -> None:
    world = post.world
    job = post.ended()
    parcel = post.one()
    assert post.told(parcel, BAD) == "again"
    due = post.log(job.id)[0].due_ms
    world.pass_ms(1000)
    assert post.told(parcel, BAD) == "late"
    assert post.log(job.id)[0].due_ms == due
    assert world.redis.hget(key("receiver", "acme https://hooks.example.com"), "failures") == "1"


def test_only_failures_in_a_row_that_concern_all_open_a_breaker(post: Post) -> None:
    world = post.world
    for _ in range(30):
        post.ended()
    wrong = Outcome(good=False, ms=1, status=404, error="no such path")
    unsent = Outcome(good=False, ms=1, error="Not sent.", unsent=True)
    for outcome in (BAD, BAD, BAD, BAD, wrong, unsent):
        post.told(post.one(), outcome)
    assert post.told(post.one(), GOOD) == "delivered"
    for parcel in post.take():
        post.told(parcel, BAD)
    post.told(post.one(), wrong)
    assert world.redis.hget(key("receiver", "acme https://hooks.example.com"), "failures") == "4"
    post.told(post.one(), BAD)
    assert post.take() == [], "five in a row, not counting an answer that is wrong for one alone"
    assert 0 < world.redis.pttl(key("receiver", "acme https://hooks.example.com")) <= 86_400_000


def test_asking_again_begins_the_schedule_again_and_passes_the_breaker(post: Post) -> None:
    world = post.world
    jobs = [post.ended() for _ in range(5)]
    names = [f"msg_{job.id}_completed" for job in jobs]
    for _ in range(5):
        post.told(post.one(), BAD)
    assert post.take() == [], "the breaker is open"
    world.jobs.redeliver(world.caller, jobs[0].id, names[0])
    world.pass_ms(1)
    for _ in range(len(WAITS)):
        parcel = post.one()
        assert (parcel.id, post.told(parcel, BAD)) == (names[0], "again")
        world.jobs.redeliver(world.caller, jobs[0].id, names[0])
    assert world.redis.hget(key("delivery", names[0]), "step") == "0"
    world.redis.hset(key("receiver", "acme https://hooks.example.com"), "open_until_ms", world.now + 60_000)
    world.jobs.ping(world.caller, "msg_x_ping", URL)
    assert post.one().id == "msg_x_ping", "a test waits for nobody"
