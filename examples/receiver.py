"""A webhook receiver: it believes only what is signed, and acts once on each event however often it is told.

Run it beside `make up` (which allows webhooks to 127.0.0.1 when asked to, see docs/webhooks.md):

    WEBHOOK_SECRET=whsec_… python examples/receiver.py

It needs flask and standardwebhooks, both in requirements-base.txt. Events it has acted on are kept in a SQLite file.
"""

import os
import sqlite3
import sys
from contextlib import closing
from typing import Any

from flask import Flask, request
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

#: Bytes of a payload; inferq's have fewer than 20,000.
MAX_BODY = 65_536


def create_app(secret: str, database: str = "events.sqlite") -> Flask:
    """Build the receiver. ``secret``: as inferq showed it once; ``database``: a file, made when it is missing."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    webhook = Webhook(secret)
    with closing(sqlite3.connect(database)) as events, events:
        events.execute("CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, type TEXT, job TEXT)")

    @app.post("/webhooks/inferq")
    def receive() -> tuple[str, int]:
        try:
            # The signature covers the bytes as they came: verify before anything is parsed.
            event = webhook.verify(request.get_data(), dict(request.headers))
        except (WebhookVerificationError, ValueError):  # ValueError: what came is no text, or no base64
            return "not signed by inferq", 401
        with closing(sqlite3.connect(database)) as events, events:
            # One transaction: the event counts as handled if, and only if, what it caused is stored.
            first = events.execute(
                "INSERT OR IGNORE INTO events VALUES (?, ?, ?)",
                (request.headers["webhook-id"], event["type"], event["data"]["id"]),
            )
            if first.rowcount:
                act_on(event)
        # Any 2xx: told again, a receiver says yes again.
        return "", 204

    return app


def act_on(event: dict[str, Any]) -> None:
    """Do what the event is for. Slow work belongs into a queue of your own: inferq waits 15 s for the answer."""
    print(f"{event['timestamp']} {event['type']} {event['data']['id']}", flush=True)


if __name__ == "__main__":
    if "WEBHOOK_SECRET" not in os.environ:
        sys.exit("receiver: set WEBHOOK_SECRET to what POST /v1/webhooks/secrets/rotate has shown")
    create_app(os.environ["WEBHOOK_SECRET"], os.environ.get("DATABASE", "events.sqlite")).run(
        port=int(os.environ.get("PORT", "8099"))
    )
