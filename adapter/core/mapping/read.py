"""Replies and notifications: an XML element becomes an Avro record, whatever its order, prefixes and gaps.

Nothing here rejects a message. What cannot be read becomes null and is listed as a deviation, unknown elements are
listed too, and the caller decides what that means (supplier contract, section 8: thirty-three kinds of deviation).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from lxml import etree

from adapter.core.avro.schema import Primitive, Record, Schema, optional
from adapter.core.document import attributes, local_name
from adapter.core.errors import Stop
from adapter.core.immutable import immutable
from adapter.core.mapping.forms import Forms
from adapter.core.mapping.notes import Deviation, Notes
from adapter.core.mapping.pairs import Direction, Group, Many, Pair, Scalar, paired
from adapter.core.mapping.values import Quick, Value, never, quick, scalar
from adapter.core.xsd import Xsd


@immutable
class Read:
    record: dict[str, Any]
    unknown: tuple[str, ...]
    """Paths of elements the schemas do not know."""

    deviations: tuple[Deviation, ...]
    aside: tuple[tuple[str, str], ...] = ()
    """(path, text) of content that has no place in the record: in unknown elements, in repeated ones, in values that
    could not be read. One entry per element that holds text, white space folded; at most ASIDE_LIMIT."""

    @property
    def conforms(self) -> bool:
        """Whether the message has no deviation."""
        return not (self.unknown or self.deviations or self.aside)


class MessageReader:
    """Reads one kind of message from the supplier: the replies to one operation, or the notifications."""

    def __init__(self, element: str, read: Value, forms: Forms) -> None:
        self.element = element
        """Local name of the element."""

        self.forms = forms
        """The forms of documents that were read before: a caller can read another such document without a parser."""

        self._read = read

    def read(self, element: etree._Element) -> Read:
        """Never raises, whatever is in the element. The element's own name is not checked."""
        notes = Notes()
        record = self._read(element, notes)
        for holder, name, value in attributes(element):
            notes.unknown_attribute(_path(holder, element), name, value)
        if not notes.noted:
            return Read(record, (), ())
        return Read(
            record=record,
            unknown=notes.unknown,
            deviations=notes.deviations,
            aside=notes.aside,
        )


def compile_message(xsd: Xsd, element: str, record: Record, *, zone: tzinfo) -> MessageReader:
    """The reader of `element` (Clark notation) into records of the type `record`.

    Times without an offset are taken to be in `zone`.
    Raises Stop with one line per path that does not fit.
    """
    root = xsd.element(element)
    content = paired(root, record, Direction.IN)
    return MessageReader(root.name, _group(content, zone), Forms(content))


def record_of(schema: Schema, field: str) -> Record:
    """The record type of a field, null left aside. Raises Stop if it has none."""
    found = schema.fields().get(field)
    kind = optional(found.type)[0] if found else None
    if not isinstance(kind, Record):
        raise Stop(f"{schema.fullname}: no record in a field {field}")
    return kind


def _path(element: etree._Element, root: etree._Element) -> str:
    """The names of the elements down to it."""
    names: list[str] = []
    while element is not root:
        names.append(local_name(element)[:100])
        parent = element.getparent()
        assert parent is not None, "it is below the root"
        element = parent
    return ".".join(reversed(names))


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    read: Value
    quick: Quick
    """Reads the text of a plain value in the usual form; None if it must be read by `read`."""

    collects: bool = False
    """Each occurrence adds an item."""

    wraps: bool = False
    """Each occurrence brings items."""

    homeless: bool = False
    """It reads an item that stands outside its wrapper."""


def _steps(pairs: Collection[Scalar | Group | Many], zone: tzinfo) -> dict[str, _Step]:
    """Steps by the child's name. A wrapped item is also read without its wrapper, unless its name is taken: the
    contract's tables and samples do not agree on wrappers (section 8, number 14).
    """
    steps: dict[str, _Step] = {}
    for pair in pairs:
        many = isinstance(pair, Many)
        wrapped = isinstance(pair, Many) and pair.wrapped
        at_once = quick(pair.leaf) if isinstance(pair, Scalar) else never
        steps[pair.name] = _Step(pair.name, _value(pair, zone), at_once, collects=many and not wrapped, wraps=wrapped)
    for pair in pairs:
        if isinstance(pair, Many) and pair.wrapped:
            bare = _Step(pair.name, _item(pair.item, zone), never, collects=True, homeless=True)
            steps.setdefault(pair.item.name, bare)
    return steps


