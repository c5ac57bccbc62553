"""Checks whether the answer to a notification conforms to the contract (section 3.3). Pure.

It is independent of the adapter's writer of answers and shares only the XSD with it. A problem names the element, never
its content.
"""

from dataclasses import dataclass
from typing import Final

from lxml import etree

from adapter.core import document, soap
from adapter.core.errors import Unreadable

ANSWER: Final = "receivedNotifyFaultReportUpdate"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the answer has to match. None is not checked."""

    version: soap.Version | None = None
    message_id: str | None = None
    buyer: str | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """`schema` is faultReport.xsd."""

    schema: etree.XMLSchema

    def problems(self, status: int, content_type: str, body: bytes, asked: Asked) -> tuple[str, ...]:
        """Every way in which the answer breaks the contract; empty if it conforms."""
        found = [] if status == 200 else [f"HTTP status {status} instead of 200"]
        media = content_type.partition(";")[0].strip().lower()
        if media not in {"text/xml", "application/xml", "application/soap+xml"}:
            found.append(f"Content-Type: not XML but {media[:60] or 'missing'}")
        try:
            root = document.admit(body, charset=document.charset(content_type))
        except Unreadable as unreadable:
            return (*found, f"not a document: {unreadable.reason}")
        message = soap.unwrap(root)
        if asked.version is not None and message.version is not asked.version:
            found.append(f"envelope: {message.version.value} instead of {asked.version.value}")
        if message.fault is not None:
            return (*found, "a fault instead of an acknowledgement")
        if message.element is None or message.element.tag != ANSWER:
            return (*found, f"the body element is not {ANSWER}")
        if message.extra:
            found.append("more than one element in the body")
        return (*found, *self._content(message.element, asked))

    def _content(self, element: etree._Element, asked: Asked) -> list[str]:
        found = []
        # A copy of its own: libxml2 validates the document an element is in, not the element.
        alone = etree.fromstring(etree.tostring(element, with_tail=False))
        if not self.schema.validate(alone):
            found += sorted({f"not valid by the schema at {error.path}" for error in self.schema.error_log})
        text = {document.local_name(child): document.folded_text(child) for child in alone}
        if len(text.get("sentAt", "")) > 25:
            found.append("sentAt: longer than 25 characters")
        if text.get("responseCode") != "200":
            found.append("responseCode: not 200")
        if asked.message_id is not None and text.get("messageId") != asked.message_id:
            found.append("messageId: not the notification's")
        if asked.buyer is not None and text.get("buyerIdentifier") != asked.buyer:
            found.append("buyerIdentifier: not the notification's")
        return found


def asked_by(body: bytes, content_type: str = "") -> Asked:
    """What an answer to these bytes has to match, as far as they can be read."""
    try:
        message = soap.unwrap(document.admit(body, charset=document.charset(content_type)))
    except Unreadable:
        return Asked()
    children = message.element if message.element is not None else ()
    text = {document.local_name(child): document.folded_text(child) for child in children}
    return Asked(message.version, text.get("messageId") or None, text.get("buyerIdentifier") or None)
