"""A TCP proxy between inferq and its Redis that can be slow, cut connections, or swallow everything."""

import asyncio
import contextlib
import random
import socket
import struct
import weakref
from dataclasses import dataclass
from typing import Final

#: Bytes moved at once.
CHUNK: Final = 65536
#: SO_LINGER with no time to linger: closing sends a reset.
RESET: Final = struct.pack("ii", 1, 0)


@dataclass
class Weather:
    """What the network is like now. ``delay_s``: seconds added to each piece of data, drawn between the two."""

    delay_s: tuple[float, float] = (0.0, 0.0)
    #: Data is taken and never delivered. A connection that lost some delivers nothing ever after, as a half-open one;
    #: new connections are accepted all the same.
    black_hole: bool = False


class Proxy:
    """Listens on ``port`` of loopback and passes everything on to ``target``."""

    def __init__(self, port: int, target: int, dice: random.Random) -> None:
        self._port = port
        self._target = target
        self._dice = dice
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._holes: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self.weather = Weather()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def close(self) -> None:
        """End, with all connections."""
        if self._server:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self, share: float = 1.0) -> int:
        """Reset a share of all connections; returns how many."""
        chosen = [writer for writer in self._writers if self._dice.random() < share]
        for writer in chosen:
            end = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        return len(chosen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101  # it runs as one
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError):  # either end may go at any moment: that is what this is for
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
                await self._between(reader, writer, there_reader, there_writer)
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _between(
        self,
        here: asyncio.StreamReader,
        to_here: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        to_there: asyncio.StreamWriter,
    ) -> None:
        self._writers.add(to_here)
        try:
            ways = [asyncio.create_task(self._pass(here, to_there)), asyncio.create_task(self._pass(there, to_here))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._writers.discard(to_here)
            to_there.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self.weather.black_hole or writer in self._holes:
                self._holes.add(writer)
                continue
            if self.weather.delay_s[1]:
                await asyncio.sleep(self._dice.uniform(*self.weather.delay_s))
            writer.write(data)
            await writer.drain()
