"""`adapter check` as an operator runs it: what is wrong with certificates and with the way to the supplier."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from adapter.app.check import Line, Role, Verdict, check
from adapter.app.check.kafka import broker_line, journal_lines
from adapter.app.check.registry import clock_line
from adapter.cli import main
from adapter.transport.kafka.admin import Found
from adapter.twin.certificates import Pair
from adapter.twin.server import Twin
from adapter.twin.settings import TlsFiles, TwinSettings
from tests.support.certificates import Trials
from tests.support.disk import no_file_beyond
from tests.support.ports import free_port
from tests.support.shut import shut

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Sets what a role needs, nothing of it reachable; then what it is told, by the names without ADAPTER_."""
    for name in [name for name in os.environ if name.startswith("ADAPTER_")]:
        monkeypatch.delenv(name)

    def change(**values: object) -> None:
        usual = {
            "KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
            "REGISTRY__URL": f"http://127.0.0.1:{free_port()}",
            "SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
            "SUPPLIER__BASE_URL": f"https://localhost:{free_port()}",
            "TELEMETRY__PORT": free_port(),
        }
        for name, value in (usual | values).items():
            monkeypatch.setenv(f"ADAPTER_{name}", str(value))

    return change


@pytest.fixture
async def twin(trials: Trials) -> AsyncIterator[Twin]:
    good = trials.good
    async with Twin(TwinSettings(port=0, tls=TlsFiles(good.server_certificate, good.server_key, good.ca))) as running:
        yield running


async def _line(role: Role, subject: str) -> Line:
    """The first line about it; what comes later is not waited for."""
    async with aclosing(check(role)) as lines:
        async for line in lines:
            if line.subject == subject:
                return line
    raise AssertionError(f"nothing is said about {subject}")


def _client(pair: Pair | None = None, *, trials: Trials, **more: object) -> dict[str, object]:
    good = trials.good
    certificate, key = (good.client_certificate, good.client_key) if pair is None else (pair.certificate, pair.key)
    return {
        "SUPPLIER__TLS__CERTIFICATE": certificate,
        "SUPPLIER__TLS__KEY": key,
        "SUPPLIER__TLS__CA": good.ca,
        **more,
    }


async def test_the_supplier_answers_our_certificate(environment: Environment, twin: Twin, trials: Trials) -> None:
    environment(**_client(trials=trials, SUPPLIER__BASE_URL=twin.url))
    line = await _line(Role.WORKER, "supplier")
    assert line.verdict is Verdict.OK
    assert "TLSv1.3" in line.said


async def test_the_supplier_refuses_a_certificate_it_does_not_know(
    environment: Environment, twin: Twin, trials: Trials
) -> None:
    environment(**_client(trials.unknown_client, trials=trials, SUPPLIER__BASE_URL=twin.url))
    line = await _line(Role.WORKER, "supplier")
    assert line.verdict is Verdict.FAILED
    assert "refuses the client certificate" in line.said or "closes the connection" in line.said


async def test_the_supplier_is_another_than_we_trust(environment: Environment, twin: Twin, trials: Trials) -> None:
    environment(**_client(trials=trials, SUPPLIER__BASE_URL=twin.url, SUPPLIER__TLS__CA=trials.unknown_ca))
    line = await _line(Role.WORKER, "supplier")
    assert line.verdict is Verdict.FAILED
    assert "not accepted" in line.said


async def test_nobody_listens_where_the_supplier_should_be(environment: Environment, trials: Trials) -> None:
    environment(**_client(trials=trials))
    line = await _line(Role.WORKER, "supplier")
    assert line.verdict is Verdict.FAILED
    assert "Connection refused" in line.said
    assert "firewall" in line.fix


@pytest.mark.parametrize(
    ("host", "said"),
    [("\u2603.invalid", "can't be used as a web address"), ("stra\u00dfe.invalid", "xn--strae-oqa.invalid:443")],
)
async def test_a_host_that_is_not_ascii_is_what_it_is_for_the_calls(
    environment: Environment, trials: Trials, host: str, said: str
) -> None:
    environment(**_client(trials=trials, SUPPLIER__BASE_URL=f"https://{host}"))
    line = await _line(Role.WORKER, "supplier")
    assert line.verdict is Verdict.FAILED
    assert said in line.said


async def test_through_a_proxy_that_refuses(environment: Environment, trials: Trials) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        environment(**_client(trials=trials, SUPPLIER__PROXY__URL=f"http://127.0.0.1:{port}"))
        line = await _line(Role.WORKER, "supplier")
    assert line.verdict is Verdict.FAILED
    assert "407" in line.said


