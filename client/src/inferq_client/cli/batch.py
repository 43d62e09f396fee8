"""``inferq batch``: many prompts from a file, results into another, across interruptions.

A line's Idempotency-Key is derived from the batch and the line, so a line that is submitted again is the same job; and
which job it became is noted, so that its result is fetched after an interruption.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferq_client import ApiError, AsyncInferq, Gone, InferqError, Job, NotFound, Unauthorized
from inferq_client.cli.results import Results, WrongFile
from inferq_client.cli.saying import console, say, span
from inferq_client.mapping import MAP_RETRY_S, Progress, Report, parted
from inferq_client.progress_bar import bar

#: Names a file's lines may carry for their owner; they are repeated in the results.
CUSTOM_ID: Final = "custom_id"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line: its number from 1, its key, and what is asked."""

    number: int
    key: str
    custom_id: str | None
    body: dict[str, Any]


class Batch:
    """A file of prompts and a file of results. ``options``: for lines that do not say otherwise."""

    def __init__(
        self, prompts: Path, output: Path, *, name: str = "", options: dict[str, Any], retry_failed: bool = False
    ) -> None:
        self.prompts = prompts
        self.output = output
        self.retry_failed = retry_failed
        self._options = options
        self._name = name or str(output.resolve())

    def lines(self) -> Iterator[Line]:
        """Yield the lines; raises WrongFile and names the first that cannot be asked."""
        seen: Counter[str] = Counter()
        try:
            with self.prompts.open(encoding="utf-8") as file:
                for number, text in enumerate(file, start=1):
                    if text.strip():
                        yield self._line(number, text, seen)
        except OSError as error:
            raise WrongFile(f"{self.prompts}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise WrongFile(f"{self.prompts} is not UTF-8") from None

    def _line(self, number: int, text: str, seen: Counter[str]) -> Line:
        try:
            said = json.loads(text)
        except ValueError:
            raise WrongFile(f"{self.prompts}, line {number}: is not JSON") from None
        if isinstance(said, str):
            said = {"prompt": said}
        if not isinstance(said, dict) or not _can_be_asked(said):
            raise WrongFile(f"{self.prompts}, line {number}: must be a string or an object with prompt or messages")
        custom_id = said.pop(CUSTOM_ID, None)
        body = {**self._options, **said}
        same = json.dumps([self._name, custom_id, body], sort_keys=True)
        # The same line twice is two jobs; a line that moves stays itself.
        seen[same] += 1
        key = hashlib.sha256(f"{same}{seen[same]}".encode()).hexdigest()[:40]
        return Line(number=number, key=key, custom_id=custom_id, body=body)


def _can_be_asked(said: dict[str, Any]) -> bool:
    turns = said.get("messages")
    if "prompt" in said:
        return isinstance(said["prompt"], str) and turns is None
    return isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)


def run_batch(batch: Batch, url: str, api_key: str | None, concurrency: int) -> dict[str, int]:
    """Work a batch off; returns how many lines there are and how they have ended. Raises KeyboardInterrupt and says
    how to go on.
    """
    keys = [line.key for line in batch.lines()]  # all are read once, so that nothing is asked before a wrong line
    with Results(batch.output) as results:
        work = _Work(batch, results, keys)
        try:
            asyncio.run(work.run(url, api_key, concurrency))
        except (KeyboardInterrupt, InferqError):
            say(f"{work.summary()}; the same command goes on from here")
            raise
        say(work.summary())
        counts = work.counts()
        if counts["completed"] == len(keys):
            results.forget_jobs()
        return counts


class _Work:
    """The lines that have no result yet, and those who bring them one."""

    def __init__(self, batch: Batch, results: Results, keys: list[str]) -> None:
        self._batch = batch
        self._results = results
        self._keys = keys
        self._left = iter(self._open_lines())
        self._began = time.monotonic()
        self._ended = 0
        self._before = sum(not self._is_open(key) for key in keys)
        strangers = (results.completed | set(results.failed)) - set(keys)
        if strangers:
            say(f"{batch.output} has {len(strangers)} results of other lines or options; they stay")
        if self._before:
            say(f"{self._before} of {len(keys)} lines have their results already")

    def counts(self) -> dict[str, int]:
        """Return how many lines there are, and how they have ended."""
        completed = sum(key in self._results.completed for key in self._keys)
        failed = sum(key in self._results.failed and key not in self._results.completed for key in self._keys)
        return {"lines": len(self._keys), "completed": completed, "failed": failed}

    def summary(self) -> str:
        """Say how far it is."""
        counts = self.counts()
        seconds = time.monotonic() - self._began
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        rate = f", {self._ended / seconds:.1f}/s" if self._ended else ""
        return f"{counts['completed']} of {counts['lines']} completed{failed} in {span(seconds)}{rate}"

    async def run(self, url: str, api_key: str | None, concurrency: int) -> None:
        """Bring every open line its result."""
        with bar(console=console(), done=self._before) as report:
            report(self._progress())
            async with AsyncInferq(url, api_key, retry_for_s=MAP_RETRY_S) as client:
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(min(concurrency, len(self._keys) - self._before)):
                            group.create_task(self._bring(client, report))
                except BaseExceptionGroup as several:
                    raise several.exceptions[0] from None

    async def _bring(self, client: AsyncInferq, report: Report) -> None:
        for line in self._left:
            result = await self._result(client, line)
            self._results.ended(line.key, result)
            self._ended += 1
            report(self._progress())

    async def _result(self, client: AsyncInferq, line: Line) -> dict[str, Any]:
        try:
            job = await client.wait(await self._job(client, line))
        except Unauthorized:
            raise
        except ApiError as error:
            if error.passing or error.status >= 500:
                raise
            return _refused(line, error)
        return _told(line, job)

    async def _job(self, client: AsyncInferq, line: Line) -> Job:
        key = line.key
        if self._batch.retry_failed and self._results.failed[key]:
            key = f"{key}-{self._results.failed[key]}"  # under its old key it would be the job that failed
        noted = self._results.jobs.get(key)
        if noted:
            try:
                return await client.get(noted)
            except (Gone, NotFound):
                key = f"{key}-{noted}"  # nobody has its result any more, so it has to be asked again
        prompt, options = parted(line.body)
        job = await client.submit(prompt, idempotency_key=key, extra_body=options)
        if job.id:
            self._results.accepted(key, job.id)
        return job

    def _open_lines(self) -> Iterator[Line]:
        return (line for line in self._batch.lines() if self._is_open(line.key))

    def _is_open(self, key: str) -> bool:
        if key in self._results.completed:
            return False
        return self._batch.retry_failed or key not in self._results.failed

    def _progress(self) -> Progress:
        return Progress(
            done=self._ended, total=len(self._keys) - self._before, elapsed_s=time.monotonic() - self._began
        )


def _told(line: Line, job: Job) -> dict[str, Any]:
    raw = job.raw
    output = raw.get("output") or {}
    return _head(line) | {
        "job": job.id,
        "status": job.status,
        "text": output.get("text"),
        "finish_reason": output.get("finish_reason"),
        "usage": raw.get("usage"),
        "error": raw.get("error"),
    }


def _refused(line: Line, error: ApiError) -> dict[str, Any]:
    told = {"code": error.code, "message": error.detail, "retryable": False}
    return _head(line) | {"job": None, "status": "refused", "error": told}


def _head(line: Line) -> dict[str, Any]:
    return {"line": line.number} | ({CUSTOM_ID: line.custom_id} if line.custom_id is not None else {})
