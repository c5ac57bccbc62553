"""Commands end to end on a real broker: what the supplier is asked, what the estate hears, what is refused before."""

import copy
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from lxml import etree

from adapter.core.rate import TOLERANCE
from adapter.twin import Fault, Kind, Status
from tests.integration.conftest import requests, text
from tests.support import estate as say
from tests.support.estate import Command, Event, unique
from tests.support.rig import Member, Rig, open_rig
from tests.support.xsd import judge

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(rig: Rig) -> AsyncIterator[Member]:
    async with rig.worker(SUPPLIER__RESELLER_ID="RES1") as member:
        yield member


def valid(element: etree._Element) -> bool:
    return judge(str(element.tag)).validate(element)


async def done(rig: Rig, command: Command) -> Event:
    rig.estate.send(command)
    return await rig.estate.final(command)


async def ticket(rig: Rig, status: Status | None = None) -> str:
    """Reference of a new ticket at the supplier."""
    reference = unique()
    assert (await done(rig, say.add(reference))).type == "FaultReportAdded"
    if status is not None:
        rig.twin.put(reference, status)
    return reference


def problems(event: Event) -> set[tuple[str, str]]:
    assert event.type == "CommandRejected"
    return {(problem["path"], problem["text"]) for problem in event.record["problems"]}


def changed(name: str, **more: Any) -> Any:
    """A change of a record's schema: one more field."""

    def change(document: dict[str, Any]) -> None:
        document["fields"].append({"name": name, **more})

    return change


# -- the operations -------------------------------------------------------------------------------------------


