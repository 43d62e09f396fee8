"""An engine without a model: deterministic text on a timing model of continuous batching.

For load tests, chaos and capacity planning without a GPU. It is chosen by ``ENGINE=simulated`` and never a silent
fallback. A prompt that contains ``simulate:<name>`` makes it misbehave by name.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from inferq.errors import EngineDead, EngineGone, RequestFailed, RunAborted
from inferq.requests import GenerationRequest
from inferq.run_store import Completion

_WORDS: Final = ("queue", "token", "lease", "fence", "bell", "run", "job", "batch", "cache", "engine", "key", "slot")

#: A slow run takes this many times as many steps.
SLOW_FACTOR: Final = 20


@dataclass(eq=False, kw_only=True)
class _Sequence:
    """One run inside the engine."""

    words: list[str]
    steps: int
    steps_left: int
    hangs: bool
    began: float
    done: threading.Event = field(default_factory=threading.Event)
    first_token: float | None = None
    aborted: bool = False


class SimulatedEngine:
    """Every ``step_s`` seconds each of up to ``slots`` sequences gains a token, as in one decode step of a batch."""

    def __init__(self, *, slots: int, step_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.slots = slots
        self._step_s = step_s
        self._clock = clock
        self._lock = threading.Condition()
        self._running: dict[str, _Sequence] = {}
        self._dead = False
        self._stopped = False
        self._thread = threading.Thread(target=self._step_forever, name="simulated-engine", daemon=True)

    def start(self) -> None:
        """Begin stepping."""
        self._thread.start()

    def generate(self, run_id: str, request: GenerationRequest, salt: str) -> Completion:
        """See :class:`workers.engine.Engine`."""
        text = request.prompt or "\n".join(turn.content for turn in request.messages or [])
        prompt_tokens = len(text.split()) or 1
        if "simulate:fails" in text:
            raise RequestFailed("simulated_failure", "the simulated engine was told to fail this request")
        if "simulate:oom" in text:
            raise MemoryError
        words = simulated_words(text, request.seed or 0, request.max_tokens)
        steps = len(words) * (SLOW_FACTOR if "simulate:slow" in text else 1)
        sequence = _Sequence(
            words=words,
            steps=steps,
            steps_left=steps,
            hangs="simulate:hangs" in text,
            began=self._clock(),
        )
        with self._lock:
            if self._dead or self._stopped:
                raise EngineGone("the simulated engine has died")
            if "simulate:dies" in text:
                self._die()
                raise EngineDead("the simulated engine was told to die")
            self._running[run_id] = sequence
            self._lock.notify_all()
        sequence.done.wait()
        if sequence.aborted:
            raise RunAborted
        if sequence.steps_left > 0:
            raise EngineDead("the simulated engine has died")
        ttft = (sequence.first_token or self._clock()) - sequence.began
        return Completion(
            text=" ".join(words),
            finish_reason="length" if len(words) == request.max_tokens else "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(words),
            ttft_ms=round(ttft * 1000),
        )

    def abort(self, run_id: str) -> None:
        """See :class:`workers.engine.Engine`."""
        with self._lock:
            sequence = self._running.pop(run_id, None)
            if sequence:
                sequence.aborted = True
                sequence.done.set()

    def abort_all(self) -> None:
        """See :class:`workers.engine.Engine`."""
        for run_id in list(self._running):
            self.abort(run_id)

    def written(self) -> dict[str, int]:
        """See :class:`workers.engine.Engine`."""
        with self._lock:
            return {
                run_id: len(one.words) * (one.steps - one.steps_left) // one.steps
                for run_id, one in self._running.items()
            }

    @property
    def dead(self) -> bool:
        """See :class:`workers.engine.Engine`."""
        return self._dead

    def kill(self) -> None:
        """See :class:`workers.engine.Engine`."""
        with self._lock:
            self._die()

    def stop(self) -> None:
        """See :class:`workers.engine.Engine`."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
        self.abort_all()

    def _die(self) -> None:
        self._dead = True
        for sequence in self._running.values():
            sequence.done.set()
        self._running.clear()
        self._lock.notify_all()

    def _step_forever(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._running or self._dead or self._stopped)
                if self._dead or self._stopped:
                    return
            time.sleep(self._step_s)
            with self._lock:
                now = self._clock()
                batch = list(self._running.items())[: self.slots]
                # A hanging sequence holds up the whole batch, as a stuck kernel does.
                if any(sequence.hangs for _, sequence in batch):
                    continue
                for run_id, sequence in batch:
                    sequence.first_token = sequence.first_token or now
                    sequence.steps_left -= 1
                    if sequence.steps_left <= 0:
                        del self._running[run_id]
                        sequence.done.set()


def simulated_words(prompt: str, seed: int, max_tokens: int) -> list[str]:
    """Return the answer to ``prompt``: the same words every time, at most ``max_tokens`` and at most 64."""
    digest = hashlib.sha256(f"{seed}:{prompt}".encode()).digest()
    length = min(max_tokens, 8 + digest[0] % 57)
    return [_WORDS[digest[i % 32] % len(_WORDS)] for i in range(length)]
