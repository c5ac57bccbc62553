"""The alerts, judged by promtool: each fires when it should and is quiet when it should be."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from adapter.telemetry.metrics import METRICS, Kind
from tests.support.helm import CHART

RULES: Final = tuple(sorted((CHART / "rules").glob("*.yaml")))
RUNBOOK: Final = CHART.parents[1] / "docs" / "runbook.md"
DAY: Final = 86400
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: Debian's prometheus")


class Case(NamedTuple):
    """Series in promtool's notation, a sample a minute, and how many alerts fire at `at`."""

    series: dict[str, str]
    at: str = "40m"
    fires: int = 1


def _late(metric: str, le: str, share: float, minutes: int = 400) -> dict[str, str]:
    """100 a minute, `share` of them late."""
    return {
        f'fault_adapter_{metric}_seconds_bucket{{le="{le}"}}': f"0+{100 * (1 - share):g}x{minutes}",
        f"fault_adapter_{metric}_seconds_count": f"0+100x{minutes}",
    }


def _counter(name: str, labels: str = "", *, grows: bool) -> dict[str, str]:
    return {f"fault_adapter_{name}{labels}": "0x20 1+1x200" if grows else "7x300"}


def _certificate(days: float) -> dict[str, str]:
    name = "fault_adapter_certificate_not_after_timestamp_seconds"
    return {f'{name}{{certificate="supplier-certificate"}}': f"{days * DAY:g}x60"}


