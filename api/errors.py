"""Every error as ``application/problem+json`` (RFC 9457), with a code for programs and a sentence for people."""

import json
import math
from collections.abc import Mapping
from typing import Any

import structlog
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException

from inferq.errors import StoreUnavailable

log = structlog.get_logger()

#: Why a submit was refused, by the code of the problem, for metrics; a problem may say it more exactly.
REASONS = {
    "unauthorized": "unauthorized",
    "tenant-unknown": "unauthorized",
    "tenant-suspended": "unauthorized",
    "model-not-found": "model",
    "idempotency-key-reused": "idempotency",
    "no-webhook-secret": "webhook",
    "webhook-disabled": "webhook",
    "not-cached": "not_cached",
    "store-unavailable": "store",
}

#: Seconds after which a caller may try again when memory is short, or nobody can say when there is room.
FULL_RETRY_AFTER = 5
#: Seconds a caller is told to wait at most; it may look again earlier.
MOST_RETRY_AFTER = 600
#: Seconds after which a caller may try again while Redis is away.
STORE_RETRY_AFTER = 2
#: Seconds after which a caller may try again while the keys of its token's issuer cannot be read.
KEYS_RETRY_AFTER = 10


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        reason: str = "",
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra
        self.reason = reason or REASONS.get(code) or ("error" if status >= 500 else "invalid")

    def response(self) -> Response:
        """Return the problem as the HTTP answer."""
        g.problem = self
        body = {
            "type": f"urn:inferq:problem:{self.code}",
            "title": self.code.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": g.get("request_id", ""),
            **self.extra,
        }
        return Response(json.dumps(body), status=self.status, headers=self.headers, mimetype="application/problem+json")


def unauthorized(detail: str, error: str = "") -> Problem:
    """Return 401 with the challenge RFC 9110 §11.6.1 asks for; ``error``: of a token, as RFC 6750 §3.1 names it."""
    challenge = 'Bearer realm="inferq"' + (f', error="{error}"' if error else "")
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})


def busy(detail: str, seconds: float, reason: str) -> Problem:
    """Return Problem 503: there is no room now; ``seconds`` until there should be some, below 0 when nobody can say.

    ``reason``: of what, for metrics.
    """
    retry_after = FULL_RETRY_AFTER if seconds < 0 else min(MOST_RETRY_AFTER, max(1, math.ceil(seconds)))
    return Problem(
        503,
        "temporary-reduced-capacity",
        f"{detail} Try again in {retry_after} s.",
        headers={"Retry-After": str(retry_after)},
        reason=reason,
    )


def init_app(app: Flask) -> None:
    """Make every exception an HTTP problem."""

    @app.errorhandler(Problem)
    def on_problem(error: Problem) -> Response:
        return error.response()

    @app.errorhandler(StoreUnavailable)
    def on_store(error: StoreUnavailable) -> Response:
        log.warning("store_unavailable", reason=str(error))
        return Problem(
            503,
            "store-unavailable",
            "The job store does not answer. Try again shortly; with an Idempotency-Key nothing is done twice, in case"
            " only its answer was lost.",
            headers={"Retry-After": str(STORE_RETRY_AFTER)},
        ).response()

    @app.errorhandler(HTTPException)
    def on_http(error: HTTPException) -> Response:
        status = error.code or 500
        code = (error.name or "error").lower().replace(" ", "-")
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return Problem(status, code, error.description or error.name, headers=headers).response()

    @app.errorhandler(Exception)
    def on_bug(error: Exception) -> Response:
        # The type alone: a message could hold a prompt.
        log.error("unhandled_error", error=type(error).__name__, where=_where(error))
        return Problem(500, "internal-error", "The server made a mistake; it has been logged.").response()


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "unknown"
