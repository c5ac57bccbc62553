"""What CityFibre's notifications are about: one table of rules over a report's content, and the words around it.

Every notification is the whole report (section 4.2 of docs/contract.md), and nothing in it says which event made the
supplier send it. So the rules read standing facts, strongest first: a status that ends or turns the ticket, then the
latest appointment, then triage, then the status under which work goes on. Section numbers are those of
docs/contract.md; docs/events.md says the same for readers of the events.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from adapter.core.document import plain
from adapter.core.operation import Notification, Problem, Record, Told

CLOSURE_CODES: Final = {
    "FR": "Fault Resolved",
    "FNR": "Fault Not Resolved",
    "HAZ": "Site Unsafe",
    "NA": "No access",
    "NAPUV": "No Access Possible Hazard",
    "ASQ": "Sales Query",
    "NDT": "No dial tone",
    "UNF": "Unforeseen Circumstance e.g. Asbestos",
    "MBORC": "Matters Beyond Reasonable Control",
    "FTA": "Failed to Attend",
    "SREQ": "Service Request",
}
"""Section 6.1, word for word; the list is open."""

INCIDENT_TYPES: Final = ("Impaired Service", "Service Outage", "Performance Issue")
"""Section 6.2."""

STATUSES: Final = {
    "pending": "PENDING",
    "rejected": "REJECTED",
    "accepted": "ACCEPTED",
    "inprogress": "IN_PROGRESS",
    "onhold": "ON_HOLD",
    "resolved": "RESOLVED",
    "reopened": "RE_OPENED",
    "closed": "CLOSED",
}
"""Section 4.1, as `plain` writes them."""

HINTS: Final = {
    **STATUSES,
    "amended": "AMENDED",
    "amendment": "AMENDED",
    "missedappointmentamended": "AMENDED",  # the page's own file name (section 8, number 29)
    "triage": "TRIAGED",
    "triaged": "TRIAGED",
    "appointmentconfirmed": "APPOINTMENT_CONFIRMED",
    "appointmentfailed": "APPOINTMENT_FAILED",
    "appointmentcompleted": "APPOINTMENT_COMPLETED",
    "appointmentcancelled": "APPOINTMENT_CANCELLED",
    "missedappointment": "MISSED_APPOINTMENT",
}
"""What the end of a URL path or a SOAPAction may say (section 3.1), as `plain` writes it without its first words."""


def tell(report: Record, hints: tuple[str, ...]) -> Told:
    """What the report is about. A report is a record mapped from notifyFaultReportUpdate."""
    facts = _facts(report)
    kind, final = next((rule.kind, rule.final) for rule in RULES if rule.holds(facts))
    if not final:
        kind = next((hinted for hint in hints if (hinted := _hinted(hint)) and _may_be(hinted, kind, facts)), kind)
    return Told(
        kind=kind,
        status=facts.status,
        closure_code=facts.closure_code or None,
        closure_meaning=CLOSURE_CODES.get(facts.closure_code),
        problems=tuple(_problems(report, facts)),
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at."""

    status: str | None
    """Symbol, UNKNOWN for a word that is not documented, None for no word."""

    cancelled: bool
    """Of the latest appointment, the last of the list, like everything here about an appointment."""

    closure_code: str
    confirmation: str
    """As `plain` writes it."""

    missed: bool
    triaged: bool
    updates: bool


@dataclass(frozen=True, slots=True)
class KindRule:
    kind: str
    holds: Callable[[Facts], bool]
    final: bool = True
    """No hint may override it. False for facts that persist while other things happen."""


def _while_working(condition: Callable[[Facts], bool]) -> Callable[[Facts], bool]:
    """A fact about appointments speaks where the status is the one that all appointment samples carry (section 8,
    number 5), or none that is known; under any other status it is history.
    """
    return lambda facts: facts.status in {"IN_PROGRESS", "UNKNOWN", None} and condition(facts)


def _status(*statuses: str) -> Callable[[Facts], bool]:
    return lambda facts: facts.status in statuses


