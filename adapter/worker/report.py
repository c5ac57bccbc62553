"""What a running worker shows: its gauges, and its part of the page at /status."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from heapq import nlargest
from operator import itemgetter
from typing import Any, Final, get_args

from adapter.core.command import Verdict
from adapter.core.instant import utc
from adapter.core.retry import BreakerState
from adapter.telemetry import Metrics
from adapter.telemetry import metrics as m
from adapter.worker.assignment import Assignment
from adapter.worker.events import KINDS
from adapter.worker.flow import Worker
from adapter.worker.gate import Gate
from adapter.worker.reader import REASONS

_BREAKER: Final = {BreakerState.CLOSED: 0.0, BreakerState.PROBING: 1.0, BreakerState.OPEN: 2.0}
_HALTED: Final = ("event-too-large", "dead-letter-too-large")
_SHOWN: Final = 100
"""Commands in doubt that the page names, and lanes that wait."""


def begin(operations: Iterable[str], metrics: Metrics) -> None:
    """Show the counters that alerts look at, at zero, before anything is counted."""
    results = [verdict.__name__.lower() for verdict in get_args(Verdict)]
    metrics.begin(m.OUTCOMES, operations, KINDS)
    metrics.begin(m.CALLS, operations, results)
    metrics.begin(m.DEAD_LETTERS, REASONS)


def watch(worker: Worker, gate: Gate, metrics: Metrics) -> None:
    """Let the gauges read the worker's state whenever they are scraped; nothing is kept up to date in between."""
    owned = worker.assignments

    def per_partition(value: Callable[[Assignment], float]) -> Callable[[], Mapping[str, float]]:
        # Of one that has not started nothing is known: it may have any number of commands.
        return lambda: {str(p): float(value(a)) for p, a in owned.items() if a.recovered is not None}

    def lanes() -> Mapping[str, float]:
        waiting = sum(len(a.waiting) for a in owned.values())
        return {"waiting": waiting, "active": sum(len(a.lanes) for a in owned.values()) - waiting}

    def halted() -> Mapping[str, float]:
        found = Counter(why for a in owned.values() for why in a.waiting.values())
        return {why: float(found[why]) for why in _HALTED}

    metrics.watch(m.PARTITIONS, lambda: {"worker": float(len(owned))})
    metrics.watch(m.PARTITIONS_STARTING, lambda: {"worker": float(sum(a.recovered is None for a in owned.values()))})
    metrics.watch(m.CALLS_IN_FLIGHT, lambda: float(gate.in_flight))
    metrics.watch(m.LANES, lanes)
    metrics.watch(m.WINDOW_RECORDS, lambda: float(worker.window.records))
    metrics.watch(m.WINDOW_BYTES, lambda: float(worker.window.size))
    metrics.watch(m.FRONTIER_LAG, per_partition(lambda a: a.frontier.span))
    metrics.watch(m.OLDEST_UNFINISHED, per_partition(_oldest_age))
    metrics.watch(m.PARTITION_PAUSED, per_partition(lambda a: a.paused))
    metrics.watch(m.LANES_HALTED, halted)
    metrics.watch(m.BREAKER_STATE, lambda: _BREAKER[gate.breaker.known(time.monotonic())])
    metrics.watch(m.DOUBTS_HELD, lambda: float(sum(_held(a) for a in owned.values())))


def status(worker: Worker, gate: Gate) -> Mapping[str, Any]:
    """The page at /status: partitions, lanes, doubts, breaker. Names commands by id, never by content."""
    doubts = [
        {
            "command_id": entry.command_id,
            "partition": a.partition,
            "offset": entry.offset,
            "until": utc(datetime.fromtimestamp(entry.until, UTC)),
        }
        for a in worker.assignments.values()
        for entry in a.residents.values()
        if entry.until is not None
    ]
    return {
        "calls": {
            "in_flight": gate.in_flight,
            "waiting": gate.waiting,
            "held_back_by": gate.holds_back,
            "breaker": gate.breaker.state.value,
            "probe_in_seconds": round(gate.probe_in, 1),
        },
        "window": {"records": worker.window.records, "bytes": worker.window.size},
        "partitions": [_partition(a) for _, a in sorted(worker.assignments.items())],
        "doubts": doubts[:_SHOWN],
        "doubts_held": len(doubts),
        "waiting": _waiting(worker),
    }


def _waiting(worker: Worker) -> list[Mapping[str, Any]]:
    """The lanes whose first command has been here for longest, and what each waits for."""
    now, found = time.monotonic(), []
    for a in worker.assignments.values():
        for key in a.lanes:
            head = a.lanes.head(key)
            if head is not None:
                found.append((now - head.received, a, key, head))
    return [
        {
            "key": key.decode("utf-8", "replace"),
            "partition": a.partition,
            "offset": head.source.offset,
            "seconds": round(seconds, 1),
            "why": a.waiting.get(key, "calling" if key in a.calling else "its turn"),
            "behind": len(a.lanes.behind(key)),
        }
        for seconds, a, key, head in nlargest(_SHOWN, found, key=itemgetter(0))
    ]


def _partition(a: Assignment) -> Mapping[str, Any]:
    return {
        "partition": a.partition,
        "started": a.recovered is not None,
        "position": a.frontier.position,
        "span": a.frontier.span,
        "unfinished": len(a.items),
        "oldest_offset": a.frontier.oldest,
        "oldest_seconds": round(_oldest_age(a), 1),
        "lanes": len(a.lanes),
        "waiting": dict(Counter(a.waiting.values())),
        "paused": a.paused,
        "residents": len(a.residents),
    }


def _oldest_age(a: Assignment) -> float:
    oldest = a.frontier.oldest
    item = None if oldest is None else a.items.get(oldest)
    return 0.0 if item is None else max(0.0, time.time() - item.source.timestamp)


def _held(a: Assignment) -> int:
    return sum(entry.until is not None for entry in a.residents.values())
