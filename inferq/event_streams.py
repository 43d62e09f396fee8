"""What running runs have written so far, as Redis keeps it for those who follow their jobs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from redis import Redis
from redis.exceptions import RedisError

from inferq.errors import StoreUnavailable
from inferq.jobs import Job
from inferq.keys import key
from inferq.scripts import Scripts

#: Pieces of one stream that are read in one call.
MOST_PIECES: Final = 200

_FORM: Final = re.compile(r"(0|[1-9]\d{0,14})-(0|[1-9]\d{0,14})")


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """How far a text has been told: the fence of the attempt that writes it, and bytes of it (UTF-8).

    As ``<fence>-<bytes>`` it is the id of an entry in a run's stream: ids grow as a stream's must, and whoever comes
    back with one needs no stream to go on, only the text.
    """

    fence: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.fence}-{self.bytes}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<fence>-<bytes>``; raises ValueError."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError("not <fence>-<bytes>")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what an attempt has written, and where it ends."""

    end: Place
    text: str

    def after(self, place: Place) -> str | None:
        """Return the part that comes after ``place``; None when something between is missing."""
        text = self.text.encode()
        start = self.end.bytes - len(text)
        if self.end.fence != place.fence or start > place.bytes:
            return None
        return text[place.bytes - start :].decode(errors="replace")

    @classmethod
    def of(cls, entry: tuple[str, Mapping[str, str]]) -> Self:
        """Read an entry of a stream."""
        name, fields = entry
        return cls(Place.parse(name), fields["t"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a run waits: 1 is served next; ms until it should start. None when nobody can say."""

    position: int | None
    wait_ms: int | None


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A job for whoever follows it: the fence of its run's latest attempt, and what was asked of that one's text."""

    job: Job
    fence: int
    pieces: list[Piece]


class EventStreams:
    """Reads for all followers of one process at once."""

    def __init__(self, redis: "Redis", scripts: Scripts) -> None:
        self._redis = redis
        self._scripts = scripts

    def pieces(self, after: Mapping[str, Place]) -> dict[str, list[Piece]]:
        """Return what runs have written after a place, as far as one call brings it; raises StoreUnavailable."""
        runs = {key("events", run): run for run in after}
        try:
            reply = self._redis.xread({name: str(after[run]) for name, run in runs.items()}, count=MOST_PIECES)
        except RedisError as error:
            raise StoreUnavailable(f"Redis did not read event streams: {type(error).__name__}") from error
        return {runs[name]: [Piece.of(entry) for entry in entries] for name, entries in reply}

    def standings(self, runs: Sequence[str]) -> dict[str, Standing]:
        """Return where runs wait; raises StoreUnavailable."""
        reply = self._scripts("positions", *runs)
        return {
            run: Standing(position=rank + 1 if rank >= 0 else None, wait_ms=wait if wait >= 0 else None)
            for run, rank, wait in zip(runs, reply[::2], reply[1::2], strict=True)
        }


def pieces_of(entries: Iterable[Any]) -> list[Piece]:
    """Read entries of a stream as a script replies them: {id, {t, text}}."""
    return [Piece.of((name, {fields[0]: fields[1]})) for name, fields in entries]
