"""`adapter translate`: what comes out is what the flows would send and publish, and nobody is asked for it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from adapter.catalogue import Catalogue
from adapter.cli import main
from adapter.core.avro import from_json, to_json

GOLDEN = Path(__file__).parents[1] / "golden/cityfibre"
COMMANDS = sorted(path.parent for path in GOLDEN.glob("*/*/command.json"))
NOTIFICATIONS = sorted(path.parent for path in GOLDEN.glob("notifications/*/event.json"))
FAULT = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:{code}</faultcode>'
    "<faultstring>not today</faultstring></s:Fault></s:Body></s:Envelope>"
)
OF_THE_MOMENT = {"sentAt", "messageId", "correlationId"}


@pytest.fixture(autouse=True)
def deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker, no registry, no supplier's address."""
    monkeypatch.setenv("ADAPTER_SUPPLIER__BUYER_IDENTIFIER", "SPDEV1")


def command(folder: Path, source: Path, **fields: Any) -> Path:
    """A file as `adapter send` takes it."""
    content = {"command": source.parent.name, **json.loads((source / "command.json").read_text()), **fields}
    file = folder / "command.json"
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return file


def told(document: bytes) -> list[tuple[str, str]]:
    """Names and texts of a message, but for those of the moment."""
    root = etree.fromstring(document)
    message = next((body[0] for body in root.iterfind("{*}Body")), root)
    return [
        (str(element.tag), (element.text or "").strip() if len(element) else (element.text or ""))
        for element in message.iter("*")
        if etree.QName(element).localname not in OF_THE_MOMENT
    ]


def expected(source: Path, compiled: Catalogue) -> tuple[str, dict[str, Any]]:
    """The event of a sample with all its fields."""
    ((name, fields),) = json.loads((source / "event.json").read_text()).items()
    return name, to_json(compiled.events[name], from_json(compiled.events[name], fields))


