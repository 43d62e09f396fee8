"""The Python client, blocking and awaiting, against the real service."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from inferq.redis_client import job_redis
from inferq_client import (
    AUTO,
    BadRequest,
    Conflict,
    Ended,
    Gone,
    Inferq,
    JobCancelled,
    JobFailed,
    NoAnswer,
    NotCached,
    NotFound,
    NotUnderstood,
    Progress,
    RateLimited,
    Restarted,
    Token,
    Unauthorized,
    WaitTimeout,
    dialogues,
)
from tests.cutter import Cutter, cutting
from tests.processes import until
from tests.receiver import receiving
from tests.service import Service
from tests.twins import KINDS, twin

_NUMBERS = itertools.count()


def words(number: int, *more: str) -> str:
    """A prompt that nobody has asked, answered with so many words."""
    return f"client {next(_NUMBERS)} simulate:words={number} {' '.join(more)}"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def client(kind: str, service: Service) -> Iterator[Any]:
    with twin(kind, service.url, service.key) as client:
        yield client


@pytest.fixture
def cutter(service: Service) -> Iterator[Cutter]:
    with cutting(service.url) as cutter:
        yield cutter


def test_a_job_from_submission_to_end(client: Any) -> None:
    prompt = words(8)
    job = client.submit(prompt, temperature=0.0, metadata={"who": "me"}, priority="low")
    assert (job.status, job.terminal, job.priority, job.metadata) == ("queued", False, "low", {"who": "me"})
    ended = client.wait(job)
    assert (ended.status, len(ended.text.split()), ended.usage.completion_tokens) == ("completed", 8, 8)
    assert ended.timings.total_s >= ended.timings.run_s > 0
    assert ended.created_at <= ended.started_at <= ended.completed_at < ended.expires_at
    assert client.get(job.id) == ended == ended.checked()
    again = client.submit(prompt, temperature=0.0)
    assert (again.status, again.cache, again.text) == ("completed", "hit", ended.text)
    assert ended.text not in repr(ended)
    client.delete(job)
    with pytest.raises(Gone):
        client.get(job)


def test_run_waits_in_the_same_call_and_beyond(client: Any) -> None:
    assert client.run(words(3)).status == "completed"
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": words(4)}]
    assert len(client.run(talk).text.split()) == 4
    job = client.submit(words(4), wait_s=30)
    assert job.terminal
    with pytest.raises(WaitTimeout) as late:
        client.run(words(400), timeout_s=0.1)
    assert client.cancel(late.value.job).status in ("cancelled", "cancelling")
    assert client.wait(late.value.job.id, timeout_s=20).status == "cancelled"
    with pytest.raises(WaitTimeout, match="still"):
        client.wait(client.submit(words(400)), timeout_s=1.2)


def test_a_job_that_ends_badly_is_an_error(client: Any) -> None:
    with pytest.raises(JobFailed, match="told to fail") as failed:
        client.run(words(1, "simulate:fails"))
    assert (failed.value.job.error.code, failed.value.job.error.retryable) == ("simulated_failure", False)
    job = client.submit(words(1000))
    client.cancel(job)
    ended = client.wait(job)
    with pytest.raises(JobCancelled):
        ended.checked()
    done = client.run(words(1))
    with pytest.raises(Conflict) as refused:
        client.cancel(done)
    assert refused.value.code == "already-finished"


def test_watch_shows_changes_and_the_place(client: Any) -> None:
    before = [client.submit(words(100)) for _ in range(4)]
    seen = list(client.watch(client.submit(words(20)), every_s=0.1))
    assert seen[-1].status == "completed"
    assert any(job.queue and job.queue.position for job in seen)
    assert [job.status for job in client.watch(before[0].id)][-1] == "completed"
    assert [job.status for job in client.watch(seen[-1])] == ["completed"]


def test_refusals_are_typed(client: Any, service: Service, kind: str) -> None:
    with pytest.raises(BadRequest) as wrong:
        client.submit("hi", max_tokens=0, top_p=7.0)
    error = wrong.value
    assert (error.status, error.code, error.field) == (422, "invalid-request", "max_tokens")
    assert [one.field for one in error.errors] == ["max_tokens", "top_p"]
    assert len(error.request_id) == 36
    with pytest.raises(NotFound):
        client.get("01a20a0d-5622-7cb3-a198-596cd62f6c30")
    with pytest.raises(NotFound):
        client.get("../../health?x=")
    with pytest.raises(NotFound) as unknown:
        client.submit("hi", model="gpt-7")
    assert unknown.value.field == "model"
    with pytest.raises(NotCached):
        client.submit(words(1), cache_control="only-if-cached")
    with twin(kind, service.url, "iq_no_such_key_at_all") as stranger, pytest.raises(Unauthorized):
        stranger.submit("hi")


def test_a_limit_is_waited_for_or_told(service: Service, kind: str) -> None:
    from inferq.credentials import KeyLimits, KeyRing

    key = KeyRing(service.redis).create("hasty", limits=KeyLimits(requests=1))
    with twin(kind, service.url, key, retry_for_s=5) as hasty:
        hasty.submit(words(1))
        with pytest.raises(RateLimited) as limited:
            hasty.submit(words(1))
    # The window is a minute: waiting five seconds would be of no use, so nothing was waited for.
    assert limited.value.retry_after_s > 5
    assert limited.value.violated == ("requests",)


def test_lost_answers_make_no_second_job(service: Service, cutter: Cutter, kind: str) -> None:
    key = service.tenant()
    with twin(kind, cutter.url, key) as client:
        cutter.cuts = 2
        job = client.submit(words(2))
        assert cutter.cut == 2
        assert job.replayed
        cutter.cuts = 1
        assert client.wait(job.id).status == "completed"
        cutter.cuts = 1
        assert client.cancel(client.submit(words(1000))).status in ("cancelled", "cancelling")
        assert cutter.cut == 4
    assert service.submitted(key) == 2


def test_without_a_key_what_may_have_been_accepted_is_not_sent_again(
    service: Service, cutter: Cutter, kind: str
) -> None:
    key = service.tenant()
    with twin(kind, cutter.url, key) as client:
        cutter.cuts = 1
        with pytest.raises(NoAnswer) as lost:
            client.submit(words(2), idempotency_key=None)
        assert lost.value.sent
        prompt = words(2)
        client.run(prompt, idempotency_key=None)
        assert client.submit(prompt, idempotency_key=None).id is None, "a hit without a record"
    assert service.submitted(key) == 2


def test_a_key_of_one_s_own(client: Any) -> None:
    prompt, key = words(2), f"mine-{next(_NUMBERS)}"
    first = client.submit(prompt, idempotency_key=key)
    again = client.submit(prompt, idempotency_key=key)
    assert (again.id, first.replayed, again.replayed) == (first.id, False, True)
    with pytest.raises(BadRequest) as reused:
        client.submit(words(2), idempotency_key=key)
    assert reused.value.code == "idempotency-key-reused"
    assert repr(AUTO) == "AUTO"


def test_a_service_that_is_away_is_waited_for(service: Service, kind: str) -> None:
    with twin(kind, service.url, service.key, retry_for_s=20, timeout_s=5) as client:
        # The store stands still for longer than the API waits for it: the API says 503, the client comes again.
        with job_redis(service.settings) as redis:
            redis.execute_command("CLIENT", "PAUSE", 1500, "WRITE")
        assert client.run(words(1)).status == "completed"
    began = time.monotonic()
    with twin(kind, "http://127.0.0.1:9", "", retry_for_s=0.5) as client, pytest.raises(NoAnswer) as nobody:
        client.queue()
    assert not nobody.value.sent
    assert "cannot be reached" in str(nobody.value)
    assert time.monotonic() - began < 10


def test_an_address_that_is_not_inferq_is_said(kind: str) -> None:
    with receiving(lambda _, __: 404) as receiver, twin(kind, receiver.url, "") as client:
        with pytest.raises(NotUnderstood, match="not inferq"):
            client.submit("hi")
        receiver.behaviour = lambda _, __: 204
        with pytest.raises(NotUnderstood):
            client.submit("hi")


def test_list_goes_through_all_pages(service: Service, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogues, "PAGE", 5)
    with twin(kind, service.url, service.tenant()) as client:
        made = [client.submit(words(1)).id for _ in range(11)]
        assert [job.id for job in client.list()] == made[::-1]
        assert [job.id for job in client.list(limit=3)] == made[:-4:-1]
        client.wait(made[0])
        assert made[0] in {job.id for job in client.list(status="completed")}


def test_map_keeps_the_order_and_its_bound(service: Service, kind: str) -> None:
    progress: list[Progress] = []
    with twin(kind, service.url, service.tenant()) as client:
        items = [words(1 + number % 5) for number in range(40)]
        found = list(client.map(items, concurrency=5, progress=progress.append, temperature=0.0))
        assert [len(job.text.split()) for job in found] == [1 + number % 5 for number in range(40)]
        assert [one.done for one in progress] == list(range(1, 41))
        assert progress[-1].left_s == 0
        mixed = [
            {"prompt": words(2), "max_tokens": 1},
            words(1, "simulate:fails"),
            {"messages": [{"role": "user", "content": words(2)}]},
        ]
        short, failed, talk = client.map(mixed, return_errors=True)
        assert (short.output.finish_reason, type(failed), len(talk.text.split())) == ("length", JobFailed, 2)
        with pytest.raises(JobFailed):
            list(client.map(mixed))


def test_a_map_that_is_left_leaves_nothing_running(service: Service, kind: str) -> None:
    before = threading.active_count()
    with twin(kind, service.url, service.tenant()) as client:
        for _ in client.map((words(5) for _ in range(10_000)), concurrency=4):
            break
        else:
            pytest.fail("there were results")
    until(lambda: threading.active_count() <= before, 5, "its threads have ended")


def test_a_stream_tells_the_text_of_the_job_though_it_is_cut(service: Service, cutter: Cutter, kind: str) -> None:
    text = ""
    with twin(kind, cutter.url, service.key) as client:
        for event in client.stream(words(300), max_tokens=300):
            match event:
                case Token():
                    text += event.text
                    cutter.cuts = int(cutter.cut < 2)
                case Restarted():
                    text = ""
        assert cutter.cut == 2
        assert isinstance(event, Ended)
        assert event.job.text == text
        assert len(text.split()) == 300
        failing = client.stream(words(1, "simulate:fails"))
        with pytest.raises(JobFailed):
            list(failing)


def test_state_of_the_service(client: Any, service: Service) -> None:
    state = client.queue()
    (engine,) = state.engines
    assert (engine.engine, engine.slots, engine.paused) == ("demo-mistral", 4, False)
    assert engine.workers[0].state == "ready"
    assert client.usage()["weight"] == 1.0


def test_what_is_not_given_comes_from_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_URL", service.url)
    monkeypatch.setenv("INFERQ_API_KEY", service.key)
    with Inferq() as client:
        assert client.run(words(1)).status == "completed"
        assert service.key not in repr(client)
