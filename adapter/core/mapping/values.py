"""One text of a message as a value: times of any precision, numbers, booleans, in the forms real messages have.

Nothing here rejects a value: what cannot be read becomes None and is noted as a deviation.
"""

import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from lxml import etree

from adapter.core.avro.schema import RANGES
from adapter.core.document import WHITE, fold, folded_text
from adapter.core.mapping.notes import Notes
from adapter.core.xsd import Kind, Leaf

Value = Callable[[etree._Element, Notes], Any]  # noqa: SLF001 -- lxml's name for the type of elements
"""Reads one element. The paths of its notes are relative to it; "" is the element itself."""


Quick = Callable[[str | None], Any]
"""Reads the text of an element without children if it is in the usual form. None: read it with the full reader."""

_PLAIN_BOOLEANS: Final = {"true": True, "false": False}


def scalar(leaf: Leaf, avro: str, zone: tzinfo) -> Value:
    match leaf.kind:
        case Kind.TEXT:
            return _text(leaf)
        case Kind.ANYTHING:
            return lambda element, _: folded_text(element)
        case Kind.BOOLEAN:
            return _truth
        case Kind.DATE_TIME:
            return _time(zone)
        case Kind.DATE:
            return _day
        case Kind.INTEGER:
            return _parsed(lambda text: _integer(text, *RANGES[avro]), "not a whole number")


def quick(leaf: Leaf) -> Quick:
    """A fast reader for ordinary values, in a fifth of the time; it never yields another value than `scalar` does."""
    match leaf.kind:
        case Kind.TEXT:
            return _quick_listed(leaf) if leaf.values else _quick_text(leaf)
        case Kind.BOOLEAN:
            return lambda text: _PLAIN_BOOLEANS.get(text or "")
        case Kind.DATE_TIME:
            return _quick_time
        case Kind.INTEGER:
            return _quick_integer
        case Kind.DATE | Kind.ANYTHING:
            return never


def never(_text: str | None) -> None:
    """The quick reader of what is never read quickly, such as lists and records."""


def _quick_text(leaf: Leaf) -> Quick:
    longest = sys.maxsize if leaf.longest is None else leaf.longest

    def folded(text: str | None) -> str | None:
        if text and text.isprintable() and "  " not in text and text[0] != " " != text[-1] and len(text) <= longest:
            return text
        return None

    def as_it_is(text: str | None) -> str | None:
        return text if text and len(text) <= longest else None

    return folded if leaf.collapse else as_it_is


def _quick_listed(leaf: Leaf) -> Quick:
    plain = _quick_text(leaf)
    known = {text: text for text in leaf.values if plain(text) is not None}
    return lambda text: known.get(text or "")


def _quick_integer(text: str | None) -> int | None:
    # Nine digits fit whatever it is read for.
    return int(text) if text and len(text) <= 9 and text.isascii() and text.isdigit() else None


_DIGIT_AND_Z: Final = frozenset(f"{digit}Z" for digit in range(10))


def _quick_time(text: str | None) -> datetime | None:
    # fromisoformat accepts more than XSD does, so only the usual forms are passed to it.
    if (
        text
        and 20 <= len(text) <= 26
        and text[7] == "-"
        and text[10] == "T"
        and text[13] == text[16] == ":"
        and text[-2:] in _DIGIT_AND_Z
        and (len(text) == 20 or text[19] == ".")
    ):
        if len(text) == 25:  # a fraction of four digits, as in the supplier's samples
            text = f"{text[:23]}Z"
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        finer = moment.microsecond % 1000
        return moment.replace(microsecond=moment.microsecond - finer) if finer else moment
    return None


_NIL: Final = "{http://www.w3.org/2001/XMLSchema-instance}nil"


def _is_nil(element: etree._Element) -> bool:
    return element.get(_NIL) in {"true", "1"}


def _text(leaf: Leaf) -> Value:
    collapse, longest, values, not_blank = leaf.collapse, leaf.longest, leaf.values, leaf.not_blank

    def read(element: etree._Element, notes: Notes) -> Any:
        text = element.text or ""
        if len(element):
            text = folded_text(element)
            notes.deviates("elements where text is expected", element, kept=True)
        elif not text and _is_nil(element):
            return None
        if collapse:
            text = fold(text)
        if longest is not None and len(text) > longest:
            notes.deviates(f"longer than {longest}", element, kept=True)
        if values and text not in values:
            notes.deviates("not a known value", element, kept=True)
        if not_blank and not text:
            notes.deviates("is blank", element, kept=True)
        return text

    return read


def _parsed(parse: Callable[[str], Any], fault: str) -> Value:
    def read(element: etree._Element, notes: Notes) -> Any:
        text = element.text or ""
        if len(element):
            text = folded_text(element)
        elif not text and _is_nil(element):
            return None
        value = parse(text.strip(WHITE))
        if value is None:
            notes.deviates(fault if text.strip(WHITE) else "is empty", element)
        return value

    return read


_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_INTEGER: Final = re.compile(r"([+-]?)0*([0-9]{1,19})", re.ASCII)
_DATE: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:Z|[+-][0-9]{2}:[0-9]{2}|T.*)?", re.DOTALL)
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,40}))?)?"
    r"[ ]?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)


def _boolean(text: str) -> bool | None:
    return _BOOLEANS.get(text.lower())


_some_boolean: Final = _parsed(_boolean, "not true or false")
_WORDS: Final = {"yes": True, "y": True, "no": False, "n": False}


def _truth(element: etree._Element, notes: Notes) -> Any:
    """A boolean, also in the words of people: a visit that is said to be cancelled must not be told as confirmed."""
    value = _WORDS.get(folded_text(element).lower())
    if value is None:
        return _some_boolean(element, notes)
    notes.deviates("a word, taken for true or false", element, kept=True)
    return value


def _integer(text: str, lowest: int, highest: int) -> int | None:
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    value = int(found[1] + found[2])  # without leading zeros: int() raises for very many digits
    return value if lowest <= value <= highest else None


def _date(text: str) -> date | None:
    found = _DATE.fullmatch(text)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


_some_date: Final = _parsed(_date, "not a date")


def _day(element: etree._Element, notes: Notes) -> Any:
    """A date; of a time the date in it, as written. The whole is kept aside: in another zone it may be another day."""
    day = _some_date(element, notes)
    if day is not None and "T" in folded_text(element):
        notes.deviates("a time, the date in it is taken", element)
    return day


def _time(zone: tzinfo) -> Value:
    def read(element: etree._Element, notes: Notes) -> Any:
        text = (folded_text(element) if len(element) else element.text or "").strip(WHITE)
        if not text:
            if not _is_nil(element):
                notes.deviates("is empty", element)
            return None
        try:
            moment = _moment(text)
            if moment is not None and moment.tzinfo is None:
                notes.deviates(f"no offset, taken for {zone}", element, kept=True)
                moment = moment.replace(tzinfo=zone)
            moment = moment and moment.astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is None:
            notes.deviates("not a time", element)
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
