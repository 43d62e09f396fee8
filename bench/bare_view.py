"""The yardstick for a cache hit: a Flask view that does one Redis round trip and nothing else."""

from flask import Flask, Response, current_app

from inferq.redis_client import job_redis
from inferq.settings import load_settings

#: The key the view reads; as long as a cached completion.
KEY = "bench:bare"


def create_app() -> Flask:
    """Build the application; it runs under the same gunicorn settings as the API."""
    app = Flask("bare", static_folder=None)
    app.extensions["redis"] = job_redis(load_settings())
    app.post("/bare")(bare)
    return app


def bare() -> Response:
    """Answer with what Redis has."""
    return Response(current_app.extensions["redis"].get(KEY), mimetype="application/json")