# The first rule that holds says the kind. The order cancelled, completed, confirmation is that of section 3.2.
RULES: Final = (
    KindRule("RESOLVED", _status("RESOLVED")),
    KindRule("RE_OPENED", _status("RE_OPENED")),
    KindRule("CLOSED", _status("CLOSED")),
    KindRule("REJECTED", _status("REJECTED")),
    KindRule("ON_HOLD", _status("ON_HOLD"), final=False),
    KindRule("APPOINTMENT_CANCELLED", _while_working(lambda facts: facts.cancelled)),
    KindRule("APPOINTMENT_COMPLETED", _while_working(lambda facts: bool(facts.closure_code))),
    KindRule("MISSED_APPOINTMENT", _while_working(lambda facts: facts.missed)),
    KindRule("APPOINTMENT_FAILED", _while_working(lambda facts: facts.confirmation == "failed")),
    KindRule("APPOINTMENT_CONFIRMED", _while_working(lambda facts: facts.confirmation == "confirmed"), final=False),
    KindRule("IN_PROGRESS", _status("IN_PROGRESS"), final=False),
    KindRule("TRIAGED", lambda facts: facts.triaged and facts.status != "PENDING", final=False),
    KindRule("ACCEPTED", _status("ACCEPTED"), final=False),
    KindRule("PENDING", _status("PENDING"), final=False),
    KindRule("UPDATED", lambda facts: facts.status is None and facts.updates, final=False),
    KindRule("UNKNOWN", lambda _: True, final=False),
)

KINDS: Final = frozenset(rule.kind for rule in RULES) | {"AMENDED"}
"""All a notification can be about."""


def _may_be(hinted: str, told: str, facts: Facts) -> bool:
    """Whether a hint may take the place of a kind told from standing facts: only if the report says the same, or if
    no report could say it (an amendment is confirmed with a report like any other), or if the report says nothing.
    """
    if hinted == "AMENDED" or told in {"UPDATED", "UNKNOWN"}:
        return True
    return any(rule.kind == hinted and rule.holds(facts) for rule in RULES)


_FIRST_WORDS: Final = re.compile(r"^(?:notify)?(?:fault(?:report)?)?(?:update)?")


@lru_cache(maxsize=1024)
def _hinted(hint: str) -> str | None:
    """The kind a hint names: of "/notifyInProgress", "urn:x#notifyFaultReportUpdateInProgress.yaml" the last word."""
    words = re.split(r"[/#:?]", hint.strip("\"' /"))
    last = plain(words[-1].partition(".")[0]) if words else ""
    return HINTS.get(_FIRST_WORDS.sub("", last))


def _facts(report: Record) -> Facts:
    fault = report["faultDetails"] or {}
    status = plain(fault.get("status") or "")
    appointments = report["appointments"]
    latest = appointments[-1] if appointments else {}
    return Facts(
        status=STATUSES.get(status, "UNKNOWN") if status else None,
        cancelled=bool(latest.get("appointmentCancelled")),
        closure_code=(latest.get("appointmentClosureCode") or "").strip().upper(),
        confirmation=plain(latest.get("appointmentConfirmationStatus") or ""),
        # Its parts were never seen (section 3.2): each may say "nothing" on its own.
        missed=not _NOT_MISSED.issuperset(map(plain, (fault.get("missedAppointment") or "").split())),
        triaged=bool(fault.get("triageComplete")),
        updates=bool(report["updates"]),
    )


def _problems(report: Record, facts: Facts) -> Iterator[Problem]:
    if facts.status == "UNKNOWN":
        yield Problem("faultDetails.status", "not a documented status")
    kind = (report["faultDetails"] or {}).get("type")
    if kind and plain(kind) not in _TYPES:
        yield Problem("faultDetails.type", "not a documented incident type")
    where = f"appointments[{len(report['appointments']) - 1}]"
    if facts.closure_code and facts.closure_code not in CLOSURE_CODES:
        yield Problem(f"{where}.appointmentClosureCode", "not a documented closure code")
    if facts.confirmation not in {"", "confirmed", "failed"}:
        yield Problem(f"{where}.appointmentConfirmationStatus", "neither Confirmed nor Failed")


_TYPES: Final = frozenset(map(plain, INCIDENT_TYPES))
_NOTHING: Final = frozenset({"", "na", "nil", "none", "null", "pending", "tba", "tbc", "tbd", "unknown"})
"""What people write for "nothing", as returned by `plain`, which leaves nothing of a "-"."""
_NOT_MISSED: Final = _NOTHING | {"0", "false", "n", "no"}
_NO_CODE: Final = _NOTHING - {"na", "unknown"} | {"n/a"}
"""NA without a slash is a code of its own, and unknown may be one: the list is open (section 6.1)."""

NOTIFICATION: Final = Notification(
    element="notifyFaultReportUpdate",
    answer="receivedNotifyFaultReportUpdate",
    event="FaultReportUpdated",
    tell=tell,
    reference="buyerFaultReference",
    supplier_reference="maintainerFaultReference",
    buyer="buyerIdentifier",
    message_id="messageId",
    sent_at="sentAt",
    # Section 8, numbers 7 and 9.
    placeholders={
        "maintainerFaultReference": frozenset({"notinreportonlyaftercreation", *_NOTHING}),
        "appointments.appointmentConfirmationStatus": frozenset({"confirmedorfailed"}),
        "appointments.appointmentClosureCode": _NO_CODE,
    },
)
