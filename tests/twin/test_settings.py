"""The command line of the twin."""

import argparse
import re
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from adapter.core.errors import Stop
from adapter.twin import Fault, Kind, Rules, TlsFiles, TwinSettings, add_arguments, from_arguments
from tests.support.processes import Processes


def settings(*arguments: str) -> TwinSettings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(arguments))


def test_nothing_said_makes_a_plain_twin_on_the_documented_ports() -> None:
    assert settings() == TwinSettings(port=8444, control_port=8445)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('[{"kind": "reset"}, {"kind": "empty", "times": null}]')
    given = settings(
        *("--host", "::1", "--port", "0", "--base-path", "/prod/api2/", "--control-port", "0"),
        *("--certificate", "a", "--key", "b", "--ca", "c", "--calls", "calls.jsonl", "--speed", "60"),
        *("--faults", str(faults), "--fault", '{"kind": "silence"}', "--resolve-after", "90"),
        *("--reserved-keys-only", "--buyer", "SPDEV1", "--own-message-ids", "--keep-alive", "5"),
    )
    assert given == TwinSettings(
        host="::1",
        port=0,
        base_path="/prod/api2",
        tls=TlsFiles(Path("a"), Path("b"), Path("c")),
        control_port=0,
        calls=Path("calls.jsonl"),
        faults=(Fault(Kind.SILENCE), Fault(Kind.RESET), Fault(Kind.EMPTY, times=None)),
        rules=Rules(speed=60.0, resolve_after=timedelta(seconds=90), reserved_keys_only=True),
        buyer="SPDEV1",
        echo_message_id=False,
        keep_alive=5.0,
    )


def test_all_that_does_not_fit_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(Stop) as stopped:
        settings(
            *("--key", "b", "--latency", "0.1", "--speed", "0", "--fault", "{", "--fault", '{"kind": "x"}'),
            *("--faults", str(tmp_path / "none.json")),
        )
    starts = [line.split(" ")[0].rstrip(":") for line in stopped.value.problems]
    assert sorted(starts) == sorted(["--certificate,", "--latency", "--speed", "--faults", "--fault", "--fault"])


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--port", ["-1", "65536", "99999"]),
        ("--control-port", ["-1", "65536"]),
        ("--host", ["", "a..b", "a" * 64, "a b"]),
        ("--control-host", ["", "a..b"]),
        ("--base-path", ["x", "/a b", "/a?b", "/a//b", "/%61"]),
        ("--speed", ["nan", "inf", "0", "-1", "1e-8", "1e10"]),
        ("--resolve-after", ["nan", "inf", "-1", "1e20"]),
        ("--keep-alive", ["nan", "inf", "-1"]),
        ("--latency", ["nan", "inf", "-1"]),
        ("--repeats", ["nan", "-0.1", "1.1"]),
        ("--disorder", ["nan", "-0.1", "1.1"]),
        ("--dialect-chance", ["nan", "-0.1", "1.1"]),
        ("--notify-attempts", ["0", "-1"]),
        ("--notify-retry", ["nan", "inf", "0", "-1"]),
        ("--notify-url", ["x", "http://", "http://a b/", "http://a..b/", "http://x:0/", "http://x:99999/"]),
        ("--fault", ["[" * 100_000, f'{{"kind": "delay", "seed": {"9" * 5000}}}', '{"kind": "delay", "seconds": NaN}']),
    ],
)
def test_what_is_no_usable_value_is_refused_by_the_name_of_its_option(option: str, values: list[str]) -> None:
    latency = ["--lean"] if option == "--latency" else []
    url = [] if option in ("--latency", "--fault", "--notify-url") else ["--notify-url", "http://x/"]
    for value in values:
        with pytest.raises(Stop) as stopped:
            settings(*latency, *url, f"{option}={value}")
        (problem,) = stopped.value.problems
        assert problem.startswith(f"{option}: "), value


def test_a_lean_twin_has_no_faults_on_demand() -> None:
    assert settings("--lean", "--latency", "0.1").latency == 0.1
    with pytest.raises(Stop, match="--lean"):
        settings("--lean", "--fault", '{"kind": "reset"}')


@pytest.mark.parametrize("lean", [False, True])
async def test_the_command_prints_its_addresses_and_ends_on_sigterm(tmp_path: Path, *, lean: bool) -> None:
    with Processes(tmp_path) as processes:
        twin = processes.adapter("twin", "--port", "0", "--control-port", "0", *(["--lean"] if lean else []))
        await twin.ready(lambda process: "control: " in process.output)
        found = re.search(r"twin: (\S+).*\ncontrol: (\S+)/twin/\n", twin.output)
        assert found
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{found[1]}/addFaultReport", data=b"<x/>") as response:
                assert response.status == (200 if lean else 400)
            async with http.get(f"{found[2]}/twin/summary") as response:
                assert (await response.json())["requests"] == 1
        assert await twin.stop() == 0


async def test_the_command_prints_that_it_listens_on_all_addresses(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        ports = ("--port", "0", "--control-port", "0")
        twin = processes.adapter("twin", "--host", "0.0.0.0", "--control-host", "0.0.0.0", *ports)
        await twin.ready(lambda process: "control: " in process.output)
        assert re.search(r"twin: http://0\.0\.0\.0:\d+\ncontrol: http://0\.0\.0\.0:\d+/twin/\n", twin.output)
