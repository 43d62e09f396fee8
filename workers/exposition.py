"""Offers a process's metrics to Prometheus, on a port of their own."""

import hmac
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.exposition import ThreadingWSGIServer
from pydantic import SecretStr

from inferq.errors import ConfigurationError

log = structlog.get_logger()

#: Seconds a client may keep silent before its connection is closed.
SILENCE_S: Final = 10

Start = Callable[..., Any]


class _Quiet(WSGIRequestHandler):
    timeout = SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:  # the base class names it so
        """Say nothing: a scrape every few seconds is no news."""


class Exposition:
    """An HTTP server on a thread: ``/metrics``, and ``/readyz`` and ``/livez`` for probes."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        address: tuple[str, int],
        setting: str,
        token: SecretStr | None,
        ready: Callable[[], bool],
        alive: Callable[[], bool],
    ) -> None:
        """Bind; raises ConfigurationError that names ``setting``, from which the port came."""
        self._registry = registry
        self._expected = b"Bearer " + token.get_secret_value().encode() if token else None
        self._ready = ready
        self._alive = alive
        host, port = address
        try:
            self._server = make_server(host, port, self._answer, ThreadingWSGIServer, _Quiet)
        except OSError as error:
            raise ConfigurationError(f"{setting}: {host}:{port} cannot be used ({error.strerror})") from None
        self.port = self._server.server_port

    def start(self) -> None:
        """Serve, until closed or the process ends."""
        log.info("metrics_offered", port=self.port)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics" if self._may(environ.get("HTTP_AUTHORIZATION", "")):
                # Never OpenMetrics, whoever prefers it: prometheus_client writes vllm:… as vllm_… there.
                start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
                return [generate_latest(self._registry)]
            case "/metrics":
                return _text(start_response, "401 Unauthorized", "METRICS_TOKEN is wanted as a bearer token.")
            case "/readyz" if self._ready():
                return _text(start_response, "200 OK", "ready")
            case "/readyz":
                return _text(start_response, "503 Service Unavailable", "not ready")
            case "/livez" if self._alive():
                return _text(start_response, "200 OK", "alive")
            case "/livez":
                return _text(start_response, "503 Service Unavailable", "stuck")
        return _text(start_response, "404 Not Found", "Here are /metrics, /readyz and /livez.")

    def _may(self, shown: str) -> bool:
        return self._expected is None or hmac.compare_digest(shown.encode(), self._expected)


def _text(start_response: Start, status: str, body: str) -> Iterable[bytes]:
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    if status.startswith("401"):
        headers.append(("WWW-Authenticate", 'Bearer realm="inferq metrics"'))
    start_response(status, headers)
    return [f"{body}\n".encode()]
