"""The alerts, judged by promtool: each fires when it should and is quiet when it should be."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from adapter.app.check import Role
from adapter.app.start import transactions_observer
from adapter.projector import report as projecting
from adapter.server import flow as receiving
from adapter.telemetry import Metrics
from adapter.telemetry.metrics import METRICS, Kind
from adapter.worker import report as working
from tests.support.helm import CHART, find, needs_helm, render

RULES: Final = tuple(sorted((CHART / "rules").glob("*.yaml")))
LIMIT: Final = 400  # seconds for all cases at once, of which a machine that is free needs twenty
RUNBOOK: Final = CHART.parents[1] / "docs" / "runbook.md"
DAY: Final = 86400
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: Debian's prometheus")


class Case(NamedTuple):
    """Series in promtool's notation, a sample a minute: of a release whose alert fires at `at`, and of a well one."""

    fires: dict[str, str]
    quiet: dict[str, str]
    at: str = "40m"


def _late(metric: str, le: str, share: float, minutes: int = 400) -> dict[str, str]:
    """100 a minute, `share` of them late."""
    return {
        f'fault_adapter_{metric}_seconds_bucket{{le="{le}"}}': f"0+{100 * (1 - share):g}x{minutes}",
        f"fault_adapter_{metric}_seconds_count": f"0+100x{minutes}",
    }


def _grows(name: str, labels: str = "") -> dict[str, str]:
    return {f"fault_adapter_{name}{labels}": "0x20 1+1x200"}


def _counts(name: str, labels: str, minutes: int = 70) -> tuple[Case, ...]:
    """Of a counter whose every growth calls: `b` starts again after so many minutes, more than the alert looks back."""
    ours, theirs = (f'fault_adapter_{name}{{{labels}instance="{i}"}}' for i in "ab")
    start, at = 'process_start_time_seconds{instance="b"}', f"{minutes + 15}m"
    long, once, again = "0x600", f"_x{minutes + 2}", f"x{minutes} stale _"
    old = {ours: "7x600", 'process_start_time_seconds{instance="a"}': long}
    new = {start: f"0{again} {60 * (minutes + 2)}x60"}
    well = old | new | {theirs: f"3{again} 0x60"}
    return (
        # The first of its kind, by one of two that have run for long.
        Case(old | {theirs: f"0x{minutes + 8} 1x60", start: long}, old | {theirs: "0x600", start: long}, at),
        # After the restart of a container: seen at zero before, or counted before it was seen.
        Case(old | new | {theirs: f"1{again} 0x3 1x60"}, well, at),
        Case(old | new | {theirs: f"1{again} 1x60"}, well, at),
        # By an instance that was not there before; the other was not seen for a while.
        Case(
            old | {theirs: f"{once} 1x60", start: f"{once} {60 * (minutes + 2)}x60"}, old | {ours: f"7{again} 7x60"}, at
        ),
    )


def _stays(name: str, labels: str = "") -> dict[str, str]:
    return {f"fault_adapter_{name}{labels}": "7x300"}


def _certificate(days: float) -> dict[str, str]:
    name = "fault_adapter_certificate_not_after_timestamp_seconds"
    return {f'{name}{{certificate="supplier-certificate"}}': f"{days * DAY:g}x60"}


def _at(instance: str, series: dict[str, str]) -> dict[str, str]:
    """Of that instance; without one they are of a single one."""
    label = f'instance="{instance}"'
    return {f"{n[:-1]},{label}}}" if n.endswith("}") else f"{n}{{{label}}}": values for n, values in series.items()}


