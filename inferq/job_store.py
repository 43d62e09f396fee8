"""The API's side of the record: submit, read, list, cancel, erase. One Lua call each."""

from dataclasses import dataclass, replace
from typing import Any

import orjson

from inferq.credentials import Caller
from inferq.event_streams import MOST_PIECES, Followed, Place, pieces_of
from inferq.ids import new_id
from inferq.jobs import Job
from inferq.outbox import Delivery
from inferq.scripts import Scripts
from inferq.tenants import TenantUsage


# What follows is made for every request: a frozen dataclass takes three times as long to make.
@dataclass(kw_only=True, slots=True)
class RateState:
    """One policy after a call: what it allows, what is left, ms until something comes back (0: nobody knows).

    ``requests``, ``polls`` and ``tokens`` are sliding windows of 60 s, ``jobs`` bounds those in flight.
    """

    policy: str
    limit: int
    remaining: int
    reset_ms: int


@dataclass(kw_only=True, slots=True)
class Answer:
    """What a script decided. ``outcome`` is the first word of its reply (see the script's head)."""

    outcome: str
    tenant: str = ""
    rates: tuple[RateState, ...] = ()
    rest: tuple[Any, ...] = ()


@dataclass(kw_only=True, slots=True)
class Submission:
    """All that the submit script needs besides the caller. Times in ms, cost in tokens."""

    job_id: str
    run_id: str
    engine: str
    model: str
    priority: str
    cost: int
    prompt_tokens: int
    fingerprint: str
    scope: str
    read_cache: bool
    store: bool
    #: Whether it may join a live run that was asked the same.
    share: bool
    only_if_cached: bool
    cache_status: str
    max_depth: int
    max_tokens: int
    ttl_ms: int
    request_json: str
    stream: bool = False
    #: Whether it is refused while no worker is ready.
    must_be_served: bool = False
    start_ms: int | None = None
    total_ms: int | None = None
    metadata_json: str | None = None
    #: Digests of the Idempotency-Key and of the whole body that came with it.
    idempotency: str | None = None
    body: str | None = None
    #: The webhook: its address, the events it is told (with spaces between), whether with the output.
    hook_url: str | None = None
    hook_events: str | None = None
    hook_output: bool | None = None
    #: Of the call: its X-Request-ID, and the trace it is part of (``inferq.tracing.carrier_of``).
    request_id: str = ""
    trace: str | None = None
    #: The completion, when it was found on a cache server of its own.
    completion_json: str = ""


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """What a key without limits may do in a minute, and its jobs in flight. For tokens and jobs 0 means no limit."""

    requests: int
    polls: int
    tokens: int = 0
    jobs: int = 0


