"""The client that awaits: the same steps as the one that blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, cast

import httpx2

from inferq_client import transport
from inferq_client.dialogues import AUTO, Dialogues, IdempotencyKey
from inferq_client.errors import InferqError, NoAnswer
from inferq_client.events import Event
from inferq_client.exchange import Call, Dialogue, Follow, Next, Pause, Reply, ServerEvent, Show
from inferq_client.jobs import Job, JobOptions, Prompt
from inferq_client.mapping import CONCURRENCY, MAP_RETRY_S, Item, Report, counted, in_order, parted
from inferq_client.queue import QueueState
from inferq_client.settings import service

T = TypeVar("T")


class AsyncInferq:
    """As :class:`Inferq`, for asyncio; ``async with AsyncInferq() as client``."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retry_for_s: float = 60.0,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._service = service(url, api_key)
        self._timeout_s = timeout_s
        self._own = http is None
        self._http = http or httpx2.AsyncClient(**transport.client_options(self._service))
        self._dialogues = Dialogues(retry_for_s, time.monotonic)

    async def submit(
        self,
        prompt: Prompt,
        *,
        wait_s: int = 0,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
        extra_body: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """As :meth:`Inferq.submit`."""
        return await self._run(
            self._dialogues.submit(
                prompt,
                {**options, **(extra_body or {})},
                wait_s=wait_s,
                idempotency_key=idempotency_key,
                cache_control=cache_control,
            )
        )

    async def run(
        self,
        prompt: Prompt,
        *,
        timeout_s: float | None = None,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
        **options: Unpack[JobOptions],
    ) -> Job:
        """As :meth:`Inferq.run`."""
        how = {"idempotency_key": idempotency_key, "cache_control": cache_control}
        return (await self._run(self._dialogues.run(prompt, options, timeout_s=timeout_s, **how))).checked()

    async def get(self, job: Job | str) -> Job:
        """As :meth:`Inferq.get`."""
        return await self._run(self._dialogues.get(job))

    async def wait(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """As :meth:`Inferq.wait`."""
        return await self._run(self._dialogues.wait(job, timeout_s=timeout_s))

    def watch(self, job: Job | str, *, every_s: float = 1.0, timeout_s: float | None = None) -> AsyncIterator[Job]:
        """As :meth:`Inferq.watch`."""
        return self._shown(self._dialogues.watch(job, every_s=every_s, timeout_s=timeout_s))

    def stream(
        self,
        prompt: Prompt,
        *,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
        **options: Unpack[JobOptions],
    ) -> AsyncIterator[Event]:
        """As :meth:`Inferq.stream`."""
        return self._shown(
            self._dialogues.stream(prompt, options, idempotency_key=idempotency_key, cache_control=cache_control)
        )

    def events(self, job: Job | str) -> AsyncIterator[Event]:
        """As :meth:`Inferq.events`."""
        return self._shown(self._dialogues.events(job))

    async def cancel(self, job: Job | str) -> Job:
        """As :meth:`Inferq.cancel`."""
        return await self._run(self._dialogues.cancel(job))

    async def delete(self, job: Job | str) -> None:
        """As :meth:`Inferq.delete`."""
        await self._run(self._dialogues.delete(job))

    async def map(
        self,
        items: Iterable[Item],
        *,
        concurrency: int = CONCURRENCY,
        progress: bool | Report = False,
        return_errors: bool = False,
        retry_for_s: float = MAP_RETRY_S,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[Job]:
        """Yield a completed job per prompt, in their order, ``concurrency`` of them under way at once.

        An item is a prompt, or a mapping with ``prompt`` or ``messages`` and options of its own. ``progress``: True for
        a bar on a terminal, or a function that is given a :class:`Progress` after each. The first error ends it; with
        ``return_errors`` errors stand in the place of their jobs. Refusals for a passing reason are repeated for
        ``retry_for_s`` seconds each. Whoever leaves early leaves jobs that are under way to run on.
        """

        async def one(item: Item) -> Job:
            prompt, own = parted(item)
            how: dict[str, Any] = {"timeout_s": None, "retry_for_s": retry_for_s}
            try:
                return (await self._run(self._dialogues.run(prompt, {**options, **own}, **how))).checked()
            except InferqError as error:
                if return_errors:
                    return cast(Job, error)
                raise

        with counted(items, progress) as (known, done):
            jobs = in_order((partial(one, item) for item in known), concurrency, done)
            try:
                async for job in jobs:
                    yield job
            finally:
                await jobs.aclose()

    async def queue(self) -> QueueState:
        """As :meth:`Inferq.queue`."""
        return QueueState.of(await self._run(self._dialogues.read("/v1/queue")))

    async def models(self) -> dict[str, Any]:
        """As :meth:`Inferq.models`."""
        return await self._run(self._dialogues.read("/v1/models"))

    async def usage(self, days: int = 30) -> dict[str, Any]:
        """As :meth:`Inferq.usage`."""
        return await self._run(self._dialogues.read("/v1/usage", {"days": days}))

    def list(self, *, status: str | None = None, limit: int | None = None) -> AsyncIterator[Job]:
        """As :meth:`Inferq.list`."""
        return self._shown(self._dialogues.list(status, limit))

    async def close(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        await self.close()
        return False

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._service.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._service.url!r})"

    async def _run(self, dialogue: Dialogue[T]) -> T:
        line = _Line(self._http, self._timeout_s)
        try:
            outcome: Any = None
            while True:
                step = dialogue.send(outcome)
                outcome = None if isinstance(step, Show) else await line.do(step)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            await line.close()

    async def _shown(self, dialogue: Dialogue[None]) -> AsyncGenerator[Any]:
        line = _Line(self._http, self._timeout_s)
        try:
            outcome: Any = None
            while True:
                try:
                    step = dialogue.send(outcome)
                except StopIteration:
                    return
                if isinstance(step, Show):
                    yield step.what
                    outcome = None
                else:
                    outcome = await line.do(step)
        finally:
            await line.close()


class _Line:
    """Does the steps of one dialogue."""

    def __init__(self, http: httpx2.AsyncClient, timeout_s: float) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._open = AsyncExitStack()
        self._events: AsyncIterator[httpx2.ServerSentEvent] | None = None

    async def do(self, step: Call | Follow | Next | Pause) -> Reply | ServerEvent | NoAnswer | None:
        """Do a step and return what came of it."""
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            if isinstance(step, Call):
                return transport.reply(await self._http.request(**transport.request_options(step, self._timeout_s)))
            if isinstance(step, Follow):
                return await self._follow(step.call)
            event = await anext(self._events, None) if self._events else None
        except httpx2.RequestError as error:
            await self._open.aclose()
            return transport.lost(error)
        return None if event is None else transport.server_event(event)

    async def _follow(self, call: Call) -> Reply:
        await self.close()
        stream = self._http.stream(**transport.stream_options(call, self._timeout_s))
        response = await self._open.enter_async_context(stream)
        if response.status_code != 200:
            await response.aread()
            await self._open.aclose()
            return transport.reply(response)
        self._events = aiter(httpx2.EventSource(response))
        return transport.opened(response)

    async def close(self) -> None:
        """End the stream that is open, if one is."""
        await self._open.aclose()
