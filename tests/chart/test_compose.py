"""compose.yaml: what it sets exists, what it mounts is there."""

import re
from typing import Any, Final

import pytest
import yaml

from adapter.cli import _parser
from adapter.settings import Receiving, Settings, describe, load
from tests.support.helm import CHART

ROOT: Final = CHART.parents[1]
ROLES: Final = ("worker", "server", "projector")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return found


def test_the_settings_start_every_role(services: dict[str, dict[str, Any]]) -> None:
    for role in ROLES:
        environment = services[role]["environment"]
        assert environment.keys() <= {row.variable for row in describe()}
        load(Settings, environment)
        load(Receiving, environment)


def test_the_commands_are_commands(services: dict[str, dict[str, Any]]) -> None:
    for name in (*ROLES, "twin", "topics", "schemas"):
        command = services[name]["command"]
        _parser(command[0]).parse_args(command)


def test_the_roles_are_as_locked_down_as_in_the_chart(services: dict[str, dict[str, Any]]) -> None:
    for role in ROLES:
        assert services[role]["read_only"] is True
        assert services[role]["cap_drop"] == ["ALL"]


def test_rules_and_dashboard_are_where_it_looks(services: dict[str, dict[str, Any]]) -> None:
    for name in ("prometheus", "grafana"):
        (mount,) = services[name]["volumes"]
        folder = ROOT / mount.split(":")[0]
        assert any(folder.iterdir())
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (CHART / "dashboards" / re.sub(".*/", "", home)).is_file()


def test_nothing_is_reachable_from_other_machines(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
