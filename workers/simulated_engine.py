"""An engine without a model: deterministic text on a timing model of continuous batching (docs/simulated-engine.md).

For load tests, chaos and capacity planning without a GPU. It is chosen by ``ENGINE=simulated`` and never a silent
fallback. A prompt that contains ``simulate:<name>`` makes it misbehave by name; ``simulate:words=N`` says how long the
answer is.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from inferq.errors import EngineDead, EngineGone, RequestFailed, RunAborted
from inferq.requests import GenerationRequest
from inferq.run_store import Completion
from workers.timing import Timing

_WORDS: Final = ("queue", "token", "lease", "fence", "bell", "run", "job", "batch", "cache", "engine", "key", "slot")

_LENGTH: Final = re.compile(r"simulate:words=([1-9]\d{0,5})\b")
#: A slow run takes this many times as many steps.
SLOW_FACTOR: Final = 20


@dataclass(eq=False, kw_only=True)
class _Sequence:
    """One run inside the engine."""

    words: list[str]
    steps: int
    steps_left: int
    prompt_left: int
    hangs: bool
    began: float
    done: threading.Event = field(default_factory=threading.Event)
    first_token: float | None = None
    aborted: bool = False

    @property
    def written(self) -> int:
        """Words so far."""
        return len(self.words) * (self.steps - self.steps_left) // self.steps


class SimulatedEngine:
    """Up to ``slots`` sequences share steps: one reads prompts first come first served, and each that is read gains a
    token. A step that reads the rest of a prompt yields its first token.
    """

    takes_cores = False

    def __init__(
        self,
        *,
        slots: int,
        timing: Timing,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.slots = slots
        self._timing = timing
        self._clock = clock
        self._sleep = sleep
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
        prompt_tokens = request.estimated_prompt_tokens
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
            prompt_left=prompt_tokens,
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
            return {run_id: one.written for run_id, one in self._running.items()}

    def texts(self, run_ids: Iterable[str]) -> dict[str, str]:
        """See :class:`workers.engine.Engine`."""
        with self._lock:
            running = {run_id: self._running[run_id] for run_id in run_ids if run_id in self._running}
        return {run_id: " ".join(one.words[: one.written]) for run_id, one in running.items()}

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
        due = self._clock()
        while True:
            with self._lock:
                if not self._running:
                    self._lock.wait_for(lambda: self._running or self._dead or self._stopped)
                    due = self._clock()  # nobody catches up on a time without work
                if self._dead or self._stopped:
                    return
                batch = list(self._running.items())[: self.slots]
                decoding, reading = self._plan([sequence for _, sequence in batch])
            # Counted from when the last step should have ended: what sleeping takes too long is not added up.
            step_s = self._timing.step_s(len(decoding), sum(reading.values()))
            due += step_s
            self._sleep(max(0.0, due - self._clock()))
            # What a stopped process has missed it does not make up for, as no engine does.
            due = max(due, self._clock() - step_s)
            with self._lock:
                # A hanging sequence holds up the whole batch, as a stuck kernel does.
                if any(sequence.hangs for _, sequence in batch):
                    due = self._clock()
                    continue
                self._step(batch, decoding, reading)

    def _plan(self, batch: list[_Sequence]) -> tuple[set[_Sequence], dict[_Sequence, int]]:
        """Return who gains a token in the next step, and how much of whose prompt it reads."""
        budget = self._timing.prompt_tokens
        reading: dict[_Sequence, int] = {}
        for sequence in batch:
            if sequence.prompt_left and budget:
                reading[sequence] = min(sequence.prompt_left, budget)
                budget -= reading[sequence]
        return {one for one in batch if one.prompt_left == reading.get(one, 0)}, reading

    def _step(self, batch: list[tuple[str, _Sequence]], gains: set[_Sequence], reading: dict[_Sequence, int]) -> None:
        now = self._clock()
        for sequence, tokens in reading.items():
            sequence.prompt_left -= tokens
        for run_id, sequence in batch:
            if sequence not in gains:
                continue
            sequence.first_token = sequence.first_token or now
            sequence.steps_left -= 1
            if sequence.steps_left <= 0:
                self._running.pop(run_id, None)
                sequence.done.set()


def simulated_words(prompt: str, seed: int, max_tokens: int) -> list[str]:
    """Return the answer to ``prompt``: the same words every time, at most ``max_tokens``, 8 to 64 unless it says."""
    digest = hashlib.sha256(f"{seed}:{prompt}".encode()).digest()
    told = _LENGTH.search(prompt)
    length = min(max_tokens, int(told[1]) if told else 8 + digest[0] % 57)
    return [_WORDS[digest[i % 32] % len(_WORDS)] for i in range(length)]
