"""Looks at everything an operator can get wrong, from where the API or a worker would stand."""

import http.client
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from inferq.credentials import KeyRing
from inferq.errors import ConfigurationError, InferqError
from inferq.findings import Finding, found
from inferq.job_store import EngineState, JobStore, ServiceLimits
from inferq.keys import key
from inferq.measures import Measures, read_measures
from inferq.redis_check import check_cache, check_jobs
from inferq.redis_client import connect, job_redis
from inferq.scripts import Scripts
from inferq.settings import Settings
from inferq.webhooks import Address, AddressRules, BadAddress, is_public

#: Shares of maxmemory that are said; above the second nothing is admitted (``FULL`` in ``_records.lua``).
FILLING, FULL = 0.70, 0.85
#: Milliseconds of a round trip to Redis that are too many.
SLOW_MS: Final = 20.0
#: Seconds by which clocks may differ.
CLOCK_S: Final = 2.0
#: Seconds without a keeper's tick, and a run's wait beside free slots, that are too many.
SILENT_S, STUCK_S = 5.0, 15.0
#: Seconds after which an undelivered webhook is late.
LATE_S: Final = 900.0
#: Seconds that looking at something may take.
PATIENCE_S: Final = 5.0


def examine(settings: Settings, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Yield what is found, in the order in which it should be mended. ``clock``: seconds since 1970."""
    engines = sorted({model.engine for model in settings.catalogue})
    yield found("settings-fine", engines=", ".join(engines))
    try:
        warnings = check_jobs(settings)
    except ConfigurationError as error:
        yield _refusal("redis", error)
        return
    if any("is away" in warning for warning in warnings):
        yield found("redis-away", address=_host(settings.redis_url))
        return
    with job_redis(settings) as redis:
        try:
            yield from _redis(redis)
            yield from _cache(settings)
            yield from _clocks(redis, clock)
            yield from _api(settings)
            yield from _keys(redis)
            scripts = Scripts(redis)
            measures = read_measures(scripts, JobStore(scripts, ServiceLimits(requests=1, polls=1)))
            yield from _keeper(redis)
            yield from _engines(settings, measures.states)
            if measures.dead_letters:
                yield found("queue-dead", count=measures.dead_letters)
            yield from _webhooks(settings, measures)
        except (RedisError, InferqError) as error:
            yield found("redis-fails", why=str(error) or type(error).__name__)


def examine_receiver(settings: Settings, url: str, tls: ssl.SSLContext | None = None) -> Finding:
    """Connect to a webhook's receiver as a keeper would, and ask it for its headers; nothing is delivered."""
    try:
        address = AddressRules(settings).check(url)
    except BadAddress as error:
        return found("webhooks-refused", why=error)
    try:
        resolved = socket.getaddrinfo(address.host.strip("[]"), address.port, type=socket.SOCK_STREAM)
    except OSError:
        return found("webhooks-unreachable", why=f"the name {address.host} cannot be resolved.")
    hosts = [str(entry[4][0]) for entry in resolved]
    inside = [host for host in hosts if not is_public(ip_address(host.partition("%")[0]))]
    if inside and not address.open:
        return found("webhooks-refused", why=f"resolves to {inside[0]}, which is not on the public internet")
    try:
        status = _ask(address, hosts[0], tls)
    except (OSError, http.client.HTTPException) as error:
        return found("webhooks-unreachable", why=f"{_why(error)}.")
    note = "." if status < 500 else ", so events would be tried again later."
    return found("webhooks-reachable", status=status, note=note)


def _ask(address: Address, host: str, tls: ssl.SSLContext | None) -> int:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE_S)
    connection.sock = socket.create_connection((host, address.port), timeout=PATIENCE_S)
    try:
        if address.scheme == "https":
            context = tls or ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=address.host.strip("[]"))
        connection.request("HEAD", address.path)
        return connection.getresponse().status
    finally:
        connection.close()


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed ({error.verify_message})"
    return getattr(error, "strerror", None) or type(error).__name__


def _redis(redis: "Redis") -> Iterator[Finding]:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        redis.ping()
        times.append(1000 * (time.perf_counter() - began))
    ms, info = statistics.median(times), redis.info("server") | redis.info("memory") | redis.info("persistence")
    most = int(info.get("maxmemory") or 0)
    share = info["used_memory"] / most if most else 0.0
    of = f" of {_size(most)}" if most else ""
    yield found("redis-fine", version=info["redis_version"], ms=ms, used=_size(info["used_memory"]), of=of)
    if not info.get("aof_enabled"):
        yield found("redis-forgetful")
    for what in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(what, "ok") != "ok":
            yield found("redis-unwritten", what=what)
    if share >= FILLING:
        yield found("redis-full" if share >= FULL else "redis-filling", percent=round(100 * share))
    if not most:
        yield found("redis-boundless")
    if ms > SLOW_MS:
        yield found("redis-slow", ms=ms)


