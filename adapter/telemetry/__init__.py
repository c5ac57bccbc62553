"""What the flows tell about themselves: log lines, metrics, and the trace they carry on."""

from adapter.telemetry.logs import Log, start_logging, switch_debug
from adapter.telemetry.metrics import METRICS, Kind, Metric, Metrics, OperationMeter, markdown
from adapter.telemetry.trace import Trace, continued, parse_traceparent

__all__ = [
    "METRICS",
    "Kind",
    "Log",
    "Metric",
    "Metrics",
    "OperationMeter",
    "Trace",
    "continued",
    "markdown",
    "parse_traceparent",
    "start_logging",
    "switch_debug",
]
