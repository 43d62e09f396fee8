"""Whose turn it is: shares of service by weight, nobody waits for ever, refunds, positions and estimates that hold."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.credentials import Credential
from inferq.ids import new_id
from inferq.jobs import JobStatus
from inferq.keys import key
from inferq.run_store import ClaimedRun
from tests.redis_server import RedisServer
from tests.world import World


class Tenants:
    """Tenants by name, each with a key; jobs remember whose they are."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.callers: dict[str, Credential] = {}
        self.owner: dict[str, str] = {}

    def add(self, name: str, weight: float = 1.0, max_priority: str = "high") -> None:
        self.callers[name] = self.world.new_caller(name)
        self.world.tenants.set(name, weight=weight, max_priority=max_priority)

    def submit(self, name: str, count: int = 1, **changes: Any) -> list[str]:
        jobs = []
        for _ in range(count):
            run_id = new_id()
            jobs.append(self.world.submit(self.callers[name], run_id=run_id, **changes))
            self.owner[run_id] = name
        return jobs

    def served(self, count: int) -> list[str]:
        """Claim and finish so many runs; returns whose they were, in order."""
        names = []
        for _ in range(count):
            run = self.world.claim()
            names.append(self.owner[run.id])
            self.complete(run)
        return names

    def measured(self) -> None:
        """One slot, which has just done 100 tokens of "a" in a second."""
        self.world.warm(slots=1)
        self.submit("a", cost=100)
        run = self.world.claim()
        self.world.pass_ms(1000)
        self.complete(run)

    def complete(self, run: ClaimedRun) -> None:
        assert self.world.finish(run)


@pytest.fixture
def tenants(world: World) -> Tenants:
    return Tenants(world)


def test_a_tenant_that_comes_late_with_little_does_not_wait_for_one_that_sent_much(tenants: Tenants) -> None:
    tenants.add("noisy")
    tenants.add("quiet")
    tenants.submit("noisy", 200)
    tenants.served(3)
    (job,) = tenants.submit("quiet")
    assert tenants.world.read(job, tenants.callers["quiet"]).position <= 2
    assert "quiet" in tenants.served(2)


def test_tenants_are_served_by_weight_in_tokens(tenants: Tenants) -> None:
    tenants.add("heavy", weight=3)
    tenants.add("light", weight=1)
    tenants.submit("heavy", 150, cost=100)
    tenants.submit("light", 200, cost=25)
    tokens: Counter[str] = Counter()
    for name in tenants.served(160):
        tokens[name] += 100 if name == "heavy" else 25
    assert tokens["heavy"] / tokens["light"] == pytest.approx(3, rel=0.1)


def test_a_tenant_s_priorities_share_its_weight_and_do_not_take_from_others(tenants: Tenants) -> None:
    tenants.add("mixed")
    tenants.add("plain")
    for _ in range(120):
        for priority in ("high", "normal", "low"):
            tenants.submit("mixed", priority=priority, metadata_json=priority)
        tenants.submit("plain", 3)
    served: Counter[str] = Counter()
    for _ in range(280):
        run = tenants.world.claim()
        (job,) = tenants.world.redis.zrange(key("members", run.id), 0, -1)
        name = tenants.owner[run.id]
        served[name] += 1
        if name == "mixed":
            served[tenants.world.redis.hget(key("job", job), "priority")] += 1
        tenants.complete(run)
    assert served["mixed"] == pytest.approx(served["plain"], rel=0.1)
    for priority, share in (("high", 4 / 7), ("normal", 2 / 7), ("low", 1 / 7)):
        assert served[priority] / served["mixed"] == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("order", [("low", "normal"), ("low", "normal", "high"), ("high", "normal", "low")])
def test_a_tenant_gets_no_more_by_the_order_of_its_priorities(tenants: Tenants, order: tuple[str, ...]) -> None:
    """All of one priority before the first of the next: what waits was given its tag when less of the tenant waited."""
    tenants.add("sly")
    tenants.add("plain")
    for priority in order:
        tenants.submit("sly", 200, priority=priority)
    tenants.submit("plain", 400)
    served: Counter[str] = Counter()
    for _ in range(240):
        run = tenants.world.claim()
        (job,) = tenants.world.redis.zrange(key("members", run.id), 0, -1)
        served[tenants.owner[run.id]] += 1
        served[f"{tenants.owner[run.id]} {tenants.world.redis.hget(key('job', job), 'priority')}"] += 1
        tenants.complete(run)
    assert served["sly"] == pytest.approx(120, rel=0.1)
    parts = {"high": 4, "normal": 2, "low": 1}
    for priority in order:
        share = parts[priority] / sum(parts[one] for one in order)
        assert served[f"sly {priority}"] == pytest.approx(share * served["sly"], rel=0.15, abs=3)


def test_a_flow_that_is_put_back_waits_as_if_it_had_been_slower_since_it_was_last_served(tenants: Tenants) -> None:
    tenants.add("a")
    tenants.submit("a", 8, priority="low", cost=100)
    tenants.served(5)
    tenants.submit("a", priority="normal", cost=10_000)
    run = tenants.world.claim()
    assert tenants.world.redis.hget(key("run", run.id), "tag") == "800000", (
        "500 tokens served, and 100 at a third of the pace"
    )


