"""One job on a terminal: where it is, its tokens as they come, and how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

from rich.live import Live
from rich.spinner import Spinner

from inferq_client import (
    Accepted,
    Conflict,
    Ended,
    Event,
    Inferq,
    InferqError,
    Job,
    JobNotCompleted,
    Restarted,
    Status,
    Token,
)
from inferq_client.cli.saying import console, place, put, put_answer, say, span, story


class StatusLine:
    """A line on stderr that changes in place; where that is no terminal there is none."""

    def __init__(self) -> None:
        self._console = console()
        self._stack = ExitStack()
        self._spinner = Spinner("dots")
        self._began = time.monotonic()
        self.shown = self._console.is_terminal

    def __enter__(self) -> Self:
        if self.shown:
            self._stack.enter_context(Live(self._spinner, console=self._console, transient=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, text: str) -> None:
        """Change the line."""
        self._spinner.update(text=f"{text}   {span(time.monotonic() - self._began)}")

    def clear(self) -> None:
        """Take the line away for good."""
        self._stack.close()


class Followed:
    """Follows a job until it has ended; whoever presses Ctrl-C does not want it any more, so it is cancelled."""

    def __init__(self, client: Inferq) -> None:
        self._client = client
        self._job: Job | None = None

    def stream(self, events: Iterator[Event]) -> Job:
        """Write tokens to stdout as they come; returns the job as it ended, however it did."""
        written = ""
        with StatusLine() as line:
            try:
                for event in events:
                    match event:
                        case Accepted():
                            self._job = event.job
                            line.show(story(event.job))
                        case Status():
                            line.show(place(event.status, event.queue))
                        case Token():
                            line.clear()
                            put(event.text)
                            written = event.text or written
                        case Restarted() if written:
                            put("\n")
                            say("the engine begins again: what it said so far is void", "yellow")
                            written = ""
                        case Ended():
                            self._job = event.job
            except JobNotCompleted as ended:
                self._job = ended.job
            except KeyboardInterrupt:
                line.clear()
                self._cancel(written)
                raise
        if written and not written.endswith("\n"):
            put("\n")
        return self._known()

    def watch(self, job: Job, timeout_s: float | None, *, silent: bool = False) -> Job:
        """Write the answer to stdout once it is there, unless ``silent``; returns the job as it ended."""
        self._job = job
        with StatusLine() as line:
            try:
                looks = (
                    self._client.watch(job, timeout_s=timeout_s)
                    if line.shown
                    else iter([self._client.wait(job, timeout_s=timeout_s)])
                )
                for look in looks:
                    self._job = look
                    line.show(story(look))
            except KeyboardInterrupt:
                line.clear()
                self._cancel("")
                raise
        if not silent:
            put_answer(self._known())
        return self._known()

    def _cancel(self, written: str) -> None:
        if written and not written.endswith("\n"):
            put("\n")
        if self._job is None:
            say("the service had not answered yet: whether the job was accepted is not known")
            return
        if self._job.id is None:
            return
        try:
            self._client.cancel(self._job)
        except Conflict:
            say(f"job {self._job.id} had just ended")
        except InferqError as error:
            say(f"job {self._job.id} could not be cancelled: {error}")
        else:
            say(f"cancelled job {self._job.id}")

    def _known(self) -> Job:
        if self._job is None:
            raise InferqError("the service said nothing of the job")
        return self._job


def on_terminal() -> bool:
    """Whether a person reads stdout: only then tokens are written before it is sure that they stay."""
    return sys.stdout.isatty()