def _value(pair: Pair, zone: tzinfo) -> Value:
    match pair:
        case Scalar(leaf=leaf, kind=Primitive(name=avro)):
            return scalar(leaf, avro, zone)
        case Group(children=children):
            return _group(children, zone)
        case Many(item=item):
            return _wrapper(item, zone) if pair.wrapped else _item(item, zone)
        case _:
            raise AssertionError("a message that is read has no enums and no protocol values")


def _group(children: tuple[Pair, ...], zone: tzinfo) -> Value:
    pairs = [pair for pair in children if isinstance(pair, Scalar | Group | Many)]  # the other kinds are never read
    steps = _steps(pairs, zone)
    blank: dict[str, Any] = dict.fromkeys(pair.name for pair in pairs)
    required = tuple(pair.name for pair in pairs if pair.element.least)
    lists = tuple(pair.name for pair in pairs if isinstance(pair, Many) and not pair.nullable)

    def read(element: etree._Element, notes: Notes) -> Any:
        record = blank.copy()
        start = len(notes.noted)
        for child in element:
            tag: str = child.tag  # type: ignore[assignment]  # admitted documents have no comments and instructions
            step = steps.get(tag) or steps.get(local_name(child))  # most have no namespace
            if step is None:
                notes.unknown_element(child)
            elif record[step.name] is None and not len(child) and (value := step.quick(child.text)) is not None:
                record[step.name] = value
            else:
                _take(record, step, child, notes)
            tail = child.tail
            if tail and not tail.isspace():
                notes.keep("", tail)
        for name in required:
            if record[name] is None and not notes.deviated(name, start):
                notes.missing(name)
        for name in lists:
            if record[name] is None:
                record[name] = []
        _keep_text(element, notes)
        return record

    return read


def _take(record: dict[str, Any], step: _Step, child: etree._Element, notes: Notes) -> None:
    """Puts what `child` holds into its field."""
    start = len(notes.noted)
    where = step.name
    value = record[step.name]
    if step.collects:
        items: list[Any] = [] if value is None else value
        record[step.name] = items
        where = f"{where}[{len(items)}]"
        item = step.read(child, notes)
        if step.homeless:
            notes.deviates("outside its wrapper", child, kept=True)
        if item is not None:
            items.append(item)
    elif value is None:
        record[step.name] = step.read(child, notes)
    elif step.wraps:
        value.extend(step.read(child, notes))
        notes.deviates("more than once, all are taken", child, kept=True)
    else:
        notes.deviates("more than once, the first is taken", child)
    if len(notes.noted) > start:
        notes.prefix(where, start)


def _item(item: Scalar | Group, zone: tzinfo) -> Value:
    """Reads an item of a list; None for elements without any text, which some programs write for an empty list."""
    read_item = _value(item, zone)
    if isinstance(item, Scalar):
        return read_item

    def read(element: etree._Element, notes: Notes) -> Any:
        if any(not text.isspace() for text in element.itertext()):
            return read_item(element, notes)
        notes.deviates("holds nothing", element, kept=True)
        return None

    return read


def _wrapper(item: Scalar | Group, zone: tzinfo) -> Value:
    read_item = _item(item, zone)
    wanted = item.name
    children = item.children if isinstance(item, Group) else ()
    fields = {child.name for child in children if isinstance(child, Scalar | Group | Many)}

    def read(element: etree._Element, notes: Notes) -> Any:
        items: list[Any] = []
        names = {local_name(child) for child in element}
        if wanted not in names and not names.isdisjoint(fields):
            notes.deviates("an item where its wrapper is expected", element, kept=True)
            value = read_item(element, notes)
            return [] if value is None else [value]
        for child in element:
            if local_name(child) == wanted:
                start = len(notes.noted)
                value = read_item(child, notes)
                if len(notes.noted) > start:
                    notes.prefix(f"[{len(items)}]", start)
                if value is not None:
                    items.append(value)
            else:
                notes.unknown_element(child)
            if child.tail and not child.tail.isspace():
                notes.keep("", child.tail)
        _keep_text(element, notes)
        return items

    return read


def _keep_text(element: etree._Element, notes: Notes) -> None:
    """Note the text in front of the first of an element's children, and keep it aside."""
    if element.text and not element.text.isspace():
        notes.deviates("text where elements are expected", element, kept=True)
        notes.keep("", element.text)