OURS: Final = {'fault_adapter_build_info{job="j",instance="a"}': "1x60"}
WELL: Final = {"fault_adapter_breaker_state": "0x300"}
DOWN: Final = {"fault_adapter_breaker_state": "2 2 1 2 2x300"}
LAG: Final = {'fault_adapter_frontier_lag{partition="1"}': "5x300"}
CASES: Final[dict[str, tuple[Case, Case]]] = {
    "FaultAdapterCommandsLate": (
        Case(_late("command", "60.0", 0.2), "65m"),
        Case(_late("command", "60.0", 0.005), "65m", 0),
    ),
    "FaultAdapterCommandsLateSlowly": (
        Case(_late("command", "60", 0.02, 600), "9h"),
        Case(_late("command", "60", 0.009, 600), "9h", 0),
    ),
    "FaultAdapterNotificationsLate": (
        Case(_late("notification", "2.0", 0.2), "65m"),
        Case(_late("notification", "2.0", 0.005), "65m", 0),
    ),
    "FaultAdapterNotificationsLateSlowly": (
        Case(_late("notification", "2", 0.02, 600), "9h"),
        Case(_late("notification", "2", 0.009, 600), "9h", 0),
    ),
    "FaultAdapterDown": (
        Case({'up{job="fault-adapter",instance="a"}': "0x60", "fault_adapter_build_info": "1x60"}),
        Case({'up{job="fault-adapter",instance="a"}': "1x60", "fault_adapter_build_info": "1x60"}, fires=0),
    ),
    "FaultAdapterNotificationsRefused": (
        Case(_counter("notifications_total", '{result="unavailable"}', grows=True)),
        Case(_counter("notifications_total", '{result="published"}', grows=True), fires=0),
    ),
    "FaultAdapterCommandStuck": (
        Case({'fault_adapter_oldest_unfinished_seconds{partition="1"}': "4000x60", **WELL}),
        Case({'fault_adapter_oldest_unfinished_seconds{partition="1"}': "4000x60", **DOWN}, fires=0),
    ),
    "FaultAdapterConsumerNotMoving": (
        Case({**LAG, **WELL}),
        Case({**LAG, **WELL, **_counter("outcomes_total", '{outcome="accepted"}', grows=True)}, fires=0),
    ),
    "FaultAdapterIntakePaused": (
        Case({'fault_adapter_intake_paused{reason="event-too-large"}': "1x60"}),
        Case({'fault_adapter_intake_paused{reason="event-too-large"}': "0x60"}, fires=0),
    ),
    "FaultAdapterNobodyOwnsPartitions": (
        Case({f'fault_adapter_partitions{{flow="worker",instance="{i}"}}': "0x60" for i in "ab"}),
        Case(
            {
                'fault_adapter_partitions{flow="worker",instance="a"}': "8x60",
                'fault_adapter_partitions{flow="worker",instance="b"}': "0x60",
            },
            fires=0,
        ),
    ),
    "FaultAdapterProjectorBehind": (
        Case({'fault_adapter_tickets_behind_seconds{partition="1"}': "400x60"}),
        Case({'fault_adapter_tickets_behind_seconds{partition="1"}': "2x60"}, fires=0),
    ),
    "FaultAdapterSupplierDown": (Case(DOWN), Case({"fault_adapter_breaker_state": "2 2 0 1 0 2 0x300"}, fires=0)),
    "FaultAdapterSupplierRefusesUs": (
        Case(_counter("supplier_calls_total", '{result="forbidden"}', grows=True)),
        Case(_counter("supplier_calls_total", '{result="rejected"}', grows=True), fires=0),
    ),
    "FaultAdapterDoubtWaits": (
        Case({"fault_adapter_doubts_held": "0x10 2x200"}, "90m"),
        Case({"fault_adapter_doubts_held": "0x10 2x30 0x200"}, "90m", 0),
    ),
    "FaultAdapterUndetermined": (
        Case({'fault_adapter_outcomes_total{outcome="settled-undetermined"}': "_x20 1x200"}),
        Case({'fault_adapter_outcomes_total{outcome="settled-undetermined"}': "3x300"}, "90m", 0),
    ),
    "FaultAdapterDeviationsRise": (
        Case({'fault_adapter_notification_deviations_total{path="a"}': "0+0.01x1500 15+2x100"}, "1590m"),
        Case({'fault_adapter_notification_deviations_total{path="a"}': "0+2x1700"}, "1590m", 0),
    ),
    "FaultAdapterCallersRefused": (
        Case(_counter("callers_refused_total", '{reason="subject"}', grows=True)),
        Case(_counter("callers_refused_total", '{reason="subject"}', grows=False), fires=0),
    ),
    "FaultAdapterResolveDeadlineNear": (
        Case(_counter("ticket_deadline_warnings_total", grows=True)),
        Case(_counter("ticket_deadline_warnings_total", grows=False), fires=0),
    ),
    "FaultAdapterDeadLetters": (
        # The first of a kind makes the series.
        Case({'fault_adapter_dead_letters_total{reason="not-avro"}': "_x30 1x200"}),
        Case(_counter("dead_letters_total", '{reason="not-avro"}', grows=False), fires=0),
    ),
    "FaultAdapterQuarantine": (
        Case({'fault_adapter_quarantined_total{reason="doctype"}': "_x30 1x200"}),
        Case(_counter("quarantined_total", '{reason="doctype"}', grows=False), fires=0),
    ),
    "FaultAdapterKeysMisplaced": (
        Case(_counter("keys_misplaced_total", grows=True)),
        Case(_counter("keys_misplaced_total", grows=False), fires=0),
    ),
    "FaultAdapterEventsUnreadable": (
        Case(_counter("ticket_events_total", '{result="unreadable"}', grows=True)),
        Case(_counter("ticket_events_total", '{result="late"}', grows=True), fires=0),
    ),
    "FaultAdapterKafkaDown": (
        Case({'fault_adapter_kafka_down{instance="a"}': "1x60"}),
        Case({'fault_adapter_kafka_down{instance="a"}': "0x38 1x60"}, fires=0),
    ),
    "FaultAdapterSpoolNotDraining": (
        Case({'fault_adapter_spool_depth{instance="a"}': "9x60", 'fault_adapter_kafka_down{instance="a"}': "0x60"}),
        Case(
            {'fault_adapter_spool_depth{instance="a"}': "9x60", 'fault_adapter_kafka_down{instance="a"}': "1x60"},
            fires=0,
        ),
    ),
    "FaultAdapterSpoolDamaged": (
        Case({'fault_adapter_spool_damaged{instance="a"}': "1x60"}),
        Case({'fault_adapter_spool_damaged{instance="a"}': "0x60"}, fires=0),
    ),
    "FaultAdapterPartitionPaused": (
        Case({'fault_adapter_partition_paused{partition="1"}': "1x60"}),
        Case({'fault_adapter_partition_paused{partition="1"}': "1x20 0x6 1x60"}, fires=0),
    ),
    "FaultAdapterTransactionsAbort": (
        Case({'fault_adapter_transactions_total{result="aborted"}': "0+10x60"}),
        Case({'fault_adapter_transactions_total{result="aborted"}': "0+1x60"}, fires=0),
    ),
    "FaultAdapterWithoutPartitions": (
        Case({'fault_adapter_partitions{flow="projector",instance="a"}': "0x60"}),
        Case({'fault_adapter_partitions{flow="projector",instance="a"}': "0x20 1x60"}, fires=0),
    ),
    "FaultAdapterRestarts": (
        Case({'process_start_time_seconds{job="j",instance="a"}': "0+60x60", **OURS}),
        # Another product's process.
        Case({'process_start_time_seconds{job="j",instance="b"}': "0+60x60", **OURS}, fires=0),
    ),
    "FaultAdapterNewCertificatesRefused": (
        Case({'fault_adapter_certificates_refused{direction="supplier"}': "1x60"}),
        Case({'fault_adapter_certificates_refused{direction="supplier"}': "0x60"}, fires=0),
    ),
    "FaultAdapterCertificateExpiresIn30Days": (Case(_certificate(29)), Case(_certificate(31), fires=0)),
    "FaultAdapterCertificateExpiresIn7Days": (Case(_certificate(6)), Case(_certificate(8), fires=0)),
    "FaultAdapterCertificateExpiresIn1Day": (Case(_certificate(0.5)), Case(_certificate(2), fires=0)),
}


