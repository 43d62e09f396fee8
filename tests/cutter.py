"""A proxy that lets requests through and, as often as it is told, cuts the connection instead of passing the answer."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator


class Cutter:
    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition("//")[2].rpartition(":")
        self._port = int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        #: Answers still to be cut off, and those that were.
        self.cuts = 0
        self.cut = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            there = socket.create_connection((self._host, self._port))
            self._ends += [here, there]
            for source, sink, answers in ((here, there, False), (there, here, True)):
                thread = threading.Thread(target=self._pass, args=(source, sink, answers))
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.cuts > 0:
                    self.cuts, self.cut = self.cuts - 1, self.cut + 1
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close is a reset
                    break
                sink.sendall(data)
        for end in (sink, source):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)


@contextlib.contextmanager
def cutting(target: str) -> Iterator[Cutter]:
    cutter = Cutter(target)
    try:
        yield cutter
    finally:
        cutter.close()
