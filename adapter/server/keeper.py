"""Stores notifications durably: in Kafka, acknowledged by all in-sync replicas, or in the spool.

Notifications of one ticket are stored one after the other, so that none overtakes another that has to go to the spool;
tickets are independent. Once a write has failed, its topic counts as down. With a spool, everything for that topic then
goes there, until the spool is published; without one, a single notification at a time tries to be written, and the
others are refused at once. Whether Kafka is down is judged by the topic of the events alone: the quarantine's may
refuse us while that one takes all.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Final

from adapter.core.errors import Unavailable
from adapter.core.retry import ASK_AGAIN
from adapter.pause import pause
from adapter.ports import Arrival, Outgoing, Publisher, Spool, TooLarge
from adapter.telemetry import Log

_BATCH: Final = 500
"""Tickets whose oldest spooled notification is published in one round."""
_UNORDERED: Final = b""
"""Key in the spool of bodies for the quarantine, which have none; no reference is empty."""
_ALL: Final = "all topics"
"""Stands for a topic while no record can be made yet."""
_FORGOTTEN: Final = 600.0
"""Seconds after the last failed write. With a spool, or a supplier that repeats, another write is tried long before."""


class Stored(StrEnum):
    PUBLISHED = "published"
    SPOOLED = "spooled"


class Keeper:
    """`record` makes the record of a spooled notification again, `drained` is called for each that was published."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        spool: Spool | None,
        limit: float,
        record: Callable[[Arrival], Awaitable[Outgoing]],
        drained: Callable[[], None],
        log: Log,
    ) -> None:
        self._publisher = publisher
        self._spool = spool
        self._limit = limit
        self._record = record
        self._drained = drained
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._turns: dict[bytes, asyncio.Future[None]] = {}
        self._trying: Counter[str] = Counter()
        """Writes under way, by topic."""
        self._draining = False
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        """Whether the spool was found empty since something was put there."""
        self._down: dict[str, bool] = {}
        """Topics whose last write failed, and whether that was for a ticket."""
        self._spool_reported = False
        """Whether it was logged, since Kafka stopped acknowledging, that the spool takes nothing."""
        self._failed_at = 0.0
        """When a write for a ticket failed last, by the loop's clock."""

    def down(self, now: float) -> bool:
        """Whether Kafka is known to take no notifications of tickets. Only a write can tell: a cluster without enough
        replicas, or on which we have no right to write, answers everything else. A failed write counts for ten minutes,
        since the next notification, and with it the next write, may come tomorrow.
        """
        return any(self._down.values()) and now - self._failed_at < _FORGOTTEN

    async def keep(
        self, key: bytes | None, record: Outgoing | None, arrival: Arrival, *, late: Callable[[], None] = lambda: None
    ) -> Stored:
        """Stored durably when this returns. Raises Unavailable if that was not possible in time.

        Without a `key` there is no order to keep. Without a `record`, because none can be made yet, only the spool can
        take it. `late` is called if the record turns out later to have been written after all.
        """
        deadline = self._loop.time() + self._limit
        if key is None:
            return await self._keep(_UNORDERED, record, arrival, deadline, late)
        turn: asyncio.Future[None] = self._loop.create_future()
        before = self._turns.get(key)
        self._turns[key] = turn
        try:
            if before is not None:  # its deadline is earlier than ours, so ours is kept
                await asyncio.wait((before,))
            return await self._keep(key, record, arrival, deadline, late)
        finally:
            turn.set_result(None)
            if self._turns.get(key) is turn:
                del self._turns[key]

    async def drain(self) -> None:
        """Publish what the spool holds, whenever it holds something, until cancelled."""
        assert self._spool is not None
        self._draining = True
        failures = 0
        while True:
            while not self._spool.depth:
                self._wake.clear()
                self._empty.set()
                await self._wake.wait()
            try:
                whole = await self._round(self._spool)
            except Unavailable as error:
                self._log.error("spool not usable", reason=str(error))
                whole = False
            failures = 0 if whole else failures + 1
            if failures:
                await pause(ASK_AGAIN, failures)

    async def finish(self, limit: float) -> int:
        """Wait until `drain`, if it runs, has emptied the spool, for at most `limit` seconds; how many are left."""
        if self._spool is None:
            return 0
        if self._draining:
            if depth := self._spool.depth:
                self._log.info("publishing what the spool holds", depth=depth, limit_seconds=round(limit, 1))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await self._empty.wait()
        return self._spool.depth

    async def _keep(
        self, key: bytes, record: Outgoing | None, arrival: Arrival, deadline: float, late: Callable[[], None]
    ) -> Stored:
        if self._spool is None:
            if self._is_down(record) and self._tries(record):
                raise Unavailable("Kafka does not answer, and one is trying already")
            if why := await self._publish(record, deadline, late):
                raise Unavailable(why)
            return Stored.PUBLISHED
        behind = bool(key) and self._spool.holds(key)
        direct = not behind and not (self._is_down(record) and (self._tries(record) or self._spool.depth))
        if direct and not await self._publish(record, deadline, late):
            return Stored.PUBLISHED
        try:
            await self._spool.put(key, arrival)
        except Unavailable as error:
            if not self._spool_reported:
                self._spool_reported = True
                self._log.error("spool not usable", reason=str(error))
            # With a failed disk the spool may not be readable either: then only this shows that Kafka is back.
            if direct or behind or self._tries(record) or await self._publish(record, deadline, late):
                raise
            return Stored.PUBLISHED
        self._empty.clear()
        self._wake.set()
        return Stored.SPOOLED

    async def _publish(self, record: Outgoing | None, deadline: float, late: Callable[[], None]) -> str:
        """Why the record is not known to be written; empty if it is."""
        if record is None:
            self._fell(_ALL, "it has not been found yet", of_tickets=True)
            return "Kafka or the schema registry has not been found yet"
        left = deadline - self._loop.time()
        if left <= 0:
            return "no time is left"
        self._trying[record.topic] += 1
        try:
            await self._publisher.publish(record, limit=left, late=late)
        except TooLarge as error:
            # Not Kafka's fault, and not for the spool, from which it could never be published.
            reference = None if record.key is None else record.key.decode()
            self._log.error(
                "notification too large for its topic", topic=record.topic, reference=reference, reason=str(error)
            )
            raise Unavailable(str(error)) from None
        except Unavailable as error:
            self._fell(record.topic, str(error), of_tickets=record.key is not None)
            return str(error)
        finally:
            self._trying[record.topic] -= 1
        self._rose([record.topic])
        return ""

    async def _round(self, spool: Spool) -> bool:
        """Publish the oldest of each ticket; whether the next round may follow at once."""
        heads = await spool.heads(_BATCH)
        if not heads:
            return True
        records = [await self._record(head.arrival) for head in heads]
        writes = [self._publisher.publish(record, limit=self._limit, late=lambda: None) for record in records]
        await asyncio.wait(writes)
        errors = [write.exception() for write in writes]
        done = {head.number: record for head, record, error in zip(heads, records, errors, strict=True) if not error}
        failed = [(record, error) for record, error in zip(records, errors, strict=True) if error]
        if done:
            self._rose({record.topic for record in done.values()})
            for _ in done:
                self._drained()
            await spool.drop(list(done))
        for record, error in failed:
            if isinstance(error, TooLarge):
                self._log.error("spooled notification too large for its topic", topic=record.topic, reason=str(error))
            else:
                self._fell(record.topic, str(error), of_tickets=record.key is not None)
        # Bodies for the quarantine may be refused for long; tickets do not wait for them.
        return bool(done) and all(record.key is None for record, _ in failed)

    def _is_down(self, record: Outgoing | None) -> bool:
        return _ALL in self._down or (record is not None and record.topic in self._down)

    def _tries(self, record: Outgoing | None) -> bool:
        """Whether another one for its topic is trying already."""
        return record is not None and self._trying[record.topic] > 0

    def _fell(self, topic: str, why: str, *, of_tickets: bool) -> None:
        if of_tickets:
            self._failed_at = self._loop.time()
        if topic not in self._down:
            self._down[topic] = of_tickets
            self._log.warning("Kafka does not acknowledge", topic=topic, reason=why, spool=self._spool is not None)

    def _rose(self, topics: Iterable[str]) -> None:
        for topic in {_ALL, *topics} & self._down.keys():
            del self._down[topic]
            self._spool_reported = False
            self._log.info("Kafka acknowledges again", topic=topic)
