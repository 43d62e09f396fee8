"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import httpx2
from anyio.from_thread import start_blocking_portal

from inferq_client import transport
from inferq_client.async_client import AsyncInferq
from inferq_client.dialogues import AUTO, Dialogues, IdempotencyKey
from inferq_client.errors import NoAnswer
from inferq_client.events import Event
from inferq_client.exchange import Call, Dialogue, Follow, Next, Pause, Reply, ServerEvent, Show
from inferq_client.jobs import Job, JobOptions, Prompt
from inferq_client.mapping import CONCURRENCY, MAP_RETRY_S, Item, Report
from inferq_client.queue import QueueState
from inferq_client.settings import service

T = TypeVar("T")


class Inferq:
    """A connection to inferq, to be used from any number of threads and closed, or as a context manager.

    ``url`` and ``api_key``: ``INFERQ_URL`` and ``INFERQ_API_KEY`` of the environment when not given. ``timeout_s``:
    until the service must answer, besides what it is asked to wait. ``retry_for_s``: how long a call is repeated while
    no answer comes, or one that says "later" (429, 503); ``Retry-After`` is honoured. ``http``: an httpx2 client of
    your own, with address and headers, that stays yours.

    Every method raises :class:`ApiError` for a refusal and :class:`NoAnswer` when the service is not reached.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retry_for_s: float = 60.0,
        http: httpx2.Client | None = None,
    ) -> None:
        self._service = service(url, api_key)
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._own = http is None
        self._http = http or httpx2.Client(**transport.client_options(self._service))
        self._dialogues = Dialogues(retry_for_s, time.monotonic)

    def submit(
        self,
        prompt: Prompt,
        *,
        wait_s: int = 0,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
        extra_body: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit a job and return it; with ``wait_s`` (60 at most) as it is when it has ended, or then.

        Without a key of yours one is made, so that a repeat after a lost answer is the same job; with None none is
        sent, a hit leaves no record, and only what was surely not accepted is sent again. ``cache_control``:
        ``no-cache``, ``no-store``, ``only-if-cached``. ``extra_body``: fields that this version does not know.
        """
        return self._run(
            self._dialogues.submit(
                prompt,
                {**options, **(extra_body or {})},
                wait_s=wait_s,
                idempotency_key=idempotency_key,
                cache_control=cache_control,
            )
        )

    def run(
        self,
        prompt: Prompt,
        *,
        timeout_s: float | None = None,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit, wait, and return the completed job; raises JobFailed, JobCancelled, JobExpired or WaitTimeout."""
        how = {"idempotency_key": idempotency_key, "cache_control": cache_control}
        return self._run(self._dialogues.run(prompt, options, timeout_s=timeout_s, **how)).checked()

    def get(self, job: Job | str) -> Job:
        """Read a job; raises NotFound, or Gone once its result has expired."""
        return self._run(self._dialogues.get(job))

    def wait(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """Return a job once it has ended, however it has; raises WaitTimeout."""
        return self._run(self._dialogues.wait(job, timeout_s=timeout_s))

    def watch(self, job: Job | str, *, every_s: float = 1.0, timeout_s: float | None = None) -> Iterator[Job]:
        """Yield a job at each change, and about every ``every_s`` seconds, until it has ended."""
        return self._shown(self._dialogues.watch(job, every_s=every_s, timeout_s=timeout_s))

    def stream(
        self,
        prompt: Prompt,
        *,
        idempotency_key: IdempotencyKey = AUTO,
        cache_control: str = "",
        **options: Unpack[JobOptions],
    ) -> Iterator[Event]:
        """Submit a job and yield what it tells, tokens as they come, :class:`Ended` last.

        A lost connection is taken up where it was. Raises JobFailed and its like when the job ends otherwise.
        """
        return self._shown(
            self._dialogues.stream(prompt, options, idempotency_key=idempotency_key, cache_control=cache_control)
        )

    def events(self, job: Job | str) -> Iterator[Event]:
        """Yield what a job tells that was submitted with ``stream``, from its beginning."""
        return self._shown(self._dialogues.events(job))

    def cancel(self, job: Job | str) -> Job:
        """Cancel a job: ``cancelled``, or ``cancelling`` while the engine frees it. Raises Conflict if it has ended."""
        return self._run(self._dialogues.cancel(job))

    def delete(self, job: Job | str) -> None:
        """Erase prompt and output of a finished job."""
        self._run(self._dialogues.delete(job))

    def map(
        self,
        items: Iterable[Item],
        *,
        concurrency: int = CONCURRENCY,
        progress: bool | Report = False,
        return_errors: bool = False,
        retry_for_s: float = MAP_RETRY_S,
        **options: Unpack[JobOptions],
    ) -> Iterator[Job]:
        """Yield a completed job per prompt, in their order, ``concurrency`` of them under way at once.

        As :meth:`AsyncInferq.map`, which does it in a thread of its own.
        """
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            twin = AsyncInferq(
                self._service.url,
                self._service.api_key,
                timeout_s=self._timeout_s,
                retry_for_s=self._retry_for_s,
            )
            stack.enter_context(portal.wrap_async_context_manager(twin))
            results = twin.map(
                items,
                concurrency=concurrency,
                progress=progress,
                return_errors=return_errors,
                retry_for_s=retry_for_s,
                **options,
            )
            stack.callback(portal.call, results.aclose)
            while (job := portal.call(_next_of, results)) is not None:
                yield job

    def queue(self) -> QueueState:
        """Return what waits and who works."""
        return QueueState.of(self._run(self._dialogues.read("/v1/queue")))

    def models(self) -> dict[str, Any]:
        """Return the models and their state, as JSON."""
        return self._run(self._dialogues.read("/v1/models"))

    def usage(self, days: int = 30) -> dict[str, Any]:
        """Return the tenant's jobs and tokens by day, and its limits, as JSON."""
        return self._run(self._dialogues.read("/v1/usage", {"days": days}))

    def list(self, *, status: str | None = None, limit: int | None = None) -> Iterator[Job]:
        """Yield the tenant's jobs, newest first, without outputs; all, or ``limit`` of them."""
        return self._shown(self._dialogues.list(status, limit))

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._service.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._service.url!r})"

    def _run(self, dialogue: Dialogue[T]) -> T:
        line = _Line(self._http, self._timeout_s)
        try:
            outcome: Any = None
            while True:
                step = dialogue.send(outcome)
                outcome = None if isinstance(step, Show) else line.do(step)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            line.close()

    def _shown(self, dialogue: Dialogue[None]) -> Generator[Any]:
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
                    outcome = line.do(step)
        finally:
            line.close()


class _Line:
    """Does the steps of one dialogue."""

    def __init__(self, http: httpx2.Client, timeout_s: float) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._open = ExitStack()
        self._events: Iterator[httpx2.ServerSentEvent] = iter(())

    def do(self, step: Call | Follow | Next | Pause) -> Reply | ServerEvent | NoAnswer | None:
        """Do a step and return what came of it."""
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            if isinstance(step, Call):
                return transport.reply(self._http.request(**transport.request_options(step, self._timeout_s)))
            if isinstance(step, Follow):
                return self._follow(step.call)
            event = next(self._events, None)
        except httpx2.RequestError as error:
            self._open.close()
            return transport.lost(error)
        return None if event is None else transport.server_event(event)

    def _follow(self, call: Call) -> Reply:
        self.close()
        response = self._open.enter_context(self._http.stream(**transport.stream_options(call, self._timeout_s)))
        if response.status_code != 200:
            response.read()
            self._open.close()
            return transport.reply(response)
        self._events = iter(httpx2.EventSource(response))
        return transport.opened(response)

    def close(self) -> None:
        """End the stream that is open, if one is."""
        self._open.close()


async def _next_of(results: Any) -> Job | None:
    return await anext(results, None)
