"""Server-sent events as a client reads them (WHATWG HTML, 9.2.6)."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flask.testing import FlaskClient


@dataclass(frozen=True)
class Told:
    name: str
    id: str
    data: dict[str, Any]


def parse(chunks: Iterable[bytes]) -> Iterator[Told]:
    """Yield events as they come; comments come as an event without a name."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while b"\n\n" in buffer:
            block, buffer = buffer.split(b"\n\n", 1)
            if block.startswith(b":"):
                yield Told("", "", {})
                continue
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
            yield Told(fields["event"], fields["id"], json.loads(fields["data"]))


def follow(client: FlaskClient, job: str, last: str = "") -> Iterator[Told]:
    """Follow a job from a test's own API."""
    answer = client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last} if last else {})
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream"), answer.text
    try:
        yield from parse(answer.response)
    finally:
        answer.close()


@dataclass
class Listener:
    """What a client knows after the events it has had."""

    text: str = ""
    last: str = ""
    names: list[str] = field(default_factory=list)
    end: Told | None = None

    def hear(self, told: Told) -> None:
        if not told.name:
            return
        self.last = told.id
        self.names.append(told.name)
        if told.name == "token":
            self.text += told.data["text"]
        elif told.name == "restarted":
            self.text = ""
        elif told.name in ("done", "error"):
            self.end = told
