"""What the metrics of a role say."""

import re

from adapter.telemetry import METRICS, Metrics


def measured(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of a metric (without the product's prefix), the sum of all that have these labels; 0 without any.
    AssertionError for a name that no metric has.
    """
    return read(metrics.exposition("text/plain")[0].decode(), name, **labels)


def read(text: str, name: str, **labels: str) -> float:
    """The same, of what a process shows."""
    name = f"fault_adapter_{name}"
    assert any(metric.full_name in {name, name.removesuffix("_sum").removesuffix("_count")} for metric in METRICS), name
    value = 0.0
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")).items():
            value += float(found[2])
    return value
