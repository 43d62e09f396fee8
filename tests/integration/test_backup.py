"""A copy of the append-only file is restored: what was accepted later is lost, what ended later runs twice."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferq.credentials import KeyRing
from inferq.ids import new_id
from inferq.jobs import JobStatus
from tests.post import GOOD, Post
from tests.redis_server import RedisServer, binaries
from tests.world import LEASE, World


class Backup:
    """A Redis that appends every write, and copies of its directory."""

    def __init__(self, directory: Path, binary: str) -> None:
        self._binary = binary
        self._live = directory / "live"
        self._copy = directory / "copy"
        self._live.mkdir()
        self.server = self._start(self._live)

    def copy(self) -> None:
        """As docs/scaling.md says: rewriting is off, and the files are copied under a server that goes on."""
        with self.server.client() as redis:
            redis.config_set("auto-aof-rewrite-percentage", 0)
            shutil.copytree(self._live, self._copy)
            redis.config_set("auto-aof-rewrite-percentage", 100)

    def restore(self) -> None:
        self.server.kill()
        self.server = self._start(self._copy)

    def _start(self, directory: Path) -> RedisServer:
        # Every write is in the file before it is answered: what a copy has is then no matter of luck.
        return RedisServer(directory, self._binary, "--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(params=sorted(binaries()))
def backup(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backup]:
    backup = Backup(tmp_path, binaries()[request.param])
    yield backup
    backup.server.close()


def test_a_copy_is_restored(backup: Backup) -> None:
    with backup.server.client() as redis:
        world = World(redis)
        post = Post(world)
        done = world.submit()
        half = world.submit(hook_url="https://hooks.example.com/in", hook_events="completed")
        waits = world.submit()
        world.finish(world.claim(), text="before the copy")
        running = world.claim()
        backup.copy()

        # What happens after the copy, and is lost with it.
        world.finish(running, text="first answer")
        first = post.one()
        assert post.told(first) == "delivered"
        world.finish(world.claim(), text="seen by its client")
        later = world.submit(idempotency="a digest", body="of the body")
        assert world.read(waits).output == "seen by its client"
        caller, now = world.caller, world.now
        assert KeyRing(redis).revoke(caller.key_id)
        assert world.jobs.read(caller, done).outcome == "unauthorized"

    backup.restore()
    with backup.server.client() as redis:
        rebuilt = World.on(redis, now=now, caller=caller)

        # What had ended before the copy is there; what came after it is not. A key that was revoked is good again.
        assert rebuilt.read(done).output == "before the copy"
        assert rebuilt.jobs.read(caller, later).outcome == "unknown"
        # Whoever repeats the submit with its Idempotency-Key gets a new job, and loses nothing.
        repeated = rebuilt.submit(idempotency="a digest", body="of the body")
        assert repeated != later

        # What ended after the copy has not ended: clients that saw an answer see the job go back.
        assert rebuilt.read(half).status is JobStatus.IN_PROGRESS
        assert rebuilt.read(waits).status is JobStatus.QUEUED
        assert rebuilt.tick(times=2 + LEASE // 1000)
        texts = {}
        while run := rebuilt.worker.claim(new_id())[0]:
            texts[run.id] = run.attempt
            assert rebuilt.finish(run, text="second answer")
        assert sorted(texts.values()) == [1, 1, 2], "the one that ran during the copy is in its second attempt"
        assert rebuilt.read(half).output == "second answer"

        # Its receiver is told a second time, under the same id: it knows.
        post = Post(rebuilt)
        second = post.one()
        assert (second.id, second.event) == (first.id, first.event)
        assert post.told(second, GOOD) == "delivered"


def test_a_worker_that_outlives_a_restore_cannot_make_a_second_result(backup: Backup) -> None:
    """It holds a claim the copy has not heard of; its fence may be given again. One result is kept all the same."""
    with backup.server.client() as redis:
        world = World(redis)
        job = world.submit()
        backup.copy()
        stale = world.claim()
        caller, now = world.caller, world.now
    backup.restore()
    with backup.server.client() as redis:
        world = World.on(redis, now=now, caller=caller)
        assert not world.finish(stale, text="from before"), "nobody holds the run"
        run = world.claim(world.other)
        assert run.fence == stale.fence
        assert world.finish(run, world.other, text="kept")
        world.finish(stale, text="from before")
        assert world.read(job).output == "kept"