@pytest.mark.parametrize("source", COMMANDS, ids=lambda source: f"{source.parent.name}-{source.name}")
def test_a_command_becomes_the_request_that_a_worker_would_send(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    own = source / "protocol.json"
    for name, value in (json.loads(own.read_text()) if own.exists() else {}).items():
        monkeypatch.setenv(f"ADAPTER_SUPPLIER__{name.upper()}", value)
    assert main(["translate", str(command(tmp_path, source))]) == 0
    assert told(capfd.readouterr().out.encode()) == told((source / "request.xml").read_bytes())


@pytest.mark.parametrize("source", COMMANDS, ids=lambda source: f"{source.parent.name}-{source.name}")
def test_with_a_reply_it_becomes_the_event_that_it_would_end_with(
    source: Path, compiled: Catalogue, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", str(command(tmp_path, source)), "--reply", str(source / "reply.xml")]) == 0
    event = json.loads(capfd.readouterr().out)
    name, fields = expected(source, compiled)
    of_the_moment = {field: event[field] for field in ("messageId", "occurredAt")}
    assert event["event"] == name
    assert (fields | of_the_moment).items() <= event.items()


@pytest.mark.parametrize("source", NOTIFICATIONS, ids=lambda source: source.name)
def test_a_notification_becomes_the_event_that_a_server_would_publish(
    source: Path, compiled: Catalogue, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", str(source / "notification.xml")]) == 0
    event = json.loads(capfd.readouterr().out)
    name, fields = expected(source, compiled)
    assert (event["event"], event["key"]) == (name, fields["buyerFaultReference"])
    assert (fields | {"receivedAt": event["receivedAt"]}).items() <= event.items()


def test_a_command_against_the_rules_is_told_with_every_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command(tmp_path, GOLDEN / "AddFaultReport/full", serviceAffected=" ", buyerFaultReference=" ")
    assert main(["translate", str(file)]) == 4
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "c-add-2: refused: serviceAffected: " in shown.err
    assert "c-add-2: refused: buyerFaultReference: " in shown.err


def test_a_command_against_a_rule_and_the_schema_is_told_both(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command(tmp_path, GOLDEN / "AddFaultReport/full", serviceAffected=" ", appointment=None)
    assert main(["translate", str(file)]) == 4
    said = capfd.readouterr().err
    assert "refused: appointment.appointmentReservationKey: " in said
    assert "refused: serviceAffected: " in said


def test_a_command_that_a_worker_would_fill_in_from_its_ticket_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command(tmp_path, GOLDEN / "RequestFaultReportUpdate/full", maintainerFaultReference="")
    assert main(["translate", str(file)]) == 4
    assert "maintainerFaultReference: left out: a worker takes it from the ticket" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("status", "code", "event"),
    [("500", "Client", "CommandRejected"), ("500", "Server", "CommandOutcomeUnknown"), ("503", "Server", None)],
)
def test_a_fault_is_judged_with_its_status(
    status: str, code: str, event: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reply = tmp_path / "reply.xml"
    reply.write_text(FAULT.format(code=code))
    file = command(tmp_path, GOLDEN / "AddFaultReport/full")
    given = main(["translate", str(file), "--reply", str(reply), "--status", status])
    shown = capfd.readouterr()
    if event is None:
        assert (given, shown.out) == (4, "")
        assert "a worker would try again (http-503)" in shown.err
    else:
        assert (given, json.loads(shown.out)["event"]) == (0, event)


def test_what_a_server_could_not_read_is_told_with_its_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "body.xml"
    file.write_text(FAULT.format(code="Server"))
    assert main(["translate", str(file), str(NOTIFICATIONS[0] / "notification.xml")]) == 4
    shown = capfd.readouterr()
    assert f"{file}: quarantined: unknown-root: " in shown.err
    assert len(shown.out.splitlines()) == 1  # the other


def test_both_kinds_are_told_apart_by_their_content_also_on_standard_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command(tmp_path, GOLDEN / "AddFaultReport/full")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf \n" + file.read_bytes())))
    assert main(["translate", "-", str(NOTIFICATIONS[0] / "notification.xml")]) == 0
    shown = capfd.readouterr().out
    assert shown.startswith("<!-- POST /addFaultReport, content-type: text/xml")
    assert shown.splitlines()[-1].startswith('{"event": "FaultReportUpdated"')


def test_a_request_means_the_same_as_the_one_that_is_sent_whatever_is_in_its_texts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "a\tb\n\x85c\u2028d\u202ee <&>"
    details = {"type": "IMPAIRED_SERVICE", "description": text}
    assert main(["translate", str(command(tmp_path, GOLDEN / "AddFaultReport/minimal", faultDetails=details))]) == 0
    out = capfd.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert etree.fromstring(out.encode()).findtext(".//description") == text


def test_json_without_a_command_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none.json"
    file.write_text("[]")
    assert main(["translate", str(file), str(NOTIFICATIONS[0] / "notification.xml")]) == 2
    assert capfd.readouterr().err == "adapter: there is no command in the input\n"


def test_everything_that_is_wrong_with_the_input_is_told_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"command": ')
    assert main(["translate", str(broken), str(tmp_path / "missing"), "--status", "99"]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "broken.json, line 1" in shown.err
    assert "missing: No such file" in shown.err
    assert "--status: " in shown.err


def test_a_reply_to_a_notification_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    file = str(NOTIFICATIONS[0] / "notification.xml")
    assert main(["translate", file, "--reply", file]) == 2
    assert "--reply answers commands" in capfd.readouterr().err


def test_what_is_wrong_with_a_file_is_told_without_its_control_characters(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "command.json"
    file.write_text(r'{"\u001b[2J": 1, "\u001b[2J": 2}')
    assert main(["translate", str(file)]) == 2
    assert capfd.readouterr().err == f"adapter: {file}, line 1: \\u001b[2J: is there twice\n"
