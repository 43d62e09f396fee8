"""Bodies that clients send, validated by pydantic; every complaint names its field."""

import json
from typing import Annotated, Literal, TypeVar

from flask import Request
from pydantic import Field, ValidationError

from api.errors import Problem
from inferq.requests import MAX_PROMPT_CHARS, GenerationRequest, Strict
from inferq.webhooks import ENDS, MAX_URL, Event

#: Bytes of a request body.
MAX_BODY = 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=604_800)]


class Deadline(Strict):
    """Instants after which a job is not worth running, in seconds from its submission."""

    start_within_s: Seconds | None = None
    total_s: Seconds | None = None


class Webhook(Strict):
    """Where to tell of the job, and what of it."""

    url: str = Field(min_length=1, max_length=MAX_URL)
    events: list[Event] = Field(default=list(ENDS), min_length=1, max_length=20)
    include_output: bool = False


class JobRequest(GenerationRequest):
    """The body of ``POST /v1/jobs``: a generation request and what is to be done around it."""

    priority: Literal["low", "normal", "high"] = "normal"
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        default=None, max_length=16
    )
    deadline: Deadline | None = None
    webhook: Webhook | None = None
    result_ttl_s: int | None = Field(default=None, ge=1, le=2_592_000)
    stream: bool = Field(default=False, description="whether its text can be followed while it is written")


class PingRequest(Strict):
    """The body of ``POST /v1/webhooks/test``."""

    url: str = Field(min_length=1, max_length=MAX_URL)


class RotateRequest(Strict):
    """The body of ``POST /v1/webhooks/secrets/rotate``."""

    keep_old_s: int = Field(default=86_400, ge=0, le=2_592_000)


class InferRequest(Strict):
    """The body of ``POST /infer``."""

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)
    max_tokens: int = Field(default=256, ge=1, le=1_000_000)


Body = TypeVar("Body", bound=Strict)


def parse_body(request: Request, model: type[Body]) -> Body:
    """Validate the request's body; raises Problem 400 (not JSON), 413, 415 or 422 (names each wrong field)."""
    if request.mimetype != "application/json":
        raise Problem(415, "unsupported-media-type", "Send the body as Content-Type: application/json.")
    if (request.content_length or 0) > MAX_BODY:
        raise Problem(413, "content-too-large", f"The body may have at most {MAX_BODY} bytes.")
    raw = request.get_data(cache=False)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise _problem(error) from None


def _problem(error: ValidationError) -> Problem:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return Problem(400, "invalid-json", f"The body is not valid JSON: {found[0]['msg']}.")
    errors = [{"field": _path(item["loc"]), "message": item["msg"].removeprefix("Value error, ")} for item in found]
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    where = f"{first['field']}: " if first["field"] else ""
    # A client that sends 10,000 wrong items need not read 10,000 complaints.
    return Problem(422, "invalid-request", f"{where}{first['message']}{more}", errors=errors[:20])


def _path(location: tuple[int | str, ...]) -> str:
    # A field's name may be the client's own text: bounded, and safe to print.
    return json.dumps(".".join(str(part) for part in location))[1:-1][:200]
