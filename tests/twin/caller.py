"""Requests to the twin, and a caller that makes them."""

import aiohttp

from adapter.twin import Twin

ENVELOPE = '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{}</s:Body></s:Envelope>'


def ticket(operation: str, inner: str = "", *, reference: str = "SP-1", message_id: str = "m-1") -> str:
    header = (
        "<apiVersion>1.0</apiVersion><buyerIdentifier>SPDEV1</buyerIdentifier>"
        f"<sentAt>2026-03-02T09:30:00.000Z</sentAt><messageId>{message_id}</messageId>"
    )
    inner = inner.replace("REF", f"<buyerFaultReference>{reference}</buyerFaultReference>")
    return ENVELOPE.format(f"<{operation}>{header}{inner}</{operation}>")


def addition(reference: str = "SP-1", *, message_id: str = "m-1", details: str = "", key: str = "") -> str:
    appointment = f"<appointment><appointmentReservationKey>{key}</appointmentReservationKey></appointment>"
    inner = (
        "<reporterContactDetails/><endUserContactDetails/><serviceAffected>S1</serviceAffected>REF"
        f"<faultDetails>{details}</faultDetails>{appointment if key else ''}"
    )
    return ticket("addFaultReport", inner, reference=reference, message_id=message_id)


async def post(http: aiohttp.ClientSession, twin: Twin, operation: str, body: str | bytes) -> tuple[int, bytes]:
    headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '""'}
    data = body.encode() if isinstance(body, str) else body
    async with http.post(f"{twin.url}/{operation}", data=data, headers=headers) as response:
        return response.status, await response.read()
