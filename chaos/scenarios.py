"""The scenes: in each something else dies while clients go on submitting."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from chaos.clients import Clients
from chaos.evidence import marks, more_marks
from chaos.fleet import Aboard, Fleet, Member
from chaos.ledger import Ledger
from chaos.proxy import Weather
from chaos.recovery import Recoveries
from chaos.verdict import Target, exactly, most, quantile

#: Exit status of a worker whose engine died.
ENGINE_DEAD = 70
#: Seconds within which what a worker had sent before it was stopped has arrived at Redis, through the proxy.
UNDER_WAY_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything. Times are seconds."""

    workers: int = 3
    slots: int = 8
    lease: int = 12
    ttl: int = 120
    per_s: float = 6.0
    worker_kills: int = 200
    worker_kill_every: float = 3.0
    api_kills: int = 20
    keeper_kills: int = 10
    redis_kills: int = 20
    redis_kill_every: float = 8.0
    connection_kills: float = 60.0
    pause: float = 20.0
    zombies: int = 6
    weather: float = 20.0
    poison_crowd: int = 32
    restarts: int = 20
    deliveries: int = 1000
    deliverer_kills: int = 20
    outbox_redis_kills: int = 3
    real_kills: int = 2


FULL = Scale()
#: About a minute: every scene, as short as it makes sense.
SMOKE = Scale(
    workers=2,
    lease=3,
    ttl=10,  # longer than a half-open subscription takes to be noticed: a client must see the end of its job
    per_s=5.0,
    worker_kills=5,
    worker_kill_every=1.5,
    api_kills=1,
    keeper_kills=1,
    redis_kills=1,
    redis_kill_every=3.0,
    connection_kills=6.0,
    pause=4.0,
    zombies=1,
    weather=2.0,
    poison_crowd=8,
    restarts=1,
    deliveries=60,
    deliverer_kills=2,
    outbox_redis_kills=1,
    real_kills=0,
)


@dataclass
class Stage:
    """What every scene works with, and what has been found so far."""

    fleet: Fleet
    clients: Clients
    ledger: Ledger
    dice: random.Random
    scale: Scale
    say: Callable[[str], None]
    targets: list[Target] = field(default_factory=list)
    scenes: list[str] = field(default_factory=list)
    #: Runs as they were when their worker was stopped.
    zombies: list[Aboard] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def scene(self, name: str, per_s: float | None = None) -> AsyncIterator[None]:
        """Begin a scene with everybody at work; jobs accepted until the end of the block belong to it."""
        self.clients.rate(0, name)
        await self.fleet.until(self.fleet.all_ready, f"everybody is ready for {name}")
        self.scenes.append(name)
        began = time.monotonic()
        self.clients.rate(self.scale.per_s if per_s is None else per_s, name)
        yield
        self.clients.rate(0, name)
        self.say(f"{name}: {self.ledger.counts(name).accepted} jobs accepted in {time.monotonic() - began:.0f} s")

    async def ended(self, seconds: float = 120.0) -> None:
        """Wait until all accepted jobs have ended; whatever has not counts as lost."""
        await self.clients.drained(seconds)


async def kill_processes(stage: Stage) -> None:
    """Kill workers, APIs and keepers at random moments."""
    scale, fleet, dice = stage.scale, stage.fleet, stage.dice
    recoveries = Recoveries(fleet)
    watch = asyncio.create_task(recoveries.watch())
    killed = {"worker": 0, "api": 0, "keeper": 0}
    async with stage.scene("processes killed"):
        for number in range(1, scale.worker_kills + 1):
            await asyncio.sleep(scale.worker_kill_every * dice.uniform(0.5, 1.5))
            await _kill_worker(stage, recoveries)
            killed["worker"] += 1
            if number * scale.api_kills // scale.worker_kills > killed["api"]:
                fleet.kill(dice.choice(fleet.apis))
                killed["api"] += 1
            if number * scale.keeper_kills // scale.worker_kills > killed["keeper"]:
                # The last one killed is back by now: one keeper is always there.
                fleet.kill(dice.choice(fleet.keepers))
                killed["keeper"] += 1
            if number % 20 == 0:
                stage.say(f"  {killed['worker']} workers, {killed['api']} APIs, {killed['keeper']} keepers killed")
    await recoveries.all_back(60.0)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await stage.ended()
    lost = recoveries.seconds
    stage.say(
        f"  {len(lost)} runs were with a killed worker; back in the queue after "
        f"{quantile(lost, 0.5):.1f} s (p50), {quantile(lost, 0.99):.1f} s (p99), {max(lost, default=0):.1f} s (longest)"
    )
    stage.targets += [
        exactly("workers killed", killed["worker"], scale.worker_kills),
        exactly("APIs killed", killed["api"], scale.api_kills),
        most("seconds to recover a killed worker's run, p99", quantile(lost, 0.99), scale.lease + 3, timed=True),
    ]


