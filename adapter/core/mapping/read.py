"""Replies and notifications: an XML element becomes an Avro record, whatever its order, prefixes and gaps.

Nothing here refuses. What cannot be read is null and told as a deviation, what is not known is named, and the
caller decides what that means (supplier contract, section 8: thirty-three ways in which messages stray).
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from enum import StrEnum
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

ASIDE_LIMIT: Final = 1_000
"""Texts of one message that are kept aside."""


class ValueClass(StrEnum):
    """What stood where a message strays, without saying it."""

    ABSENT = "absent"
    EMPTY = "empty"
    BOOLEAN = "boolean"
    NUMBER = "number"
    DATE = "date"
    TIME = "time"
    TEXT = "text"
    ELEMENTS = "elements"
    PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where a message is not what the XSD says. Carries no value."""

    path: str
    what: str
    value: ValueClass = ValueClass.ABSENT


@dataclass(frozen=True, slots=True)
class Read:
    record: dict[str, Any]
    unknown: tuple[str, ...]
    """Paths of elements the schemas do not know."""

    deviations: tuple[Deviation, ...]
    aside: tuple[tuple[str, str], ...] = ()
    """(path, text) of content that has no place in the record: in unknown elements, in repeated ones, in values that
    could not be read. One entry per element that holds text, white space folded; at most ASIDE_LIMIT."""


