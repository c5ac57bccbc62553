"""Requests: an Avro record becomes the bytes of one XML element, or every reason why it cannot.

The writer is composed once, of one small function per element with its tags prepared as text; per message it only looks
up, checks, escapes and joins. Valid commands are written by code compiled from the same pairs (`source.py`), which is
faster but cannot give reasons. Every result is validated against the XSD by `lxml`.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final

from lxml import etree

from adapter.core.avro.schema import Enum, Schema
from adapter.core.document import local_name
from adapter.core.errors import Refused
from adapter.core.instant import utc
from adapter.core.mapping.pairs import (
    Direction,
    Filled,
    FilledGroup,
    Group,
    Many,
    Pair,
    Scalar,
    paired,
    symbol,
)
from adapter.core.mapping.source import ITEM_LIMIT, Names, Write, compile_writer
from adapter.core.mapping.texts import Flaw, cleaner, escaped
from adapter.core.operation import Problem
from adapter.core.xsd import Element, Kind, Leaf, Xsd


class RequestWriter:
    """Writes the body element of one operation's requests."""

    def __init__(
        self,
        root: Element,
        fields: tuple["_Field", ...],
        quick: Write,
        tag: str,
        judge: etree.XMLSchema,
        *,
        reported_as: Mapping[str, str],
    ) -> None:
        self.element = root.name
        """Local name of the element."""

        self.quick = quick
        """Writes valid commands, and raises any exception for others."""

        self._fields = fields
        self._open = f"<{tag}>"
        self._close = f"</{tag.partition(' ')[0]}>"
        self._judge = judge
        self._reported_as = reported_as

    def write(self, record: Mapping[str, Any], protocol_values: Mapping[str, Any]) -> bytes:
        """The element in UTF-8, valid against the XSD, without XML declaration.

        `protocol_values` are texts, aware datetimes or None by the names of Supplier.protocol.
        Raises Refused with all problems, in the command's vocabulary, and nothing else.
        """
        try:
            body = self.quick(record, protocol_values)
        except Exception:  # noqa: BLE001 -- whatever it stumbles over: the other one says what is wrong, or writes it
            body = self.explain(record, protocol_values)
        root = etree.fromstring(body, _PARSER)
        if not self._judge(root):
            raise Refused(*_complaints(self._judge, root))
        return body

    def explain(self, record: Mapping[str, Any], protocol_values: Mapping[str, Any]) -> bytes:
        """As `write`, slower and without XSD validation. Raises Refused with all problems the writer finds."""
        out = [self._open]
        problems: list[tuple[str, str]] = []
        for write in self._fields:
            write(record, protocol_values, out, problems)
        if problems:
            raise Refused(*(Problem(self._reported_as.get(path, path), text) for path, text in problems))
        out.append(self._close)
        return "".join(out).encode()


def compile_request(
    xsd: Xsd, element: str, schema: Schema, *, protocol: Mapping[str, str], envelope: frozenset[str]
) -> RequestWriter:
    """The writer of `element` (Clark notation) from records of `schema`.

    `protocol` maps XSD paths to names of protocol values, `envelope` are fields without an element.
    Raises Stop with one line per path that does not fit.
    """
    root = xsd.element(element)
    content = paired(root, schema.record, Direction.OUT, protocol=protocol, ignored=envelope)
    names = Names(xsd.prefixes)
    fields = tuple(_field(pair, names) for pair in content)
    # A problem of an element that a field of the envelope fills is reported under that field.
    reported_as = {path: name for path in protocol if (name := path.rpartition(".")[2]) in envelope}
    quick = compile_writer(root, content, names)
    return RequestWriter(root, fields, quick, names.root(root), xsd.judge, reported_as=reported_as)


_PARSER: Final = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, collect_ids=False)

_Problems = list[tuple[str, str]]
_Field = Callable[[Mapping[str, Any], Mapping[str, Any], list[str], _Problems], None]
"""Writes one element of a record (record, protocol values, output, problems with paths below the record)."""

_Value = Callable[[Any, Mapping[str, Any], list[str], _Problems], None]
"""Writes one value; its own problems have the path ""."""


def _field(pair: Pair, names: Names) -> _Field:
    match pair:
        case Scalar(name, element, _, _) | Group(name, element, _):
            return _one(name, lambda record, _: record.get(name), _value(pair, names), required=element.least > 0)
        case Many():
            return _many(pair, names)
        case Filled(path, element, leaf, value):
            write_value = _scalar(leaf, None, names.of(element))
            return _one(path, lambda _, values: values.get(value), write_value, required=element.least > 0)
        case FilledGroup(element, children):
            return _filled_group(names.of(element), tuple(_field(child, names) for child in children), element)


def _value(pair: Scalar | Group, names: Names) -> _Value:
    match pair:
        case Scalar(_, element, leaf, kind):
            return _scalar(leaf, kind if isinstance(kind, Enum) else None, names.of(element))
        case Group(_, element, children):
            return _group(names.of(element), tuple(_field(child, names) for child in children))


