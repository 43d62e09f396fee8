"""How a command ends: its exit status, and a sentence about what was wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import typer

from inferq_client import (
    ApiError,
    BadRequest,
    Conflict,
    Gone,
    Inferq,
    InferqError,
    JobNotCompleted,
    NoAnswer,
    NoRoom,
    NotCached,
    NotFound,
    RateLimited,
    Unauthorized,
    WaitTimeout,
)
from inferq_client.cli.results import WrongFile
from inferq_client.cli.saying import say


class Exit(IntEnum):
    """Exit statuses (docs/client.md)."""

    OK = 0
    NOT_COMPLETED = 1  #: the job, or one of them, ended without an answer
    USAGE = 2  #: the command line or a file is wrong
    REFUSED = 3  #: the service refused the request for what it is
    NOT_FOUND = 4  #: there is no such job, or its result has expired, or it is not in the cache
    UNAUTHORIZED = 5  #: no key, or a wrong one
    LATER = 6  #: a limit is used up or there is no room; it may go well later
    NO_SERVICE = 7  #: nothing answers, or what does made a mistake or is not inferq
    TIMEOUT = 8  #: the job had not ended in time; it lives on
    INTERRUPTED = 130  #: Ctrl-C
    PIPE = 141  #: whoever read the output has gone


_CODES: tuple[tuple[type[InferqError], Exit], ...] = (
    (WrongFile, Exit.USAGE),
    (JobNotCompleted, Exit.NOT_COMPLETED),
    (BadRequest, Exit.REFUSED),
    (Conflict, Exit.REFUSED),
    (NotFound, Exit.NOT_FOUND),
    (Gone, Exit.NOT_FOUND),
    (NotCached, Exit.NOT_FOUND),
    (Unauthorized, Exit.UNAUTHORIZED),
    (RateLimited, Exit.LATER),
    (NoRoom, Exit.LATER),
    (WaitTimeout, Exit.TIMEOUT),
)


def code_of(error: InferqError) -> Exit:
    """Return the exit status an error means."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.NO_SERVICE)


def sentence(error: InferqError, url: str) -> str:
    """Say what was wrong, and what to do where that is not plain."""
    text = str(error)
    if isinstance(error, NoAnswer):
        return f"{text}; is inferq at {url}? Set --url or INFERQ_URL."
    if isinstance(error, Unauthorized):
        return f"{text} Set INFERQ_API_KEY to a key of yours."
    if isinstance(error, RateLimited | NoRoom) and error.retry_after_s and "Try again" not in text:
        return f"{text} Try again in {error.retry_after_s:g} s."
    if isinstance(error, ApiError) and code_of(error) is Exit.NO_SERVICE and error.request_id:
        return f"{text} Tell the operator of request {error.request_id}."
    return text


#: Seconds for which a command repeats a call: somebody sits before it.
RETRY_S: Final = 5.0


@contextmanager
def connected(url: str | None, api_key: str | None) -> Iterator[Inferq]:
    """Yield a client; whatever goes wrong ends the command with a sentence and its exit status."""
    named = ""
    try:
        try:
            client = Inferq(url, api_key, retry_for_s=RETRY_S)
        except InferqError as error:
            say(f"inferq: {error}")
            raise typer.Exit(Exit.USAGE) from None
        with client:
            named = client.url
            yield client
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(Exit.PIPE) from None
    except InferqError as error:
        say(f"inferq: {sentence(error, named)}")
        raise typer.Exit(code_of(error)) from None