class ReplyReader:
    """Reads one kind of message."""

    def __init__(self, element: str, read: "_Value", judge: etree.XMLSchema) -> None:
        self.element = element
        """Local name of the element."""

        self._read = read
        self._judge = judge

    def read(self, element: etree._Element) -> Read:
        """Never raises, whatever is in the element; its own name is the caller's to look at."""
        notes = _Notes([], [], [])
        record = self._read(element, notes)
        return Read(
            record=record,
            unknown=tuple(notes.unknown[:NAMED_LIMIT]),
            deviations=tuple(
                Deviation(path, what, value_class(strayed)) for path, what, strayed in notes.deviations[:NAMED_LIMIT]
            ),
            aside=tuple(_texts(notes.aside)) if notes.aside else (),
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


def value_class(element: etree._Element | None) -> ValueClass:
    """What an element holds; of None, that it is absent."""
    if element is None:
        return ValueClass.ABSENT
    if len(element):
        return ValueClass.ELEMENTS
    text = (element.text or "").strip(_WHITE)
    if not text:
        return ValueClass.EMPTY
    if text.lower() in {"true", "false"}:
        return ValueClass.BOOLEAN
    if _NUMBER.fullmatch(text):
        return ValueClass.NUMBER
    if _DATE.fullmatch(text):
        return ValueClass.TIME if _TIME.fullmatch(text) else ValueClass.DATE
    return ValueClass.TEXT


_Aside = etree._Element | str  # noqa: SLF001 -- lxml's name for the type of elements


@dataclass(slots=True)
class _Notes:
    unknown: list[str]
    deviations: list[tuple[str, str, etree._Element | None]]
    aside: list[tuple[str, _Aside]]

    def stranger(self, element: etree._Element) -> None:
        name = local_name(element)[:100]
        if len(self.unknown) < NAMED_LIMIT:
            self.unknown.append(name)
        self.keep(name, element)

    def stray(self, what: str, element: etree._Element, *, kept: bool = False) -> None:
        """The element being read strays; `kept` says that what it holds has found its place."""
        self.deviations.append(("", what, element))
        if not kept:
            self.keep("", element)

    def keep(self, path: str, content: _Aside) -> None:
        if len(self.aside) < ASIDE_LIMIT:
            self.aside.append((path, content))

    def marks(self) -> tuple[int, int, int]:
        return len(self.unknown), len(self.deviations), len(self.aside)

    def below(self, name: str, marks: tuple[int, int, int]) -> None:
        """Puts the paths of what was noted since these marks under `name`."""
        unknown, deviations, aside = marks
        for place in range(unknown, len(self.unknown)):
            self.unknown[place] = _joined(name, self.unknown[place])
        for place in range(deviations, len(self.deviations)):
            path, what, element = self.deviations[place]
            self.deviations[place] = (_joined(name, path), what, element)
        for place in range(aside, len(self.aside)):
            path, content = self.aside[place]
            self.aside[place] = (_joined(name, path), content)


_LONGEST_PATH: Final = 500


def _texts(aside: list[tuple[str, _Aside]]) -> Iterator[tuple[str, str]]:
    """One entry per text, unknown elements taken apart."""
    left = ASIDE_LIMIT
    pending = [(path, content) for path, content in reversed(aside)]
    while pending and left:
        path, content = pending.pop()
        if isinstance(content, str):
            text = fold(content)
        else:
            text = fold(content.text or "")
            for child in reversed(content):
                if child.tail and not child.tail.isspace():
                    pending.append((path, child.tail))
                pending.append((_joined(path, local_name(child)[:100]), child))
        if text:
            left -= 1
            yield path[:_LONGEST_PATH], text


def _joined(name: str, path: str) -> str:
    return f"{name}.{path}" if path and path[0] != "[" else name + path


_Value = Callable[[etree._Element, _Notes], Any]  # noqa: SLF001 -- lxml's name for the type of elements
"""Reads one element; notes have paths below it, "" for itself."""


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    read: _Value
    collects: bool = False
    """Each occurrence adds an item."""

    wraps: bool = False
    """Each occurrence brings items."""

    homeless: bool = False
    """An item outside its wrapper."""


def _steps(pairs: Collection[Scalar | Group | Many], zone: tzinfo) -> dict[str, _Step]:
    """By the name of the child. A wrapped item is also known where it stands without its wrapper, unless that name is
    taken: the contract's tables and samples do not agree on wrappers (section 8, number 14).
    """
    steps: dict[str, _Step] = {}
    for pair in pairs:
        many = isinstance(pair, Many)
        wrapped = isinstance(pair, Many) and pair.wrapped
        steps[pair.name] = _Step(pair.name, _value(pair, zone), collects=many and not wrapped, wraps=wrapped)
    for pair in pairs:
        if isinstance(pair, Many) and pair.wrapped:
            bare = _Step(pair.name, _value(pair.item, zone), collects=True, homeless=True)
            steps.setdefault(pair.item.name, bare)
    return steps


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
    steps = _steps(pairs, zone)
    blank: dict[str, Any] = dict.fromkeys(pair.name for pair in pairs)
    required = tuple(pair.name for pair in pairs if pair.element.least)
    lists = tuple(pair.name for pair in pairs if isinstance(pair, Many) and not pair.nullable)

    def read(element: etree._Element, notes: _Notes) -> Any:
        record = blank.copy()
        start = len(notes.deviations)
        for child in element:
            step = steps.get(local_name(child))
            if step is None:
                notes.stranger(child)
            else:
                _take(record, step, child, notes)
            if child.tail and not child.tail.isspace():
                notes.keep("", child.tail)
        for name in required:
            if record[name] is None and not any(path == name for path, _, _ in notes.deviations[start:]):
                notes.deviations.append((name, "missing", None))
        for name in lists:
            if record[name] is None:
                record[name] = []
        if element.text and not element.text.isspace():
            notes.stray("text where elements are expected", element, kept=True)
            notes.keep("", element.text)
        return record

    return read


def _take(record: dict[str, Any], step: _Step, child: etree._Element, notes: _Notes) -> None:
    """Puts what `child` holds into its field."""
    marks = notes.marks()
    where = step.name
    value = record[step.name]
    if step.collects:
        items: list[Any] = [] if value is None else value
        record[step.name] = items
        where = f"{where}[{len(items)}]"
        item = step.read(child, notes)
        if step.homeless:
            notes.stray("outside its wrapper", child, kept=True)
        if item is not None:
            items.append(item)
    elif value is None:
        record[step.name] = step.read(child, notes)
    elif step.wraps:
        value.extend(step.read(child, notes))
        notes.stray("more than once, all are taken", child, kept=True)
    else:
        notes.stray("more than once, the first is taken", child)
    if notes.marks() != marks:
        notes.below(where, marks)


def _wrapper(item: Scalar | Group, zone: tzinfo) -> _Value:
    read_item = _value(item, zone)
    wanted = item.name
    children = item.children if isinstance(item, Group) else ()
    fields = {child.name for child in children if isinstance(child, Scalar | Group | Many)}

    def read(element: etree._Element, notes: _Notes) -> Any:
        items: list[Any] = []
        names = {local_name(child) for child in element}
        if wanted not in names and not names.isdisjoint(fields):
            notes.stray("an item where its wrapper is expected", element, kept=True)
            return [read_item(element, notes)]
        for child in element:
            if local_name(child) != wanted:
                notes.stranger(child)
                continue
            marks = notes.marks()
            value = read_item(child, notes)
            if notes.marks() != marks:
                notes.below(f"[{len(items)}]", marks)
            if value is not None:
                items.append(value)
        if element.text and not element.text.isspace():
            notes.stray("text where elements are expected", element, kept=True)
            notes.keep("", element.text)
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
            notes.stray("elements where text is expected", element, kept=True)
        elif not text and element.get(_NIL) in {"true", "1"}:
            return None
        if collapse:
            text = fold(text)
        if longest is not None and len(text) > longest:
            notes.stray(f"longer than {longest}", element, kept=True)
        if values and text not in values:
            notes.stray("not a known value", element, kept=True)
        if not_blank and not text:
            notes.stray("is blank", element, kept=True)
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
            notes.stray(fault if text.strip(_WHITE) else "is empty", element)
        return value

    return read


_WHITE: Final = " \t\r\n"
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_INTEGER: Final = re.compile(r"[+-]?0*[0-9]{1,19}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(?:[.,][0-9]{1,40})?", re.ASCII)
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
                notes.stray("is empty", element)
            return None
        try:
            moment = _moment(text)
            if moment is not None and moment.tzinfo is None:
                notes.stray(f"no offset, taken for {zone}", element, kept=True)
                moment = moment.replace(tzinfo=zone)
            moment = moment and moment.astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is None:
            notes.stray("not a time", element)
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
