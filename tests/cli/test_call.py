"""`adapter call`: one call to a real twin over mutual TLS, without Kafka, and what is told of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from adapter.cli import main
from adapter.twin import Fault, Kind, Twin, TwinSettings
from adapter.twin.certificates import Certificates
from adapter.twin.settings import TlsFiles
from tests.support.certificates import trials

QUERY: dict[str, Any] = {
    "command": "QueryAppointmentAvailability",
    "commandId": "C-1",
    "addressKey": "A00012345",
    "appointmentsFrom": "2026-03-03",
    "appointmentType": "Repair",
    "productName": "ftthl2r",
}
REPORT: dict[str, Any] = {
    "command": "AddFaultReport",
    "commandId": "C-2",
    "buyerFaultReference": "SP-1",
    "serviceAffected": "S18650",
    "reporterContactDetails": {"name": "Service desk"},
    "endUserContactDetails": {},
    "faultDetails": {"type": "IMPAIRED_SERVICE", "description": "Slow since this morning"},
}

Write = Callable[..., str]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return trials(tmp_path_factory.mktemp("certificates")).good


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(*commands: dict[str, Any]) -> str:
        path = tmp_path / "command.json"
        path.write_text("\n".join(map(json.dumps, commands)))
        return str(path)

    return file


@pytest.fixture
async def twin(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Twin]:
    """The supplier's stand-in. The environment has what a worker needs to call it, and nothing of Kafka."""
    good = certificates
    listening = TlsFiles(good.server_certificate, good.server_key, good.ca)
    async with Twin(TwinSettings(tls=listening)) as supplier:
        monkeypatch.setenv("ADAPTER_SUPPLIER__BUYER_IDENTIFIER", "SPDEV1")
        monkeypatch.setenv("ADAPTER_SUPPLIER__BASE_URL", supplier.url)
        monkeypatch.setenv("ADAPTER_SUPPLIER__TLS__CERTIFICATE", str(good.client_certificate))
        monkeypatch.setenv("ADAPTER_SUPPLIER__TLS__KEY", str(good.client_key))
        monkeypatch.setenv("ADAPTER_SUPPLIER__TLS__CA", str(good.ca))
        yield supplier


async def call(*words: str) -> int:
    return await asyncio.to_thread(main, ["call", *words])


async def test_a_query_shows_request_answer_and_event(
    twin: Twin, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await call(write(QUERY)) == 0
    shown = capfd.readouterr().out
    request, answer = shown.index(f"POST {twin.url}/queryAppointmentAvailability\n"), shown.index("\n200 after ")
    assert request < shown.index("content-type: text/xml; charset=utf-8") < shown.index("A00012345") < answer
    assert answer < shown.index("<receivedQueryAppointmentAvailability>")
    event = json.loads(shown.splitlines()[-1])
    assert (event["event"], event["commandId"]) == ("AppointmentAvailabilityFound", "C-1")
    assert event["reply"]["appointmentSlots"]
    assert len(twin.calls) == 1


async def test_what_changes_something_at_the_supplier_is_sent_with_a_yes_alone(
    twin: Twin, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(REPORT)
    assert await call(file) == 2
    assert capfd.readouterr().err == (
        "adapter: AddFaultReport changes something at the supplier, and nobody but you will know; add --yes\n"
    )
    assert not twin.calls
    assert await call(file, "--yes") == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["event"] == "FaultReportAdded"
    assert [called.operation for called in twin.calls] == ["addFaultReport"]


async def test_a_refusal_is_shown_and_is_no_success(
    twin: Twin, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    twin.inject(Fault(Kind.REFUSE, code="23", text="unknown address"))
    assert await call(write(QUERY)) == 4
    event = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (event["event"], event["rejectedBy"], event["code"]) == ("CommandRejected", "SUPPLIER", "23")


async def test_an_answer_that_is_no_reply_is_shown_and_saved_as_it_came(
    twin: Twin, write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    twin.inject(Fault(Kind.ENCODING))
    saved = tmp_path / "reply.bin"
    assert await call(write(QUERY), "--save", str(saved)) == 4
    told = capfd.readouterr()
    assert "\n200 after " in told.out
    assert told.err == "adapter: C-1: no event yet: a worker would try again (unexpected-body)\n"
    assert b"\xff" in saved.read_bytes()


async def test_of_an_answer_that_breaks_off_its_head_is_shown_and_the_doubt_told(
    twin: Twin, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    twin.inject(Fault(Kind.TRUNCATED))
    assert await call(write(REPORT), "--yes") == 4
    told = capfd.readouterr()
    assert "\n200 after " in told.out
    assert "adapter: C-2: sent, but no whole answer came: " in told.err
    assert json.loads(told.out.splitlines()[-1])["event"] == "CommandOutcomeUnknown"


async def test_a_supplier_that_is_not_trusted_gets_nothing_and_is_told_with_the_reason(
    twin: Twin, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_SUPPLIER__TLS__CA", str(trials(tmp_path).unknown_ca))
    assert await call(write(QUERY)) == 1
    assert "adapter: C-1: not sent: tls: " in capfd.readouterr().err
    assert not twin.calls


async def test_where_the_answer_can_t_be_saved_no_call_is_made(
    twin: Twin, write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "missing" / "reply.xml"
    assert await call(write(QUERY), "--save", str(folder)) == 2
    assert capfd.readouterr().err == f"adapter: --save {folder}: No such file or directory\n"
    assert not twin.calls


async def test_a_command_that_breaks_a_rule_is_not_sent(
    twin: Twin, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await call(write({**REPORT, "serviceAffected": " "}), "--yes") == 4
    assert "adapter: C-2: refused: serviceAffected: " in capfd.readouterr().err
    assert not twin.calls


async def test_a_command_is_not_sent_after_its_deadline(
    twin: Twin, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await call(write(REPORT | {"notAfter": "2026-01-31T12:00:00Z"}), "--yes") == 4
    assert capfd.readouterr().err == "adapter: C-2: refused: notAfter: has passed; a worker sends nothing after it\n"
    assert not twin.calls
    assert await call(write(REPORT | {"notAfter": "9999-01-31T12:00:00Z"}), "--yes") == 0


async def test_one_command_is_sent_at_a_time(twin: Twin, write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    assert await call(write(QUERY, {**QUERY, "commandId": "C-3"})) == 2
    assert capfd.readouterr().err == "adapter: there are 2 commands in the input; one is sent at a time\n"
    assert not twin.calls


def test_it_needs_the_address_of_the_supplier_and_nothing_of_kafka(
    write: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAPTER_SUPPLIER__BUYER_IDENTIFIER", "SPDEV1")
    assert main(["call", write(QUERY)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("adapter: ADAPTER_SUPPLIER__BASE_URL: is missing")
