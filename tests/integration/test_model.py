"""Any order of events, against invariants: Hypothesis plays API, workers, crashes and keepers on a real Redis.

Time is injected. What a rule does not decide (which run a claim gets, whom a tick rescues) Redis decides; after every
step the whole keyspace must make sense, and in the end every accepted job must end, by bells alone.
``--hypothesis-profile=long`` explores at length, in a new order each time.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count as counter
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis import Redis

from inferq.jobs import JobStatus
from inferq.keys import key
from inferq.run_store import ClaimedRun, RunStore
from inferq.scripts import Scripts
from tests.redis_server import RedisServer, binaries
from tests.world import CLOCK, LEASE, World

TERMINAL = {status.value for status in JobStatus if status.is_terminal}
RUNNING = {"in_progress", "cancelling"}
SLOTS = 4
#: Told to stop means it stops, unless the result came first.
IMPOSSIBLE = {("cancelling", status) for status in ("queued", "in_progress", "failed")}
READY = {"state": "ready", "slots": str(SLOTS)}
BELLS = key("bells", "demo")
kinds = st.sampled_from(["live", "contested", "stopped", "any"])
pick = st.integers(0, 1_000_000)


class Replayed(Scripts):
    """Scripts whose reply is lost now and then, so that redis-py sends them again."""

    twice = False

    def __call__(self, name: str, *arguments: str | bytes | int) -> object:
        if self.twice:
            super().__call__(name, *arguments)
        return super().__call__(name, *arguments)


@dataclass(eq=False)
class Attempt:
    """A claim in the memory of a worker, which may have crashed, been rescued from, or both."""

    run: ClaimedRun
    store: RunStore
    token: str
    written: str = ""  #: what became of it, as far as this worker knows


@dataclass(eq=False)
class Process:
    store: RunStore
    held: list[Attempt] = field(default_factory=list)


class Service(RuleBasedStateMachine):
    server: ClassVar[RedisServer]

    @initialize()
    def begin(self) -> None:
        self.redis: Redis = self.server.client()
        self.names = counter(1)
        self.world = World(self.redis)
        self.scripts = Replayed(self.redis, clock=CLOCK)
        for part in (self.world.jobs, self.world.sweeps, self.world.operations):
            part._scripts = self.scripts
        self.heavy = self.world.new_caller("acme", max_priority="low")
        self.processes = [self.process(), self.process()]
        self.attempts: list[Attempt] = []
        self.jobs: list[str] = []
        self.ended: dict[str, dict[str, str]] = {}
        self.erased: set[str] = set()
        self.last: dict[str, str] = {}
        self.fences: Counter[str] = Counter()
        self.virtual = 0
        self.completions: dict[str, str] = {}
        self.submissions: list[object] = []
        self.world.tick(15)
        for process in self.processes:
            self.beat(process)
        self.submit(6, known=False, start_ms=None, total_ms=None, twice=False)
        self.claim(0, 2, twice=False, ring=True)
        self.claim(1, 2, twice=False, ring=True)

    def name(self) -> str:
        """An id that is the same when Hypothesis plays the same story again."""
        return f"n{next(self.names):06}"

    def process(self) -> Process:
        return Process(RunStore(self.scripts, engine="demo", worker=self.name(), lease_ms=LEASE))

    def teardown(self) -> None:
        if hasattr(self, "processes"):
            self.settle()
            self.redis.close()

    # -- clients

    @rule(
        count=st.integers(1, 3),
        known=st.sampled_from([False, False, False, True]),
        start_ms=st.sampled_from([None, None, 5_000]),
        total_ms=st.sampled_from([None, None, 9_000]),
        twice=st.booleans(),
    )
    def submit(self, count: int, known: bool, start_ms: int | None, total_ms: int | None, twice: bool) -> None:
        for _ in range(count):
            fingerprint = "known" if known else self.name()
            submission = self.world.submission(
                job_id=self.name(), run_id=self.name(), fingerprint=fingerprint, start_ms=start_ms, total_ms=total_ms
            )
            self.scripts.twice = twice
            answer = self.world.jobs.submit(self.world.caller, submission)
            if answer.outcome == "hit":
                return
            assert answer.outcome == "accepted"
            self.jobs.append(submission.job_id)
            self.submissions.append(submission)
            self.ring(answer.rest[1])

    @precondition(lambda self: self.submissions)
    @rule(which=pick)
    def submit_late_again(self, which: int) -> None:
        """A reply was lost, and redis-py's second call comes after whatever else has happened (within the window)."""
        submission = self.submissions[which % len(self.submissions)]
        if self.redis.zscore(key("window", self.world.caller.key_id, "requests"), submission.job_id) is None:
            return
        if submission.job_id in self.erased or not self.redis.exists(key("job", submission.job_id)):
            return
        self.world.jobs.submit(self.world.caller, submission)

    @rule(which=pick, total_ms=st.sampled_from([None, None, 9_000]), low=st.booleans(), twice=st.booleans())
    def coalesce(self, which: int, total_ms: int | None, low: bool, twice: bool) -> None:
        """Ask what a live run was asked: the job joins it, unless it has been told to stop or was refused a share."""
        live = [r for r in Keyspace(self.redis).runs.values() if r["status"] in ("queued", "in_progress")]
        if not live:
            return
        r = live[which % len(live)]
        open_to_all = self.redis.exists(key("sharing", "acme", r["fp"]))
        submission = self.world.submission(
            job_id=self.name(), run_id=self.name(), fingerprint=r["fp"], total_ms=total_ms, read_cache=False
        )
        self.scripts.twice = twice
        answer = self.world.jobs.submit(self.heavy if low else self.world.caller, submission)
        assert (answer.rest[0].cache == "coalesced") == bool(open_to_all)
        self.jobs.append(submission.job_id)
        self.ring(answer.rest[1])

    @precondition(lambda self: self.jobs)
    @rule(which=pick, live=st.booleans(), twice=st.booleans())
    def cancel(self, which: int, live: bool, twice: bool) -> None:
        jobs = [job for job in self.jobs if job not in self.ended] if live else self.jobs
        if jobs:
            self.scripts.twice = twice
            self.world.jobs.cancel(self.world.caller, jobs[which % len(jobs)])

    @precondition(lambda self: any(process.held for process in self.processes))
    @rule(which=pick, twice=st.booleans())
    def cancel_what_runs(self, which: int, twice: bool) -> None:
        runs = sorted(attempt.run.id for process in self.processes for attempt in process.held)
        self.scripts.twice = twice
        for job in self.redis.zrange(key("members", runs[which % len(runs)]), 0, -1):
            self.world.jobs.cancel(self.world.caller, job)

    @precondition(lambda self: self.ended)
    @rule(which=pick, twice=st.booleans())
    def erase(self, which: int, twice: bool) -> None:
        job = list(self.ended)[which % len(self.ended)]
        self.scripts.twice = twice
        self.world.jobs.erase(self.world.caller, job)
        self.erased.add(job)

    # -- bells

    def ring(self, count: int) -> None:
        if count:
            self.redis.lpush(BELLS, *["bell"] * count)

    @rule(double=st.booleans())
    def lose_or_double_a_bell(self, double: bool) -> None:
        if not double:
            self.redis.rpop(BELLS)
        elif self.redis.llen(BELLS) < 20:
            self.ring(1)

    # -- workers

    @rule(who=pick, count=st.integers(1, SLOTS), twice=st.booleans(), ring=st.booleans())
    def claim(self, who: int, count: int, twice: bool, ring: bool) -> None:
        process = self.processes[who % len(self.processes)]
        while len(process.held) < SLOTS and count:
            count -= 1
            running = self.redis.zcard(key("leases"))
            self.scripts.twice = twice
            self.take(process, self.name(), ring=ring)
            assert self.redis.zcard(key("leases")) <= running + 1, "a claim sent again takes no second run"

    def take(self, process: Process, token: str, *, ring: bool) -> Attempt | None:
        run, bells = process.store.claim(token)
        if run is None:
            return None
        assert run.fence > self.fences[run.id], "fences only grow"
        self.fences[run.id] = run.fence
        attempt = Attempt(run, process.store, token)
        process.held.append(attempt)
        self.attempts.append(attempt)
        if ring:
            self.ring(bells)
        return attempt

    def attempt(self, kind: str, which: int) -> Attempt:
        """One attempt of that kind, if there is one: nobody's business is as likely as the everyday one."""
        found = []
        for attempt in self.attempts:
            fence, status, abort = self.redis.hmget(key("run", attempt.run.id), "fence", "status", "abort")
            running, ours = status == "in_progress", fence == str(attempt.run.fence)
            if running and {"live": ours, "contested": not ours, "stopped": abort and ours}.get(kind):
                found.append(attempt)
        found = found or self.attempts
        return found[which % len(found)]

    @precondition(lambda self: self.attempts)
    @rule(kind=kinds, which=pick)
    def claim_again_with_an_old_token(self, kind: str, which: int) -> None:
        attempt = self.attempt(kind, which)
        run, _ = attempt.store.claim(attempt.token)
        assert run is None or (run.id, run.fence) == (attempt.run.id, attempt.run.fence)

    @rule(who=pick, twice=st.booleans())
    def beat_once(self, who: int, twice: bool) -> None:
        self.scripts.twice = twice
        self.beat(self.processes[who % len(self.processes)])

    def beat(self, process: Process) -> None:
        stop, bells = process.store.heartbeat([(a.run.id, a.run.fence) for a in process.held], READY)
        self.ring(bells)
        for attempt in [a for a in process.held if a.run.id in stop]:
            self.release(process, attempt, strikes=0)

    @precondition(lambda self: self.attempts)
    @rule(kind=kinds, which=pick, twice=st.booleans())
    def complete(self, kind: str, which: int, twice: bool) -> None:
        self.scripts.twice = twice
        self.write(self.attempt(kind, which))

    def write(self, attempt: Attempt) -> None:
        """Any attempt may complete, once or again: its worker may be a zombie, its run another's by now."""
        run = self.redis.hmget(key("run", attempt.run.id), "status", "fence")
        text = f"{attempt.run.id} {attempt.run.fence}"
        accepted = self.world.finish(attempt.run, attempt.store, text=text)
        ours = run[1] == str(attempt.run.fence)
        assert accepted == (ours and run[0] in ("in_progress", "completed")), "only the attempt that holds the run"
        if accepted:
            assert self.completions.setdefault(attempt.run.id, text) == text, "one visible completion"
        self.forget(attempt)

    @precondition(lambda self: self.attempts)
    @rule(kind=kinds, which=pick, twice=st.booleans())
    def fail(self, kind: str, which: int, twice: bool) -> None:
        attempt = self.attempt(kind, which)
        self.scripts.twice = twice
        stopped = self.redis.hget(key("run", attempt.run.id), "abort")
        kept = attempt.store.fail(attempt.run, code="x", message="x", retryable=False)
        assert not (kept and stopped and self.redis.exists(key("run", attempt.run.id))), "it ends as it was told to"
        self.forget(attempt)

    @precondition(lambda self: self.attempts)
    @rule(kind=kinds, which=pick, strikes=st.sampled_from([0, 0, 1, 3]), twice=st.booleans())
    def give_back(self, kind: str, which: int, strikes: int, twice: bool) -> None:
        attempt = self.attempt(kind, which)
        self.scripts.twice = twice
        self.release(None, attempt, strikes=strikes)

    def release(self, process: Process | None, attempt: Attempt, *, strikes: int) -> None:
        before = self.redis.hgetall(key("run", attempt.run.id))
        outcome, bells = attempt.store.release(attempt.run, strikes=strikes)
        if before.get("fence") != str(attempt.run.fence):
            assert outcome == "refused", "a zombie gives nothing back"
            assert before == self.redis.hgetall(key("run", attempt.run.id))
        self.ring(bells)
        self.forget(attempt)

    def forget(self, attempt: Attempt) -> None:
        for process in self.processes:
            if attempt in process.held:
                process.held.remove(attempt)

    @rule(who=pick)
    def crash(self, who: int) -> None:
        """The process is gone, or stopped for long: its attempts may still write some day."""
        self.processes[who % len(self.processes)] = self.process()

    @precondition(lambda self: self.attempts)
    @rule(which=pick, steals=st.booleans())
    def change_hands(self, which: int, steals: bool) -> None:
        """A run goes from one worker to another, and the first does not notice."""
        attempt = self.attempt("live", which)
        if steals:
            self.redis.zadd(key("leases"), {attempt.run.id: self.world.now}, xx=True)
            self.pass_time(15, beating=False, twice=False)
        else:
            attempt.store.release(attempt.run)
        self.claim(which, SLOTS, twice=False, ring=True)

    @rule(who=pick)
    def engine_dies(self, who: int) -> None:
        process = self.processes[who % len(self.processes)]
        for attempt in list(process.held):
            self.release(process, attempt, strikes=1)
        process.store.leave()
        self.processes[who % len(self.processes)] = self.process()

    # -- keepers, operators, time

    @rule(seconds=st.integers(1, 16), beating=st.sampled_from([True, True, False]), twice=st.booleans())
    def pass_time(self, seconds: int, beating: bool, twice: bool) -> None:
        self.scripts.twice = twice
        for _ in range(seconds):
            self.world.pass_ms(1000)
            if beating:
                for process in self.processes:
                    self.beat(process)
            swept = self.world.sweeps.tick()
            for count in swept.bells.values():
                self.ring(count)

    @rule()
    def redis_is_away(self) -> None:
        self.world.pass_ms(20_000)
        leases = self.redis.zcard(key("leases"))
        assert not self.world.sweeps.tick().rescued
        assert self.redis.zcard(key("leases")) == leases, "nobody is rescued right after an outage"

    @rule(paused=st.sampled_from([False, False, False, True]))
    def pause(self, paused: bool) -> None:
        if self.redis.sismember(key("engines"), "demo"):
            self.world.operations.pause("demo", paused=paused)

    @rule(really=st.sampled_from([False, False, False, True]))
    def purge(self, really: bool) -> None:
        if really:
            self.world.operations.purge("acme")

    @precondition(lambda self: self.redis.zcard(key("dead_letters")))
    @rule(twice=st.booleans())
    def requeue(self, twice: bool) -> None:
        self.scripts.twice = twice
        for letter in self.world.operations.dead_letters(1):
            if letter.jobs:
                self.jobs += [job for _, job in self.world.operations.requeue(letter.run)]

    # -- what must be true at every moment

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "processes"):
            return
        self.scripts.twice = False
        state = Keyspace(self.redis)
        virtual = int(state.engine.get("v", 0))
        assert virtual >= self.virtual, "virtual time never goes back"
        self.virtual = virtual
        for job in self.jobs:
            fields = state.jobs.get(job)
            if fields is None:
                assert job in self.ended or job in self.erased, "a job is dropped only after it has ended"
                continue
            assert (self.last.get(job), fields["status"]) not in IMPOSSIBLE
            self.last[job] = fields["status"]
            seen = self.ended.get(job)
            assert seen in (None, fields), "what has ended never changes"
            if fields["status"] in TERMINAL:
                self.ended[job] = fields
        assert set(state.jobs) <= set(self.jobs)
        for run, text in state.outputs.items():
            assert text == self.completions[run]
        state.check()

    def settle(self) -> None:
        """Everything heals: all jobs end, claimed for bells only, and in the end nothing is left."""
        self.scripts.twice = False
        self.pause(paused=False)
        for attempt in self.attempts:
            self.write(attempt)  # zombies have the last word, in vain unless the run is still theirs
        for process in self.processes:
            process.store.leave()
        self.processes = [self.process()]
        worker = self.processes[0]
        for _ in range(600):
            self.pass_time(1, beating=True, twice=False)
            while self.redis.rpop(BELLS):
                attempt = self.take(worker, self.name(), ring=True)
                if attempt:
                    self.write(attempt)
            self.everything_agrees()
            if all(job in self.ended for job in self.jobs):
                break
        assert [job for job in self.jobs if job not in self.ended] == [], "every accepted job ends"
        self.world.tick(65)
        assert self.world.leftovers() <= {BELLS}


