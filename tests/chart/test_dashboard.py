"""The dashboard: every expression parses and names metrics that exist, and every metric is shown."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import yaml

from adapter.telemetry.metrics import METRICS, Kind
from tests.support.helm import CHART

NOT_SHOWN: Final[dict[str, str]] = {}
"""Metrics without a panel, and why."""


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", CHART.parent / "dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def panels(made: ModuleType) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(made.PLACE.read_text(encoding="utf-8"))["panels"]
    return found


def _expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_it_is_the_one_the_code_makes(made: ModuleType) -> None:
    """After a change: make chart-pages."""
    assert made.PLACE.read_text(encoding="utf-8") == made.dashboard()


def test_every_metric_is_shown_or_says_why_not(panels: list[dict[str, Any]]) -> None:
    shown = set(re.findall(r"fault_adapter_\w+", " ".join(_expressions(panels))))
    names = {m.full_name + ("_bucket" if m.kind is Kind.HISTOGRAM else "") for m in METRICS}
    assert shown | NOT_SHOWN.keys() == names


def test_recorded_series_are_recorded(panels: list[dict[str, Any]]) -> None:
    rules = yaml.safe_load((CHART / "rules" / "recording.yaml").read_text(encoding="utf-8"))
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"fault_adapter:[\w:]+", " ".join(_expressions(panels)))) <= recorded


def test_every_series_is_of_the_chosen_namespaces(panels: list[dict[str, Any]]) -> None:
    for expression in _expressions(panels):
        of_ours = expression.removesuffix(" and on (namespace, instance) fault_adapter_build_info")
        after = re.findall(r"\b(?:fault_adapter|process_)[\w:]+(.{0,25})", of_ours)
        assert after
        assert all(rest.startswith('{namespace=~"$namespace"') for rest in after), expression


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: Debian's prometheus")
def test_every_expression_parses(panels: list[dict[str, Any]], tmp_path: Path) -> None:
    variables = {"$__rate_interval": "5m", "$__range": "3h", "$namespace": ".*"}
    rules: list[dict[str, str]] = []
    for expression in _expressions(panels):
        for name, value in variables.items():
            expression = expression.replace(name, value)  # noqa: PLW2901 -- made ready step by step
        assert "$" not in expression
        rules.append({"record": f"panel:{len(rules)}", "expr": expression})
    file = tmp_path / "panels.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap(panels: list[dict[str, Any]]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
