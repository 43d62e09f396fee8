"""What the client does, step by step, whichever way the steps are done."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from inferq_client.errors import InferqError, NoAnswer, NotUnderstood, WaitTimeout
from inferq_client.events import Accepted, Ended, Restarted, Status, Token, Used
from inferq_client.exchange import (
    Call,
    Dialogue,
    Follow,
    Next,
    Patience,
    Pause,
    Reply,
    ServerEvent,
    Show,
    jittered,
    problem,
)
from inferq_client.jobs import Job, Place, Prompt, job_usage

#: Seconds the service holds a submit and a read open at most.
MOST_SUBMIT_WAIT: Final = 60
MOST_READ_WAIT: Final = 30
#: Seconds between looks when the service does not hold reads open and says nothing else.
LOOK_S: Final = 1.0
#: The media type of server-sent events.
EVENTS: Final = "text/event-stream"
#: Jobs asked for at once in a list.
PAGE: Final = 100


class _Auto:
    """A new Idempotency-Key for every submission."""

    def __repr__(self) -> str:
        return "AUTO"


AUTO: Final = _Auto()
IdempotencyKey = str | None | _Auto


class Dialogues:
    """Builds dialogues. ``retry_for_s``: how long calls are repeated; ``clock``: seconds that never go back."""

    def __init__(self, retry_for_s: float, clock: Callable[[], float]) -> None:
        self._retry_for_s = retry_for_s
        self._clock = clock

    def ask(self, call: Call, retry_for_s: float | None = None) -> Dialogue[Reply]:
        """Send a call, again where that is of use; raises what the service or the network said last."""
        patience = Patience(self._retry_for_s if retry_for_s is None else retry_for_s, self._clock)
        while True:
            outcome: Reply | NoAnswer = yield call
            if isinstance(outcome, Reply) and (outcome.status < 300 or outcome.status == 304):
                return outcome
            error = problem(outcome) if isinstance(outcome, Reply) else outcome
            pause_s = patience.pause_s(error, repeatable=call.repeatable)
            if pause_s is None:
                raise error
            yield Pause(seconds=pause_s)

    def submit(
        self,
        prompt: Prompt,
        options: Mapping[str, Any],
        *,
        wait_s: int = 0,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
        retry_for_s: float | None = None,
    ) -> Dialogue[Job]:
        """Submit. One key for all repeats: however often the answer is lost, there is one job."""
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        call = _submission(prompt, options, idempotency_key, cache_control, headers, hold_s=wait_s)
        reply = yield from self.ask(call, retry_for_s)
        return Job.of(reply.json(), replayed=reply.headers.get("idempotency-replayed") == "true")

    def run(self, prompt: Prompt, options: Mapping[str, Any], *, timeout_s: float | None, **how: Any) -> Dialogue[Job]:
        """Submit and wait for the end, in one call where that is enough."""
        ends = self._ends(timeout_s)
        hold = int(min(MOST_SUBMIT_WAIT, max(0.0, ends - self._clock())))
        job = yield from self.submit(prompt, options, wait_s=hold, **how)
        if job.terminal or job.id is None:
            return job
        return (yield from self.wait(job, timeout_s=None if timeout_s is None else ends - self._clock()))

    def get(self, job: Job | str) -> Dialogue[Job]:
        """Read a job."""
        reply = yield from self.ask(Call(method="GET", path=_path(job)))
        return Job.of(reply.json())

    def cancel(self, job: Job | str) -> Dialogue[Job]:
        """Cancel a job; raises Conflict when it has ended otherwise."""
        reply = yield from self.ask(Call(method="POST", path=f"{_path(job)}/cancel"))
        return Job.of(reply.json())

    def delete(self, job: Job | str) -> Dialogue[None]:
        """Erase prompt and output of a finished job."""
        yield from self.ask(Call(method="DELETE", path=_path(job)))

    def list(self, status: str | None, limit: int | None) -> Dialogue[None]:
        """Show the tenant's jobs, newest first."""
        cursor, left = "", math.inf if limit is None else limit
        while left > 0:
            query: dict[str, str | int] = {"limit": int(min(PAGE, left)), "status": status or "", "cursor": cursor}
            call = Call(method="GET", path="/v1/jobs", query={name: value for name, value in query.items() if value})
            page = (yield from self.ask(call)).json()
            for raw in page.get("data", ()):
                yield Show(what=Job.of(raw))
                left -= 1
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def read(self, path: str, query: Mapping[str, str | int] | None = None) -> Dialogue[dict[str, Any]]:
        """Read one of the small resources, as JSON."""
        reply = yield from self.ask(Call(method="GET", path=path, query=query or {}))
        found = reply.json()
        if not isinstance(found, dict):
            raise NotUnderstood("what the service sent is not an object")
        return found

    def wait(self, job: Job | str, *, timeout_s: float | None) -> Dialogue[Job]:
        """Wait for the end of a job; raises WaitTimeout."""
        looks = self.watch(job, every_s=None, timeout_s=timeout_s)
        last: Job | None = job if isinstance(job, Job) else None
        outcome: Any = None
        while True:
            try:
                step = looks.send(outcome)
            except StopIteration:
                break
            if isinstance(step, Show):
                last, outcome = step.what, None
            else:
                outcome = yield step
        if last is None:
            raise NotUnderstood("the service said nothing of the job")
        return last

    def watch(self, job: Job | str, *, every_s: float | None, timeout_s: float | None) -> Dialogue[None]:
        """Show the job until it has ended: at each change, and with ``every_s`` as often as that; raises WaitTimeout.

        The service holds each read open until something changes (``Prefer: wait``), so there is no need to ask often.
        """
        last = job if isinstance(job, Job) else None
        if last and (last.terminal or last.id is None):
            yield Show(what=last)
            return
        path, tag, ends = _path(job), None, self._ends(timeout_s)
        while True:
            left = ends - self._clock()
            hold = int(max(0.0, min(MOST_READ_WAIT if every_s is None else every_s, left)))
            # Whoever knows nothing yet is told at once.
            headers = {"Prefer": f"wait={hold}"} if hold and last else {}
            # With the tag no change between two reads is missed; without it each answer has the place in the queue.
            if tag and every_s is None:
                headers["If-None-Match"] = tag
            began = self._clock()
            reply = yield from self.ask(Call(method="GET", path=path, headers=headers, hold_s=hold))
            changed = reply.status != 304 and reply.headers.get("etag") != tag
            if reply.status != 304:
                last = Job.of(reply.json())
                yield Show(what=last)
                if last.terminal:
                    return
            tag = reply.headers.get("etag")
            left = ends - self._clock()
            if left <= 0 and timeout_s is not None:
                raise WaitTimeout(last, timeout_s)
            held = self._clock() - began
            if (changed and every_s is None) or (hold and held > hold / 2):
                continue
            # It did not hold the read: it holds as many as it can already, or was not asked to.
            pause_s = jittered(reply.retry_after_s or LOOK_S) if every_s is None else max(0.0, every_s - held)
            yield Pause(seconds=min(pause_s, left))

    def stream(
        self,
        prompt: Prompt,
        options: Mapping[str, Any],
        *,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
    ) -> Dialogue[None]:
        """Submit and show what the job tells, in one call; raises JobFailed and its like when it ends so."""
        call = _submission(prompt, options, idempotency_key, cache_control, {"Accept": EVENTS})
        yield from self._follow(None, call)

    def events(self, job: Job | str, after: str = "") -> Dialogue[None]:
        """Show what a streaming job tells, from its beginning or after an event; a lost stream goes on where it was."""
        yield from self._follow(job, _following(job, after), after)

    def _follow(self, job: Job | str | None, call: Call, after: str = "") -> Dialogue[None]:
        """Show what ``call`` tells; once the job is known, a lost stream goes on where it was."""
        patience = Patience(self._retry_for_s, self._clock)
        while True:
            opened = outcome = yield Follow(call=call)
            while isinstance(outcome, ServerEvent) or (isinstance(outcome, Reply) and outcome.status == 200):
                outcome = yield Next()
                if not isinstance(outcome, ServerEvent):
                    continue
                after = outcome.id or after
                patience.renew()
                if outcome.name == "job":
                    job = Job.of(_data(outcome), replayed=opened.headers.get("idempotency-replayed") == "true")
                    yield Show(what=Accepted(job=job))
                    if job.terminal or job.id is None:  # all is said: it was in the cache, or had ended
                        yield from _at_once(job)
                        return
                yield from _told(outcome)
                if outcome.name in ("done", "error") and job:
                    yield from self._ended(job, outcome)
                    return
            if isinstance(outcome, Reply):
                error = problem(outcome)
            else:
                error = outcome or NoAnswer("the stream of events ended before the job did")
            if job:  # from here on it is only read, which may always be repeated
                call = _following(job, after)
            pause_s = patience.pause_s(error, repeatable=call.repeatable)
            if pause_s is None:
                raise error
            yield Pause(seconds=pause_s)

    def _ended(self, job: Job | str, event: ServerEvent) -> Dialogue[None]:
        raw = _data(event)
        ended = Job.of(raw) if raw.get("object") == "job" else (yield from self.get(job))
        yield Show(what=Ended(job=ended.checked()))

    def _ends(self, timeout_s: float | None) -> float:
        return math.inf if timeout_s is None else self._clock() + timeout_s


