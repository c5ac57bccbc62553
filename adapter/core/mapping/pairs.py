"""Pairs XSD elements with Avro fields by equal names, and reports every mismatch with its path.

For requests the rules are strict: a required element is not nullable, an optional one defaults to null, an enumeration
is an enum of exactly its values and UNKNOWN. For replies and notifications every field is nullable or an array, since
real messages deviate from the XSD, and enumerations are plain strings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adapter.core.avro.schema import NONE, Array, Enum, Field, Primitive, Record, Type, Union, label, optional
from adapter.core.errors import Stop
from adapter.core.xsd import Element, Kind, Leaf

UNKNOWN: Final = "UNKNOWN"
"""The symbol an enum takes for a value this release does not know."""

ITEM_LIMIT: Final = 1_000
"""Items of an array for which the XSD sets no number."""


class Direction(StrEnum):
    OUT = "out"
    IN = "in"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text, number, time… and the Avro field of its name."""

    name: str
    element: Element
    leaf: Leaf
    kind: Primitive | Enum


@dataclass(frozen=True, slots=True)
class Group:
    """An element with elements in it, and the record of its name."""

    name: str
    element: Element
    children: tuple["Pair", ...]


@dataclass(frozen=True, slots=True)
class Many:
    """An array: the element is repeated, or it holds one repeated element and nothing else."""

    name: str
    element: Element
    """The repeated element, or the one around it."""

    wrapped: bool
    least: int
    most: int
    """Items that are written; ITEM_LIMIT where the XSD sets no number."""

    nullable: bool
    item: Scalar | Group


@dataclass(frozen=True, slots=True)
class Filled:
    """An element the adapter fills itself; it has no Avro field."""

    path: str
    element: Element
    leaf: Leaf
    value: str
    """Name of the protocol value."""


@dataclass(frozen=True, slots=True)
class FilledGroup:
    """An element in which everything is filled by the adapter."""

    element: Element
    children: tuple["Filled | FilledGroup", ...]

    @property
    def values(self) -> Iterator[str]:
        """Names of the protocol values that fill it. Without any of them it is left out, if it may be."""
        for child in self.children:
            yield from (child.value,) if isinstance(child, Filled) else child.values


Pair = Scalar | Group | Many | Filled | FilledGroup


def paired(
    root: Element,
    record: Record,
    direction: Direction,
    *,
    protocol: Mapping[str, str] | None = None,
    ignored: frozenset[str] = frozenset(),
) -> tuple[Pair, ...]:
    """The pairs of a message's root element with its record; `protocol` maps paths to names of protocol values, and
    `ignored` fields need no element. Raises Stop with one line per path that does not fit.
    """
    if isinstance(root.content, Leaf):
        raise Stop(f"{root.name}: holds text, not elements")
    faults: list[str] = []
    pairs = _Pairing(direction, protocol or {}, faults).children(root.content, record, "", ignored=ignored)
    if faults:
        raise Stop(*(f"{root.name}: {fault}" for fault in faults))
    return pairs


