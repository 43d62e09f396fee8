"""``/openapi.json``, and the page at ``/docs`` that shows it. Needs nothing from elsewhere."""

from functools import cache
from typing import Final

import orjson
from flask import Blueprint, Response

from api import assets
from api.openapi import document

blueprint = Blueprint("docs", __name__)

#: Swagger UI has its pictures in its style sheet.
_POLICY: Final = f"{assets.OWN_FILES}; img-src 'self' data:"
_PARTS: Final = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js")


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI document."""
    return assets.cacheable(Response(_document(), mimetype="application/json"))


@blueprint.get("/docs")
def page() -> Response:
    """Return the page that shows the document."""
    return assets.page("docs", _POLICY)


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Return a file of the page."""
    return assets.asset("docs", name, _PARTS)


@cache
def _document() -> bytes:
    return orjson.dumps(document())
