"""A real HTTP server that streams events as a script says, and cuts where it says."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Ends a connection in the middle.
CUT = b"cut"

JOB = {"id": "01a20a0d-5622-7cb3-a198-596cd62f6c30", "object": "job", "status": "queued", "terminal": False}


def event(number: int, name: str, data: Any) -> bytes:
    return f"id: {number}-0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class EventServer:
    """``scripts``: for each connection to the events in turn, an HTTP status, or pieces of a stream.

    ``job``: what a read is answered with, and the first event of a submit, unless that is cut off before.
    """

    def __init__(self, *scripts: int | list[bytes], job: dict[str, Any] = JOB) -> None:
        self.scripts = list(scripts)
        self.asked: list[dict[str, str]] = []
        self.submitted: dict[str, Any] = {}
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                ours.submitted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._tell([event(0, "job", job)])

            def do_GET(self) -> None:
                if self.path.endswith("/events"):
                    self._tell([])
                else:
                    self._json(200, job)

            def _tell(self, opening: list[bytes]) -> None:
                ours.asked.append({name.lower(): value for name, value in self.headers.items()})
                script = ours.scripts.pop(0) if ours.scripts else 404
                if isinstance(script, int):
                    self._json(script, {"code": "scripted", "detail": "as the script says"})
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream; charset=utf-8")
                self.end_headers()
                for piece in script if CUT in script[:1] else [*opening, *script]:
                    if piece is CUT:
                        break
                    self.wfile.write(piece)
                    self.wfile.flush()
                self.close_connection = True

            def _json(self, status: int, body: dict[str, Any]) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
                if status == 503:
                    self.send_header("Retry-After", "0")
                text = json.dumps(body).encode()
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                return  # the client may hang up

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def streaming(*scripts: int | list[bytes], job: dict[str, Any] = JOB) -> Iterator[EventServer]:
    server = EventServer(*scripts, job=job)
    try:
        yield server
    finally:
        server.close()
