"""The dialects in which a notification may be written: one for each inconsistency of the documents (contract section 8)
that affects an inbound message, and for each form that the contract leaves open. Pure: randomness comes from a
generator that is an argument.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from lxml import etree

from adapter.core.document import local_name
from adapter.core.soap import SOAP_1_1, SOAP_1_2


class Dialect(StrEnum):
    """One way to stray from the plain form: SOAP 1.1, UTF-8, the schema's order, times as in the samples (UTC with four
    fraction digits). The comment after each says what is different.
    """

    BARE = "bare"  # no envelope, as in the samples
    SOAP_1_2 = "soap-1.2"  # the other envelope
    PREFIXES = "prefixes"  # other prefixes, and a namespace for the message
    UTF_16 = "utf-16"  # with a byte order mark
    ISO_8859_1 = "iso-8859-1"  # said by the XML declaration alone
    CHILD_ORDER = "child-order"  # children in any order (number 10)
    TIMES = "times"  # other precisions, offsets, and no zone, which means London (11, 12)
    NO_SENT_AT = "no-sent-at"  # (6)
    SAME_MESSAGE_ID = "same-message-id"  # one messageId for all, as the samples have
    PLACEHOLDERS = "placeholders"  # a text that stands for nothing (7, 9)
    STATUS_SPELLING = "status-spelling"  # (4)
    FAULT_TYPE = "fault-type"  # a type that is none of the three (2)
    MULTI_LINE = "multi-line"  # text broken over indented lines (13)
    UNWRAPPED = "unwrapped"  # repeated elements without the element around them (14)
    UNKNOWN_ELEMENTS = "unknown-elements"  # elements nobody has documented
    NO_HINTS = "no-hints"  # one URL for all, and no SOAPAction


SHARED_MESSAGE_ID: Final = "CF-00003"
"""The messageId of every message in the dialect same-message-id; the notifier sets it."""

EXCLUSIVE: Final = ((Dialect.BARE, Dialect.SOAP_1_2), (Dialect.UTF_16, Dialect.ISO_8859_1))
"""Groups of which a message has at most one. If several are asked for, one is chosen at random."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How one notification is sent. None: decided at random, by the settings."""

    repeated: bool | None = None
    """Sent once more after it was acknowledged."""

    late: bool | None = None
    """Sent after the next one of its ticket."""

    dialects: tuple[Dialect, ...] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A message as it goes over the wire."""

    body: bytes
    content_type: str


def choose(dialects: Iterable[Dialect], *, chance: float, generator: random.Random) -> frozenset[Dialect]:
    """The dialects of one message: each with probability `chance`, and none that exclude one another."""
    chosen = {dialect for dialect in sorted(dialects) if generator.random() < chance}
    for group in EXCLUSIVE:
        rivals = sorted(chosen.intersection(group))
        if len(rivals) > 1:
            chosen -= set(rivals) - {generator.choice(rivals)}
    return frozenset(chosen)


def write(root: etree._Element, dialects: frozenset[Dialect], generator: random.Random) -> Written:
    """The message in these dialects. Changes `root`."""
    for dialect, change in _CHANGES.items():
        if dialect in dialects:
            change(root, generator)
    if Dialect.PREFIXES in dialects:
        root = _in_namespace(root)
    envelope = None if Dialect.BARE in dialects else SOAP_1_2 if Dialect.SOAP_1_2 in dialects else SOAP_1_1
    if envelope:
        prefix = "SOAP-ENV" if Dialect.PREFIXES in dialects else "soap"
        outer = etree.Element(f"{{{envelope}}}Envelope", nsmap={prefix: envelope})
        if Dialect.PREFIXES in dialects:
            etree.SubElement(outer, f"{{{envelope}}}Header")
        etree.SubElement(outer, f"{{{envelope}}}Body").append(root)
        root = outer
    encoding = "utf-16" if Dialect.UTF_16 in dialects else "iso-8859-1" if Dialect.ISO_8859_1 in dialects else "utf-8"
    body = etree.tostring(root, encoding=encoding, xml_declaration=True)
    media = {None: "application/xml", SOAP_1_1: "text/xml", SOAP_1_2: "application/soap+xml"}[envelope]
    return Written(body, f"{media}; charset=utf-8" if encoding == "utf-8" else media)


_LONDON: Final = ZoneInfo("Europe/London")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_SPELLINGS: Final = (
    str.lower,
    str.upper,
    lambda word: word.replace(" ", "-").lower(),
    lambda word: word.replace("-", " ").title(),
    lambda word: re.sub(r"[ -]", "", word),
)
_NAMESPACE: Final = "http://www.cityfibre.com/ticketing"


def _shuffled(root: etree._Element, generator: random.Random) -> None:
    # Items of a list keep their order: the latest appointment is the last one.
    for parent in root.iter():
        children = list(parent)
        if len({child.tag for child in children}) == len(children):
            generator.shuffle(children)
            parent[:] = children


def _times(root: etree._Element, generator: random.Random) -> None:
    for leaf in root.iter():
        text = leaf.text or ""
        if len(leaf) or not _TIME.fullmatch(text):
            continue
        moment = datetime.fromisoformat(text)
        local = moment.astimezone(_LONDON)
        forms = [
            f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
            f"{local:%Y-%m-%dT%H:%M:%S}.{local.microsecond // 100:04d}",
        ]
        if leaf.tag != "sentAt":  # which must not lose its order
            forms += [f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z", local.isoformat(timespec="seconds")]
        leaf.text = generator.choice(forms)


def _no_sent_at(root: etree._Element, _: random.Random) -> None:
    for leaf in root.findall("sentAt"):
        root.remove(leaf)


def _placeholders(root: etree._Element, _: random.Random) -> None:
    for leaf in root.findall("maintainerFaultReference"):
        leaf.text = leaf.text or "(Not in report; only after creation)"
    for visit in root.iterfind("appointments/appointment"):
        if visit.find("appointmentConfirmationStatus") is None:
            last = visit.find("appointmentEndTime")
            leaf = etree.Element("appointmentConfirmationStatus")
            leaf.text = "Confirmed or Failed"
            visit.insert(visit.index(last) + 1 if last is not None else len(visit), leaf)


def _status(root: etree._Element, generator: random.Random) -> None:
    for leaf in root.iterfind("faultDetails/status"):
        leaf.text = generator.choice(_SPELLINGS)(leaf.text or "")


def _fault_type(root: etree._Element, _: random.Random) -> None:
    for leaf in root.iterfind("faultDetails/type"):
        leaf.text = "Fault"


def _multi_line(root: etree._Element, _: random.Random) -> None:
    etree.indent(root)
    for path in ("faultDetails/description", "faultDetails/faultLocation", "updates/update/description"):
        for leaf in root.iterfind(path):
            words = (leaf.text or "").split(" ")
            half = len(words) // 2
            leaf.text = "\n      ".join(["", " ".join(words[:half]), " ".join(words[half:])]) + "\n    "


def _unwrapped(root: etree._Element, _: random.Random) -> None:
    for name in ("updates", "appointments"):
        for wrapper in root.findall(name):
            at = root.index(wrapper)
            root[at : at + 1] = list(wrapper)


def _unknown_elements(root: etree._Element, generator: random.Random) -> None:
    for parent in (root, *root.iterfind("faultDetails")):
        note = etree.Element("supplierNote", level="2")
        etree.SubElement(note, "region").text = "North"
        parent.insert(generator.randrange(len(parent) + 1), note)


_CHANGES: Final = {
    Dialect.PLACEHOLDERS: _placeholders,
    Dialect.TIMES: _times,
    Dialect.NO_SENT_AT: _no_sent_at,
    Dialect.STATUS_SPELLING: _status,
    Dialect.FAULT_TYPE: _fault_type,
    Dialect.UNKNOWN_ELEMENTS: _unknown_elements,
    Dialect.CHILD_ORDER: _shuffled,
    Dialect.MULTI_LINE: _multi_line,
    Dialect.UNWRAPPED: _unwrapped,
}
"""In the order of their application: changes that look for an element in its plain form come first."""


def _in_namespace(root: etree._Element) -> etree._Element:
    """A copy with every element in a namespace, under a prefix of the supplier's choice."""
    copy = etree.Element(f"{{{_NAMESPACE}}}{local_name(root)}", dict(root.attrib), {**root.nsmap, "tt": _NAMESPACE})
    _copy(root, copy)
    return copy


def _copy(source: etree._Element, target: etree._Element) -> None:
    target.text, target.tail = source.text, source.tail
    for child in source:
        _copy(child, etree.SubElement(target, f"{{{_NAMESPACE}}}{local_name(child)}", dict(child.attrib)))
