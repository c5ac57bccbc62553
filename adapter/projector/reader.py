"""A record of the events topic as an event of a ticket, or why it is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from adapter.core.avro.lookup import Decoders
from adapter.core.document import trimmed
from adapter.core.errors import Undecodable
from adapter.core.journal import Source
from adapter.core.partition import partition_of
from adapter.core.ticket import Event

UNRELATED: Final = "unrelated"
MISPLACED: Final = "misplaced"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Heard:
    """An event about the ticket of that reference."""

    reference: str
    event: Event


@dataclass(frozen=True, slots=True)
class Passed:
    """A record that changes no ticket. `result` is one of the three above (a metric label)."""

    result: str
    reason: str = ""
    """Why it is unreadable or misplaced: a slug."""


_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Later times leave no room for deadlines. Only a foreign writer can have written one."""


class Reader:
    def __init__(self, decoders: Decoders, partitions: int) -> None:
        """`decoders` of every event; `partitions` of the topic."""
        self._decoders = decoders
        self._partitions = partitions

    async def read(self, source: Source) -> Heard | Passed:
        """Raises Unavailable while the registry does not answer."""
        try:
            decoded = await self._decoders.decode(source.value)
        except Undecodable as why:
            return Passed(UNREADABLE, why.reason)
        record = decoded.record
        reference = trimmed(record.get("buyerFaultReference") or "")
        if not reference:  # the appointment queries have an address for their key
            return Passed(UNRELATED)
        # A ticket has one owner: an event in a partition of another owner is not folded here.
        key = reference.encode()
        if source.key != key:
            # A refused command's event has the key of the command's record, which may be wrong.
            return Passed(UNRELATED) if decoded.name == "CommandRejected" else Passed(MISPLACED, "other-key")
        if partition_of(key, self._partitions) != source.partition:
            return Passed(MISPLACED, "other-partition")
        if not _tellable(record, source):
            return Passed(UNREADABLE, "bad-time")
        identifier = next((value for name, value in source.headers if name == "ce_id"), None)
        if not identifier:
            return Passed(UNREADABLE, "no-id")
        arrived = datetime.fromtimestamp(source.timestamp, UTC)
        return Heard(reference, Event(decoded.name, identifier.decode("utf-8", "replace"), record, arrived))


def _tellable(record: Mapping[str, Any], source: Source) -> bool:
    """Whether the times that we set ourselves, the record's and the event's, leave room for calculations."""
    told = [record[name] for name in ("receivedAt", "occurredAt", "decidedAt") if name in record]
    return 0 <= source.timestamp < _LATEST.timestamp() and all(at < _LATEST for at in told)
