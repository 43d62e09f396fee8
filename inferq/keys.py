"""Every Redis key of inferq, one sentence each. Python and Lua both take their names from this table.

A name with ``{}`` is filled with the arguments in order. :func:`lua_table` writes the same table as Lua functions, so a
script says ``K.job(id)`` and no second spelling of a key exists.
"""

import re
from collections.abc import Set
from typing import Final

#: Separates inferq from whatever else lives in the same Redis database.
PREFIX: Final = "iq:"

#: Celery's own keys live below this prefix (kombu's ``global_keyprefix``).
CELERY_PREFIX: Final = f"{PREFIX}celery:"

KEYS: Final[dict[str, str]] = {
    # -- jobs: what clients asked
    "job": PREFIX + "job:{}",  # hash: one job's status, owner, times, metadata and the run it belongs to
    "gone": PREFIX + "gone:{}",  # string: the tenant of a job whose result has expired, kept 7 days to answer 410
    "tenant_jobs": PREFIX + "tenant:{}:jobs",  # sorted set, score 0: job ids of a tenant, time-ordered by UUIDv7
    "idempotency": PREFIX + "tenant:{}:idempotency:{}",  # hash: the job an Idempotency-Key made, and of which body
    "deadlines": PREFIX + "deadlines",  # sorted set: job id by the instant (ms) at which it expires unless ended
    "retention": PREFIX + "retention",  # sorted set: ended job id by the instant (ms) at which its result is dropped
    # -- runs: what engines do
    "run": PREFIX + "run:{}",  # hash: one run's status, tag, fence, attempt, strikes, lease owner and measurements
    "request": PREFIX + "run:{}:request",  # string: JSON of prompt and parameters, dropped when the run ends well
    "output": PREFIX + "run:{}:output",  # string: the text the engine produced, stored once for all members
    "events": PREFIX + "run:{}:events",  # stream: what the running attempt has written; id: fence-bytes of text so far
    "members": PREFIX + "run:{}:members",  # sorted set: jobs attached to the run, by the tag each brought along
    "dead_letters": PREFIX + "dead-letters",  # sorted set: run given up for good by the instant (ms) of that
    "sharing": PREFIX + "sharing:{}:{}",  # string: the live run that identical requests join, by scope and fingerprint
    "leases": PREFIX + "leases",  # sorted set: running run id by the instant (ms) at which its lease ends
    "slot": PREFIX + "slot:{}",  # string: the run a claim token received, so that a replayed claim gets the same run
    # -- engines and processes
    "engines": PREFIX + "engines",  # set: names of all engines that ever queued or served a run
    "engine": PREFIX + "engine:{}",  # hash: one engine's virtual time, ready slots, measured rate, sums of what waits
    "arrivals": PREFIX + "engine:{}:arrivals",  # sorted set: waiting run id, suspects too, by the instant (ms) it came
    "flows": PREFIX + "engine:{}:flows",  # sorted set: flow (tenant/priority) by its last tag, while that is ahead
    "paces": PREFIX + "engine:{}:paces",  # hash: the tag of each waiting flow's latest run that was served or put back
    "waiting_jobs": PREFIX + "engine:{}:waiting",  # hash: jobs that wait, by flow
    "active": PREFIX + "engine:{}:active",  # hash: weight of each tenant that has jobs waiting
    "queue": PREFIX + "engine:{}:queue",  # sorted set: waiting run id by tag, the lowest is served next
    "struck": PREFIX + "engine:{}:struck",  # sorted set: waiting runs that were in one dead engine, by tag
    "solitary": PREFIX + "engine:{}:solitary",  # sorted set: waiting runs that must run alone, by tag
    "turn": PREFIX + "worker:{}:turn",  # hash: whom a worker serves now, everybody or suspects, and until when
    "aboard": PREFIX + "worker:{}:aboard",  # set: runs a worker has claimed and not given back
    "engine_workers": PREFIX + "engine:{}:workers",  # sorted set: worker id by the instant (ms) its report goes stale
    "worker": PREFIX + "worker:{}",  # hash: what a worker last said of itself, expires with its heartbeat
    "memory": PREFIX + "memory",  # hash: whether Redis was nearly full when it was last asked, and when
    "nothing": PREFIX + "nothing",  # never exists; removing it is a write that a full Redis allows
    "totals": PREFIX + "engine:{}:totals",  # hash: what has happened to an engine's jobs and runs, counted for ever
    "sweep": PREFIX + "sweep",  # hash: when a keeper last ticked and since when without a gap
    # -- clients
    "tenants": PREFIX + "tenants",  # set: names of all tenants that ever had a key, or were set
    "tenant": PREFIX
    + "tenant:{}",  # hash: a tenant's weight, highest priority, ceilings of its keys' limits, suspension
    "usage": PREFIX + "tenant:{}:usage:{}",  # hash: jobs by outcome and tokens of one day (days since 1970)
    "in_flight": PREFIX + "tenant:{}:in-flight",  # hash: jobs that have not ended, by the key that submitted them
    "amounts": PREFIX + "window:{}:{}:amounts",  # hash: what each entry of a window of amounts counts, and their total
    "api_key": PREFIX + "key:{}",  # hash: SHA-256 of the secret, tenant, limits, revocation
    "api_keys": PREFIX + "keys",  # set: ids of all API keys
    "window": PREFIX + "window:{}:{}",  # sorted set: request id by instant (ms), one sliding window of one key
    # -- webhooks
    "turns": PREFIX + "turns:{}",  # sorted set: tenant by the instant (ms) of its turn to be sent for, by standing
    "receivers": PREFIX
    + "receivers:{}:{}",  # sorted set: a tenant's receivers of a standing by their next instant (ms)
    "receiver": PREFIX + "receiver:{}",  # hash: how a receiver (tenant and origin) has answered lately; its breaker
    "due": PREFIX + "receiver:{}:due",  # sorted set: waiting delivery by the instant (ms) of its next attempt
    "sending": PREFIX + "receiver:{}:sending",  # sorted set: delivery under way by the instant (ms) its lease ends
    "delivery": PREFIX + "delivery:{}",  # hash: one event for one address, its payload and what became of it
    "attempts": PREFIX + "delivery:{}:attempts",  # hash: JSON of each attempt, by its number
    "undelivered": PREFIX + "undelivered",  # sorted set: delivery that has not ended by the instant (ms) it was made
    "outbox_totals": PREFIX + "outbox:totals",  # hash: deliveries by how they ended, counted for ever
    "dead_deliveries": PREFIX + "dead-deliveries",  # sorted set: delivery given up by the instant (ms) of that
    # Not below tenant:, so that an ACL can keep workers from it (deploy/acl).
    "webhook_secrets": PREFIX + "webhook-secrets:{}",  # sorted set: secret by the instant (ms) it ends, or inf
    "disabled": PREFIX + "tenant:{}:disabled-webhooks",  # sorted set: address that said 410 Gone, by when (ms)
    # -- completions (on CACHE_REDIS_URL when that is another server)
    "cache": PREFIX + "cache:{}:{}",  # string: JSON of a completion, by scope (tenant or "shared") and fingerprint
    # -- channels (nothing stored)
    "transitions": PREFIX + "transitions",  # pub/sub: "<job id> <status> <attempt>" for every change of a job
    "appended": PREFIX + "appended",  # pub/sub: "<run id> <run id> ..." whose streams have got more
    "work": PREFIX + "engine:{}:work",  # pub/sub: a run has begun to wait; a worker's idle slots claim at once
    "aborts": PREFIX + "engine:{}:aborts",  # pub/sub: run id that the worker holding it should stop now
    "outbox": PREFIX + "outbox",  # pub/sub: a delivery can be tried now
    # -- Celery
    "bells": CELERY_PREFIX
    + "generate.{}",  # list: Celery's messages of one engine's queue, all of them without content
    "deliver_bells": CELERY_PREFIX + "webhooks",  # list: Celery's messages to keepers, without content
}


