"""The line that each request writes into the log, and the span it is in a trace. Never what was asked or answered."""

from contextlib import ExitStack
from typing import Final

import structlog
from flask import Flask, Request, Response, g, request

from api.admission import Admitted
from inferq.ids import is_id
from inferq.tracing import Tracer, trace_of

log = structlog.get_logger()

#: What asks all the time whether all is well, and is worth a line only when it is not.
PROBES: Final = frozenset({"ops.health", "ops.readyz", "ops.metrics"})


def write_line(call: Request, response: Response, route: str, seconds: float) -> None:
    """Write the line of a request that took ``seconds``: a warning when it failed by our fault."""
    answered = g._get_current_object()  # a proxy looks itself up at every use
    status = response.status_code
    if status < 400 and call.endpoint in PROBES:
        return
    said = {
        "request_id": answered.request_id,
        "method": call.method if len(call.method) < 16 else "other",
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
    }
    if "tenant" in answered:
        said["tenant"] = answered.tenant
    if "admitted" in answered:
        said |= _about_job(answered.admitted)
    elif call.view_args and is_id(named := call.view_args.get("job_id", "")):
        said["job"] = named
    if "problem" in answered:
        said["code"] = answered.problem.code
    if answered.carrier:
        said["trace"] = trace_of(answered.carrier)
    if status < 500:
        log.info("request", **said)
    else:
        log.warning("request", **said)


def _about_job(admitted: Admitted) -> dict[str, str]:
    said = {"decision": admitted.decision}
    if admitted.job:
        return said | {"job": admitted.job.id, "run": admitted.job.run_id}
    return said | {"job": admitted.job_id} if admitted.job_id else said


def trace_requests(app: Flask, tracer: Tracer) -> None:
    """Make each request but probes a span, which the job, its run and its webhooks are then part of."""

    @app.before_request
    def begin() -> None:
        if request.endpoint in PROBES:
            return
        route = request.url_rule.rule if request.url_rule else "none"
        g.ending = ExitStack()
        g.span = g.ending.enter_context(
            tracer.span(
                f"{request.method} {route}",
                "server",
                g.carrier,
                http__request__method=request.method,
                http__route=route,
            )
        )
        g.carrier = g.span.carrier

    @app.after_request
    def note(response: Response) -> Response:
        if "span" in g:
            about = _about_job(g.admitted) if "admitted" in g else {}
            g.span.note(
                http__response__status_code=response.status_code,
                inferq__request_id=g.request_id,
                **{f"inferq__{name}": value for name, value in about.items()},
            )
            if response.status_code >= 500:
                g.span.failed(g.problem.code if "problem" in g else str(response.status_code))
        return response

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        if "ending" in g:
            g.ending.close()
