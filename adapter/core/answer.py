"""The answers to notifications: a receipt once the notification is stored safely, or a SOAP fault that says what was
wrong with it.

Of the notification's content they repeat only the message id and the buyer identifier, and those only within the
lengths that the XSD allows.
"""

import re
from datetime import datetime
from typing import Final, TypeGuard
from xml.sax.saxutils import escape

from lxml import etree

from adapter.core import soap
from adapter.core.derived import namespace
from adapter.core.errors import Stop
from adapter.core.immutable import immutable
from adapter.core.instant import utc
from adapter.core.notification import NAMESPACE, Readable, Refusal
from adapter.core.soap import Version
from adapter.core.xsd import Element, Leaf, Xsd


@immutable
class Written:
    content_type: str
    body: bytes


class AnswerWriter:
    """Writes the answers to notifications, each enveloped as its notification was."""

    def __init__(self, tag: str, children: tuple[Element, ...]) -> None:
        root = etree.Element(tag)
        for child in children:
            etree.SubElement(root, child.tag).text = f"@{child.name}@"
        # Literal text and names of values alternate.
        self._template = re.split("@([A-Za-z]+)@", etree.tostring(root, encoding="unicode"))

    def accepted(self, notification: Readable, *, api_version: str, buyer: str, at: datetime, own_id: bool) -> Written:
        """The receipt for a stored notification, valid against the XSD.

        `buyer` is used if the notification names none. The message id is the notification's own. With `own_id`, or if
        the notification's does not fit, it is derived from the notification's id.
        """
        message_id = notification.message_id
        if own_id or not _fits(message_id):
            message_id = _derived(f"{notification.id}/answer")
        values = {
            "apiVersion": _written(api_version),
            "buyerIdentifier": _written(notification.buyer if _fits(notification.buyer) else buyer),
            "sentAt": utc(at),
            "messageId": _written(message_id),
            "responseCode": "200",
        }
        texts = [values[text] if place % 2 else text for place, text in enumerate(self._template)]
        return _enveloped("".join(texts).encode(), notification.version)


FIELDS: Final = frozenset({"apiVersion", "buyerIdentifier", "sentAt", "messageId", "responseCode"})
"""The fields an answer can have (contract section 3.3). Which it has, in which order, is in the supplier's XSD."""


def compile_answer(xsd: Xsd, element: str) -> AnswerWriter:
    """The writer of `element` (Clark notation). Raises Stop for a required field that has no value here."""
    root = xsd.element(element)
    children = () if isinstance(root.content, Leaf) else root.content
    written = tuple(child for child in children if child.name in FIELDS)
    unfilled = [child for child in children if child.least and child not in written]
    faults = [f"{root.name}.{child.name}: required, and nothing fills it" for child in unfilled]
    if faults or not written:
        raise Stop(*faults or (f"{root.name}: holds none of {', '.join(sorted(FIELDS))}",))
    return AnswerWriter(root.tag, written)


def refused(refusal: Refusal) -> Written:
    """A SOAP fault that says what was wrong; a bare message gets one of SOAP 1.1."""
    version = Version.SOAP_1_2 if refusal.version is Version.SOAP_1_2 else Version.SOAP_1_1
    return Written(_CONTENT_TYPES[version], soap.fault(f"{refusal.reason}: {refusal.detail}", version=version))


_CONTENT_TYPES: Final = {
    Version.NONE: "application/xml; charset=utf-8",  # what the reference names for bare messages (section 1)
    Version.SOAP_1_1: "text/xml; charset=utf-8",
    Version.SOAP_1_2: "application/soap+xml; charset=utf-8",
    Version.OTHER: "text/xml; charset=utf-8",
}
_derived: Final = namespace(NAMESPACE)
_LONGEST: Final = 36
"""Characters of an id (section 3.3)."""


def _fits(text: str | None) -> TypeGuard[str]:
    return text is not None and 0 < len(text) <= _LONGEST and not text.isspace()


def _written(text: str) -> str:
    return escape(text, {"\r": "&#13;"})  # or the reader would make it a line feed


def _enveloped(element: bytes, version: Version) -> Written:
    if version is Version.NONE:
        return Written(_CONTENT_TYPES[version], b'<?xml version="1.0" encoding="UTF-8"?>' + element)
    return Written(_CONTENT_TYPES[version], soap.wrap(element, version=version))
