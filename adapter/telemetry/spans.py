"""Spans, by OpenTelemetry where it is switched on. Off, nobody makes a span: a flow's tracer is None, and the trace
context of what came in is handed on as it is.
"""

from enum import StrEnum
from typing import Any

from adapter import __version__
from adapter.core.errors import Stop
from adapter.telemetry.trace import Trace

Value = str | int | bool


class Role(StrEnum):
    """A span's part in what it is about."""

    CONSUMER = "consumer"
    CLIENT = "client"
    SERVER = "server"
    PRODUCER = "producer"


class Tracer:
    """Makes spans. Raises ImportError without the libraries."""

    def __init__(self) -> None:
        # Here and not above: they take a third of a second to load, and seldom anybody wants them.
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        told = OTELResourceDetector().detect().attributes
        resource = Resource.create(
            {"service.name": told.get("service.name", "fault-adapter"), "service.version": __version__}
        )
        self._api = trace
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("adapter", __version__)
        self._kinds = {role: trace.SpanKind[role.name] for role in Role}

    def span(self, name: str, role: Role, parent: Trace | None, **attributes: Value) -> "Span":
        """A span that has begun, below `parent`; without one the first of a new trace. Names as in `Span.end`."""
        context = None
        if parent is not None:
            flags = self._api.TraceFlags(parent.flags)
            place = self._api.SpanContext(
                int(parent.trace_id, 16), int(parent.parent_id, 16), is_remote=True, trace_flags=flags
            )
            context = self._api.set_span_in_context(self._api.NonRecordingSpan(place))
        span = self._tracer.start_span(name, context, self._kinds[role], attributes=_named(attributes))
        return Span(span, self._api.Status(self._api.StatusCode.ERROR))

    def close(self) -> None:
        """Hand over what has ended; waits for at most a few seconds."""
        self._provider.shutdown()


class Span:
    """Something that takes time."""

    __slots__ = ("_failed", "_span")

    def __init__(self, span: Any, failed: Any) -> None:
        self._span = span
        self._failed = failed

    @property
    def trace(self) -> Trace:
        """Its place, to be handed on."""
        place = self._span.get_span_context()
        return Trace(f"{place.trace_id:032x}", f"{place.span_id:016x}", int(place.trace_flags))

    def end(self, error: str | None = None, **attributes: Value) -> None:
        """At its end, once. `error` is a word of a closed set. Names have `__` for a dot: `http__route`."""
        self._span.set_attributes(_named(attributes))
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(self._failed)
        self._span.end()


def _named(attributes: dict[str, Value]) -> dict[str, Value]:
    return {name.replace("__", "."): value for name, value in attributes.items()}


def open_tracer() -> Tracer:
    """Spans go where the standard variables OTEL_… say, by OTLP over HTTP. Raises Stop without the libraries."""
    try:
        return Tracer()
    except ImportError:
        raise Stop(
            "ADAPTER_TELEMETRY__TRACING: OpenTelemetry is not installed; install fault-adapter[tracing], or unset it"
        ) from None
