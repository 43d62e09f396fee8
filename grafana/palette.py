"""Colours that a colour-blind person can tell apart (Okabe and Ito, 2008), and what each means everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
YELLOW: Final = "#F0E442"
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
#: In place of the palette's black, which nobody sees on a dark page.
GREY: Final = "#999999"
PALETTE: Final = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE, GREY)

#: Thresholds of tiles: well, look at it, bad.
GOOD: Final = GREEN
WARN: Final = ORANGE
BAD: Final = VERMILLION
PLAIN: Final = SKY

Line = Literal["solid", "dash", "dot"]


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    colour: str
    line: Line = "solid"


#: Series by what they are called in a legend. One name looks the same on all dashboards.
LOOKS: Final[Mapping[str, Look]] = {
    # quantiles
    "p50": Look(SKY),
    "p95": Look(ORANGE, "dash"),
    "p99": Look(VERMILLION, "dot"),
    # priorities
    "high": Look(VERMILLION),
    "normal": Look(SKY),
    "low": Look(PURPLE, "dash"),
    # what became of jobs and attempts
    "completed": Look(GREEN),
    "failed": Look(VERMILLION, "dash"),
    "cancelled": Look(GREY),
    "expired": Look(ORANGE, "dot"),
    "refused": Look(PURPLE, "dot"),
    # workers and engines
    "ready": Look(GREEN),
    "warming": Look(YELLOW, "dash"),
    "draining": Look(ORANGE, "dash"),
    "dead": Look(VERMILLION, "dot"),
    # admission and cache
    "queued": Look(SKY),
    "coalesced": Look(YELLOW),
    "cached": Look(GREEN),
    "replayed": Look(PURPLE),
    "hit": Look(GREEN),
    "miss": Look(SKY),
    "bypass": Look(GREY, "dash"),
    "error": Look(VERMILLION, "dot"),
    "allowed": Look(SKY),
    "limited": Look(VERMILLION, "dash"),
    "requests": Look(SKY),
    "polls": Look(GREEN, "dash"),
    "tokens": Look(ORANGE),
    "jobs": Look(PURPLE, "dot"),
    # lines of a queue
    "queue": Look(SKY),
    "struck": Look(ORANGE, "dash"),
    "solitary": Look(VERMILLION, "dot"),
    # results of calls
    "2xx": Look(GREEN),
    "3xx": Look(SKY, "dash"),
    "4xx": Look(ORANGE, "dash"),
    "5xx": Look(VERMILLION, "dot"),
    "no_answer": Look(YELLOW, "dot"),
    "broke": Look(GREY, "dot"),
    "delivered": Look(GREEN),
    "done": Look(GREEN),
    "missed": Look(VERMILLION, "dot"),
    "sent": Look(GREEN),
    "runs": Look(GREEN),
    "nothing": Look(GREY, "dash"),
    "poison": Look(VERMILLION),
    "worker_lost": Look(ORANGE, "dash"),
    "complete": Look(GREEN),
    "fail": Look(VERMILLION, "dash"),
    "release": Look(ORANGE, "dot"),
    # finish reasons of vLLM
    "stop": Look(GREEN),
    "length": Look(SKY, "dash"),
    "abort": Look(VERMILLION, "dot"),
    # alerts
    "page": Look(VERMILLION),
    "ticket": Look(ORANGE, "dash"),
    # processes
    "api": Look(SKY),
    "worker": Look(GREEN),
    "keeper": Look(PURPLE),
}
