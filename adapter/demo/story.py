"""The story: what happens to each ticket, and what is expected of every command.

A scene is one ticket's; all are played side by side. Within a scene commands go out one behind the other where the
order of the lane is the point, and one after the other's outcome where its reply is needed.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from adapter.demo.board import Sending
from adapter.demo.play import Ticket
from adapter.twin import Fault, Kind, Status

Scene = Callable[[Ticket], Awaitable[None]]


async def whole_life(ticket: Ticket) -> None:
    """A slow line from its report to the end, with an amendment right behind the report."""
    await ticket.send("AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending"], note="Impaired Service")
    amended = await ticket.send(
        "AmendFaultReport",
        _about(ticket) | {"faultDetails": {"triageFindings": "speed is low on all devices"}},
        expect=["FaultReportAmended"],
        note="right behind it",
    )
    await amended.end()
    maintainer = ticket.moved(Status.IN_PROGRESS)
    asked = await ticket.send(
        "RequestFaultReportUpdate",
        _about(ticket) | {"maintainerFaultReference": maintainer},
        expect=["FaultReportUpdateRequested"],
    )
    await asked.end()
    ticket.moved(Status.RESOLVED)
    closed = await ticket.send(
        "ResolveResponse",
        _about(ticket) | {"resolveAccepted": True},
        expect=["ResolveResponseDelivered"],
        note="accepted",
    )
    await closed.end()


async def appointment(ticket: Ticket) -> None:
    """A total loss of service needs an appointment; later it is moved to another slot."""
    address = {"addressKey": "100012345678", "appointmentType": "Repair", "productName": "ftthl2r"}
    monday = _next_monday()
    found = await ticket.send(
        "QueryAppointmentAvailability",
        address | {"appointmentsFrom": monday.isoformat()},
        expect=["AppointmentAvailabilityFound: 16 slots"],
    )
    first = (await found.end())["reply"]["appointmentSlots"][0]
    key = await _reserve(ticket, address | {"appointmentSlot": _slot(first)})
    added = await ticket.send(
        "AddFaultReport",
        _report(ticket, kind="SERVICE_OUTAGE") | {"appointment": {"appointmentReservationKey": key}},
        expect=["FaultReportAdded: Pending"],
        note=f"Service Outage, key {key}",
    )
    await added.end()
    again = await ticket.send(
        "QueryAppointmentAvailability",
        address | {"appointmentsFrom": monday.isoformat(), "reappointment": True},
        expect=["AppointmentAvailabilityFound: 15 slots"],
        note="the customer asks for another day",
    )
    last = (await again.end())["reply"]["appointmentSlots"][-1]
    key = await _reserve(ticket, address | {"appointmentSlot": _slot(last), "reappointment": True})
    moved = await ticket.send(
        "AmendFaultReport",
        _about(ticket) | {"appointment": {"appointmentReservationKey": key}},
        expect=["FaultReportAmended"],
        note=f"new key {key}",
    )
    await moved.end()
    ticket.moved(Status.RESOLVED)
    rejected = await ticket.send(
        "ResolveResponse",
        _about(ticket) | {"resolveAccepted": False, "rejectedReason": "still no light on the ONT"},
        expect=["ResolveResponseDelivered"],
        note="rejected, the ticket is opened again",
    )
    await rejected.end()


async def no_reservation(ticket: Ticket) -> None:
    """A Service Outage without a reservation key breaks a documented rule: nothing is sent to the supplier."""
    await _end(
        await ticket.send(
            "AddFaultReport",
            _report(ticket, kind="SERVICE_OUTAGE"),
            expect=["CommandRejected by adapter: invalid"],
            requests=0,
            note="Service Outage without a reservation key",
        )
    )


async def used_reference(ticket: Ticket) -> None:
    """The supplier refuses a second report of one reference; a command that comes twice is sent once."""
    added = await ticket.send("AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending"])
    await ticket.send_again(added)
    await _end(
        await ticket.send(
            "AddFaultReport",
            _report(ticket),
            expect=["CommandRejected by supplier: 409"],
            note="another report of the same reference",
        )
    )


async def busy_supplier(ticket: Ticket) -> None:
    """The supplier is too busy for the first two tries; what stands behind in the lane waits for the third."""
    ticket.trouble(
        Fault(Kind.STATUS, operation="addFaultReport", key=ticket.reference, status=503, times=2),
        "answers 503 to the next two requests",
    )
    await ticket.send(
        "AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending, 3 tries"], requests=3, note="tried again"
    )
    await _end(
        await ticket.send(
            "AmendFaultReport",
            _about(ticket) | {"faultDetails": {"triageComplete": True}},
            expect=["FaultReportAmended"],
            note="waits for the report",
        )
    )


async def lost_answer(ticket: Ticket) -> None:
    """The connection breaks after the request was taken: never repeated blindly, told as unknown, then settled."""
    ticket.trouble(
        Fault(Kind.RESET, operation="addFaultReport", key=ticket.reference, taken=True),
        "takes the next request and breaks the connection",
    )
    await ticket.send(
        "AddFaultReport",
        _report(ticket),
        expect=["CommandOutcomeUnknown: reset", "CommandSettled: undetermined"],
        note="its answer gets lost",
    )
    await _end(
        await ticket.send(
            "AmendFaultReport",
            _about(ticket) | {"faultDetails": {"triageComplete": True}},
            expect=["FaultReportAmended"],
            note="waits until that is settled",
        )
    )


async def unreadable(ticket: Ticket) -> None:
    """What is no Avro goes to the dead letters as it came; the next command of that key is not in its way."""
    value = b"this is no Avro record"
    dead = await ticket.send_bytes(value, expect=["dead letter: unframed"], note=f"{len(value)} bytes of plain text")
    assert (await dead.end())["value"] == value, "a dead letter has the original bytes"
    await _end(await ticket.send("AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending"]))


STORY: Mapping[str, Scene] = {
    "SP-1001": whole_life,
    "SP-1002": appointment,
    "SP-1003": no_reservation,
    "SP-1004": used_reference,
    "SP-1005": busy_supplier,
    "SP-1006": lost_answer,
    "SP-1007": unreadable,
}


async def _end(sending: Sending) -> None:
    await sending.end()


async def _reserve(ticket: Ticket, fields: Mapping[str, Any]) -> str:
    reserved = await ticket.send("ReserveAppointment", fields, expect=["AppointmentReserved"])
    return str((await reserved.end())["reply"]["appointmentReservationKey"])


def _about(ticket: Ticket) -> dict[str, Any]:
    return {"buyerFaultReference": ticket.reference}


def _report(ticket: Ticket, *, kind: str = "IMPAIRED_SERVICE") -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    contact = {"name": "Sam Example", "phone": "01632 960001", "email": "sam@example.com"}
    return _about(ticket) | {
        "serviceAffected": f"S{ticket.reference[-4:]}",
        "reportDateTime": now,
        "reporterContactDetails": contact,
        "endUserContactDetails": contact,
        "faultDetails": {"description": "a made-up fault", "type": kind, "faultStartTime": now},
    }


def _slot(offered: Mapping[str, Any]) -> dict[str, str]:
    day: date = offered["appointmentDate"]
    return {
        "appointmentDate": day.isoformat(),
        "appointmentStartTime": offered["appointmentStartTime"],
        "appointmentEndTime": offered["appointmentEndTime"],
    }


def _next_monday() -> date:
    """From a Monday on the twin always offers the same number of slots."""
    today = datetime.now(UTC).date()
    return today + timedelta(days=7 - today.weekday())