def test_a_claim_that_would_put_back_very_many_serves_somebody(tenants: Tenants) -> None:
    """Six hundred tenants have begun to use a second priority, each with something to put back."""
    for number in range(600):
        tenants.add(f"t{number}")
        tenants.submit(f"t{number}", priority="low", cost=10, max_depth=5000)
        tenants.submit(f"t{number}", priority="normal", cost=100, max_depth=5000)
    assert len(tenants.served(3)) == 3


def test_a_suspect_has_no_position(tenants: Tenants) -> None:
    tenants.add("a")
    tenants.submit("a", 5)
    world = tenants.world
    run = world.claim()
    (job,) = world.redis.zrange(key("members", run.id), 0, -1)
    world.worker.release(run, strikes=1)
    assert (world.read(job, tenants.callers["a"]).position, world.read(job, tenants.callers["a"]).wait_ms) == (
        None,
        None,
    )


def test_a_priority_above_the_highest_is_accepted_as_the_highest(tenants: Tenants) -> None:
    tenants.add("modest", max_priority="normal")
    (job,) = tenants.submit("modest", priority="high")
    assert tenants.world.read(job, tenants.callers["modest"]).priority == "normal"
    batch = tenants.world.new_caller("modest", max_priority="low")
    assert tenants.world.read(tenants.world.submit(batch, priority="high"), batch).priority == "low"


def test_what_leaves_unrun_and_what_was_reserved_in_vain_is_given_back(tenants: Tenants) -> None:
    world = tenants.world
    for name in ("a", "b"):
        tenants.add(name)
    tenants.submit("b", 4, cost=1000)
    cancelled = tenants.submit("a", 3, cost=1000)
    for job in cancelled:
        world.jobs.cancel(tenants.callers["a"], job)
    (job,) = tenants.submit("a", cost=1000)
    assert world.read(job, tenants.callers["a"]).position <= 2, "three jobs that never ran cost nothing"
    flow = "a/normal"
    before = world.redis.zscore(key("flows", "demo"), flow)
    while world.redis.zscore(key("queue", "demo"), (run := world.redis.hget(key("job", job), "run"))) is not None:
        tenants.complete(world.claim())
    assert run
    after = world.redis.zscore(key("flows", "demo"), flow) or 0
    assert after < before, "of 1,000 tokens five were used"


def test_virtual_time_never_goes_back_and_an_idle_tenant_saves_nothing_up(tenants: Tenants) -> None:
    tenants.add("busy")
    tenants.add("idle")
    tenants.submit("busy", 50)
    tenants.served(40)
    tenants.submit("idle", 20)
    names = tenants.served(12)
    assert 4 <= names.count("busy") <= 8, "who was idle has its share from now on, not for the past"


@given(plan=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2000), st.integers(1, 6)), min_size=5, max_size=40))
def test_no_flow_waits_for_ever(server: RedisServer, plan: list[tuple[int, int, int]]) -> None:
    """However others come and go, a job is served before the others have had more than their share since it came."""
    with server.client() as redis:
        tenants = Tenants(World(redis))
        weights = [0.25, 0.5, 1.0, 2.0, 4.0]
        for number, weight in enumerate(weights):
            tenants.add(f"t{number}", weight=weight)
        tenants.add("patient", weight=0.25)
        tenants.submit("t4", 5, cost=500)
        tenants.submit("patient", cost=100)
        costs: dict[str, int] = {}
        others = 0
        for who, cost, count in plan * 4:
            for _ in range(count):
                run_id = new_id()
                tenants.world.submit(tenants.callers[f"t{who}"], run_id=run_id, cost=cost)
                tenants.owner[run_id], costs[run_id] = f"t{who}", cost
            run = tenants.world.claim()
            if tenants.owner[run.id] == "patient":
                break
            others += costs.get(run.id, 500)
            tenants.complete(run)
        else:
            # It has 1/32 of all weights, so by then the others may have had 31 times its 100 tokens, and a run each.
            assert (
                others <= 31 * 100 + sum(max((c for w, c, _ in plan if w == who), default=0) for who in range(5)) + 2500
            )


def test_position_is_the_rank_and_the_estimate_comes_from_the_measured_rate(tenants: Tenants) -> None:
    world = tenants.world
    tenants.add("a")
    world.warm(slots=2)
    (first,) = tenants.submit("a", cost=100)
    assert world.read(first, tenants.callers["a"]).wait_ms is None, "nobody has measured anything"
    run = world.claim()
    world.pass_ms(2000)
    tenants.complete(run)  # 100 tokens in 2 s in one of two slots: 100 tokens a second in both
    tenants.submit("a", 2, cost=100)
    (soon,) = tenants.submit("a", cost=100)
    assert world.read(soon, tenants.callers["a"]).wait_ms == 1000, "two slots are free, and two runs come first"
    for _ in range(2):
        world.claim()
    jobs = [soon, *tenants.submit("a", 9, cost=100)]
    read = [world.read(job, tenants.callers["a"]) for job in jobs]
    assert [job.position for job in read] == list(range(1, 11))
    assert [job.wait_ms for job in read] == pytest.approx([1000.0 * n for n in range(1, 11)], rel=0.02)
    world.pass_ms(13_000)
    world.sweeps.tick()
    assert world.read(jobs[0], tenants.callers["a"]).wait_ms is None, "without a ready worker nobody can say"