async def test_a_proxy_that_the_worker_would_not_start_with(
    environment: Environment, trials: Trials, tmp_path: Path
) -> None:
    file = tmp_path / "proxy"
    file.write_text("of nobody")
    url = "http://127.0.0.1:1"
    environment(**_client(trials=trials, SUPPLIER__PROXY__URL=url, SUPPLIER__PROXY__CREDENTIALS=file))
    line = await _line(Role.WORKER, "supplier")
    assert line.verdict is Verdict.FAILED
    assert "has no colon" in line.said
    assert "user:password" in line.fix


def test_secrets_and_authorities_that_can_not_be_used_are_all_told(
    environment: Environment, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xff\xfe")
    environment(
        KAFKA__PROPERTIES_FILES__SASL_PASSWORD=file,
        REGISTRY__CA=file,
        SUPPLIER__PROXY__URL="http://127.0.0.1:1",
        SUPPLIER__PROXY__CREDENTIALS=file,
    )
    assert main(["check", "worker", "--json"]) == 3
    said = {line["subject"]: line for line in json.loads(capsys.readouterr().out)}
    for subject in ("Kafka", "registry", "supplier"):
        assert said[subject]["verdict"] == "failed", subject
        assert said[subject]["fix"], subject


async def test_an_expired_certificate(environment: Environment, trials: Trials) -> None:
    environment(**_client(trials.expired_client, trials=trials))
    line = await _line(Role.WORKER, "supplier certificate")
    assert line.verdict is Verdict.FAILED
    assert "expired" in line.said
    assert line.fix == "renew it"


async def test_a_key_of_another_certificate(environment: Environment, trials: Trials) -> None:
    environment(**_client(trials=trials, SUPPLIER__TLS__KEY=trials.unknown_client.key))
    line = await _line(Role.WORKER, "supplier certificate")
    assert line.verdict is Verdict.FAILED
    assert "is not the key of" in line.said


async def test_a_certificate_that_ends_soon(environment: Environment, trials: Trials) -> None:
    soon = trials.authority.client("soon", valid_for=timedelta(days=20))
    environment(**_client(soon, trials=trials))
    line = await _line(Role.WORKER, "supplier certificate")
    assert line.verdict is Verdict.WARNING
    assert "expires in 19 days" in line.said or "expires in 20 days" in line.said


async def test_a_chain_in_the_wrong_order(environment: Environment, trials: Trials, tmp_path: Path) -> None:
    pair = trials.unknown_client
    broken = tmp_path / "chain.pem"
    broken.write_bytes(pair.certificate.read_bytes() + trials.good.ca.read_bytes())
    environment(**_client(Pair(broken, pair.key), trials=trials))
    line = await _line(Role.WORKER, "supplier certificate")
    assert line.verdict is Verdict.FAILED
    assert "chain is broken" in line.said


async def test_a_servers_certificate_is_no_clients(environment: Environment, trials: Trials) -> None:
    good = trials.good
    environment(**_client(Pair(good.server_certificate, good.server_key), trials=trials))
    line = await _line(Role.WORKER, "supplier certificate")
    assert line.verdict is Verdict.FAILED
    assert "clientAuth" in line.fix


async def test_the_listener_says_by_which_names_it_can_be_called(environment: Environment, trials: Trials) -> None:
    pair = trials.authority.server("long", valid_for=timedelta(days=90))
    files = {"CERTIFICATE": pair.certificate, "KEY": pair.key, "CA": trials.good.ca}
    environment(**{f"SERVER__TLS__{name}": path for name, path in files.items()})
    line = await _line(Role.SERVER, "listener certificate")
    assert line.verdict is Verdict.OK
    assert "localhost" in line.said


async def test_a_listener_that_could_not_start(environment: Environment, trials: Trials, tmp_path: Path) -> None:
    environment(SERVER__TLS__CA=trials.good.ca)
    line = await _line(Role.SERVER, "listener certificate")
    assert line.verdict is Verdict.FAILED
    assert "ADAPTER_SERVER__TLS__CERTIFICATE" in line.said
    assert "ADAPTER_SERVER__ALLOW_PLAINTEXT=true" in line.fix
    environment(SERVER__SPOOL__PATH=tmp_path)
    line = await _line(Role.SERVER, "spool")
    assert line.verdict is Verdict.FAILED
    assert "file" in line.fix


async def test_a_listed_subject_that_nobody_has(environment: Environment) -> None:
    environment(
        SERVER__ALLOW_PLAINTEXT="true",
        SERVER__TRUSTED_PROXIES="192.0.2.0/24",
        SERVER__ALLOWED_SUBJECTS='O="Supplier, Ltd";gateway.example',
    )
    line = await _line(Role.SERVER, "callers")
    assert line.verdict is Verdict.FAILED
    assert 'ADAPTER_SERVER__ALLOWED_SUBJECTS: O="Supplier, Ltd" is no distinguished name' in line.said
    assert r"O=Supplier\, Ltd" in line.fix


async def test_anybody_may_call(environment: Environment, trials: Trials) -> None:
    good = trials.good
    files = {"CERTIFICATE": good.server_certificate, "KEY": good.server_key, "CA": good.ca}
    environment(**{f"SERVER__TLS__{name}": path for name, path in files.items()})
    assert (await _line(Role.SERVER, "callers")).said == "anyone with a certificate of the authorities"
    environment(SERVER__ALLOW_PLAINTEXT="true")
    line = await _line(Role.SERVER, "listener certificate")
    assert (line.verdict, line.fix) == (Verdict.FAILED, "keep one of the two")
    assert (await _line(Role.SERVER, "callers")).said == "anyone at all"


async def test_folders_that_can_not_be_written(environment: Environment, tmp_path: Path) -> None:
    environment(SERVER__ALLOW_PLAINTEXT="true", SERVER__SPOOL__PATH=tmp_path / "missing" / "spool.db")
    line = await _line(Role.SERVER, "spool")
    assert line.verdict is Verdict.FAILED
    for role, setting in ((Role.WORKER, "WORKER__STORE"), (Role.PROJECTOR, "PROJECTOR__STORE")):
        environment(**{setting: tmp_path / "made" / "by" / "itself"})
        assert (await _line(role, "store")).verdict is Verdict.OK
        environment(**{setting: Path(__file__)})
        line = await _line(role, "store")
        assert line.verdict is Verdict.FAILED
        assert f"ADAPTER_{setting}" in line.fix


async def test_folders_on_a_full_disk(environment: Environment, tmp_path: Path) -> None:
    environment(
        SERVER__ALLOW_PLAINTEXT="true",
        SERVER__SPOOL__PATH=tmp_path / "spool.db",
        WORKER__STORE=tmp_path,
        PROJECTOR__STORE=tmp_path,
    )
    for role, subject in ((Role.SERVER, "spool"), (Role.WORKER, "store"), (Role.PROJECTOR, "store")):
        with no_file_beyond(4096):
            line = await _line(role, subject)
        assert line.verdict is Verdict.FAILED
        assert str(tmp_path) in line.said
        assert "make room" in line.fix
        assert (await _line(role, subject)).verdict is Verdict.OK


async def test_folders_that_can_not_be_looked_into(environment: Environment, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    lines = []
    with shut(closed):
        environment(SERVER__ALLOW_PLAINTEXT="true", SERVER__SPOOL__PATH=closed / "spool" / "db")
        lines.append(await _line(Role.SERVER, "spool"))
        environment(PROJECTOR__STORE=closed / "store")
        lines.append(await _line(Role.PROJECTOR, "store"))
    environment(PROJECTOR__STORE=tmp_path / ("x" * 300))
    lines.append(await _line(Role.PROJECTOR, "store"))
    assert [line.verdict for line in lines] == [Verdict.FAILED] * 3
    assert all(line.fix for line in lines)


async def test_a_port_is_taken(environment: Environment) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        environment(TELEMETRY__PORT=taken.getsockname()[1])
        line = await _line(Role.PROJECTOR, "telemetry port")
        assert line.verdict is Verdict.WARNING
        environment(SERVER__PORT=taken.getsockname()[1], SERVER__ALLOW_PLAINTEXT="true")
        line = await _line(Role.SERVER, "listener port")
        assert line.verdict is Verdict.WARNING
        assert "ADAPTER_SERVER__PORT" in line.fix


async def test_a_property_that_kafkas_client_does_not_know_is_told_beside_settings_that_are_wrong(
    environment: Environment,
) -> None:
    environment(SUPPLIER__BASE_URL="supplier", KAFKA__PROPERTIES__SECURITY_PROTCOL="SSL")
    found = {line.subject: line async for line in check(Role.WORKER)}
    assert found.keys() == {"settings", "Kafka"}
    assert "security.protcol" in found["Kafka"].said
    environment(KAFKA__PROPERTIES__SECURITY_PROTCOL="SSL", TOPICS__PARTITIONS="many")
    assert {line.subject async for line in check(Role.WORKER)} == {"settings"}


async def test_a_base_url_that_names_an_operation(environment: Environment, trials: Trials) -> None:
    environment(**_client(trials=trials, SUPPLIER__BASE_URL="https://supplier.example/api2/AddFaultReport/"))
    line = await _line(Role.WORKER, "settings")
    assert line.verdict is Verdict.FAILED
    assert "ADAPTER_SUPPLIER__BASE_URL: ends with /addFaultReport" in line.said


async def test_an_address_to_listen_on_that_is_none_of_this_machine(environment: Environment) -> None:
    environment(TELEMETRY__HOST="192.0.2.1")
    line = await _line(Role.PROJECTOR, "telemetry port")
    assert line.verdict is Verdict.FAILED
    assert "ADAPTER_TELEMETRY__HOST" in line.fix
    environment(SERVER__HOST="nowhere.invalid", SERVER__ALLOW_PLAINTEXT="true")
    line = await _line(Role.SERVER, "listener port")
    assert line.verdict is Verdict.FAILED
    assert "ADAPTER_SERVER__HOST" in line.fix


async def test_nothing_answers(environment: Environment) -> None:
    environment()
    lines = [line async for line in check(Role.PROJECTOR)]
    failed = {line.subject for line in lines if line.verdict is Verdict.FAILED}
    assert failed == {"Kafka", "registry"}
    assert all(line.fix for line in lines if line.verdict is not Verdict.OK)


def test_wrong_settings_are_all_told(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    environment(SUPPLIER__TOTAL_TIMEOUT="soon", TOPICS__PARTITIONS="many")
    assert main(["check", "worker", "--json"]) == 3
    said: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [line["verdict"] for line in said] == ["failed", "failed"]
    assert {line["said"].split(":")[0] for line in said} == {
        "ADAPTER_SUPPLIER__TOTAL_TIMEOUT",
        "ADAPTER_TOPICS__PARTITIONS",
    }
    assert all(line["fix"].startswith("write for example") for line in said)


def test_an_operation_that_does_not_exist_is_told_by_its_setting(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(SUPPLIER__SOAP_ACTIONS__AddFaultReprt="urn:add", SUPPLIER__DOUBT_LIMITS='{"Amend": "1h"}')
    assert main(["check", "worker", "--json"]) == 3
    said: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [(line["subject"], line["verdict"]) for line in said] == [("settings", "failed")] * 2
    assert main(["worker"]) == 2
    told = capsys.readouterr().err
    assert "ADAPTER_SUPPLIER__SOAP_ACTIONS: there is no operation AddFaultReprt; there are AddFaultReport, " in told
    assert "ADAPTER_SUPPLIER__DOUBT_LIMITS: there is no operation Amend; " in told


@pytest.mark.parametrize(
    ("commands", "journal", "verdict"),
    [
        (4 * DAY, 8 * DAY, Verdict.OK),
        (4 * DAY, 8 * DAY - 1, Verdict.FAILED),
        (-1, 8 * DAY, Verdict.FAILED),
        (4 * DAY, -1, Verdict.OK),
        (HOUR, 2 * HOUR, Verdict.FAILED),  # what waits in it would not be written anew in time
        (HOUR, DAY, Verdict.WARNING),  # it would, if a worker ran
        (HOUR, 2 * DAY, Verdict.OK),
    ],
)
def test_the_journal_outlives_the_commands_there_are_and_what_waits_in_it(
    commands: int, journal: int, verdict: Verdict
) -> None:
    def topic(retention: int) -> Found:
        return Found(1, 1, {"retention.ms": str(retention)})

    (line,) = journal_lines({"c": topic(commands), "j": topic(journal)}, "c", "j", timedelta(days=2))
    assert line.verdict is verdict


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        ({"message.timestamp.type": "CreateTime", "message.timestamp.difference.max.ms": "1"}, Verdict.WARNING),
        ({"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "1"}, Verdict.OK),
        (None, Verdict.OK),  # we may not read it
        ({}, Verdict.OK),  # the cluster does not tell
    ],
)
def test_brokers_that_take_late_records_of_aborted_transactions_are_told(
    config: dict[str, str] | None, verdict: Verdict
) -> None:
    assert broker_line(1, {"e": Found(1, 1, config), "t": Found(1, 1, None)}).verdict is verdict


def test_a_journal_that_is_cut_to_a_size_is_not_kept() -> None:
    commands = Found(1, 1, {"retention.ms": str(DAY), "retention.bytes": "1048576"})
    journal = Found(1, 1, {"retention.ms": "-1", "retention.bytes": "1048576"})
    (line,) = journal_lines({"c": commands, "j": journal}, "c", "j", timedelta(days=2))
    assert line.verdict is Verdict.FAILED
    assert "1048576 bytes" in line.said
    assert line.fix.endswith("--alter --entity-type topics --entity-name j --add-config retention.bytes=-1")


def test_a_journal_whose_retention_may_not_be_read_is_told() -> None:
    commands, journal = Found(1, 1, {"retention.ms": str(DAY)}), Found(1, 1, None)
    (line,) = journal_lines({"c": commands, "j": journal}, "c", "j", timedelta(days=2))
    assert line.verdict is Verdict.WARNING
    assert "DESCRIBE_CONFIGS" in line.fix


@pytest.mark.parametrize(("ahead", "verdict"), [(0, Verdict.OK), (-4, Verdict.OK), (60, Verdict.WARNING)])
def test_a_clock_that_differs(ahead: int, verdict: Verdict) -> None:
    now = datetime.now(UTC)
    assert clock_line(now + timedelta(seconds=ahead), now).verdict is verdict
