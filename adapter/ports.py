"""The interfaces between the flows and the outside world; `adapter/transport` implements them."""

from asyncio import Future
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from adapter.core.errors import Reasoned
from adapter.core.immutable import immutable
from adapter.core.journal import Source
from adapter.core.notification import Delivery


@immutable
class Reply:
    """What came back over HTTP, whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    release: Callable[[], None] | None = field(default=None, compare=False)
    """Of a long reply: called once nothing derived from it is kept any more. Until then it counts against the limit
    that all long replies share. Idempotent.
    """


class NotSent(Reasoned):
    """No byte of the request has left: the call may be tried again, whatever the operation.

    `reason` is resolve, connect, connect-timeout, tls or proxy.
    """


class Unclear(Reasoned):
    """Bytes may have left and no whole answer came: nobody knows whether the supplier has taken it.

    `reason` is write-timeout, read-timeout, total-timeout, reset, too-large or protocol.
    `head` is status and headers of a reply whose body broke off: some statuses decide without a body.
    """

    def __init__(self, reason: str, detail: str, *, head: Reply | None = None) -> None:
        super().__init__(reason, detail)
        self.head = head


class Calls(Protocol):
    """Calls to the supplier."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST `body` to the base URL plus `path`. Raises NotSent or Unclear."""
        ...


@immutable
class Outgoing:
    """A record to write. Without a partition the key decides (murmur2, as Java clients do)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None


def size(record: Outgoing | Source) -> int:
    """Bytes that a record takes up in a topic, at most."""
    size = 100 + len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + 10
    return size


@immutable
class Position:
    """An offset to commit (of the next record to consume), with metadata of up to 4,095 characters beside it."""

    partition: int
    offset: int
    metadata: str
    leader_epoch: int | None = None
    """Leader epoch of the record before it, if known."""


Claim = Callable[[], object | None]
"""Returns the consumer group's metadata, by which the broker fences a transaction's offsets, or None if they must not
be sent.
"""


class Intake(Protocol):
    """The records of a topic, partition by partition, as a member of a group."""

    @property
    def left_out(self) -> str:
        """Why the group has not taken us in yet; empty once it has, with or without a partition."""
        ...

    def open(self) -> None:
        """Join the group."""
        ...

    async def close(self) -> None:
        """Leave the group: the partitions that are owned are revoked first. A second close does nothing."""
        ...

    def membership(self, epochs: Collection[tuple[int, int]]) -> object | None:
        """The group's metadata, opaque, if all of these (partition, epoch) are ours at this moment; an epoch is one
        assignment of a partition. None if one of them is not, or if we are no member of the group.

        Blocks until the intake's own thread answers, since only there do metadata and assignment fit each other.
        """
        ...

    def start(self, partition: int, epoch: int, offset: int, leader_epoch: int | None) -> None:
        """Deliver the partition from `offset` on; nothing of it is delivered before. If the record before `offset` is
        not of `leader_epoch` (None: not known), the partition has lost its end, and the intake fails.
        """
        ...

    def pause(self, partition: int, epoch: int) -> None: ...

    def resume(self, partition: int, epoch: int) -> None: ...

    def held(self, records: int) -> None:
        """Tell the intake how many records are being worked on. It polls every few milliseconds while there are some,
        less often while there are none or very many.
        """
        ...


class IntakeListener(Protocol):
    """The callbacks of an intake, all called on the event loop."""

    def assigned(self, epochs: Mapping[int, int]) -> None:
        """These partitions are ours now, each under a new epoch; a partition kept through a rebalance is not named."""
        ...

    async def revoked(self, partitions: Sequence[int]) -> None:
        """These are about to be revoked: finish or abandon their work. They stay ours until this returns."""
        ...

    def lost(self, partitions: Sequence[int]) -> None:
        """These are no longer ours; another member may own them already."""
        ...

    def delivered(self, records: Sequence[tuple[int, Source]]) -> None:
        """Records with the epoch under which they came, in order per partition."""
        ...

    def failed(self, error: Exception) -> None:
        """The intake cannot go on."""
        ...


class Transactor(Protocol):
    """Writes records and commits offsets in one transaction."""

    async def commit(self, records: Sequence[Outgoing], positions: Sequence[Position], claim: Claim) -> bool:
        """Whether all of it was committed; if not, nothing was: check which partitions are still owned and try again.

        `claim` is called on another thread before anything is sent. The answer is exact even if the producer was fenced
        by a time-out meanwhile.
        """
        ...


@dataclass(frozen=True, slots=True)
class JournalTail:
    """The part of the journal that a new owner of a partition reads before it starts."""

    position: int
    """Committed offset of the commands; the topic's first one if there is none."""
    records: Sequence[tuple[int, bytes]]
    """(journal offset, value) of the committed records from the mark on."""
    end: int
    """End offset of the journal's partition: the next record will have this offset or a later one."""
    commands_end: int
    """End offset of the commands' partition."""
    leader_epoch: int | None = None
    """Leader epoch of the record before `position`, if it was committed with it."""

    @property
    def new(self) -> bool:
        """Whether neither the partition nor its journal ever had a record, so that nothing can have been forgotten."""
        return self.end == self.commands_end == 0