def _at_once(job: Job) -> list[Show]:
    """Return what there is to show of a job that had ended when it was asked for; raises JobFailed and its like."""
    told = [Show(what=Token(text=job.output.text))] if job.output else []
    if job.usage:
        told.append(Show(what=Used(usage=job.usage)))
    return [*told, Show(what=Ended(job=job.checked()))]


def _told(event: ServerEvent) -> list[Show]:
    raw = _data(event) if event.name in ("status", "token", "usage", "restarted") else {}
    match event.name:
        case "status":
            queue = raw.get("queue") or None
            place = Place(position=queue.get("position"), eta_s=queue.get("eta_s")) if queue else None
            return [Show(what=Status(status=raw.get("status", ""), attempt=raw.get("attempt", 0), queue=place))]
        case "token":
            return [Show(what=Token(text=raw.get("text", "")))]
        case "usage":
            return [Show(what=Used(usage=job_usage(raw)))]
        case "restarted":
            return [Show(what=Restarted())]
    return []  # an event of a later version


def _data(event: ServerEvent) -> dict[str, Any]:
    try:
        raw = json.loads(event.data or "{}")
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        raise NotUnderstood(f"the event {event.name} of the stream is not a JSON object")
    return raw


def _asked(prompt: Prompt) -> dict[str, Any]:
    return {"prompt": prompt} if isinstance(prompt, str) else {"messages": [dict(turn) for turn in prompt]}


def _submission(
    prompt: Prompt,
    options: Mapping[str, Any],
    idempotency_key: IdempotencyKey,
    cache_control: str,
    headers: Mapping[str, str],
    hold_s: float = 0.0,
) -> Call:
    key = uuid.uuid4().hex if isinstance(idempotency_key, _Auto) else idempotency_key
    said = {"Idempotency-Key": key, "Cache-Control": cache_control or None, **headers}
    return Call(
        method="POST",
        path="/v1/jobs",
        body=_asked(prompt) | dict(options),
        headers={name: value for name, value in said.items() if value is not None},
        hold_s=hold_s,
        repeatable=key is not None,
    )


def _following(job: Job | str, after: str) -> Call:
    headers = {"Accept": EVENTS} | ({"Last-Event-ID": after} if after else {})
    return Call(method="GET", path=f"{_path(job)}/events", headers=headers)


def _path(job: Job | str) -> str:
    name = job.id if isinstance(job, Job) else job
    if not name:
        raise InferqError("an answer from the cache has no record: there is nothing to ask for")
    return f"/v1/jobs/{quote(name, safe='')}"
