"""Who is asking, and how a refusal of the caller reads."""

from typing import NoReturn

from flask import Request, g

from api.errors import Problem, unauthorized
from inferq.credentials import Credential
from inferq.job_store import Answer, RateState


def caller_of(request: Request) -> Credential:
    """Return the presented key; raises Problem 401 when there is none or it has not the form of one."""
    presented = request.headers.get("X-API-Key", "")
    if not presented:
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise unauthorized("Send an API key as X-API-Key or as Authorization: Bearer.")
    credential = Credential.parse(presented.strip())
    if credential is None:
        raise unauthorized("The API key is malformed; it looks like iq_<id>_<secret>.")
    return credential


def accept(answer: Answer, policy: str) -> Answer:
    """Return the answer if the store knew the caller and let it pass; raises Problem 401, 404, 410 or 429.

    ``policy`` names the rate window in the headers; they go out with every answer.
    """
    if answer.rate and "rate_headers" not in g:  # the first window a request is counted in is the one it pays for
        g.rate_headers = rate_headers(answer.rate, policy)
    match answer.outcome:
        case "unauthorized":
            raise unauthorized("The API key is unknown or revoked.")
        case "limited":
            refuse_rate(answer, policy)
        case "unknown":
            raise Problem(404, "not-found", "There is no such job.")
        case "gone":
            raise Problem(410, "gone", "The result of this job has expired or was erased.")
    return answer


def refuse_rate(answer: Answer, policy: str) -> NoReturn:
    """Raise Problem 429 naming the violated policy (draft-ietf-httpapi-ratelimit-headers: quota-exceeded)."""
    rate = answer.rate
    seconds = _seconds(rate.reset_ms) if rate else 60
    limit = rate.limit if rate else 0
    raise Problem(
        429,
        "quota-exceeded",
        f"At most {limit} {policy} a minute; the next is possible in {seconds} s.",
        headers={"Retry-After": str(seconds)},
        **{"violated-policies": [policy]},
    )


def rate_headers(rate: RateState, policy: str) -> dict[str, str]:
    """Return ``RateLimit-Policy`` and ``RateLimit``; ``t`` is seconds until some quota comes back."""
    return {
        "RateLimit-Policy": f'"{policy}";q={rate.limit};w=60',
        "RateLimit": f'"{policy}";r={rate.remaining};t={_seconds(rate.reset_ms)}',
    }


def _seconds(ms: int) -> int:
    return max(1, -(-ms // 1000))
