"""The SOAP envelope: added to what we send by concatenation, removed from what we receive whatever its form.

What suppliers send as an answer is an envelope of SOAP 1.1 or 1.2 under any prefix, or the bare body element;
a refusal is a SOAP Fault of either version or a bare `fault` block with `faultcode` and `faultmessage`
(supplier contract, section 2.4).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from xml.sax.saxutils import escape

from lxml import etree

from adapter.core.document import folded_text, local_name
from adapter.core.immutable import immutable

SOAP_1_1: Final = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_1_2: Final = "http://www.w3.org/2003/05/soap-envelope"


class Version(StrEnum):
    NONE = "none"
    SOAP_1_1 = "1.1"
    SOAP_1_2 = "1.2"
    OTHER = "other"
    """An element named Envelope in a namespace that is neither."""


class Blame(StrEnum):
    """Who is at fault, according to the code of a SOAP Fault."""

    CLIENT = "client"
    """The request was refused (SOAP 1.1 Client, 1.2 Sender)."""

    SERVER = "server"
    """The receiver failed; what it had done by then is open (SOAP 1.1 Server, 1.2 Receiver)."""

    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Fault:
    """`code` without prefix ("Client.Authentication"); `text` and `detail` with white space folded."""

    code: str
    text: str
    detail: str

    @property
    def blame(self) -> Blame:
        match re.split(r"[.\s]", self.code, maxsplit=1)[0].lower():
            case "client" | "sender":
                return Blame.CLIENT
            case "server" | "receiver":
                return Blame.SERVER
            case _:
                return Blame.OTHER


@immutable
class Message:
    """What was in the envelope: one element, or a fault, or neither (an empty body)."""

    element: etree._Element | None
    fault: Fault | None
    version: Version
    extra: int
    """How many further elements the body held; `element` is the first. A proper body has none."""
    text: str = ""
    """What an envelope without either holds instead, with white space folded."""

    @property
    def empty(self) -> bool:
        """Whether the sender said nothing."""
        return self.element is None and self.fault is None and not self.text


def wrap(body: bytes, *, version: Version = Version.SOAP_1_1) -> bytes:
    """`body`, a serialised element without XML declaration, in an envelope."""
    return (_OPEN_1_2 if version is Version.SOAP_1_2 else _OPEN) + body + _CLOSE


def fault(text: str, *, version: Version = Version.SOAP_1_1) -> bytes:
    """An envelope that says: refused. The code is Client in 1.1 (section 4.4.1), Sender in 1.2 (section 5.4.6)."""
    said = escape(text)
    if version is Version.SOAP_1_2:
        words = (
            "<soap:Fault><soap:Code><soap:Value>soap:Sender</soap:Value></soap:Code>"
            f'<soap:Reason><soap:Text xml:lang="en">{said}</soap:Text></soap:Reason></soap:Fault>'
        )
    else:
        words = f"<soap:Fault><faultcode>soap:Client</faultcode><faultstring>{said}</faultstring></soap:Fault>"
    return wrap(words.encode(), version=version)


def unwrap(root: etree._Element) -> Message:
    """Extracts the message from an admitted document; anything is accepted, the caller judges an unknown element."""
    if local_name(root) != "Envelope":
        return _message(root, Version.NONE, extra=0)
    version = _VERSIONS.get(etree.QName(root).namespace or "", Version.OTHER)
    bodies = [child for child in root if local_name(child) == "Body"]
    elements = [child for body in bodies for child in body]
    if not elements:
        said = (folded_text(part) for part in root if local_name(part) != "Header")
        return Message(None, None, version, extra=0, text=" ".join(filter(None, said)))
    return _message(elements[0], version, extra=len(elements) - 1)


_OPEN: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body>'
)
_OPEN_1_2: Final = _OPEN.replace(SOAP_1_1.encode(), SOAP_1_2.encode())
_CLOSE: Final = b"</soap:Body></soap:Envelope>"
_VERSIONS: Final = {SOAP_1_1: Version.SOAP_1_1, SOAP_1_2: Version.SOAP_1_2}


def _message(element: etree._Element, version: Version, *, extra: int) -> Message:
    if local_name(element).lower() == "fault":
        return Message(None, _fault(element), version, extra)
    return Message(element, None, version, extra)


def _fault(element: etree._Element) -> Fault:
    parts = {local_name(child).lower(): child for child in reversed(element)}  # the first of a name wins

    def text(*names: str) -> str:
        return next((folded_text(parts[name]) for name in names if name in parts), "")

    if "code" in parts:  # SOAP 1.2, section 5.4: Code/Value, Code/Subcode/Value, Reason/Text
        codes = list(_local(parts["code"], "value"))
        code = ".".join(folded_text(value).rpartition(":")[2] for value in codes)
        reasons = list(_local(parts["reason"], "text")) if "reason" in parts else []
        reason = folded_text(reasons[0]) if reasons else text("reason")
    else:
        code = text("faultcode").rpartition(":")[2]
        reason = text("faultmessage", "faultstring")
    return Fault(code=code, text=reason, detail=text("detail"))


def _local(element: etree._Element, name: str) -> Iterator[etree._Element]:
    return (found for found in element.iter() if local_name(found).lower() == name)
