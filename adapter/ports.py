"""What the flows ask of the outside world; the transports answer."""

from asyncio import Future
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from adapter.core.immutable import immutable
from adapter.core.journal import Source
from adapter.core.notification import Delivery


@immutable
class Reply:
    """What came back over HTTP, whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSent(Exception):  # noqa: N818 -- named for what it says
    """No byte of the request has left: the call may be tried again, whatever the operation.

    `reason` is a slug (a metric label): resolve, connect, connect-timeout, tls, proxy.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unclear(Exception):  # noqa: N818 -- named for what it says
    """Bytes may have left and no whole answer came: nobody knows whether the supplier has taken it.

    `reason` is a slug (a metric label): write-timeout, read-timeout, total-timeout, reset, too-large, protocol.
    `head` is the reply's that broke off, without any of its body: some statuses need none.
    """

    def __init__(self, reason: str, detail: str, *, head: Reply | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.head = head


class Calls(Protocol):
    """Calls to the supplier."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST `body` to the base URL plus `path`. Raises NotSent or Unclear."""
        ...

    async def close(self) -> None: ...


class Registry(Protocol):
    """Look-ups in a schema registry with the Confluent HTTP API."""

    async def schema(self, identifier: int) -> str | None:
        """The schema of that id as JSON text, None if the registry says there is none. Raises Unavailable."""
        ...

    async def identifier(self, subject: str, schema: str) -> int | None:
        """The id under which `subject` has this schema, None if it has not. Raises Unavailable."""
        ...


@immutable
class Outgoing:
    """A record to write. Without a partition the key decides (murmur2, as Java clients do)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None


@immutable
class Position:
    """An offset to commit: the next one to consume, with a text (up to 4,095 characters) that comes back with it."""

    partition: int
    offset: int
    metadata: str
    leader_epoch: int | None = None
    """Of the record before it, where that is known."""


Claim = Callable[[], object | None]
"""Asks for the group's metadata, the only thing a transaction's offsets may be sent with; None: they may not be."""


class Intake(Protocol):
    """The records of the commands topic, partition by partition."""

    @property
    def joined(self) -> bool:
        """Whether the group has taken us in, with or without a partition."""
        ...

    def open(self) -> None:
        """Join the group."""
        ...

    async def close(self) -> None:
        """Leave the group: what is owned is revoked first. A second close does nothing."""
        ...

    def membership(self, epochs: Collection[tuple[int, int]]) -> object | None:
        """The group's metadata, opaque, if all of these (partition, epoch) are ours at this moment; an epoch is one
        assignment of a partition. None if they are not, or if the group has us as no member.

        Blocks, for the intake's own thread answers: only there metadata and assignment belong together.
        """
        ...

    def start(self, partition: int, epoch: int, offset: int, leader_epoch: int | None) -> None:
        """Deliver the partition from `offset` on. Until then it stays silent. If the record before it is not of
        `leader_epoch` (None: not known), the partition has lost its end, and the intake fails.
        """
        ...

    def pause(self, partition: int, epoch: int) -> None: ...

    def resume(self, partition: int, epoch: int) -> None: ...

    def held(self, records: int) -> None:
        """So many records are under way here. While there are some, callbacks, questions and new records are served
        within milliseconds; where they are many, what is new can wait a little.
        """
        ...


class IntakeListener(Protocol):
    """What the intake tells, always on the event loop."""

    def assigned(self, epochs: Mapping[int, int]) -> None:
        """These partitions are ours now, each under a new epoch; a partition kept through a rebalance is not named."""
        ...

    async def revoked(self, partitions: Sequence[int]) -> None:
        """These are about to be given back: finish or abandon their work. They stay ours until this returns."""
        ...

    def lost(self, partitions: Sequence[int]) -> None:
        """These are no longer ours, and somebody else may have them already."""
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
        """True: all of it is committed. False: none of it is; see whose it still is and try again.

        `claim` is asked on another thread before anything is sent. The answer is exact, also when the producer was
        fenced by a time-out in between.
        """
        ...


@dataclass(frozen=True, slots=True)
class JournalTail:
    """What a new owner of a partition reads before it starts."""

    position: int
    """Its committed offset; the topic's first one if there is none."""
    records: Sequence[tuple[int, bytes]]
    """(journal offset, value) of the committed records from the mark on."""
    end: int
    """The journal's end: the next record will lie here or later."""
    commands_end: int
    """The end of the partition itself: no command was ever seen here or later."""
    leader_epoch: int | None = None
    """That of the record before `position`, where it was committed with it."""

    @property
    def new(self) -> bool:
        """Whether there has never been anything in the partition or in its journal: nothing that could be forgotten."""
        return self.end == self.commands_end == 0


class JournalReader(Protocol):
    async def tail(self, partition: int) -> JournalTail:
        """The journal of `partition` up to its present end, every transaction before it decided.

        Waits as long as that takes; raises Unavailable when the journal cannot be read, Stop where the committed offset
        is of a commands topic that was made anew.
        """
        ...


class TooLarge(Exception):  # noqa: N818 -- named for what it says
    """A record beyond what its topic takes. It was not written and never can be."""


class Publisher(Protocol):
    """Writes records one by one, acknowledged by all in-sync replicas, in the order of the calls per key."""

    def publish(self, record: Outgoing, *, limit: float, late: Callable[[], None]) -> "Future[None]":
        """Done when the record is safe. Fails with TooLarge; or with Unavailable, as when it is not acknowledged within
        `limit` seconds: then it may be there all the same, and `late` is called should that turn out.
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
    """What the caller is told. With `close` the connection ends after it."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


class Receiver(Protocol):
    """What the listener asks of the flow behind it."""

    def admit(self, peer: Peer, head: Head) -> Caller | Answer:
        """Whether the body may be read; if not, the answer."""
        ...

    def stranger(self, address: str, reason: str) -> None:
        """TLS has refused a caller; `reason` is OpenSSL's word for it."""
        ...

    def too_large(self, caller: Caller) -> Answer:
        """The body went beyond the limit while it was read."""
        ...

    def too_slow(self, caller: Caller) -> Answer:
        """The body did not come in time."""
        ...

    def too_busy(self, caller: Caller) -> Answer:
        """There is no room for the body among those under way."""
        ...

    def garbled(self, caller: Caller, why: str) -> Answer:
        """What came is not HTTP; perhaps before it was known whose certificate that is. `why` quotes nothing of it."""
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
        """Safe on disk when this returns. Raises Unavailable, with nothing kept, when there is no room."""
        ...

    async def heads(self, limit: int) -> Sequence[Spooled]:
        """The oldest of each key, for up to `limit` keys, fewer if they are long; those that can't be read are passed
        over, and count no more. Raises Unavailable.
        """
        ...

    async def drop(self, numbers: Sequence[int]) -> None:
        """These are published: `heads` gives them no more. Raises Unavailable if they can't be deleted yet: should the
        process be killed, they come again.
        """
        ...


DUE: Final = "due"
"""Header of a ticket's record: when time alone changes it, in milliseconds since the epoch. Without it nothing does."""
REFERENCE: Final = "reference"
"""Header of a ticket's record: the supplier's reference, in UTF-8. Without it none is known."""
COMMANDS: Final = "commands"
"""Header of a ticket's record: the marks of its commands (`core.ticket.mark`), one after the other."""


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """A ticket as it lies in its topic; no value: it is forgotten."""

    key: bytes
    value: bytes | None
    due: int | None = None
    reference: bytes | None = None
    commands: bytes = b""
    """As in the headers; reference and commands are only written."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the tickets of a partition have come, once every transaction of an earlier owner is decided."""

    position: int
    """Committed offset of the events; the topic's first one if there is none."""
    transaction: str
    """Name of the transaction that committed it: the text of its Position. Empty if it was none of ours."""
    first: int
    last: int
    """The tickets' partition begins at the one and ends before the other."""
    leader_epoch: int | None = None
    """That of the record before `position`, where it was committed with it."""


class TicketLog(Protocol):
    """The tickets topic, as a new owner of a partition reads it."""

    async def identity(self) -> str:
        """Identity of both topics and the group, as they were at the start: tickets kept under another one mean
        nothing. The name of each transaction begins with it and a slash. Raises Unavailable.
        """
        ...

    async def standing(self, partition: int, going: Callable[[], bool]) -> Standing:
        """Raises Unavailable, also once `going` (asked on another thread now and then) says no; Stop where what is
        committed is of topics that were made anew.
        """
        ...

    async def read(
        self,
        partition: int,
        start: int,
        end: int,
        take: Callable[[Sequence[TicketRecord]], None],
        going: Callable[[], bool],
    ) -> None:
        """Hand everything committed from `start` on and before `end` to `take`, in order, on another thread.

        Raises Unavailable, also once `going` (asked there now and then) says no, and what `take` raises.
        """
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is in a store: all that was committed up to that transaction, which is all in the tickets topic before
    `tickets`, maybe more.
    """

    transaction: str
    tickets: int


class TicketStore(Protocol):
    """The tickets of one partition on the local disk. Calls that overlap are carried out one after the other.

    All raise Unavailable while the disk is full or fails: nothing was done, it is as it was. Stop if it is damaged.
    """

    @property
    def checkpoint(self) -> Checkpoint | None:
        """None: what is in it is not complete."""
        ...

    def load(self, tickets: Sequence[TicketRecord]) -> None:
        """Take in what was read from the topic; on the calling thread."""
        ...

    async def clear(self) -> None: ...

    async def count(self) -> int: ...

    async def find(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]: ...

    async def due(self, until: int, limit: int) -> Sequence[TicketRecord]:
        """Those that are due then, the first ones first."""
        ...

    async def save(self, tickets: Sequence[TicketRecord], checkpoint: Checkpoint) -> None:
        """What was committed to the topic."""
        ...

    async def close(self) -> None: ...


class TicketStores(Protocol):
    async def open(self, partition: int, identity: str) -> TicketStore:
        """The store of that partition, empty if it is of another identity or damaged. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Passing:
    """A ticket's record as it goes by; no value: the ticket is forgotten."""

    key: bytes
    offset: int
    value: bytes | None
    reference: bytes | None
    commands: bytes = b""
    """As in the headers."""


Take = Callable[[Sequence[Passing], int, bool], Coroutine[Any, Any, None]]
"""Told committed records in order, the offset behind them, and whether there was nothing more at that moment."""


class TicketFeed(Protocol):
    """The tickets topic as it grows, for whoever does not own it."""

    async def identity(self) -> str:
        """Identity of the topic: what was kept of another one means nothing. Raises Unavailable."""
        ...

    def follow(self, partition: int, start: int, take: Take) -> None:
        """Hand over what lies at `start` and after it, for ever, batch after batch: none before the last was taken."""
        ...

    def leave(self, partition: int) -> None:
        """Follow it no longer."""
        ...

    async def fetch(self, partition: int, offset: int) -> Passing | None:
        """The record there; None if compaction has removed it, since a newer one of its key exists.

        Raises Unavailable.
        """
        ...

    async def close(self) -> None: ...
