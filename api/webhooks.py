"""``/v1/jobs/{id}/deliveries`` and ``/v1/webhooks``: what receivers were told, tests, secrets."""

import time

from flask import Blueprint, Response, g, jsonify, request

from api.admission import checked_address, webhook_refusal
from api.answers import DeliveryList, SecretBody
from api.callers import accept, caller_of, for_callers
from api.errors import Problem
from api.jobs import checked, validated
from api.representations import delivery_body, instant
from api.schemas import PingRequest, RotateRequest
from api.services import services
from inferq.ids import new_id
from inferq.outbox import Delivery
from inferq.webhook_secrets import new_secret

blueprint = Blueprint("webhooks", __name__)

#: Seconds beyond an attempt's time-out that a test waits for its result.
PING_SLACK = 5.0


@blueprint.get("/v1/jobs/<job_id>/deliveries")
def list_deliveries(job_id: str) -> Response:
    """List what a job's receiver has been told, each with all attempts."""
    answer = accept(services().jobs.deliveries(caller_of(request), checked(job_id)))
    found: DeliveryList = {"object": "list", "data": [delivery_body(one) for one in answer.rest[0]]}
    return jsonify(found)


@blueprint.post("/v1/jobs/<job_id>/deliveries/<delivery_id>/redeliver")
def redeliver(job_id: str, delivery_id: str) -> Response:
    """Send a delivery again, under its old webhook-id: 202."""
    answer = accept(services().jobs.redeliver(caller_of(request), checked(job_id), delivery_id))
    if answer.outcome == "no_delivery":
        raise Problem(404, "not-found", "This job has no such delivery.")
    if answer.outcome == "disabled":
        raise webhook_refusal("disabled", "webhook.url")
    body = jsonify(delivery_body(answer.rest[0][0]))
    body.status_code = 202
    return body


@blueprint.post("/v1/webhooks/test")
def ping() -> Response:
    """Send a ``ping`` event to an address and say how that went: 200, or 202 when no keeper has sent it in time."""
    svc, caller = services(), caller_of(request)
    body = validated(caller, PingRequest, request)
    try:
        url, name = checked_address(svc, body.url, "url"), f"msg_{new_id()}_ping"
    except Problem as problem:
        raise for_callers(caller, problem) from None
    until = time.monotonic() + svc.settings.webhook_timeout + PING_SLACK
    with svc.waiters.watch(name, end_only=True) as ended:
        answer = accept(svc.jobs.ping(caller, name, url, request_id=g.request_id, trace=g.carrier))
        if answer.outcome == "no_secret":
            raise webhook_refusal("no_secret", "url")
        (delivery,) = answer.rest[0]
        while ended is not None and not delivery.ended_ms and (left := until - time.monotonic()) > 0:
            ended.wait(left)
            ended.clear()
            (delivery,) = accept(svc.jobs.ping_result(caller, name)).rest[0]
    return _told(delivery)


@blueprint.get("/v1/webhooks/test/<name>")
def ping_result(name: str) -> Response:
    """Say how a test event went: 200, or 202 while nobody knows. It is forgotten after an hour."""
    (delivery,) = accept(services().jobs.ping_result(caller_of(request), name)).rest[0]
    return _told(delivery)


def _told(delivery: Delivery) -> Response:
    body = jsonify(delivery_body(delivery))
    body.status_code = 200 if delivery.ended_ms else 202
    return body


@blueprint.post("/v1/webhooks/secrets/rotate")
def rotate() -> Response:
    """Make a new signing secret, shown once; those there were go on signing beside it for ``keep_old_s`` seconds."""
    svc, caller = services(), caller_of(request)
    body = validated(caller, RotateRequest, request)
    secret = new_secret()
    (old_end,) = accept(svc.jobs.rotate_secret(caller, secret, body.keep_old_s * 1000)).rest
    made: SecretBody = {"object": "webhook_secret", "secret": secret, "old_secrets_end_at": instant(old_end)}
    return jsonify(made)
