"""The API without its metrics, to see what they cost."""

from dataclasses import replace
from typing import Any

from flask import Flask

from api.app import create_app as create_counted
from api.bootstrap import store_bootstrap_key
from api.metrics import ApiMetrics
from api.services import services
from inferq.settings import load_settings


class Silent(ApiMetrics):
    """Counts nothing of a request."""

    def answered(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def admitted(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


def create_app() -> Flask:
    """Build the application; it runs under the same gunicorn settings as the API."""
    settings = load_settings()
    app = create_counted(settings)
    app.extensions["inferq"] = replace(services(app), metrics=Silent(settings.catalogue.names))
    store_bootstrap_key(services(app).keys, settings)
    return app
