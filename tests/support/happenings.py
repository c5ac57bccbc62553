"""Events of one ticket, as the fold gets them."""

from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any, Final

from adapter.core.ticket import Event, Policy

T0: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
POLICY: Final = Policy(
    resolve_deadline=timedelta(hours=48), warn_before=timedelta(hours=6), tombstone_after=timedelta(days=90)
)

_numbers = count(1)


def minutes(number: float) -> datetime:
    """So many minutes after T0."""
    return T0 + timedelta(minutes=number)


def notified(
    status: str | None,
    sent: datetime | None,
    *,
    kind: str | None = None,
    received: datetime | None = None,
    maintainer: str | None = None,
    **report: Any,
) -> Event:
    """A notification, received when it was sent unless told, and written at once; each with an id of its own."""
    received = received or sent or T0
    record = {
        "buyerFaultReference": "SP-1",
        "maintainerFaultReference": maintainer,
        "kind": kind or status or "UPDATED",
        "status": status,
        "supplierSentAt": sent,
        "receivedAt": received,
        "report": report,
    }
    return Event("FaultReportUpdated", f"N-{next(_numbers)}", record, received)


def answered(
    command: str, name: str = "FaultReportAdded", *, operation: str = "AddFaultReport", at: datetime, **more: Any
) -> Event:
    """A command's outcome."""
    record: dict[str, Any] = {"commandId": command, "operation": operation, "buyerFaultReference": "SP-1"}
    record |= {"occurredAt": at, "attempts": 1}
    return Event(name, f"{command}/{name}/{next(_numbers)}", record | more, at)


def doubted(command: str, *, at: datetime, operation: str = "AddFaultReport") -> Event:
    return answered(command, "CommandOutcomeUnknown", operation=operation, at=at, doubtUntil=at + timedelta(hours=48))


def settled(command: str, outcome: str, *, at: datetime, operation: str = "AddFaultReport") -> Event:
    return answered(command, "CommandSettled", operation=operation, at=at, outcome=outcome)


def appointment(key: str | None, **more: Any) -> dict[str, Any]:
    return {
        "appointmentReservationKey": key,
        "appointmentDate": date(2026, 3, 5),
        "appointmentStartTime": "08:00",
        "appointmentEndTime": "13:00",
        "appointmentConfirmationStatus": None,
        "appointmentClosureCode": None,
        "appointmentCancelled": None,
        **more,
    }
