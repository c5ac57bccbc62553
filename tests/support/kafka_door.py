"""A door between one client and Kafka that can hold chosen requests back, or the answers to them, or have Kafka name no
broker.

It reads the protocol's frames (size, then in a request: api key, version, correlation id; in an answer: correlation
id) and puts its own port in the place of the broker's wherever an answer names that, so that a client that is told
only of the door stays with it. For a cluster of one node.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum

from confluent_kafka.admin import AdminClient

from tests.support.door import Doorway
from tests.support.ports import free_port
from tests.support.wait import PATIENCE, eventually


class Api(IntEnum):
    """Keys of the requests that tests hold (https://kafka.apache.org/protocol)."""

    PRODUCE = 0
    METADATA = 3
    END_TXN = 26
    CONSUMER_GROUP_HEARTBEAT = 68


class KafkaDoor(Doorway):
    """`held` has what was held so far, in order."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, free_port())
        self.held: list[Api] = []
        self._behind = (host, port)
        self._requests: frozenset[Api] = frozenset()
        self._answers: frozenset[Api] = frozenset()
        self._released = asyncio.Event()
        self._fenced = False
        self.described = 0
        """How many answers told of brokers and topics, since the last `fence` or `unfence`."""

    @property
    def bootstrap(self) -> str:
        return f"{self._behind[0]}:{self._port}"

    def hold_requests(self, *apis: Api) -> None:
        """From now on such requests do not reach the broker, nor does what comes behind them on their connection."""
        self._requests = frozenset(apis)

    def hold_answers(self, *apis: Api) -> None:
        """From now on such requests reach the broker, and its answers do not come back."""
        self._answers = frozenset(apis)

    def fence(self) -> None:
        """Until `unfence`, Kafka's answers name the topics and no broker. A broker of KRaft answers so after it was
        frozen, until it is back in the controller's books.
        """
        self._fenced, self.described = True, 0

    def unfence(self) -> None:
        self._fenced, self.described = False, 0

    async def fence_until(self, seen: Callable[[], object]) -> None:
        """Fence by turns until that is seen, at most 20 times: after each answer without brokers librdkafka forgets all
        for good, or finds them again, by chance.
        """
        for _ in range(20):
            self.fence()
            await eventually(lambda: self.described > 9 or seen(), what="answers without brokers")
            self.unfence()
            await eventually(lambda: self.described or seen(), what="an answer with brokers")
            if seen():
                break

    def release(self) -> None:
        """Lets go of all that is held, and holds nothing any more."""
        self._requests = self._answers = frozenset()
        self._released.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._behind)
        asked: dict[int, Api] = {}
        ways = {
            asyncio.ensure_future(self._up(reader, up_writer, asked)),
            asyncio.ensure_future(self._down(up_reader, writer, asked)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up_writer.transport.abort()  # first: whoever closes the door may cancel what follows
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)  # their ends are those of the connections

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, Api]) -> None:
        while True:
            frame = await _frame(reader)
            api, _, correlation = struct.unpack(">hhi", frame[4:12])
            if api in self._requests:
                self.held.append(Api(api))
                await self._released.wait()
            if api in self._answers or api == Api.METADATA:
                asked[correlation] = Api(api)
            writer.write(frame)
            await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, Api]) -> None:
        host, port = self._behind
        theirs, ours = (host.encode() + struct.pack(">i", each) for each in (port, self._port))
        while True:
            frame = await _frame(reader)
            (correlation,) = struct.unpack(">i", frame[4:8])
            api = asked.pop(correlation, None)
            if api in self._answers:
                self.held.append(api)
                await self._released.wait()
            if api is Api.METADATA:
                self.described += 1
                frame = _without_brokers(frame) if self._fenced else frame
            writer.write(frame.replace(theirs, ours))
            await writer.drain()


def _without_brokers(frame: bytes) -> bytes:
    """An answer to METADATA of version 9 or later without its list of brokers.

    That begins behind size, correlation id, tags and throttle time: the number of entries plus one, then of each its
    id, host, port, rack and tags. The lengths of strings, plus one, take one byte as long as they are short.
    """
    begin = 4 + 4 + 1 + 4
    end = begin + 1
    for _ in range(frame[begin] - 1):
        end += 4
        end += frame[end] + 4
        end += max(frame[end], 1) + 1
    body = frame[4:begin] + b"\x01" + frame[end:]
    return struct.pack(">i", len(body)) + body


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(struct.unpack(">i", size)[0])


@asynccontextmanager
async def kafka_door(bootstrap: str) -> AsyncIterator[KafkaDoor]:
    """An open door to the one node of that cluster, closed at the end."""
    (node,) = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=PATIENCE).brokers.values()
    door = KafkaDoor(str(node.host), int(node.port))
    await door.open()
    try:
        yield door
    finally:
        await door.shut()  # what is held is never passed on
