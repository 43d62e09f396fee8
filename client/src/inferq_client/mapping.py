"""Many prompts at once: how many, in which order, and how far it is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, cast

from inferq_client.jobs import Prompt

T = TypeVar("T")

#: Jobs under way at once unless somebody says otherwise.
CONCURRENCY: Final = 32
#: Seconds for which a prompt that is refused for a passing reason (429, 503) is submitted again: a key may have used up
#: its minute.
MAP_RETRY_S: Final = 900.0

#: A prompt, or a mapping with ``prompt`` or ``messages`` and options of its own.
Item: TypeAlias = Prompt | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it is. ``total``: None when nobody knows; seconds; ``rate``: a second."""

    done: int
    total: int | None
    elapsed_s: float

    @property
    def rate(self) -> float:
        """How many were done a second, so far."""
        return self.done / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds it should still take; None when nobody can say."""
        return (self.total - self.done) / self.rate if self.total is not None and self.rate else None


Report: TypeAlias = Callable[[Progress], None]


def parted(item: Item) -> tuple[Prompt, dict[str, Any]]:
    """Return the prompt and the options of an item; raises ValueError for a mapping without either prompt."""
    if not isinstance(item, Mapping):
        return item, {}
    options = dict(item)
    prompt = options.pop("prompt", None)
    if prompt is None:
        prompt = options.pop("messages", None)
    if prompt is None:
        raise ValueError("an item needs prompt or messages")
    return cast(Prompt, prompt), options


@contextmanager
def counted(items: Iterable[Item], progress: bool | Report) -> Iterator[tuple[Iterable[Item], Callable[[], None]]]:
    """Yield the items and what is to be called when one is done."""
    if progress is False:
        yield items, lambda: None
        return
    if progress is True:
        from inferq_client.progress_bar import bar

        with bar() as report, counted(items, report) as both:
            yield both
        return
    total, began, done = len(items) if isinstance(items, Sized) else None, time.monotonic(), 0

    def one_more() -> None:
        nonlocal done
        done += 1
        progress(Progress(done=done, total=total, elapsed_s=time.monotonic() - began))

    yield items, one_more


async def in_order(
    tasks: Iterable[Callable[[], Awaitable[T]]], concurrency: int, done: Callable[[], None]
) -> AsyncGenerator[T]:
    """Yield the results of tasks in their order, ``concurrency`` at once and as many more done ahead.

    Whatever ends it, none is left running.
    """
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    slots = asyncio.Semaphore(concurrency)
    begun: deque[asyncio.Task[T]] = deque()

    async def one(task: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            result = await task()
        done()
        return result

    try:
        for task in tasks:
            begun.append(asyncio.create_task(one(task)))
            if len(begun) >= 2 * concurrency:
                yield await begun.popleft()
        while begun:
            yield await begun.popleft()
    finally:
        for left in begun:
            left.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
