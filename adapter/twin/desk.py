"""The supplier's front desk: reads a request, lets the books decide, and writes the answer. Nothing here waits.

It implements the operations from the contract independently and shares no declaration with the adapter, so that a
mistake there is not repeated here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Final

from lxml import etree

from adapter.core import document, soap
from adapter.core.errors import Unreadable
from adapter.twin import answers
from adapter.twin.faults import Fault, Kind
from adapter.twin.tickets import Books, Refusal, Slot

TICKETS: Final = ("addFaultReport", "amendFaultReport", "requestFaultReportUpdate", "resolveResponse")
APPOINTMENTS: Final = ("queryAppointmentAvailability", "reserveAppointment")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as far as it could be read. `problem`, HTTP status and reason, is set if it must be rejected."""

    operation: str
    element: etree._Element | None = None
    version: soap.Version = soap.Version.SOAP_1_1
    """Of its envelope, and so of the answer's."""

    problem: tuple[int, str] | None = None

    @property
    def key(self) -> str | None:
        """buyerFaultReference, or the address key of the appointment operations."""
        return self.text("addressKey" if self.operation in APPOINTMENTS else "buyerFaultReference")

    @property
    def message_id(self) -> str | None:
        return self.text("message", "messageId") or self.text("messageId")

    @property
    def buyer(self) -> str:
        return self.text("buyer", "buyerIdentifier") or self.text("buyerIdentifier") or ""

    def report(self) -> dict[str, str]:
        """All texts by dotted path, as they are written."""
        return {} if self.element is None else dict(_texts(self.element))

    def text(self, *path: str) -> str | None:
        """Folded text at that path of local names; None if it is absent or empty."""
        found = self.element
        for name in path:
            if found is None:
                return None
            found = next((child for child in found if etree.QName(child).localname == name), None)
        return document.fold(found.text or "") or None if found is not None else None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `verdict` is accepted or refused if the request came to the books, else None."""

    status: int
    body: bytes
    content_type: str = "text/xml; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    verdict: str | None = None


def load(folder: Path) -> Mapping[str, etree.XMLSchema]:
    """The schemas of the requests, by operation: each from the file in `folder` that declares its element."""
    found: dict[str, etree.XMLSchema] = {}
    for path in folder.glob("*.xsd"):
        schema = etree.parse(path)
        declared = {str(each.get("name")) for each in schema.getroot().iterchildren("{*}element")}
        if served := declared.intersection(TICKETS + APPOINTMENTS):
            found |= dict.fromkeys(served, etree.XMLSchema(schema))
    return found


@dataclass(slots=True)
class Desk:
    """One supplier; `books` is all that changes."""

    books: Books
    schemas: Mapping[str, etree.XMLSchema]
    base_path: str = ""
    buyer: str | None = None
    """The only buyerIdentifier that is served; None: all."""

    echo_message_id: bool = True
    replies: int = 0

    def read(self, *, method: str, path: str, content_type: str, body: bytes) -> Request:
        """The request as far as it can be read; never raises."""
        prefix, _, operation = path.rpartition("/")
        if prefix != self.base_path or operation not in self.schemas:
            return Request("", problem=(404, "no such operation"))
        if method != "POST":
            return Request(operation, problem=(405, "POST only"))
        try:
            root = document.admit(body, charset=document.charset(content_type))
        except Unreadable as unreadable:
            return Request(operation, problem=(400, f"not an XML document: {unreadable.reason}"))
        message = soap.unwrap(root)
        element, version = message.element, message.version
        if element is None or etree.QName(element).localname != operation:
            return Request(operation, version=version, problem=(400, f"the body element is not {operation}"))
        return Request(operation, element, version)

    def take(self, request: Request, now: datetime) -> Answer:
        """Decides and answers; the books change if the request is accepted."""
        if request.problem:
            status, text = request.problem
            return self._fault(request, status, text)
        if self.buyer is not None and request.buyer != self.buyer:
            return self._fault(request, 403, "this buyerIdentifier is not served here")
        decided = self._invalid(request) or self._decide(request, now)
        if isinstance(decided, Refusal):
            return self._refusal(request, decided, now)
        reply = answers.reply(request.operation, self._letterhead(request, now), decided)
        return _answer(200, reply, request.version, verdict="accepted")

    def spoil(self, request: Request, right: Answer | None, fault: Fault, now: datetime) -> Answer:
        """The answer that a fault on demand gives instead of the right one, which is None if the request was not
        processed. What happens on the wire is up to `wire`.
        """
        match fault.kind:
            case Kind.REFUSE if request.operation:
                code = int(fault.code) if fault.code.isdecimal() else 400
                return self._refusal(request, Refusal(code, fault.text), now)
            case Kind.SOAP_FAULT:
                version = soap.Version.SOAP_1_1 if request.version is soap.Version.NONE else request.version
                return _answer(500, answers.soap_fault(fault.code or "Server", fault.text, version), version)
            case Kind.EXTRA_ELEMENT if right:
                before, end, after = right.body.rpartition(b"</received")  # which a fault block has not
                note = b"<supplierNote><level>2</level></supplierNote>"
                return replace(right, body=before + note + end + after) if end else right
            case Kind.FAULT_BLOCK | Kind.STATUS:
                return self._fault(request, fault.http_status, fault.text, code=fault.code)
            case _:
                return right or self._fault(request, *(request.problem or (500, fault.text)))

    def _decide(self, request: Request, now: datetime) -> str | Refusal:
        """The inner part of the reply. The request is valid, so what its schema requires is there."""
        decide: Mapping[str, Callable[[Request, datetime], str | Refusal]] = {
            "addFaultReport": self._add,
            "amendFaultReport": self._amend,
            "requestFaultReportUpdate": self._request_update,
            "resolveResponse": self._resolve,
            "queryAppointmentAvailability": self._available,
            "reserveAppointment": self._reserve,
        }
        return decide[request.operation](request, now)

    def _add(self, request: Request, now: datetime) -> str | Refusal:
        reference = request.key or ""
        decided = self.books.add(
            reference=reference,
            service=request.text("serviceAffected") or "",
            incident=request.text("faultDetails", "type") or "",
            reservation_key=request.text("appointment", "appointmentReservationKey"),
            now=now,
            report=request.report(),
        )
        return decided if isinstance(decided, Refusal) else answers.pending(reference)

    def _amend(self, request: Request, now: datetime) -> str | Refusal:
        reference = request.key or ""
        decided = self.books.amend(
            reference=reference,
            maintainer_reference=request.text("maintainerFaultReference"),
            incident=request.text("faultDetails", "type"),
            reservation_key=request.text("appointment", "appointmentReservationKey"),
            now=now,
            report=request.report(),
        )
        return decided if isinstance(decided, Refusal) else answers.confirmed(reference)

    def _request_update(self, request: Request, now: datetime) -> str | Refusal:
        reference, maintainer = request.key or "", request.text("maintainerFaultReference")
        decided = self.books.request_update(reference=reference, maintainer_reference=maintainer, now=now)
        return decided if isinstance(decided, Refusal) else answers.confirmed(reference)

    def _resolve(self, request: Request, now: datetime) -> str | Refusal:
        reference, maintainer = request.key or "", request.text("maintainerFaultReference")
        accepted = request.text("resolveAccepted") in ("true", "1")
        decided = self.books.resolve(reference=reference, maintainer_reference=maintainer, accepted=accepted, now=now)
        return decided if isinstance(decided, Refusal) else answers.confirmed(reference, resolve_accepted=accepted)

    def _available(self, request: Request, _now: datetime) -> str | Refusal:
        first = _day(request.text("appointmentsFrom"))
        if first is None:
            return Refusal(400, "appointmentsFrom is out of reach")
        address = request.key or ""
        return answers.available(address, self.books.slots(address=address, first=first))

    def _reserve(self, request: Request, _now: datetime) -> str | Refusal:
        day = _day(request.text("appointmentSlot", "appointmentDate"))
        if day is None:
            return Refusal(400, "appointmentDate is out of reach")
        start = request.text("appointmentSlot", "appointmentStartTime") or ""
        end = request.text("appointmentSlot", "appointmentEndTime") or ""
        slot = Slot(day, start, end)
        key = self.books.reserve(address=request.key or "", slot=slot)
        return key if isinstance(key, Refusal) else answers.reserved(key, slot)

    def _invalid(self, request: Request) -> Refusal | None:
        schema = self.schemas[request.operation]
        if request.element is not None and schema.validate(request.element):
            return None
        # The path alone: the parser's own words repeat the value.
        wrong = schema.error_log.last_error
        return Refusal(400, f"not valid by the schema at {wrong.path if wrong else request.operation}")

    def _refusal(self, request: Request, refusal: Refusal, now: datetime) -> Answer:
        """For add a reply with status Rejected (contract 2.2), for the others HTTP 400 (2.4)."""
        adding = request.operation == "addFaultReport"
        inner = answers.rejected(refusal) if adding else answers.refused(refusal)
        reply = answers.reply(request.operation, self._letterhead(request, now), inner)
        return _answer(200 if adding else 400, reply, request.version, verdict="refused")

    def _fault(self, request: Request, status: int, text: str, *, code: str = "") -> Answer:
        block = answers.fault_block(code or ("Server" if status >= 500 else "Client"), text)
        return _answer(status, block, request.version)

    def _letterhead(self, request: Request, now: datetime) -> answers.Letterhead:
        self.replies += 1
        echoed = request.message_id if self.echo_message_id else None
        nicc = request.operation in APPOINTMENTS
        return answers.Letterhead(
            buyer=request.buyer,
            message_id=echoed or f"CF-{self.replies:05d}",
            now=now,
            correlation_id=(request.text("message", "correlationId") or "") if nicc else None,
        )


def _answer(status: int, element: str, version: soap.Version, *, verdict: str | None = None) -> Answer:
    return Answer(
        status, answers.document(element, version), content_type=answers.content_type(version), verdict=verdict
    )


def _texts(element: etree._Element, above: str = "") -> Iterator[tuple[str, str]]:
    for child in element:
        path = above + document.local_name(child)
        if len(child):
            yield from _texts(child, f"{path}.")
        else:
            yield path, child.text or ""


def _day(text: str | None) -> date | None:
    """An xs:date, whose time zone does not matter here; None for years that no calendar of ours has."""
    try:
        day = date.fromisoformat((text or "")[:10])
    except ValueError:
        return None
    return day if day.year < 9000 else None