def test_the_estimate_is_what_then_happens(tenants: Tenants) -> None:
    """Four slots, three tenants, runs of different lengths: each job's wait against what was said when it came."""
    world = tenants.world
    for name, weight in (("a", 1), ("b", 1), ("c", 2)):
        tenants.add(name, weight=weight)
    running: list[tuple[int, ClaimedRun]] = []

    def advance(ms: int) -> None:
        for _ in range(0, ms, 100):
            world.pass_ms(100)
            world.warm(slots=4)
            for entry in [one for one in running if one[0] <= world.now]:
                running.remove(entry)
                tenants.complete(entry[1])
            while len(running) < 4 and (claimed := world.worker.claim(new_id())[0]):
                cost = int(world.redis.hget(key("run", claimed.id), "cost") or 0)
                running.append((world.now + 10 * cost, claimed))  # 100 tokens a second and slot

    tenants.submit("a", 8, cost=200)
    advance(6000)
    jobs = []
    for number in range(60):
        name = "abc"[number % 3]
        jobs += [(name, job) for job in tenants.submit(name, cost=(100, 200, 300)[number % 7 % 3])]
    said = {job: world.read(job, tenants.callers[name]).wait_ms for name, job in jobs}
    began = world.now
    advance(45_000)
    for name, job in jobs:
        found = world.read(job, tenants.callers[name])
        assert found.status is JobStatus.COMPLETED
        assert said[job] == pytest.approx(found.started_ms - began, rel=0.35, abs=1500)


def test_a_job_that_would_start_too_late_is_refused_with_the_time_to_come_back(tenants: Tenants) -> None:
    world = tenants.world
    tenants.add("a")
    tenants.measured()
    tenants.submit("a", 10, cost=100)
    refused = world.jobs.submit(tenants.callers["a"], world.submission(cost=100, start_ms=5000))
    assert (refused.outcome, refused.rest[0]) == ("late", 11_000)
    assert world.jobs.submit(tenants.callers["a"], world.submission(cost=100, start_ms=15_000)).outcome == "accepted"


def test_an_estimate_is_taken_with_caution_and_the_longer_one_of_two_counts(tenants: Tenants) -> None:
    world = tenants.world
    tenants.add("a")
    tenants.measured()
    tenants.submit("a", 11, cost=100)
    # The twelfth: 11 s as the order stands, 12 s by its flow's share, a quarter more for caution.
    for start_ms, outcome in ((14_000, "late"), (16_000, "accepted")):
        submitted = world.jobs.submit(tenants.callers["a"], world.submission(cost=100, start_ms=start_ms))
        assert submitted.outcome == outcome, start_ms


def test_too_many_tokens_in_the_queue_are_refused(tenants: Tenants) -> None:
    world = tenants.world
    tenants.add("a")
    tenants.submit("a", 2, cost=500, max_tokens=1000)
    refused = world.jobs.submit(tenants.callers["a"], world.submission(cost=1, max_tokens=1000))
    assert (refused.outcome, refused.rest) == ("full", ("tokens", -1))
    tenants.served(1)
    assert world.jobs.submit(tenants.callers["a"], world.submission(cost=1, max_tokens=1000)).outcome == "accepted"


def test_usage_counts_what_a_tenant_did(tenants: Tenants) -> None:
    world = tenants.world
    tenants.add("a", weight=2)
    fingerprint = new_id()
    tenants.submit("a", fingerprint=fingerprint)
    tenants.served(1)
    assert world.jobs.submit(tenants.callers["a"], world.submission(fingerprint=fingerprint)).outcome == "hit"
    (waits,) = tenants.submit("a", priority="low")
    usage = world.jobs.usage(tenants.callers["a"], 2).rest[0]
    assert (usage.weight, usage.in_flight, usage.waiting) == (2.0, 1, {"high": 0, "normal": 0, "low": 1})
    (day,) = usage.days.values()
    assert day == {
        "submitted": 2, "hits": 1, "completed": 1, "tokens": 5, "prompt_tokens": 3, "completion_tokens": 2,
    }  # fmt: skip
    world.jobs.cancel(tenants.callers["a"], waits)
    assert world.tenants.usage("a", 1).days == {next(iter(usage.days)): day | {"cancelled": 1}}
    assert world.tenants.usage("a", 1).in_flight == 0


def test_usage_looks_back_no_further_than_it_is_kept(world: World) -> None:
    today = world.now // 86_400_000
    for ago in (39, 40):
        world.redis.hset(key("usage", "acme", today - ago), "submitted", 1)
    assert len(world.tenants.usage("acme", 1_000).days) == 1
