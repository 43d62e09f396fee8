"""Everything ``python -m inferq doctor`` can say: what is the matter, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """How bad it is. Only a problem makes the doctor's exit status 1."""

    FINE = "fine"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found. ``name``: the same for the same matter; its first word is what was looked at."""

    name: str
    level: Level
    says: str
    do: str

    @property
    def check(self) -> str:
        """What was looked at."""
        return self.name.partition("-")[0]


_F, _W, _P = Level.FINE, Level.WARNING, Level.PROBLEM

SAYINGS: Final[dict[str, tuple[Level, str, str]]] = {
    "settings-fine": (_F, "The settings can be read; jobs go to engine {engines}.", ""),
    "settings-wrong": (_P, "{sentence}.", "Correct it in the environment or in .env."),
    # -- the jobs' Redis
    "redis-fine": (_F, "Redis {version} answers in {ms:.1f} ms and has used {used}{of}.", ""),
    "redis-away": (
        _P,
        "No Redis answers at {address}.",
        "Start it, or set REDIS_URL; until then nothing is accepted and nothing runs.",
    ),
    "redis-refuses": (_P, "{sentence}.", "{do}."),
    "redis-fails": (
        _P,
        "Redis failed while it was looked at ({why}).",
        "Read its log; what else is wrong can only be seen when it answers.",
    ),
    "redis-forgetful": (
        _W,
        "Redis keeps no append-only file: when it ends, accepted jobs are lost.",
        "Set appendonly yes (docs/durability.md).",
    ),
    "redis-unwritten": (
        _P,
        "Redis could not write to its disk ({what}): it may refuse writes, and what it accepts may be lost.",
        "Look into its log and at its disk; free space or mend the directory.",
    ),
    "redis-full": (
        _P,
        "Redis has used {percent} % of its maxmemory: submits are refused from 85 % on.",
        "Raise maxmemory, lower RESULT_TTL or MAX_QUEUE_DEPTH, or give completions a server of their own.",
    ),
    "redis-filling": (
        _W,
        "Redis has used {percent} % of its maxmemory; from 85 % on submits are refused.",
        "Raise maxmemory in time, or lower RESULT_TTL.",
    ),
    "redis-boundless": (
        _W,
        "Redis has no maxmemory: it grows until the machine kills it, and nobody is refused before.",
        "Set maxmemory below the machine's memory, with room for rewriting its file (docs/operations.md).",
    ),
    "redis-slow": (
        _W,
        "Redis takes {ms:.0f} ms to answer; each request of a client takes at least as long.",
        "Bring it nearer, or see what keeps it busy: redis-cli --latency, SLOWLOG GET.",
    ),
    # -- the Redis of completions, where it is another
    "cache-fine": (_F, "Completions have a Redis of their own, which answers.", ""),
    "cache-away": (
        _W,
        "The Redis of completions does not answer: every request is a miss.",
        "Start it, or set CACHE_REDIS_URL.",
    ),
    "cache-refuses": (_P, "{sentence}.", "{do}."),
    "cache-hoards": (
        _W,
        "The Redis of completions evicts nothing (maxmemory-policy noeviction): once full it keeps no new ones.",
        "Set maxmemory-policy allkeys-lfu there.",
    ),
    # -- clocks
    "clock-fine": (_F, "This machine and Redis agree about the time.", ""),
    "clock-apart": (
        _W,
        "This machine's clock is {seconds:.0f} s {way} of Redis's: receivers of webhooks and tokens go by it.",
        "Let NTP set the clocks of all machines.",
    ),
    # -- the API
    "api-fine": (_F, "The API answers at {address}.", ""),
    "api-away": (
        _W,
        "No API answers at {address}.",
        "Start it (make up), or set API_HOST and API_PORT to where it is; on another machine this may be as it should.",
    ),
    "api-ill": (
        _P,
        "The API at {address} answers {status} to /health.",
        "Compare its REDIS_URL with the one here, and read its log.",
    ),
    "keys-fine": (_F, "API keys that can be used: {count}.", ""),
    "keys-none": (
        _W,
        "There is no API key that can be used: nobody can submit.",
        "Make one: python -m inferq keys create TENANT.",
    ),
    # -- workers and their engines
    "workers-fine": (
        _F,
        "{engine}: {ready} ready, {running} of {slots} slots busy, {depth} runs waiting.",
        "",
    ),
    "workers-none": (
        _P,
        "No worker serves {engine}, and {depth} runs wait for it.",
        "Start one (make up; docs/operations.md), with the same REDIS_URL and model, and read its log if it ends.",
    ),
    "workers-elsewhere": (
        _P,
        "Jobs from here go to {engine}, but workers serve {others}.",
        "Give the API and the workers the same MODELS or MODEL_NAME.",
    ),
    "workers-warming": (
        _W,
        "The workers of {engine} are warming: none takes runs yet.",
        "Wait: loading a model takes minutes, downloading it longer. Read the worker's log if it does not end.",
    ),
    "workers-dead": (
        _P,
        "A worker's engine for {engine} has died.",
        "Its supervisor should start it again; read its log for the reason, and docs/runbook.md.",
    ),
    "queue-paused": (_W, "{engine} is paused: jobs are accepted and wait.", "python -m inferq resume {engine}."),
    "queue-stuck": (
        _P,
        "{depth} runs wait for {engine}, the oldest for {seconds:.0f} s, although {free} slots are free.",
        "Bells are not heard: see that a keeper runs, and restart the worker if that does not help.",
    ),
    "queue-crowded": (
        _W,
        "{depth} runs wait for {engine}; at {most} submits are refused.",
        "Add workers, or raise MAX_QUEUE_DEPTH.",
    ),
    "queue-dead": (
        _W,
        "{count} runs were given up for good.",
        "See why: python -m inferq dead-letters list; ask again with dead-letters requeue RUN.",
    ),
    # -- keepers
    "keeper-fine": (_F, "A keeper ticked {seconds:.0f} s ago.", ""),
    "keeper-none": (
        _P,
        "No keeper has ever ticked: deadlines, rescues, retention and webhooks stand still.",
        "Start one: celery -A workers.keeper worker --pool=threads.",
    ),
    "keeper-silent": (
        _P,
        "The last keeper ticked {seconds:.0f} s ago: deadlines, rescues, retention and webhooks stand still.",
        "Start one: celery -A workers.keeper worker --pool=threads; read the log of the one that ended.",
    ),
    # -- webhooks
    "webhooks-fine": (_F, "Deliveries that wait or are under way: {count}.", ""),
    "webhooks-late": (
        _W,
        "{count} deliveries have not arrived, the oldest for {minutes:.0f} minutes.",
        "GET /v1/jobs/ID/deliveries says what its receiver answered. If all are late, see whether keepers get out.",
    ),
    "webhooks-dead": (
        _W,
        "{count} deliveries were given up for good.",
        "See why: python -m inferq webhooks dead; webhooks retry ID or webhooks drop ID.",
    ),
    "webhooks-nameless": (
        _W,
        "{host} of WEBHOOK_ALLOWED_HOSTS cannot be resolved here.",
        "Correct the name, or the name server of this machine.",
    ),
    "webhooks-refused": (
        _P,
        "No webhook is sent to this address: it {why}.",
        "Use another, or open its host with WEBHOOK_ALLOWED_HOSTS.",
    ),
    "webhooks-unreachable": (
        _P,
        "The receiver cannot be reached from here: {why}",
        "Try from the keeper's machine, and look at its way out: name server, firewall, certificates.",
    ),
    "webhooks-reachable": (_F, "The receiver answers {status}{note}", ""),
}


def found(name: str, **facts: object) -> Finding:
    """Return the finding called ``name``; raises KeyError for one that is not in the table."""
    level, says, do = SAYINGS[name]
    return Finding(name=name, level=level, says=says.format(**facts), do=do.format(**facts))
