"""Replies and notifications: an XML element becomes an Avro record, whatever its order, prefixes and gaps.

Nothing here refuses. What cannot be read is null and told as a deviation, what is not known is named, and the
caller decides what that means (supplier contract, section 8: thirty-three ways in which messages stray).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from lxml import etree

from adapter.core.avro.schema import Primitive, Record, Schema, optional
from adapter.core.document import fold, folded_text, local_name
from adapter.core.errors import Stop
from adapter.core.mapping.pairs import Direction, Group, Many, Pair, Pairing, Scalar
from adapter.core.xsd import Kind, Leaf, Xsd

NAMED_LIMIT: Final = 100
"""Unknown elements, and deviations, of one message that are told; those beyond are dropped."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where a message is not what the XSD says. Carries no value."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class Read:
    record: dict[str, Any]
    unknown: tuple[str, ...]
    """Paths of elements the schemas do not know."""

    deviations: tuple[Deviation, ...]


class ReplyReader:
    """Reads one kind of message."""

    def __init__(self, element: str, read: "_Value", judge: etree.XMLSchema) -> None:
        self.element = element
        """Local name of the element."""

        self._read = read
        self._judge = judge

    def read(self, element: etree._Element) -> Read:
        """Never raises, whatever is in the element; its own name is the caller's to look at."""
        notes = _Notes([], [])
        record = self._read(element, notes)
        return Read(
            record=record,
            unknown=tuple(notes.unknown[:NAMED_LIMIT]),
            deviations=tuple(Deviation(path, what) for path, what in notes.deviations[:NAMED_LIMIT]),
        )

    def valid(self, element: etree._Element) -> bool:
        """Whether the element is exactly what the XSD says."""
        return bool(self._judge.validate(element))


def compile_reply(xsd: Xsd, element: str, schema: Schema | Record, *, zone: tzinfo | None = None) -> ReplyReader:
    """The reader of `element` (Clark notation) into records of `schema`.

    Times without an offset are taken to be in `zone`, Europe/London unless told.
    Raises Stop with one line per path that does not fit.
    """
    root = xsd.element(element)
    faults: list[str] = []
    content: tuple[Pair, ...] = ()
    if isinstance(root.content, Leaf):
        faults.append("holds text, not elements")
    else:
        record = schema.record if isinstance(schema, Schema) else schema
        content = Pairing(Direction.IN, {}, faults).children(root.content, record, "")
    if faults:
        raise Stop(*(f"{root.name}: {fault}" for fault in faults))
    return ReplyReader(root.name, _group(content, zone or ZoneInfo("Europe/London")), xsd.judge)


def record_of(schema: Schema, field: str) -> Record:
    """The record type of a field, null left aside. Raises Stop if it has none."""
    found = schema.fields().get(field)
    kind = optional(found.type)[0] if found else None
    if not isinstance(kind, Record):
        raise Stop(f"{schema.fullname}: no record in a field {field}")
    return kind


@dataclass(slots=True)
class _Notes:
    unknown: list[str]
    deviations: list[tuple[str, str]]

    def stranger(self, name: str) -> None:
        if len(self.unknown) < NAMED_LIMIT:
            self.unknown.append(name[:100])

    def below(self, name: str, unknown: int, deviations: int) -> None:
        """Puts the paths of what was noted since these marks under `name`."""
        for place in range(unknown, len(self.unknown)):
            self.unknown[place] = _joined(name, self.unknown[place])
        for place in range(deviations, len(self.deviations)):
            path, what = self.deviations[place]
            self.deviations[place] = (_joined(name, path), what)


def _joined(name: str, path: str) -> str:
    return f"{name}.{path}" if path and path[0] != "[" else name + path


_Value = Callable[[etree._Element, _Notes], Any]  # noqa: SLF001 -- lxml's name for the type of elements
"""Reads one element; notes have paths below it, "" for itself."""


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    read: _Value
    collects: bool
    """Each occurrence adds an item."""


def _step(pair: Scalar | Group | Many, zone: tzinfo) -> _Step:
    return _Step(pair.name, _value(pair, zone), collects=isinstance(pair, Many) and not pair.wrapped)


def _value(pair: Pair, zone: tzinfo) -> _Value:
    match pair:
        case Scalar(_, _, leaf, Primitive(avro, _)):
            return _scalar(leaf, avro, zone)
        case Group(_, _, children):
            return _group(children, zone)
        case Many(_, _, True, _, _, _, item):
            return _wrapper(item, zone)
        case Many(_, _, _, _, _, _, item):
            return _value(item, zone)
        case _:
            raise AssertionError("a message that is read has no enums and no protocol values")


def _group(children: tuple[Pair, ...], zone: tzinfo) -> _Value:
    pairs = [pair for pair in children if isinstance(pair, Scalar | Group | Many)]  # nothing is filled by us
    steps = {pair.name: _step(pair, zone) for pair in pairs}
    blank: dict[str, Any] = dict.fromkeys(steps)
    required = tuple(pair.name for pair in pairs if pair.element.least)
    lists = tuple(pair.name for pair in pairs if isinstance(pair, Many) and not pair.nullable)

    def read(element: etree._Element, notes: _Notes) -> Any:
        record = blank.copy()
        start = len(notes.deviations)
        for child in element:
            name = local_name(child)
            step = steps.get(name)
            if step is None:
                notes.stranger(name)
            else:
                _take(record, step, child, notes)
        for name in required:
            if record[name] is None and not any(path == name for path, _ in notes.deviations[start:]):
                notes.deviations.append((name, "missing"))
        for name in lists:
            if record[name] is None:
                record[name] = []
        if element.text and not element.text.isspace():
            notes.deviations.append(("", "text where elements are expected"))
        return record

    return read