OURS: Final = {'fault_adapter_build_info{job="j",instance="a"}': "1x60"}
WELL: Final = {"fault_adapter_breaker_state": "0x300"}
DOWN: Final = {"fault_adapter_breaker_state": "2 2 1 2 2x300"}
LAG: Final = {'fault_adapter_frontier_lag{partition="1"}': "5x300"}
STUCK: Final = {'fault_adapter_oldest_unfinished_seconds{partition="1"}': "4000x60"}
SPOOLED: Final = {'fault_adapter_spool_depth{instance="a"}': "9x60"}
ROLES: Final = (
    'fault_adapter_partitions{flow="worker",instance="a"}',
    'fault_adapter_partitions{flow="projector",instance="b"}',
    'fault_adapter_connections{instance="c"}',
)
CASES: Final[dict[str, tuple[Case, ...]]] = {
    "FaultAdapterCommandsLate": (Case(_late("command", "60.0", 0.2), _late("command", "60.0", 0.005), "65m"),),
    "FaultAdapterCommandsLateSlowly": (
        Case(_late("command", "60", 0.02, 600), _late("command", "60", 0.009, 600), "9h"),
    ),
    "FaultAdapterNotificationsLate": (
        Case(_late("notification", "2.0", 0.2), _late("notification", "2.0", 0.005), "65m"),
    ),
    "FaultAdapterNotificationsLateSlowly": (
        Case(_late("notification", "2", 0.02, 600), _late("notification", "2", 0.009, 600), "9h"),
    ),
    "FaultAdapterDown": (
        Case({'up{job="fault-adapter",instance="a"}': "0x60"}, {'up{job="fault-adapter",instance="a"}': "1x60"}),
    ),
    # One role after the other is gone from where all others are.
    "FaultAdapterRoleMissing": tuple(
        Case({name: "8x20" if name == gone else "8x60" for name in ROLES} | OURS, dict.fromkeys(ROLES, "8x60") | OURS)
        for gone in ROLES
    ),
    "FaultAdapterNotificationsRefused": (
        Case(
            _grows("notifications_total", '{result="unavailable"}'),
            _grows("notifications_total", '{result="published"}'),
        ),
    ),
    "FaultAdapterCommandStuck": (
        Case(STUCK | WELL, STUCK | DOWN),
        Case(_at("busy", STUCK | WELL) | _at("idle", DOWN), _at("busy", STUCK | DOWN) | _at("idle", WELL)),
    ),
    "FaultAdapterConsumerNotMoving": (
        Case(_at("busy", LAG | WELL) | _at("idle", DOWN), _at("busy", LAG | DOWN) | _at("idle", WELL)),
        Case(LAG | WELL, LAG | WELL | _grows("outcomes_total", '{outcome="accepted"}')),
        Case(LAG | WELL | _stays("outcomes_total", '{outcome="accepted"}'), LAG | DOWN),
    ),
    "FaultAdapterLanesHalted": (
        Case(
            {'fault_adapter_lanes_halted{reason="event-too-large"}': "3x60"},
            {'fault_adapter_lanes_halted{reason="event-too-large"}': "0x60"},
        ),
    ),
    "FaultAdapterNobodyOwnsPartitions": (
        Case(
            {f'fault_adapter_partitions{{flow="worker",instance="{i}"}}': "0x60" for i in "ab"},
            {
                'fault_adapter_partitions{flow="worker",instance="a"}': "8x60",
                'fault_adapter_partitions{flow="worker",instance="b"}': "0x60",
            },
        ),
    ),
    "FaultAdapterPartitionNotStarted": (
        Case(
            {'fault_adapter_partitions_starting{flow="worker",instance="a"}': "0x10 1x60"},
            # Again and again, each time for a moment, as when members come and go.
            {'fault_adapter_partitions_starting{flow="worker",instance="a"}': "3x4 0 1x4 0x60"},
        ),
        Case(
            {'fault_adapter_partitions_starting{flow="projector",instance="a"}': "2x60"},
            {'fault_adapter_partitions_starting{flow="projector",instance="a"}': "0x60"},
        ),
    ),
    "FaultAdapterProjectorBehind": (
        Case(
            {'fault_adapter_tickets_behind_seconds{partition="1"}': "400x60"},
            {'fault_adapter_tickets_behind_seconds{partition="1"}': "2x60"},
        ),
    ),
    "FaultAdapterSupplierDown": (Case(DOWN, {"fault_adapter_breaker_state": "2 2 0 1 0 2 0x300"}),),
    "FaultAdapterSupplierRefusesUs": (
        Case(
            _grows("supplier_calls_total", '{result="forbidden"}'),
            _grows("supplier_calls_total", '{result="rejected"}'),
        ),
    ),
    "FaultAdapterDoubtWaits": (
        Case({"fault_adapter_doubts_held": "0x10 2x200"}, {"fault_adapter_doubts_held": "0x10 2x30 0x200"}, "90m"),
    ),
    "FaultAdapterUndetermined": _counts("outcomes_total", 'outcome="settled-undetermined",'),
    "FaultAdapterDeviationsRise": (
        Case(
            {'fault_adapter_notification_deviations_total{path="a"}': "0+0.01x1500 15+2x100"},
            {'fault_adapter_notification_deviations_total{path="a"}': "0+2x1700"},
            "1590m",
        ),
        # Where there was nothing on the day before.
        Case({'fault_adapter_reply_deviations_total{operation="a"}': "_x20 1+2x100"}, WELL),
    ),
    "FaultAdapterCallersRefused": (
        Case(
            _grows("callers_refused_total", '{reason="subject"}'), _stays("callers_refused_total", '{reason="subject"}')
        ),
    ),
    "FaultAdapterResolveDeadlineNear": _counts("ticket_deadline_warnings_total", "", 430),
    "FaultAdapterDeadLetters": _counts("dead_letters_total", 'reason="malformed",'),
    "FaultAdapterQuarantine": _counts("quarantined_total", 'reason="doctype",'),
    "FaultAdapterNotificationsTooLarge": (
        *_counts("requests_refused_total", 'status="413",'),
        Case(
            _grows("requests_refused_total", '{status="413"}'),
            _grows("requests_refused_total", '{status="405"}'),
        ),
    ),
    "FaultAdapterKeysMisplaced": _counts("keys_misplaced_total", ""),
    "FaultAdapterEventsUnreadable": (
        *_counts("ticket_events_total", 'result="unreadable",'),
        Case(_grows("ticket_events_total", '{result="misplaced"}'), _grows("ticket_events_total", '{result="late"}')),
    ),
    "FaultAdapterKafkaDown": (
        Case(
            {'fault_adapter_kafka_down{instance="a"}': "1x60"}, {'fault_adapter_kafka_down{instance="a"}': "0x38 1x60"}
        ),
        # Nothing comes that could show it.
        Case(
            {
                'fault_adapter_kafka_down{instance="a"}': "0x60",
                'fault_adapter_kafka_unreachable{instance="a",flow="server"}': "1x60",
            },
            {
                'fault_adapter_kafka_down{instance="a"}': "0x60",
                'fault_adapter_kafka_unreachable{instance="a",flow="server"}': "0x60",
            },
        ),
        Case(
            {'fault_adapter_kafka_unreachable{instance="b",flow="projector"}': "0x30 1x60"},
            {'fault_adapter_kafka_unreachable{instance="b",flow="projector"}': "0 1 0x60"},
        ),
    ),
    "FaultAdapterTopicMisconfigured": (
        Case(
            {'fault_adapter_topics_misconfigured{flow="worker",instance="a"}': "0x30 1x60"},
            {'fault_adapter_topics_misconfigured{flow="worker",instance="a"}': "0x60"},
        ),
    ),
    "FaultAdapterSpoolNotDraining": (
        Case(
            SPOOLED | {'fault_adapter_kafka_down{instance="a"}': "0x60"},
            SPOOLED | {'fault_adapter_kafka_down{instance="a"}': "1x60"},
        ),
    ),
    "FaultAdapterSpoolDamaged": (
        Case(
            {'fault_adapter_spool_damaged{instance="a"}': "1x60"}, {'fault_adapter_spool_damaged{instance="a"}': "0x60"}
        ),
    ),
    "FaultAdapterPartitionPaused": (
        Case(
            {'fault_adapter_partition_paused{partition="1"}': "1x60"},
            {'fault_adapter_partition_paused{partition="1"}': "1x20 0x6 1x60"},
        ),
    ),
    "FaultAdapterTransactionsAbort": (
        Case(
            {'fault_adapter_transactions_total{result="aborted"}': "0+10x60"},
            {'fault_adapter_transactions_total{result="aborted"}': "0+1x60"},
        ),
    ),
    "FaultAdapterWithoutPartitions": (
        Case(
            {'fault_adapter_partitions{flow="projector",instance="a"}': "0x60"},
            {'fault_adapter_partitions{flow="projector",instance="a"}': "0x20 1x60"},
        ),
    ),
    "FaultAdapterRestarts": (
        Case(
            {'process_start_time_seconds{job="j",instance="a"}': "0+60x60"} | OURS,
            # Another product's process.
            {'process_start_time_seconds{job="j",instance="b"}': "0+60x60"} | OURS,
        ),
    ),
    "FaultAdapterNewCertificatesRefused": (
        Case(
            {'fault_adapter_certificates_refused{direction="supplier"}': "1x60"},
            {'fault_adapter_certificates_refused{direction="supplier"}': "0x60"},
        ),
    ),
    "FaultAdapterCertificateExpiresIn30Days": (Case(_certificate(29), _certificate(31)),),
    "FaultAdapterCertificateExpiresIn7Days": (Case(_certificate(6), _certificate(8)),),
    "FaultAdapterCertificateExpiresIn1Day": (Case(_certificate(0.5), _certificate(2)),),
}


