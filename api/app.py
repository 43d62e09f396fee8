"""The Flask application factory."""

import re
import time
from typing import Any, Final

import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import JSONProvider

from api import errors, infer, jobs, ops, webhooks
from api.schemas import MAX_BODY
from api.services import make_services, services
from inferq.ids import new_id
from inferq.settings import Settings, load_settings

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: Views whose refusals are counted by their reason.
SUBMITS: Final = frozenset({"jobs.create_job", "infer.infer"})
#: A client may send any word as a method, and must not make a series of it.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})


def create_app(settings: Settings | None = None) -> Flask:
    """Build the API; raises ConfigurationError when a setting is wrong."""
    settings = settings or load_settings()
    app = Flask("api", static_folder=None)
    app.json = OrjsonProvider(app)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.extensions["inferq"] = make_services(settings)
    errors.init_app(app)
    for room in (jobs, infer, ops, webhooks):
        app.register_blueprint(room.blueprint)
    app.before_request(_name_request)
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
    g.began = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else new_id()


def _finish(response: Response) -> Response:
    answered = g._get_current_object()  # a proxy looks itself up at every use
    response.headers.add("X-Request-ID", answered.get("request_id", ""))
    for name, value in answered.get("rate_headers", {}).items():
        response.headers.add(name, value)
    _count(request._get_current_object(), answered, response.status_code)  # type: ignore[attr-defined]
    return response


def _count(call: Request, answered: Any, status: int) -> None:
    metrics = services().metrics
    rule, endpoint = call.url_rule, call.endpoint
    # Who prefers to wait, or has a test event sent, is held on purpose: how long says nothing of us.
    held = "Prefer" in call.headers or endpoint == "webhooks.ping"
    metrics.answered(
        call.method if call.method in METHODS else "other",
        rule.rule if rule else "none",
        status,
        time.perf_counter() - answered.began,
        held=held,
    )
    if "rates" in answered:
        metrics.limited([rate.policy for rate in answered.rates], answered.get("violated"))
    if "problem" in answered and endpoint in SUBMITS:
        metrics.refused(answered.problem.reason)
