"""Notifications as they come over HTTP: read whatever their dialect, refused with a reason, never an exception."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from adapter.core.avro import Decoder, Encoder, to_json, unframe
from adapter.core.errors import Stop
from adapter.core.mapping import Deviation, ValueClass
from adapter.core.notification import (
    LIMITS,
    REASONS,
    REFERENCE_LIMIT,
    Delivery,
    Readable,
    Refusal,
    compile_notification,
    content_hash,
    hints,
    notification_id,
    without_positions,
)
from adapter.core.operation import Notification
from adapter.core.soap import SOAP_1_1, SOAP_1_2, Version
from adapter.suppliers.cityfibre_notifications import NOTIFICATION
from tests.core import test_answer
from tests.strategies import elements, xml_text
from tests.support.known import known

GOLDEN = Path(__file__).parents[1] / "golden" / "cityfibre" / "notifications"
KNOWN = known()
READER = KNOWN.notification.reader
ENCODER = Encoder(KNOWN.notification.event, 7)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BUYERS = frozenset({"SPDEV1"})

SAMPLES = {
    "appointment-cancelled": "61fbb2522467be029598736b684a2c53dbd370aea838cca2a1f541e3657a0863",
    "appointment-completed": "4095a1442d276e4508c41c2216cf92a3119c5ebca989db0a52e5bc6ae49cebfa",
    "appointment-confirmation": "b49784d55ad47ab593409a9b0602625d9981fc01dbd684ba0705c9d262054f86",
}
"""SHA-256 of the samples as they are published."""


def sample(name: str = "appointment-cancelled") -> bytes:
    return (GOLDEN / name / "notification.xml").read_bytes()


def deliver(body: bytes | str, **http: Any) -> Readable | Refusal:
    data = body if isinstance(body, bytes) else body.encode()
    return READER.read(Delivery(body=data, received_at=NOW, **http), buyers=BUYERS)


def readable(body: bytes | str, **http: Any) -> Readable:
    found = deliver(body, **http)
    assert isinstance(found, Readable), found
    ENCODER.encode(found.record)  # whatever is read can be written
    return found


def refusal(body: bytes | str, **http: Any) -> Refusal:
    found = deliver(body, **http)
    assert isinstance(found, Refusal), found
    assert found.reason in REASONS
    return found


def changed(change: Callable[[etree._Element], None], name: str = "appointment-cancelled") -> bytes:
    """A published sample with something done to it."""
    root = etree.fromstring(sample(name))
    change(root)
    return etree.tostring(root)


def setting(path: str, text: str | None) -> Callable[[etree._Element], None]:
    """Gives an element another text; None takes it out."""

    def change(root: etree._Element) -> None:
        found = root.find(path)
        assert found is not None
        if text is None:
            parent = found.getparent()
            assert parent is not None
            parent.remove(found)
        else:
            found.text = text

    return change


def plain(change: Callable[[etree._Element], None] = lambda _: None) -> bytes:
    """A notification that strays nowhere."""

    def straighten(root: etree._Element) -> None:
        setting("maintainerFaultReference", "CF-778899")(root)
        setting("faultDetails/type", "Service Outage")(root)
        change(root)

    return changed(straighten)


def strays(found: Readable) -> dict[str, str]:
    return {deviation.path: deviation.what for deviation in found.deviations}


def aside(found: Readable) -> list[tuple[str, str]]:
    return [(each["path"], each["text"]) for each in found.record["unknownElements"]]


# -- the published samples


@pytest.mark.parametrize(("name", "digest"), SAMPLES.items())
def test_a_published_sample_byte_for_byte(name: str, digest: str) -> None:
    assert hashlib.sha256(sample(name)).hexdigest() == digest
    found = readable(sample(name))
    ((record, expected),) = json.loads((GOLDEN / name / "event.json").read_text()).items()
    assert (KNOWN.notification.event.name, to_json(KNOWN.notification.event, found.record)) == (record, expected)


def test_the_published_samples_share_message_id_and_reference_and_are_three_messages() -> None:
    found = [readable(sample(name)) for name in SAMPLES]
    assert {(each.message_id, each.reference) for each in found} == {("CF-00003", "SP-123ABC")}
    assert len({each.id for each in found}) == len(SAMPLES)


def test_an_event_comes_back_from_its_bytes() -> None:
    found = readable(plain())
    event = KNOWN.notification.event
    identifier, payload = unframe(ENCODER.encode(found.record))
    assert identifier == 7
    back = Decoder(event.text, [event]).decode(payload).record
    assert back == found.record
    assert (back["kind"], back["receivedAt"], back["buyerFaultReference"]) == (found.kind, NOW, found.reference)


def test_a_message_as_documented_has_no_deviations() -> None:
    found = readable(plain())
    assert (found.deviations, found.strayed, found.unknown, aside(found)) == ((), frozenset(), 0, [])
    assert found.record["maintainerFaultReference"] == "CF-778899"


# -- the contradictions of docs/contract.md, section 8, that concern what comes in; each by its number


def test_2_an_incident_type_that_is_none_of_the_three() -> None:
    found = readable(sample())
    assert found.record["report"]["faultDetails"]["type"] == "Fault"
    assert strays(found)["faultDetails.type"] == "not a documented incident type"


def test_3_a_status_that_no_table_has_and_one_that_is_missing() -> None:
    assert readable(sample()).record["status"] == "IN_PROGRESS"
    found = readable(plain(setting("faultDetails/status", None)))
    assert (found.record["status"], found.deviations) == (None, ())


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("in-progress", "IN_PROGRESS"),
        ("In Progress", "IN_PROGRESS"),
        ("on-hold", "ON_HOLD"),
        ("On Hold", "ON_HOLD"),
        ("Re-Opened", "RE_OPENED"),
        ("reopened", "RE_OPENED"),
        ("\n  RESOLVED\n", "RESOLVED"),
    ],
)
def test_4_statuses_in_every_spelling(text: str, status: str) -> None:
    assert readable(plain(setting("faultDetails/status", text))).record["status"] == status


def test_5_the_samples_say_in_progress_whatever_happened() -> None:
    assert [(name, readable(sample(name)).kind) for name in SAMPLES] == [
        ("appointment-cancelled", "APPOINTMENT_CANCELLED"),
        ("appointment-completed", "APPOINTMENT_COMPLETED"),
        ("appointment-confirmation", "IN_PROGRESS"),  # it names no outcome, see 9
    ]


def test_6_without_sent_at() -> None:
    found = readable(plain(setting("sentAt", None)))
    assert (found.record["supplierSentAt"], found.deviations) == (None, ())


@pytest.mark.parametrize(
    "text",
    [
        *("(Not in report; only after creation)", "(not in report;\n only after creation)", "", "  "),
        *("Not in report, only after creation", "TBC", "N/A", "n.a.", "-", "(none)"),
    ],
)
def test_7_a_placeholder_or_nothing_is_no_maintainer_reference(text: str) -> None:
    found = readable(plain(setting("maintainerFaultReference", text)))
    assert found.record["maintainerFaultReference"] is None
    assert found.strayed == ({"maintainerFaultReference"} if text.strip() else set())
    assert not (found.record["report"]["maintainerFaultReference"] or "").strip()


def test_7_a_maintainer_reference_is_trimmed() -> None:
    found = readable(plain(setting("maintainerFaultReference", "\n  CF-1\n")))
    assert found.record["maintainerFaultReference"] == "CF-1"


@pytest.mark.parametrize("text", ["NA-1", "0", "TBC1", "Pending 5", "\u7121"])
def test_7_what_only_resembles_a_placeholder_is_a_reference(text: str) -> None:
    found = readable(plain(setting("maintainerFaultReference", text)))
    assert (found.record["maintainerFaultReference"], found.strayed) == (text, frozenset())


def test_8_an_empty_parent_reference() -> None:
    found = readable(plain(setting("parentFaultReference", "")))
    assert (found.record["report"]["parentFaultReference"], found.deviations) == ("", ())
    assert strays(readable(plain(setting("parentFaultReference", None)))) == {"parentFaultReference": "missing"}


def test_9_confirmed_or_failed_is_neither() -> None:
    found = readable(sample("appointment-confirmation"), path="/notifyAppointmentConfirmation")
    assert found.record["report"]["appointments"][0]["appointmentConfirmationStatus"] is None
    assert (
        Deviation("appointments[0].appointmentConfirmationStatus", "a placeholder", ValueClass.PLACEHOLDER)
        in found.deviations
    )
    for text, kind in (("Confirmed", "APPOINTMENT_CONFIRMED"), ("failed", "APPOINTMENT_FAILED")):
        path = "appointments/appointment/appointmentConfirmationStatus"
        assert readable(changed(setting(path, text), "appointment-confirmation")).kind == kind


@pytest.mark.parametrize("text", ["None", "-", "TBC", "null", " n/a "])
def test_9_a_closure_code_that_stands_for_nothing_does_not_end_the_appointment(text: str) -> None:
    path = "appointments/appointment/appointmentClosureCode"
    found = readable(changed(setting(path, text), "appointment-completed"))
    assert (found.kind, found.record["closureCode"]) == ("APPOINTMENT_CONFIRMED", None)
    assert strays(found)["appointments[0].appointmentClosureCode"] == "a placeholder"


@pytest.mark.parametrize("text", ["NA", "Unknown", "ONT"])
def test_9_and_one_that_only_resembles_it_does(text: str) -> None:
    path = "appointments/appointment/appointmentClosureCode"
    found = readable(changed(setting(path, text), "appointment-completed"))
    assert (found.kind, found.record["closureCode"]) == ("APPOINTMENT_COMPLETED", text.upper())


def test_10_contacts_with_parts_missing_and_in_any_order() -> None:
    def turn(root: etree._Element) -> None:
        contact = root.find("reporterContactDetails")
        assert contact is not None
        contact[:] = sorted(contact, key=lambda part: str(part.tag), reverse=True)

    found = readable(plain(turn))
    report = found.record["report"]
    assert report["reporterContactDetails"] == {"name": "Joe", "phone": "1234", "email": "joe.smith@example.com"}
    assert report["endUserContactDetails"] == {"name": None, "phone": "1234", "email": "rp@example.com"}
    assert report["faultDetails"]["siteAccessContactDetails"] == {"name": None, "phone": "12345", "email": None}
    assert found.deviations == ()


MOMENT = datetime(2018, 6, 9, 11, 15, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment", "strays_by"),
    [
        ("2018-06-09T11:15:17.0001Z", MOMENT, None),  # 25 characters
        ("2018-06-09T11:15:17Z", MOMENT, None),
        ("2018-06-09T12:15:17+01:00", MOMENT, None),  # 25 characters
        ("2018-06-09T12:15:17.0001+01:00", MOMENT, None),  # 30
        ("2018-06-09T11:15:17.123456789Z", MOMENT + timedelta(milliseconds=123), None),
        ("2018-06-09T11:15:17.5Z", MOMENT + timedelta(milliseconds=500), None),
        ("2018-06-09T11:15Z", MOMENT - timedelta(seconds=17), None),
        ("2018-06-09T12:15:17+01", MOMENT, None),
        ("2018-06-09T01:45:17-0930", MOMENT, None),
        ("2018-06-09T23:15:17+12:00", MOMENT, None),
        ("2018-06-08T24:00Z", datetime(2018, 6, 9, tzinfo=UTC), None),
        ("2018-06-09 11:15:17Z", MOMENT, None),
        ("\n 2018-06-09T11:15:17Z ", MOMENT, None),
        ("2018-06-09T12:15:17", MOMENT, "no offset, taken for Europe/London"),  # summer time there
        ("2018-01-09T11:15:17", datetime(2018, 1, 9, 11, 15, 17, tzinfo=UTC), "no offset, taken for Europe/London"),
        ("", None, "is empty"),
        ("yesterday", None, "not a time"),
        ("2018-06-09T25:15:17Z", None, "not a time"),
        ("2018-06-08T24:00:00.5Z", None, "not a time"),
    ],
)
def test_11_12_times_of_any_precision_with_or_without_offset(
    text: str, moment: datetime | None, strays_by: str | None
) -> None:
    found = readable(plain(setting("sentAt", text)))
    assert found.record["supplierSentAt"] == moment
    assert strays(found) == ({"sentAt": strays_by} if strays_by else {})
    assert aside(found) == ([("sentAt", text)] if text and moment is None else [])


def test_12_a_zone_of_ones_own_for_times_without_offset() -> None:
    reader = compile_notification(KNOWN.xsd, NOTIFICATION, KNOWN.notification.event, zone=ZoneInfo("Europe/Berlin"))
    body = plain(setting("reportDateTime", "2018-06-09T13:15:17"))
    found = reader.read(Delivery(body=body, received_at=NOW), buyers=BUYERS)
    assert isinstance(found, Readable)
    assert found.record["report"]["reportDateTime"] == MOMENT


def test_13_texts_over_several_lines_are_folded() -> None:
    fault = readable(sample()).record["report"]["faultDetails"]
    assert fault["faultLocation"] == "500 Avebury Boulevard, Milton Keynes MK1 3XX"
    assert fault["description"] == (
        "Initial fault description goes here. Updates should be appended to the updates list."
    )


ENTRY = {"description": "Added image.jpg", "updatedBy": "buyer", "updatedTime": "2018-06-09T15:11:11.0001Z"}


def unwrap_items(root: etree._Element) -> None:
    """Items stand where their wrapper stood."""
    for wrapper in (*root.iterfind("updates"), *root.iterfind("appointments")):
        parent = wrapper.getparent()
        assert parent is not None
        for item in wrapper:
            wrapper.addprevious(item)
        parent.remove(wrapper)


def drop_items(root: etree._Element) -> None:
    """The wrapper itself is the item, as the tables have it."""
    for wrapper in (*root.iterfind("updates"), *root.iterfind("appointments")):
        wrapper[:] = list(wrapper[0])


@pytest.mark.parametrize("dialect", [unwrap_items, drop_items])
def test_14_lists_with_and_without_wrapper(dialect: Callable[[etree._Element], None]) -> None:
    usual, found = readable(plain()), readable(plain(dialect))
    assert found.kind == usual.kind == "APPOINTMENT_CANCELLED"
    assert found.record["report"] == usual.record["report"]
    assert found.record["report"]["updates"] == [ENTRY]
    assert {path.partition("[")[0] for path in strays(found)} == {"updates", "appointments"}
    assert aside(found) == []
    assert usual.deviations == ()


def test_14_lists_in_several_wrappers() -> None:
    def twice(root: etree._Element) -> None:
        second = etree.SubElement(root, "updates")
        etree.SubElement(etree.SubElement(second, "update"), "description").text = "two"

    found = readable(plain(twice))
    assert [entry["description"] for entry in found.record["report"]["updates"]] == ["Added image.jpg", "two"]
    assert (strays(found), aside(found)) == ({"updates": "more than once, all are taken"}, [])


def test_14_an_empty_and_a_missing_list() -> None:
    def empty(root: etree._Element) -> None:
        root.find("updates")[:] = []  # type: ignore[index]  # the sample has it
        setting("appointments", None)(root)

    found = readable(plain(empty))
    assert (found.record["report"]["updates"], found.record["report"]["appointments"]) == ([], [])
    assert found.deviations == ()
    missing = readable(plain(setting("updates", None)))
    assert (missing.record["report"]["updates"], strays(missing)) == ([], {"updates": "missing"})


@pytest.mark.parametrize(
    "empty", ["<appointment/>", "<appointment>\n<appointmentDate/><appointmentCancelled/></appointment>"]
)
def test_14_an_appointment_that_holds_nothing_is_none(empty: str) -> None:
    found = readable(plain(lambda root: root.find("appointments").append(etree.fromstring(empty))))  # type: ignore[union-attr]  # the sample has it
    assert (found.kind, len(found.record["report"]["appointments"])) == ("APPOINTMENT_CANCELLED", 1)
    assert strays(found) == {"appointments[1]": "holds nothing"}


def test_15_what_the_tables_have_and_the_samples_have_not() -> None:
    def fill(root: etree._Element) -> None:
        fault = root.find("faultDetails")
        assert fault is not None
        etree.SubElement(fault, "triageComplete").text = "true"
        etree.SubElement(fault, "triageFindings").text = "no light\n at the ONT"
        missed = etree.SubElement(fault, "missedAppointment")
        etree.SubElement(missed, "reason").text = "nobody"
        etree.SubElement(missed, "note").text = "at home"
        setting("appointments", None)(root)

    found = readable(plain(fill))
    fault = found.record["report"]["faultDetails"]
    assert (fault["triageComplete"], fault["triageFindings"]) == (True, "no light at the ONT")
    assert fault["missedAppointment"] == "nobody at home"
    assert (found.kind, found.deviations) == ("MISSED_APPOINTMENT", ())


def test_15_attachments_nobody_has_described() -> None:
    def attach(root: etree._Element) -> None:
        attachment = etree.SubElement(etree.SubElement(root, "attachments"), "attachment")
        etree.SubElement(attachment, "name").text = "image.jpg"
        etree.SubElement(attachment, "size").text = "12"

    found = readable(plain(attach))
    assert found.unknown == 1
    assert aside(found) == [("attachments.attachment.name", "image.jpg"), ("attachments.attachment.size", "12")]


@pytest.mark.parametrize("text", ["CF-00003", "", None])
def test_16_a_message_id_in_any_form(text: str | None) -> None:
    found = readable(plain(setting("messageId", text)))
    assert found.message_id == text
    assert set(strays(found)) == (set() if text else {"messageId"})


def test_17_18_dates_that_make_no_sense_together() -> None:
    found = readable(sample())
    assert found.record["report"]["appointments"][0]["appointmentDate"] == date(2012, 1, 20)
    assert "appointmentDate" not in str(found.strayed)
    assert readable(plain(setting("sentAt", "2030-01-01T00:00:00Z"))).record["receivedAt"] == NOW


def test_19_a_contact_has_no_format() -> None:
    found = readable(plain(setting("reporterContactDetails/email", "see the front desk")))
    assert (found.record["report"]["reporterContactDetails"]["email"], found.deviations) == ("see the front desk", ())


def test_21_a_fault_is_no_notification() -> None:
    for fault in ("<fault><faultcode>x</faultcode><faultmessage>y</faultmessage></fault>", "<Fault/>"):
        assert refusal(fault).reason == "unknown-root"


def test_27_a_visit_that_is_cancelled_in_another_word_is_not_told_as_confirmed() -> None:
    path = "appointments/appointment/appointmentCancelled"
    found = readable(changed(setting(path, "Yes"), "appointment-cancelled"))
    assert found.kind == "APPOINTMENT_CANCELLED"
    assert strays(found)["appointments[0].appointmentCancelled"] == "a word, taken for true or false"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/notifyAmended", "AMENDED"),
        ("/webhooks/fault-report/notifyAmended", "AMENDED"),
        ("/amendment/notifyfaultreportupdateamended.yaml", "AMENDED"),
        ("/amendment/notifyfaultreportupdatemissedappointmentamended.yaml", "AMENDED"),
        ("/faultreport/notifyInProgress", "IN_PROGRESS"),
        ("/anything?x=/notifyAmended", "IN_PROGRESS"),
    ],
)
def test_29_30_page_and_group_names_mix_topics_and_are_hints_at_most(path: str, kind: str) -> None:
    assert readable(plain(setting("appointments", None)), path=path).kind == kind
    assert readable(plain(), path=path).kind == "APPOINTMENT_CANCELLED"


@pytest.mark.parametrize("version", ["1.0", "1.1", "2", "v1.1-beta"])
def test_33_any_api_version(version: str) -> None:
    found = readable(plain(setting("apiVersion", version)))
    assert (found.record["report"]["apiVersion"], found.deviations) == (version, ())


NOT_INBOUND = {
    20: "replies",
    22: "commands",
    23: "commands",
    24: "replies",
    25: "commands",
    26: "commands",
    27: "commands",
    28: "commands",
    31: "no message",
    32: "no message",
}
"""Of the contradictions of section 8: what else they are about."""


def test_every_contradiction_about_inbound_messages_has_a_test_that_names_it() -> None:
    tests = [name for module in (globals(), vars(test_answer)) for name in module if name.startswith("test_")]
    named = {int(number) for name in tests for number in re.findall(r"(?<=_)[0-9]+(?=_)", name)}
    assert {number for number in range(1, 34) if number not in NOT_INBOUND} <= named


# -- what HTTP says


def test_hints_come_from_path_soap_action_and_action() -> None:
    delivery = Delivery(
        body=b"",
        received_at=NOW,
        path="/hook?tenant=1",
        soap_action='"notifyAmended"',
        content_type='application/soap+xml; charset=utf-8; action="urn:x#notifyInProgress"',
    )
    assert hints(delivery) == ("/hook", '"notifyAmended"', "urn:x#notifyInProgress")
    assert hints(Delivery(body=b"", received_at=NOW)) == ("/",)


def test_the_soap_action_is_a_hint_too() -> None:
    body = plain(setting("appointments", None))
    assert readable(body, soap_action='"/notifyAmended"').kind == "AMENDED"
    assert readable(body, content_type='application/soap+xml; action="notifyAmended"').kind == "AMENDED"


TEXT = plain().decode()
LATIN = TEXT.replace("Joe", "Jo\xe9")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (LATIN.encode(), "text/xml"),
        (LATIN.encode(), "text/xml; charset=utf-8"),
        (b"\xef\xbb\xbf" + LATIN.encode(), None),
        (LATIN.encode("utf-16"), "application/xml"),
        (LATIN.encode("utf-16-be"), "text/xml; charset=utf-16be"),
        (b"<?xml version='1.0' encoding='ISO-8859-1'?>" + LATIN.encode("latin-1"), "application/xml"),
        (LATIN.encode("latin-1"), 'text/xml; charset="ISO-8859-1"'),
    ],
)
def test_every_encoding_that_is_spoken_says_the_same(body: bytes, content_type: str | None) -> None:
    found = readable(body, content_type=content_type)
    assert found.record["report"]["reporterContactDetails"]["name"] == "Jo\xe9"
    assert (found.id, found.deviations) == (readable(LATIN).id, ())


def test_bytes_that_are_not_the_utf_8_they_are_said_to_be_are_a_deviation() -> None:
    found = readable(b"<?xml version='1.0' encoding='UTF-8'?>" + LATIN.encode("cp1252"))
    assert found.record["report"]["reporterContactDetails"]["name"] == "Jo\xe9"
    assert found.record["deviations"] == [
        {"path": "", "what": "holds bytes that are not UTF-8, read as Windows-1252", "valueClass": "text"}
    ]
    assert found.id == readable(LATIN).id


def enveloped(text: str, namespace: str) -> str:
    head = "<w:Security xmlns:w='urn:w'><w:Token>1</w:Token></w:Security>"
    return f"<e:Envelope xmlns:e='{namespace}'><e:Header>{head}</e:Header><e:Body>{text}</e:Body></e:Envelope>"


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (TEXT, Version.NONE),
        (enveloped(TEXT, SOAP_1_1), Version.SOAP_1_1),
        (enveloped(TEXT, SOAP_1_2), Version.SOAP_1_2),
        (enveloped(TEXT, "urn:odd"), Version.OTHER),
    ],
)
def test_every_envelope_and_none_says_the_same(body: str, version: Version) -> None:
    found = readable(body)
    assert found.version is version
    assert (found.id, found.record) == (readable(TEXT).id, readable(TEXT).record)


def test_any_prefix_and_namespace_is_read_and_told() -> None:
    text = re.sub(r"<(/?)", r"<\1n:", TEXT).replace(
        "<n:notifyFaultReportUpdate", "<n:notifyFaultReportUpdate xmlns:n='urn:n'", 1
    )
    found = readable(text)
    assert found.record["report"] == readable(TEXT).record["report"]
    assert found.id == readable(TEXT).id
    assert found.record["deviations"] == [{"path": "", "what": "in another namespace", "valueClass": "elements"}]


@pytest.mark.parametrize("name", ["NotifyFaultReportUpdate", "notifyfaultreportupdate"])
def test_the_name_of_the_message_in_other_letters_as_the_text_of_the_pages_has_it(name: str) -> None:
    usual = readable(plain())
    found = readable(plain().replace(b"notifyFaultReportUpdate", name.encode()))
    assert (found.id, found.record["report"]) == (usual.id, usual.record["report"])
    assert strays(found) == {"": "its name in other letters"}


def test_children_in_any_order() -> None:
    def turn(root: etree._Element) -> None:
        root[:] = list(reversed(root))

    found = readable(plain(turn))
    assert (found.record["report"], found.deviations) == (readable(TEXT).record["report"], ())


# -- nothing is dropped


def test_what_has_no_place_is_kept_aside_as_text() -> None:
    def stray(root: etree._Element) -> None:
        etree.SubElement(root, "priority").text = "\n P1 "
        etree.SubElement(root, "{urn:x}score").text = "7"
        etree.SubElement(root, "nothing")
        etree.SubElement(root, "serviceAffected").text = "S2"
        fault = root.find("faultDetails")
        assert fault is not None
        fault.tail = "loose"
        etree.SubElement(fault, "triageComplete").text = "perhaps"
        diagnostics = etree.SubElement(fault, "supplierDiagnostics")
        diagnostics.text = "at noon"
        etree.SubElement(diagnostics, "ont").text = "up"
        etree.SubElement(diagnostics, "cfm").text = "down"

    found = readable(plain(stray))
    assert sorted(aside(found)) == [
        ("", "loose"),
        ("faultDetails.supplierDiagnostics", "at noon"),
        ("faultDetails.supplierDiagnostics.cfm", "down"),
        ("faultDetails.supplierDiagnostics.ont", "up"),
        ("faultDetails.triageComplete", "perhaps"),
        ("priority", "P1"),
        ("score", "7"),
        ("serviceAffected", "S2"),
    ]
    assert found.unknown == 4
    assert strays(found) == {
        "faultDetails.triageComplete": "not true or false",
        "serviceAffected": "more than once, the first is taken",
    }


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("faultDetails/status", "wibble", ValueClass.TEXT),
        ("reportDateTime", "", ValueClass.EMPTY),
        ("reportDateTime", "12.5", ValueClass.NUMBER),
        ("reportDateTime", "true", ValueClass.BOOLEAN),
        ("reportDateTime", "2018-06-09", ValueClass.DATE),
        ("reportDateTime", "2018-06-09T25:00:00Z", ValueClass.TIME),
        ("reportDateTime", "2018-06-09 12:00", ValueClass.TIME),
        ("reportDateTime", "9 June", ValueClass.TEXT),
        ("serviceAffected", None, ValueClass.ABSENT),
    ],
)
def test_a_deviation_says_the_class_of_what_stood_there_and_not_the_value(
    path: str, text: str | None, value: ValueClass
) -> None:
    found = readable(plain(setting(path, text)))
    (deviation,) = found.record["deviations"]
    assert (deviation["path"], deviation["valueClass"]) == (path.replace("/", "."), value.value)
    assert not text or text not in deviation["what"]


def test_elements_where_text_is_expected() -> None:
    def nest(root: etree._Element) -> None:
        element = root.find("faultDetails/description")
        assert element is not None
        element.text = "one"
        etree.SubElement(element, "p").text = "two"

    found = readable(plain(nest))
    assert found.record["report"]["faultDetails"]["description"] == "one two"
    assert [(d.path, d.value) for d in found.deviations] == [("faultDetails.description", ValueClass.ELEMENTS)]


def test_labels_of_deviations_come_from_the_schema_alone() -> None:
    entries = "".join(f"<update><x{n}/><updatedBy><y>1</y></updatedBy></update>" for n in range(50))
    found = readable(
        f"<notifyFaultReportUpdate><buyerFaultReference>A</buyerFaultReference><updates>{entries}</updates></notifyFaultReportUpdate>"
    )
    assert "updates.updatedBy" in found.strayed
    names = {field.name for field in KNOWN.notification.event.record.fields}
    known = set(re.findall(r"[A-Za-z]+", KNOWN.notification.event.text)) | names
    assert {part for path in found.strayed for part in path.split(".")} <= known | {""}


def test_more_strange_content_than_an_event_holds_is_told() -> None:
    inner = "".join(f"<x{n}>1</x{n}>" for n in range(2_000))
    found = readable(
        f"<notifyFaultReportUpdate><buyerFaultReference>A</buyerFaultReference>{inner}</notifyFaultReportUpdate>"
    )
    assert (len(aside(found)), found.unknown) == (1_000, 100)
    assert strays(found)[""] == "more of unknown content than is told"


def test_positions_are_taken_out_of_paths() -> None:
    assert without_positions("a[3].b[12].c") == "a.b.c"
    assert without_positions("a") == "a"


# -- refusals


def envelope_of(*inner: str) -> str:
    return f"<e:Envelope xmlns:e='{SOAP_1_1}'><e:Body>{''.join(inner)}</e:Body></e:Envelope>"


REFUSED = {
    "empty": " ",
    "malformed": "<notifyFaultReportUpdate>",
    "doctype": "<!DOCTYPE x><notifyFaultReportUpdate/>",
    "encoding": "<?xml version='1.0' encoding='EBCDIC'?><notifyFaultReportUpdate/>",
    "too-deep": "<a>" * (LIMITS.depth + 1) + "</a>" * (LIMITS.depth + 1),
    "too-many-elements": "<a>" + "<b/>" * LIMITS.elements + "</a>",
    "too-many-attributes": "<a>" + "<b c='' d='' e=''/>" * 4_000 + "</a>",
    "too-large": "<a>" + " " * LIMITS.size + "</a>",
    "no-message": envelope_of(),
    "several-messages": envelope_of(TEXT, TEXT),
    "unknown-root": "<notifySomethingElse/>",
    "no-reference": "<notifyFaultReportUpdate><messageId>CF-1</messageId></notifyFaultReportUpdate>",
    "maintainer-reference-only": plain(setting("buyerFaultReference", None)).decode(),
    "reference-too-long": plain(setting("buyerFaultReference", "x" * (REFERENCE_LIMIT + 1))).decode(),
    "foreign-buyer": plain(setting("buyerIdentifier", "SOMEBODY")).decode(),
}


def test_every_reason_has_a_case() -> None:
    assert REFUSED.keys() == REASONS


@pytest.mark.parametrize(("reason", "body"), REFUSED.items(), ids=REFUSED)
def test_what_is_refused_and_why(reason: str, body: str) -> None:
    found = refusal(body)
    assert found.reason == reason
    assert not any(secret in found.detail for secret in ("SOMEBODY", "CF-778899", "SomethingElse", "xxx"))


def test_several_parts_are_refused_with_a_word_about_them_unless_they_are_one() -> None:
    parts = "multipart/related; boundary=x"
    found = refusal(f"--x\r\n\r\n{TEXT}\r\n--x--", content_type=parts)
    assert (found.reason, found.detail) == ("malformed", "send one XML document, not several parts")
    assert readable(TEXT, content_type=parts).id == readable(TEXT).id


def test_a_placeholder_is_no_reference_either() -> None:
    theirs = "<maintainerFaultReference>(Not in report; only after creation)</maintainerFaultReference>"
    assert refusal(f"<notifyFaultReportUpdate>{theirs}</notifyFaultReportUpdate>").reason == "no-reference"


@pytest.mark.parametrize(
    "reason", ["unknown-root", "no-reference", "maintainer-reference-only", "reference-too-long", "foreign-buyer"]
)
def test_a_refusal_keeps_the_version_of_the_envelope(reason: str) -> None:
    found = refusal(enveloped(REFUSED[reason], SOAP_1_2))
    assert (found.reason, found.version) == (reason, Version.SOAP_1_2)


@pytest.mark.parametrize("content", ["", TEXT + TEXT, "<e:Fault/>"], ids=["empty", "two", "fault"])
def test_and_so_does_that_of_one_without_a_message(content: str) -> None:
    assert refusal(enveloped(content, SOAP_1_2)).version is Version.SOAP_1_2


def test_a_refusal_of_a_bare_message_has_no_version() -> None:
    assert refusal("<other/>").version is Version.NONE


def test_a_second_element_is_never_dropped_in_silence() -> None:
    assert refusal(envelope_of(TEXT, "<other/>")).reason == "several-messages"


@pytest.mark.parametrize("text", [None, "", " "])
def test_a_message_that_names_no_buyer_is_taken_and_told(text: str | None) -> None:
    found = readable(plain(setting("buyerIdentifier", text)))
    assert found.buyer is None
    assert set(strays(found)) <= {"buyerIdentifier"}


def test_every_accepted_buyer_is_ours() -> None:
    body = plain(setting("buyerIdentifier", "\n SECOND "))
    found = READER.read(Delivery(body=body, received_at=NOW), buyers=BUYERS | {"SECOND"})
    assert isinstance(found, Readable)
    assert found.buyer == "SECOND"


def test_the_key_is_the_reference_trimmed_and_folded() -> None:
    assert readable(plain(setting("buyerFaultReference", "\n SP-1\t \n"))).reference == "SP-1"
    assert readable(plain(setting("buyerFaultReference", "x" * REFERENCE_LIMIT))).reference == "x" * REFERENCE_LIMIT
    assert refusal(plain(setting("buyerFaultReference", "\xa0"))).reason == "maintainer-reference-only"


# -- ids


def test_a_repeat_has_the_same_id_whenever_it_was_sent() -> None:
    first = readable(plain())
    again = readable(plain(setting("sentAt", "2018-06-09T11:20:00Z")), path="/elsewhere")
    assert again.id == first.id
    assert again.record["contentHash"] == first.record["contentHash"]
    assert readable(plain(setting("sentAt", None))).id == first.id


def test_a_notification_has_the_id_it_had_in_earlier_releases() -> None:
    """What comes again after an upgrade would else count twice."""
    assert readable(plain()).id == "17d1a28a-4879-5bb3-ab86-df02a179b4e7"
    assert readable(plain(setting("buyerIdentifier", None))).id == "a9962209-6f2d-5f8a-b4a5-632a3c6c5c23"
    assert readable(plain(setting("messageId", None))).id == "a7270621-cfdc-5969-9751-b26ad08bca04"


def test_indentation_and_comments_make_no_other_message() -> None:
    root = etree.fromstring(plain())
    etree.indent(root, "\t\t")
    dense = re.sub(r">\s+<", "><", TEXT)
    noted = TEXT.replace("<sentAt>", "<!-- note --><?x y?><sentAt>")
    assert len({readable(body).id for body in (TEXT, etree.tostring(root), dense, noted)}) == 1


TEXTS = [
    "apiVersion",
    "messageId",
    "reportDateTime",
    "reporterContactDetails/name",
    "endUserContactDetails/phone",
    "serviceAffected",
    "buyerFaultReference",
    "maintainerFaultReference",
    "faultDetails/description",
    "faultDetails/status",
    "updates/update/description",
    "appointments/appointment/appointmentDate",
    "appointments/appointment/appointmentCancelled",
]


@pytest.mark.parametrize("path", TEXTS)
def test_other_content_is_another_message(path: str) -> None:
    ids = {readable(TEXT).id, readable(plain(setting(path, "2"))).id}
    if path != "buyerFaultReference":
        ids.add(readable(plain(setting(path, None))).id)
        assert len(ids) == 3
    assert len(ids) > 1


def tailed(place: int, tail: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        root[place].tail = tail

    return change


def test_text_between_the_elements_counts_as_content() -> None:
    tails = [(place, tail) for place in (0, 2, -1) for tail in ("\n", "  ", "one", "two")]
    assert len({readable(plain(tailed(*each))).id for each in tails}) == 7  # the blank ones are one


def test_text_before_the_first_element_counts_as_content() -> None:
    heads = [(path, head) for path in (".", "updates") for head in ("\n", "  ", "one", "two")]
    assert len({readable(plain(headed(*each))).id for each in heads}) == 5  # the blank ones are one


def headed(path: str, head: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        found = root.find(path)
        assert found is not None
        found.text = head

    return change


def test_what_is_unknown_counts_as_content() -> None:
    def add(text: str) -> bytes:
        return plain(lambda root: setattr(etree.SubElement(root, "priority"), "text", text))

    assert len({readable(body).id for body in (plain(), add("P1"), add("P2"))}) == 3


def attributed(path: str, **attributes: str) -> bytes:
    def change(root: etree._Element) -> None:
        found = root.find(path)
        assert found is not None
        for name, value in attributes.items():
            found.set(name, value)

    return plain(change)


def test_attributes_are_kept_aside_and_count_as_content() -> None:
    found = readable(attributed("updates/update", id="77", by=" NOC\n desk "))
    assert aside(found) == [("updates.update.@id", "77"), ("updates.update.@by", "NOC desk")]
    assert found.unknown == 2
    assert strays(found) == {}
    assert aside(readable(attributed(".", version="1.1"))) == [("@version", "1.1")]
    bodies: list[bytes | str] = [
        attributed("updates/update", id="77"),
        attributed("updates/update", id="78"),
        attributed("updates/update", no="77"),
        attributed("updates", id="77"),
        attributed(".", id="77"),
        TEXT,
    ]
    assert len({readable(body).id for body in bodies}) == len(bodies)


def test_attributes_of_the_protocol_and_those_of_the_time_of_sending_make_no_other_message() -> None:
    xsi = "http://www.w3.org/2001/XMLSchema-instance"
    bodies: list[bytes | str] = [
        attributed("faultDetails/type", **{f"{{{xsi}}}type": "x", "{http://www.w3.org/XML/1998/namespace}lang": "en"}),
        attributed("sentAt", zone="UTC"),
        TEXT,
    ]
    assert len({readable(body).id for body in bodies}) == 1
    assert aside(readable(bodies[0])) == []
    both, swapped = (TEXT.replace("<update>", f"<update {pair}>") for pair in ('a="1" b="2"', 'b="2" a="1"'))
    assert readable(both).id == readable(swapped).id


@given(st.lists(st.tuples(xml_text, xml_text, xml_text, xml_text), min_size=2, max_size=2, unique=True))
def test_no_two_sets_of_parts_give_the_same_id(parts: list[tuple[str, str, str, str]]) -> None:
    first, second = parts
    assert notification_id(*first) != notification_id(*second)


def structure(element: etree._Element) -> Any:
    """What must make a difference: local names, nesting and texts, but for blank text between elements."""

    def words(text: str | None) -> str:
        return text or ""

    def between(text: str | None) -> str:
        return "" if not text or text.isspace() else text

    own = between(element.text) if len(element) else words(element.text)
    children = [(structure(child), between(child.tail)) for child in element]
    return (str(element.tag).rpartition("}")[2], own, children)


@given(st.lists(elements(["sentAt", "updates"]), min_size=2, max_size=2))
def test_the_hash_differs_exactly_where_the_content_does(pair: list[etree._Element]) -> None:
    for root in pair:
        root.tag, root.text = "message", None  # the root's own name and text are looked at before
        for child in root:
            child.tail = None
    first, second = ([structure(child) for child in root if not str(child.tag).endswith("sentAt")] for root in pair)
    hashes = [content_hash(root, without="sentAt") for root in pair]
    assert (hashes[0] == hashes[1]) == (first == second)


# -- laws


@given(st.binary(max_size=300), st.none() | st.text(max_size=40))
def test_any_bytes_are_readable_or_refused(body: bytes, content_type: str | None) -> None:
    assert isinstance(deliver(body, content_type=content_type), Refusal)


FIELDS = [field.name for field in KNOWN.notification.event.record.fields] + [
    "notifyFaultReportUpdate",
    "reportDateTime",
    "faultDetails",
    "status",
    "updates",
    "update",
    "appointments",
    "appointment",
    "appointmentDate",
    "appointmentCancelled",
    "triageComplete",
]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(elements(FIELDS), st.sampled_from(["SP-1", " SP-2 "]), st.text(max_size=30))
def test_any_tree_with_a_reference_becomes_an_event(root: etree._Element, reference: str, path: str) -> None:
    root.tag, root.tail = "notifyFaultReportUpdate", None
    first = etree.Element("buyerFaultReference")
    first.text = reference
    root.insert(0, first)
    for buyer in root.findall("buyerIdentifier"):
        root.remove(buyer)
    found = readable(etree.tostring(root), path=path)
    assert found.reference == reference.strip()
    assert len(found.id) == 36


@settings(deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.binary(min_size=1, max_size=4), st.booleans())
def test_any_damage_is_readable_or_refused(place: int, damage: bytes, insert: bool) -> None:  # noqa: FBT001 -- hypothesis gives it
    data = TEXT.encode()
    body = data[:place] + damage + data[place + (0 if insert else len(damage)) :]
    found = deliver(body)
    if isinstance(found, Readable):
        ENCODER.encode(found.record)
    else:
        assert found.reason in REASONS


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=1)))))
def test_any_time_of_receipt_is_kept(at: datetime) -> None:
    found = READER.read(Delivery(body=plain(), received_at=at), buyers=BUYERS)
    assert isinstance(found, Readable)
    assert found.record["receivedAt"] == at


# -- the declaration


def test_a_declaration_that_the_schemas_do_not_fit_stops_the_start() -> None:
    event = KNOWN.notification.event
    fields = {name: getattr(NOTIFICATION, name) for name in Notification.__dataclass_fields__}
    with pytest.raises(Stop) as stop:
        compile_notification(KNOWN.xsd, Notification(**fields | {"reference": "ticket"}), event, zone=UTC)
    assert stop.value.problems == ("notifyFaultReportUpdate.ticket: the notification is told by it",)
    with pytest.raises(Stop):
        compile_notification(KNOWN.xsd, Notification(**fields | {"element": "nothing"}), event, zone=UTC)
