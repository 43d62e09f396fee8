"""The client's dialogues, played without a network: which steps they take, given what came of the last one."""

import json
from typing import Any

import pytest

from inferq_client import NoAnswer, NoRoom, WaitTimeout
from inferq_client.dialogues import Dialogues
from inferq_client.exchange import BACKOFF_S, Call, Dialogue, Pause, Reply, Show

LIVE: dict[str, Any] = {"id": "01a2", "status": "queued", "terminal": False}
DONE = LIVE | {"status": "completed", "terminal": True}


class Play:
    """Does the steps of a dialogue by a script of outcomes; time passes only in pauses and in held calls."""

    def __init__(self, retry_for_s: float = 60.0) -> None:
        self.now = 0.0
        self.dialogues = Dialogues(retry_for_s, lambda: self.now)
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.shown: list[Any] = []

    def play(self, dialogue: Dialogue[Any], *outcomes: Reply | NoAnswer, held: bool = False) -> Any:
        script, outcome = list(outcomes), None
        while True:
            try:
                step = dialogue.send(outcome)
            except StopIteration as end:
                assert not script, "all of the script was used"
                return end.value
            outcome = None
            match step:
                case Call():
                    self.calls.append(step)
                    self.now += step.hold_s if held else 0.0
                    outcome = script.pop(0)
                case Pause():
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                case Show():
                    self.shown.append(step.what)


def reply(status: int, body: Any = None, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names, body=json.dumps(body).encode())


def refused(seconds: int) -> Reply:
    return reply(503, {"code": "temporary-reduced-capacity", "detail": "full"}, retry_after=str(seconds))


def test_a_repeat_waits_as_it_is_told_and_a_little_longer() -> None:
    play = Play()
    play.play(play.dialogues.get("01a2"), refused(3), refused(7), reply(200, DONE))
    assert 3 <= play.pauses[0] <= 3.75
    assert 7 <= play.pauses[1] <= 8.75


def test_without_being_told_it_waits_longer_each_time() -> None:
    play = Play()
    lost = [NoAnswer("gone")] * 12
    play.play(play.dialogues.get("01a2"), *lost, reply(200, DONE))
    first, most = BACKOFF_S
    assert all(min(most, first * 2**n) / 2 <= pause <= min(most, first * 2**n) for n, pause in enumerate(play.pauses))


def test_it_gives_up_when_the_wait_would_be_too_long() -> None:
    play = Play(retry_for_s=10)
    with pytest.raises(NoRoom) as full:
        play.play(play.dialogues.get("01a2"), refused(4), refused(8))
    assert len(play.pauses) == 1
    assert full.value.retry_after_s == 8
    with pytest.raises(NoAnswer):
        play.play(play.dialogues.get("01a2"), *[NoAnswer("gone")] * 100)
    assert sum(play.pauses) < 20


def test_all_repeats_of_a_submit_carry_one_key_and_each_submit_another() -> None:
    play = Play()
    for _ in range(2):
        play.play(play.dialogues.submit("hi", {}), NoAnswer("gone"), refused(1), reply(202, LIVE))
    keys = [call.headers["Idempotency-Key"] for call in play.calls]
    assert len(set(keys[:3])) == len(set(keys[3:])) == 1
    assert keys[0] != keys[3]


def test_without_a_key_only_what_was_surely_not_done_is_repeated() -> None:
    away = reply(503, {"code": "store-unavailable", "detail": "away"}, retry_after="1")
    play = Play()
    job = play.play(play.dialogues.submit("hi", {}, idempotency_key=None), refused(1), reply(202, LIVE))
    assert job.id == "01a2"
    with pytest.raises(NoRoom, match="away"):
        play.play(play.dialogues.submit("hi", {}, idempotency_key=None), away)
    assert play.play(play.dialogues.submit("hi", {}), away, reply(202, LIVE)).id == "01a2"


def test_waiting_holds_reads_and_misses_no_change() -> None:
    play = Play()
    queued, running = reply(200, LIVE, etag='"q.0"'), reply(200, LIVE | {"status": "in_progress"}, etag='"r.1"')
    ended = play.play(
        play.dialogues.wait("01a2", timeout_s=None),
        queued,
        reply(304, etag='"q.0"'),
        running,
        reply(200, DONE),
        held=True,
    )
    assert ended.status == "completed"
    seen = [(call.headers.get("Prefer"), call.headers.get("If-None-Match")) for call in play.calls]
    assert seen == [(None, None), ("wait=30", '"q.0"'), ("wait=30", '"q.0"'), ("wait=30", '"r.1"')]
    assert play.pauses == []


def test_a_service_that_holds_no_reads_is_asked_no_more_often_than_it_says() -> None:
    play = Play()
    idle = reply(304, etag='"q.0"', retry_after="5")
    play.play(play.dialogues.wait("01a2", timeout_s=None), reply(200, LIVE, etag='"q.0"'), idle, idle, reply(200, DONE))
    assert len(play.pauses) == 2
    assert all(5 <= pause <= 6.25 for pause in play.pauses)


def test_waiting_ends_in_time() -> None:
    play = Play()
    idle = reply(304, etag='"q.0"', retry_after="60")
    with pytest.raises(WaitTimeout) as late:
        play.play(play.dialogues.wait("01a2", timeout_s=7.5), reply(200, LIVE, etag='"q.0"'), idle, idle)
    assert play.now == 7.5
    assert late.value.job.status == "queued"
    assert play.calls[1].hold_s == 7
