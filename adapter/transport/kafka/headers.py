"""The headers of a record as it was read."""

import logging
from typing import Final, cast

from confluent_kafka import Message

_LOG: Final = logging.getLogger("librdkafka")


def headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """All of them; none where the name of one is not UTF-8, which Kafka lets pass and the client library chokes on."""
    try:
        found = cast("list[tuple[str, bytes | None]] | None", message.headers())
    except SystemError:
        place = (message.topic(), message.partition(), message.offset())
        _LOG.warning("%s partition %s offset %s: the name of a header is not UTF-8; taken without headers", *place)
        return ()
    return tuple(found) if found else ()