def _one(
    path: str, find: Callable[[Mapping[str, Any], Mapping[str, Any]], Any], write_value: _Value, *, required: bool
) -> _Field:
    """Of the value that `find` finds in a record and the protocol values; its problems are told at `path`."""

    def write(record: Mapping[str, Any], values: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        value = find(record, values)
        if value is None:
            if required:
                problems.append((path, "is required"))
            return
        mark = len(problems)
        write_value(value, values, out, problems)
        if len(problems) > mark:
            _below(path, problems, mark)

    return write


def _below(name: str, problems: _Problems, mark: int) -> None:
    """Prefixes the paths of the problems found since `mark` with `name`."""
    problems[mark:] = [(f"{name}.{path}" if path else name, text) for path, text in problems[mark:]]


def _group(tag: str, fields: tuple[_Field, ...]) -> _Value:
    opening, closing = f"<{tag}>", f"</{tag}>"

    def write(value: Any, values: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        out.append(opening)
        for each in fields:
            each(value, values, out, problems)
        out.append(closing)

    return write


def _many(pair: Many, names: Names) -> _Field:
    name, least, wrapped = pair.name, pair.least, pair.wrapped
    most = ITEM_LIMIT if pair.most is None else pair.most
    write_item = _value(pair.item, names)
    tag = names.of(pair.element)
    may_miss = pair.element.least == 0

    def write(record: Mapping[str, Any], values: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        items = record.get(name)
        # An empty list is written as an empty wrapper only where null says "no wrapper" and the XSD allows it.
        if not items and may_miss and (items is None or not (wrapped and pair.nullable and least == 0)):
            return
        items = items or ()
        if len(items) < least:
            problems.append((name, f"needs at least {least}"))
        if len(items) > most:
            problems.append((name, f"more than {most}"))
            return
        if wrapped:
            out.append(f"<{tag}>")
        for place, item in enumerate(items):
            mark = len(problems)
            write_item(item, values, out, problems)
            if len(problems) > mark:
                _below(f"{name}[{place}]", problems, mark)
        if wrapped:
            out.append(f"</{tag}>")

    return write


def _filled_group(tag: str, fields: tuple[_Field, ...], element: Element) -> _Field:
    opening, closing = f"<{tag}>", f"</{tag}>"
    may_miss = element.least == 0

    def write(record: Mapping[str, Any], values: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        inner: list[str] = []
        complaints: _Problems = []
        for each in fields:
            each(record, values, inner, complaints)
        if inner or not may_miss:
            problems.extend(complaints)
            out.extend((opening, *inner, closing))

    return write


def _scalar(leaf: Leaf, enum: Enum | None, tag: str) -> _Value:
    opening, closing = f"<{tag}>", f"</{tag}>"
    if enum is not None:
        return _enum({symbol(value): escaped(value) for value in leaf.values}, opening, closing)
    match leaf.kind:
        case Kind.TEXT:
            return _text(leaf, opening, closing)
        case Kind.BOOLEAN:
            return _boolean(opening, closing)
        case Kind.DATE_TIME:
            return _time(opening, closing)
        case Kind.DATE:
            return _date(opening, closing)
        case Kind.INTEGER:
            return _integer(leaf, opening, closing)
        case Kind.ANYTHING:
            raise AssertionError("content of any kind is refused by the pairing")


def _text(leaf: Leaf, opening: str, closing: str) -> _Value:
    clean = cleaner(leaf)

    def write(value: Any, _: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        try:
            text = clean(value)
        except Flaw as flaw:
            problems.append(("", str(flaw)))
        else:
            out.append(f"{opening}{text}{closing}")

    return write


def _enum(values: Mapping[str, str], opening: str, closing: str) -> _Value:
    texts = {name: f"{opening}{value}{closing}" for name, value in values.items()}
    what = f"not one of {', '.join(texts)}"

    def write(value: Any, _: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        text = texts.get(value)
        if text is None:
            problems.append(("", what))
        else:
            out.append(text)

    return write


def _boolean(opening: str, closing: str) -> _Value:
    yes, no = f"{opening}true{closing}", f"{opening}false{closing}"

    def write(value: Any, _: Mapping[str, Any], out: list[str], __: _Problems) -> None:
        out.append(yes if value else no)

    return write


def _time(opening: str, closing: str) -> _Value:
    def write(value: datetime, _: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        try:
            out.append(f"{opening}{utc(value)}{closing}")
        except OverflowError:
            problems.append(("", "beyond the calendar"))

    return write


def _date(opening: str, closing: str) -> _Value:
    def write(value: date, _: Mapping[str, Any], out: list[str], __: _Problems) -> None:
        out.append(f"{opening}{value.isoformat()}{closing}")

    return write


def _integer(leaf: Leaf, opening: str, closing: str) -> _Value:
    lowest, highest = leaf.lowest, leaf.highest

    def write(value: int, _: Mapping[str, Any], out: list[str], problems: _Problems) -> None:
        if lowest is not None and value < lowest:
            problems.append(("", f"less than {lowest}"))
        if highest is not None and value > highest:
            problems.append(("", f"greater than {highest}"))
        out.append(f"{opening}{value}{closing}")

    return write


def _complaints(judge: etree.XMLSchema, root: etree._Element) -> list[Problem]:
    """Problems that only the validator found; its own messages quote the value, so they are not passed on."""
    paths = {_path(root, entry.path or "") for entry in judge.error_log}
    return [Problem(path, "is not what the supplier's schema allows") for path in sorted(paths)]


def _path(root: etree._Element, xpath: str) -> str:
    found = root.getroottree().xpath(xpath) if xpath else []
    if not isinstance(found, list) or not found or not isinstance(found[0], etree._Element):  # noqa: SLF001 -- lxml's name for the type of elements
        return ""
    above = [local_name(each) for each in found[0].iterancestors()]
    return ".".join([*reversed(above), local_name(found[0])][1:])
