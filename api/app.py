"""The Flask application factory."""

import re
import time
from typing import Any, Final

import orjson
from flask import Flask, Response, g, request
from flask.json.provider import JSONProvider

from api import access, console, docs, errors, events, infer, jobs, ops, submissions, webhooks
from api.schemas import MAX_BODY
from api.services import make_services, services
from inferq.ids import new_id
from inferq.settings import Settings, load_settings
from inferq.tracing import Tracer, carrier_of, make_tracer

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: Views whose refusals are counted by their reason.
SUBMITS: Final = frozenset({"submissions.create_job", "infer.infer"})


#: Views that hold a request although it does not say that it prefers to wait.
HELD: Final = frozenset({"webhooks.ping", "events.socket"})


def create_app(settings: Settings | None = None, tracer: Tracer | None = None) -> Flask:
    """Build the API; raises ConfigurationError when a setting is wrong. ``tracer``: by default as ``TRACING`` says."""
    settings = settings or load_settings()
    app = Flask("api", static_folder=None)
    app.json = OrjsonProvider(app)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # an empty id is no reason to send a client elsewhere
    app.extensions["inferq"] = svc = make_services(settings, tracer or make_tracer(settings, "api"))
    errors.init_app(app)
    for room in (submissions, jobs, events, infer, ops, webhooks, docs, console):
        app.register_blueprint(room.blueprint)
    app.before_request(_name_request)
    if svc.tracer.active:
        access.trace_requests(app, svc.tracer)
    app.after_request(_finish)
    return app


class OrjsonProvider(JSONProvider):
    """JSON of answers by orjson: a few microseconds instead of fifty for a job."""

    def dumps(self, obj: Any, **_: Any) -> str:
        """Return ``obj`` as JSON."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Return what the JSON text ``s`` says."""
        return orjson.loads(s)


def _name_request() -> None:
    asked, environ = g._get_current_object(), request.environ  # a proxy looks itself up at every use
    asked.began = time.perf_counter()
    given = environ.get("HTTP_X_REQUEST_ID", "")
    asked.request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
    asked.carrier = carrier_of(environ.get("HTTP_TRACEPARENT"), environ.get("HTTP_TRACESTATE"))


def _finish(response: Response) -> Response:
    answered = g._get_current_object()  # a proxy looks itself up at every use
    response.headers.add("X-Request-ID", answered.get("request_id", ""))
    for name, value in answered.get("rate_headers", {}).items():
        response.headers.add(name, value)
    call = request._get_current_object()  # type: ignore[attr-defined]  # as above
    refused = "problem" in answered and call.endpoint in SUBMITS
    # Who prefers to wait, or has a test event sent, is held on purpose: how long says nothing of us.
    held = "HTTP_PREFER" in call.environ or call.endpoint in HELD
    route, seconds = call.url_rule.rule if call.url_rule else "none", time.perf_counter() - answered.began
    services().metrics.answered(
        call.method,
        route,
        response.status_code,
        None if held else seconds,
        answered.get("rates", ()),
        answered.get("violated"),
        answered.problem.reason if refused else None,
    )
    access.write_line(call, response, route, seconds)
    return response
