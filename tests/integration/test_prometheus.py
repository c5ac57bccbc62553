"""A real Prometheus, with the rules of the chart, scrapes the whole product while the demo plays."""

import re
import shutil
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.support.helm import CHART
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.wait import eventually

FLOWS = (
    "fault_adapter_commands_received_total",
    "fault_adapter_outcomes_total",
    "fault_adapter_supplier_calls_total",
    "fault_adapter_supplier_call_seconds_count",
    "fault_adapter_command_seconds_count",
    "fault_adapter_transactions_total",
    "fault_adapter_notifications_total",
    "fault_adapter_notification_kinds_total",
    "fault_adapter_notification_seconds_count",
    "fault_adapter_quarantined_total",
    "fault_adapter_ticket_events_total",
    "fault_adapter_tickets",
    "fault_adapter_build_info",
    "process_start_time_seconds",
)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: Debian's package")
async def test_every_flow_is_seen_by_a_real_prometheus(processes: Processes, tmp_path: Path) -> None:
    demo = processes.adapter("demo", "--keep")
    await demo.ready(lambda p: re.search(r"metrics +http://\S+/metrics", p.output))
    target = re.search(r"metrics +http://(\S+)/metrics", demo.output)
    assert target is not None
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(CHART / "rules" / "*.yaml")],
        "scrape_configs": [{"job_name": "fault-adapter", "static_configs": [{"targets": [target[1]]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    processes.start(
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
    )
    async with aiohttp.ClientSession() as client:

        async def ask(path: str, **query: str) -> object:
            try:
                async with client.get(f"http://{address}/api/v1/{path}", params=query) as answer:
                    return (await answer.json()).get("data") if answer.status == 200 else None
            except aiohttp.ClientConnectionError:
                return None

        async def value(name: str) -> float:
            found = await ask("query", query=f"sum({name})")
            results = found["result"] if isinstance(found, dict) else []
            return float(results[0]["value"][1]) if results else 0.0

        async def missing() -> list[str]:
            return [name for name in FLOWS if not await value(name)]

        async def all_there() -> bool:
            return not await missing()

        try:
            await eventually(all_there)
        except AssertionError:
            pytest.fail(f"Prometheus has nothing of {await missing()}")
        for seen_at_zero in (
            'fault_adapter_outcomes_total{operation="AmendFaultReport",outcome="settled-undetermined"}',
            'fault_adapter_dead_letters_total{reason="malformed"}',
            'fault_adapter_quarantined_total{reason="too-deep"}',
            'fault_adapter_ticket_events_total{result="misplaced"}',
        ):
            assert await value(f"{seen_at_zero} == bool 0") == 1, "the first of these would be no growth"
        rules = await ask("rules")
        assert isinstance(rules, dict)
        assert {rule["health"] for group in rules["groups"] for rule in group["rules"]} <= {"ok", "unknown"}
        assert sum(len(group["rules"]) for group in rules["groups"]) > 40
    assert await demo.stop() == 0
