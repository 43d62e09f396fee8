"""Takes deliveries out of the outbox and has them sent, many at once on one event loop."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from inferq.errors import StoreUnavailable
from inferq.outbox import Outbox, Outcome, Parcel
from inferq.tracing import Tracer, Value
from inferq.webhooks import AddressRules
from workers.sender import PublicResolver, Sender

log = structlog.get_logger()

#: Seconds after which a courier looks by itself: timers in Redis wake nobody.
LOOK_S: Final = 0.5
#: Seconds after which an attempt at a proven receiver gives its place to the next, and goes on beside it: when many
#: that have answered till now begin to hang together, the others need not wait until that has been noticed.
SLOW_S: Final = 1.0
#: Times as many attempts as there are places that may be under way, the slow ones included.
MOST_TIMES: Final = 4
#: Seconds a shift without work lasts, so that what comes soon needs no bell.
LINGER_S: Final = 2.0
#: Seconds for which the outcome of an attempt is told to a Redis that does not answer.
TELL_S: Final = 60.0


T = TypeVar("T")


class Courier:
    """Takes deliveries and sends them, many at once, on a thread of its own with an event loop."""

    def __init__(
        self,
        outbox: Outbox,
        rules: AddressRules,
        *,
        timeout_s: float,
        room: int,
        sent: Callable[[str, float], None] = lambda _result, _seconds: None,
        tracer: Tracer | None = None,
    ) -> None:
        """``room``: how many to send at once to proven receivers, and how many more to all others.

        ``sent`` is told how each attempt went, and its seconds.
        """
        self._sent = sent
        self._tracer = tracer or Tracer()
        self._outbox = outbox
        self._rules = rules
        self._timeout_s = timeout_s
        self._free = {True: room, False: room}
        self._most = MOST_TIMES * room
        self._stopping = False
        self._shifts = 0
        self._under_way: set[asyncio.Task[str]] = set()
        # Redis's calls block: they wait on threads, so that the loop goes on sending.
        self._asking = ThreadPoolExecutor(8, thread_name_prefix="outbox")
        self._loop = asyncio.new_event_loop()
        self._woken = asyncio.Event()
        self._made: Sender | None = None
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def on_shift(self) -> bool:
        """Whether somebody is taking deliveries here."""
        return self._shifts > 0

    def wake(self) -> None:
        """Look at once whether there is something to send."""
        self._loop.call_soon_threadsafe(self._woken.set)

    def shift(self, seconds: float) -> dict[str, int]:
        """Send what can be sent until there is nothing for a while, at most so long; returns outcomes by their count.

        Blocks. Raises StoreUnavailable.
        """
        return dict(asyncio.run_coroutine_threadsafe(self._shift(seconds), self._loop).result())

    def has_more(self) -> bool:
        """Whether something can be sent that nobody has been told of; raises StoreUnavailable."""
        return self._outbox.lacks_bell()

    def stop(self) -> None:
        """Take nothing more; what is under way is seen through, which takes an attempt's time at most."""
        self._stopping = True
        self.wake()

    def close(self) -> None:
        """End, once what is under way has been seen through."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._asking.shutdown()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)
        if self._made:
            await self._made.close()

    def _sender(self) -> Sender:
        if self._made is None:
            self._made = Sender(self._rules, self._timeout_s, PublicResolver(self._rules.allows))
        return self._made

    async def _shift(self, seconds: float) -> Counter[str]:
        loop = asyncio.get_running_loop()
        done: Counter[str] = Counter()
        began = worked = loop.time()
        self._shifts += 1
        try:
            while not self._stopping and loop.time() < began + seconds:
                self._woken.clear()
                parcels, more = await self._take()
                for parcel in parcels:
                    self._begin(parcel, done)
                if parcels or more:
                    worked = loop.time()
                    continue
                sending = bool(self._under_way)
                if not sending and loop.time() > worked + LINGER_S:
                    break
                await self._wait(LOOK_S)
                if sending:  # what has failed just now may be due again in a moment
                    worked = loop.time()
        finally:
            self._shifts -= 1
        while self._under_way and (self._stopping or loop.time() < began + seconds):
            await asyncio.wait(self._under_way, timeout=LOOK_S)
        return done

    async def _take(self) -> tuple[list[Parcel], bool]:
        left = self._most - len(self._under_way)
        proven, unproven = min(self._free[True], max(0, left - self._free[False])), self._free[False]
        if not proven and not unproven:
            return [], False
        return await self._ask(lambda: self._outbox.take(proven=proven, unproven=unproven))

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            return

    def _begin(self, parcel: Parcel, done: Counter[str]) -> None:
        self._free[parcel.proven] -= 1
        task = asyncio.create_task(self._deliver(parcel))
        self._under_way.add(task)
        held = True

        def leave() -> None:
            nonlocal held
            self._free[parcel.proven] += held
            held = False
            self._woken.set()

        slow = asyncio.get_running_loop().call_later(SLOW_S, leave) if parcel.proven else None

        def ended(task: asyncio.Task[str]) -> None:
            if slow:
                slow.cancel()
            self._under_way.discard(task)
            leave()
            done[task.result()] += 1

        task.add_done_callback(ended)

    async def _send(self, parcel: Parcel) -> Outcome:
        about: dict[str, Value | None] = {
            "inferq__delivery": parcel.id,
            "inferq__attempt": parcel.attempt,
            "inferq__event": parcel.event,
        }
        with self._tracer.span(f"webhook {parcel.event}", "client", parcel.trace, **about) as span:
            outcome = await self._sender().send(replace(parcel, trace=span.carrier))
            span.note(http__request__method="POST", http__response__status_code=outcome.status)
            if not outcome.good:
                span.failed(str(outcome.status or result_of(outcome)))
            return outcome

    async def _deliver(self, parcel: Parcel) -> str:
        try:
            outcome = await self._send(parcel)
            result = result_of(outcome)
        except Exception:
            # Whatever a receiver has made us stumble over: told as a failure, or it would be tried for ever.
            log.exception("attempt_broke", delivery=parcel.id)
            error = "The attempt broke off: an error of ours, which is logged."
            outcome, result = Outcome(good=False, down=True, ms=0, error=error), "broke"
        self._sent(result, outcome.ms / 1000)
        jitter = random.random()  # noqa: S311  # spreads retries
        until = time.monotonic() + TELL_S
        while True:
            try:
                told = await self._ask(lambda: self._outbox.attempted(parcel, outcome, jitter))
            except StoreUnavailable as error:
                if self._stopping or time.monotonic() > until:
                    log.warning("attempt_not_told", delivery=parcel.id, reason=str(error))
                    return "untold"
                await asyncio.sleep(LOOK_S)
                continue
            said = {"request_id": parcel.request_id, "status": outcome.status, "error": outcome.error}
            log.info(
                "delivery_attempted",
                delivery=parcel.id,
                attempt=parcel.attempt,
                outcome=told,
                ms=outcome.ms,
                **{name: value for name, value in said.items() if value is not None},
            )
            return told

    async def _ask(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._asking, call)


def result_of(outcome: Outcome) -> str:
    """Return the class of an answer, as metrics have it."""
    if outcome.status is not None:
        return f"{outcome.status // 100}xx"
    return "refused" if outcome.unsent else "no_answer"
