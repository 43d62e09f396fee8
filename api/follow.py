"""What a job tells whoever follows it: a sequence of events, whatever carries them."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from api.callers import STRANGERS
from api.representations import error_body, queue_body, usage_body
from api.streams import Follower, Streams
from inferq.completion_cache import CachedCompletion
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
        until: float,
    ) -> None:
        """``place``: how much the client has. ``heartbeat_s``: seconds of silence at most. ``until``: when the client's
        right to hear ends, in seconds since 1970.
        """
        self._streams = streams
        self._follower = follower
        self._read = read
        self._place = place
        self._heartbeat_s = heartbeat_s
        self._until = until
        self._told: tuple[JobStatus, int, int | None] | None = None

    def events(self, first: Followed) -> Iterator[list[Event]]:
        """Yield what there is to tell, all at once, until the last event, which is ``done`` or ``error``.

        An empty list: only a sign of life is due. ``first`` is what was read first. Ends early when the client has
        gone, or its token ends: with another it may go on.
        """
        followed = first
        while True:
            told = self._record(followed)
            if told:
                yield told
            if followed.job.status.is_terminal or self._over():
                return
            waits = followed.job.status is JobStatus.QUEUED
            self._streams.attach(self._follower, followed.job.run_id, self._place, waits=waits)
            if len(followed.pieces) < MOST_PIECES:
                yield from self._while_unchanged(followed.job)
            if self._over():
                return
            answer = yield from self._read_again()
            if answer.outcome != "job":
                break
            followed = answer.rest[0]
        refused = answer.outcome == "unauthorized" and answer.rest
        code, message = STRANGERS[answer.rest[0]] if refused else _LOST[answer.outcome]
        yield [self._event("error", {"code": code, "message": message, "retryable": False}, end=True)]

    def _over(self) -> bool:
        return self._follower.gone or time.time() >= self._until

    def _record(self, followed: Followed) -> list[Event]:
        """Return what a record tells that the client does not know."""
        job, output, told = followed.job, (followed.job.output or "").encode(), list[Event]()
        if job.status is JobStatus.COMPLETED or not job.status.is_terminal:
            if self._void(followed, len(output)):
                self._place = Place(followed.fence)
                told.append(self._event("restarted", {"attempt": job.attempt}))
            elif not self._place.bytes:
                self._place = Place(followed.fence)
        if not job.status.is_terminal:
            told += self._status(job)
        text = ""
        for piece in followed.pieces:
            more = piece.after(self._place)
            if more:
                text, self._place = text + more, piece.end
        if text:
            told.append(self._event("token", {"text": text}))
        if job.status is JobStatus.COMPLETED:
            rest = output[self._place.bytes :].decode(errors="replace")
            self._place = Place(followed.fence, len(output))
            told += _completed(self._place, rest, job.attempt, job)
        elif job.status.is_terminal:
            said = {"status": job.status.value, **(error_body(job) or _CANCELLED)}
            told.append(self._event("error", said, end=True))
        return told

    def _void(self, followed: Followed, length: int) -> bool:
        """Whether the text that the client has is not the beginning of what the job will have."""
        if not self._place.bytes:
            return False
        if followed.job.status is JobStatus.COMPLETED and self._place.bytes > length:
            return True
        return self._place.fence != followed.fence or followed.job.status is JobStatus.QUEUED

    def _status(self, job: Job) -> list[Event]:
        state = (job.status, job.attempt, job.position)
        if state == self._told:
            return []
        self._told = state
        return [self._event("status", {"status": job.status.value, "attempt": job.attempt, "queue": queue_body(job)})]

    def _while_unchanged(self, job: Job) -> Iterator[list[Event]]:
        """Yield text and positions until the record must be read again."""
        until = time.monotonic() + self._heartbeat_s
        while True:
            if not self._follower.wait(max(0.0, min(until - time.monotonic(), self._until - time.time()))):
                if self._over():
                    return
                yield []
                until = time.monotonic() + self._heartbeat_s
                continue
            self._follower.clear()
            news = self._streams.news(self._follower, self._place)
            if self._follower.take_change() or self._follower.gone or news is None:
                return
            text, place = news
            told = list[Event]()
            # While it waits, what is here is of an attempt that is void.
            if text and job.status is not JobStatus.QUEUED:
                self._place = place
                told.append(self._event("token", {"text": text}))
            standing = self._streams.standing(self._follower)
            if standing and standing.position:
                told += self._status(_standing(job, standing))
            if told:
                yield told
            if text:
                until = time.monotonic() + self._heartbeat_s

    def _read_again(self) -> Generator[list[Event], None, Answer]:
        """Read the record, however long Redis is away."""
        while True:
            try:
                return self._read(self._place)
            except StoreUnavailable as error:
                log.warning("follower_waits_for_store", reason=str(error))
                yield []
                self._follower.wait(RETRY_S)

    def _event(self, name: str, data: Mapping[str, Any], *, end: bool = False) -> Event:
        return _event(self._place, name, data, end=end)


def told_from_cache(completion: CachedCompletion) -> list[Event]:
    """Return the events of an answer that was in the cache, from its text to its end."""
    place = Place(0, len(completion.text.encode()))
    return _completed(place, completion.text, 0, completion)


def _completed(place: Place, rest: str, attempt: int, ended: Job | CachedCompletion) -> list[Event]:
    """Return the last events of a completed job: the rest of its text, which ends at ``place``, and its end."""
    told = [_event(place, "token", {"text": rest})] if rest else []
    told.append(_event(place, "usage", {**usage_body(ended.prompt_tokens, ended.completion_tokens or 0)}))
    done = {"status": JobStatus.COMPLETED.value, "attempt": attempt, "finish_reason": ended.finish_reason}
    return [*told, _event(place, "done", done, end=True)]


def _event(place: Place, name: str, data: Mapping[str, Any], *, end: bool = False) -> Event:
    return Event(name=name, id=f"{place}{END if end else ''}", data=data)


_CANCELLED: Final = {"code": "cancelled", "message": "The job was cancelled.", "retryable": False}


def _standing(job: Job, standing: Standing) -> Job:
    return replace(job, position=standing.position, wait_ms=standing.wait_ms)
