"""Requests: an Avro record becomes the bytes of one XML element, or every reason why it cannot.

The writer is compiled once, from the pairs of the schemas (`source.py`). It only handles valid commands; what is wrong
with another one is found by a walk along the same pairs. Every result is validated against the XSD by `lxml`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lxml import etree

from adapter.core.avro.schema import Enum, Schema
from adapter.core.document import local_name
from adapter.core.errors import Refused
from adapter.core.instant import utc
from adapter.core.mapping.pairs import Direction, Filled, FilledGroup, Group, Many, Pair, Scalar, paired, symbol
from adapter.core.mapping.source import Write, compile_writer
from adapter.core.mapping.texts import Flaw, cleaner
from adapter.core.operation import Problem
from adapter.core.xsd import Kind, Leaf, Xsd


class RequestWriter:
    """Writes the body element of one operation's requests."""

    def __init__(
        self,
        pairs: tuple[Pair, ...],
        write: Write,
        judge: etree.XMLSchema,
        *,
        reported_as: Mapping[str, str],
    ) -> None:
        self._pairs = pairs
        self._write = write
        self._judge = judge
        self._reported_as = reported_as

    def write(self, record: Mapping[str, Any], protocol_values: Mapping[str, Any]) -> bytes:
        """The element in UTF-8, valid against the XSD, without XML declaration.

        `protocol_values` are texts, aware datetimes or None by the names of Supplier.protocol.
        Raises Refused with all problems, in the command's vocabulary, and nothing else.
        """
        try:
            body = self._write(record, protocol_values)
        except Exception:
            if problems := self.problems(record, protocol_values):
                raise Refused(*problems) from None
            raise
        root = etree.fromstring(body, _PARSER)
        if not self._judge(root):
            raise Refused(*_complaints(self._judge, root))
        return body

    def problems(self, record: Mapping[str, Any], protocol_values: Mapping[str, Any]) -> tuple[Problem, ...]:
        """What is wrong with a record, as far as it shows without XSD validation."""
        found = _of_fields(self._pairs, record, protocol_values, "")
        return tuple(Problem(self._reported_as.get(path, path), text) for path, text in found)


def compile_request(
    xsd: Xsd, element: str, schema: Schema, *, protocol: Mapping[str, str], envelope: frozenset[str]
) -> RequestWriter:
    """The writer of `element` (Clark notation) from records of `schema`.

    `protocol` maps XSD paths to names of protocol values, `envelope` are fields without an element.
    Raises Stop with one line per path that does not fit.
    """
    root = xsd.element(element)
    pairs = paired(root, schema.record, Direction.OUT, protocol=protocol, ignored=envelope)
    # A problem of an element that a field of the envelope fills is reported under that field.
    reported_as = {path: name for path in protocol if (name := path.rpartition(".")[2]) in envelope}
    write = compile_writer(root, pairs, xsd.prefixes)
    return RequestWriter(pairs, write, xsd.judge, reported_as=reported_as)


_PARSER: Final = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, collect_ids=False)

_Problems = Iterator[tuple[str, str]]
"""Path and text of each."""


def _of_fields(pairs: Iterable[Pair], record: Mapping[str, Any], values: Mapping[str, Any], above: str) -> _Problems:
    """Of a record with these pairs; `above` is its path, with a dot behind it."""
    for pair in pairs:
        match pair:
            case Scalar(name=name) | Group(name=name):
                yield from _of_value(pair, record.get(name), values, above + name)
            case Many(name=name):
                yield from _of_items(pair, record.get(name) or (), values, above + name)
            case Filled(path=path, value=name):
                yield from _of_value(pair, values.get(name), values, path)
            case FilledGroup():
                if pair.element.least or any(values.get(name) is not None for name in pair.values):
                    yield from _of_fields(pair.children, record, values, above)


def _of_value(pair: Scalar | Group | Filled, value: Any, values: Mapping[str, Any], path: str) -> _Problems:
    match pair:
        case _ if value is None:
            if pair.element.least:
                yield path, "is required"
        case Group():
            yield from _of_fields(pair.children, value, values, f"{path}.")
        case Scalar(kind=Enum()):
            symbols = list(map(symbol, pair.leaf.values))
            if value not in symbols:
                yield path, f"not one of {', '.join(symbols)}"
        case _:
            yield from ((path, flaw) for flaw in _flaws(pair.leaf, value))


def _of_items(pair: Many, items: Sequence[Any], values: Mapping[str, Any], path: str) -> _Problems:
    if len(items) < pair.least and (items or pair.element.least):
        yield path, f"needs at least {pair.least}"
    if len(items) > pair.most:
        yield path, f"more than {pair.most}"
        return
    for place, item in enumerate(items):
        yield from _of_value(pair.item, item, values, f"{path}[{place}]")


def _flaws(leaf: Leaf, value: Any) -> Iterator[str]:
    match leaf.kind:
        case Kind.TEXT:
            try:
                cleaner(leaf)(value)
            except Flaw as flaw:
                yield str(flaw)
        case Kind.DATE_TIME:
            try:
                utc(value)
            except OverflowError:
                yield "beyond the calendar"
        case Kind.INTEGER:
            if leaf.lowest is not None and value < leaf.lowest:
                yield f"less than {leaf.lowest}"
            if leaf.highest is not None and value > leaf.highest:
                yield f"greater than {leaf.highest}"
        case _:
            return


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
