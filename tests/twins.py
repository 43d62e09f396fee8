"""Both clients of inferq_client as one: what is tested of one is tested of the other."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from inferq_client import AsyncInferq, Inferq

KINDS = ("blocking", "awaiting")


class Blocked:
    """An AsyncInferq whose methods block, in an event loop of its own."""

    def __init__(self, client: AsyncInferq, portal: BlockingPortal) -> None:
        self._client = client
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            if not inspect.isawaitable(found):
                return self._iterate(found)

            async def awaited() -> Any:
                return await found

            return self._portal.call(awaited)

        return call

    def _iterate(self, found: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(found, None)

        try:
            while (item := self._portal.call(following)) is not None:
                yield item
        finally:
            self._portal.call(found.aclose)


@contextlib.contextmanager
def twin(kind: str, url: str, key: str, **options: Any) -> Iterator[Any]:
    if kind == "blocking":
        with Inferq(url, key, **options) as client:
            yield client
    else:
        with start_blocking_portal() as portal:
            client = AsyncInferq(url, key, **options)
            try:
                yield Blocked(client, portal)
            finally:
                portal.call(client.close)
