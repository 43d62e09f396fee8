"""How the client follows a stream: every way to be cut off, against a server that cuts where it is told."""

import contextlib
from typing import Any

import pytest

from inferq_client import (
    Accepted,
    Ended,
    JobFailed,
    NoAnswer,
    NotFound,
    NotUnderstood,
    Restarted,
    Status,
    Token,
    Used,
)
from tests.event_server import CUT, JOB, EventServer, event, streaming
from tests.twins import KINDS, twin

DONE = JOB | {"status": "completed", "terminal": True, "output": {"text": "eins zwei", "finish_reason": "stop"}}
FAILED = JOB | {"status": "failed", "terminal": True, "error": {"code": "poison", "message": "It kills engines."}}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def told(kind: str, server: EventServer, retry_for_s: float = 20.0) -> list[Any]:
    with twin(kind, server.url, "iq_a_bcdefghij", retry_for_s=retry_for_s) as client:
        return list(client.stream("hi", max_tokens=5))


def text(events: list[Any]) -> str:
    return "".join(one.text for one in events if isinstance(one, Token))


def test_a_story_is_told_in_order(kind: str) -> None:
    pieces = [
        b": hello\n\n",
        event(1, "status", {"status": "queued", "attempt": 0, "queue": {"position": 3, "eta_s": 1.5}}),
        event(2, "status", {"status": "in_progress", "attempt": 1, "queue": None}),
        event(3, "token", {"text": "eins \n"})[:20], event(3, "token", {"text": "eins \n"})[20:],
        b": still here\n\n", event(4, "news", {"of": "a later version"}), event(5, "token", {"text": "zwei \u00e9"}),
        event(6, "usage", {"prompt_tokens": 2, "completion_tokens": 4}), event(7, "done", DONE),
    ]  # fmt: skip
    with streaming(pieces) as server:
        events = told(kind, server)
        assert [type(one) for one in events] == [Accepted, Status, Status, Token, Token, Used, Ended]
        assert (events[1].queue.position, events[1].queue.eta_s, events[2].status) == (3, 1.5, "in_progress")
        assert text(events) == "eins \nzwei é"
        assert (events[-2].usage.completion_tokens, events[-1].job.text) == (4, "eins zwei")
        assert server.submitted == {"prompt": "hi", "max_tokens": 5}
        assert server.asked[0]["accept"] == "text/event-stream"
        assert "last-event-id" not in server.asked[0]


def test_a_lost_stream_goes_on_where_it_was(kind: str) -> None:
    first = [event(1, "status", {"status": "in_progress"}), event(2, "token", {"text": "eins "}), b"id: 3-0\nev", CUT]
    second = [event(3, "token", {"text": "zwei"}), CUT]
    with streaming(first, 503, second, [CUT], [event(4, "done", DONE)]) as server:
        assert text(told(kind, server)) == "eins zwei"
        assert [one.get("last-event-id") for one in server.asked] == [None, "2-0", "2-0", "3-0", "3-0"]


def test_an_attempt_that_starts_again_says_so(kind: str) -> None:
    pieces = [event(1, "token", {"text": "ein"}), event(2, "restarted", {}), event(3, "token", {"text": "eins"})]
    with streaming([*pieces, event(4, "done", DONE)]) as server:
        events = told(kind, server)
    assert [type(one) for one in events[1:]] == [Token, Restarted, Token, Ended]


@pytest.mark.parametrize("data", [FAILED, FAILED["error"]])
def test_a_job_that_failed_is_raised(kind: str, data: dict[str, Any]) -> None:
    # The error alone does not say all: the client asks for the job.
    with streaming([event(1, "error", data)], job=FAILED) as server, pytest.raises(JobFailed, match="kills") as failed:
        told_of(kind, server)
    assert failed.value.job.error.code == "poison"


def told_of(kind: str, server: EventServer) -> None:
    with twin(kind, server.url, "") as client:
        list(client.events(JOB["id"]))


def test_streams_that_lead_nowhere_end(kind: str) -> None:
    with streaming(404) as server, pytest.raises(NotFound, match="as the script says"):
        told(kind, server)
    with streaming(*[[CUT]] * 50) as server, pytest.raises(NoAnswer, match="ended before the job did"):
        told(kind, server, retry_for_s=0.5)
    with streaming([b"id: 1\nevent: token\ndata: {broken\n\n"]) as server, pytest.raises(NotUnderstood, match="token"):
        told(kind, server)


def test_a_job_that_had_ended_is_told_from_itself(kind: str) -> None:
    job = DONE | {"usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    with streaming([CUT], [b": nothing more\n\n"], job=job) as server:
        events = told(kind, server)
        assert [type(one) for one in events] == [Accepted, Token, Used, Ended]
        keys = [one["idempotency-key"] for one in server.asked]
        assert len(keys) == 2, "cut off before the job was known, it is submitted again"
        assert keys[0] == keys[1]


def test_a_submit_that_cannot_be_repeated_is_not(kind: str) -> None:
    with streaming([CUT], [event(1, "done", DONE)]) as server, twin(kind, server.url, "iq_a_bcdefghij") as client:
        with pytest.raises(NoAnswer):
            list(client.stream("hi", idempotency_key=None))
        assert len(server.asked) == 1


def test_once_the_job_is_known_its_stream_goes_on_without_a_key_too(kind: str) -> None:
    pieces = [event(2, "token", {"text": "eins "}), CUT], [event(3, "token", {"text": "zwei"}), event(4, "done", DONE)]
    with streaming(*pieces) as server, twin(kind, server.url, "iq_a_bcdefghij") as client:
        assert text(list(client.stream("hi", idempotency_key=None))) == "eins zwei"
        assert [one.get("last-event-id") for one in server.asked] == [None, "2-0"]


def test_a_reader_who_leaves_closes_the_connection(kind: str) -> None:
    with streaming([event(1, "token", {"text": "a"})] * 1000) as server, twin(kind, server.url, "") as client:
        events = client.stream("hi")
        with contextlib.closing(events):
            assert isinstance(next(events), Accepted)
            assert isinstance(next(events), Token)