async def _kill_worker(stage: Stage, recoveries: Recoveries) -> None:
    fleet = stage.fleet
    alive = [member for member in fleet.workers if fleet.alive(member)]
    while not alive:
        await asyncio.sleep(0.05)
        alive = [member for member in fleet.workers if fleet.alive(member)]
    victim = stage.dice.choice(alive)
    worker = await asyncio.to_thread(fleet.worker_id, victim)
    child = victim.child
    fleet.kill(victim)
    killed = time.monotonic()
    if worker and child:
        # Asked after it has died: what it wrote in its last moments counts.
        await asyncio.to_thread(child.process.wait)
        recoveries.note(await asyncio.to_thread(fleet.aboard, worker), killed)


async def kill_redis(stage: Stage) -> None:
    """Kill Redis and start it again on its append-only file, at times with a worker that dies meanwhile."""
    scale, fleet, dice = stage.scale, stage.fleet, stage.dice
    async with stage.scene("Redis killed"):
        for number in range(1, scale.redis_kills + 1):
            await asyncio.sleep(scale.redis_kill_every * dice.uniform(0.5, 1.5))
            if number % 4 == 0:
                fleet.kill(dice.choice(fleet.workers))
            await fleet.kill_redis(dice.uniform(0.0, 2.0))
            if number % 5 == 0:
                stage.say(f"  {number} times")
    await stage.ended()
    stage.targets.append(exactly("Redis killed and restarted with its file", number, scale.redis_kills))


