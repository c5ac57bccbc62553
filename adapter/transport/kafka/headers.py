"""The headers of a record as it was read."""

import logging
from collections.abc import Callable
from operator import methodcaller
from typing import Any, Final

from confluent_kafka import Message

_LOG: Final = logging.getLogger("librdkafka")

# `message.headers()` would do, if the interpreter looked at what it returns: of a call that is made often it does not,
# and the library's error comes up wherever it looks next.
_headers: Final[Callable[[Message], Any]] = methodcaller("headers")


def headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """All of them; none where the name of one is not UTF-8, which Kafka lets pass and the client library chokes on."""
    try:
        found = _headers(message)
    except SystemError:
        place = (message.topic(), message.partition(), message.offset())
        _LOG.warning("%s partition %s offset %s: the name of a header is not UTF-8; taken without headers", *place)
        return ()
    return tuple(found) if found else ()
