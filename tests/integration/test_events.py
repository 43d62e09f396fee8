"""A job's events over HTTP on a real Redis, with the test playing the worker."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.services import services
from api.streams import RECENT
from inferq.credentials import KeyRing
from inferq.keys import key
from inferq.run_store import ClaimedRun
from tests.conftest import OpenClient, make_settings
from tests.hand_worker import HandWorker, problem, submit
from tests.processes import until
from tests.redis_server import RedisServer
from tests.sse import Listener, Told, follow


def write(worker: HandWorker, run: ClaimedRun, start: int, text: str) -> int:
    (end,) = worker.store.append([(run.id, run.fence, start, text)])
    return end


def names(told: list[Told]) -> list[str]:
    return [one.name for one in told]


def heard(told: Iterator[Told]) -> Listener:
    listener = Listener()
    for one in told:
        listener.hear(one)
    return listener


def test_a_job_is_told_from_the_queue_to_its_end(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client, stream=True)
    assert job["urls"]["events"] == f"/v1/jobs/{job['id']}/events"
    told = follow(client, job["id"])
    first = next(told)
    assert (first.name, first.id) == ("status", "0-0")
    assert first.data == {"status": "queued", "attempt": 0, "queue": {"position": 1, "eta_s": None}}
    run = worker.claim()
    assert next(told) == Told("status", "1-0", {"status": "in_progress", "attempt": 1, "queue": None})
    write(worker, run, 0, "größe ")
    assert next(told) == Told("token", "1-8", {"text": "größe "})
    write(worker, run, 8, "zählt")
    assert next(told) == Told("token", "1-14", {"text": "zählt"})
    worker.finish(run, "größe zählt nicht")
    assert list(told) == [
        Told("token", "1-20", {"text": " nicht"}),
        Told("usage", "1-20", {"prompt_tokens": 4, "completion_tokens": 3}),
        Told("done", "1-20-end", {"status": "completed", "attempt": 1, "finish_reason": "stop"}),
    ]


def test_a_client_comes_back_with_the_id_of_any_event(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    write(worker, run, 0, "abc")
    write(worker, run, 3, "def")
    running = follow(client, job, "1-3")
    assert [next(running), next(running)][1] == Told("token", "1-6", {"text": "def"})
    running.close()
    worker.finish(run, "abcdefgh")
    whole = list(follow(client, job))
    assert names(whole) == ["token", "usage", "done"]
    for told in [*whole, Told("token", "1-3", {}), Told("status", "1-0", {}), Told("status", "0-0", {})]:
        if told.name == "done":
            continue
        had = "abcdefgh"[: int(told.id.split("-")[1])]
        assert had + heard(follow(client, job, told.id)).text == "abcdefgh"
    by_query = client.get(f"/v1/jobs/{job}/events?last_event_id=1-6")
    assert b'data: {"text":"gh"}' in by_query.data
    last = client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": whole[-1].id})
    assert (last.status_code, last.data) == (204, b""), "an EventSource does not come back after that"


def test_a_restart_voids_what_was_told(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    told = follow(client, job)
    assert next(told).name == "status"
    write(worker, run, 0, "first ")
    assert next(told).name == "token"
    write(worker, run, 6, "try")
    assert next(told).name == "token"
    worker.store.release(run)
    assert [next(told), next(told)] == [
        Told("restarted", "1-0", {"attempt": 1}),
        Told("status", "1-0", {"status": "queued", "attempt": 1, "queue": {"position": 1, "eta_s": None}}),
    ]
    run = worker.claim()
    assert next(told).data["attempt"] == 2
    write(worker, run, 0, "second")
    assert next(told) == Told("token", "2-6", {"text": "second"})
    worker.finish(run, "second try")
    assert heard(told).text == " try"
    back = heard(follow(client, job, "1-9"))
    assert (back.names[0], back.text) == ("restarted", "second try")


def test_a_restart_that_nobody_saw_is_told_too(client: FlaskClient, worker: HandWorker) -> None:
    """Back in the queue and out again before the follower has looked."""
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    write(worker, run, 0, "first try")
    told = follow(client, job)
    assert names([next(told), next(told)]) == ["status", "token"]
    worker.store.release(run)
    run = worker.claim()
    write(worker, run, 0, "x")
    worker.finish(run, "xy")
    listener = Listener(text="first try")
    for one in told:
        listener.hear(one)
    assert listener.text == "xy"
    assert "restarted" in listener.names


@pytest.mark.parametrize("end", ["cancelled", "failed", "expired"])
def test_a_job_that_ends_otherwise_says_why(client: FlaskClient, worker: HandWorker, end: str) -> None:
    job = submit(client, stream=True, deadline={"total_s": 0.05} if end == "expired" else None)["id"]
    told = follow(client, job)
    next(told)
    if end == "cancelled":
        client.post(f"/v1/jobs/{job}/cancel")
    elif end == "failed":
        worker.store.fail(worker.claim(), code="prompt_too_long", message="too long", retryable=False)
    else:
        time.sleep(0.06)  # until the deadline has passed
        worker.store.heartbeat([], {"state": "ready", "slots": "1"})
    *_, last = told
    assert last.name == "error"
    expected = {"cancelled": "cancelled", "failed": "prompt_too_long", "expired": "deadline_exceeded"}[end]
    assert (last.data["status"], last.data["code"]) == (end, expected)
    assert {"message", "retryable"} <= set(last.data)
    assert list(follow(client, job))[-1] == last


def test_a_job_that_did_not_ask_for_its_text_tells_it_at_the_end(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client)["id"]
    told = follow(client, job)
    next(told)
    run = worker.claim()
    next(told)
    worker.finish(run, "all at once")
    assert [(one.name, one.data.get("text")) for one in told] == [
        ("token", "all at once"), ("usage", None), ("done", None),
    ]  # fmt: skip


def test_a_cached_answer_with_a_record_is_told_like_any_other(client: FlaskClient, worker: HandWorker) -> None:
    submit(client)
    worker.finish(worker.claim(), "known")
    bare = client.post("/v1/jobs", json={"prompt": "hi", "stream": True})
    assert (bare.status_code, bare.json["id"]) == (200, None), "whose whole job is the answer"
    kept = client.post("/v1/jobs", json={"prompt": "hi", "stream": True}, headers={"Idempotency-Key": "k"}).json
    told = list(follow(client, kept["id"]))
    assert [(one.name, one.id) for one in told] == [("token", "0-5"), ("usage", "0-5"), ("done", "0-5-end")]
    assert heard(follow(client, kept["id"], "0-2")).text == "own"


def test_many_followers_of_one_run_hear_the_same(client: FlaskClient, worker: HandWorker) -> None:
    jobs = [submit(client, stream=True)["id"] for _ in range(4)]
    run = worker.claim()
    write(worker, run, 0, "before ")
    told = [follow(client, job) for job in jobs]
    assert [names([next(one), next(one)]) for one in told] == [["status", "token"]] * 4
    client.post(f"/v1/jobs/{jobs[0]}/cancel")
    assert heard(told[0]).end.name == "error"
    write(worker, run, 7, "and after")
    worker.finish(run, "before and after")
    assert [heard(one).text for one in told[1:]] == ["and after"] * 3


def test_a_slow_client_catches_up_from_redis(client: FlaskClient, worker: HandWorker) -> None:
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    told = follow(client, job)
    next(told)
    end = 0
    for number in range(3 * RECENT):
        end = write(worker, run, end, f"{number} ")
    channel = services(client.application).streams._channels
    until(lambda: not channel or str(channel[run.id].after) == f"1-{end}", what="the process has read all of it")
    assert all(len(one.pieces) <= RECENT for one in channel.values()), "what nobody takes is not kept"
    text = "".join(f"{number} " for number in range(3 * RECENT))
    listener = Listener()
    while listener.text != text:
        listener.hear(next(told))
    worker.finish(run, text)
    assert heard(told).end.name == "done"


def test_who_claims_to_have_more_than_there_is_hides_nothing_from_others(
    client: FlaskClient, worker: HandWorker
) -> None:
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    wrong = follow(client, job, f"{run.fence}-99999")
    assert next(wrong).name == "status"
    claims = threading.Thread(target=list, args=(wrong,))
    claims.start()
    channels = services(client.application).streams._channels
    until(lambda: channels, what="the wrong place is followed")
    told = follow(client, job)
    assert next(told).name == "status"
    write(worker, run, 0, "for all ")
    assert next(told).data == {"text": "for all "}
    worker.finish(run, "for all to hear")
    assert heard(told).text == "to hear"
    claims.join(20)


def test_positions_are_told_as_they_change(client: FlaskClient, worker: HandWorker) -> None:
    jobs = [submit(client, prompt=f"number {number}")["id"] for number in range(3)]
    told = follow(client, jobs[2])
    assert next(told).data["queue"]["position"] == 3
    time_of = {}
    for _ in range(2):
        worker.claim()
        position = next(told).data["queue"]["position"]
        time_of[position] = time.monotonic()
    assert list(time_of) == [2, 1]


def test_silence_is_broken_by_comments(redis_server: RedisServer, api_key: str, open_client: OpenClient) -> None:
    client = open_client(make_settings(redis_server.url, stream_heartbeat=0.05), api_key)
    told = follow(client, submit(client)["id"])
    assert [next(told).name for _ in range(3)] == ["status", "", ""]


def test_a_lost_announcement_delays_and_loses_nothing(client: FlaskClient, worker: HandWorker, redis: Redis) -> None:
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    told = follow(client, job)
    next(told)
    redis.client_kill_filter(_type="pubsub")
    write(worker, run, 0, "while nobody listened ")
    worker.finish(run, "while nobody listened it ended")
    assert heard(told).text == "while nobody listened it ended"


def test_a_client_outlives_an_outage_of_redis(own_redis_server: RedisServer, open_client: OpenClient) -> None:
    with own_redis_server.client() as redis:
        api_key = KeyRing(redis).create("acme")
        settings = make_settings(own_redis_server.url, stream_heartbeat=0.2, redis_timeout=0.2)
        client, worker = open_client(settings, api_key), HandWorker(redis, settings)
        job = submit(client, stream=True)["id"]
        run = worker.claim()
        told = follow(client, job)
        next(told)
        own_redis_server.pause()
        try:
            redis_is_away = itertools.islice(told, 3)
            assert set(names(list(redis_is_away))) == {""}
        finally:
            own_redis_server.resume()
        write(worker, run, 0, "back")
        worker.finish(run, "back again")
        assert heard(told).text == "back again"


def test_an_entry_that_cannot_be_read_silences_nobody_for_good(
    client: FlaskClient, worker: HandWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = services(client.application).streams
    tried: list[object] = []

    def broken(after: object) -> object:
        tried.append(after)
        raise ValueError("nobody thought of this")

    told = follow(client, submit(client, stream=True)["id"])
    assert next(told).data["status"] == "queued"
    run = worker.claim()
    assert next(told).data["status"] == "in_progress"
    with monkeypatch.context() as breaking:
        breaking.setattr(streams._store, "pieces", broken)
        write(worker, run, 0, "so far ")
        until(lambda: tried)
    assert next(told).data == {"text": "so far "}, "read again, and no further piece came"
    told.close()


def test_who_leaves_leaves_nothing_behind(client: FlaskClient, worker: HandWorker) -> None:
    svc = services(client.application)
    job = submit(client, stream=True)["id"]
    told = [follow(client, job) for _ in range(3)]
    for one in told:
        next(one)
    assert svc.metrics.registry.get_sample_value("inferq_http_streams") == 3
    client.get(f"/v1/jobs/{job}/events").close()  # gone before the first event was asked for
    for one in told:
        one.close()
    assert svc.metrics.registry.get_sample_value("inferq_http_streams") == 0
    assert (svc.streams._channels, svc.waiters._waiting, svc.waiters._count) == ({}, {}, 0)


def test_the_stream_is_no_part_of_what_is_asked(client: FlaskClient, worker: HandWorker, redis: Redis) -> None:
    """Who follows finds what others have asked, and a repeated submission is the same if it says the default."""
    submit(client, stream=True)
    worker.finish(worker.claim(), "known")
    assert client.post("/v1/jobs", json={"prompt": "hi"}).status_code == 200
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", json={"prompt": "new"}, headers=headers)
    same = client.post("/v1/jobs", json={"prompt": "new", "stream": False}, headers=headers)
    assert first.json["id"] == same.json["id"]
    problem(
        client.post("/v1/jobs", json={"prompt": "new", "stream": True}, headers=headers), 422, "idempotency-key-reused"
    )
    assert not redis.keys(key("events", "*")), "and nothing is streamed that has ended"


def test_readers_at_the_same_time_do_not_disturb_each_other(client: FlaskClient, worker: HandWorker) -> None:
    """Joining and leaving while text comes: each hears all of it."""
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    text = "".join(f"{number} " for number in range(300))
    found: list[str] = []

    def read() -> None:
        found.append(heard(follow(client, job)).text)

    readers = [threading.Thread(target=read) for _ in range(8)]
    end = 0
    for number in range(300):
        if number % 40 == 0 and readers:
            readers[number // 40].start()
        end = write(worker, run, end, f"{number} ")
    worker.finish(run, text)
    for reader in readers:
        reader.join(20)
    assert found == [text] * 8


def test_text_of_a_void_attempt_is_not_told_again_while_the_job_waits(
    redis_server: RedisServer, api_key: str, open_client: OpenClient, worker: HandWorker
) -> None:
    client = open_client(make_settings(redis_server.url, stream_heartbeat=0.05), api_key)
    job = submit(client, stream=True)["id"]
    run = worker.claim()
    told = (one for one in follow(client, job))
    assert next(told).name == "status"
    write(worker, run, 0, "void")
    assert next(one for one in told if one.name).name == "token"
    worker.store.release(run)
    assert [next(one for one in told if one.name).name for _ in range(2)] == ["restarted", "status"]
    channel = services(client.application).streams._channels[run.id]
    while channel.standing is None:
        assert next(told).name == ""
    assert [next(told).name for _ in range(30)] == [""] * 30, "the position was looked up and had not changed"
