"""A fleet of workers between the queue and the day: claims in fair order, cold starts, drains, refusals."""

import heapq
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Final

from bench.day.policies import Policy
from bench.day.traffic import BATCH_TENANT, DAY_S, Demand, Request
from inferq.settings import Settings
from workers.timing import Timing

#: Seconds between two looks at the fleet.
TICK_S: Final = 15.0
#: A predicted wait is taken a quarter longer before a deadline is compared with it (CAUTION in the scripts).
CAUTION: Final = 1.25
#: Times a client that was refused comes back, when it was told to.
TRIES: Final = 3
MAX_QUEUE_DEPTH: Final = int(Settings.model_fields["max_queue_depth"].default)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A GPU with an engine: its timing, its slots, seconds from being ordered until it is warm."""

    timing: Timing
    slots: int = 16
    cold_start_s: float = 240.0

    def seconds(self, prompt: int, answer: int, others: float, others_prompt: float) -> float:
        """Return how long a run takes beside ``others``: each of its tokens is a step of all, and while it is there
        each of the others gives way to another, on the mean, whose prompt is read in between.
        """
        step_s = self.timing.step_s(1, 0) + self.timing.sequence_s * others
        return answer * step_s + self.timing.prompt_token_s * (prompt + others * others_prompt)


@dataclass(kw_only=True)
class Day:
    """What became of a day under a policy. Waits (seconds from the first submit to the start) by the five minutes of
    the submit; by minute: runs ended, refusals; by tick: workers wanted and ready, runs that wait.
    """

    policy: str
    waits: list[list[float]] = field(default_factory=lambda: [[] for _ in range(DAY_S // 300)])
    batch_waits: list[float] = field(default_factory=list)
    ended: list[int] = field(default_factory=lambda: [0] * (DAY_S // 60))
    refused: list[int] = field(default_factory=lambda: [0] * (DAY_S // 60))
    wanted: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    started: int = 0
    #: Jobs refused to the last try, accepted and not started in time, waiting or about to come back at midnight.
    lost: int = 0
    expired: int = 0
    left: int = 0
    gpu_s: float = 0.0


@dataclass
class _Machine:
    ordered: float
    ready_at: float
    last_end: float = 0.0


#: A request that waits or comes back: when it came or comes, a number against ties, itself, how often it was refused.
_Coming = tuple[float, int, Request, int]


class Fleet:
    """Plays one day. Slots are a heap by the instant at which each is free; what waits is a heap by tag."""

    def __init__(self, worker: Worker, policy: Policy, *, start: int) -> None:
        """``start``: workers that are warm at midnight."""
        self._worker = worker
        self._policy = policy
        #: Workers that stay, warm or not, and the numbers of those that have been let go.
        self._machines = {number: _Machine(0.0, 0.0) for number in range(start)}
        self._gone: set[int] = set()
        self._slots = [(0.0, number) for number in range(start) for _ in range(worker.slots)]
        heapq.heapify(self._slots)
        self._ordered: deque[int] = deque()
        self._numbers = start
        self._waiting: list[tuple[float, int, Request, float]] = []
        self._waiting_tokens = 0
        self._flows: defaultdict[int, int] = defaultdict(int)
        self._tags: defaultdict[int, float] = defaultdict(float)
        self._v = 0.0
        self._ready = start
        self._others = 0.0
        self._prompt = 0.0
        #: Tokens a second of one slot, as the runs that began lately had it.
        self._rate = 0.0
        self.day = Day(policy=policy.name)

    def play(self, demand: Demand) -> Day:
        """Return what becomes of the day."""
        runs, place, number, now = demand.runs, 0, 0, 0.0
        back: list[_Coming] = []
        for tick in range(round(DAY_S / TICK_S)):
            self._look(tick * TICK_S)
            until = (tick + 1) * TICK_S
            while True:
                comes = runs[place].at if place < len(runs) else math.inf
                again = back[0][0] if back else math.inf
                arrives = min(comes, again)
                serves = max(now, self._free_at()) if self._waiting else math.inf
                if min(arrives, serves) >= until:
                    break
                if serves <= arrives:
                    now = serves
                    self._serve(now)
                    continue
                now, number = arrives, number + 1
                if again <= comes:
                    _, _, request, tries = heapq.heappop(back)
                else:
                    request, tries, place = runs[place], 0, place + 1
                wait = self._arrive(now, number, request)
                if wait is None:
                    continue
                self.day.refused[int(now) // 60] += 1
                if tries < TRIES:
                    heapq.heappush(back, (now + wait, number, request, tries + 1))
                else:
                    self.day.lost += 1
        self.day.left = len(self._waiting) + len(back)
        self.day.gpu_s += sum(DAY_S - one.ordered for one in self._machines.values())
        return self.day

    def _arrive(self, now: float, number: int, request: Request) -> float | None:
        """Take a request in; or return the seconds after which it should come again."""
        cost = request.prompt + request.answer
        tag = max(self._v, self._tags[request.tenant]) + cost
        if self._waiting:
            wait = self._expected(tag)
            if len(self._waiting) >= MAX_QUEUE_DEPTH:
                return max(1.0, min(wait, 60.0))
            if request.within_s is not None and CAUTION * wait > request.within_s:
                return max(1.0, wait - request.within_s / CAUTION)
        self._tags[request.tenant] = tag
        heapq.heappush(self._waiting, (tag, number, request, now))
        self._waiting_tokens += cost
        self._flows[request.tenant] += 1
        return None

    def _expected(self, tag: float) -> float:
        """Return the seconds until a run with this tag should start: what may be served before it, over the rate."""
        ahead = min(self._waiting_tokens, len(self._flows) * (tag - self._v))
        return ahead / (self._rate * self._ready * self._worker.slots) if self._rate and self._ready else math.inf

    def _serve(self, now: float) -> None:
        tag, _, request, submitted = heapq.heappop(self._waiting)
        cost = request.prompt + request.answer
        self._waiting_tokens -= cost
        self._flows[request.tenant] -= 1
        if not self._flows[request.tenant]:
            del self._flows[request.tenant]
        if request.within_s is not None and now - submitted > request.within_s:
            self.day.expired += 1
            return
        wait = now - request.at  # from the first try, which is what its user sees
        self._v = max(self._v, tag)
        seconds = self._worker.seconds(request.prompt, request.answer, self._others, self._prompt)
        _, machine = self._slots[0]
        heapq.heapreplace(self._slots, (now + seconds, machine))
        one = self._machines[machine]
        one.last_end = max(one.last_end, now + seconds)
        self._prompt += (request.prompt - self._prompt) / 50
        self._rate += (cost / seconds - self._rate) / 50
        self.day.started += 1
        if request.tenant == BATCH_TENANT:
            self.day.batch_waits.append(wait)
        else:
            self.day.waits[int(request.at) // 300].append(wait)
        if now + seconds < DAY_S:
            self.day.ended[int(now + seconds) // 60] += 1

    def _free_at(self) -> float:
        """Return when the next slot is free; slots of workers that leave go as they become free."""
        while self._slots and self._slots[0][1] in self._gone:
            heapq.heappop(self._slots)
        return self._slots[0][0] if self._slots else math.inf

    def _look(self, now: float) -> None:
        """Count, ask the policy, order and dismiss workers."""
        while self._ordered and self._machines[self._ordered[0]].ready_at <= now:
            number = self._ordered.popleft()
            for _ in range(self._worker.slots):
                heapq.heappush(self._slots, (now, number))
        staying = len(self._machines)
        ready = staying - len(self._ordered)
        running = sum(free > now for free, _ in self._slots)
        wanted = self._policy.wanted(now, len(self._waiting), running, staying)
        for _ in range(wanted - staying):
            self._machines[self._numbers] = _Machine(now, now + self._worker.cold_start_s)
            self._ordered.append(self._numbers)
            self._numbers += 1
        for _ in range(staying - wanted):
            self._dismiss(now)
        self._ready = ready
        # Runs spread over the workers; each has this many others beside it.
        self._others = max(0.0, min(self._worker.slots, running / max(1, ready)) - 1)
        self.day.wanted.append(wanted)
        self.day.ready.append(ready)
        self.day.depth.append(len(self._waiting))

    def _dismiss(self, now: float) -> None:
        """Let a worker go: one that is not warm yet at once, else the newest, once what it has in hand has ended."""
        if self._ordered:
            number = self._ordered.pop()
            self.day.gpu_s += now - self._machines.pop(number).ordered
            return
        number = max(self._machines)
        one = self._machines.pop(number)
        self._gone.add(number)
        self.day.gpu_s += min(DAY_S, max(now, one.last_end)) - one.ordered
