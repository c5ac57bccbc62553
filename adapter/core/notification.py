"""A supplier's notification: from what came over HTTP to an event, or to the reason why there is none. Pure.

It is recognised by its body element and content, whatever its envelope, SOAP version, prefixes, order and gaps. If it
can be assigned to a ticket of ours it is Readable, and the event lists every deviation from the contract. Anything else
is a Refusal, which the caller keeps raw with its reason. Nothing here raises, whatever the bytes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from lxml import etree

from adapter.core import document, soap
from adapter.core.avro import Schema
from adapter.core.derived import namespace
from adapter.core.document import DocumentLimits, attributes, local_name, plain, trimmed
from adapter.core.errors import Stop, Unreadable
from adapter.core.immutable import immutable
from adapter.core.mapping import Deviation, MessageReader, ValueClass, compile_message, record_of
from adapter.core.mapping.notes import ASIDE_LIMIT, NAMED_LIMIT, NOT_UTF_8
from adapter.core.operation import Notification
from adapter.core.xsd import Xsd

REASONS: Final = document.REASONS | {
    "no-message",  # an envelope with nothing in it
    "several-messages",  # one body with more than one element
    "unknown-root",  # a body element that is not the notification, or a fault
    "no-reference",  # no reference at all, so it can't be assigned to a ticket
    "maintainer-reference-only",  # only the supplier's reference
    "reference-too-long",  # longer than a key may be
    "foreign-buyer",  # meant for a buyer identifier that is not ours
}
"""What Refusal.reason may be."""

NAMESPACE: Final = UUID("0b8c1a52-7f0d-5f5e-8a3f-6a2c1f0f7d19")
"""Root of the ids of notifications: a repeat gets the id of the first, also in another process."""

LIMITS: Final = DocumentLimits(elements=5_000, depth=32)
"""Of a notification: a ticket with a history of a thousand entries has about four thousand elements."""

REFERENCE_LIMIT: Final = 65_536
"""Characters of a reference, as many as a command's may have."""


@immutable
class Delivery:
    """One POST of the supplier: what HTTP says about it, and its body."""

    body: bytes
    received_at: datetime
    path: str = "/"
    content_type: str | None = None
    soap_action: str | None = None


