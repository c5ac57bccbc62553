"""The supplier's replies as XML text. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from xml.sax.saxutils import escape

from adapter.core.soap import SOAP_1_1, SOAP_1_2, Version
from adapter.twin.tickets import Refusal, Slot


@dataclass(frozen=True, slots=True)
class Letterhead:
    """The fields every reply begins with; `correlation_id` only in the NICC style of the appointment operations."""

    buyer: str
    message_id: str
    now: datetime
    correlation_id: str | None = None


def timestamp(moment: datetime) -> str:
    """UTC with four fraction digits, 25 characters, as in the supplier's samples (contract section 8, number 11)."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 100:04d}Z"


def reply(operation: str, letterhead: Letterhead, inner: str) -> str:
    """The reply element of an operation."""
    if letterhead.correlation_id is None:
        head = elements(
            apiVersion="1.0",
            buyerIdentifier=letterhead.buyer,
            sentAt=timestamp(letterhead.now),
            messageId=letterhead.message_id,
        )
    else:
        message = elements(
            messageId=letterhead.message_id,
            correlationId=letterhead.correlation_id,
            sentAt=timestamp(letterhead.now),
        )
        head = (
            f"<message>{message}</message>"
            f"<buyer>{elements(buyerIdentifier=letterhead.buyer)}</buyer>"
            f"<seller>{elements(sellerIdentifier='CITYFIBRE')}</seller>"
        )
    root = f"received{operation[0].upper()}{operation[1:]}"
    return f"<{root}>{head}{inner}</{root}>"


def pending(reference: str) -> str:
    return elements(status="Pending", buyerFaultReference=reference, responseCode="200")


def rejected(refusal: Refusal) -> str:
    """The synchronous rejection of a new fault report (contract section 2.2)."""
    return elements(status="Rejected", responseCode=str(refusal.code), errorMessage=refusal.text)


def refused(refusal: Refusal) -> str:
    """The content of a 400: responseCode and errorMessage. The message has children, since the contract types it as an
    object (section 8, number 20); their names are ours.
    """
    words = elements(code=str(refusal.code), description=refusal.text)
    return f"{elements(responseCode=str(refusal.code))}<errorMessage>{words}</errorMessage>"


def confirmed(reference: str, *, resolve_accepted: bool | None = None) -> str:
    """The other ticket operations; `resolve_accepted` is in the reply to resolveResponse only."""
    first = "" if resolve_accepted is None else elements(resolveAccepted=str(resolve_accepted).lower())
    return first + elements(buyerFaultReference=reference, responseCode="200")


def available(address: str, slots: Iterable[Slot]) -> str:
    offered = f"<appointmentSlots>{''.join(_slot(s) for s in slots)}</appointmentSlots>"
    return elements(addressKey=address) + offered + elements(responseCode="200")


def reserved(key: str, slot: Slot) -> str:
    return elements(appointmentReservationKey=key) + _slot(slot) + elements(responseCode="200")


def fault_block(code: str, text: str) -> str:
    """The block of 401, 403 and 500 (contract section 2.4)."""
    return f"<fault>{elements(faultcode=code, faultmessage=text)}</fault>"


def soap_fault(code: str, text: str, version: Version) -> str:
    """A fault for the body of an envelope (SOAP 1.1 section 4.4, 1.2 section 5.4). `code` is Client or Server, which
    SOAP 1.2 calls Sender and Receiver.
    """
    if version is not Version.SOAP_1_2:
        return f"<soap:Fault>{elements(faultcode=f'soap:{code}', faultstring=text)}</soap:Fault>"
    said = f'<soap:Text xml:lang="en">{escape(text)}</soap:Text>'
    value = elements(**{"soap:Value": f"soap:{_CODES_1_2.get(code, code)}"})
    return f"<soap:Fault><soap:Code>{value}</soap:Code><soap:Reason>{said}</soap:Reason></soap:Fault>"


def document(element: str, version: Version) -> bytes:
    """The bytes of an answer, in an envelope of that version or bare as in the supplier's samples."""
    if version is not Version.NONE:
        namespace = SOAP_1_2 if version is Version.SOAP_1_2 else SOAP_1_1
        element = f'<soap:Envelope xmlns:soap="{namespace}"><soap:Body>{element}</soap:Body></soap:Envelope>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{element}'.encode()


def content_type(version: Version) -> str:
    return f"{'application/soap+xml' if version is Version.SOAP_1_2 else 'text/xml'}; charset=utf-8"


def elements(**parts: str) -> str:
    """Elements of those names with text in them."""
    return "".join(f"<{name}>{escape(text)}</{name}>" for name, text in parts.items())


_CODES_1_2: Final = {"Client": "Sender", "Server": "Receiver"}


def _slot(slot: Slot) -> str:
    times = elements(appointmentStartTime=slot.start, appointmentEndTime=slot.end)
    return f"<appointmentSlot>{elements(appointmentDate=slot.day.isoformat())}{times}</appointmentSlot>"