class JobStore:
    """Jobs as their owners may see and change them. Every call authenticates and is counted in a rate window."""

    def __init__(self, scripts: Scripts, limits: ServiceLimits) -> None:
        self._scripts = scripts
        self._limits = limits

    def submit(self, caller: Caller, submission: Submission) -> Answer:
        """Admit a submission.

        Outcomes: unauthorized, limited (``rest``: policy), mismatch, repeat (job id), no_secret and disabled (of a
        webhook), hit (completion, now in ms),
        absent, unserved, too_costly (limit in tokens), full (runs or tokens, ms until there is room or -1), late (ms to
        wait), no_memory, accepted (the Job, bells to ring).
        """
        answer = _answer(self._scripts("submit", *self._submit_arguments(caller, submission)))
        if answer.outcome != "accepted":
            return answer
        *shown, bells = answer.rest
        return replace(answer, rest=(_shown(submission.job_id, *shown), bells))

    def _submit_arguments(self, caller: Caller, submission: Submission) -> tuple[bytes, str, str]:
        s, limits = submission, self._limits
        fields: dict[str, Any] = {
            **self._caller(caller, limits.requests, request=s.job_id),
            "polls": limits.polls,
            "tokens": limits.tokens,
            "jobs": limits.jobs,
            "job": s.job_id,
            "run": s.run_id,
            "engine": s.engine,
            "model": s.model,
            "priority": s.priority,
            "cost": s.cost,
            "reads": s.prompt_tokens,
            "fp": s.fingerprint,
            "scope": s.scope,
            "read": s.read_cache,
            "store": s.store,
            "share": s.share,
            "only": s.only_if_cached,
            "cache": s.cache_status,
            "max_depth": s.max_depth,
            "max_tokens": s.max_tokens,
            "ttl_ms": s.ttl_ms,
            "stream": s.stream,
            "request_id": s.request_id,
        }
        optional = {
            "start_ms": s.start_ms,
            "total_ms": s.total_ms,
            "metadata": s.metadata_json,
            "idempotency": s.idempotency,
            "body": s.body,
            "trace": s.trace,
            "served": s.must_be_served or None,
            "hook_url": s.hook_url,
            "hook_events": s.hook_events,
            "hook_output": s.hook_output,
        }
        fields.update({name: value for name, value in optional.items() if value is not None})
        return _json(fields), s.request_json, s.completion_json

    def identify(self, caller: Caller, *, request: str, window: str, idempotency: str | None = None) -> Answer:
        """Authenticate, counted once per ``request`` in ``window`` (requests or polls), repeated submissions as polls.

        Outcomes: unauthorized, limited, known (``rest``: Redis's time in ms).
        """
        limit = self._limits.requests if window == "requests" else self._limits.polls
        fields = self._caller(caller, limit, request=request) | {"polls": self._limits.polls}
        if idempotency is not None:
            fields["idempotency"] = idempotency
        return _answer(self._scripts("identify", _json(fields), window))

    def count_hit(self, tenant: str) -> None:
        """Count an answer from the cache's own server."""
        self._scripts("hit", tenant)

    def read(self, caller: Caller, job_id: str, *, request: str | None = None) -> Answer:
        """Outcomes: unauthorized, limited, unknown, gone, job (``rest``: the Job).

        Reads that share ``request`` count as one in the window: a long-poll is one poll.
        """
        poll = _json({**self._caller(caller, self._limits.polls, request=request or new_id()), "job": job_id})
        answer = _answer(self._scripts("read", poll))
        return replace(answer, rest=(_shown(job_id, *answer.rest),)) if answer.outcome == "job" else answer

    def follow(self, caller: Caller, job_id: str, after: Place, *, first: bool) -> Answer:
        """Read a job, and what its running attempt has written after a place, as far as one call brings it.

        Outcomes: unauthorized, limited, unknown, gone, job (``rest``: Followed). Only the ``first`` call is counted.
        """
        fields = self._poll(caller, job=job_id, **({"first": 1} if first else {}))
        answer = _answer(self._scripts("follow", fields, str(after), MOST_PIECES))
        if answer.outcome != "job":
            return answer
        job, run, *rest, pieces = answer.rest
        known = _pairs(run)
        followed = Followed(
            job=_shown(job_id, job, run, *rest),
            fence=int(known.get("fence", 0)),
            pieces=pieces_of(pieces),
        )
        return replace(answer, rest=(followed,))

    def list(self, caller: Caller, *, status: str, after: str, count: int) -> Answer:
        """Outcomes: unauthorized, limited, jobs (``rest``: list of Job, cursor)."""
        answer = _answer(self._scripts("list", self._poll(caller, status=status, after=after, count=count)))
        if answer.outcome != "jobs":
            return answer
        rows, cursor = answer.rest
        jobs = [Job.from_records(job_id, _pairs(job), _pairs(run)) for job_id, job, run in rows]
        return replace(answer, rest=(jobs, cursor))

    def cancel(self, caller: Caller, job_id: str) -> Answer:
        """Outcomes: unauthorized, limited, unknown, gone, ended, cancelled, cancelling."""
        return _answer(self._scripts("cancel", self._poll(caller, job=job_id)))

    def erase(self, caller: Caller, job_id: str) -> Answer:
        """Outcomes: unauthorized, limited, unknown, gone, live, erased."""
        return _answer(self._scripts("erase", self._poll(caller, job=job_id)))

    def overview(self, caller: Caller | None) -> Answer:
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
                waiting=dict(zip(("high", "normal", "low"), waiting, strict=True)),
                tokens=tokens,
                wait_ms=wait,
                workers=tuple({"id": worker, **_pairs(fields)} for worker, fields in workers),
            )
            for name, depth, oldest, slots, paused, workers, waiting, tokens, wait in engines
        ]
        return replace(answer, rest=(states, running, bool(full)))

    def usage(self, caller: Caller, days: int) -> Answer:
        """Outcomes: unauthorized, limited, usage (``rest``: TenantUsage of today and the days before)."""
        answer = _answer(self._scripts("usage", self._poll(caller), "", days))
        return (
            replace(answer, rest=(TenantUsage.of(answer.tenant, answer.rest),)) if answer.outcome == "usage" else answer
        )

    def deliveries(self, caller: Caller, job_id: str) -> Answer:
        """Outcomes: unauthorized, limited, unknown, gone, deliveries (``rest``: list of Delivery)."""
        return _delivered(self._scripts("deliveries", self._poll(caller, job=job_id)))

    def redeliver(self, caller: Caller, job_id: str, delivery_id: str) -> Answer:
        """Send a delivery again, at once.

        Outcomes: unauthorized, limited, unknown, gone, no_delivery, disabled, deliveries (``rest``: list of it alone).
        """
        return _delivered(self._scripts("deliveries", self._poll(caller, job=job_id, again=delivery_id)))

    def ping(
        self, caller: Caller, delivery_id: str, url: str, *, request_id: str = "", trace: str | None = None
    ) -> Answer:
        """Send a test event.

        Outcomes: unauthorized, limited, no_secret, no_memory, deliveries (``rest``: list of it alone).
        """
        fields = {**self._caller(caller, self._limits.requests, request=delivery_id), "id": delivery_id, "url": url}
        fields |= {"request_id": request_id} | ({"trace": trace} if trace else {})
        return _delivered(self._scripts("ping", _json(fields)))

    def ping_result(self, caller: Caller, delivery_id: str) -> Answer:
        """Tell how a test event went; outcomes: unauthorized, limited, unknown, deliveries (``rest``: list of it)."""
        return _delivered(self._scripts("ping", self._poll(caller, id=delivery_id)))

    def rotate_secret(self, caller: Caller, secret: str, keep_ms: int) -> Answer:
        """Sign with ``secret`` from now on, and with those there were for ``keep_ms`` more.

        Outcomes: unauthorized, limited, no_memory, rotated (``rest``: when the old ones end, in ms, or None).
        """
        return _answer(self._scripts("rotate_secret", self._poll(caller), "", secret, keep_ms))

    def _poll(self, caller: Caller, **fields: str | int) -> bytes:
        return _json({**self._caller(caller, self._limits.polls, request=new_id()), **fields})

    @staticmethod
    def _caller(caller: Caller, limit: int, *, request: str) -> dict[str, Any]:
        return {**caller.for_scripts(), "limit": limit, "request": request}


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """One engine: waiting runs, age in seconds of the oldest, ready slots, whether an operator has paused it, jobs
    that wait by priority, tokens that wait, ms a new job would wait (None: nobody can say), what each worker says.
    """

    engine: str
    depth: int
    oldest_s: float
    slots: int
    paused: bool
    waiting: dict[str, int]
    tokens: int
    wait_ms: int | None
    workers: tuple[dict[str, str], ...]


def _json(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields)


def _answer(reply: list[Any]) -> Answer:
    if len(reply) == 1:
        return Answer(outcome=reply[0])
    rates = tuple(
        RateState(policy=policy, limit=limit, remaining=remaining, reset_ms=reset_ms)
        for policy, limit, remaining, reset_ms in reply[2]
    )
    return Answer(outcome=reply[0], tenant=reply[1], rates=rates, rest=tuple(reply[3:]))


def _delivered(reply: list[Any]) -> Answer:
    answer = _answer(reply)
    if answer.outcome != "deliveries":
        return answer
    return replace(answer, rest=([Delivery.of(one) for one in answer.rest[0]],))


def _shown(
    job_id: str, job: list[str], run: list[str], output: str | None, rank: int | None, wait_ms: int | None
) -> Job:
    return Job.from_records(job_id, _pairs(job), _pairs(run), output, rank, wait_ms)


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