async def test_an_add_becomes_a_soap_request_and_an_event_of_the_same_key_trace_and_derived_ids(
    rig: Rig, worker: Member
) -> None:
    command = say.add(unique(), correlationId="case-1")
    again = say.add(unique())
    place = rig.estate.send(command, headers={"traceparent": TRACE.encode()})
    event = await rig.estate.final(command)

    ((heard, element),) = requests(rig, command)
    assert heard.path == "/addFaultReport"
    assert heard.headers["content-type"] == "text/xml; charset=utf-8"
    assert heard.headers["soapaction"] == '""'
    assert heard.headers["traceparent"].split("-")[1] == TRACE.split("-")[1]
    assert valid(element)
    assert text(element, "buyerIdentifier") == "SPDEV1"
    assert text(element, "apiVersion") == "1.0"
    assert text(element, "type") == "Impaired Service"
    sent_at = text(element, "sentAt") or ""
    assert len(sent_at) == 24
    assert abs(datetime.fromisoformat(sent_at) - datetime.now(UTC)) < timedelta(minutes=1)

    assert event.type == "FaultReportAdded"
    assert event.key == command.key.encode()
    assert event.place.partition == place.partition
    record = event.record
    assert record["correlationId"] == "case-1"
    assert record["operation"] == "AddFaultReport"
    assert record["buyerFaultReference"] == command.key
    assert record["attempts"] == 1
    assert record["alreadyDone"] is False
    assert record["reply"]["status"] == "Pending"
    assert record["reply"]["buyerFaultReference"] == command.key
    assert text(element, "messageId") == record["messageId"]
    assert UUID(record["messageId"]).version == 5

    headers = {name: value.decode() for name, value in event.headers.items()}
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == "fault.event.FaultReportAdded"
    assert headers["ce_source"] == "/fault-adapter/cityfibre/SPDEV1"
    assert headers["content-type"] == "application/avro"
    assert abs(datetime.fromisoformat(headers["ce_time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert headers["traceparent"].split("-")[1] == TRACE.split("-")[1]
    assert UUID(headers["ce_id"]).version == 5

    other = await done(rig, again)
    assert other.headers["ce_id"] != event.headers["ce_id"]
    assert other.record["messageId"] != record["messageId"]
    assert "traceparent" not in other.headers
    assert [call.message_id for call in rig.twin.calls if call.key == command.key] == [record["messageId"]]
    await rig.estate.caught_up(rig.group)


@pytest.mark.parametrize(
    ("build", "path", "accepted", "status"),
    [
        (say.amend, "/amendFaultReport", "FaultReportAmended", None),
        (say.resolve, "/resolveResponse", "ResolveResponseDelivered", Status.RESOLVED),
    ],
)
async def test_a_command_about_a_ticket_is_carried_out(
    rig: Rig, worker: Member, build: Any, *, path: str, accepted: str, status: Status | None
) -> None:
    command = build(await ticket(rig, status))
    event = await done(rig, command)
    assert event.type == accepted
    assert event.key == command.key.encode()
    assert event.record["reply"]["responseCode"] == 200
    heard, element = requests(rig, command)[-1]
    assert heard.path == path
    assert valid(element)
    assert text(element, "messageId") == event.record["messageId"]


async def test_an_update_is_asked_for_with_the_suppliers_reference(rig: Rig, worker: Member) -> None:
    reference = await ticket(rig, Status.IN_PROGRESS)
    maintainer = rig.twin.tickets[reference].maintainer_reference
    command = say.ask_update(reference, maintainerFaultReference=maintainer)
    event = await done(rig, command)
    assert event.type == "FaultReportUpdateRequested"
    heard, element = requests(rig, command)[-1]
    assert heard.path == "/requestFaultReportUpdate"
    assert valid(element)
    assert text(element, "maintainerFaultReference") == maintainer


async def test_a_rejected_resolution_opens_the_ticket_again(rig: Rig, worker: Member) -> None:
    reference = await ticket(rig, Status.RESOLVED)
    command = say.resolve(reference, resolveAccepted=False, rejectedReason="Still no light")
    assert (await done(rig, command)).type == "ResolveResponseDelivered"
    assert text(requests(rig, command)[-1][1], "resolveAccepted") == "false"
    assert rig.twin.tickets[reference].status in {Status.RE_OPENED, Status.IN_PROGRESS}


async def test_an_appointment_is_moved_by_query_reserve_and_amend_with_the_new_key(rig: Rig, worker: Member) -> None:
    address, reference = unique("UPRN"), unique()
    outage = {"type": "SERVICE_OUTAGE"}
    opened = say.add(reference, faultDetails=outage, appointment={"appointmentReservationKey": "1"})
    assert (await done(rig, opened)).type == "FaultReportAdded"

    asked = say.query(address, correlationId="case-7", reappointment=True)
    found = await done(rig, asked)
    assert found.type == "AppointmentAvailabilityFound"
    assert found.key == address.encode()
    assert found.record["buyerFaultReference"] is None
    slots = found.record["reply"]["appointmentSlots"]
    assert slots[0]["appointmentDate"] == date(2026, 3, 2)
    ((heard, element),) = requests(rig, asked)
    assert heard.path == "/queryAppointmentAvailability"
    assert valid(element)
    assert text(element, "correlationId") == "case-7"
    assert text(element, "resellerId") == "RES1"
    assert text(element, "sellerIdentifier") == "CITYFIBRE"

    wanted = {name: slots[1][name] for name in ("appointmentDate", "appointmentStartTime", "appointmentEndTime")}
    reserving = say.reserve(address, wanted)
    reserved = await done(rig, reserving)
    assert reserved.type == "AppointmentReserved"
    key = reserved.record["reply"]["appointmentReservationKey"]
    assert key
    heard, element = requests(rig, reserving)[-1]
    assert heard.path == "/reserveAppointment"
    assert valid(element)
    assert text(element, "correlationId") == reserved.record["messageId"]

    moved = say.amend(reference, appointment={**wanted, "appointmentReservationKey": key})
    assert (await done(rig, moved)).type == "FaultReportAmended"
    assert rig.twin.tickets[reference].reservation_key == key


# -- rejections ----------------------------------------------------------------------------------------------


async def test_all_that_breaks_the_schema_is_told_at_once_in_the_commands_words(rig: Rig, worker: Member) -> None:
    command = say.add(
        unique(),
        serviceAffected="",
        endUserContactDetails={"phone": "1" * 1001},
        faultDetails={"type": "IMPAIRED_SERVICE", "description": "a\x00b"},
    )
    event = await done(rig, command)
    found = dict(problems(event))
    assert event.record["rejectedBy"] == "ADAPTER"
    assert event.record["code"] == "invalid"
    assert event.record["attempts"] == 0
    assert event.record["messageId"] is None
    assert found.keys() == {"serviceAffected", "endUserContactDetails.phone", "faultDetails.description"}
    assert found["endUserContactDetails.phone"] == "longer than 1000"
    assert not requests(rig, command)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (say.add(unique(), faultDetails={"type": "SERVICE_OUTAGE"}), "appointment.appointmentReservationKey"),
        (
            say.add(unique(), appointment={"appointmentReservationKey": "12"}),
            "appointment.appointmentReservationKey",
        ),
        (say.resolve(unique(), resolveAccepted=False), "rejectedReason"),
    ],
    ids=["outage without key", "key without outage", "rejection without reason"],
)
async def test_a_broken_rule_is_refused_before_anything_is_sent(
    rig: Rig, worker: Member, command: Command, path: str
) -> None:
    event = await done(rig, command)
    assert {where for where, _ in problems(event)} == {path}
    assert event.record["rejectedBy"] == "ADAPTER"
    assert not requests(rig, command)


async def test_a_refusal_by_status_carries_code_and_text(rig: Rig, worker: Member) -> None:
    reference = await ticket(rig)
    second = say.add(reference)
    event = await done(rig, second)
    assert event.type == "CommandRejected"
    assert (event.record["rejectedBy"], event.record["code"]) == ("SUPPLIER", "409")
    assert event.record["text"] == "buyerFaultReference is already in use"
    assert event.record["attempts"] == 1
    assert event.record["messageId"] == requests(rig, second)[-1][1].findtext("messageId")


async def test_a_refusal_with_http_400_carries_code_and_text(rig: Rig, worker: Member) -> None:
    event = await done(rig, say.amend(unique()))
    assert event.type == "CommandRejected"
    assert (event.record["rejectedBy"], event.record["code"]) == ("SUPPLIER", "404")
    assert event.record["text"]


async def test_a_soap_fault_that_blames_the_client_is_a_refusal(rig: Rig, worker: Member) -> None:
    command = say.amend(unique())
    rig.twin.inject(Fault(Kind.SOAP_FAULT, key=command.key, code="Client", text="not like this"))
    event = await done(rig, command)
    assert event.type == "CommandRejected"
    assert event.record["rejectedBy"] == "SUPPLIER"
    assert "Client" in event.record["code"]
    assert event.record["text"] == "not like this"
    assert len(requests(rig, command)) == 1


async def test_a_command_past_its_deadline_is_not_sent(rig: Rig, worker: Member) -> None:
    command = say.add(unique(), notAfter=datetime.now(UTC) - timedelta(seconds=1))
    event = await done(rig, command)
    assert (event.type, event.record["code"]) == ("CommandRejected", "expired")
    assert event.record["rejectedBy"] == "ADAPTER"
    assert not requests(rig, command)


async def test_a_command_whose_deadline_comes_while_the_supplier_is_unavailable_expires(
    rig: Rig, worker: Member
) -> None:
    command = say.add(unique(), notAfter=datetime.now(UTC) + timedelta(seconds=3))
    rig.twin.inject(Fault(Kind.STATUS, status=503, key=command.key, times=None))
    event = await done(rig, command)
    assert (event.type, event.record["code"]) == ("CommandRejected", "expired")
    assert event.record["attempts"] >= 1
    assert command.key not in rig.twin.tickets


# -- producers that are ahead of us --------------------------------------------------------------------------


async def newer(rig: Rig, command: Command, change: Any) -> bytes:
    """The command as a producer with a changed schema writes it."""
    captured: dict[str, Any] = {}

    def keep(document: dict[str, Any]) -> None:
        change(document)
        captured.update(copy.deepcopy(document))

    identifier = await rig.estate.register(command.name, keep, subject=f"newer-{unique()}")
    return rig.estate.encode(command, schema=captured, identifier=identifier)


async def test_a_value_in_a_field_of_a_newer_producer_is_refused(rig: Rig, worker: Member) -> None:
    command = say.amend(unique(), urgency="high")
    value = await newer(rig, command, changed("urgency", type=["null", "string"], default=None))
    rig.estate.put(value, command.key.encode())
    event = await rig.estate.final(command)
    assert problems(event) == {("urgency", "unknown field")}
    assert not requests(rig, command)


async def test_a_newer_producers_field_without_a_value_does_no_harm(rig: Rig, worker: Member) -> None:
    command = say.amend(await ticket(rig), urgency=None)
    value = await newer(rig, command, changed("urgency", type=["null", "string"], default=None))
    rig.estate.put(value, command.key.encode())
    assert (await rig.estate.final(command)).type == "FaultReportAmended"


async def test_a_newer_producers_enum_symbol_is_refused_as_not_known(rig: Rig, worker: Member) -> None:
    command = say.add(unique(), faultDetails={"type": "SLOW_SERVICE"})

    def more(document: dict[str, Any]) -> None:
        details = next(field for field in document["fields"] if field["name"] == "faultDetails")
        record = next(kind for kind in _branches(details["type"]) if kind.get("type") == "record")
        kind = next(field for field in record["fields"] if field["name"] == "type")
        next(k for k in _branches(kind["type"]) if k.get("type") == "enum")["symbols"].append("SLOW_SERVICE")

    rig.estate.put(await newer(rig, command, more), command.key.encode())
    event = await rig.estate.final(command)
    assert {path for path, _ in problems(event)} == {"faultDetails.type"}
    assert not requests(rig, command)


async def test_an_unknown_field_is_passed_over_where_the_setting_says_so(kafka: str) -> None:
    async with open_rig(kafka, partitions=1) as rig, rig.worker(REGISTRY__UNKNOWN_FIELDS="ignore"):
        command = say.add(unique(), urgency="high")
        value = await newer(rig, command, changed("urgency", type=["null", "string"], default=None))
        rig.estate.put(value, command.key.encode())
        assert (await rig.estate.final(command)).type == "FaultReportAdded"


async def test_a_request_has_the_headers_that_the_settings_give_it(kafka: str) -> None:
    headers = {"SUPPLIER__CONTENT_TYPE": "application/xml", "SUPPLIER__SOAP_ACTIONS__AddFaultReport": "urn:add"}
    async with open_rig(kafka, partitions=1) as rig, rig.worker(**headers):
        command = say.add(unique())
        assert (await done(rig, command)).type == "FaultReportAdded"
        ((heard, _),) = requests(rig, command)
        assert (heard.headers["content-type"], heard.headers["soapaction"]) == ("application/xml", '"urn:add"')


async def test_calls_of_many_tickets_keep_to_the_limit_a_second(kafka: str) -> None:
    async with open_rig(kafka) as rig, rig.worker(SUPPLIER__MAX_CALLS_PER_SECOND="4"):
        commands = [say.add(unique()) for _ in range(9)]
        began = time.monotonic()
        for command in commands:
            rig.estate.send(command)
        events = [await rig.estate.final(command) for command in commands]
        assert time.monotonic() - began >= (len(commands) - 1) / 4 - TOLERANCE
        assert [event.type for event in events] == ["FaultReportAdded"] * len(commands)


def _branches(kind: Any) -> list[dict[str, Any]]:
    return [branch for branch in (kind if isinstance(kind, list) else [kind]) if isinstance(branch, dict)]
