"""A plain idempotent producer, for records that must be stored before a caller is answered.

`produce` only queues and `poll(0)` never blocks, so the event loop calls both itself: while records are under way it
polls every millisecond. A separate thread for delivery reports would take the interpreter from the loop at each record.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from adapter.core.errors import Stop, Unavailable
from adapter.ports import Outgoing, TooLarge
from adapter.transport.kafka.refusal import properties_told
from adapter.transport.kafka.throttle import throttles

_QUEUE_KIB: Final = 64 * 1024
"""KiB of records that may be queued for the cluster; further ones fail at once."""
_LOOK: Final = 0.001
"""Seconds between two polls for delivery reports while some are due."""
_IDLE: Final = 0.5
"""Seconds between two polls while none is due. librdkafka's log lines wait for a poll."""


class KafkaPublisher:
    """`ports.Publisher`. `report` is called on the loop with the reason why records failed, without their contents, and
    `throttled` with the seconds for which a quota holds us back.
    """

    def __init__(
        self,
        *,
        client: Mapping[str, str],
        timeout: timedelta,
        max_message_bytes: int,
        report: Callable[[str], None],
        throttled: Callable[[float], None] = lambda _: None,
    ) -> None:
        """A record that is not acknowledged within `timeout` fails. Raises Stop if librdkafka refuses a property."""
        self._conf: dict[str, Any] = {
            **client,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 3,  # with 1 the broker has half as much again to do, and librdkafka too
            "message.timeout.ms": timeout // timedelta(milliseconds=1),
            "message.max.bytes": max_message_bytes,
            "queue.buffering.max.kbytes": _QUEUE_KIB,
            "throttle_cb": throttles(throttled),
        }
        self._timeout = timeout.total_seconds()
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._line = self._open()

    def publish(self, record: Outgoing, *, limit: float, late: Callable[[], None]) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = self._loop.create_future()
        try:
            if self._line.ended is not None:
                self._replace()
            self._line.produce(record, _Under(self._loop.time() + limit, next(self._numbers), future, late))
        except BufferError:
            _fail(future, Unavailable("the producer's queue is full"))
        except Stop as refused:  # not at the start any more: files that they name were replaced by others of no use
            _fail(future, Unavailable(str(refused)))
        except KafkaException as failure:
            _fail(future, _reason(failure.args[0]))
        return future

    def renew(self, client: Mapping[str, str]) -> None:
        """Go on with a producer of these properties; records under way end with the one before. Raises Stop if
        librdkafka refuses a property, and goes on with that one.
        """
        self._conf.update(client)
        before, self._line = self._line, self._open()
        before.retire()

    async def close(self) -> None:
        """Wait for the records under way, at most as long as they may take."""
        await self._line.close(self._timeout + 1)

    def _open(self) -> "_Line":
        with properties_told():
            return _Line(Producer(self._conf, logger=logging.getLogger("librdkafka")), self._loop, self._settle)

    def _replace(self) -> None:
        line, self._line = self._line, self._open()
        line.abandon()

    def _settle(self, line: "_Line", reports: "list[_Report]") -> None:
        failed: set[str] = set()
        for under, told in reports:
            error = told and (line.ended or told)
            if error is not None:
                failed.add(error.str())
            if under.future.done():
                if error is None:
                    under.late()
            elif error is None:
                under.future.set_result(None)
            else:
                _fail(under.future, _reason(error))
        for why in failed:
            self._report(why)


class _Under(NamedTuple):
    """A record under way. A tuple, since the heap compares them often; its unique number breaks ties."""

    deadline: float
    number: int
    future: "asyncio.Future[None]"
    late: Callable[[], None]


_Report = tuple[_Under, KafkaError | None]


class _Line:
    """One librdkafka producer, polled regularly."""

    def __init__(
        self,
        producer: Producer,
        loop: asyncio.AbstractEventLoop,
        settle: "Callable[[_Line, list[_Report]], None]",
    ) -> None:
        self._producer = producer
        self._loop = loop
        self._settle = settle
        self.ended: KafkaError | None = None
        """The fatal error after which the producer refuses everything: the broker has lost the producer's sequence
        numbers, or refuses it an id.
        """
        self._reports: list[_Report] = []
        self._under_way: list[_Under] = []
        """A heap by deadline. An acknowledged record stays in it until it is at the top."""
        self._looks = loop.call_later(_IDLE, self._looking)
        self._busy = False
        self._retired = False

    def produce(self, record: Outgoing, under: _Under) -> None:
        self._producer.produce(
            record.topic,
            record.value,
            record.key,
            headers=list(record.headers),
            on_delivery=partial(self._delivered, under),
        )
        heapq.heappush(self._under_way, under)
        if not self._busy:
            self._busy = True
            self._looks.cancel()
            self._looks = self._loop.call_later(_LOOK, self._looking)

    def abandon(self) -> None:
        """Fail the queued records, and stop."""
        self._producer.purge()
        self.retire()

    def retire(self) -> None:
        """Stop once no record is under way."""
        self._retired = True

    async def close(self, limit: float) -> None:
        self._looks.cancel()
        end = self._loop.time() + limit
        while self._look() and self._loop.time() < end:  # noqa: ASYNC110 -- librdkafka has no event to wait for
            await asyncio.sleep(_LOOK)

    def _looking(self) -> None:
        try:
            self._busy = self._look()
        finally:  # otherwise an error would end the polling for good
            if self._busy or not self._retired:
                self._looks = self._loop.call_later(_LOOK if self._busy else _IDLE, self._looking)

    def _look(self) -> bool:
        """Poll and settle the records that are decided; returns whether any is still under way."""
        try:
            self._producer.poll(0)
        except KafkaException as failure:  # a fatal error is raised here, and in no callback
            self.ended = failure.args[0]
            self._producer.purge()
        if self._reports:
            reports, self._reports = self._reports, []
            self._settle(self, reports)
        under_way, now = self._under_way, self._loop.time()
        while under_way and (under_way[0].future.done() or under_way[0].deadline <= now):
            under = heapq.heappop(under_way)
            if not under.future.done():
                _fail(under.future, Unavailable("no acknowledgement in time"))
        return len(self._producer) > 0

    def _delivered(self, under: _Under, error: KafkaError | None, _message: Message) -> None:
        self._reports.append((under, error))


def _reason(error: KafkaError) -> Exception:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return TooLarge(error.str())
    return Unavailable(error.str())


def _fail(future: "asyncio.Future[None]", reason: Exception) -> None:
    future.set_exception(reason)
    future.exception()  # marks it as retrieved: a caller that gave up waiting does not ask for it
