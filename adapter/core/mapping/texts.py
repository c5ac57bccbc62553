"""Texts of requests: what a simple type of the XSD demands of them, and how they are written in XML."""

import re
from collections.abc import Callable
from typing import Final

from adapter.core.document import fold
from adapter.core.xsd import Leaf

DEFAULT_LONGEST: Final = 65_536
"""Characters of a text for which the XSD sets no length."""


class Flaw(Exception):  # noqa: N818 -- named for what it says
    """What is wrong with a text."""


Clean = Callable[[str], str]
"""The text as it is written. Raises Flaw."""


def cleaner(leaf: Leaf) -> Clean:
    collapse, fault_of, special = leaf.collapse, _form(leaf), _SPECIAL.search
    longest = DEFAULT_LONGEST if leaf.longest is None else leaf.longest
    # Checked before anything expensive; white space that will be folded away does not count yet.
    longest_given = DEFAULT_LONGEST if collapse else longest

    def clean(value: str) -> str:
        if len(value) > longest_given:
            raise Flaw(f"longer than {longest}")
        if collapse:
            value = fold(value)
        if fault_of and (fault := fault_of(value)):
            raise Flaw(fault)
        if special(value):
            if forbidden := _FORBIDDEN.search(value):
                raise Flaw(f"has a character XML cannot carry (U+{ord(forbidden[0]):04X})")
            value = escaped(value)
        return value

    return clean


def plain(leaf: Leaf, name: str) -> str | None:
    """A condition, as Python source, under which the text in `name` need only be escaped: that holds for most texts and
    is faster than cleaning them. None if the type demands too much for such a condition.
    """
    if leaf.shortest > 1 or leaf.values or leaf.patterns:
        return None
    longest = DEFAULT_LONGEST if leaf.longest is None else leaf.longest
    # What is printable has no white space but single spaces, nothing XML cannot carry, no carriage return.
    conditions = [f"{name}.isprintable()", f"len({name}) <= {longest}"]
    if leaf.not_blank or leaf.shortest:
        conditions.insert(0, name)
    if leaf.collapse or leaf.not_blank:  # most have no space at all
        conditions.append(f"(' ' not in {name} or {name}[0] != ' ' != {name}[-1] and '  ' not in {name})")
    return " and ".join(conditions)


# What XML 1.0 cannot carry (section 2.2, Char) and what must be written as a reference; a bare CR would be
# read back as LF (section 2.11).
_SPECIAL: Final = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def escaped(text: str) -> str:
    # Quicker than one pass of `translate`, which looks every character up.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def _form(leaf: Leaf) -> Callable[[str], str | None] | None:
    """A function that says what is wrong with a folded text of this type; None if every text is right."""
    longest, shortest, values, patterns = leaf.longest, leaf.shortest, leaf.values, leaf.patterns
    if not (leaf.not_blank or shortest or values or patterns or (leaf.collapse and longest is not None)):
        return None

    def fault_of(value: str) -> str | None:
        if longest is not None and len(value) > longest:
            return f"longer than {longest}"
        if leaf.not_blank and (not value or value.isspace()):  # any white space, not XML's alone
            return "is blank"
        if len(value) < shortest:
            return f"shorter than {shortest}"
        if values and value not in values:
            return "not a known value"
        if not all(pattern.search(value) for pattern in patterns):
            return "does not have the demanded form"
        return None

    return fault_of
