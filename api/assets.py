"""Pages that the API serves: their files, and what a browser may do with them."""

from functools import cache
from importlib.resources import files
from typing import Final

from flask import Response, abort, request

#: What any page may do: run and show its own files, and ask this API; ``img-src`` is added by each.
OWN_FILES: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def page(folder: str, policy: str) -> Response:
    """Return ``index.html`` of a folder of ``api/pages``, under a Content-Security-Policy."""
    answer = cacheable(_file(folder, "index.html"))
    answer.headers["Content-Security-Policy"] = policy
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def asset(folder: str, name: str, parts: tuple[str, ...]) -> Response:
    """Return a file that a page is made of; 404 if it is none of its ``parts``."""
    if name not in parts:
        abort(404)
    return cacheable(_file(folder, name))


def cacheable(answer: Response) -> Response:
    """Let the client keep it, and ask each time whether it is still right."""
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.add_etag()
    answer.make_conditional(request)
    return answer


def _file(folder: str, name: str) -> Response:
    return Response(_read(folder, name), mimetype=_TYPES[name.rsplit(".", 1)[1]])


@cache
def _read(folder: str, name: str) -> bytes:
    return files("api").joinpath("pages", folder, name).read_bytes()
