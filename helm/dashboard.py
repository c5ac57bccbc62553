"""The dashboard, made by code: `python helm/dashboard.py` writes it; a test compares.

One screen answers whether it flows, whether it is late, whether the supplier is well and whether anything is stuck;
below are rows for each direction.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PLACE: Final = Path(__file__).parent / "fault-adapter" / "dashboards" / "fault-adapter.json"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_ONLY: Final = 'namespace=~"$namespace"'
_OURS: Final = "and on (namespace, instance) fault_adapter_build_info"
_GREEN, _YELLOW, _RED = "green", "yellow", "red"
_WIDTH: Final = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries` by legend. With `limits` it is one number, coloured from yellow and red on; else a graph."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    limits: tuple[float, float] | None = None
    width: int = 8
    meaning: str = ""


def _rate(metric: str, *by: str) -> str:
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate(fault_adapter_{metric}{{{_ONLY}}}[$__rate_interval]))"


def _gauge(metric: str, how: str = "sum", *by: str) -> str:
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"{how}{grouped} (fault_adapter_{metric}{{{_ONLY}}})"


def _quantile(share: float, metric: str, *by: str) -> str:
    grouped = ", ".join(("le", *by))
    rates = f"rate(fault_adapter_{metric}_bucket{{{_ONLY}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({grouped}) ({rates}))"


def _of_range(share: float, metric: str, *by: str) -> str:
    """As `_quantile`, of what happens a few times a day: within the whole time shown."""
    return _quantile(share, metric, *by).replace("$__rate_interval", "$__range")


def _grown(metric: str) -> str:
    return f"sum(increase(fault_adapter_{metric}{{{_ONLY}}}[$__range]))"


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "At a glance": (
        Panel("Commands ended", {"": _rate("outcomes_total")}, "reqps", (1e9, 1e9), 4, "Does it flow?"),
        Panel(
            "Notifications answered", {"": _rate("notifications_total")}, "reqps", (1e9, 1e9), 4, "Does it flow back?"
        ),
        Panel(
            "Commands late",
            {"": f"max(fault_adapter:commands_late:ratio_rate1h{{{_ONLY}}})"},
            "percentunit",
            (0.01, 0.06),
            4,
            "Not ended within 60 s, last hour.",
        ),
        Panel(
            "Notifications late",
            {"": f"max(fault_adapter:notifications_late:ratio_rate1h{{{_ONLY}}})"},
            "percentunit",
            (0.01, 0.06),
            4,
            "Not answered within 2 s, last hour.",
        ),
        Panel(
            "Circuit breaker",
            {"": _gauge("breaker_state", "max")},
            "short",
            (1, 2),
            4,
            "0 closed, 1 probing, 2 open: is the supplier well?",
        ),
        Panel(
            "Oldest unfinished",
            {"": _gauge("oldest_unfinished_seconds", "max")},
            "s",
            (300, 3600),
            4,
            "Is anything stuck?",
        ),
        Panel("Doubts", {"": _gauge("doubts_held")}, "short", (1, 10), 4, "Outcomes nobody knows yet."),
        Panel("Lanes halted", {"": _gauge("lanes_halted")}, "short", (1, 10), 4, "Tickets held by a fault of ours."),
        Panel("Kafka does not acknowledge", {"": _gauge("kafka_down", "max")}, "short", (1, 1), 4),
        Panel("Dead letters", {"": _grown("dead_letters_total")}, "short", (1, 10), 4, "Within the time shown."),
        Panel("Quarantine", {"": _grown("quarantined_total")}, "short", (1, 10), 4, "Within the time shown."),
        Panel(
            "Next certificate expires in",
            {"": f"{_gauge('certificate_not_after_timestamp_seconds', 'min')} - time()"},
            "s",
            (1e12, 1e12),
            4,
        ),
    ),
    "Commands: from Kafka to the supplier": (
        Panel(
            "Received and repeated",
            {
                "{{operation}}": _rate("commands_received_total", "operation"),
                "repeated {{operation}}": _rate("commands_repeated_total", "operation"),
            },
            "reqps",
        ),
        Panel("Outcomes", {"{{outcome}}": _rate("outcomes_total", "outcome")}, "reqps"),
        Panel(
            "From record to outcome",
            {
                "median {{operation}}": _quantile(0.5, "command_seconds", "operation"),
                "99 % {{operation}}": _quantile(0.99, "command_seconds", "operation"),
            },
            "s",
        ),
        Panel("Unfinished", {"lag of partition {{partition}}": _gauge("frontier_lag", "max", "partition")}),
        Panel(
            "Age of the oldest",
            {"partition {{partition}}": _gauge("oldest_unfinished_seconds", "max", "partition")},
            "s",
        ),
        Panel(
            "Lanes",
            {
                "{{state}}": _gauge("lanes", "sum", "state"),
                "halted, {{reason}}": _gauge("lanes_halted", "sum", "reason"),
            },
        ),
        Panel("Window", {"records": _gauge("window_records"), "bytes": _gauge("window_bytes")}),
        Panel(
            "Paused",
            {
                "partition {{partition}}": _gauge("partition_paused", "max", "partition"),
            },
        ),
        Panel(
            "Dead letters and misplaced keys",
            {"{{reason}}": _rate("dead_letters_total", "reason"), "misplaced": _rate("keys_misplaced_total")},
        ),
    ),
    "The supplier": (
        Panel("Calls", {"{{result}}": _rate("supplier_calls_total", "result")}, "reqps"),
        Panel(
            "Duration of a call",
            {
                "median {{operation}}": _quantile(0.5, "supplier_call_seconds", "operation"),
                "99 % {{operation}}": _quantile(0.99, "supplier_call_seconds", "operation"),
            },
            "s",
        ),
        Panel("Calls under way", {"in flight": _gauge("supplier_calls_in_flight")}),
        Panel("Calls without a whole answer", {"{{reason}}": _rate("supplier_call_failures_total", "reason")}, "reqps"),
        Panel("Put off", {"{{reason}}": _rate("retries_total", "reason")}, "reqps"),
        Panel(
            "Strays from the contract",
            {
                "replies, {{operation}}": _rate("reply_deviations_total", "operation"),
                "notifications, {{path}}": _rate("notification_deviations_total", "path"),
                "unknown elements": _rate("notification_unknown_elements_total"),
            },
        ),
    ),
    "Notifications: from the supplier to Kafka": (
        Panel("By result", {"{{result}}": _rate("notifications_total", "result")}, "reqps"),
        Panel("By kind", {"{{kind}}": _rate("notification_kinds_total", "kind")}, "reqps"),
        Panel(
            "To the answer",
            {"median": _quantile(0.5, "notification_seconds"), "99 %": _quantile(0.99, "notification_seconds")},
            "s",
        ),
        Panel(
            "Refused",
            {
                "caller, {{reason}}": _rate("callers_refused_total", "reason"),
                "status {{status}}": _rate("requests_refused_total", "status"),
                "quarantined, {{reason}}": _rate("quarantined_total", "reason"),
            },
        ),
        Panel("Under way", {"connections": _gauge("connections"), "bytes": _gauge("in_flight_bytes")}),
        Panel(
            "Spool",
            {
                "depth": _gauge("spool_depth"),
                "bytes": _gauge("spool_bytes"),
                "drained a second": _rate("spool_drained_total"),
                "damaged": _gauge("spool_damaged", "max"),
            },
        ),
        Panel("Age of the oldest spooled", {"oldest": _gauge("spool_oldest_seconds", "max")}, "s"),
    ),
    "Tickets": (
        Panel("Events folded", {"{{result}}": _rate("ticket_events_total", "result")}, "reqps"),
        Panel("Tickets kept", {"partition {{partition}}": _gauge("tickets", "max", "partition")}),
        Panel("Behind", {"partition {{partition}}": _gauge("tickets_behind_seconds", "max", "partition")}, "s"),
        Panel(
            "Illegal transitions",
            {"{{before}} to {{after}}": _rate("ticket_illegal_transitions_total", "before", "after")},
        ),
        Panel(
            "Deadlines warned of, tickets forgotten and trimmed",
            {
                "warned": _rate("ticket_deadline_warnings_total"),
                "forgotten": _rate("tickets_forgotten_total"),
                "trimmed": _rate("tickets_trimmed_total"),
            },
        ),
        Panel(
            "How long a status lasts",
            {"{{status}}": _of_range(0.5, "ticket_status_seconds", "status")},
            "s",
            meaning="The median within the time shown. In PENDING: until the supplier accepts.",
        ),
        Panel(
            "Service level clock when resolved",
            {"median": _of_range(0.5, "ticket_sla_seconds"), "9 of 10": _of_range(0.9, "ticket_sla_seconds")},
            "s",
            meaning="Within the time shown, without the time on hold.",
        ),
        Panel("Followed by workers", {"{{state}}": _gauge("tickets_followed", "sum", "state")}),
    ),
    "Inside": (
        Panel("Transactions", {"{{result}}": _rate("transactions_total", "result")}, "reqps"),
        Panel(
            "Duration of a transaction",
            {"median": _quantile(0.5, "transaction_seconds"), "99 %": _quantile(0.99, "transaction_seconds")},
            "s",
        ),
        Panel("Records in a transaction", {"median": _quantile(0.5, "transaction_records")}),
        Panel(
            "Partitions",
            {
                "{{instance}} {{flow}}": _gauge("partitions", "max", "instance", "flow"),
                "{{instance}} {{flow}}, not started": _gauge("partitions_starting", "max", "instance", "flow"),
            },
        ),
        Panel(
            "Kafka and its topics",
            {
                "{{instance}} {{flow}}, Kafka does not answer": _gauge("kafka_unreachable", "max", "instance", "flow"),
                "{{flow}}, topics misconfigured": _gauge("topics_misconfigured", "max", "flow"),
            },
        ),
        Panel("Held back by quotas of Kafka", {"": _rate("kafka_throttled_seconds_total")}, "s"),
        Panel("Recovered from the journal", {"{{state}}": _rate("journal_recovered_total", "state")}),
        Panel("Versions", {"{{version}}": _gauge("build_info", "count", "version")}),
        Panel(
            "CPU",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{_ONLY}}}[$__rate_interval]) {_OURS}"},
            "percentunit",
        ),
        Panel(
            "Memory",
            {"{{instance}}": f"process_resident_memory_bytes{{{_ONLY}}} {_OURS}"},
            "bytes",
        ),
        Panel("New certificates refused", {"{{direction}}": _gauge("certificates_refused", "max", "direction")}),
        Panel(
            "Certificates expire in",
            {"{{certificate}}": f"{_gauge('certificate_not_after_timestamp_seconds', 'min', 'certificate')} - time()"},
            "s",
        ),
    ),
}


def dashboard() -> str:
    document = {
        "title": "fault-adapter",
        "uid": "fault-adapter",
        "tags": ["fault-adapter"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"},
                {
                    "name": "namespace",
                    "type": "query",
                    "label": "Namespace",
                    "datasource": _SOURCE,
                    "query": "label_values(fault_adapter_build_info, namespace)",
                    "refresh": 2,
                    "includeAll": True,
                    "allValue": ".*",
                    "multi": True,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": list(_panels()),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _panels() -> Iterator[dict[str, Any]]:
    y = number = 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
        }
        y += 1
        x = height = 0
        for panel in panels:
            height = 4 if panel.limits else 8
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": height})
            x += panel.width
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    if panel.limits:
        first, second = panel.limits
        steps = [(None, _GREEN), (first, _YELLOW), (second, _RED)]
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in steps]}
        defaults["noValue"] = "0"
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "area"}
    return {
        "id": number,
        "type": "stat" if panel.limits else "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": _SOURCE, "expr": expr, "legendFormat": legend or "__auto"}
            for n, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    PLACE.write_text(dashboard(), encoding="utf-8")
    sys.stdout.write("written\n")