async def kill_connections(stage: Stage) -> None:
    """Cut every connection to Redis every two seconds."""
    redis, seconds = stage.fleet.redis, stage.scale.connection_kills
    async with stage.scene("connections killed"):
        until = time.monotonic() + seconds
        first = time.time()
        cut = 0
        while time.monotonic() < until:
            await asyncio.sleep(2.0)
            for kind in ("normal", "pubsub"):
                cut += await asyncio.to_thread(redis.execute_command, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        last = time.time()
    await stage.ended()
    inside = [moment for moment in stage.ledger.completions("connections killed") if first <= moment <= last]
    gaps = [b - a for a, b in zip([first, *inside], [*inside, last], strict=True)]
    stage.say(f"  {cut} connections cut; longest time without a finished job {max(gaps):.1f} s")
    stage.targets += [
        exactly("second executions by killed connections", stage.ledger.counts("connections killed").extra_attempts, 0),
        most("seconds without a finished job while connections are killed", max(gaps), 5, timed=True),
    ]


async def pause_redis(stage: Stage) -> None:
    """Let Redis answer nobody for longer than a lease."""
    redis, scale = stage.fleet.redis, stage.scale
    async with stage.scene("Redis paused"):
        await asyncio.sleep(2.0)
        before = await asyncio.to_thread(marks, redis)
        await asyncio.to_thread(redis.execute_command, "CLIENT", "PAUSE", round(scale.pause * 1000), "ALL")
        await asyncio.sleep(scale.pause)
        await asyncio.sleep(scale.lease)  # longer than any rescue would wait
        strikes, lost = more_marks(before, await asyncio.to_thread(marks, redis))
    await stage.ended()
    stage.targets += [
        exactly(f"strikes by a pause of {scale.pause:g} s", strikes, 0),
        exactly("leases lost by it", lost, 0),
        exactly("second executions by it", stage.ledger.counts("Redis paused").extra_attempts, 0),
    ]


async def stop_workers(stage: Stage) -> None:
    """Stop workers for longer than a lease and let them go on with what is no longer theirs."""
    scale, fleet, clients = stage.scale, stage.fleet, stage.clients
    async with stage.scene("workers stopped", per_s=2.0):
        for number in range(scale.zombies):
            member = fleet.workers[number % len(fleet.workers)]
            await fleet.until(fleet.all_ready, "the last stopped worker is ready again")
            stage.zombies += await _stopped_with_runs(stage, member)
            await asyncio.sleep(scale.lease + 4)
            fleet.go_on(member)
            await asyncio.sleep(1.0)
        clients.rate(0, clients.scene)
    await stage.ended()
    taken = [held for held in stage.zombies if await asyncio.to_thread(fleet.superseded, held)]
    stage.targets.append(exactly("runs of stopped workers that were given to others", len(taken), len(stage.zombies)))


async def _stopped_with_runs(stage: Stage, member: Member) -> list[Aboard]:
    """Stop a worker while it holds runs that are nearly done, so that some are written as soon as it goes on."""
    fleet = stage.fleet
    while True:
        for number in range(8 * stage.scale.slots):
            stage.clients.submit(f"short {number} {stage.dice.random()}", max_tokens=2)
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            worker = await asyncio.to_thread(fleet.worker_id, member)
            if worker and len(await asyncio.to_thread(fleet.aboard, worker)) >= stage.scale.slots // 2:
                fleet.stop(member)
                await asyncio.sleep(UNDER_WAY_S)
                held = await asyncio.to_thread(fleet.aboard, worker)
                if held:
                    return held
                fleet.go_on(member)


async def bad_network(stage: Stage) -> None:
    """Reset connections, delay every answer, and swallow everything for a while."""
    proxy, scale, dice = stage.fleet.proxy, stage.scale, stage.dice
    async with stage.scene("bad network"):
        until = time.monotonic() + scale.weather
        while time.monotonic() < until:
            await asyncio.sleep(dice.uniform(0.2, 1.5))
            proxy.reset(dice.choice((0.3, 0.6, 1.0)))
        proxy.weather = Weather(delay_s=(0.005, 0.05))
        await asyncio.sleep(scale.weather)
        proxy.weather = Weather(black_hole=True)
        await asyncio.sleep(scale.weather / 2)
        proxy.weather = Weather()
        await asyncio.sleep(scale.weather / 2)
    await stage.ended()


async def poison(stage: Stage) -> None:
    """One prompt kills every engine it meets; its neighbours must not suffer for it."""
    fleet, scale = stage.fleet, stage.scale
    async with stage.scene("poison", per_s=0.0):
        before = fleet.exits["worker", ENGINE_DEAD]
        place = stage.dice.randrange(scale.poison_crowd)
        for number in range(scale.poison_crowd):
            kind, text = ("poison", "simulate:dies") if number == place else ("plain", "harmless")
            stage.clients.submit(f"{text} {number} {stage.dice.random()}", kind=kind)
        await asyncio.sleep(2.0)
        await stage.ended()
    deaths = fleet.exits["worker", ENGINE_DEAD] - before
    counts = stage.ledger.counts("poison")
    stage.targets += [
        most("engines killed by a poison prompt", deaths, 3),
        exactly("its neighbours completed, and it failed as poison", counts.accepted - counts.lost, scale.poison_crowd),
    ]


async def restart_everything(stage: Stage) -> None:
    """A deployment after the other: SIGTERM, wait, start, next."""
    fleet, scale = stage.fleet, stage.scale
    seconds = fleet.settings.drain_grace + 15
    took = []
    async with stage.scene("rolling restarts"):
        for number in range(scale.restarts):
            took.append(await fleet.replace(fleet.workers[number % len(fleet.workers)], seconds))
            if number % 5 == 0:
                await fleet.replace(stage.dice.choice(fleet.apis), 60.0)
                await fleet.replace(stage.dice.choice(fleet.keepers), 60.0)
            await fleet.until(fleet.all_ready, "the next one is ready")
    await stage.ended()
    counts = stage.ledger.counts("rolling restarts")
    stage.say(f"  a worker took {quantile(took, 0.5):.1f} s to end (p50), {max(took):.1f} s at most")
    stage.targets += [
        exactly("rolling restarts", len(took), scale.restarts),
        exactly("jobs failed by rolling restarts", counts.failed + counts.lost, 0),
        exactly("second executions by rolling restarts", counts.extra_attempts, 0),
    ]


async def kill_engines(stage: Stage) -> None:
    """Kill workers with the real engine; this stage has its own fleet."""
    recoveries = Recoveries(stage.fleet)
    watch = asyncio.create_task(recoveries.watch())
    async with stage.scene("real engine killed", per_s=2.0):
        for _ in range(stage.scale.real_kills):
            await asyncio.sleep(stage.dice.uniform(4.0, 8.0))
            await _engine_has_runs(stage)
            await _kill_worker(stage, recoveries)
            await asyncio.sleep(1.0)
            await stage.fleet.until(stage.fleet.all_ready, "the engine is ready again")
    await recoveries.all_back(60.0)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await stage.ended()
    lost = recoveries.seconds
    stage.say(f"  {len(lost)} runs were with a killed engine")
    stage.targets += [
        exactly("killed real engines had runs", int(bool(lost)), 1),
        most("seconds to recover a run of one, p99", quantile(lost, 0.99), stage.scale.lease + 3, timed=True),
    ]


async def _engine_has_runs(stage: Stage) -> None:
    """Submit until the engine is in the middle of something."""
    fleet = stage.fleet
    while True:
        for number in range(64):
            stage.clients.submit(f"engine {number} {stage.dice.random()}")
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            worker = await asyncio.to_thread(fleet.worker_id, fleet.workers[0])
            if worker and len(await asyncio.to_thread(fleet.aboard, worker)) >= stage.scale.slots:
                return


async def forgotten(stage: Stage, found: Callable[[], list[str]]) -> list[str]:
    """Wait until results have had their time and nothing should be left; returns what is."""
    until = time.monotonic() + stage.scale.ttl + 30
    while time.monotonic() < until:
        try:
            left = await asyncio.to_thread(found)
        except RedisError:
            left = ["?"]
        if not left:
            return []
        await asyncio.sleep(1.0)
    return left
