"""The worker's view of the tickets: it looks up reference and commands of any ticket, and watches a few for changes.

A partition of the tickets topic is followed only while there are questions about it. An index on disk has the offset of
each ticket's newest record, the supplier's reference and the marks of its commands: so a million tickets take no
memory, and following a partition again only reads what has changed meanwhile.
"""

import asyncio
import struct
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

from adapter.core.avro.lookup import Decoders
from adapter.core.errors import Foreign, Unavailable, Undecodable
from adapter.core.overdue import Recurring
from adapter.core.partition import partition_of
from adapter.core.ticket import Ticket, among, mark, ticket
from adapter.pause import until_answered
from adapter.ports import Checkpoint, FollowedTicket, TicketFeed, TicketRecord, TicketStore, TicketStores
from adapter.telemetry import Log

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Known:
    """What the index has of a ticket, and its form on disk."""

    FORM: ClassVar = "2"
    """An index in another form is built anew."""
    _HEAD: ClassVar = struct.Struct(">QH")

    offset: int
    """Of its newest record."""
    commands: bytes
    """Marks."""
    reference: bytes

    def packed(self) -> bytes:
        return self._HEAD.pack(self.offset, len(self.commands)) + self.commands + self.reference

    @classmethod
    def unpacked(cls, value: bytes) -> "_Known":
        offset, length = cls._HEAD.unpack_from(value)
        end = cls._HEAD.size + length
        return cls(offset, value[cls._HEAD.size : end], value[end:])


class Watch:
    """Waits for changes of one ticket. `unread`: why tickets can't be read, shared by all watches."""

    __slots__ = ("_decoders", "_log", "_told", "_unread", "_value")

    def __init__(self, decoders: Decoders, unread: Recurring, log: Log) -> None:
        self._decoders = decoders
        self._unread = unread
        self._log = log
        self._told = asyncio.Event()
        self._value: bytes | None = None

    async def changed(self) -> Ticket:
        """The ticket as it is now, as soon as there is one. Called again, it waits until the ticket has changed."""
        while True:
            await self._told.wait()
            found = await until_answered(self._read, self._unreadable)
            if found is not None:
                return found

    async def _read(self) -> Ticket | None:
        """The newest record. None for bytes that no release of ours has written. Raises Unavailable for all else that
        can't be decoded: it may be what settles a doubt.
        """
        value, found = self._value, None
        try:
            found = ticket((await self._decoders.decode(value)).record)
        except Foreign as why:
            self._log.error("ticket not readable", reason=why.reason)
        except Undecodable as why:
            raise Unavailable(str(why)) from None
        if value is self._value:
            self._told.clear()
        return found

    def _unreadable(self, reason: str, attempt: int) -> None:
        if self._unread.due(reason, time.monotonic()):
            self._log.warning("registry not available", reason=reason, attempt=attempt)

    def tell(self, record: FollowedTicket) -> None:
        """A record of the ticket was read. Records come in order, so it is the newest, whatever its offset: a topic
        that was created again begins at 0. A tombstone is ignored: what was known of the ticket stays true.
        """
        if record.value is not None:
            self._value = record.value
            self._told.set()

    def remind(self, record: FollowedTicket) -> None:
        """A record of the ticket was fetched; ignored if one was read meanwhile."""
        if self._value is None:
            self.tell(record)


class Tickets:
    """`failed` is called with an error that makes it impossible to go on."""

    def __init__(
        self,
        *,
        feed: TicketFeed,
        stores: TicketStores,
        decoders: Decoders,
        partitions: int,
        linger: float,
        failed: Callable[[Exception], None],
        log: Log,
    ) -> None:
        """`linger` is for how many seconds a partition is followed after the last question about it."""
        self._feed = feed
        self._partitions = partitions
        self._new_watch = partial(Watch, decoders, Recurring(), log)
        self._new_shelf = partial(_Shelf, feed=feed, stores=stores, linger=linger, failed=failed, log=log)
        self._shelves: dict[int, _Shelf] = {}

    async def reference(self, key: bytes) -> str | None:
        """The supplier's reference of that ticket, once the topic was read to its end; None if it has none."""
        known = await self._known(key)
        return known.reference.decode("utf-8", "replace") if known is not None and known.reference else None

    async def commanded(self, key: bytes, command_id: str) -> bool:
        """Whether that ticket lists that command, once the topic was read to its end."""
        known = await self._known(key)
        return known is not None and among(known.commands, mark(command_id))

    async def ticket(self, key: bytes) -> Ticket | None:
        """That ticket as it is, once the topic was read to its end; None if there is none."""
        with self._shelf(key) as shelf, self.watch(key) as watch:
            return None if await shelf.known(key) is None else await watch.changed()

    @contextmanager
    def watch(self, key: bytes) -> Iterator[Watch]:
        """Watch that ticket while the block lasts."""
        watch = self._new_watch()
        with self._shelf(key) as shelf, shelf.watched(key, watch):
            yield watch

    def followed(self) -> dict[str, float]:
        """How many partitions are followed: current (read to their end) and behind (not yet)."""
        following = [shelf for shelf in self._shelves.values() if shelf.following]
        current = sum(shelf.current for shelf in following)
        return {"current": float(current), "behind": float(len(following) - current)}

    async def close(self) -> None:
        for shelf in self._shelves.values():
            await shelf.leave()  # first, since the feed waits until its records are taken
        await self._feed.close()
        for shelf in self._shelves.values():
            await shelf.close()

    async def _known(self, key: bytes) -> _Known | None:
        with self._shelf(key) as shelf:
            return await shelf.known(key)

    def _shelf(self, key: bytes) -> "_Shelf":
        """The shelf of that ticket: its partition follows from its key, wherever its commands are."""
        partition = partition_of(key, self._partitions)
        shelf = self._shelves.get(partition)
        if shelf is None:
            shelf = self._shelves[partition] = self._new_shelf(partition)
        return shelf


