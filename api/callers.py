"""Who is asking, and how a refusal of the caller reads."""

from collections.abc import Sequence
from typing import Final

from flask import Request, g

from api.errors import Problem, busy, unauthorized
from api.services import services
from inferq.credentials import Caller, Credential
from inferq.ids import new_id
from inferq.job_store import Answer, RateState

#: The policy that bounds jobs in flight; the others are windows of a minute.
JOBS: Final = "jobs"
#: Seconds after which a key with too many jobs in flight may look again.
JOBS_RETRY_AFTER: Final = 1


#: What a caller hears whose key or token is good, and who may not call, by the script's reason: code and detail.
STRANGERS: Final = {
    "tenant_unknown": ("tenant-unknown", "The tenant that the token names is not known here; an operator adds it."),
    "tenant_suspended": ("tenant-suspended", "The tenant is suspended; only the operator can change that."),
}


def caller_of(request: Request) -> Caller:
    """Return the presented key, or whom a token names; raises Problem 401 when there is none or it cannot be one."""
    presented, bearer = request.headers.get("X-API-Key", ""), False
    if not presented:
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer"
        if not bearer:
            raise unauthorized("Send an API key as X-API-Key or as Authorization: Bearer.")
    credential = Credential.parse(presented.strip())
    if credential is not None:
        return credential
    tokens = services().tokens
    if bearer and tokens is not None:
        return tokens.verify(presented.strip())
    raise unauthorized("The API key is malformed; it looks like iq_<id>_<secret>.")


def for_callers(caller: Caller, problem: Problem) -> Problem:
    """Return ``problem``, found before anybody asked who calls; a stranger hears 401 instead, by raising it."""
    accept(services().jobs.identify(caller, request=new_id(), window="polls"))
    return problem


def accept(answer: Answer) -> Answer:
    """Return the answer if the store knew the caller and let it pass; raises Problem 401, 404, 410, 429 or 503.

    What the caller has left under each policy that was consulted goes out with every answer.
    """
    request = g._get_current_object()  # a proxy looks itself up at every use
    if (
        answer.rates and "rate_headers" not in request
    ):  # the first window a request is counted in is the one it pays for
        request.rates = answer.rates
        request.rate_headers = rate_headers(answer.rates)
        request.tenant = answer.tenant
    match answer.outcome:
        case "unauthorized" if answer.rest:
            raise Problem(403, *STRANGERS[answer.rest[0]])
        case "unauthorized":
            raise unauthorized("The API key is unknown or revoked.")
        case "limited":
            request.rates, request.violated = answer.rates, answer.rest[0]
            request.rate_headers = rate_headers(answer.rates)
            raise rate_refusal(answer.rates, answer.rest[0])
        case "unknown":
            raise Problem(404, "not-found", "There is no such job.")
        case "gone":
            raise Problem(410, "gone", "The result of this job has expired or was erased.")
        case "no_memory":
            raise busy("The job store is nearly full; reads and cached answers go on.", -1, "memory_full")
    return answer


def rate_refusal(rates: Sequence[RateState], policy: str) -> Problem:
    """Return Problem 429 naming the violated policy (draft-ietf-httpapi-ratelimit-headers: quota-exceeded)."""
    rate = next(one for one in rates if one.policy == policy)
    if policy == JOBS:
        seconds = JOBS_RETRY_AFTER
        detail = f"At most {rate.limit} jobs of this key may be in flight; wait for one to end, or cancel one."
    else:
        seconds = _seconds(rate.reset_ms)
        detail = f"At most {rate.limit} {policy} a minute; the next are possible in {seconds} s."
    return Problem(
        429,
        "quota-exceeded",
        detail,
        headers={"Retry-After": str(seconds)},
        reason=policy,
        **{"violated-policies": [policy]},
    )


def rate_headers(rates: Sequence[RateState]) -> dict[str, str]:
    """Return ``RateLimit-Policy`` and ``RateLimit``; ``t`` is seconds until some quota comes back."""
    return {
        "RateLimit-Policy": ", ".join(_policy(rate) for rate in rates),
        "RateLimit": ", ".join(_state(rate) for rate in rates),
    }


def _policy(rate: RateState) -> str:
    if rate.policy == JOBS:
        return f'"{JOBS}";q={rate.limit};qu="concurrent-requests"'
    unit = ';qu="tokens"' if rate.policy == "tokens" else ""
    return f'"{rate.policy}";q={rate.limit}{unit};w=60'


def _state(rate: RateState) -> str:
    when = "" if rate.policy == JOBS else f";t={_seconds(rate.reset_ms)}"
    return f'"{rate.policy}";r={rate.remaining}{when}'


def _seconds(ms: int) -> int:
    return max(1, -(-ms // 1000))
