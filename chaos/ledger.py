"""What clients were promised and what they saw, in a SQLite file that no fault reaches."""

import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE jobs (
  id TEXT PRIMARY KEY, scene TEXT, kind TEXT, expected TEXT, accepted REAL,
  status TEXT, code TEXT, attempt INTEGER, ended REAL, body TEXT, right INTEGER, changed INTEGER, vanished INTEGER
);
CREATE TABLE refusals (at REAL, scene TEXT, why TEXT);
"""

#: How a job of a kind may end. Anything else counts as lost: an innocent that is failed as poison, for one.
MAY_END: dict[str, set[tuple[str, str | None]]] = {
    "plain": {("completed", None)},
    "cancelled": {("completed", None), ("cancelled", None)},
    "hurried": {("completed", None), ("expired", "deadline_exceeded")},
    "faulty": {("failed", "simulated_failure")},
    "poison": {("failed", "poison")},
}


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of one scene, or of all: jobs by what became of them."""

    accepted: int
    refused: int
    finished: int
    lost: int
    wrong: int
    changed: int
    extra_attempts: int
    failed: int


class Ledger:
    """Written by the clients as things happen, read for the verdict."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")  # it outlives this process's end, not the machine's
        self._db.executescript(SCHEMA)

    def accepted(self, job: str, *, scene: str, kind: str, expected: str | None) -> None:
        """Note a ``202``: from now on this job must not be lost. ``expected``: its answer, where it is known."""
        self._db.execute(
            "INSERT INTO jobs (id, scene, kind, expected, accepted) VALUES (?, ?, ?, ?, ?)",
            (job, scene, kind, expected, time.time()),
        )

    def refused(self, scene: str, why: str) -> None:
        """Note a submit that was not accepted, as far as its client knows."""
        self._db.execute("INSERT INTO refusals VALUES (?, ?, ?)", (time.time(), scene, why))

    def ended(self, job: str, body: dict[str, Any]) -> None:
        """Note the first terminal answer a client saw."""
        text = (body.get("output") or {}).get("text")
        (expected,) = self._db.execute("SELECT expected FROM jobs WHERE id = ?", (job,)).fetchone()
        right = body["status"] != "completed" or expected is None or text == expected
        self._db.execute(
            "UPDATE jobs SET status = ?, code = ?, attempt = ?, ended = ?, body = ?, right = ? WHERE id = ?",
            (
                body["status"],
                (body.get("error") or {}).get("code"),
                body["attempt"],
                time.time(),
                canonical(body),
                right,
                job,
            ),
        )

    def seen_again(self, job: str, body: dict[str, Any]) -> None:
        """Note a later answer: it must be the first one, word for word."""
        (first,) = self._db.execute("SELECT body FROM jobs WHERE id = ?", (job,)).fetchone()
        self._db.execute("UPDATE jobs SET changed = ? WHERE id = ?", (first != canonical(body), job))

    def knows(self, job: str) -> bool:
        """Whether a client has heard that a job was accepted."""
        return self._db.execute("SELECT 1 FROM jobs WHERE id = ?", (job,)).fetchone() is not None

    def vanished(self, job: str) -> None:
        """Note that the service knows a job no more whose end nobody has seen."""
        self._db.execute("UPDATE jobs SET vanished = 1 WHERE id = ?", (job,))

    def open_jobs(self) -> list[str]:
        """Return jobs accepted whose end nobody has seen."""
        return [job for (job,) in self._db.execute("SELECT id FROM jobs WHERE status IS NULL AND vanished IS NULL")]

    def counts(self, scene: str | None = None) -> Counts:
        """Sum up a scene, or all."""
        where, arguments = ("WHERE scene = ?", (scene,)) if scene else ("", ())
        rows = self._db.execute(f"SELECT kind, status, code, attempt, right, changed FROM jobs {where}", arguments)  # noqa: S608
        jobs = rows.fetchall()
        (refused,) = self._db.execute(f"SELECT count(*) FROM refusals {where}", arguments).fetchone()  # noqa: S608
        as_asked = [row for row in jobs if (row[1], row[2]) in MAY_END[row[0]]]
        return Counts(
            accepted=len(jobs),
            refused=refused,
            finished=len([row for row in jobs if row[1]]),
            lost=len(jobs) - len(as_asked),
            wrong=len([row for row in jobs if row[4] == 0]),
            changed=len([row for row in jobs if row[5]]),
            extra_attempts=sum(max(0, (row[3] or 0) - 1) for row in jobs),
            failed=len([row for row in jobs if row[1] == "failed" and row[0] not in ("faulty", "poison")]),
        )

    def not_as_asked(self, most: int = 5) -> list[str]:
        """Return sentences about jobs that ended as they must not, for whoever looks into it."""
        found = []
        for job, scene, kind, status, code, vanished in self._db.execute(
            "SELECT id, scene, kind, status, code, vanished FROM jobs ORDER BY accepted"
        ):
            if (status, code) not in MAY_END[kind]:
                end = "vanished" if vanished else f"{status or 'not ended'} {code or ''}".strip()
                found.append(f"{job} ({kind}, {scene}): {end}")
        return found[:most]

    def completions(self, scene: str) -> list[float]:
        """Return when clients saw the jobs of a scene complete, in order (seconds since 1970)."""
        rows = self._db.execute("SELECT ended FROM jobs WHERE scene = ? AND ended IS NOT NULL ORDER BY ended", (scene,))
        return [ended for (ended,) in rows]


def canonical(body: dict[str, Any]) -> str:
    """Return what must not change in the answer about a finished job."""
    return json.dumps({name: body[name] for name in ("status", "output", "error", "attempt", "completed_at", "usage")})
