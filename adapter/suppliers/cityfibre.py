"""CityFibre's ticketing API: its operations, its documented rules, what the adapter fills in for it.

Fields, lengths and types are not here: they are in schemas/xsd/cityfibre and schemas/avro. Section numbers are
those of docs/contract.md, which also says what of it was seen and what is inference.
"""

from collections.abc import Iterable
from datetime import timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from adapter.core.operation import Mode, Operation, Problem, Record, Repeat, Replies, Rule, Supplier
from adapter.suppliers.cityfibre_notifications import KINDS, NOTIFICATION

ENVIRONMENTS = {
    "production": "https://api-gw.cityfibre.com:41223/prod/api2",
    "cfstaging": "https://api-gw.cityfibre.com:41223/cfstaging/api2",
    "cfsit": "https://api-gw.cityfibre.com:41223/cfsit/api2",
}

PROTOCOL = {
    "apiVersion": "api_version",
    "buyerIdentifier": "buyer_identifier",
    "sentAt": "sent_at",
    "messageId": "message_id",
    "message.messageId": "message_id",
    "message.correlationId": "correlation_id",
    "message.sentAt": "sent_at",
    "buyer.buyerIdentifier": "buyer_identifier",
    "buyer.resellerId": "reseller_id",
    "seller.sellerIdentifier": "seller_identifier",
}


TIME_ZONE: Final = ZoneInfo("Europe/London")


def supplier(
    *, reservation_key_rule: Mode = Mode.REFUSE, unique_references: bool = False, time_zone: tzinfo = TIME_ZONE
) -> Supplier:
    """The supplier as data.

    `reservation_key_rule` says how strictly the rule of section 4.2 is applied: the supplier "may" refuse.
    `unique_references` says that it refuses a second report of one buyerFaultReference, so that a report whose
    outcome is unclear may be sent again; the text demands uniqueness without saying that it is enforced.
    """
    return Supplier(
        name="cityfibre",
        environments=ENVIRONMENTS,
        operations=(
            Operation(
                name="AddFaultReport",
                path="/addFaultReport",
                request="addFaultReport",
                reply="receivedAddFaultReport",
                accepted="FaultReportAdded",
                key="buyerFaultReference",
                repeat=Repeat.KEYED if unique_references else Repeat.NEVER,
                doubt_limit=timedelta(hours=48),
                confirmed_by=KINDS - {"REJECTED"},  # it speaks of a ticket that this report has opened
                refused_by=frozenset({"REJECTED"}),
                rules=_reservation_key(reservation_key_rule),
                already_done=_REFERENCE_TAKEN,
            ),
            Operation(
                name="AmendFaultReport",
                path="/amendFaultReport",
                request="amendFaultReport",
                reply="receivedAmendFaultReport",
                accepted="FaultReportAmended",
                key="buyerFaultReference",
                repeat=Repeat.NEVER,
                doubt_limit=timedelta(hours=48),
                confirmed_by=frozenset({"AMENDED"}),
            ),
            Operation(
                name="RequestFaultReportUpdate",
                path="/requestFaultReportUpdate",
                request="requestFaultReportUpdate",
                reply="receivedRequestFaultReportUpdate",
                accepted="FaultReportUpdateRequested",
                key="buyerFaultReference",
                repeat=Repeat.SAFE,
                doubt_limit=timedelta(hours=1),
                needs_reference=True,  # section 2.4 requires it
                silent=True,  # and has no table of the answer
            ),
            Operation(
                name="ResolveResponse",
                path="/resolveResponse",
                request="resolveResponse",
                reply="receivedResolveResponse",
                accepted="ResolveResponseDelivered",
                key="buyerFaultReference",
                repeat=Repeat.KEYED,
                doubt_limit=timedelta(hours=24),
                rules=(_rejection_has_reason,),
                already_done=_RESOLUTION_ANSWERED,
            ),
            Operation(
                name="QueryAppointmentAvailability",
                path="/queryAppointmentAvailability",
                request="queryAppointmentAvailability",
                reply="receivedQueryAppointmentAvailability",
                accepted="AppointmentAvailabilityFound",
                key="addressKey",
                repeat=Repeat.SAFE,
                doubt_limit=timedelta(hours=1),
                finds="appointmentSlots",
            ),
            Operation(
                name="ReserveAppointment",
                path="/reserveAppointment",
                request="reserveAppointment",
                reply="receivedReserveAppointment",
                accepted="AppointmentReserved",
                key="addressKey",
                repeat=Repeat.NEVER,
                # no notification names an address: waiting longer clears nothing up
                doubt_limit=timedelta(seconds=60),
            ),
        ),
        replies=Replies(
            reference="buyerFaultReference",
            code="responseCode",
            status="status",
            text="errorMessage",
            taken=frozenset({"pending", "accepted"}),  # section 4.1
            refused="reject",
        ),
        notification=NOTIFICATION,
        schemas=("cityfibre/faultReport.xsd", "cityfibre/appointments.xsd"),
        time_zone=time_zone,
        protocol=PROTOCOL,
        envelope=frozenset({"commandId", "issuedAt", "notAfter", "correlationId"}),
    )


# The texts of refusals are not documented (section 6.3); these patterns read what they would have to say. They count
# only after a try whose answer was lost, and only where they speak of this very request: an open incident on the
# same service is another matter, and a ticket that was closed meanwhile has not taken a rejection.
# Spans are bounded, since the text is the supplier's and may be long.
_REFERENCE_TAKEN = (
    r"(?:buyer\s?fault\s?reference|message\s?id)\b.{0,60}\b(?:already|duplicate[sd]?|exists|unique|in use)\b"
    r"|\b(?:already|duplicate[sd]?)\b.{0,60}\b(?:buyer\s?fault\s?reference|message\s?id)\b"
)
_RESOLUTION_ANSWERED = (
    r"(?<!\bclosed )\balready\b(?![^.;,]{0,40}\bclosed\b)"
    r"|\bduplicate[sd]?\b"
    r"|\bnot\b[^.;]{0,30}\bresolved\b[^.;]{0,20}\bany ?more\b"
    r"|\bno longer\b[^.;]{0,30}\bresolved\b"
)

_KEY = "appointment.appointmentReservationKey"


def _reservation_key(mode: Mode) -> tuple[Rule, ...]:
    """A report of a Service Outage needs a reservation key, one of another type must not have it (section 4.2).

    Documented for a new report alone. An amendment may carry a new key without repeating the type, and
    that is how an appointment is moved.
    """
    if mode is Mode.OFF:
        return ()
    warning = mode is Mode.WARN

    def rule(command: Record) -> Iterable[Problem]:
        kind, reserved = command["faultDetails"]["type"], _reserved(command)
        if kind == "SERVICE_OUTAGE" and not reserved:
            yield Problem(_KEY, "needed when faultDetails.type is SERVICE_OUTAGE", warning)
        if kind in {"IMPAIRED_SERVICE", "PERFORMANCE_ISSUE"} and reserved:
            yield Problem(_KEY, "only allowed when faultDetails.type is SERVICE_OUTAGE", warning)

    return (rule,)


def _reserved(command: Record) -> bool:
    """Whether a command carries a reservation key that is not blank."""
    key = (command["appointment"] or {}).get("appointmentReservationKey")
    return bool(key and key.strip())


def _rejection_has_reason(command: Record) -> Iterable[Problem]:
    """A resolution that is rejected must have a reason (section 2.5)."""
    if command["resolveAccepted"] is False and not (command["rejectedReason"] or "").strip():
        yield Problem("rejectedReason", "needed when resolveAccepted is false")