def _alerts() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def _in(namespace: str, series: dict[str, str]) -> list[dict[str, str]]:
    """As Prometheus has them of a release in that namespace."""
    label = f'namespace="{namespace}"'
    return [
        {"series": f"{name[:-1]},{label}}}" if name.endswith("}") else f"{name}{{{label}}}", "values": values}
        for name, values in series.items()
    ]


def _judge(rules: Sequence[Path], tests: list[dict[str, Any]], folder: Path) -> None:
    file = folder / "tests.yaml"
    document = {"rule_files": [str(f) for f in rules], "evaluation_interval": "5m", "tests": tests}
    file.write_text(json.dumps(document), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _tests(releases: dict[str, str], calling: str) -> list[dict[str, Any]]:
    """A test for each case: the releases, by namespace, have the series of that name, and the alert calls for one."""
    return [
        {
            "interval": "1m",
            "name": f"{alert} {number}",
            "input_series": [s for namespace, kind in releases.items() for s in _in(namespace, getattr(case, kind))],
            "promql_expr_test": [
                {
                    "expr": f'count by (namespace) (ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": case.at,
                    "exp_samples": [{"labels": f'{{namespace="{calling}"}}', "value": 1}],
                }
            ],
        }
        for alert, cases in CASES.items()
        for number, case in enumerate(cases)
    ]


@pytest.mark.timeout(LIMIT)
@needs_promtool
def test_every_alert_fires_for_the_release_that_needs_it_and_for_no_other(tmp_path: Path) -> None:
    """Several releases are in the sight of one Prometheus, such as one for each environment of the supplier."""
    _judge(RULES, _tests({"ill": "fires", "well": "quiet"}, "ill"), tmp_path)


@pytest.mark.timeout(LIMIT)
@needs_promtool
@needs_helm
def test_a_release_brings_rules_that_judge_it_alone(tmp_path: Path) -> None:
    """Else the rules of three releases would call three times."""
    manifests = render({}, files=(CHART / "examples" / "production.yaml",))
    rules = tmp_path / "rules.yaml"
    rules.write_text(json.dumps(find(manifests, "PrometheusRule", "adapter")["spec"]), encoding="utf-8")
    _judge([rules], _tests({"faults": "fires", "others": "fires"}, "faults"), tmp_path)


@needs_promtool
def test_that_nothing_at_all_is_scraped_is_an_alert(tmp_path: Path) -> None:
    firing = 'ALERTS{alertname="FaultAdapterRoleMissing",alertstate="firing"}'
    expected = {"labels": firing[:-1] + ',severity="critical"}', "value": 1}
    test = {"interval": "1m", "promql_expr_test": [{"expr": firing, "eval_time": "20m", "exp_samples": [expected]}]}
    _judge(RULES, [test | {"input_series": []}], tmp_path)


@needs_promtool
def test_an_alert_says_numbers(tmp_path: Path) -> None:
    test = {
        "interval": "1m",
        "input_series": _in("faults", _certificate(0.5)),
        "alert_rule_test": [
            {
                "eval_time": "20m",
                "alertname": "FaultAdapterCertificateExpiresIn1Day",
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "severity": "critical",
                            "certificate": "supplier-certificate",
                            "namespace": "faults",
                        },
                        "exp_annotations": {
                            "summary": "A certificate expires within 1 day",
                            "description": "The supplier-certificate expires in 11h 40m 0s.",
                            "runbook_url": "docs/runbook.md#faultadaptercertificateexpiresin1day",
                        },
                    }
                ],
            }
        ],
    }
    _judge(RULES, [test], tmp_path)


