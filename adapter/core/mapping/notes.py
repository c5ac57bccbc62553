"""Deviations and unknown content found while a message is read, collected up to a limit."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from lxml import etree

from adapter.core.document import WHITE, fold, local_name
from adapter.core.immutable import immutable

NAMED_LIMIT: Final = 100
"""The most unknown elements of one message that are reported, and the most deviations; further ones are dropped."""

ASIDE_LIMIT: Final = 1_000
"""The most texts of one message that are kept aside."""


class ValueClass(StrEnum):
    """The kind of value found where a message deviates, without the value itself."""

    ABSENT = "absent"
    EMPTY = "empty"
    BOOLEAN = "boolean"
    NUMBER = "number"
    DATE = "date"
    TIME = "time"
    TEXT = "text"
    ELEMENTS = "elements"
    PLACEHOLDER = "placeholder"


@immutable
class Deviation:
    """A place where a message does not conform to the XSD. Carries no value."""

    path: str
    what: str
    value: ValueClass = ValueClass.ABSENT


NOT_UTF_8: Final = Deviation("", "holds bytes that are not UTF-8, read as Windows-1252", ValueClass.TEXT)
"""The deviation of a message that `document.admit_mended` had to mend."""


def value_class(element: etree._Element | None) -> ValueClass:
    """The class of an element's content; None is an absent element."""
    if element is None:
        return ValueClass.ABSENT
    if len(element):
        return ValueClass.ELEMENTS
    text = (element.text or "").strip(WHITE)
    if not text:
        return ValueClass.EMPTY
    if text.lower() in {"true", "false"}:
        return ValueClass.BOOLEAN
    if _NUMBER.fullmatch(text):
        return ValueClass.NUMBER
    if found := _DAY.fullmatch(text):
        return ValueClass.TIME if found[1] else ValueClass.DATE
    return ValueClass.TEXT


Aside = etree._Element | str  # noqa: SLF001 -- lxml's name for the type of elements


class _Sort(IntEnum):
    UNKNOWN = 0
    DEVIATION = 1
    ASIDE = 2


@dataclass(slots=True)
class _Noted:
    sort: _Sort
    path: str
    what: str
    content: Aside | None


class Notes:
    """The deviations of one message while it is read. The reader of an element notes paths relative to it ("" for the
    element itself); its caller then prefixes them with the element's name.
    """

    __slots__ = ("_left", "noted")

    def __init__(self) -> None:
        self.noted: list[_Noted] = []
        self._left = [NAMED_LIMIT, NAMED_LIMIT, ASIDE_LIMIT]  # by sort

    def unknown_element(self, element: etree._Element) -> None:
        name = local_name(element)[:100]
        self._note(_Sort.UNKNOWN, name)
        self.keep(name, element)

    def unknown_attribute(self, path: str, name: str, value: str) -> None:
        path = _joined(path, f"@{name[:100]}") if path else f"@{name[:100]}"
        self._note(_Sort.UNKNOWN, path)
        self.keep(path, value)

    def deviates(self, what: str, element: etree._Element, *, kept: bool = False) -> None:
        """The element being read deviates; `kept`: its content has a place in the record all the same."""
        self._note(_Sort.DEVIATION, "", what, element)
        if not kept:
            self.keep("", element)

    def missing(self, name: str) -> None:
        self._note(_Sort.DEVIATION, name, "missing")

    def keep(self, path: str, content: Aside) -> None:
        self._note(_Sort.ASIDE, path, content=content)

    def prefix(self, name: str, start: int) -> None:
        """Prefixes the paths of all from `noted[start]` on with `name`."""
        for note in self.noted[start:]:
            note.path = _joined(name, note.path)

    def deviated(self, name: str, start: int) -> bool:
        """Whether a deviation of `name` is among them from `noted[start]` on."""
        return any(note.sort is _Sort.DEVIATION and note.path == name for note in self.noted[start:])

    @property
    def unknown(self) -> tuple[str, ...]:
        """Paths of unknown elements."""
        return tuple(note.path for note in self.noted if note.sort is _Sort.UNKNOWN)

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        return tuple(
            Deviation(note.path, note.what, value_class(None if isinstance(note.content, str) else note.content))
            for note in self.noted
            if note.sort is _Sort.DEVIATION
        )

    @property
    def aside(self) -> tuple[tuple[str, str], ...]:
        """(path, text) of what was kept aside."""
        kept = [(note.path, note.content) for note in self.noted if note.sort is _Sort.ASIDE]
        return tuple(_texts([(path, content) for path, content in kept if content is not None]))

    def _note(self, sort: _Sort, path: str, what: str = "", content: Aside | None = None) -> None:
        if self._left[sort] > 0:
            self._left[sort] -= 1
            self.noted.append(_Noted(sort, path, what, content))


def _texts(aside: list[tuple[str, Aside]]) -> Iterator[tuple[str, str]]:
    """(path, text) of what was kept aside: one entry per text, unknown elements taken apart."""
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


_LONGEST_PATH: Final = 500
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(?:[.,][0-9]{1,40})?", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.,]{4,60}[ ]?(?:[Zz]|[+-][0-9:]{2,6})?)?", re.ASCII)


def _joined(name: str, path: str) -> str:
    return f"{name}.{path}" if path and path[0] != "[" else name + path
