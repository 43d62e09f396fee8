"""What a job tells whoever follows it: a sequence of events, whatever carries them."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from api.representations import error_body, queue_body, usage_body
from api.streams import Follower, Streams
from inferq.errors import StoreUnavailable
from inferq.event_streams import MOST_PIECES, Followed, Place, Standing
from inferq.job_store import Answer
from inferq.jobs import Job, JobStatus

log = structlog.get_logger()

#: Seconds between tries to read a record while Redis does not answer.
RETRY_S: Final = 1.0
#: Why a job cannot be followed any longer, by the outcome of reading it.
_LOST: Final = {
    "unauthorized": ("unauthorized", "The API key has been revoked."),
    "unknown": ("gone", "The job has been erased."),
    "gone": ("gone", "The job has been erased."),
}
#: What the id of a last event ends with.
END: Final = "-end"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event: its name, the id to come back with, and its data as JSON has it."""

    name: str
    id: str
    data: Mapping[str, Any]


class Following:
    """One client's way through the events of one job.

    The record is the truth: the stream in Redis only shortens the time to the next piece of text. So whatever is
    missed, trimmed or gone with a worker, the text that a client has heard when it hears ``done`` is the job's output.
    """

    def __init__(
        self,
        streams: Streams,
        follower: Follower,
        read: Callable[[Place], Answer],
        *,
        place: Place,
        heartbeat_s: float,
    ) -> None:
        """``place``: how much the client has. ``heartbeat_s``: seconds of silence at most."""
        self._streams = streams
        self._follower = follower
        self._read = read
        self._place = place
        self._heartbeat_s = heartbeat_s
        self._told: tuple[JobStatus, int, int | None] | None = None

    def events(self, answer: Answer) -> Iterator[Event | None]:
        """Yield events until the last, which is ``done`` or ``error``; None when only a sign of life is due.

        ``answer`` is the first reading. Ends early when the client has gone.
        """
        while answer.outcome == "job":
            followed: Followed = answer.rest[0]
            yield from self._record(followed)
            if followed.job.status.is_terminal or self._follower.gone:
                return
            waits = followed.job.status is JobStatus.QUEUED
            self._streams.attach(self._follower, followed.job.run_id, self._place, waits=waits)
            if len(followed.pieces) < MOST_PIECES:
                yield from self._while_unchanged(followed.job)
            if self._follower.gone:
                return
            answer = yield from self._read_again()
        code, message = _LOST[answer.outcome]
        yield self._event("error", {"code": code, "message": message, "retryable": False}, end=True)

    def _record(self, followed: Followed) -> Iterator[Event]:
        """Yield what a record tells that the client does not know."""
        job, output = followed.job, (followed.job.output or "").encode()
        if job.status is JobStatus.COMPLETED or not job.status.is_terminal:
            if self._void(followed, len(output)):
                self._place = Place(followed.fence)
                yield self._event("restarted", {"attempt": job.attempt})
            elif not self._place.bytes:
                self._place = Place(followed.fence)
        if not job.status.is_terminal:
            yield from self._status(job)
        text = ""
        for piece in followed.pieces:
            more = piece.after(self._place)
            if more:
                text, self._place = text + more, piece.end
        if text:
            yield self._event("token", {"text": text})
        if job.status is JobStatus.COMPLETED:
            rest = output[self._place.bytes :].decode(errors="replace")
            self._place = Place(followed.fence, len(output))
            if rest:
                yield self._event("token", {"text": rest})
            yield self._event("usage", {**usage_body(job.prompt_tokens, job.completion_tokens or 0)})
            done = {"status": job.status.value, "attempt": job.attempt, "finish_reason": job.finish_reason}
            yield self._event("done", done, end=True)
        elif job.status.is_terminal:
            yield self._event("error", {"status": job.status.value, **(error_body(job) or _CANCELLED)}, end=True)

    def _void(self, followed: Followed, length: int) -> bool:
        """Whether the text that the client has is not the beginning of what the job will have."""
        if not self._place.bytes:
            return False
        if followed.job.status is JobStatus.COMPLETED and self._place.bytes > length:
            return True
        return self._place.fence != followed.fence or followed.job.status is JobStatus.QUEUED

    def _status(self, job: Job) -> Iterator[Event]:
        state = (job.status, job.attempt, job.position)
        if state != self._told:
            self._told = state
            yield self._event("status", {"status": job.status.value, "attempt": job.attempt, "queue": queue_body(job)})

    def _while_unchanged(self, job: Job) -> Iterator[Event | None]:
        """Yield text and positions until the record must be read again."""
        until = time.monotonic() + self._heartbeat_s
        while True:
            if not self._follower.wait(max(0.0, until - time.monotonic())):
                yield None
                until = time.monotonic() + self._heartbeat_s
                continue
            self._follower.clear()
            news = self._streams.news(self._follower, self._place)
            if self._follower.take_change() or self._follower.gone or news is None:
                return
            text, place = news
            # While it waits, what is here is of an attempt that is void.
            if text and job.status is not JobStatus.QUEUED:
                self._place = place
                yield self._event("token", {"text": text})
            standing = self._streams.standing(self._follower)
            if standing and standing.position:
                yield from self._status(_standing(job, standing))
            if text:
                until = time.monotonic() + self._heartbeat_s

    def _read_again(self) -> Generator[Event | None, None, Answer]:
        """Read the record, however long Redis is away."""
        while True:
            try:
                return self._read(self._place)
            except StoreUnavailable as error:
                log.warning("follower_waits_for_store", reason=str(error))
                yield None
                self._follower.wait(RETRY_S)

    def _event(self, name: str, data: Mapping[str, Any], *, end: bool = False) -> Event:
        return Event(name=name, id=f"{self._place}{END if end else ''}", data=data)


_CANCELLED: Final = {"code": "cancelled", "message": "The job was cancelled.", "retryable": False}


def _standing(job: Job, standing: Standing) -> Job:
    return replace(job, position=standing.position, wait_ms=standing.wait_ms)
