"""The API's side of the record: submit, read, list, cancel, erase. One Lua call each."""

from dataclasses import dataclass
from typing import Any

import orjson

from inferq.credentials import Credential
from inferq.ids import new_id
from inferq.jobs import Job
from inferq.scripts import Scripts


@dataclass(frozen=True, kw_only=True)
class RateState:
    """One sliding window of 60 s after a call: requests allowed, requests left, ms until the next one comes back."""

    limit: int
    remaining: int
    reset_ms: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a script decided. ``outcome`` is the first word of its reply (see the script's head)."""

    outcome: str
    tenant: str = ""
    rate: RateState | None = None
    rest: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Submission:
    """All that the submit script needs besides the caller. Times in ms, cost in tokens."""

    job_id: str
    run_id: str
    engine: str
    model: str
    priority: str
    cost: int
    fingerprint: str
    scope: str
    read_cache: bool
    store: bool
    only_if_cached: bool
    cache_status: str
    max_depth: int
    ttl_ms: int
    request_json: str
    stream: bool = False
    start_ms: int | None = None
    total_ms: int | None = None
    metadata_json: str | None = None


class JobStore:
    """Jobs as their owners may see and change them. Every call authenticates and is counted in a rate window."""

    def __init__(self, scripts: Scripts, *, requests: int, polls: int) -> None:
        self._scripts = scripts
        self._requests = requests
        self._polls = polls

    def submit(self, caller: Credential, submission: Submission) -> Answer:
        """Admit a submission; outcomes: unauthorized, limited, hit, absent, no_memory, full, queued."""
        s = submission
        fields: dict[str, Any] = {
            **self._caller(caller, self._requests, request=s.job_id),
            "job": s.job_id,
            "run": s.run_id,
            "engine": s.engine,
            "model": s.model,
            "priority": s.priority,
            "cost": s.cost,
            "fp": s.fingerprint,
            "scope": s.scope,
            "read": s.read_cache,
            "store": s.store,
            "only": s.only_if_cached,
            "cache": s.cache_status,
            "max_depth": s.max_depth,
            "ttl_ms": s.ttl_ms,
            "stream": s.stream,
        }
        optional = {"start_ms": s.start_ms, "total_ms": s.total_ms, "metadata": s.metadata_json}
        fields.update({name: value for name, value in optional.items() if value is not None})
        return _answer(self._scripts("submit", _json(fields), s.request_json))

    def identify(self, caller: Credential, *, request: str, window: str) -> Answer:
        """Authenticate, counted once per ``request`` in ``window`` (requests or polls).

        Outcomes: unauthorized, limited, known (``rest``: Redis's time in ms).
        """
        limit = self._requests if window == "requests" else self._polls
        return _answer(self._scripts("identify", _json(self._caller(caller, limit, request=request)), window))

    def read(self, caller: Credential, job_id: str, *, request: str | None = None) -> Answer:
        """Outcomes: unauthorized, limited, unknown, gone, job (``rest``: the Job and Redis's time in ms).

        Reads that share ``request`` count as one in the window: a long-poll is one poll.
        """
        poll = _json({**self._caller(caller, self._polls, request=request or new_id()), "job": job_id})
        answer = _answer(self._scripts("read", poll))
        if answer.outcome != "job":
            return answer
        job, run, output, rank, now = answer.rest
        found = Job.from_records(job_id, _pairs(job), _pairs(run), output, rank)
        return Answer(outcome="job", tenant=answer.tenant, rate=answer.rate, rest=(found, now))

    def list(self, caller: Credential, *, status: str, after: str, count: int) -> Answer:
        """Outcomes: unauthorized, limited, jobs (``rest``: list of Job, cursor)."""
        answer = _answer(self._scripts("list", self._poll(caller, status=status, after=after, count=count)))
        if answer.outcome != "jobs":
            return answer
        rows, cursor = answer.rest
        jobs = [Job.from_records(job_id, _pairs(job), _pairs(run)) for job_id, job, run in rows]
        return Answer(outcome="jobs", tenant=answer.tenant, rate=answer.rate, rest=(jobs, cursor))

    def cancel(self, caller: Credential, job_id: str) -> Answer:
        """Outcomes: unauthorized, limited, unknown, gone, ended, cancelled, cancelling."""
        return _answer(self._scripts("cancel", self._poll(caller, job=job_id)))

    def erase(self, caller: Credential, job_id: str) -> Answer:
        """Outcomes: unauthorized, limited, unknown, gone, live, erased."""
        return _answer(self._scripts("erase", self._poll(caller, job=job_id)))

    def overview(self, caller: Credential | None) -> Answer:
        """State of all, asked by a probe without a caller; ``rest``: EngineStates, runs in engines, is Redis full."""
        answer = _answer(self._scripts("overview", self._poll(caller) if caller else ""))
        if answer.outcome != "overview":
            return answer
        engines, running, now, full = answer.rest
        states = [
            EngineState(
                engine=name,
                depth=depth,
                oldest_s=max(0.0, (now - oldest) / 1000) if oldest else 0.0,
                slots=slots,
                paused=bool(paused),
                workers=tuple({"id": worker, **_pairs(fields)} for worker, fields in workers),
            )
            for name, depth, oldest, slots, paused, workers in engines
        ]
        return Answer(outcome="overview", tenant=answer.tenant, rate=answer.rate, rest=(states, running, bool(full)))

    def _poll(self, caller: Credential, **fields: str | int) -> bytes:
        return _json({**self._caller(caller, self._polls, request=new_id()), **fields})

    @staticmethod
    def _caller(caller: Credential, limit: int, *, request: str) -> dict[str, str | int]:
        return {"key": caller.key_id, "digest": caller.digest, "limit": limit, "request": request}


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """One engine: waiting runs, age in seconds of the next one, ready slots, whether an operator has paused it, and
    what each worker says.
    """

    engine: str
    depth: int
    oldest_s: float
    slots: int
    paused: bool
    workers: tuple[dict[str, str], ...]


def _json(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields)


def _answer(reply: list[Any]) -> Answer:
    if len(reply) == 1:
        return Answer(outcome=reply[0])
    limit, remaining, reset_ms = reply[2]
    rate = RateState(limit=limit, remaining=remaining, reset_ms=reset_ms)
    return Answer(outcome=reply[0], tenant=reply[1], rate=rate, rest=tuple(reply[3:]))


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
