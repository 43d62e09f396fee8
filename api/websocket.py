"""The server's end of a WebSocket (RFC 6455) on the connection of a request, by the protocol core of ``websockets``."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from flask import Request, Response
from websockets.datastructures import Headers
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

from api.errors import Problem

#: Bytes of a message from a client. None is expected: what comes is read and dropped.
MOST_BYTES: Final = 4096
#: Seconds a client may take to answer a close.
CLOSE_S: Final = 1.0

# It tells of every connection, which the API does not.
_log = logging.getLogger("inferq.websocket")
_log.setLevel(logging.WARNING)


class Closed(Exception):
    """The connection has ended."""


class WebSocket:
    """Sends text; no extensions, so that a thousand connections hold no compressor each."""

    def __init__(self, request: Request) -> None:
        """Check the request's handshake; raises Problem 400, 426 or 501."""
        handshake = Handshake(request.path, Headers(list(request.headers.items())))
        self._response = ServerProtocol(logger=_log).accept(handshake)
        if self._response.status_code == 426:
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
            raise Problem(
                426, "upgrade-required", "This address speaks WebSocket; /events is for HTTP.", headers=upgrade
            )
        if self._response.status_code != 101:
            raise Problem(400, "bad-handshake", "The WebSocket handshake is malformed (RFC 6455, section 4.2.1).")
        self._socket: Any = request.environ.get("gunicorn.socket")
        if self._socket is None:
            raise Problem(501, "not-implemented", "This server cannot upgrade connections.")
        # The server has read the request already: what comes now are frames.
        self._protocol = ServerProtocol(state=State.OPEN, max_size=MOST_BYTES, logger=_log)
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read_forever, name="websocket", daemon=True)

    def open(self, closed: Callable[[], None]) -> None:
        """Answer the handshake; ``closed`` is called once the client has gone. Raises Closed."""
        self._closed = closed
        try:
            self._socket.sendall(self._response.serialize())
        except OSError:
            raise Closed from None
        self._reader.start()

    def send(self, text: bytes) -> None:
        """Send one text message (UTF-8); blocks while the client takes none. Raises Closed."""
        self._do(lambda: self._protocol.send_text(text))

    def ping(self) -> None:
        """Ask for a sign of life; raises Closed."""
        self._do(lambda: self._protocol.send_ping(b""))

    def close(self) -> None:
        """Say that all has been said, and wait a moment for the client to say so too; raises Closed."""
        self._do(lambda: self._protocol.send_close(1000))
        self._reader.join(CLOSE_S)

    def answer(self) -> Response:
        """Return what a view returns when the connection is used up."""
        return _UsedUp(status=101)

    def _do(self, step: Callable[[], None]) -> None:
        with self._lock:
            if self._protocol.state is not State.OPEN:
                raise Closed
            step()
            self._write()

    def _write(self) -> None:
        try:
            for data in self._protocol.data_to_send():
                if data:  # nothing: the end of what is to be said
                    self._socket.sendall(data)
        except OSError:
            raise Closed from None

    def _read_forever(self) -> None:
        try:
            while data := self._socket.recv(MOST_BYTES):
                with self._lock:
                    self._protocol.receive_data(data)
                    self._protocol.events_received()
                    self._write()
                if self._protocol.state is not State.OPEN and self._protocol.close_rcvd:
                    break
        except (OSError, Closed):
            pass  # it has gone, or has taken too long
        finally:
            with self._lock:
                self._protocol.receive_eof()
            self._closed()


class _UsedUp(Response):
    """The server must neither write to the connection nor read another request from it."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        raise StopIteration  # gunicorn closes the connection
