"""Streams of what running runs have written, on real Redis servers (6.2 and the system's)."""

import pytest

from inferq.event_streams import EventStreams, Followed, Piece, Place, Standing
from inferq.jobs import JobStatus
from inferq.keys import key
from inferq.run_store import ClaimedRun
from inferq.scripts import Scripts
from tests.world import CLOCK, LEASE, World


def streams(world: World) -> EventStreams:
    return EventStreams(world.redis, Scripts(world.redis, clock=CLOCK))


def followed(world: World, job: str, after: Place = Place()) -> Followed:  # noqa: B008  # it is frozen
    answer = world.jobs.follow(world.caller, job, after, first=True)
    assert answer.outcome == "job", answer
    return answer.rest[0]


def write(world: World, run: ClaimedRun, start: int, text: str) -> int:
    (end,) = world.worker.append([(run.id, run.fence, start, text)])
    return end


def started(world: World) -> tuple[str, ClaimedRun]:
    job = world.submit(stream=True)
    run = world.claim()
    assert run.stream
    return job, run


def test_text_is_read_in_pieces_after_a_place(world: World) -> None:
    job, run = started(world)
    assert write(world, run, 0, "größe ") == 8, "bytes, not characters"
    assert write(world, run, 8, "zählt") == 14
    pieces = [Piece(Place(1, 8), "größe "), Piece(Place(1, 14), "zählt")]
    assert followed(world, job).pieces == pieces
    assert followed(world, job, Place(1, 8)).pieces == pieces[1:]
    assert followed(world, job, Place(0, 500)).pieces == pieces, "a place in another attempt is no place in this"
    assert streams(world).pieces({run.id: Place(1, 8)}) == {run.id: pieces[1:]}
    assert streams(world).pieces({run.id: Place(1, 14)}) == {}
    assert Piece(Place(1, 14), "zählt").after(Place(1, 11)) == "hlt"
    assert Piece(Place(1, 14), "zählt").after(Place(1, 7)) is None


def test_all_runs_of_a_worker_are_told_in_one_call_and_announced_once(world: World) -> None:
    runs = [started(world)[1] for _ in range(3)]
    with world.redis.pubsub() as heard:
        heard.subscribe(key("appended"))
        assert heard.get_message(timeout=5)["type"] == "subscribe"
        assert world.worker.append([(run.id, run.fence, 0, "x") for run in runs]) == [1, 1, 1]
        assert heard.get_message(timeout=5)["data"] == " ".join(run.id for run in runs)


def test_a_piece_that_comes_twice_is_there_once_and_a_gap_is_refused(world: World) -> None:
    job, run = started(world)
    assert write(world, run, 0, "abc") == 3
    assert write(world, run, 0, "abc") == 3
    assert write(world, run, 1, "bcde") == 5, "the part that is new"
    assert write(world, run, 9, "j") == 5, "begin there again"
    assert [piece.text for piece in followed(world, job).pieces] == ["abc", "de"]


def test_who_has_lost_the_run_cannot_write_to_the_next_attempt(world: World) -> None:
    job, zombie = started(world)
    write(world, zombie, 0, "old")
    world.tick(30)  # the lease ends, the run is rescued
    assert followed(world, job).pieces == []
    assert write(world, zombie, 3, "er") == -1
    again = world.claim(world.other)
    assert (again.id, again.fence) == (zombie.id, 2)
    assert write(world, zombie, 0, "old") == -1
    assert world.other.append([(again.id, again.fence, 0, "new")]) == [3]
    assert followed(world, job, Place(1, 3)).pieces == [Piece(Place(2, 3), "new")]


@pytest.mark.parametrize("end", ["complete", "fail", "release", "cancel", "rescue"])
def test_a_stream_ends_with_the_attempt(world: World, end: str) -> None:
    job, run = started(world)
    write(world, run, 0, "text")
    assert world.redis.exists(key("events", run.id))
    assert world.redis.pttl(key("events", run.id)) > LEASE, "and if nobody ended it, by itself"
    if end == "complete":
        world.finish(run, text="text and more")
    elif end == "fail":
        world.worker.fail(run, code="x", message="x", retryable=False)
    elif end == "release":
        world.worker.release(run)
    elif end == "cancel":
        assert world.jobs.cancel(world.caller, job).outcome == "cancelling"
        assert world.redis.exists(key("events", run.id)), "until the engine has freed it"
        world.worker.release(run)
    else:
        world.tick(30)
    assert not world.redis.exists(key("events", run.id))
    assert write(world, run, 4, " and more") == -1
    assert not world.redis.exists(key("events", run.id))


