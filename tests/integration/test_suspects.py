"""Suspects: runs that were in engines that died, and how the innocent among them are found out."""

from inferq.ids import new_id
from inferq.jobs import JobStatus
from inferq.keys import key
from inferq.run_store import ClaimedRun, RunStore
from inferq.scripts import Scripts
from tests.world import CLOCK, LEASE, World


class Fleet:
    """Worker processes one after the other; the engine of each dies with every run aboard when it gets the poison."""

    def __init__(self, world: World, poison: str = "") -> None:
        self.world = world
        self.poison = poison
        self.deaths = 0
        self.batches: list[list[str]] = []

    def worker(self) -> RunStore:
        scripts = Scripts(self.world.redis, clock=CLOCK)
        return RunStore(scripts, engine="demo", worker=new_id(), lease_ms=LEASE)

    def load(self, worker: RunStore, slots: int = 64) -> list[ClaimedRun]:
        """Claim until there is nothing to claim or no slot is free."""
        held: list[ClaimedRun] = []
        while len(held) < slots and (run := worker.claim(new_id())[0]):
            held.append(run)
        return held

    def run(self, batches: int) -> None:
        """Let a worker work off so many batches; when its engine dies another takes its place."""
        worker = self.worker()
        for _ in range(batches):
            held = self.load(worker)
            if not held:
                return
            self.batches.append([run.id for run in held])
            if self.poison in self.batches[-1]:
                self.deaths += 1
                for run in held:
                    worker.release(run, strikes=1)
                worker = self.worker()
            else:
                assert all(self.world.finish(run, worker) for run in held)


def test_a_poison_prompt_fails_after_three_engines_and_takes_nobody_with_it(world: World) -> None:
    jobs = [world.submit(run_id=f"run-{number:02}") for number in range(32)]
    fleet = Fleet(world, poison="run-07")
    fleet.run(batches=100)
    assert fleet.deaths == 3
    assert [len(batch) for batch in fleet.batches].count(4) == 8, "one struck company of four after the other"
    statuses = [world.read(job).status for job in jobs]
    assert statuses.count(JobStatus.COMPLETED) == 31
    poisoned = world.read(jobs[7])
    assert (poisoned.status, poisoned.error.code, poisoned.attempt) == (JobStatus.FAILED, "poison", 3)
    assert world.redis.zrange(key("dead_letters"), 0, -1) == ["run-07"]
    assert list(world.redis.scan_iter(key("aboard", "*"))) == []
    world.pass_ms(61_000)
    world.tick(3)
    assert world.leftovers() <= {key("engines")}


def test_nobody_joins_suspects_and_they_take_turns_with_everybody_else(world: World) -> None:
    suspects = {f"suspect-{number}" for number in range(6)}
    for run in sorted(suspects):
        world.submit(run_id=run)
    fleet = Fleet(world)
    dying = fleet.worker()
    for run in fleet.load(dying):
        dying.release(run, strikes=1)
    for number in range(3):
        world.submit(run_id=f"normal-{number}")
    worker = fleet.worker()
    company = fleet.load(worker)
    assert len(company) == 4
    assert {run.id for run in company} < suspects
    assert worker.claim(new_id()) == (None, 0), "while suspects are aboard nobody joins them"
    for run in company:
        world.finish(run, worker)
    normal = fleet.load(worker, slots=2)
    assert {run.id for run in normal} == {"normal-0", "normal-1"}, "then everybody else has a turn"
    world.pass_ms(10_001)
    assert worker.claim(new_id()) == (None, 0), "whose end is awaited"
    for run in normal:
        world.finish(run, worker)
    assert {run.id for run in fleet.load(worker)} == suspects - {run.id for run in company}


def test_a_run_struck_twice_is_alone_and_random_deaths_do_not_condemn_it(world: World) -> None:
    first, second = world.submit(), world.submit()
    fleet = Fleet(world)
    for _ in range(2):
        worker = fleet.worker()
        held = fleet.load(worker)
        assert len(held) == 2
        for run in held:
            worker.release(run, strikes=1)
    worker = fleet.worker()
    (alone,) = fleet.load(worker)
    world.finish(alone, worker)
    (alone,) = fleet.load(worker)
    world.finish(alone, worker)
    assert [world.read(job).status for job in (first, second)] == [JobStatus.COMPLETED] * 2


def test_a_run_that_keeps_losing_workers_is_taken_aside(world: World) -> None:
    world.submit(run_id="cursed")
    for _ in range(5):
        world.claim()
        world.tick(30)
    world.submit(run_id="other")
    fleet = Fleet(world)
    assert [run.id for run in fleet.load(fleet.worker())] == ["cursed"]


def test_a_cancelled_suspect_leaves_no_trace(world: World) -> None:
    job = world.submit()
    run = world.claim()
    world.worker.release(run, strikes=1)
    assert world.jobs.cancel(world.caller, job).outcome == "cancelled"
    assert world.worker.claim(new_id()) == (None, 0)
    assert world.redis.zcard(key("struck", "demo")) == 0
