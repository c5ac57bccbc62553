"""The consumer of a topic, as a member of a group, on a thread of its own.

librdkafka serves its rebalance callbacks inside `poll`, and its group metadata fits what those callbacks said only when
taken on the same thread after them. So this thread owns the consumer; the event loop asks it through a queue and is
told through `call_soon_threadsafe`. An assigned partition is paused at once and delivers nothing before `start`.
A group must have a committed offset for every partition (`introduce`).

librdkafka's waits go by the system's clock. If that is set back by an hour, a call that is waiting in librdkafka waits
for an hour longer, and so does librdkafka's own thread, which then sends no heartbeats. So this thread never waits in
librdkafka, and wakes librdkafka's thread once a second (`_wake`).
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from time import monotonic
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from adapter.core.errors import Stop, Unavailable
from adapter.core.journal import Source
from adapter.ports import IntakeListener
from adapter.transport.kafka.admin import Admin, resetting
from adapter.transport.kafka.headers import headers
from adapter.transport.kafka.known import FORGOTTEN, KnownBrokers
from adapter.transport.kafka.refusal import properties_told, refused_setting
from adapter.transport.kafka.span import STEP, WAKE, bounds, undecided_properties
from adapter.transport.kafka.throttle import throttles

_LOG: Final = logging.getLogger("librdkafka")

_BATCH: Final = 500
_PREFETCHED: Final = 8192
"""KiB fetched ahead, over all partitions: seconds of work for us, where librdkafka's own 64 MiB would be minutes."""
_BUSY: Final = 0.002
"""Seconds between two looks for records while work is under way."""
_IDLE: Final = 0.02
"""The same while there is no work, and while there is plenty. After a pause the first record waits at most this long.
"""
_PLENTY: Final = 1000
"""Records under way that keep the loop busy for about a second. Then looking more often would only take the interpreter
from the loop.
"""
_WARM: Final = 25
"""Looks at the busy pace after the last record or request before the thread idles again."""
_NONE_STORED: Final = KafkaError(KafkaError._NO_OFFSET).str()
_TRUNCATED: Final = KafkaError(KafkaError._LOG_TRUNCATION).str()
_LEAVING: Final = 5.0
"""Seconds for librdkafka to leave the group once no partition is ours. It can deadlock there after a seek
(`rd_kafka_offset_reset` fails while it holds its own lock).
"""
_NOT_YET: Final = (KafkaError._STATE, KafkaError._TIMED_OUT, KafkaError._OUTDATED)
"""Errors of a seek that comes too early: the partition is not being fetched yet, or is just being assigned or paused.
"""
_OWN_LOOK_UP: Final = 20.0
"""Seconds after `start` for librdkafka's own look-up of the committed offset: far more than it takes."""