def key(name: str, *parts: str) -> str:
    """Return the Redis key called ``name``; raises KeyError for a name that is not in the table."""
    return KEYS[name].format(*parts)


def names_in(source: str) -> set[str]:
    """Return the names of the keys that Lua code uses."""
    return set(re.findall(r"\bK\.(\w+)", source))


def lua_table(source: str, defined: Set[str] = frozenset()) -> str:
    """Return Lua that gives ``K`` what ``source`` uses: functions for keys with arguments, else strings.

    ``defined``: names that ``K`` has already; without any it is made.
    """
    entries = [(name, _lua_value(KEYS[name])) for name in sorted(names_in(source) - defined)]
    if not defined:
        return "local K = {" + ", ".join(f"{name}={value}" for name, value in entries) + "}\n"
    return "".join(f"K.{name} = {value}\n" for name, value in entries)


def _lua_value(pattern: str) -> str:
    pieces = [f"'{piece}'" for piece in pattern.split("{}")]
    if len(pieces) == 1:
        return pieces[0]
    names = ["a", "b", "c"][: len(pieces) - 1]
    body = pieces[0]
    for argument, piece in zip(names, pieces[1:], strict=True):
        body += f"..{argument}" + ("" if piece == "''" else f"..{piece}")
    return f"function({','.join(names)}) return {body} end"