@needs_promtool
def test_rules_are_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES)], check=False)
    assert done.returncode == 0


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {alert["alert"] for alert in _alerts()}


def test_rules_name_metrics_that_exist() -> None:
    known = {metric.full_name for metric in METRICS if metric.kind is not Kind.HISTOGRAM}
    known |= {
        f"{m.full_name}{end}" for m in METRICS if m.kind is Kind.HISTOGRAM for end in ("_bucket", "_count", "_sum")
    }
    text = "".join(file.read_text(encoding="utf-8") for file in RULES)
    assert set(re.findall(r"fault_adapter_\w+", text)) <= known


def _started() -> dict[tuple[str, str], set[str]]:
    """Every value that a label may have, as the code has them: those that are shown from the start, by metric."""
    metrics = Metrics()
    working.begin(["AddFaultReport"], metrics)
    receiving.begin(metrics)
    projecting.begin(metrics)
    transactions_observer(metrics)
    values: dict[tuple[str, str], set[str]] = {("partitions", "flow"): set(Role)}
    for metric in METRICS:
        if metric.buckets:
            values[f"{metric.name}_bucket", "le"] = set(map(str, metric.buckets))
    shown = metrics.exposition("")[0].decode()
    for name, labels in re.findall(r"^fault_adapter_(\w+)\{(.*)\} ", shown, re.MULTILINE):
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            values.setdefault((name, label), set()).add(value)
    return values


