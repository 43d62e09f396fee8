"""The two files of a batch: results, and which line became which job. Both survive a kill in the middle of a line."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inferq_client import InferqError


class WrongFile(InferqError):
    """A file of a batch cannot be used; the text says why."""


class Results:
    """What is known of each line, by its key: results as they were written, and jobs that were accepted.

    ``failed``: how often a line has ended without an answer.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._jobs = results.with_name(results.name + ".jobs")
        self.completed: set[str] = set()
        self.failed: Counter[str] = Counter()
        self.jobs: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Read what an earlier run has left; raises WrongFile when another is at it, or it is something else."""
        with ExitStack() as files:
            try:
                self._note = files.enter_context(self._jobs.open("a+", encoding="utf-8"))
                _lock(self._note.fileno(), self._jobs)
                self._write = files.enter_context(self._results.open("a+", encoding="utf-8"))
                self._read()
            except OSError as error:
                raise WrongFile(f"{error.filename}: {error.strerror}") from None
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def _read(self) -> None:
        for entry in _lines(self._jobs):
            self.jobs[entry["key"]] = entry["job"]
        try:
            for entry in _lines(self._results):
                if entry["status"] == "completed":
                    self.completed.add(entry["key"])
                else:
                    self.failed[entry["key"]] += 1
        except (KeyError, TypeError):
            raise WrongFile(f"{self._results} is not a file of results; name another with -o") from None

    def accepted(self, key: str, job: str) -> None:
        """Note which job a line became."""
        self.jobs[key] = job
        _append(self._note, {"key": key, "job": job})

    def ended(self, key: str, result: dict[str, Any]) -> None:
        """Write a result."""
        if result["status"] == "completed":
            self.completed.add(key)
        else:
            self.failed[key] += 1
        _append(self._write, {**result, "key": key})

    def forget_jobs(self) -> None:
        """Remove the note of jobs: every line has its result."""
        self._jobs.unlink(missing_ok=True)


def _append(file: Any, entry: dict[str, Any]) -> None:
    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    file.flush()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a last line that was not written to its end is cut off."""
    with path.open("rb+") as file:
        good = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                os.truncate(path, good)
                return
            good += len(line)
            try:
                yield json.loads(line)
            except ValueError:
                raise WrongFile(f"{path}, line {number}: is not JSON; name another file with -o") from None


def _lock(descriptor: int, path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise WrongFile(f"another inferq batch writes to {path.name.removesuffix('.jobs')}") from None