@immutable
class Readable:
    """A notification that can become an event."""

    id: str
    """Derived from what it says (36 characters): the same for a repeat, another for other content."""

    kind: str
    """Symbol of the event's Kind."""

    reference: str
    """The buyer's reference, trimmed: the key of the event."""

    record: dict[str, Any]
    """The event."""

    deviations: tuple[Deviation, ...]
    """As in the event; the paths have positions in lists."""

    strayed: frozenset[str]
    """The deviations' paths without positions: all of them from the schema, so fit for a label."""

    unknown: int
    """How many elements and attributes the schemas do not know."""

    version: soap.Version
    """Of the envelope it came in."""

    message_id: str | None
    buyer: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not a notification we can read. `detail` is for a person and repeats nothing of the content."""

    reason: str
    detail: str
    version: soap.Version = soap.Version.NONE


class NotificationReader:
    """Reads a supplier's notifications."""

    def __init__(self, declaration: Notification, reader: MessageReader) -> None:
        self._declared = declaration
        self._reader = reader
        self._element = declaration.element.rpartition("}")[2]
        self._placeholders = {tuple(path.split(".")): texts for path, texts in declaration.placeholders.items()}

    def read(
        self, delivery: Delivery, *, buyers: frozenset[str], limits: DocumentLimits = LIMITS
    ) -> Readable | Refusal:
        """Read a delivery. `buyers` are the identifiers that are ours; a message that names none is accepted."""
        try:
            root, mended = document.admit_mended(
                delivery.body, limits=limits, charset=document.charset(delivery.content_type)
            )
        except Unreadable as error:
            in_parts = (delivery.content_type or "").lstrip().lower().startswith("multipart/")
            return Refusal(error.reason, "send one XML document, not several parts" if in_parts else error.detail)
        message = soap.unwrap(root)
        element, version = message.element, message.version
        if message.extra:
            return Refusal("several-messages", f"{message.extra + 1} elements in one body", version)
        if message.fault is not None:
            return Refusal("unknown-root", "a fault is no notification", version)
        if element is None:
            return Refusal("no-message", "the envelope is empty", version)
        if local_name(element).lower() != self._element.lower():
            return Refusal("unknown-root", f"the body element is not {self._element}", version)
        return self._judged(delivery, element, version, buyers, mended=mended)

    def _judged(
        self,
        delivery: Delivery,
        element: etree._Element,
        version: soap.Version,
        buyers: frozenset[str],
        *,
        mended: bool,
    ) -> Readable | Refusal:
        declared = self._declared
        objects = list(element.iter())  # held, or lxml would create new ones for each of the passes below
        read = self._reader.read(element)
        report = read.record
        blanked = list(self._blank_placeholders(report))
        buyer = (report[declared.buyer] or "").strip() or None
        if buyer is not None and buyer not in buyers:
            return Refusal("foreign-buyer", f"{declared.buyer} is not ours", version)
        reference = trimmed(report[declared.reference] or "")
        theirs = trimmed(report[declared.supplier_reference] or "") or None
        if not reference:
            if theirs is None:
                return Refusal("no-reference", f"no {declared.reference}", version)
            return Refusal("maintainer-reference-only", f"no {declared.reference}", version)
        if len(reference) > REFERENCE_LIMIT:
            return Refusal("reference-too-long", f"{declared.reference}: longer than {REFERENCE_LIMIT}", version)
        told = declared.tell(report, hints(delivery))
        deviations = tuple(
            [
                *_strays_by_name(element, declared.element),
                *([NOT_UTF_8] if mended else []),
                *read.deviations,
                *blanked,
                *(Deviation(problem.path, problem.text, ValueClass.TEXT) for problem in told.problems),
                *([Deviation("", "more of unknown content than is told")] if len(read.aside) == ASIDE_LIMIT else []),
            ][:NAMED_LIMIT]
        )
        message_id = report[declared.message_id]
        content = content_hash(element, without=declared.sent_at)
        del objects
        record = {
            "buyerFaultReference": reference,
            "maintainerFaultReference": theirs,
            "kind": told.kind,
            "status": told.status,
            "closureCode": told.closure_code,
            "closureMeaning": told.closure_meaning,
            "supplierSentAt": report[declared.sent_at],
            "receivedAt": delivery.received_at,
            "contentHash": content,
            "report": report,
            "deviations": [{"path": d.path, "what": d.what, "valueClass": d.value.value} for d in deviations],
            "unknownElements": [{"path": path, "text": text} for path, text in read.aside],
        }
        return Readable(
            id=notification_id(buyer or "", reference, message_id or "", content),
            kind=told.kind,
            reference=reference,
            record=record,
            deviations=deviations,
            strayed=frozenset(without_positions(d.path) for d in deviations),
            unknown=len(read.unknown),
            version=version,
            message_id=message_id,
            buyer=buyer,
        )

    def _blank_placeholders(self, report: dict[str, Any]) -> Iterator[Deviation]:
        for path, texts in self._placeholders.items():
            for where, holder in _holders(report, path[:-1], ""):
                text = holder[path[-1]]
                if text and not text.isspace() and not texts.isdisjoint({plain(text), text.strip().lower()}):
                    holder[path[-1]] = None
                    yield Deviation(where + path[-1], "a placeholder", ValueClass.PLACEHOLDER)


