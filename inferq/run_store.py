"""The worker's side of the record: claim, heartbeat, complete, fail, release. One Lua call each, fenced."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from inferq.completion_cache import CachedCompletion
from inferq.scripts import Scripts

#: Engines that may die under a run before it is given up as poison.
STRIKES_LIMIT: Final = 3


@dataclass(frozen=True, kw_only=True)
class ClaimedRun:
    """A run this worker may execute, until its lease ends."""

    id: str
    fence: int
    attempt: int
    model: str
    fingerprint: str
    #: Prefix of the cache key: a tenant, or "shared".
    scope: str
    #: Whether the completion may be cached.
    store: bool
    #: Runs of the engine that waited still when this one was claimed.
    left: int
    #: Whether what it writes is to be told while it runs.
    stream: bool
    #: Since it came, in ms; and of the call that opened it, its X-Request-ID and its trace.
    waited_ms: int
    request_id: str | None
    trace: str | None
    request_json: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What an engine produced: text, why it ended, tokens read and written, ms to the first token."""

    text: str = field(repr=False)
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    ttft_ms: int


class RunStore:
    """Transitions of runs. Those that may leave work waiting return how many bells to ring."""

    def __init__(self, scripts: Scripts, *, engine: str, worker: str, lease_ms: int) -> None:
        self._scripts = scripts
        self.engine = engine
        self.worker = worker
        self._lease_ms = lease_ms

    def claim(self, token: str) -> tuple[ClaimedRun | None, int]:
        """Take the next run for the slot that made ``token`` (unique per claim); returns it and the bells to ring."""
        reply = self._scripts("claim", self.engine, self.worker, token, self._lease_ms)
        if reply[0] == "none":
            return None, 0
        _, run, fence, attempt, request, model, fp, scope, store, bells, left, stream, *origin = reply
        claimed = ClaimedRun(
            id=run,
            fence=fence,
            attempt=attempt,
            model=model,
            fingerprint=fp,
            scope=scope,
            store=bool(store),
            left=left,
            stream=bool(stream),
            waited_ms=origin[0],
            request_id=origin[1],
            trace=origin[2],
            request_json=request,
        )
        return claimed, bells

    def heartbeat(
        self, held: Iterable[tuple[str, int]], said: Mapping[str, str], written: Mapping[str, int] | None = None
    ) -> tuple[dict[str, str], int]:
        """Renew the leases of ``held`` (run, fence) pairs; returns the runs to stop with the reason, and bells.

        ``written`` says how many tokens a run has so far.
        """
        runs: list[str | int] = []
        for run, fence in held:
            runs += [run, fence, (written or {}).get(run, 0)]
        reply = self._scripts("heartbeat", self.worker, self.engine, self._lease_ms, orjson.dumps(dict(said)), *runs)
        return dict(zip(reply[1::2], reply[2::2], strict=True)), reply[0]

    def append(self, pieces: Iterable[tuple[str, int, int, str]]) -> list[int]:
        """Tell what runs have written: run, fence, bytes of its text (UTF-8) before the piece, piece.

        Returns for each how many bytes its stream has now. Fewer than were said to be before the piece: begin there
        again. -1: tell no more of it; the attempt is not this worker's, or its stream is as long as it may be.
        """
        flat: list[str | int] = [part for piece in pieces for part in piece]
        return [int(end) for end in self._scripts("append", *flat)]

    def leave(self) -> None:
        """Take this worker off the list of those that serve the engine."""
        self._scripts("leave", self.worker, self.engine)

    def complete(
        self, run: ClaimedRun, completion: Completion, *, cache_entry: CachedCompletion | None, cache_ttl_s: int
    ) -> tuple[bool, int]:
        """End the run with its output; returns False when the attempt is not this worker's any more, and how many runs
        of the engine wait.
        """
        details: dict[str, Any] = {
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "ttft_ms": completion.ttft_ms,
            "cache_ttl_s": cache_ttl_s,
        }
        entry = cache_entry.to_json() if cache_entry else ""
        kept, waiting = self._scripts("complete", run.id, run.fence, completion.text, orjson.dumps(details), entry)
        return bool(kept), int(waiting)

    def fail(self, run: ClaimedRun, *, code: str, message: str, retryable: bool) -> bool:
        """End the run with an error; False when the attempt is not this worker's any more."""
        return bool(self._scripts("fail", run.id, run.fence, code, message, int(retryable)))

    def release(self, run: ClaimedRun, *, strikes: int = 0) -> tuple[str, int]:
        """Hand the run back; returns queued, cancelled, expired, failed or refused, and the bells to ring."""
        outcome, bells = self._scripts("release", run.id, run.fence, strikes, STRIKES_LIMIT)
        return str(outcome), int(bells)