class KafkaIntake:
    """`ports.Intake` over one consumer-group member."""

    def __init__(
        self,
        *,
        client: Mapping[str, str],
        topic: str,
        listener: IntakeListener,
        at_end: Callable[[int, int, int, int | None], None] | None = None,
        throttled: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`at_end` is told (partition, epoch, offset, leader epoch of what lies before it), on the loop, when there is
        nothing to deliver before that offset; `throttled`, on the consumer's thread, for how many seconds a quota holds
        us back.

        Raises Stop if librdkafka refuses a property.
        """
        self._conf: dict[str, Any] = {
            "queued.max.messages.kbytes": _PREFETCHED,
            "fetch.queue.backoff.ms": 5,  # by default the client pauses for a second when so much is queued
            **client,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": at_end is not None,
            "throttle_cb": throttles(throttled),
        }
        self._open()
        self._topic = topic
        self._group = client["group.id"]
        self._at_end = at_end
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._again: list[Callable[[], None]] = []
        """Requests to repeat, since they came too early."""
        self._wake_at = 0.0
        self._owned: dict[int, int] = {}
        self._started: dict[int, tuple[int, int | None]] = {}
        """Where these partitions were started: offset and leader epoch."""
        self._epoch = 0
        self._taken = threading.Event()
        self._taken.set()
        self._held = 0
        self._revoking = False
        self._last: futures.Future[None] | None = None
        """Done when the listener has given back all partitions, before we leave the group."""
        self.left_out = self._outside = f"not yet a member of the group {self._group}"
        self._stopping = threading.Event()
        self._given_back = asyncio.Event()
        """Set at the end, when no partition is ours any more."""
        self._left = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def _open(self) -> None:
        self._brokers = KnownBrokers()
        with properties_told():
            self._consumer = Consumer({**self._conf, **self._brokers.properties()}, logger=_LOG)
        self._outsider = self._consumer.consumer_group_metadata()
        """Metadata that tells of no membership. With KIP-848 the member's id is no sign of one: it is the client's own.
        """

    def open(self) -> None:
        self._thread.start()

    async def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            # Not `join` on an executor's thread: at its end the loop would wait for that thread, time limit or not.
            await self._given_back.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVING):
                    await self._left.wait()

    # -- asked from other threads ------------------------------------------------------------------------------------

    def membership(self, epochs: Collection[tuple[int, int]]) -> object | None:
        answer: queue.SimpleQueue[object | None] = queue.SimpleQueue()
        self._requests.put(lambda: answer.put(self._membership(epochs)))
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                return answer.get(timeout=WAKE)
        return None

    def start(self, partition: int, epoch: int, offset: int, leader_epoch: int | None) -> None:
        asked_at = monotonic()
        # With its epoch sought, nothing is fetched before the leader has said that this epoch reaches so far (KIP-320).
        at_epoch = -1 if leader_epoch is None else leader_epoch
        position = TopicPartition(self._topic, partition, offset, leader_epoch=at_epoch)

        def begin() -> None:
            nonlocal asked_at
            self._started[partition] = offset, leader_epoch
            try:
                self._consumer.seek(position)
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET:
                    raise
                if not self._revoking and monotonic() - asked_at >= _OWN_LOOK_UP:
                    # Its own question for the committed offset may never be answered (`span.committed`): told the
                    # offset, it asks no more. But it does not look at the epoch of an offset that is assigned.
                    self._consumer.incremental_unassign([position])
                    self._consumer.incremental_assign([position])
                    self._consumer.pause([position])
                    asked_at = monotonic()
                self._again.append(lambda: self._if_owned(partition, epoch, begin))
            else:
                self._consumer.resume([position])

        self._requests.put(lambda: self._if_owned(partition, epoch, begin))

    def pause(self, partition: int, epoch: int) -> None:
        at = [TopicPartition(self._topic, partition)]
        self._requests.put(lambda: self._if_owned(partition, epoch, lambda: self._consumer.pause(at)))

    def resume(self, partition: int, epoch: int) -> None:
        at = [TopicPartition(self._topic, partition)]
        self._requests.put(lambda: self._if_owned(partition, epoch, lambda: self._consumer.resume(at)))

    def held(self, records: int) -> None:
        self._held = records

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._join()
            warm = 0
            while not self._stopping.is_set():
                if self._brokers.forgotten:
                    self._replace()
                self._wake()
                served = self._serve(_BUSY if self._held < _PLENTY and (self._held or warm > 0) else _IDLE)
                if not self._taken.is_set():  # the loop is behind: it must be able to pause before more comes
                    continue
                messages = self._consumer.consume(_BATCH, 0)
                warm = _WARM if messages or served else warm - 1
                if messages:
                    self._deliver(messages)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the flow must hear of it
            self._tell(self._listener.failed, error)
        finally:
            self._stopping.set()
            self._forget(())
            try:
                with contextlib.suppress(RuntimeError):  # the loop may be gone
                    self._give_back()
                    self._consumer.close()
            finally:
                self._tell(self._given_back.set)
                self._tell(self._left.set)

    def _join(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _replace(self) -> None:
        """Go on as a new member. For the group the one before has been silent, and is dead or will soon be."""
        self.left_out = self._outside
        _LOG.warning("%s, and is made anew", FORGOTTEN)
        before = self._consumer
        if self._owned:
            self._on_lost(before, [TopicPartition(self._topic, number) for number in self._owned])
        self._open()
        self._join()
        threading.Thread(target=before.close, name="intake-before", daemon=True).start()  # in case it never returns

    def _give_back(self) -> None:
        """Let work under way finish while we are still a member. Once told to leave, librdkafka sends no more
        heartbeats: a call that takes longer than the session timeout would lose its partition, and its command would be
        in doubt.
        """
        numbers = [*self._owned]
        if not numbers:
            return
        self._last = self._ask_back(numbers)
        with contextlib.suppress(KafkaException):
            self._consumer.pause([TopicPartition(self._topic, number) for number in numbers])
        while not self._last.done():
            with contextlib.suppress(Stop, KafkaException):  # of a request that comes too late
                self._wake()
                self._serve(_IDLE)
                self._consumer.consume(_BATCH, 0)  # for the callbacks: records are the next owner's
        self._forget(numbers)

    def _ask_back(self, numbers: Sequence[int]) -> "futures.Future[None]":
        done = asyncio.run_coroutine_threadsafe(self._listener.revoked(numbers), self._loop)
        done.add_done_callback(lambda _: self._requests.put(lambda: None))
        return done

    def _wake(self) -> None:
        """Ask librdkafka something once a second, which wakes its own thread; see the module's docstring."""
        if self.left_out or monotonic() >= self._wake_at:
            if self._consumer.consumer_group_metadata() != self._outsider:
                self.left_out = ""
            self._wake_at = monotonic() + WAKE

    def _deliver(self, messages: Sequence[Message]) -> None:
        records: list[tuple[int, Source]] = []
        ends: list[Message] = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    ends.append(message)
                else:
                    self._judge(error, message)
                continue
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None, "a record without an error has a place"  # noqa: PT018
            epoch = self._owned.get(partition)
            if epoch is not None and partition in self._started:
                source = Source(
                    partition,
                    offset,
                    message.timestamp()[1] / 1000,
                    message.key(),
                    message.value(),
                    headers(message),
                    message.leader_epoch(),
                )
                records.append((epoch, source))
        if records:
            self._taken.clear()
            self._tell(self._take, records)
        for message in ends:
            partition = message.partition()
            if self._at_end is not None and partition is not None and partition in self._started:
                # Behind all that came, markers as well, whose epoch the message of the end does not have.
                (reached,) = self._consumer.position([TopicPartition(self._topic, partition)])
                self._tell(self._at_end, partition, self._owned.get(partition), reached.offset, reached.leader_epoch)

    def _take(self, records: Sequence[tuple[int, Source]]) -> None:
        """On the loop."""
        self._listener.delivered(records)
        self._requests.put(self._taken.set)  # behind the requests this has led to

    def _judge(self, error: KafkaError, message: Message) -> None:
        """Raises Stop for errors that librdkafka does not recover from. It retries the others, unlogged."""
        code, partition = error.code(), message.partition()
        if code == KafkaError._AUTO_OFFSET_RESET and _NONE_STORED in error.str():
            # librdkafka's own look-up at a coordinator that has just started. Where we start was asked for elsewhere.
            if partition in self._started:
                self.start(partition, self._owned[partition], *self._started[partition])
            return
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            if _TRUNCATED in error.str():
                why = f"it has lost its end, and newer records may lie before the committed offset ({error.str()})"
            else:
                why = (
                    f"the committed offset is not in the topic any more ({error.str()}): records were deleted before "
                    "they were read, or the partition has lost its end and newer records lie before that offset"
                )
            raise Stop(
                f'{self._topic} partition {partition}: {why}; see "An offset that is out of range" in '
                f"docs/disaster.md, then: {resetting(self._group, f'{self._topic}:{partition}', 'earliest')}"
            )
        if (stop := refused_setting(error)) is not None:
            raise stop
        if code == KafkaError._FATAL:  # which `error.fatal()` does not tell of a message's error
            raise Stop(f"{self._group}: {error.str()}")
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise Stop(f"{self._topic}: {error.str()}")
        _LOG.warning("%s", error.str())
        if self.left_out:
            self.left_out = f"{self._outside}: {error.str()}"

    def _serve(self, within: float) -> bool:
        """Carry out the requests, after waiting up to `within` seconds for the first. Returns whether there was one."""
        again, self._again = self._again, []
        for act in again:
            act()
        try:
            act = self._requests.get(timeout=within)
        except queue.Empty:
            return False
        act()
        for _ in range(self._requests.qsize()):
            self._requests.get()()
        return True

    def _if_owned(self, partition: int, epoch: int, act: Callable[[], None]) -> None:
        if self._owned.get(partition) == epoch:
            try:
                act()
            except KafkaException as error:
                if self._owned.get(partition) == epoch:
                    raise Stop(f"{self._topic} partition {partition}: {error.args[0].str()}") from error

    def _membership(self, epochs: Collection[tuple[int, int]]) -> object | None:
        # Metadata of a consumer that is no member is accepted by the broker without any fencing: never use it.
        metadata: object = self._consumer.consumer_group_metadata()
        if metadata == self._outsider or any(self._owned.get(partition) != epoch for partition, epoch in epochs):
            return None
        return metadata

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        new = {}
        for at in partitions if not self._stopping.is_set() else ():
            self._epoch += 1
            self._owned[at.partition] = new[at.partition] = self._epoch
        # Silent until `start`. librdkafka asks for the committed offset meanwhile, and its answer moves the partition
        # there, also if it comes after `start`: that is where it starts anyway, and what is delivered twice by it lies
        # below what the worker has had. (Assigned at the end instead, a late answer would skip all that lies before.)
        try:
            consumer.incremental_assign(partitions)
            consumer.pause(partitions)
        except KafkaException as error:  # under Python 3.11 the library makes of its own what no `except` catches
            raise Stop(f"{self._topic}: {error.args[0].str()}") from error
        if new:
            self._tell(self._listener.assigned, new)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:  # it was replaced, and comes to its end
            return
        numbers = [at.partition for at in partitions if at.partition in self._owned]
        if numbers:
            done = self._last or self._ask_back(numbers)
            self._revoking = True
            while not done.done():  # transactions still need their membership meanwhile
                self._requests.get()()
            self._revoking = False
            self._forget(numbers)
            with contextlib.suppress(futures.CancelledError):  # the loop ends
                done.result()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return
        numbers = [at.partition for at in partitions]
        self._forget(numbers)
        self._tell(self._listener.lost, numbers)

    def _forget(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._owned.pop(partition, None)
            self._started.pop(partition, None)
        if self._stopping.is_set() and not self._owned:
            self._tell(self._given_back.set)

    def _tell(self, listen: Callable[..., None], *what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(listen, *what)


def introduce(client: Mapping[str, str], topic: str, group: str) -> None:
    """Let a new group start at the beginning of every partition, by committing that; a group that has committed is left
    alone. With this `auto.offset.reset` is never asked, and an offset that is out of range is an error.

    Blocks. Raises Stop if librdkafka refuses a property or Kafka refuses us, Unavailable.
    """
    # A partition whose offset is kept back by a transaction has one: nobody else need wait for that.
    with properties_told():
        consumer = Consumer(undecided_properties(client, group))
    try:
        partitions = [
            TopicPartition(topic, p) for p in consumer.list_topics(topic, timeout=STEP).topics[topic].partitions
        ]
        new = _new(consumer, partitions)
        for at in new:
            at.offset, _ = bounds(consumer, at)
        if new:
            _commit(consumer, new, group)
    except KafkaException as error:
        code = error.args[0].code()
        # librdkafka asks again and again for the coordinator of a group that it may not see, and says nothing.
        unseen = code == KafkaError._TIMED_OUT and Admin(client).group_rights(group) == frozenset()
        if unseen or code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise Stop(f"{group}: no right to read this consumer group; grant READ on it") from error
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise Stop(f"{topic}: no right to read it for {group}; grant READ on it") from error
        raise Unavailable(f"{topic}: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _new(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """Those for which the group has committed nothing. Raises KafkaException."""
    found = consumer.committed([TopicPartition(at.topic, at.partition) for at in partitions], STEP)
    for at in found:
        if at.error is not None:  # then its offset tells nothing
            raise KafkaException(at.error)
    return [at for at in found if at.offset < 0]


def _commit(consumer: Consumer, new: list[TopicPartition], group: str) -> None:
    """Raises KafkaException, Unavailable while the group has members that have not done this for these partitions: of
    another topic, of partitions that were added since, or killed a moment ago. It lets only members commit.
    """
    try:
        consumer.commit(offsets=new, asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() not in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION):
            raise
    if left := _new(consumer, new):
        numbers = ", ".join(str(at.partition) for at in left)
        raise Unavailable(
            f"{group} has no committed offset for {new[0].topic} partition {numbers}, and none can be given to it "
            "while it has members: give each deployment a group of its own; if they are this one's, stop them all, or "
            "wait until the cluster drops those that died"
        )
