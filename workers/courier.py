"""Sends deliveries: many at once on one event loop, never two connections for one name, never to a private address."""

import asyncio
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Final, TypeVar

import aiohttp
import structlog
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver
from standardwebhooks import Webhook

from inferq import __version__
from inferq.errors import StoreUnavailable
from inferq.outbox import Outbox, Outcome, Parcel
from inferq.webhooks import AddressRules, BadAddress, is_public

log = structlog.get_logger()

#: Bytes of an answer that are read.
MOST_READ: Final = 65_536
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


class Refused(OSError):
    """A name resolved to an address that no webhook may go to."""


class PublicResolver(AbstractResolver):
    """Resolves a name once, and only if all its addresses are public; aiohttp connects to those and no others."""

    def __init__(self, allows: Callable[[str], bool], names: AbstractResolver | None = None) -> None:
        """``allows``: whether a host is allowed whatever it resolves to.

        ``names``: who resolves; by default c-ares, as the system is configured: a slow name server holds no thread.
        """
        self._allows = allows
        self._names = names or AsyncResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return addresses to connect to; raises Refused, or OSError when there are none."""
        found = await self._names.resolve(host, port, family)
        if not self._allows(host):
            for address in {one["host"] for one in found}:
                if not is_public(ip_address(address)):
                    raise Refused(f"{host} resolves to {address}, which is not on the public internet")
        return found

    async def close(self) -> None:
        """Let go of what resolves."""
        await self._names.close()


class Sender:
    """Makes one attempt: one POST, without redirects, within a time."""

    def __init__(
        self, rules: AddressRules, timeout_s: float, resolver: AbstractResolver, tls: ssl.SSLContext | None = None
    ) -> None:
        """``tls``: whose certificates are believed; those of the system by default. Needs a running event loop."""
        self._tls = tls or ssl.create_default_context()
        self._rules = rules
        self._timeout_s = timeout_s
        self._resolver = resolver
        # Every attempt resolves anew and has a connection of its own. No proxies from the environment: no trust_env.
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close what is open, the resolver too."""
        await self._http.close()
        await self._resolver.close()

    async def send(self, parcel: Parcel) -> Outcome:
        """Send a parcel once; whatever goes wrong is in the outcome, in words for the receiver's owner."""
        began = time.monotonic()

        def outcome(**fields: Any) -> Outcome:
            return Outcome(ms=round(1000 * (time.monotonic() - began)), **fields)

        try:
            # Again: settings may have changed since the job was submitted.
            address = self._rules.check(parcel.url)
        except BadAddress as error:
            return outcome(good=False, unsent=True, error=f"Not sent: the address {error}.")
        url = yarl.URL(str(address), encoded=True)
        try:
            async with self._http.post(
                url, data=parcel.body.encode(), headers=signed_headers(parcel), allow_redirects=False, ssl=self._tls
            ) as answer:
                await _read(answer.content)
        except TimeoutError:
            return outcome(good=False, down=True, error=f"No complete answer within {self._timeout_s:g} s.")
        except (UnicodeError, aiohttp.InvalidURL):
            return outcome(good=False, unsent=True, error="Not sent: the address cannot be connected to.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause = getattr(error, "os_error", None) or error
            if isinstance(cause, Refused):
                return outcome(good=False, unsent=True, error=f"Not sent: {cause}.")
            return outcome(good=False, down=True, error=_words(error))
        status = answer.status
        if 200 <= status < 300:
            return outcome(good=True, status=status)
        return outcome(
            good=False,
            status=status,
            gone=status == 410,
            down=status >= 500 or status == 429,
            retry_ms=_retry_after_ms(answer.headers.get("Retry-After", "")),
            error=f"The receiver answered {status}; only 2xx is success"
            + (", and redirects are not followed." if 300 <= status < 400 else "."),
        )


def signed_headers(parcel: Parcel, now_s: float | None = None) -> dict[str, str]:
    """Return the headers of one attempt: id, time, and a signature by each secret (Standard Webhooks 1.0)."""
    at = int(time.time() if now_s is None else now_s)
    signatures = [
        Webhook(secret).sign(parcel.id, datetime.fromtimestamp(at, UTC), parcel.body) for secret in parcel.secrets
    ]
    return {
        "Content-Type": "application/json",
        "User-Agent": f"inferq/{__version__}",
        "webhook-id": parcel.id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signatures),
    }


async def _read(content: aiohttp.StreamReader) -> None:
    """Read an answer, which nobody needs, so that its sender is not cut off; not more than so much."""
    left = MOST_READ
    while left > 0 and (data := await content.read(left)):
        left -= len(data)


def _words(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "The name of the host could not be resolved."
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"No secure connection: {error.os_error if hasattr(error, 'os_error') else error}."[:300]
        case aiohttp.ClientConnectorError():
            return f"No connection: {error.os_error.strerror or error.os_error}."[:300]
        case aiohttp.ServerDisconnectedError():
            return "The receiver closed the connection without an answer."
    return f"The connection broke off: {type(error).__name__}."


def _retry_after_ms(value: str) -> int | None:
    """Read Retry-After: seconds or a date (RFC 9110 §10.2.3); None when there is none that can be read."""
    if value.isascii() and value.isdigit() and len(value) < 10:
        return 1000 * int(value)
    try:
        at = parsedate_to_datetime(value)
        since = at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0, round(1000 * (since - time.time())))


class Courier:
    """Takes deliveries and sends them, many at once, on a thread of its own with an event loop."""

    def __init__(self, outbox: Outbox, rules: AddressRules, *, timeout_s: float, room: int) -> None:
        """``room``: how many to send at once to proven receivers, and how many more to all others."""
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
                if not self._under_way and loop.time() > worked + LINGER_S:
                    break
                await self._wait(LOOK_S)
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

    async def _deliver(self, parcel: Parcel) -> str:
        try:
            outcome = await self._sender().send(parcel)
        except Exception:
            # Whatever a receiver has made us stumble over: told as a failure, or it would be tried for ever.
            log.exception("attempt_broke", delivery=parcel.id)
            error = "The attempt broke off: an error of ours, which is logged."
            outcome = Outcome(good=False, down=True, ms=0, error=error)
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
            log.info(
                "delivery_attempted",
                delivery=parcel.id,
                attempt=parcel.attempt,
                outcome=told,
                status=outcome.status,
                error=outcome.error,
                ms=outcome.ms,
            )
            return told

    async def _ask(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._asking, call)
