"""The headers of a record as it was read."""

import logging
from collections.abc import Callable
from operator import methodcaller
from typing import Any, Final

from confluent_kafka import Message

_LOG: Final = logging.getLogger("librdkafka")

# Not `message.headers()`: in code that runs often the interpreter does not check that call for an error, and the
# library's error would be raised at some later place.
_headers: Final[Callable[[Message], Any]] = methodcaller("headers")


def headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """All headers; none if the name of one is not UTF-8, which Kafka permits and the client library can't read."""
    try:
        found = _headers(message)
    except SystemError:
        place = (message.topic(), message.partition(), message.offset())
        _LOG.warning("%s partition %s offset %s: the name of a header is not UTF-8; taken without headers", *place)
        return ()
    return tuple(found) if found else ()
