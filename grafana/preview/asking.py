"""Questions to a Prometheus, as Grafana asks them."""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from grafana.expressions import EVERYTHING, filled
from inferq.errors import InferqError

#: Points of a line, at most.
POINTS: Final = 240
_SPAN: Final = re.compile(r"(\d+)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class NotAnswered(InferqError):
    """Prometheus did not answer, or refused an expression."""


@dataclass(frozen=True)
class Series:
    """One line: its labels, and values at instants in seconds; what is missing is left out."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]


class Window:
    """A Prometheus, and the time that is looked at. Raises NotAnswered, also when it is made."""

    def __init__(self, url: str, start: float, end: float) -> None:
        self._url = url.rstrip("/")
        self.start = start
        self.end = end
        scraped = self._scrape_interval()
        self.step = max(math.ceil((end - start) / POINTS), scraped)
        # As Grafana derives it.
        rated = max(self.step + scraped, 4 * scraped)
        self._variables = {**EVERYTHING, "__rate_interval": f"{rated:.0f}s", "__range": f"{max(1, end - start):.0f}s"}

    def over(self, expr: str) -> list[Series]:
        """Return what an expression was over the whole time; its variables leave nothing out."""
        asked = {"start": self.start, "end": self.end, "step": self.step}
        found = self._ask("query_range", query=filled(expr, self._variables), **asked)
        return [_series(each["metric"], each["values"]) for each in found["result"]]

    def last(self, expr: str) -> list[Series]:
        """Return what an expression is at the end."""
        found = self._ask("query", query=filled(expr, self._variables), time=self.end)
        if found["resultType"] == "scalar":
            return [_series({}, [found["result"]])]
        return [_series(each["metric"], [each["value"]]) for each in found["result"]]

    def _scrape_interval(self) -> float:
        targets = self._ask("targets", state="active")["activeTargets"]
        return max((_seconds(target["scrapeInterval"]) for target in targets), default=15.0)

    def _ask(self, what: str, **fields: object) -> Any:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(fields)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise NotAnswered(f"Prometheus refuses {fields.get('query', what)}: {error.read().decode()}") from None
        except (OSError, ValueError) as error:
            raise NotAnswered(f"no Prometheus answers at {self._url} ({error})") from None


def _series(labels: Mapping[str, str], pairs: list[tuple[float, str]]) -> Series:
    kept = [(float(when), float(value)) for when, value in pairs if value not in ("NaN", "+Inf", "-Inf")]
    return Series(labels, tuple(when for when, _ in kept), tuple(value for _, value in kept))


def _seconds(text: str) -> float:
    return sum(float(number) * _SECONDS[unit] for number, unit in _SPAN.findall(text))
