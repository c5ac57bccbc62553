"""Transactional producers, each on a thread of its own: records and consumed offsets in one transaction.

The coordinator answers CONCURRENT_TRANSACTIONS while a producer's previous transaction is being completed (its markers
are being written). librdkafka then repeats adding partitions after 20 ms, whatever the configuration, and all other
requests after `retry.backoff.ms`, doubled each time: with the default of 100 every transaction would take 100 ms, with
1 it takes 5 to 7, but 30 for one in thirty. So two producers take turns: the transaction of one is completed while the
other commits.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from adapter.core.errors import Stop
from adapter.core.overdue import Overdue, Recurring
from adapter.ports import Claim, Outgoing, Position
from adapter.transport.kafka.admin import NO_COORDINATOR
from adapter.transport.kafka.refusal import properties_told, refused_setting
from adapter.transport.kafka.span import undecided_properties
from adapter.transport.kafka.throttle import throttles

_PRODUCERS: Final = 2
"""Producers that take turns. A third one would gain nothing."""
_REFRESH: Final = 500
"""Milliseconds between two looks at the cluster. For three times as long after it was last needed, librdkafka keeps a
group's coordinator in mind, even if its broker was restarted meanwhile and is not reached there any more: the next
transaction would get stuck (`_Line.watch`).
"""
_STEP: Final = 3.0
"""Seconds after which a step of a transaction times out and is called again, which resumes it (KIP-447)."""
_LOOK: Final = 1.0
"""Seconds between two checks whether the library is stuck."""
_HOPELESS: Final = 30.0
"""Seconds of a step after which another producer is tried: librdkafka can lose its connection to the coordinator."""


_Client = TypeVar("_Client", Consumer, Producer)


def _told(record: logging.LogRecord) -> bool:
    """Filter: to librdkafka each transaction that fails is an error, also one that a rebalance refuses, as it should.
    `report` tells of all of them, and leaves its line for debugging.
    """
    if isinstance(record.args, tuple) and record.args[:1] == ("TXNERR",):  # facility, client, text
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return True


_LOG: Final = logging.getLogger("librdkafka")
_LOG.addFilter(_told)


class TransactionalProducer:
    """`ports.Transactor`. One transaction at a time, in the order of the calls.

    `topic` is the consumed one, whose offsets `group` commits.
    `report` is called with the reason why a transaction was not committed, a short text without record contents;
    `waits` with the reason why a step takes long, and the seconds it has taken; `throttled` with the seconds for which
    a quota holds us back. All on a producer's thread.
    """

    def __init__(
        self,
        *,
        client: Mapping[str, str],
        topic: str,
        group: str,
        transactional_id: str,
        timeout: timedelta,
        max_message_bytes: int,
        report: Callable[[str], None],
        waits: Callable[[str, float], None],
        throttled: Callable[[float], None] = lambda _: None,
    ) -> None:
        milliseconds = timeout // timedelta(milliseconds=1)
        conf: dict[str, Any] = {
            "topic.metadata.refresh.interval.ms": _REFRESH,
            **client,
            "transaction.timeout.ms": milliseconds,
            "message.timeout.ms": milliseconds,
            "message.max.bytes": max_message_bytes,
            "retry.backoff.ms": 1,
            "linger.ms": 0,
            "partitioner": "murmur2_random",
            "delivery.report.only.error": True,
            "throttle_cb": throttles(throttled),
        }
        self._open_line: Callable[[int], _Line] = lambda number: _Line(
            {**conf, "transactional.id": f"{transactional_id}-{number}"},
            client=client,
            topic=topic,
            group=group,
            report=report,
            waits=waits,
            loop=asyncio.get_running_loop(),
        )
        self._report = report
        self._lines: list[_Line] = []
        self._last = 0
        """The producer used last."""

    async def open(self) -> None:
        """Initialise the transactional ids, which ends open transactions of an earlier process with the same ids.
        Raises Stop if librdkafka refuses a property, or Kafka refuses us.
        """
        self._lines = [self._open_line(number) for number in range(_PRODUCERS)]
        await asyncio.gather(*(line.ask(line.open) for line in self._lines))

    async def commit(self, records: Sequence[Outgoing], positions: Sequence[Position], claim: Claim) -> bool:
        number = self._last = (self._last + 1) % len(self._lines)
        line = self._lines[number]
        asked, patience = line.ask(partial(line.commit, records, positions, claim)), _HOPELESS
        while True:
            line.watch(asked, patience)
            try:
                return await asked
            except _Stuck as stuck:
                self._report(f"{stuck}; another producer takes over")
                line.abandon()
                line = self._lines[number] = self._open_line(number)
                asked, patience = line.ask(partial(line.succeed, positions)), inf  # Kafka itself may be away

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(line.close) for line in self._lines))


class _Line:
    """One librdkafka producer at a time, and the thread that calls it."""

    def __init__(
        self,
        conf: dict[str, Any],
        *,
        client: Mapping[str, str],
        topic: str,
        group: str,
        report: Callable[[str], None],
        waits: Callable[[str, float], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._conf = {**conf, "on_delivery": self._delivered}
        self._client = client
        self._topic = topic
        self._group = group
        self._report = report
        self._waits = waits
        self._loop = loop
        self._producer: Producer | None = None
        self._closed = threading.Event()
        self._undelivered: dict[str, KafkaError] = {}
        """The first error of a record of this transaction, by topic."""
        self._began = 0.0
        self._asked_at: float | None = None
        """When the step that began then was last asked; None between steps."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon, unlike an executor's threads: the process can exit even if the library never returns.
        self._thread = threading.Thread(target=self._run, name="transactions", daemon=True)
        self._thread.start()

    # -- asked from the loop -----------------------------------------------------------------------------------------

    def ask(self, work: "Callable[[], bool]") -> "asyncio.Future[bool]":
        """Have the thread do this work, and return its result."""
        answer: asyncio.Future[bool] = self._loop.create_future()
        answer.add_done_callback(_seen)  # nobody reads the answer of an abandoned line
        self._jobs.put((answer, work))
        return answer

    def watch(self, answer: "asyncio.Future[bool]", patience: float) -> None:
        """Fail that answer with _Stuck if the library does not return within twice the time limit it was given, or if
        it times out again and again.

        `send_offsets_to_transaction` never returns if the group's coordinator is gone (confluentinc/librdkafka#5456,
        #5511). After a broker has been frozen for some seconds, the end of a transaction can stay in librdkafka's queue
        for the coordinator, although that answers everybody else.
        """
        if answer.done():
            return
        asked_at, now = self._asked_at, monotonic()
        if asked_at is not None and now - asked_at > 2 * _STEP:
            answer.set_exception(_Stuck(f"the client library does not return from a step of {_STEP:g} s"))
        elif asked_at is not None and now - self._began > patience:
            answer.set_exception(_Stuck(f"a step has not ended within {patience:g} s"))
        else:
            self._loop.call_later(_LOOK, self.watch, answer, patience)

    def abandon(self) -> None:
        """Have the thread end without doing anything more, if the library ever returns."""
        self._closed.set()
        self._jobs.put(None)

    def close(self) -> None:
        self.abandon()
        self._thread.join(2 * _STEP)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            answer, work = job
            try:
                result, failure = work(), None
            except Exception as error:  # noqa: BLE001 -- passed on to the caller
                result, failure = False, error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_settle, answer, result, failure)
        # The two refer to each other. Left to the garbage collector, closing the producer would block the loop.
        self._producer = None
        self._conf.clear()

    def open(self) -> bool:
        try:
            self._begin(self._make())
        except KafkaException as failure:
            raise Stop(f"Kafka refuses transactions: {failure.args[0].str()}") from failure
        return True

    def succeed(self, positions: Sequence[Position]) -> bool:
        """Take over from a producer of the same id; whether its last transaction was committed."""
        self._begin(self._again(self._make))
        return self._is_committed(self._offsets(positions)[0])

    def commit(self, records: Sequence[Outgoing], positions: Sequence[Position], claim: Claim) -> bool:
        assert positions, "a transaction without an offset is not fenced"
        producer = self._producer or self._begin(self._again(self._make))
        membership = claim()
        if membership is None:
            return False
        offsets = self._offsets(positions)
        try:
            self._undelivered.clear()
            producer.begin_transaction()
            for record in records:
                self._produce(producer, record)
            self._persist(lambda: producer.send_offsets_to_transaction(offsets, membership, _STEP))
            self._persist(lambda: producer.commit_transaction(_STEP))
        except KafkaException as failure:
            if self._closed.is_set():
                return False
            error: KafkaError = failure.args[0]
            self._report(self._why(error, records))
            refused = _REFUSALS.intersection({error.code(), *(each.code() for each in self._undelivered.values())})
            committed = self._recover(producer, error, offsets)
            if refused:
                self._closed.wait(_REFUSED)
            return committed
        return True

    def _why(self, error: KafkaError, records: Sequence[Outgoing]) -> str:
        """For the log: what failed, with the topics where they are known."""
        why = f"{error.name()}: {error.str()}"
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and not self._undelivered:
            return f"{why}; a right to write is missing to one of {', '.join(sorted({each.topic for each in records}))}"
        return "; ".join((why, *(f"{topic}: {each.str()}" for topic, each in self._undelivered.items())))

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        topic = message.topic()
        if error is not None and topic is not None and error.code() not in _ABORTED:
            self._undelivered.setdefault(topic, error)

    def _make(self) -> Producer:
        with properties_told():
            return Producer(self._conf, logger=_LOG)

    def _begin(self, producer: Producer) -> Producer:
        self._persist(lambda: producer.init_transactions(_STEP))
        self._producer = producer
        return producer

    def _again(self, make: Callable[[], _Client]) -> _Client:
        """A further client. Its properties were taken before: if it can't be made, files that they name have been
        replaced by others of no use, and better ones are waited for. Raises Stop if it is closed meanwhile.
        """
        began, refusals = monotonic(), Recurring()
        while True:
            try:
                return make()
            except Stop as refused:
                now = monotonic()
                if refusals.due(str(refused), now):
                    self._waits(str(refused), now - began)
                if self._closed.wait(_MAKE_AGAIN):
                    raise

    def _offsets(self, positions: Sequence[Position]) -> list[TopicPartition]:
        return [
            TopicPartition(
                self._topic, p.partition, p.offset, p.metadata, -1 if p.leader_epoch is None else p.leader_epoch
            )
            for p in positions
        ]

    def _produce(self, producer: Producer, record: Outgoing) -> None:
        while True:
            try:
                if record.partition is None:
                    producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
                else:
                    producer.produce(
                        record.topic, record.value, record.key, record.partition, headers=list(record.headers)
                    )
            except BufferError:
                producer.poll(0.1)
            except KafkaException as failure:
                self._undelivered.setdefault(record.topic, failure.args[0])
                raise
            else:
                return

    def _recover(self, producer: Producer, error: KafkaError, offsets: Sequence[TopicPartition]) -> bool:
        """Whether the failed transaction was committed after all; leaves a producer that can begin the next one."""
        # A producer that was idle until Kafka forgot its id gets no other one where the offsets were refused before any
        # record: librdkafka then takes the abort for done without asking, and is refused again and again.
        if not error.fatal() and error.code() != KafkaError.INVALID_PRODUCER_ID_MAPPING:
            try:
                self._persist(lambda: producer.abort_transaction(_STEP))
            except KafkaException as failure:
                if self._closed.is_set():  # another line has this id now, and would be fenced
                    return False
                self._report(f"abort: {failure.args[0].name()}")
            else:
                return False
        # Fenced or forgotten: nobody else has this id, so the coordinator ended the transaction when its time was over.
        # Under the same id `init_transactions` waits until it is decided; then the committed offset tells how.
        self._producer = None
        self._begin(self._again(self._make))
        return self._is_committed(offsets[0])

    def _is_committed(self, sent: TopicPartition) -> bool:
        """Whether this offset with this metadata (which is unique to its transaction) is the committed one.

        Its transaction is decided; those of others are not waited for. Every partition has a committed offset
        (`introduce`): a coordinator that knows of none has just started.
        """
        asked = [TopicPartition(sent.topic, sent.partition)]
        reader = self._again(self._reader)
        try:
            while True:
                try:
                    (found,) = self._persist(lambda: reader.committed(asked, _STEP))
                except KafkaException as failure:
                    if self._closed.is_set() or failure.args[0].code() not in _NO_COORDINATOR:
                        raise
                else:
                    if self._closed.is_set() or (found.error is None and found.offset >= 0):
                        return bool(found.offset == sent.offset and found.metadata == sent.metadata)
                self._closed.wait(_ASK_AGAIN)
        finally:
            reader.close()

    def _reader(self) -> Consumer:
        with properties_told():
            return Consumer(undecided_properties(self._client, self._group))

    def _persist(self, step: Callable[[], list[TopicPartition] | None]) -> list[TopicPartition]:
        """Call the step until it has succeeded or failed for good. After a timeout, another call resumes it."""
        self._began = monotonic()
        slow = Overdue(self._began)
        while True:
            self._asked_at = monotonic()
            try:
                return step() or []
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                waiting = error.retriable() or error.code() == KafkaError._TIMED_OUT
                if self._closed.is_set() or not waiting or error.fatal() or error.txn_requires_abort():
                    if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                        raise Stop(f"Kafka refuses us: {error.str()}") from failure
                    if (stop := refused_setting(error)) is not None:
                        raise stop from failure
                    raise
                if seconds := slow.due(monotonic()):
                    self._waits(error.str(), seconds)
            finally:
                self._asked_at = None


_NO_COORDINATOR: Final = NO_COORDINATOR | {KafkaError._WAIT_COORD}
_ASK_AGAIN: Final = 0.1
_MAKE_AGAIN: Final = 1.0
_ABORTED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
"""Errors of records that only tell that their transaction failed, for another reason."""
_REFUSALS: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})
"""Missing rights. They can be granted while we wait; a retry at once would fail again. Nothing is lost meanwhile."""
_REFUSED: Final = 2.0
"""Seconds before the next transaction after such a refusal."""


class _Stuck(Exception):  # noqa: N818 -- it says what the line is
    """A call into the library does not return."""


_Job = tuple["asyncio.Future[bool]", Callable[[], bool]]


def _settle(answer: "asyncio.Future[bool]", result: bool, failure: Exception | None) -> None:  # noqa: FBT001 -- positional for the loop
    if answer.done():
        return
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)


def _seen(answer: "asyncio.Future[bool]") -> None:
    if not answer.cancelled():
        answer.exception()