def _alerts() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@needs_promtool
def test_every_alert_fires_when_it_should_and_is_quiet_when_it_should_be(tmp_path: Path) -> None:
    tests = [
        {
            "interval": "1m",
            "name": f"{alert} {'fires' if case.fires else 'is quiet'}",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                    "eval_time": case.at,
                    "exp_samples": [{"labels": "{}", "value": case.fires}],
                }
            ],
        }
        for alert, cases in CASES.items()
        for case in cases
    ]
    file = tmp_path / "tests.yaml"
    file.write_text(
        json.dumps({"rule_files": [str(f) for f in RULES], "evaluation_interval": "5m", "tests": tests}),
        encoding="utf-8",
    )
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_an_alert_says_numbers(tmp_path: Path) -> None:
    document = {
        "rule_files": [str(f) for f in RULES],
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {
                        "series": 'fault_adapter_certificate_not_after_timestamp_seconds{certificate="supplier-ca"}',
                        "values": f"{DAY // 2}x60",
                    }
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "20m",
                        "alertname": "FaultAdapterCertificateExpiresIn1Day",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "critical", "certificate": "supplier-ca"},
                                "exp_annotations": {
                                    "summary": "A certificate expires",
                                    "description": "The supplier-ca expires in 11h 40m 0s.",
                                    "runbook_url": "docs/runbook.md#faultadaptercertificateexpiresin1day",
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps(document), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_rules_are_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES)], check=False)
    assert done.returncode == 0


def test_every_alert_has_two_cases() -> None:
    assert set(CASES) == {alert["alert"] for alert in _alerts()}
    assert all(fires.fires and not quiet.fires for fires, quiet in CASES.values())


def test_rules_name_metrics_that_exist() -> None:
    known = {metric.full_name for metric in METRICS if metric.kind is not Kind.HISTOGRAM}
    known |= {
        f"{m.full_name}{end}" for m in METRICS if m.kind is Kind.HISTOGRAM for end in ("_bucket", "_count", "_sum")
    }
    text = "".join(file.read_text(encoding="utf-8") for file in RULES)
    assert set(re.findall(r"fault_adapter_\w+", text)) <= known


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