def test_every_value_of_a_label_that_is_selected_is_one_that_the_code_counts() -> None:
    """A selector with another never finds anything, and its alert never fires."""
    dashboard = (CHART / "dashboards" / "fault-adapter.json").read_text(encoding="utf-8")
    shown = [target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel.get("targets", [])]
    text = "".join(file.read_text(encoding="utf-8") for file in RULES)
    chosen = {
        (metric, label, value.replace("(\\\\.0)?", ".0"))
        for metric, selector in re.findall(r"\bfault_adapter_(\w+)\{([^}]*)\}", "\n".join([text, *shown]))
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', selector)
        for value in values.split("|")
        if label != "namespace"
    }
    assert {(metric, label) for metric, label, _ in chosen} >= {("outcomes_total", "outcome"), ("partitions", "flow")}
    known = _started()
    assert [(metric, label, value) for metric, label, value in chosen if value not in known[metric, label]] == []


def test_every_alert_has_severity_words_and_a_section_of_the_runbook() -> None:
    sections = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE))
    for alert in _alerts():
        said = alert["annotations"]
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert "{{" in said["description"] or alert["alert"] in WORDS_ALONE
        assert said["summary"]
        assert said["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
    assert {alert["alert"] for alert in _alerts()} == sections


WORDS_ALONE: Final = {"FaultAdapterNobodyOwnsPartitions", "FaultAdapterSupplierDown"}
"""Whose description has no number to tell."""
