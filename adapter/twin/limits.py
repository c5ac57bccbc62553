"""The limits of the values that a twin is given, on its command line and at its control address. Pure: a limit is a
function that returns what is wrong with a value, or None.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from adapter.core.errors import Stop

Limit = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class Within:
    """A number from `least` to `most`. Refuses infinity and NaN too."""

    least: float
    most: float

    def __call__(self, value: float) -> str | None:
        return None if self.least <= value <= self.most else f"must be from {self.least} to {self.most}"


MANY: Final = 1_000_000_000
"""As seconds, 31 years: added to the present it is still a date, even at the lowest speed, a hundredth."""

CHANCE: Final = Within(0, 1)
COUNT: Final = Within(0, MANY)
PORT: Final = Within(0, 65535)
SECONDS: Final = Within(0, MANY)
PAUSE: Final = Within(0.001, MANY)
"""Seconds. Zero would be a busy loop."""

SIZE: Final = Within(0, 1024**3)
SPEED: Final = Within(0.01, MANY)
STATUS: Final = Within(200, 599)


def host(value: str) -> str | None:
    """An address to listen on, or the host of a URL. Whether there is one of that name is the resolver's business."""
    try:
        good = value.encode("idna") and not re.search(r"\s", value)
    except UnicodeError:
        good = False
    return None if good else "is not a host name or address"


def path(value: str) -> str | None:
    """A prefix of the operations' paths: empty, or as it appears in a request."""
    return None if _PATH.fullmatch(value) else "a path as /prod/api2 is needed"


def text(value: str) -> str | None:
    return "holds a character that XML cannot carry" if _NO_XML.search(value) else None


def code(value: str) -> str | None:
    return text(value) if len(value) <= 100 else "more than 100 characters"


def pattern(value: str) -> str | None:
    """A regular expression."""
    try:
        re.compile(value)
    except (re.error, OverflowError) as error:
        return f"not a regular expression: {error}"
    except RecursionError:
        return "not a regular expression: nested too deep"
    return None


def from_json(given: str) -> object:
    """The value that a JSON text stands for. Raises Stop."""
    try:
        value: object = json.loads(given)
    except ValueError as error:  # also a number of more digits than Python reads
        raise Stop(f"not JSON: {error}") from error
    except RecursionError as error:
        raise Stop("not JSON: nested too deep") from error
    return value


_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?")
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0, section 2.2."""
