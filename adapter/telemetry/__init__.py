"""Observability: log lines, metrics and traces."""

from adapter.telemetry.logs import Log, start_logging, switch_debug
from adapter.telemetry.meters import Metrics
from adapter.telemetry.metrics import METRICS, Kind, markdown
from adapter.telemetry.spans import Role, Span, Tracer, open_tracer
from adapter.telemetry.trace import Trace, continued, parse_traceparent

__all__ = [
    "METRICS",
    "Kind",
    "Log",
    "Metrics",
    "Role",
    "Span",
    "Trace",
    "Tracer",
    "continued",
    "markdown",
    "open_tracer",
    "parse_traceparent",
    "start_logging",
    "switch_debug",
]
