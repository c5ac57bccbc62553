"""The story: what happens to each ticket, and what is expected of every command, every webhook and the ticket itself.

A scene is one ticket's; all are played side by side. Within a scene commands go out one behind the other where the
order of the lane is the point, and one after the other's outcome where its reply is needed.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from adapter.demo.board import Step
from adapter.demo.play import Ticket
from adapter.twin import Dialect, Fault, Happening, Kind, Manner

Scene = Callable[[Ticket], Awaitable[None]]

_TRIAGED: Final[Mapping[str, Any]] = {"faultDetails": {"triageComplete": True}}


async def whole_life(ticket: Ticket) -> None:
    """A slow line from its report to the end: amended, triaged, put on hold and taken up again, resolved, accepted."""
    ticket.ends("CLOSED")
    await ticket.send("AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending"], note="Impaired Service")
    findings = {"faultDetails": {"triageFindings": "speed is low on all devices"}}
    await _amended(ticket, findings, note="right behind it")
    await ticket.happens(Happening.ACCEPTED).end()
    await ticket.happens(Happening.TRIAGED).end()
    await ticket.happens(Happening.IN_PROGRESS).end()
    update = ticket.expects(Happening.UPDATE_REQUESTED, kind="in progress")
    asked = await ticket.send(
        "RequestFaultReportUpdate",
        _about(ticket),
        expect=["FaultReportUpdateRequested"],
        note="the adapter fills in the supplier's reference",
    )
    await asked.end()
    await update.end()
    await ticket.happens(Happening.ON_HOLD, note="its clock stands still").end()
    await ticket.happens(Happening.IN_PROGRESS).end()
    await _resolved(ticket, accepted=True)


async def appointment(ticket: Ticket) -> None:
    """A total loss of service needs an appointment; it is moved to another slot, kept, and the repair does not hold."""
    ticket.ends("CLOSED")
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
    await ticket.happens(Happening.ACCEPTED).end()
    await ticket.happens(Happening.IN_PROGRESS).end()
    await ticket.happens(Happening.APPOINTMENT_CONFIRMED).end()
    again = await ticket.send(
        "QueryAppointmentAvailability",
        address | {"appointmentsFrom": monday.isoformat(), "reappointment": True},
        expect=["AppointmentAvailabilityFound: 15 slots"],
        note="the customer asks for another day",
    )
    last = (await again.end())["reply"]["appointmentSlots"][-1]
    key = await _reserve(ticket, address | {"appointmentSlot": _slot(last), "reappointment": True})
    await _amended(ticket, {"appointment": {"appointmentReservationKey": key}}, note=f"new key {key}")
    await ticket.happens(Happening.APPOINTMENT_CONFIRMED).end()
    await ticket.happens(Happening.APPOINTMENT_COMPLETED).end()
    await _resolved(ticket, accepted=False)
    await ticket.happens(Happening.IN_PROGRESS, kind="appointment completed", note="work goes on").end()
    await _resolved(ticket, accepted=True)


async def no_reservation(ticket: Ticket) -> None:
    """A Service Outage without a reservation key breaks a documented rule: nothing is sent to the supplier."""
    ticket.ends("REJECTED")
    refused = await ticket.send(
        "AddFaultReport",
        _report(ticket, kind="SERVICE_OUTAGE"),
        expect=["CommandRejected by adapter: invalid"],
        requests=0,
        note="Service Outage without a reservation key",
    )
    await refused.end()


async def used_reference(ticket: Ticket) -> None:
    """A second report of one reference is refused; a command that comes twice is sent once, a webhook told once."""
    ticket.ends("ACCEPTED")
    added = await ticket.send("AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending"])
    await ticket.send_again(added)
    refused = await ticket.send(
        "AddFaultReport",
        _report(ticket),
        expect=["CommandRejected by supplier: 409"],
        note="another report of the same reference",
    )
    await refused.end()
    await ticket.happens(Happening.ACCEPTED, manner=Manner(repeated=True), note="told twice, the same message").end()


async def busy_supplier(ticket: Ticket) -> None:
    """The supplier is too busy for the first two tries; what stands behind in the lane waits for the third."""
    ticket.ends("IN_PROGRESS", late=1)
    ticket.trouble(
        Fault(Kind.STATUS, operation="addFaultReport", key=ticket.reference, status=503, times=2),
        "answers 503 to the next two requests",
    )
    await ticket.send(
        "AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending, 3 tries"], requests=3, note="tried again"
    )
    await _amended(ticket, _TRIAGED, note="waits for the report")
    await ticket.happens(Happening.ACCEPTED).end()
    held = ticket.happens(Happening.ON_HOLD, manner=Manner(late=True), note="told after what follows")
    went_on = ticket.happens(Happening.IN_PROGRESS)
    await went_on.end()
    await held.end()


async def lost_answer(ticket: Ticket) -> None:
    """A connection breaks after the request was taken: never repeated blindly; a notification clears the doubt."""
    ticket.ends("ACCEPTED")
    doubtful = await _doubt(ticket, "CommandSettled: accepted")
    await doubtful.reaches(1)
    await ticket.happens(Happening.ACCEPTED, note="so it had arrived").end()
    await doubtful.end()
    await _amended(ticket, _TRIAGED, note="waits until that is settled")


async def nobody_knows(ticket: Ticket) -> None:
    """The same, and the supplier keeps silent: the doubt ends by its time limit, the ticket goes on."""
    ticket.ends("PENDING")
    await _doubt(ticket, "CommandSettled: undetermined")
    await _amended(ticket, _TRIAGED, note="waits until that is settled")


async def unreadable(ticket: Ticket) -> None:
    """What is no Avro goes to the dead letters, what is no notification to the quarantine; strange ones are read."""
    ticket.ends("ACCEPTED")
    value = b"this is no Avro record"
    dead = await ticket.send_bytes(value, expect=["dead letter: unframed"], note=f"{len(value)} bytes of plain text")
    assert (await dead.end())["value"] == value, "a dead letter has the original bytes"
    added = await ticket.send("AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending"])
    await added.end()
    page = b"<html><body>504 Gateway Time-out</body></html>"
    kept = await ticket.posts(page, expect=["quarantined: unknown-root"], note="a proxy's error page")
    assert (await kept.end())["value"] == page, "the quarantine has the original bytes"
    strange = ticket.happens(
        Happening.ACCEPTED,
        manner=Manner(dialects=(Dialect.SOAP_1_2, Dialect.PREFIXES, Dialect.CHILD_ORDER, Dialect.UNKNOWN_ELEMENTS)),
        note="in another dialect",
    )
    assert (await strange.end())["deviations"], "what strays is listed"


async def silence(ticket: Ticket) -> None:
    """Nobody answers a resolution: the projector warns before the deadline, then the supplier closes the ticket."""
    ticket.ends("CLOSED")
    added = await ticket.send("AddFaultReport", _report(ticket), expect=["FaultReportAdded: Pending"])
    await added.end()
    await ticket.happens(Happening.ACCEPTED).end()
    warned = ticket.waits_for("ResolveDeadlineApproaching")
    await ticket.happens(Happening.RESOLVED).end()
    await warned.end()
    await ticket.happens(Happening.CLOSED, note="as after 48 hours of silence").end()


STORY: Mapping[str, Scene] = {
    "SP-1001": whole_life,
    "SP-1002": appointment,
    "SP-1003": no_reservation,
    "SP-1004": used_reference,
    "SP-1005": busy_supplier,
    "SP-1006": lost_answer,
    "SP-1007": nobody_knows,
    "SP-1008": unreadable,
    "SP-1009": silence,
}


async def _doubt(ticket: Ticket, settled: str) -> Step:
    ticket.trouble(
        Fault(Kind.RESET, operation="addFaultReport", key=ticket.reference, taken=True),
        "takes the next request and breaks the connection",
    )
    return await ticket.send(
        "AddFaultReport",
        _report(ticket),
        expect=["CommandOutcomeUnknown: reset", settled],
        note="its answer gets lost",
    )


async def _amended(ticket: Ticket, change: Mapping[str, Any], *, note: str) -> None:
    """Returns when the supplier has confirmed it, too."""
    confirmed = ticket.expects(Happening.AMENDED)
    amended = await ticket.send(
        "AmendFaultReport", {**_about(ticket), **change}, expect=["FaultReportAmended"], note=note
    )
    await amended.end()
    await confirmed.end()


async def _resolved(ticket: Ticket, *, accepted: bool) -> None:
    """The supplier resolves it, and the buyer accepts that or not."""
    await ticket.happens(Happening.RESOLVED).end()
    then = ticket.expects(Happening.CLOSED if accepted else Happening.RE_OPENED)
    answer: dict[str, Any] = {"resolveAccepted": accepted}
    if not accepted:
        answer["rejectedReason"] = "still no light on the ONT"
    answered = await ticket.send(
        "ResolveResponse",
        _about(ticket) | answer,
        expect=["ResolveResponseDelivered"],
        note="accepted" if accepted else "rejected, the ticket is opened again",
    )
    await answered.end()
    await then.end()


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
