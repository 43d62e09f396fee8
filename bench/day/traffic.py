"""What arrives in a day: a wave, bursts, prompts that come back, one tenant that sends a batch."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from inferq.settings import Settings

DAY_S: Final = 86_400
HOUR_S: Final = 3_600
#: Seconds a stored completion answers for: inferq's default.
CACHE_TTL_S: Final = int(Settings.model_fields["cache_ttl"].default)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """A day's demand. Requests of the day without the batch; the wave swings by ``swing`` around the mean and is
    highest at ``peak_s``; so many bursts multiply it for some minutes.
    """

    requests: int = 3_000_000
    swing: float = 0.65
    peak_s: int = 15 * HOUR_S
    bursts: int = 8
    #: Share of requests whose prompt is one of ``common``, few of them asked often (each rank as often as its inverse).
    repeated: float = 0.75
    common: int = 30_000
    tenants: int = 200
    #: Share of requests that must start within so many seconds, or are refused.
    urgent: float = 0.3
    start_within_s: float = 60.0
    #: Jobs that one tenant sends within five minutes at ``batch_s``, as a share of the day's requests.
    batch: float = 0.005
    batch_s: int = 10 * HOUR_S
    #: Tokens: medians and spread (of the logarithm) of prompts and answers, and the most there may be.
    prompt_median: int = 60
    answer_median: int = 120
    spread: float = 0.7
    most: int = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the second it comes, whose, prompt and answer tokens, seconds within which it must start or None."""

    at: float
    tenant: int
    prompt: int
    answer: int
    within_s: float | None


@dataclass(kw_only=True)
class Demand:
    """A day's requests that need an engine, in order, and by minute how many came and how many a stored answer met."""

    runs: list[Request] = field(default_factory=list)
    came: list[int] = field(default_factory=lambda: [0] * (DAY_S // 60))
    met: list[int] = field(default_factory=lambda: [0] * (DAY_S // 60))

    @property
    def hit_share(self) -> float:
        """Share of all requests that needed no engine."""
        return sum(self.met) / max(1, sum(self.came))


#: The tenant of the batch; all others have higher numbers.
BATCH_TENANT: Final = 0


def rates(traffic: Traffic, dice: random.Random) -> list[float]:
    """Return requests a second, by second of the day."""
    mean = traffic.requests / DAY_S
    rate = [
        mean * (1 + traffic.swing * math.cos(2 * math.pi * (second - traffic.peak_s) / DAY_S))
        for second in range(DAY_S)
    ]
    for _ in range(traffic.bursts):
        begin, length, height = dice.randrange(DAY_S), dice.randint(240, 900), dice.uniform(0.6, 1.6)
        for second in range(begin, min(DAY_S, begin + length)):
            # Up within half a minute, as when a link is shared; down with the end.
            rate[second] *= 1 + height * min(1.0, (second - begin) / 30)
    return rate


def draw(traffic: Traffic, seed: int) -> Demand:
    """Return the day of ``seed``."""
    dice = random.Random(seed)  # noqa: S311  # dice, no secrets
    demand, stored = Demand(), dict[int, float]()
    for at in _instants(rates(traffic, dice), dice):
        minute = int(at) // 60
        demand.came[minute] += 1
        if dice.random() < traffic.repeated:
            prompt = int(traffic.common ** dice.random())
            # A run in flight counts as an answer here: who asks the same shares it.
            if stored.get(prompt, -math.inf) > at - CACHE_TTL_S:
                demand.met[minute] += 1
                continue
            stored[prompt] = at
        tenant = 1 + int(traffic.tenants ** dice.random())
        within_s = traffic.start_within_s if dice.random() < traffic.urgent else None
        demand.runs.append(_request(traffic, dice, at, tenant, within_s))
    batch = [
        _request(traffic, dice, traffic.batch_s + dice.uniform(0, 300), BATCH_TENANT, None)
        for _ in range(round(traffic.batch * traffic.requests))
    ]
    for one in batch:
        demand.came[int(one.at) // 60] += 1
    demand.runs = sorted([*demand.runs, *batch], key=lambda one: one.at)
    return demand


def _instants(rate: list[float], dice: random.Random) -> Iterator[float]:
    """Yield the instants of a Poisson process whose rate changes by the second."""
    at = 0.0
    while True:
        at += dice.expovariate(rate[int(at)])
        if at >= DAY_S:
            return
        yield at


def _request(traffic: Traffic, dice: random.Random, at: float, tenant: int, within_s: float | None) -> Request:
    prompt, answer = (
        min(traffic.most, max(8, round(median * math.exp(dice.gauss(0, traffic.spread)))))
        for median in (traffic.prompt_median, traffic.answer_median)
    )
    return Request(at, tenant, prompt, answer, within_s)