def compile_notification(xsd: Xsd, declaration: Notification, event: Schema, *, zone: tzinfo) -> NotificationReader:
    """The reader of the declared notification. Times without an offset are taken to be in `zone`.

    Raises Stop with one line per path that does not fit.
    """
    record = record_of(event, "report")
    reader = compile_message(xsd, declaration.element, record, zone=zone)
    fields = {each.name for each in record.fields}
    used = (
        declaration.reference,
        declaration.supplier_reference,
        declaration.buyer,
        declaration.message_id,
        declaration.sent_at,
    )
    if missing := [name for name in used if name not in fields]:
        raise Stop(*(f"{reader.element}.{name}: the notification is told by it" for name in missing))
    return NotificationReader(declaration, reader)


def notification_id(buyer: str, reference: str, message_id: str, content: str) -> str:
    """The id of a notification; no two sets of parts give the same, since XML text has no control characters."""
    return _derived(f"{buyer}\x1f{reference}\x1f{message_id}\x1f{content}")


def content_hash(element: etree._Element, *, without: str) -> str:
    """SHA-256 in hex of an element's local names, texts and attributes, without its children named `without`.

    Envelope, prefixes, attributes of a namespace, comments, encoding and the white space between elements make no
    difference.
    """
    parts: list[str] = []
    _canonical(element, parts, without)
    if found := attributes(element):
        counted = [each for child in element if local_name(child) != without for each in child.iter()]
        places = {each: place for place, each in enumerate((element, *counted))}
        told = sorted((places[each], name, value) for each, name, value in found if each in places)
        parts += [f"\x04{place}\x05{name}\x06{value}" for place, name, value in told]
    return sha256("".join(parts).encode()).hexdigest()


def hints(delivery: Delivery) -> tuple[str, ...]:
    """What HTTP says about the message: the URL path, the SOAPAction of SOAP 1.1, the action of SOAP 1.2."""
    action = _ACTION.search(delivery.content_type or "")
    given = (delivery.path.partition("?")[0], delivery.soap_action, action and action[1])
    return tuple(hint for hint in given if hint)


def without_positions(path: str) -> str:
    """A path in a message as a path of the schema: updates.description for updates[3].description."""
    return _POSITION.sub("", path) if "[" in path else path


_ELSEWHERE: Final = Deviation("", "in another namespace", ValueClass.ELEMENTS)
_OTHER_LETTERS: Final = Deviation("", "its name in other letters", ValueClass.ELEMENTS)
"""The text of the pages writes NotifyFaultReportUpdate, their samples notifyFaultReportUpdate."""
_derived: Final = namespace(NAMESPACE)
_ACTION: Final = re.compile(r'action\s*=\s*"?([^\s";]+)', re.IGNORECASE)
_POSITION: Final = re.compile(r"\[[0-9]+\]")


def _strays_by_name(element: etree._Element, name: str) -> Iterator[Deviation]:
    """How the element's name differs from `name` (Clark notation)."""
    if element.tag == name:
        return
    found, expected = etree.QName(element), etree.QName(name)
    if found.namespace != expected.namespace:
        yield _ELSEWHERE
    if found.localname != expected.localname:
        yield _OTHER_LETTERS


def _canonical(element: etree._Element, parts: list[str], without: str | None = None) -> None:
    """Append the element's content to `parts`. Control characters that XML cannot carry mark the structure, so that no
    content can look like it.
    """
    text = element.text
    if text and not text.isspace():
        parts.append(text)
    for child in element:
        name = local_name(child)
        if name == without:
            pass
        elif len(child):
            parts.append(f"\x01{name}\x02")
            _canonical(child, parts)
            parts.append("\x03")
        else:
            parts.append(f"\x01{name}\x02{child.text or ''}\x03")
        tail = child.tail
        if tail and not tail.isspace():
            parts.append(tail)


def _holders(value: Any, path: tuple[str, ...], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records at a path, with their own path and a dot; a list stands for each of its items."""
    match value:
        case list():
            for place, item in enumerate(value):
                yield from _holders(item, path, f"{where[:-1]}[{place}].")
        case dict() if path:
            yield from _holders(value[path[0]], path[1:], f"{where}{path[0]}.")
        case dict():
            yield where, value
        case _:
            return
