"""``/openapi.json``, and the page at ``/docs`` that shows it. Needs nothing from elsewhere."""

from functools import cache
from importlib.resources import files
from typing import Final

import orjson
from flask import Blueprint, Response, abort, request

from api.openapi import document

blueprint = Blueprint("docs", __name__)

#: What the page may load: its own files, and answers of this API. Swagger UI gives elements styles of their own.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_PAGE: Final = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js")


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI document."""
    return _cacheable(Response(_document(), mimetype="application/json"))


@blueprint.get("/docs")
def page() -> Response:
    """Return the page that shows the document."""
    answer = _cacheable(_file("index.html"))
    answer.headers["Content-Security-Policy"] = _POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Return a file of the page."""
    if name not in _PAGE:
        abort(404)
    return _cacheable(_file(name))


def _cacheable(answer: Response) -> Response:
    """Let the client keep it, and ask each time whether it is still right."""
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.add_etag()
    answer.make_conditional(request)
    return answer


def _file(name: str) -> Response:
    return Response(_read(name), mimetype=_TYPES[name.rsplit(".", 1)[1]])


@cache
def _read(name: str) -> bytes:
    return files("api").joinpath("page", name).read_bytes()


@cache
def _document() -> bytes:
    return orjson.dumps(document())
