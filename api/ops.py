"""What operators, probes and curious clients ask: queue, health, readiness."""

import hmac
from typing import Literal

from flask import Blueprint, Response, jsonify, request

from api.answers import EngineBody, HealthBody, ModelBody, ModelList, QueueBody, ReadyBody, TenantUsageBody, WaitingBody
from api.callers import accept, caller_of, for_callers
from api.errors import STORE_RETRY_AFTER, Problem, unauthorized
from api.services import Services, services
from inferq.catalogue import Model
from inferq.errors import StoreUnavailable
from inferq.job_store import EngineState
from inferq.tenants import USAGE_DAYS, TenantUsage

blueprint = Blueprint("ops", __name__)


@blueprint.get("/v1/queue")
def queue() -> Response:
    """Depth, oldest age and ready workers of every engine."""
    svc = services()
    answer = accept(svc.jobs.overview(caller_of(request)))
    engines, running, _ = answer.rest
    found: QueueBody = {"object": "queue", "running": running, "engines": [_engine(engine) for engine in engines]}
    return jsonify(found)


@blueprint.get("/v1/models")
def models() -> Response:
    """Every model that is served, and whether a worker is ready for it."""
    svc = services()
    answer = accept(svc.jobs.overview(caller_of(request)))
    engines: dict[str, EngineState] = {engine.engine: engine for engine in answer.rest[0]}
    found: ModelList = {"object": "list", "data": [_model(svc, one, engines.get(one.engine)) for one in svc.models]}
    return jsonify(found)


@blueprint.get("/v1/usage")
def usage() -> Response:
    """The tenant's weight and limits, what it has in flight, and its jobs and tokens by day."""
    caller, days = caller_of(request), request.args.get("days", "30")
    if not days.isascii() or not days.isdigit() or len(days) > 3 or not 1 <= int(days) <= USAGE_DAYS:
        message = f"must be a whole number from 1 to {USAGE_DAYS}"
        wrong = Problem(422, "invalid-request", f"days: {message}", errors=[{"field": "days", "message": message}])
        raise for_callers(caller, wrong)
    answer = accept(services().jobs.usage(caller, int(days)))
    used: TenantUsage = answer.rest[0]
    found: TenantUsageBody = {
        "object": "usage",
        "tenant": used.tenant,
        "weight": used.weight,
        "max_priority": used.max_priority,
        "limits": used.limits,
        "in_flight": used.in_flight,
        "waiting": _by_priority(used.waiting),
        "days": used.days,
    }
    return jsonify(found)


@blueprint.get("/health")
def health() -> Response:
    """503 only when the store does not answer: what an orchestrator may act on.

    A full store is no reason to take the API away: it still answers reads and hits, and refuses submits by itself.
    """
    try:
        engines, _, full = services().jobs.overview(None).rest
    except StoreUnavailable:
        unknown: HealthBody = {"status": "unavailable", "parts": {"store": "unavailable", "workers": "unknown"}}
        answer = jsonify(unknown)
        answer.status_code = 503
        answer.headers["Retry-After"] = str(STORE_RETRY_AFTER)
        return answer
    known: HealthBody = {
        "status": "degraded" if full else "ok",
        "parts": {
            "store": "full" if full else "ok",
            "workers": "ready" if any(engine.slots for engine in engines) else "none ready",
        },
    }
    return jsonify(known)


@blueprint.get("/readyz")
def readyz() -> Response:
    """200 once a warm engine heartbeats: for people and scripts, not for restarting the API."""
    try:
        engines = services().jobs.overview(None).rest[0]
    except StoreUnavailable:
        engines = []
    ready = any(engine.slots for engine in engines)
    found: ReadyBody = {"ready": ready, "engines": [_engine(engine) for engine in engines]}
    answer = jsonify(found)
    answer.status_code = 200 if ready else 503
    return answer


@blueprint.get("/metrics")
def metrics() -> Response:
    """Metrics of all processes of this API, for who shows METRICS_TOKEN."""
    svc = services()
    token = svc.settings.metrics_token
    if token is None:
        raise Problem(403, "metrics-closed", "Metrics are shown to nobody until METRICS_TOKEN is set.")
    shown = request.headers.get("Authorization", "")
    if not hmac.compare_digest(shown.encode(), f"Bearer {token.get_secret_value()}".encode()):
        raise unauthorized("Send METRICS_TOKEN as Authorization: Bearer.")
    body, content_type = svc.metrics.exposition()
    return Response(body, content_type=content_type)


def _by_priority(waiting: dict[str, int]) -> WaitingBody:
    return {"high": waiting["high"], "normal": waiting["normal"], "low": waiting["low"]}


def _model(svc: Services, model: Model, engine: EngineState | None) -> ModelBody:
    state: Literal["ready", "warming", "paused", "unavailable"] = "unavailable"
    if engine and engine.paused:
        state = "paused"
    elif engine and engine.slots:
        state = "ready"
    elif engine and any(worker.get("state") == "warming" for worker in engine.workers):
        state = "warming"
    return {
        "id": model.name,
        "object": "model",
        "state": state,
        "base": model.engine if model.adapter else None,
        "default": model == svc.default_model,
        "slots": engine.slots if engine else 0,
        "depth": engine.depth if engine else 0,
    }


def _engine(engine: EngineState) -> EngineBody:
    return {
        "engine": engine.engine,
        "depth": engine.depth,
        "waiting": _by_priority(engine.waiting),
        "queued_tokens": engine.tokens,
        "predicted_wait_s": None if engine.wait_ms is None else engine.wait_ms / 1000,
        "oldest_s": engine.oldest_s,
        "slots": engine.slots,
        "paused": engine.paused,
        "workers": [
            {
                "state": worker.get("state"),
                "slots": int(worker.get("slots", 0)),
                "running": int(worker.get("running", 0)),
            }
            for worker in engine.workers
        ],
    }