class Keyspace:
    """All of inferq's keys, read at once."""

    def __init__(self, redis: Redis) -> None:
        names = sorted(redis.scan_iter("iq:*", count=1000))
        self.jobs = self._hashes(redis, names, key("job", ""))
        self.runs = self._hashes(redis, names, key("run", ""))
        with redis.pipeline(transaction=False) as pipe:
            for name in ("queue", "struck", "solitary"):
                pipe.zrange(key(name, "demo"), 0, -1, withscores=True)
            pipe.zrange(key("arrivals", "demo"), 0, -1)
            for name in ("leases", "dead_letters", "deadlines", "retention"):
                pipe.zrange(key(name), 0, -1)
            pipe.zrange(key("tenant_jobs", "acme"), 0, -1)
            for name in ("engine", "waiting_jobs", "active"):
                pipe.hgetall(key(name, "demo"))
            pipe.zrange(key("flows", "demo"), 0, -1, withscores=True)
            pipe.hgetall(key("in_flight", "acme"))
            pipe.hkeys(key("paces", "demo"))
            (
                *lines,
                arrivals,
                leases,
                dead,
                deadlines,
                retention,
                of_tenant,
                engine,
                waits,
                active,
                flows,
                flight,
                paces,
            ) = pipe.execute()
        self.paces = {name.split(" ")[0] for name in paces}
        self.engine, self.waits, self.active, self.flows, self.in_flight = engine, waits, active, dict(flows), flight
        self.lines = [dict(line) for line in lines]
        self.arrivals = set(arrivals)
        self.leases, self.dead, self.deadlines, self.retention = set(leases), set(dead), set(deadlines), set(retention)
        self.of_tenant = set(of_tenant)
        parts = [n.removeprefix(key("run", "")).split(":") for n in names if n.startswith(key("run", ""))]
        self.parts = {(part[0], part[1]) for part in parts if len(part) > 1}
        self.members = {
            run: dict(redis.zrange(key("members", run), 0, -1, withscores=True))
            for run, part in self.parts
            if part == "members"
        }
        self.outputs = {run: redis.get(key("output", run)) for run, part in self.parts if part == "output"}
        aboard = [n for n in names if n.endswith(":aboard")]
        self.aboard = Counter(run for n in aboard for run in redis.smembers(n))
        self.worker_of = {run: n for n in aboard for run in redis.smembers(n)}

    @staticmethod
    def _hashes(redis: Redis, names: list[str], prefix: str) -> dict[str, dict[str, str]]:
        ids = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        ids = [one for one in ids if ":" not in one]
        with redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hgetall(prefix + one)
            return dict(zip(ids, pipe.execute(), strict=True))

    def check(self) -> None:
        waiting = Counter(run for line in self.lines for run in line)
        assert self.arrivals == set(waiting), "who waits is known by age"
        for run, r in self.runs.items():
            members = self.members.get(run, {})
            assert members, "a run that nobody reads is dropped"
            statuses = {self.jobs[job]["status"] for job in members}
            assert all(self.jobs[job]["run"] == run for job in members)
            assert waiting[run] == (r["status"] == "queued"), "a waiting run is in one line, others in none"
            assert (run in self.leases) == (r["status"] == "in_progress"), "a running run has a lease"
            assert self.aboard[run] == (r["status"] == "in_progress")
            assert ((run, "output") in self.parts) == (r["status"] == "completed")
            if r["status"] == "queued":
                assert statuses == {"queued"}
                assert (run, "request") in self.parts
                level = 2 if int(r["lost"]) >= 5 else min(2, int(r["strikes"]))
                assert self.lines[level][run] == int(r["tag"]), "in the line it belongs to, under its tag"
                if not int(r["attempt"]):
                    assert int(r["tag"]) == min(members.values()), "it waits where its first member would"
            elif r["status"] == "in_progress":
                assert statuses - TERMINAL, "somebody waits for every run in an engine"
                assert statuses - TERMINAL <= RUNNING
                assert (run, "request") in self.parts
                assert self.worker_of[run] == key("aboard", r["worker"])
            else:
                assert statuses == {r["status"]}
        for name, runs in {
            "line": set(waiting),
            "lease": self.leases,
            "aboard": set(self.aboard),
            "dead": self.dead,
        }.items():
            assert runs <= set(self.runs), f"a {name} without a run"
        assert {self.runs[run]["status"] for run in self.dead} <= {"failed"}
        assert {run for run, _ in self.parts} <= set(self.runs), "a part without its run"
        for job, j in self.jobs.items():
            ended = j["status"] in TERMINAL
            assert (job in self.retention) == ended
            if not ended:
                assert job in self.members[j["run"]]
            assert job in self.of_tenant
        assert self.of_tenant == set(self.jobs)
        live = Counter(j["key"] for j in self.jobs.values() if j["status"] not in TERMINAL)
        assert {name: int(count) for name, count in self.in_flight.items()} == live, "what is in flight is counted"
        flows = Counter(f"{j['tenant']}/{j['priority']}" for j in self.jobs.values() if j["status"] == "queued")
        assert {flow: int(count) for flow, count in self.waits.items()} == flows, "who waits is counted by flow"
        assert set(self.active) == {flow.split("/")[0] for flow in flows}
        assert int(self.engine.get("weight", 0)) == sum(map(int, self.active.values()))
        running = [r for r in self.runs.values() if r["status"] == "in_progress"]
        assert int(self.engine.get("running", 0)) == len(running), "what runs is counted"
        queued = sum(int(r["cost"]) for r in self.runs.values() if r["status"] == "queued")
        assert int(self.engine.get("tokens", 0)) == queued, "what waits is summed in tokens"
        assert self.active or not self.flows, "when nobody waits, nobody is ahead"
        assert self.paces <= set(flows), "a flow that does not wait has no pace"
        assert self.retention <= set(self.jobs)
        assert {self.jobs[job]["status"] for job in self.deadlines} <= {"queued", "in_progress"}


@pytest.fixture(params=sorted(binaries()))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, binaries()[request.param])
    yield server
    server.close()


def test_whatever_happens_in_whatever_order_no_job_is_lost_and_all_indexes_agree(server: RedisServer) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("ServiceOnThisRedis", (Service,), {"server": server})
    run_state_machine_as_test(machine, settings=hypothesis_settings())
