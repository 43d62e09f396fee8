"""A real HTTP receiver: it keeps what it is sent, and answers as it is told."""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    def verified(self, secret: str) -> Any:
        """The payload, if the official library finds the signature good."""
        return Webhook(secret).verify(self.body, self.headers)


#: Gets the request and the handler, which it may use to answer; returns a status code, or None when it has answered.
Behaviour = Callable[[Received, BaseHTTPRequestHandler], int | None]


class Receiver:
    def __init__(
        self, behaviour: Behaviour | None = None, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.got: list[Received] = []
        self.connections = 0
        self.behaviour: Behaviour = behaviour or (lambda _, __: 204)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                received = Received(
                    self.path, {name.lower(): value for name, value in self.headers.items()}, self.rfile.read(length)
                )
                receiver.got.append(received)
                status = receiver.behaviour(received, self)
                if status is not None:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def get_request(self) -> Any:
                receiver.connections += 1
                return super().get_request()

            def handle_error(self, *_: Any) -> None:
                return  # the sender may hang up

        self._server = Server((host, 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def receiving(
    behaviour: Behaviour | None = None, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Receiver]:
    receiver = Receiver(behaviour, tls, host)
    try:
        yield receiver
    finally:
        receiver.close()
