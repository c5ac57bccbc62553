"""What a twin takes of the values it is given, on its command line and at its control address. Pure: a limit says what
is wrong with a value, None if nothing is.
"""

import re
from collections.abc import Callable
from typing import Any, Final

Limit = Callable[[Any], str | None]


def text(value: str) -> str | None:
    return "holds a character that XML cannot carry" if _NO_XML.search(value) else None


_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0, section 2.2."""
