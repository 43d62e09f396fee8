"""The page at ``/``: jobs and the queue for people who would rather look. It calls this API as any client does."""

from typing import Final

from flask import Blueprint, Response

from api import assets

blueprint = Blueprint("console", __name__)

#: Trusted types: an answer that holds HTML cannot become any, whatever the page's scripts do with it.
_POLICY: Final = f"{assets.OWN_FILES}; img-src 'self'; require-trusted-types-for 'script'"
_PARTS: Final = (
    "console.css",
    "console.js",
    "events.js",
    "icon.svg",
    "job.js",
    "overview.js",
    "service.js",
    "words.js",
)


@blueprint.get("/")
def page() -> Response:
    """Return the page."""
    return assets.page("console", _POLICY)


@blueprint.get("/console/<name>")
def asset(name: str) -> Response:
    """Return a file of the page."""
    return assets.asset("console", name, _PARTS)