def _take(record: dict[str, Any], step: _Step, child: etree._Element, notes: _Notes) -> None:
    """Puts what `child` holds into its field."""
    where = step.name
    unknown, deviations = len(notes.unknown), len(notes.deviations)
    value = record[step.name]
    if step.collects:
        items: list[Any] = [] if value is None else value
        record[step.name] = items
        where = f"{where}[{len(items)}]"
        item = step.read(child, notes)
        if item is not None:
            items.append(item)
    elif value is None:
        record[step.name] = step.read(child, notes)
    else:
        notes.deviations.append(("", "more than once, the first is taken"))
    notes.below(where, unknown, deviations)


def _wrapper(item: Scalar | Group, zone: tzinfo) -> _Value:
    read_item = _value(item, zone)
    wanted = item.name

    def read(element: etree._Element, notes: _Notes) -> Any:
        items: list[Any] = []
        for child in element:
            name = local_name(child)
            if name != wanted:
                notes.stranger(name)
                continue
            marks = len(notes.unknown), len(notes.deviations)
            value = read_item(child, notes)
            notes.below(f"[{len(items)}]", *marks)
            if value is not None:
                items.append(value)
        return items

    return read


_NIL: Final = "{http://www.w3.org/2001/XMLSchema-instance}nil"


def _scalar(leaf: Leaf, avro: str, zone: tzinfo) -> _Value:
    match leaf.kind:
        case Kind.TEXT:
            return _text(leaf)
        case Kind.ANYTHING:
            return lambda element, _: folded_text(element)
        case Kind.BOOLEAN:
            return _parsed(_boolean, "not true or false")
        case Kind.DATE_TIME:
            return _time(zone)
        case Kind.DATE:
            return _parsed(_date, "not a date")
        case Kind.INTEGER:
            bits = 32 if avro == "int" else 64
            return _parsed(lambda text: _integer(text, bits), "not a whole number")


def _text(leaf: Leaf) -> _Value:
    collapse, longest, values, not_blank = leaf.collapse, leaf.longest, leaf.values, leaf.not_blank

    def read(element: etree._Element, notes: _Notes) -> Any:
        text = element.text or ""
        if len(element):
            text = folded_text(element)
            notes.deviations.append(("", "elements where text is expected"))
        elif not text and element.get(_NIL) in {"true", "1"}:
            return None
        if collapse:
            text = fold(text)
        if longest is not None and len(text) > longest:
            notes.deviations.append(("", f"longer than {longest}"))
        if values and text not in values:
            notes.deviations.append(("", "not a known value"))
        if not_blank and not text:
            notes.deviations.append(("", "is blank"))
        return text

    return read


def _parsed(parse: Callable[[str], Any], fault: str) -> _Value:
    def read(element: etree._Element, notes: _Notes) -> Any:
        text = element.text or ""
        if len(element):
            text = folded_text(element)
        elif not text and element.get(_NIL) in {"true", "1"}:
            return None
        value = parse(text.strip(_WHITE))
        if value is None:
            notes.deviations.append(("", fault if text.strip(_WHITE) else "is empty"))
        return value

    return read


_WHITE: Final = " \t\r\n"
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_INTEGER: Final = re.compile(r"[+-]?0*[0-9]{1,19}", re.ASCII)
_DATE: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:Z|[+-][0-9]{2}:[0-9]{2}|T.*)?", re.DOTALL)
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,40}))?)?"
    r"[ ]?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)


def _boolean(text: str) -> bool | None:
    return _BOOLEANS.get(text.lower())


def _integer(text: str, bits: int) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if -(1 << bits - 1) <= value < 1 << bits - 1 else None


def _date(text: str) -> date | None:
    """A date; of a time the date in it, as written."""
    found = _DATE.fullmatch(text)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def _time(zone: tzinfo) -> _Value:
    def read(element: etree._Element, notes: _Notes) -> Any:
        text = (folded_text(element) if len(element) else element.text or "").strip(_WHITE)
        if not text:
            if element.get(_NIL) not in {"true", "1"}:
                notes.deviations.append(("", "is empty"))
            return None
        try:
            moment = _moment(text)
            if moment is not None and moment.tzinfo is None:
                notes.deviations.append(("", f"no offset, taken for {zone}"))
                moment = moment.replace(tzinfo=zone)
            moment = moment and moment.astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is None:
            notes.deviations.append(("", "not a time"))
        return moment

    return read


def _moment(text: str) -> datetime | None:
    """A time to the millisecond, finer digits cut off; naive if it has no offset. Raises ValueError, OverflowError."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    day, hour, minute, second, fraction, offset = found.groups()
    moment = datetime.fromisoformat(day).replace(
        hour=int(hour) % 24,
        minute=int(minute),
        second=int(second or 0),
        microsecond=int(f"{fraction or ''}000"[:3]) * 1000,
    )
    if hour == "24":  # midnight at the end of a day (XSD Part 2, section 3.2.7.1)
        if (minute, int(second or 0), int(fraction or 0)) != ("00", 0, 0):
            return None
        moment += timedelta(days=1)
    elif int(hour) > 23:
        return None
    if offset is None:
        return moment
    return moment.replace(tzinfo=UTC if offset in "Zz" else _offset(offset))


def _offset(text: str) -> timezone:
    digits = text[1:].replace(":", "").ljust(4, "0")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-ahead if text[0] == "-" else ahead)
