"""Traces through API, queue, engine and webhook (W3C Trace Context, https://www.w3.org/TR/trace-context/).

What a caller sent is passed on, from the request into job and run, and with the webhook. With ``TRACING=otlp`` spans of
inferq's own are in between (``inferq.spans``, an optional extra).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

import orjson

from inferq.settings import Settings

#: Not of version ff, and neither id all zeros.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: Printable ASCII, and as much as everybody must pass on.
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")

#: What a span is to those beside it: it answers somebody, asks somebody, takes what was queued, or neither.
Kind = Literal["server", "client", "consumer", "internal"]
Value = str | int | float


def carrier_of(traceparent: str | None, tracestate: str | None = None) -> str | None:
    """Return a trace's two headers as a JSON object that can be stored and sent on; None when they are none."""
    if not traceparent or not _TRACEPARENT.fullmatch(traceparent):
        return None
    headers = {"traceparent": traceparent}
    if tracestate and _TRACESTATE.fullmatch(tracestate):
        headers["tracestate"] = tracestate
    return orjson.dumps(headers).decode()


def headers_of(carrier: str | None) -> dict[str, str]:
    """Return the headers that pass a trace on."""
    found: dict[str, str] = orjson.loads(carrier) if carrier else {}
    return found


def trace_of(carrier: str | None) -> str | None:
    """Return the id of a trace, 32 hexadecimal digits."""
    found = _TRACEPARENT.fullmatch(headers_of(carrier).get("traceparent", ""))
    return found[1] if found else None


class Span:
    """Something that takes time, as part of a trace. This one notes nothing, and passes on what it was given."""

    def __init__(self, carrier: str | None = None) -> None:
        #: What makes others part of this span's trace.
        self.carrier = carrier

    def note(self, **values: Value | None) -> None:
        """Note what is known by now; a name's double underscores are dots (``http__route``), None is not noted."""

    def failed(self, reason: str) -> None:
        """Note that it did not succeed, with a code or a class's name: never a text."""


class Tracer:
    """Makes spans. This one, of ``TRACING=off``, makes none."""

    #: Whether it makes any.
    active = False

    @contextmanager
    def span(self, name: str, kind: Kind, carrier: str | None, **values: Value | None) -> Iterator[Span]:
        """Yield a span of the trace ``carrier`` (None: of a new one) that ends with the block."""
        yield Span(carrier)

    def past(self, name: str, carrier: str | None, began_ms: int, **values: Value | None) -> None:
        """Note a span from ``began_ms`` (ms since 1970) until now."""

    def close(self) -> None:
        """Send what has not been sent."""


def make_tracer(settings: Settings, role: str) -> Tracer:
    """Return the tracer of a process: api, worker or keeper."""
    if settings.tracing == "off":
        return Tracer()
    # Imported here: what it imports is an optional extra (Settings has seen that it is there).
    from inferq.spans import exporting

    return exporting(role)


def values_of(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """Return attributes as OpenTelemetry names them."""
    return {name.replace("__", "."): value for name, value in values.items() if value is not None}