def _cache(settings: Settings) -> Iterator[Finding]:
    if not settings.separate_cache:
        return
    try:
        if check_cache(settings):
            yield found("cache-away")
            return
        with connect(settings.cache_redis_url, settings) as cache:
            info: dict[str, Any] = cache.info("memory")
    except ConfigurationError as error:
        yield _refusal("cache", error)
    except RedisError:
        yield found("cache-away")
    else:
        hoards = info.get("maxmemory") and info.get("maxmemory_policy") == "noeviction"
        yield found("cache-hoards" if hoards else "cache-fine")


def _clocks(redis: "Redis", clock: Callable[[], float]) -> Iterator[Finding]:
    before = clock()
    seconds, microseconds = redis.time()
    apart = (before + clock()) / 2 - (int(seconds) + int(microseconds) / 1e6)
    if abs(apart) > CLOCK_S:
        yield found("clock-apart", seconds=abs(apart), way="ahead" if apart > 0 else "behind")
    else:
        yield found("clock-fine")


def _api(settings: Settings) -> Iterator[Finding]:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)  # noqa: S104  # read, not bound
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"
    connection = http.client.HTTPConnection(host, settings.api_port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        yield found("api-away", address=address)
    else:
        yield found("api-fine" if status == 200 else "api-ill", address=address, status=status)
    finally:
        connection.close()


def _keys(redis: "Redis") -> Iterator[Finding]:
    usable = sum(not one.revoked_ms for one in KeyRing(redis).list())
    yield found("keys-fine", count=usable) if usable else found("keys-none")


def _keeper(redis: "Redis") -> Iterator[Finding]:
    last = redis.hget(key("sweep"), "last_ms")
    if last is None:
        yield found("keeper-none")
        return
    seconds, _ = redis.time()
    silent_s = max(0.0, int(seconds) - float(last) / 1000)
    yield found("keeper-silent" if silent_s > SILENT_S else "keeper-fine", seconds=silent_s)


def _engines(settings: Settings, states: list[EngineState]) -> Iterator[Finding]:
    ours = {model.engine for model in settings.catalogue}
    strangers = sorted(state.engine for state in states if state.slots and state.engine not in ours)
    known = {state.engine for state in states}
    for engine in sorted(ours - {state.engine for state in states if state.workers}):
        if strangers:
            yield found("workers-elsewhere", engine=engine, others=", ".join(strangers))
        elif engine not in known:
            yield found("workers-none", engine=engine, depth=0)
    for state in states:
        yield from _engine(settings, state, needed=state.engine in ours and not strangers)


def _engine(settings: Settings, state: EngineState, *, needed: bool) -> Iterator[Finding]:
    at = [str(worker.get("state")) for worker in state.workers]
    facts = {"engine": state.engine, "depth": state.depth}
    running = sum(int(worker.get("running", 0)) for worker in state.workers)
    free = state.slots - running
    if "dead" in at:
        yield found("workers-dead", **facts)
    if "ready" in at:
        yield found("workers-fine", ready=at.count("ready"), running=running, slots=state.slots, **facts)
    elif "warming" in at:
        yield found("workers-warming", **facts)
    elif state.depth or needed:
        yield found("workers-none", **facts)
    if state.paused:
        yield found("queue-paused", **facts)
    elif state.depth and state.oldest_s > STUCK_S and free > 0:
        yield found("queue-stuck", seconds=state.oldest_s, free=free, **facts)
    if state.depth >= 0.9 * settings.max_queue_depth:
        yield found("queue-crowded", most=settings.max_queue_depth, **facts)


def _webhooks(settings: Settings, measures: Measures) -> Iterator[Finding]:
    for host in sorted(settings.webhook_open_hosts):
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            yield found("webhooks-nameless", host=host)
    if measures.dead_deliveries:
        yield found("webhooks-dead", count=measures.dead_deliveries)
    if measures.backlog and measures.oldest_delivery_s > LATE_S:
        yield found("webhooks-late", count=measures.backlog, minutes=measures.oldest_delivery_s / 60)
    else:
        yield found("webhooks-fine", count=measures.backlog)


def _refusal(role: str, error: ConfigurationError) -> Finding:
    sentence, _, do = str(error).partition("; ")
    return found(f"{role}-refuses", sentence=sentence, do=f"{do[:1].upper()}{do[1:]}" or "Start one that can be used")


def _host(url: str) -> str:
    return url.partition("://")[2].rpartition("@")[2].partition("?")[0]


def _size(amount: int) -> str:
    return f"{amount / 2**20:.0f} MiB" if amount < 2**30 else f"{amount / 2**30:.1f} GiB"
