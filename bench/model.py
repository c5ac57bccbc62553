"""What a deployment can do, by arithmetic: docs/scaling.md reckons with it, bench/report.py holds it to figures."""

from dataclasses import dataclass
from typing import Final

ADDED_MS: Final = 25.0
"""What a command waits beside the supplier's own time before the next one of its key is called, under load: two group
commits, of the intent and of the outcome."""

HOT: Final = 0.2
"""The share of commands that one key has in a skewed load."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU milliseconds a command."""

    worker: float
    around: float
    """Supplier's stand-in and broker, where they share the machine; 0 where they do not."""


@dataclass(frozen=True, slots=True)
class Plan:
    keys: int
    in_flight: int
    """Of each worker."""
    latency_ms: float
    workers: int = 1
    cores: float = float("inf")
    """Of the machine that everything shares."""
    skewed: bool = False


def rate(plan: Plan, costs: Costs) -> float:
    """Commands a second: the least of what lanes, calls, the hot key, the workers' loops and the machine allow.

    Order per key is why lanes bound it: a key has one call at a time. Intents are committed ahead of a call's place, by
    as many as there are places at the most.
    """
    turn = (plan.latency_ms + ADDED_MS) / 1000
    bounds = [
        plan.keys / turn,
        plan.workers * plan.in_flight * min(1000 / plan.latency_ms, 2 / turn),
        plan.workers * 1000 / costs.worker,
        plan.cores * 1000 / (costs.worker + costs.around),
    ]
    if plan.skewed:
        bounds.append(1 / (HOT * turn))
    return min(bounds)
