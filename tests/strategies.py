"""Hypothesis strategies over our schemas: records, messages and hostile XML. Nothing here names an operation."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from lxml import etree

from adapter.core.avro.schema import Array, Enum, Field, Map, Primitive, Record, Schema, Type, optional
from adapter.core.document import fold
from adapter.core.mapping.pairs import symbol
from adapter.core.xsd import Element, Kind, Leaf

any_text = st.text(st.characters(codec=None), max_size=60)
"""Anything a Python string holds: control characters, lone surrogates, what is beyond the basic plane."""

xml_text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(c) for c in (*range(9), 11, 12)])
    .filter(lambda c: c in "\t\n\r" or c >= " ")
    .filter(lambda c: c not in "\ufffe\uffff"),
    max_size=60,
)
"""What XML 1.0 can carry."""

times = st.integers(-30_000_000_000_000, 253_370_000_000_000).map(
    lambda milliseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
)
"""The years 1019 to 9998."""


def values(kind: Type, text: st.SearchStrategy[str] = any_text) -> st.SearchStrategy[Any]:
    """Everything an Avro type allows, with `text` for its strings."""
    plain, nullable = optional(kind)
    found: st.SearchStrategy[Any]
    match plain:
        case Record(_, fields, _):
            found = st.fixed_dictionaries({field.name: values(field.type, text) for field in fields})
        case Array(items):
            found = st.lists(values(items, text), max_size=3)
        case Map(inner):
            found = st.dictionaries(st.text(st.characters(codec="utf-8")), values(inner, text), max_size=3)
        case Enum(_, symbols, _):
            found = st.sampled_from(symbols)
        case Primitive(name, logical):
            found = _PRIMITIVES[name, logical](text)
        case _:
            raise NotImplementedError(plain)
    return st.none() | found if nullable else found


_PRIMITIVES: Mapping[tuple[str, str | None], Any] = {
    ("boolean", None): lambda _: st.booleans(),
    ("int", None): lambda _: st.integers(-(2**31), 2**31 - 1),
    ("long", None): lambda _: st.integers(-(2**63), 2**63 - 1),
    ("double", None): lambda _: st.floats(allow_nan=False),
    ("bytes", None): lambda _: st.binary(max_size=20),
    ("string", None): lambda text: text,
    ("long", "timestamp-millis"): lambda _: times,
    ("int", "date"): lambda _: st.dates(date(1000, 1, 1), date(9999, 12, 31)),
}


def filled(kind: Type, text: str) -> Any:
    """A value with nothing left out and `text` in every place for a text."""
    plain, _ = optional(kind)
    match plain:
        case Record(_, fields, _):
            return {field.name: filled(field.type, text) for field in fields}
        case Array(items):
            return [filled(items, text)]
        case Enum(_, symbols, default):  # which stands for what a reader does not know, and is refused in a command
            return next(symbol for symbol in symbols if symbol != default)
        case Primitive("string", _):
            return text
        case Primitive("boolean", _):
            return True
        case Primitive("long", "timestamp-millis"):
            return PROTOCOL_TIME
        case Primitive("int", "date"):
            return PROTOCOL_TIME.date()
        case _:
            return 1


def texts_of(leaf: Leaf) -> st.SearchStrategy[str]:
    """Texts a text type of the XSD takes."""
    if leaf.values:
        return st.sampled_from(leaf.values)
    found = st.from_regex(leaf.patterns[0], fullmatch=True) if leaf.patterns else xml_text
    if leaf.not_blank:
        found = st.tuples(xml_text, st.sampled_from("aZ9é<&\U0001f600"), xml_text).map("".join)
    if leaf.shortest and not leaf.patterns:
        found = found.map(lambda text: text + "x" * leaf.shortest)

    def fits(text: str) -> bool:
        seen = fold(text) if leaf.collapse else text
        long = leaf.shortest <= len(seen) <= (10**6 if leaf.longest is None else leaf.longest)
        return long and all(pattern.fullmatch(seen) for pattern in leaf.patterns)

    return found.filter(fits)


def fitting(content: Leaf | tuple[Element, ...], kind: Type) -> st.SearchStrategy[Any]:
    """Values of an Avro type that the XSD takes under the element that goes with it."""
    plain, nullable = optional(kind)
    found: st.SearchStrategy[Any]
    match content, plain:
        case Leaf() as leaf, Enum():
            found = st.sampled_from([symbol(value) for value in leaf.values])
        case Leaf(kind=Kind.TEXT) as leaf, _:
            found = texts_of(leaf)
        case Leaf(kind=Kind.ANYTHING), _:
            found = xml_text.map(fold)
        case Leaf(kind=Kind.INTEGER, lowest=lowest, highest=highest), Primitive(name, _):
            bits = 31 if name == "int" else 63
            found = st.integers(
                max(-(2**bits), -(2**63) if lowest is None else lowest),
                min(2**bits - 1, 2**63 - 1 if highest is None else highest),
            )
        case Leaf(), _:
            found = values(plain)
        case tuple() as children, Array(items):
            (child,) = children
            least = 1 if nullable else child.least
            found = st.lists(fitting(child.content, items), min_size=least, max_size=3)
        case tuple() as children, Record(_, fields, _):
            found = fitting_record(children, {field.name: field for field in fields})
        case _:
            raise NotImplementedError(plain)
    return st.none() | found if nullable else found


def fitting_record(children: tuple[Element, ...], fields: Mapping[str, Field]) -> st.SearchStrategy[dict[str, Any]]:
    parts: dict[str, st.SearchStrategy[Any]] = {}
    for child in children:
        if child.name not in fields:
            continue  # filled by the adapter
        kind = fields[child.name].type
        plain, _ = optional(kind)
        if child.repeated and isinstance(plain, Array):
            parts[child.name] = st.lists(fitting(child.content, plain.items), min_size=child.least, max_size=3)
        else:
            parts[child.name] = fitting(child.content, kind)
    return st.fixed_dictionaries(parts)


def fitting_command(root: Element, schema: Schema, envelope: frozenset[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Commands that the XSD takes."""
    assert not isinstance(root.content, Leaf)
    fields = schema.fields()
    ours = {name: values(fields[name].type, xml_text) for name in sorted(envelope)}
    return st.tuples(fitting_record(root.content, fields), st.fixed_dictionaries(ours)).map(
        lambda parts: parts[0] | parts[1]
    )


names = st.sampled_from(["a", "b", "message", "sentAt", "responseCode", "Envelope", "Body", "Fault"])


def elements(known: list[str]) -> st.SearchStrategy[etree._Element]:
    """Trees of elements, among them those of the names given, with any text in any place."""

    def build(spec: Any) -> etree._Element:
        name, space, text, tail, children = spec
        element = etree.Element(f"{{{space}}}{name}" if space else name)
        element.text, element.tail = text, tail
        element.extend([build(child) for child in children])
        return element

    name = st.sampled_from(known) | names
    space = st.sampled_from(["", "", "urn:x", "http://schemas.xmlsoap.org/soap/envelope/"])
    text = st.none() | st.sampled_from(["", " ", "1", "true", "2026-01-31T12:00:00", "2026-13-31", "-0"]) | xml_text
    leaf: st.SearchStrategy[Any] = st.tuples(name, space, text, st.none() | xml_text, st.just([]))
    tree = st.recursive(
        leaf, lambda inner: st.tuples(name, space, text, st.none(), st.lists(inner, max_size=6)), max_leaves=25
    )
    return tree.map(build)


PROTOCOL_TIME = datetime(2026, 3, 2, 9, 30, 0, 412_700, tzinfo=UTC)
