"""Webhooks are believed exactly when the official library believes them."""

import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from inferq_client import BadSignature, verify_webhook

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_" + "c2l4dGVlbiBieXRlcyBvciBzb21lIG1vcmU="
NOW = 1_795_571_185
BODY = json.dumps(
    {"type": "job.completed", "timestamp": "2026-11-25T01:46:25.123Z", "data": {"id": "01a2", "text": "größer"}}
).encode()


def headers(secret: str = SECRET, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return {"Webhook-Id": "msg_1", "webhook-timestamp": str(at), "WEBHOOK-SIGNATURE": signature}


def test_what_is_signed_is_believed() -> None:
    event = verify_webhook(BODY, headers(), SECRET, now=NOW + 299)
    assert (event.id, event.type, event.job_id, event.data["text"]) == ("msg_1", "job.completed", "01a2", "größer")
    assert "größer" not in repr(event)
    assert verify_webhook(BODY.decode(), headers(), [OLD, SECRET], now=NOW) == event
    both = headers() | {"WEBHOOK-SIGNATURE": f"v1a,xx v1,!! v1 {headers(OLD)['WEBHOOK-SIGNATURE']}"}
    assert verify_webhook(BODY, both, OLD, now=NOW) == event


@pytest.mark.parametrize(
    ("changes", "body", "secret", "now", "why"),
    [
        ({}, BODY + b" ", SECRET, NOW, "not signed with this secret"),
        ({}, BODY, OLD, NOW, "not signed with this secret"),
        ({"Webhook-Id": "msg_2"}, BODY, SECRET, NOW, "not signed with this secret"),
        ({"WEBHOOK-SIGNATURE": ""}, BODY, SECRET, NOW, "not signed with this secret"),
        ({"WEBHOOK-SIGNATURE": "v1,é"}, BODY, SECRET, NOW, "not signed with this secret"),
        ({}, BODY, SECRET, NOW + 301, "clock"),
        ({}, BODY, SECRET, NOW - 301, "clock"),
        ({"webhook-timestamp": "now"}, BODY, SECRET, NOW, "whole seconds"),
    ],
)
def test_what_is_not_is_refused(changes: dict[str, str], body: bytes, secret: str, now: int, why: str) -> None:
    with pytest.raises(BadSignature, match=why):
        verify_webhook(body, headers() | changes, secret, now=now)


def test_headers_that_are_missing_and_bodies_that_are_no_event() -> None:
    with pytest.raises(BadSignature, match="are needed"):
        verify_webhook(BODY, {}, SECRET)
    for body in (b"[]", b"{}", b"no json"):
        with pytest.raises(BadSignature, match="not an event"):
            verify_webhook(body, headers(body=body), SECRET, now=NOW)
    for secret in ("whsec_", "whsec_!!", ""):
        with pytest.raises(ValueError, match="whsec_"):
            verify_webhook(BODY, headers(), secret, now=NOW)
