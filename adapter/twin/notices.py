"""Notifications as XML: the whole report of a ticket as it stood after a change, valid against faultReport.xsd. Pure.

Every notification is a complete notifyFaultReportUpdate (contract section 4.2); what it is about can only be seen from
its content, and from the path where the contract names one (section 3.1).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lxml import etree

from adapter.twin.answers import timestamp
from adapter.twin.life import Appointment, Happening, Ticket, Update

ELEMENT: Final = "notifyFaultReportUpdate"
PATHS: Final = {
    Happening.AMENDED: "/notifyAmended",
    Happening.IN_PROGRESS: "/notifyInProgress",
}
"""The two paths the contract shows; no other is known."""

_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_CONTACT: Final = ("name", "phone", "email")
_NOBODY: Final = "SPDEV1"


@dataclass(frozen=True, slots=True)
class Notice:
    """What to notify: `happening`, and the state of the ticket after it."""

    happening: Happening
    ticket: Ticket
    message_id: str
    sent_at: datetime

    @property
    def buyer(self) -> str:
        return self.ticket.report.get("buyerIdentifier") or _NOBODY


def element(notice: Notice) -> etree._Element:
    """The notification, children in the order of the schema."""
    ticket = notice.ticket
    report = ticket.report
    root = etree.Element(ELEMENT, nsmap={"xsi": _XSI})
    root.set(f"{{{_XSI}}}noNamespaceSchemaLocation", "../faultReport.xsd")
    _put(
        root,
        apiVersion="1.0",
        buyerIdentifier=notice.buyer,
        sentAt=timestamp(notice.sent_at),
        messageId=notice.message_id,
        reportDateTime=report.get("reportDateTime")
        or timestamp(ticket.updates[0].at if ticket.updates else ticket.since),
    )
    for name in ("reporterContactDetails", "endUserContactDetails"):
        _contact(root, name, ticket)
    _put(
        root,
        serviceAffected=ticket.service,
        buyerFaultReference=ticket.reference,
        maintainerFaultReference=ticket.maintainer_reference or "",
        parentFaultReference=report.get("parentFaultReference", ""),
    )
    _details(root, notice)
    _updates(root, ticket.updates)
    if ticket.appointments:
        _appointments(root, ticket.appointments)
    return root


def _details(root: etree._Element, notice: Notice) -> None:
    ticket = notice.ticket
    told = ticket.report
    details = etree.SubElement(root, "faultDetails")
    _put(details, description=told.get("faultDetails.description"), type=ticket.type or None)
    if notice.happening is not Happening.UPDATED:
        _put(details, status=ticket.status.value)
    _put(
        details, **{n: told.get(f"faultDetails.{n}") for n in ("faultStartTime", "faultLocation", "siteAccessDetails")}
    )
    if any(path.startswith("faultDetails.siteAccessContactDetails.") for path in told):
        _contact(details, "siteAccessContactDetails", ticket, above="faultDetails.")
    if ticket.triage:
        _put(details, triageComplete="true", triageFindings=ticket.triage)
    else:
        _put(details, triageFindings=told.get("faultDetails.triageFindings"))
    missed = next((visit for visit in ticket.appointments[-1:] if visit.missed), None)
    if missed:
        inner = etree.SubElement(details, "missedAppointment")
        _put(inner, appointmentReservationKey=missed.key, appointmentDate=missed.date or None, reason="No access")


def _updates(root: etree._Element, updates: Iterable[Update]) -> None:
    block = etree.SubElement(root, "updates")
    for update in updates:
        _put(
            etree.SubElement(block, "update"),
            description=update.text,
            updatedBy=update.by,
            updatedTime=timestamp(update.at),
        )


def _appointments(root: etree._Element, visits: Iterable[Appointment]) -> None:
    block = etree.SubElement(root, "appointments")
    for visit in visits:
        _put(
            etree.SubElement(block, "appointment"),
            appointmentReservationKey=visit.key,
            appointmentDate=visit.date or None,
            appointmentStartTime=visit.start or None,
            appointmentEndTime=visit.end or None,
            appointmentConfirmationStatus=visit.confirmation or None,
            appointmentClosureCode=visit.closure_code or None,
            appointmentCancelled=None if visit.cancelled is None else str(visit.cancelled).lower(),
        )


def _contact(parent: etree._Element, name: str, ticket: Ticket, *, above: str = "") -> None:
    block = etree.SubElement(parent, name)
    _put(block, **{part: ticket.report.get(f"{above}{name}.{part}") for part in _CONTACT})


def _put(parent: etree._Element, **texts: str | None) -> None:
    """Children of those names, without those that are None."""
    for name, text in texts.items():
        if text is not None:
            etree.SubElement(parent, name).text = text