class JournalReader(Protocol):
    async def tail(self, partition: int) -> JournalTail:
        """The journal of `partition` up to its present end, once every transaction before it is committed or aborted.

        Waits as long as that takes. Raises Unavailable when the journal cannot be read, Stop if the topic of the
        committed offset was deleted and created again.
        """
        ...


class TooLarge(Exception):  # noqa: N818 -- named for what it says
    """A record larger than its topic accepts. It was not written and never can be."""


class Publisher(Protocol):
    """Writes records one by one, acknowledged by all in-sync replicas, in the order of the calls per key."""

    def publish(self, record: Outgoing, *, limit: float, late: Callable[[], None]) -> "Future[None]":
        """Done when the record is acknowledged. Fails with TooLarge, or with Unavailable, for example if there is no
        acknowledgement within `limit` seconds: the record may have been written all the same, and `late` is called if
        that turns out later.
        """
        ...


@immutable
class Peer:
    """Who is at the other end of a connection, as the connection itself says."""

    address: str
    certificate: bytes | None
    """Verified client certificate (DER); None without TLS."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request before its body. Header names are lower case, lines of one name joined with a comma."""

    method: str
    path: str
    headers: Mapping[str, str]


@immutable
class Caller:
    """Who calls, once admitted."""

    address: str
    subject: str | None
    """Distinguished name of the client certificate (RFC 4514)."""


@immutable
class Arrival:
    """A notification as it came, whole, and from whom."""

    delivery: Delivery
    caller: Caller
    traceparent: str | None = None


@immutable
class Answer:
    """The HTTP response. With `close` the connection ends after it."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


class Receiver(Protocol):
    """The flow behind a listener: it decides who is admitted and what is answered."""

    def admit(self, peer: Peer, head: Head) -> Caller | Answer:
        """The caller if the body may be read, otherwise the answer."""
        ...

    def handshake_failed(self, address: str, reason: str) -> None:
        """`reason` is OpenSSL's."""
        ...

    def too_large(self, caller: Caller) -> Answer:
        """The body exceeded the limit while it was read."""
        ...

    def too_slow(self, caller: Caller) -> Answer:
        """The body did not come in time."""
        ...

    def too_busy(self, caller: Caller) -> Answer:
        """The bodies being read at once have reached their limit."""
        ...

    def garbled(self, caller: Caller, why: str) -> Answer:
        """The bytes are not valid HTTP; the caller may not be identified yet. `why` quotes none of them."""
        ...

    async def receive(self, arrival: Arrival) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Spooled:
    """A notification in the spool. Numbers grow in the order of arrival."""

    number: int
    key: bytes
    arrival: Arrival


class Spool(Protocol):
    """Notifications kept on disk while they cannot be published, in order of arrival per key."""

    @property
    def depth(self) -> int: ...

    def holds(self, key: bytes) -> bool:
        """Whether anything of `key` is there."""
        ...

    async def put(self, key: bytes, arrival: Arrival) -> None:
        """Durable on disk when this returns. Raises Unavailable, with nothing stored, when there is no room."""
        ...

    async def heads(self, limit: int) -> Sequence[Spooled]:
        """The oldest notification of each key, for up to `limit` keys, fewer if they are long. Those that can't be read
        are skipped, and no longer count in `depth`. Raises Unavailable.
        """
        ...

    async def drop(self, numbers: Sequence[int]) -> None:
        """These are published: `heads` no longer returns them. Raises Unavailable if they can't be deleted from the
        disk yet: if the process is killed before they are, they are published once more.
        """
        ...


