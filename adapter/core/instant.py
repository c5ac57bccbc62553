"""A moment as machines read it, in XML, JSON and headers alike."""

from datetime import UTC, datetime
from typing import Final


def utc(moment: datetime) -> str:
    """A moment in UTC with milliseconds and Z, 24 characters of the 25 allowed (contract section 8, number 11), at a
    third of what `isoformat` takes. Raises OverflowError beyond the calendar.
    """
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return (
        f"{moment.year:04}-{_DIGITS[moment.month]}-{_DIGITS[moment.day]}T{_DIGITS[moment.hour]}:"
        f"{_DIGITS[moment.minute]}:{_DIGITS[moment.second]}.{moment.microsecond // 1000:03}Z"
    )


_DIGITS: Final = tuple(f"{number:02}" for number in range(60))
