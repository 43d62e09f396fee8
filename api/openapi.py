"""The OpenAPI 3.1 document, made from the table of routes and the models that validate and describe bodies."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from api.answers import JobBody, ProblemBody
from api.jobs import MOST_READ_WAIT
from api.operations import OPERATIONS, Answer, Operation
from api.submissions import MOST_SUBMIT_WAIT
from inferq import __version__
from inferq.jobs import JobStatus
from inferq.tenants import USAGE_DAYS

_ABOUT: Final = """A durable, fair, cached job queue in front of a warm LLM engine.

Submit a prompt, get `202` with a job in milliseconds; poll it, hold a request open with `Prefer: wait`, or be told by
a signed webhook. Every error is `application/problem+json` (RFC 9457) with a `code` for programs; a method that a path
does not have is `405 method-not-allowed`. Every answer has an `X-Request-ID`; one that is sent is kept.
"""

_SECURITY: Final[Mapping[str, list[dict[str, list[str]]]]] = {
    "callers": [{"ApiKey": []}, {"Bearer": []}],
    "everybody": [],
    "metrics": [{"MetricsToken": []}],
}

_SCHEMES: Final = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "iq_<id>_<secret>"},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token (JWT) where they are taken."},
    "MetricsToken": {"type": "http", "scheme": "bearer", "description": "METRICS_TOKEN of the operator."},
}

#: Codes that every caller may meet, by status.
_EVERY_CALLER: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("unauthorized",),
    403: ("tenant-unknown", "tenant-suspended"),
    429: ("quota-exceeded",),
    500: ("internal-error",),
    503: ("store-unavailable", "keys-unavailable"),
}
_EVERYBODY: Final[Mapping[int, tuple[str, ...]]] = {500: ("internal-error",)}

#: What a status means when it is a problem.
_MEANINGS: Final[Mapping[int, str]] = {
    400: "Cannot be read.",
    401: "Nobody we know: no key or token, or one that is not good.",
    403: "Somebody we know, who may not.",
    404: "Not there, or another tenant's.",
    409: "Not in this state.",
    410: "Its result has expired or was erased.",
    413: "Too long.",
    415: "Not JSON.",
    422: "Something in it is wrong; `errors` names it.",
    426: "Only for a WebSocket.",
    429: "A limit of this key or subject is used up.",
    500: "Our mistake.",
    501: "Not by this server.",
    502: "The engine failed.",
    503: "Not now; see `Retry-After`.",
    504: "Not in time, or not in the cache.",
}

#: Headers that come with a problem.
_PROBLEM_HEADERS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After", "RateLimit", "RateLimit-Policy"),
    503: ("Retry-After",),
    504: ("Cache-Status?",),
}


#: Ends the names of headers that need not come.
_MAYBE: Final = ".maybe"


def _text(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"} | schema}


_HEADERS: Final[Mapping[str, dict[str, Any]]] = {
    "Location": _text("Path of the job.", examples=["/v1/jobs/01a20a0d-5622-7cb3-a198-596cd62f6c30"]),
    "Retry-After": {
        "description": "Seconds after which it is worth asking again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit": _text("What is left (draft-ietf-httpapi-ratelimit-headers).", examples=['"requests";r=99;t=60']),
    "RateLimit-Policy": _text("What is allowed.", examples=['"requests";q=100;w=60']),
    "ETag": _text("Status and attempt, not the position.", examples=['W/"completed.1"']),
    "Cache-Status": _text("RFC 9211: hit; fwd=miss, perhaps collapsed; fwd=request.", examples=["inferq; hit"]),
    "Age": {"description": "Of the cached completion, in seconds.", "schema": {"type": "integer", "minimum": 0}},
    "Idempotency-Replayed": _text("An earlier call with this Idempotency-Key made the job.", enum=["true"]),
    "Preference-Applied": _text("The wait that was granted (RFC 7240).", examples=["wait=30"]),
    "WWW-Authenticate": _text("RFC 6750.", examples=['Bearer realm="inferq"']),
    "X-Request-ID": _text("Names the call in logs; as it was sent, or a new one."),
}


def _parameter(where: str, name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "description": description, "schema": schema}


_PARAMETERS: Final[Mapping[str, dict[str, Any]]] = {
    "job_id": _parameter("path", "job_id", "The job.", type="string", format="uuid"),
    "delivery_id": _parameter("path", "delivery_id", "The delivery.", type="string"),
    "name": _parameter("path", "name", "The test event.", type="string"),
    "status": _parameter("query", "status", "Only jobs of that status.", type="string", enum=list(JobStatus)),
    "limit": _parameter("query", "limit", "Jobs of a page.", type="integer", minimum=1, maximum=100, default=20),
    "cursor": _parameter("query", "cursor", "`next_cursor` of the page before.", type="string", format="uuid"),
    "days": _parameter(
        "query", "days", "Days to look back, today included.",
        type="integer", minimum=1, maximum=USAGE_DAYS, default=30,
    ),
    "Prefer (submit)": _parameter(
        "header", "Prefer", f"`wait=N`: hold the answer up to N seconds, {MOST_SUBMIT_WAIT} at most.",
        type="string", examples=["wait=30"],
    ),
    "Prefer (read)": _parameter(
        "header", "Prefer", f"`wait=N`: hold the answer up to N seconds, {MOST_READ_WAIT} at most.",
        type="string", examples=["wait=30"],
    ),
    "Last-Event-ID": _parameter("header", "Last-Event-ID", "The id of the last event you have.", type="string"),
    "last_event_id": _parameter("query", "last_event_id", "The same, for who cannot send headers.", type="string"),
    "If-None-Match": _parameter("header", "If-None-Match", "The ETag you have.", type="string"),
    "Idempotency-Key": _parameter(
        "header", "Idempotency-Key", "A name for this submission: sent again, it is the same job.",
        type="string", pattern='^"?[\\x21\\x23-\\x7e]{1,255}"?$',
    ),
    "Cache-Control": _parameter(
        "header", "Cache-Control", "no-cache, no-store, only-if-cached (RFC 9111).", type="string"
    ),
}  # fmt: skip

#: Headers of what receivers are sent (Standard Webhooks 1.0).
_TOLD_HEADERS: Final = (
    _parameter("header", "webhook-id", "The same however often it is told: act on it once.", type="string"),
    _parameter("header", "webhook-timestamp", "When it was signed, in seconds since 1970.", type="string"),
    _parameter(
        "header", "webhook-signature", "`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; one for each secret.",
        type="string",
    ),
    _parameter("header", "X-Request-ID", "Of the call that submitted the job, or sent the test event.", type="string"),
)  # fmt: skip
#: What a receiver's answer brings about.
_RECEIVED: Final = {
    "2XX": {"description": "Received. Within WEBHOOK_TIMEOUT, 15 s where the operator has set nothing else."},
    "410": {
        "description": "Nothing more, please: the address is disabled for the tenant until it answers a test event."
    },
    "default": {"description": "Not received, as with no answer at all: another attempt later, ten in three days."},
}


@cache
def document() -> dict[str, Any]:
    """Return the document; the same every time."""
    described = _models()
    names, schemas = TypeAdapter.json_schemas(
        [(name, mode, TypeAdapter(model)) for name, (mode, model) in described.items()],
        ref_template="#/components/schemas/{model}",
    )
    shapes = {name: names[name, mode] for name, (mode, _) in described.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in OPERATIONS.items():
        method, path = route.split(" ")
        paths.setdefault(path, {})[method.lower()] = _operation(path, operation, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "inferq", "version": __version__, "description": _ABOUT, "license": {"name": "MIT"}},
        "tags": [
            {"name": "jobs", "description": "Submit, read, cancel, erase."},
            {"name": "webhooks", "description": "What receivers are told, and how it is signed."},
            {"name": "service", "description": "The queue, usage, health."},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "headers": {
                name + suffix: header | {"required": not suffix}
                for name, header in _HEADERS.items()
                for suffix in ("", _MAYBE)
            },
            "parameters": {_key(name): _required(item) for name, item in _PARAMETERS.items()},
            "securitySchemes": _SCHEMES,
        },
    }


def _models() -> dict[str, tuple[Any, Any]]:
    """Return every model by name, with whether it validates what comes or describes what goes."""
    found: dict[str, tuple[Any, Any]] = {"ProblemBody": ("serialization", ProblemBody)}
    for operation in OPERATIONS.values():
        if operation.body:
            found[operation.body.__name__] = ("validation", operation.body)
        for answer in operation.answers.values():
            for body in (answer.body, *answer.instead.values()):
                if body is not None:
                    found[str(body)] = ("serialization", body)
        if operation.tells:
            found[str(operation.tells[1])] = ("serialization", operation.tells[1])
    return found


def _operation(path: str, operation: Operation, shapes: Mapping[str, Any]) -> dict[str, Any]:
    in_path = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    problems = dict(_EVERY_CALLER if operation.open_to == "callers" else _EVERYBODY)
    for status, codes in operation.problems.items():
        problems[status] = (*codes, *problems.get(status, ()))
    said = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "security": _SECURITY[operation.open_to],
        "responses": dict(_responses(operation, problems, shapes)),
    }
    if operation.detail:
        said["description"] = operation.detail
    if in_path or operation.takes:
        said["parameters"] = [
            {"$ref": f"#/components/parameters/{_key(name)}"} for name in (*in_path, *operation.takes)
        ]
    if operation.body:
        examples = {name: {"value": dict(example)} for name, example in operation.examples.items()}
        content = {"schema": shapes[operation.body.__name__], "examples": examples}
        said["requestBody"] = {"required": True, "content": {"application/json": content}}
    if operation.tells:
        said["callbacks"] = {"webhook": _callback(*operation.tells, shapes)}
    return said


def _callback(pointer: str, body: Any, shapes: Mapping[str, Any]) -> dict[str, Any]:
    told = {
        "summary": "What the receiver is sent",
        "parameters": [{**header, "required": header["name"] != "X-Request-ID"} for header in _TOLD_HEADERS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": shapes[str(body)]}}},
        "responses": _RECEIVED,
    }
    return {f"{{$request.body#{pointer}}}": {"post": told}}


def _responses(
    operation: Operation, problems: Mapping[int, tuple[str, ...]], shapes: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    counted = ("RateLimit", "RateLimit-Policy") if operation.open_to == "callers" else ()
    for status, answer in operation.answers.items():
        said = {"description": answer.means, "headers": _headers((*answer.headers, *counted))}
        if answer.body is not None:
            others = {media: {"schema": shapes[str(body)]} for media, body in answer.instead.items()}
            said["content"] = {answer.media: _content(answer, shapes), **others}
        if answer.body is JobBody and operation.leads_to:
            said["links"] = _links(operation, "/id")
        if answer.body is not None and "Location" in answer.headers and answer.body is not JobBody:
            said["links"] = _links(operation, "/job_id")
        yield str(status), said
    for status, codes in sorted(problems.items()):
        if status in operation.answers:
            continue
        only = {"properties": {"code": {"enum": list(codes)}, "status": {"const": status}}} if codes else {}
        schema = {"allOf": [{"$ref": "#/components/schemas/ProblemBody"}, *([only] if only else [])]}
        yield (
            str(status),
            {
                "description": _MEANINGS[status],
                "headers": _headers(_PROBLEM_HEADERS.get(status, ())),
                "content": {"application/problem+json": {"schema": schema}},
            },
        )


def _content(answer: Answer, shapes: Mapping[str, Any]) -> dict[str, Any]:
    said = {"schema": shapes[str(answer.body)]}
    return said | {"example": dict(answer.example)} if answer.example else said


def _links(operation: Operation, pointer: str) -> dict[str, Any]:
    return {
        name: {"operationId": name, "parameters": {"job_id": f"$response.body#{pointer}"}}
        for name in operation.leads_to
    }


def _headers(names: tuple[str, ...]) -> dict[str, Any]:
    """Return references to headers; one whose name ends in ``?`` need not come."""
    return {
        name.rstrip("?"): {"$ref": f"#/components/headers/{name.replace('?', _MAYBE)}"}
        for name in (*names, "X-Request-ID")
    }


def _required(parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {**parameter, "required": True} if parameter["in"] == "path" else dict(parameter)


def _key(name: str) -> str:
    return name.replace(" ", "").replace("(", "-").replace(")", "")
