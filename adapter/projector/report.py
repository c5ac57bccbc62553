"""Metrics and status of the running projector."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from adapter.core.ticket import Verdict
from adapter.projector.flow import Projector
from adapter.projector.partition import Partition
from adapter.projector.reader import MISPLACED, UNREADABLE, UNRELATED
from adapter.telemetry import Metrics
from adapter.telemetry import metrics as m

RESULTS: Final = (*Verdict, UNRELATED, MISPLACED, UNREADABLE)
"""What may become of an event: a label of metrics."""


def begin(metrics: Metrics) -> None:
    """Show at zero what alerts look for, before the first of it."""
    metrics.begin(m.TICKET_EVENTS, RESULTS)


def watch(projector: Projector, metrics: Metrics) -> None:
    """Let the gauges read the projector's state whenever they are scraped."""

    def each(value: Callable[[Partition], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {str(number): float(value(p)) for number, p in projector.partitions.items() if p.started}

    def starting() -> Mapping[str, float]:
        return {"projector": float(sum(not p.started for p in projector.partitions.values()))}

    metrics.watch(m.PARTITIONS, lambda: {"projector": float(len(projector.partitions))})
    metrics.watch(m.PARTITIONS_STARTING, starting)
    metrics.watch(m.TICKETS, each(lambda p: p.tickets))
    metrics.watch(m.TICKETS_BEHIND, each(lambda p: p.behind))


def status(projector: Projector) -> Mapping[str, Any]:
    """Its part of the page at /status."""
    return {
        "tickets": [
            {
                "partition": p.number,
                "started": p.started,
                "position": p.position,
                "tickets": p.tickets,
                "waiting": len(p.queue),
                "behind_seconds": round(p.behind, 1),
                "paused": p.paused,
            }
            for _, p in sorted(projector.partitions.items())
        ]
    }
