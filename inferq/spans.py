"""Spans by OpenTelemetry, sent to a collector by OTLP over HTTP. Where to and how many is said by its own variables
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES``).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import orjson
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inferq import __version__
from inferq.tracing import Kind, Span, Tracer, Value, headers_of, values_of

_KINDS: Final = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "consumer": trace.SpanKind.CONSUMER,
    "internal": trace.SpanKind.INTERNAL,
}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def exporting(role: str) -> "OpenTelemetryTracer":
    """Return a tracer that sends what it notes in the background."""
    return OpenTelemetryTracer(role, BatchSpanProcessor(OTLPSpanExporter()))


class OpenTelemetrySpan(Span):
    """A span that is noted."""

    def __init__(self, span: trace.Span) -> None:
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, trace.set_span_in_context(span, Context()))
        super().__init__(orjson.dumps(headers).decode())
        self._span = span

    def note(self, **values: Value | None) -> None:
        """See :class:`inferq.tracing.Span`."""
        self._span.set_attributes(values_of(values))

    def failed(self, reason: str) -> None:
        """See :class:`inferq.tracing.Span`."""
        self._span.set_status(trace.StatusCode.ERROR, reason)
        self._span.set_attribute("error.type", reason)


class OpenTelemetryTracer(Tracer):
    """Makes spans of a process of the given role: api, worker or keeper."""

    active = True

    def __init__(self, role: str, processor: SpanProcessor) -> None:
        """``processor``: what becomes of a span that has ended."""
        resource = Resource.create({"service.version": __version__})
        if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": f"inferq-{role}"}))
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("inferq", __version__)

    @contextmanager
    def span(self, name: str, kind: Kind, carrier: str | None, **values: Value | None) -> Iterator[Span]:
        """See :class:`inferq.tracing.Tracer`."""
        made = self._tracer.start_span(name, _context(carrier), _KINDS[kind], values_of(values))
        span = OpenTelemetrySpan(made)
        try:
            yield span
        except BaseException as error:
            span.failed(type(error).__name__)
            raise
        finally:
            made.end()

    def past(self, name: str, carrier: str | None, began_ms: int, **values: Value | None) -> None:
        """See :class:`inferq.tracing.Tracer`."""
        # Began on Redis's clock, and ends on this machine's: never before.
        began = min(began_ms * 1_000_000, time.time_ns())
        self._tracer.start_span(name, _context(carrier), attributes=values_of(values), start_time=began).end()

    def close(self) -> None:
        """See :class:`inferq.tracing.Tracer`."""
        self._provider.shutdown()


def _context(carrier: str | None) -> Context:
    return _PROPAGATOR.extract(headers_of(carrier), Context())
