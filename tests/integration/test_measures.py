"""What scripts count for the keeper to export."""

from prometheus_client.core import Metric

from inferq.job_store import JobStore, ServiceLimits
from inferq.keys import key
from inferq.scripts import Scripts
from tests.post import BAD, Post
from tests.world import CLOCK, LEASE, World
from workers.queue_collector import QueueCollector


def exported(world: World) -> dict[tuple[str, ...], float]:
    """Values by name and label values, the engine's left out."""
    scripts = Scripts(world.redis, clock=CLOCK)
    collector = QueueCollector(scripts, JobStore(scripts, ServiceLimits(requests=1, polls=1)))
    families: list[Metric] = list(collector.collect())
    assert [family.name for family in families] == [family.name for family in collector.describe()]
    return {
        (sample.name.removeprefix("inferq_"), *_without_model(sample.labels)): sample.value
        for family in families
        for sample in family.samples
    }


def _without_model(labels: dict[str, str]) -> list[str]:
    return [value for label, value in labels.items() if label != "model"]


def buckets(found: dict[tuple[str, ...], float], name: str, *bounds: str) -> list[float]:
    return [found[f"{name}_bucket", "normal", bound] for bound in bounds]


def test_a_job_s_wait_and_duration_are_counted_once(world: World) -> None:
    world.submit()
    world.pass_ms(700)
    run = world.claim()
    world.pass_ms(4000)
    assert world.finish(run)
    assert world.finish(run), "a repeated call"
    found = exported(world)
    assert found["jobs_finished_total", "normal", "completed"] == 1
    assert found["job_queue_wait_seconds_count", "normal"] == 1
    assert found["job_queue_wait_seconds_sum", "normal"] == 0.7
    assert buckets(found, "job_queue_wait_seconds", "0.5", "1.0") == [0, 1]
    assert found["job_duration_seconds_sum", "normal"] == 4.7
    assert buckets(found, "job_duration_seconds", "2.5", "5.0") == [0, 1]
    assert found["fenced_total", "complete"] == 0


def test_what_waits_while_there_is_no_worker_is_told_and_can_be_asked_of_redis(world: World) -> None:
    """What an autoscaler starts the first worker by: the keepers' metrics, or the length of the queue itself."""
    for _ in range(2):
        world.submit()
    found = exported(world)
    assert (found["queue_runs", "queue"], found["runs_in_progress",], found["queue_paused",]) == (2, 0, 0)
    assert found["redis_up",] == 1
    (engine,) = world.redis.smembers(key("engines"))
    assert world.redis.type(key("queue", engine)) == "zset"
    assert world.redis.zcard(key("queue", engine)) == 2
    assert world.redis.llen(key("bells", engine)) == 0, "bells would not do: none is rung for nobody"
    run = world.claim()
    found = exported(world)
    assert (found["queue_runs", "queue"], found["runs_in_progress",]) == (1, 1)
    world.finish(run)
    assert exported(world)["runs_in_progress",] == 0


def test_a_bound_belongs_to_its_bucket(world: World) -> None:
    world.submit()
    world.pass_ms(500)
    world.claim()
    assert buckets(exported(world), "job_queue_wait_seconds", "0.25", "0.5") == [0, 1]


def test_a_wait_beyond_all_bounds_is_counted_in_the_last_bucket(world: World) -> None:
    world.submit()
    world.pass_ms(7_200_000)
    world.claim()
    found = exported(world)
    assert buckets(found, "job_queue_wait_seconds", "1800.0", "+Inf") == [0, 1]


def test_members_of_a_shared_run_are_jobs_of_their_own(world: World) -> None:
    for _ in range(3):
        world.submit(fingerprint="same")
    world.finish(world.claim())
    assert exported(world)["jobs_finished_total", "normal", "completed"] == 3


def test_what_waits(world: World) -> None:
    world.tenants.set("acme", max_priority="high")
    for priority in ("high", "normal", "normal", "low"):
        world.submit(priority=priority)
    world.pass_ms(2000)
    world.claim()
    found = exported(world)
    assert [found["queue_depth", name] for name in ("high", "normal", "low")] == [0, 2, 1]
    assert found["queue_runs", "queue"] == 3
    assert found["runs_in_progress",] == 1
    assert found["queue_oldest_seconds",] == 2
    assert found["queue_tokens",] == 30
    assert ("queue_predicted_wait_seconds",) not in found, "nobody can say without a worker"


def test_a_cancelled_run_is_timed_until_its_engine_has_freed_it(world: World) -> None:
    job = world.submit()
    run = world.claim()
    assert world.jobs.cancel(world.caller, job).outcome == "cancelling"
    world.pass_ms(300)
    assert world.worker.release(run)[0] == "cancelled"
    found = exported(world)
    assert found["cancel_freed_seconds_count",] == 1
    assert found["cancel_freed_seconds_sum",] == 0.3
    assert found["jobs_finished_total", "normal", "cancelled"] == 1


def test_rescues_and_writes_that_come_too_late(world: World) -> None:
    world.submit()
    run = world.claim()
    assert world.tick(2 * LEASE // 1000) == [run.id]
    assert not world.finish(run)
    assert not world.worker.fail(run, code="late", message="late", retryable=True)
    assert world.worker.release(run)[0] == "refused"
    found = exported(world)
    assert found["rescues_total",] == 1
    assert [found["fenced_total", step] for step in ("complete", "fail", "release")] == [1, 1, 1]


def test_strikes_and_runs_given_up(world: World) -> None:
    world.submit()
    for _ in range(3):
        world.worker.release(world.claim(), strikes=1)
    found = exported(world)
    assert found["strikes_total",] == 3
    assert found["runs_given_up_total", "poison"] == 1
    assert found["dead_letters",] == 1
    assert found["jobs_finished_total", "normal", "failed"] == 1


def test_an_engine_dies_once_however_often_its_worker_says_so(world: World) -> None:
    world.warm()
    assert exported(world)["workers", "ready"] == 1
    for _ in range(2):
        world.worker.heartbeat([], {"state": "dead", "slots": "0", "running": "0"})
    found = exported(world)
    assert found["engine_deaths_total",] == 1
    assert (found["workers", "ready"], found["workers", "dead"], found["engine_slots",]) == (0, 1, 0)


def test_the_backlog_of_deliveries(world: World) -> None:
    post = Post(world)
    job = post.ended()
    world.pass_ms(5000)
    found = exported(world)
    assert (found["webhook_backlog",], found["webhook_oldest_seconds",]) == (1, 5)
    for _ in range(3):
        assert post.told(post.one(), BAD)
        world.pass_ms(400_000)
    found = exported(world)
    assert (found["webhook_backlog",], found["webhook_oldest_seconds",]) == (0, 0)
    assert (found["webhook_deliveries_total", "dead"], found["webhook_dead_letters",]) == (1, 1)
    (delivery,) = post.log(job.id)
    assert world.jobs.redeliver(world.caller, job.id, delivery.id).outcome == "deliveries"
    assert exported(world)["webhook_backlog",] == 1
    assert post.told(post.one()) == "delivered"
    found = exported(world)
    assert (found["webhook_backlog",], found["webhook_deliveries_total", "delivered"]) == (0, 1)


def test_a_forgotten_job_s_delivery_leaves_no_backlog(world: World) -> None:
    post = Post(world)
    job = post.ended()
    world.redis.hset(f"iq:job:{job.id}", "open", 0)
    world.jobs.erase(world.caller, job.id)
    assert exported(world)["webhook_backlog",] == 0