@dataclass(frozen=True, slots=True)
class _Pairing:
    """One walk along both schemas; `faults` collects the mismatches."""

    direction: Direction
    protocol: Mapping[str, str]
    faults: list[str]

    def children(
        self, elements: Iterable[Element], record: Record, path: str, *, ignored: frozenset[str] = frozenset()
    ) -> tuple[Pair, ...]:
        """The pairs of a record's fields, in the order of the XSD. `ignored` fields need no element."""
        fields = {field.name: field for field in record.fields if field.name not in ignored}
        pairs: list[Pair] = []
        seen: set[str] = set()
        for element in elements:
            where = f"{path}.{element.name}" if path else element.name
            if element.name in seen:
                self.faults.append(f"{where}: two elements of this name")
                continue
            seen.add(element.name)
            if filled := self._filled(element, where):
                pairs.append(filled)
            elif element.name not in fields:
                self.faults.append(f"{where}: in the XSD, not in the Avro record {record.name}")
            elif pair := self._pair(element, fields[element.name], where):
                pairs.append(pair)
        written = {pair.name for pair in pairs if isinstance(pair, Scalar | Group | Many)}
        for name in fields:
            if name not in written and name not in seen:
                self.faults.append(
                    f"{f'{path}.{name}' if path else name}: in the Avro record {record.name}, not in the XSD"
                )
        return tuple(pairs)

    def _filled(self, element: Element, where: str) -> Filled | FilledGroup | None:
        content = element.content
        if isinstance(content, Leaf):
            value = self.protocol.get(where)
            return None if value is None else Filled(where, element, content, value)
        children = [self._filled(child, f"{where}.{child.name}") for child in content]
        filled = tuple(child for child in children if child is not None)
        return FilledGroup(element, filled) if filled and len(filled) == len(children) else None

    def _pair(self, element: Element, field: Field, where: str) -> Pair | None:
        kind, nullable = optional(field.type)
        if isinstance(kind, Union):
            self.faults.append(f"{where}: a union of more than null and one type cannot be mapped")
            return None
        repeated = _repeated(element)
        if repeated is None:
            self._check_null(element, field, where, nullable=nullable)
            return self._single(element, kind, where)
        if not isinstance(kind, Array):
            self.faults.append(f"{where}: repeated in the XSD, {label(kind)} in Avro")
            return None
        if element.least == 0 and field.default is NONE:
            self.faults.append(f"{where}: optional in the XSD, needs a default in Avro")
        if self.direction is Direction.OUT and nullable and element.least:
            self.faults.append(f"{where}: required in the XSD, nullable in Avro")
        item = self._single(repeated, kind.items, where)
        if item is None:
            return None
        return Many(
            name=element.name,
            element=element,
            wrapped=repeated is not element,
            least=repeated.least,
            most=ITEM_LIMIT if repeated.most is None else repeated.most,
            nullable=nullable,
            item=item,
        )

    def _single(self, element: Element, kind: Type, where: str) -> Scalar | Group | None:
        match element.content, kind:
            case Leaf() as leaf, Primitive() | Enum():
                if fault := self._leaf_fault(leaf, kind):
                    self.faults.append(f"{where}: {fault}")
                return Scalar(element.name, element, leaf, kind)
            case tuple() as children, Record():
                return Group(element.name, element, self.children(children, kind, where))
            case content, _:
                held = "text" if isinstance(content, Leaf) else "elements"
                self.faults.append(f"{where}: {held} in the XSD, {label(kind)} in Avro")
                return None

    def _check_null(self, element: Element, field: Field, where: str, *, nullable: bool) -> None:
        if self.direction is Direction.IN:
            if not nullable:
                self.faults.append(f"{where}: may be missing in a real message, must be nullable in Avro")
        elif element.least and nullable:
            self.faults.append(f"{where}: required in the XSD, nullable in Avro")
        elif not element.least and not nullable:
            self.faults.append(f"{where}: optional in the XSD, not nullable in Avro")
        if nullable and field.default is not None:
            self.faults.append(f"{where}: nullable, must have the default null")

    def _leaf_fault(self, leaf: Leaf, kind: Primitive | Enum) -> str | None:
        if leaf.values and self.direction is Direction.OUT:
            return _enum_fault(leaf, kind)
        if leaf.kind is Kind.ANYTHING and self.direction is Direction.OUT:
            return "content of any kind cannot be written"
        fitting = _FITTING[leaf.kind]
        if isinstance(kind, Primitive) and (kind.name, kind.logical) in fitting:
            return None
        names = " or ".join(label(Primitive(*fit)) for fit in fitting)
        return f"{leaf.kind} in the XSD needs {names} in Avro, not {label(kind)}"


def symbol(value: str) -> str:
    """The Avro symbol of an enumeration's value: "Impaired Service" is IMPAIRED_SERVICE."""
    return re.sub(r"[^A-Za-z0-9]+", "_", value).strip("_").upper()


_FITTING: Final[Mapping[Kind, tuple[tuple[str, str | None], ...]]] = {
    Kind.TEXT: (("string", None),),
    Kind.ANYTHING: (("string", None),),
    Kind.BOOLEAN: (("boolean", None),),
    Kind.DATE_TIME: (("long", "timestamp-millis"),),
    Kind.DATE: (("int", "date"),),
    Kind.INTEGER: (("int", None), ("long", None)),
}


def _repeated(element: Element) -> Element | None:
    """The repeated element of an array: this one, or the only one in it."""
    if element.repeated:
        return element
    match element.content:
        case (Element() as only,) if only.repeated:
            return only
    return None


def _enum_fault(leaf: Leaf, kind: Primitive | Enum) -> str | None:
    wanted = [symbol(value) for value in leaf.values]
    if len(set(wanted)) < len(wanted):
        return "two values of the enumeration have the same symbol"
    if not isinstance(kind, Enum):
        return f"an enumeration in the XSD needs an enum in Avro, not {label(kind)}"
    if kind.default != UNKNOWN:
        return f"the enum must have the default {UNKNOWN}"
    return "; ".join(_symbol_faults(set(wanted), set(kind.symbols))) or None


def _symbol_faults(wanted: set[str], given: set[str]) -> Iterator[str]:
    if missing := wanted - given:
        yield f"the enum lacks {', '.join(sorted(missing))}"
    if surplus := given - wanted - {UNKNOWN}:
        yield f"the XSD does not know {', '.join(sorted(surplus))}"