class _Shelf:
    """One partition of the tickets topic, followed while it is in use (`with`) and for `linger` seconds after."""

    def __init__(
        self,
        partition: int,
        *,
        feed: TicketFeed,
        stores: TicketStores,
        linger: float,
        failed: Callable[[Exception], None],
        log: Log,
    ) -> None:
        self._partition = partition
        self._linger = linger
        self._feed = feed
        self._stores = stores
        self._failed = failed
        self._log = log
        self.following = False
        self._current = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._used_at = 0.0
        self._leaving: asyncio.Handle | None = None
        self._store: TicketStore | None = None
        self._opening = asyncio.Lock()
        self._blank = True
        """The index is empty, as far as is known, so it need not be asked."""
        self._questions: dict[bytes, asyncio.Future[_Known | None]] = {}
        self._watches: dict[bytes, list[Watch]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = False

    @property
    def current(self) -> bool:
        """Whether the partition was read to its end since it is followed."""
        return self._current.is_set()

    def __enter__(self) -> Self:
        self._users += 1
        if not self.following:
            self.following = True
            self._start(self._follow())
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        self._used_at = self._loop.time()
        if self._leaving is None:
            self._leaving = self._loop.call_later(self._linger, self._leave)

    async def known(self, key: bytes) -> _Known | None:
        """What the index has of that ticket, once the topic was read to its end."""
        await self._current.wait()
        return await self._find(key)

    @contextmanager
    def watched(self, key: bytes, watch: Watch) -> Iterator[None]:
        self._watches.setdefault(key, []).append(watch)
        if self._store is not None:
            self._start(self._look_up([key]))
        try:
            yield
        finally:
            self._watches[key].remove(watch)
            if not self._watches[key]:
                del self._watches[key]

    async def leave(self) -> None:
        """Nothing more is taken or answered."""
        self._left = True
        if self._leaving is not None:
            self._leaving.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    # -- following -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async with self._opening:
            if self._store is None:
                identity = await self._asked(self._feed.identity)
                self._store = await self._asked(
                    partial(self._stores.open, self._partition, f"{identity}/{_Known.FORM}")
                )
                self._blank = self._store.checkpoint is None
        if self.following:
            at = self._store.checkpoint
            self._feed.follow(self._partition, 0 if at is None else at.tickets, self._take)
        await self._look_up(list(self._watches))

    def _leave(self) -> None:
        """Stop following if nobody uses it. One timer does, however many commands ask in a second."""
        self._leaving = None
        if self._users:
            return
        leave_at = self._used_at + self._linger
        if self._loop.time() < leave_at:
            self._leaving = self._loop.call_at(leave_at, self._leave)
            return
        self.following = False
        self._current.clear()
        self._feed.leave(self._partition)

    async def _take(self, records: Sequence[FollowedTicket], end: int, ended: bool) -> None:  # noqa: FBT001 -- the port's
        """Index the records, then tell the watches."""
        if self._left:
            return
        if records:
            self._blank = False
            saving = self._start(self._save(records, end))
            await asyncio.wait((saving,))
            if saving.cancelled() or saving.exception() is not None:
                return
        self._tell(records)
        if ended and self.following:
            self._current.set()

    async def _save(self, records: Sequence[FollowedTicket], end: int) -> None:
        kept = [
            TicketRecord(r.key, None if r.value is None else _Known(r.offset, r.commands, r.reference or b"").packed())
            for r in records
        ]

        async def save() -> None:
            assert self._store is not None, "it is followed from where its store ends"
            try:
                await self._store.save(kept, Checkpoint(transaction="", tickets=end))
            except Unavailable:  # questions wait for the index, watches need not
                self._current.clear()
                self._tell(records)
                raise

        await self._asked(save)

    def _tell(self, records: Sequence[FollowedTicket]) -> None:
        for record in records:
            for watch in self._watches.get(record.key, ()):
                watch.tell(record)

    # -- questions -----------------------------------------------------------------------------------------------------

    async def _look_up(self, keys: Sequence[bytes]) -> None:
        """Fetch what the index has of these keys for their watches; everything newer is read while we follow."""
        for key in keys:
            if key not in self._watches or (found := await self._find(key)) is None:
                continue
            record = await self._asked(partial(self._feed.fetch, self._partition, found.offset))
            if record is not None and record.key == key:
                for watch in self._watches.get(key, ()):
                    watch.remind(record)

    async def _find(self, key: bytes) -> _Known | None:
        """Questions of one turn of the loop share one look at the disk."""
        if self._blank:
            return None
        question = self._questions.get(key)
        if question is None:
            if not self._questions:
                self._start(self._answer())
            question = self._questions[key] = self._loop.create_future()
        return await asyncio.shield(question)

    async def _answer(self) -> None:
        assert self._store is not None, "it was opened"
        await asyncio.sleep(0)
        questions, self._questions = self._questions, {}
        found = await self._asked(partial(self._store.find, questions))
        for key, question in questions.items():
            value = found.get(key)
            question.set_result(None if value is None else _Known.unpacked(value))

    async def _asked(self, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        return await until_answered(ask, partial(self._log.warning, "tickets not readable", partition=self._partition))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._failed(error)