DUE: Final = "due"
"""Header of a ticket's record: when its timer fires, in milliseconds since the epoch; absent if it has none."""
REFERENCE: Final = "reference"
"""Header of a ticket's record: the supplier's reference, in UTF-8; absent if none is known."""
COMMANDS: Final = "commands"
"""Header of a ticket's record: the marks of its commands (`core.ticket.mark`), concatenated."""


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """A record of the tickets topic as its owner writes and stores it. Without a value it is a tombstone."""

    key: bytes
    value: bytes | None
    due: int | None = None
    reference: bytes | None = None
    commands: bytes = b""
    """`due`, `reference` and `commands` are the headers above; the last two are only written, never read back."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a partition stands once every transaction of an earlier owner is committed or aborted."""

    position: int
    """Committed offset of the events; the topic's first one if there is none."""
    transaction: str
    """Name of the transaction that committed it (the metadata of its Position); empty if it was none of ours."""
    first: int
    last: int
    """First offset of the tickets' partition, and its end offset."""
    leader_epoch: int | None = None
    """Leader epoch of the record before `position`, if it was committed with it."""


class TicketLog(Protocol):
    """The tickets topic, as a new owner of a partition reads it. `going` is called on another thread now and then; once
    it returns False, reading ends with Unavailable.
    """

    async def identity(self) -> str:
        """Identity of both topics and the group, as they were at the start: a store of another identity is useless. The
        name of each transaction begins with it and a slash. Raises Unavailable.
        """
        ...

    async def standing(self, partition: int, going: Callable[[], bool]) -> Standing:
        """Raises Unavailable, and Stop if a topic was deleted and created again since that offset was committed."""
        ...

    async def read(
        self,
        partition: int,
        start: int,
        end: int,
        take: Callable[[Sequence[TicketRecord]], None],
        going: Callable[[], bool],
    ) -> None:
        """Pass everything committed from `start` on and before `end` to `take`, in order, on another thread.

        Raises Unavailable, and what `take` raises.
        """
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Up to where a store is complete: it has all that was committed up to `transaction`, at least everything that the
    tickets topic has before offset `tickets`.
    """

    transaction: str
    tickets: int


class TicketStore(Protocol):
    """The tickets of one partition on the local disk. Overlapping calls are carried out one after the other.

    All raise Unavailable while the disk is full or fails, with nothing changed, and Stop if the file is damaged.
    """

    @property
    def checkpoint(self) -> Checkpoint | None:
        """None: the store is not complete."""
        ...

    def load(self, tickets: Sequence[TicketRecord]) -> None:
        """Store what was read from the topic; runs on the calling thread."""
        ...

    async def clear(self) -> None: ...

    async def count(self) -> int: ...

    async def find(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]: ...

    async def due(self, until: int, limit: int) -> Sequence[TicketRecord]:
        """Tickets whose timer fires by then (milliseconds since the epoch), the earliest first."""
        ...

    async def save(self, tickets: Sequence[TicketRecord], checkpoint: Checkpoint) -> None:
        """Store what was committed to the topic."""
        ...

    async def close(self) -> None: ...


class TicketStores(Protocol):
    async def open(self, partition: int, identity: str) -> TicketStore:
        """The store of that partition, empty if the file is of another identity or damaged. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class FollowedTicket:
    """A record of the tickets topic as a follower reads it. Without a value it is a tombstone."""

    key: bytes
    offset: int
    value: bytes | None
    reference: bytes | None
    commands: bytes = b""
    """`reference` and `commands` are the headers above."""


Take = Callable[[Sequence[FollowedTicket], int, bool], Coroutine[Any, Any, None]]
"""Called with committed records in order, the offset after the last one, and whether the end of the topic was reached.
"""


class TicketFeed(Protocol):
    """Follows the tickets topic without owning its partitions."""

    async def identity(self) -> str:
        """Identity of the topic: a store of another identity is useless. Raises Unavailable."""
        ...

    def follow(self, partition: int, start: int, take: Take) -> None:
        """Pass records from offset `start` on to `take`, batch by batch, each once the one before was taken."""
        ...

    def leave(self, partition: int) -> None:
        """Stop following it."""
        ...

    async def fetch(self, partition: int, offset: int) -> FollowedTicket | None:
        """The record at that offset; None if compaction has removed it because a newer one of its key exists.

        Raises Unavailable.
        """
        ...

    async def close(self) -> None: ...