def test_a_stream_s_end_and_the_job_s_are_one_step(world: World) -> None:
    """Whoever reads either sees both: the rest of the text is in the output, from where the stream left off."""
    job, run = started(world)
    write(world, run, 0, "half")
    world.finish(run, text="half and half")
    after = followed(world, job, Place(1, 4))
    assert (after.job.status, after.job.output, after.fence, after.pieces) == (
        JobStatus.COMPLETED, "half and half", 1, [],
    )  # fmt: skip


def test_jobs_that_did_not_ask_write_no_stream(world: World) -> None:
    world.submit()
    assert not world.claim().stream


def test_a_streaming_job_joins_only_a_streaming_run(world: World) -> None:
    world.submit(fingerprint="same")
    streaming = world.submit(fingerprint="same", stream=True)
    joining = world.submit(fingerprint="same", stream=True)
    quiet = world.submit(fingerprint="same")
    runs = {job: followed(world, job).job.run_id for job in (streaming, joining, quiet)}
    assert len(set(runs.values())) == 1
    first, second = world.claim(), world.claim()
    assert [first.stream, second.stream] == [False, True]
    write(world, second, 0, "for all")
    assert [piece.text for piece in followed(world, joining).pieces] == ["for all"]
    world.jobs.cancel(world.caller, joining)
    assert followed(world, joining).pieces == []
    assert [piece.text for piece in followed(world, streaming).pieces] == ["for all"], "the others go on"


def test_a_stream_is_bounded_and_the_result_brings_the_rest(world: World) -> None:
    job, run = started(world)
    for number in range(10):
        world.worker.append([(run.id, run.fence, number * 1000 + i, "x") for i in range(1000)])
    assert world.redis.xlen(key("events", run.id)) == 10_000
    assert write(world, run, 10_000, "x") == -1
    world.finish(run, text="x" * 10_001)
    assert followed(world, job, Place(1, 10_000)).job.output == "x" * 10_001


def test_a_full_redis_is_told_no_text(world: World) -> None:
    _, run = started(world)
    world.redis.hset(key("memory"), mapping={"asked_ms": world.now, "full": 1})
    assert write(world, run, 0, "x") == -1
    assert not world.redis.exists(key("events", run.id))


def test_only_the_first_reading_is_counted_and_a_revoked_key_reads_no_more(world: World) -> None:
    job, _ = started(world)

    def polls() -> int:
        return world.redis.zcard(key("window", world.caller.key_id, "polls"))

    before = polls()
    followed(world, job)
    for _ in range(3):
        assert world.jobs.follow(world.caller, job, Place(), first=False).outcome == "job"
    assert polls() == before + 1
    assert world.jobs.follow(world.new_caller("other"), job, Place(), first=False).outcome == "unknown"
    world.redis.hset(key("api_key", world.caller.key_id), "revoked_ms", 1)
    assert world.jobs.follow(world.caller, job, Place(), first=False).outcome == "unauthorized"


def test_an_erased_job_leaves_no_stream_and_is_gone(world: World) -> None:
    job, run = started(world)
    write(world, run, 0, "secret")
    world.finish(run, text="secret")
    assert world.jobs.erase(world.caller, job).outcome == "erased"
    assert world.jobs.follow(world.caller, job, Place(), first=True).outcome == "gone"
    assert world.leftovers() == set()


def test_positions_are_told_for_many_at_once(world: World) -> None:
    world.warm()
    jobs = [world.submit() for _ in range(3)]
    runs = [followed(world, job).job.run_id for job in jobs]
    world.claim()
    found = streams(world).standings([*runs, "unknown"])
    assert [standing.position for standing in found.values()] == [None, 1, 2, None]
    assert found["unknown"] == Standing(position=None, wait_ms=None)
