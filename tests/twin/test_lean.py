"""The lean twin: fixed replies that hold to the schema, and counts that prove order and overlaps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import uvloop
from lxml import etree

from adapter.twin import Lean, TwinSettings
from adapter.twin.calls import overlaps, read
from adapter.twin.desk import APPOINTMENTS, TICKETS, load
from tests.support.wait import eventually

XSD = Path(__file__).parents[2] / "schemas" / "xsd"


@pytest.fixture
async def lean() -> AsyncIterator[Lean]:
    async with Lean(TwinSettings()) as running:
        yield running


def request(key: str, message_id: str, *, operation: str = "addFaultReport", tag: str = "buyerFaultReference") -> bytes:
    body = f"<{operation}><messageId>{message_id}</messageId><{tag}>{key}</{tag}></{operation}>".encode()
    return f"POST /api/{operation} HTTP/1.1\r\nHost: t\r\ncontent-LENGTH: {len(body)}\r\n\r\n".encode() + body


class Peer:
    """One connection to a lean twin."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def reply(self) -> tuple[int, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(length)

    async def end(self) -> bytes:
        return await self._reader.read()


@asynccontextmanager
async def connection(lean: Lean) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(lean.url.rsplit(":", 1)[1]))
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def peer(lean: Lean) -> AsyncIterator[Peer]:
    async with connection(lean) as made:
        yield made


@pytest.mark.parametrize("operation", [*TICKETS, *APPOINTMENTS])
async def test_every_reply_is_valid_and_echoes_the_message_id(operation: str, peer: Peer) -> None:
    peer.send(request("SP-1", "m-42", operation=operation))
    status, body = await peer.reply()
    root = etree.fromstring(body)
    element = etree.fromstring(etree.tostring(root[0][0]))
    load(XSD / "cityfibre")[operation].assertValid(element)
    etree.XMLSchema(etree.parse(XSD / "soap" / "envelope.xsd")).assertValid(root)
    assert (status, [e.text for e in element.iter("messageId")]) == (200, ["m-42"])


async def test_requests_in_pieces_and_several_at_once_are_answered_in_order(lean: Lean, peer: Peer) -> None:
    for byte in request("SP-1", "m-0"):
        peer.send(bytes([byte]))
        await asyncio.sleep(0)
    peer.send(request("SP-1", "m-1") + request("77", "m-2", tag="cfh:addressKey") + request("SP-1", "m-3")[:50])
    bodies = [(await peer.reply())[1] for _ in range(3)]
    assert [b.split(b"messageId>")[1].split(b"<")[0] for b in bodies] == [b"m-0", b"m-1", b"m-2"]
    calls = read(lean.tally.lines(0))
    assert [(c.operation, c.key, c.message_id) for c in calls] == [
        ("addFaultReport", "SP-1", "m-0"),
        ("addFaultReport", "SP-1", "m-1"),
        ("addFaultReport", "77", "m-2"),
    ]
    assert [c.sequence for c in read(lean.tally.lines(2))] == [3]


async def test_what_it_cannot_read_ends_the_connection(lean: Lean, peer: Peer) -> None:
    peer.send(b"POST /addFaultReport HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert (await peer.end()).startswith(b"HTTP/1.1 411")
    async with connection(lean) as boundless:
        boundless.send(b"POST /addFaultReport HTTP/1.1\r\nHost: t\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5000))
        assert (await boundless.end()).startswith(b"HTTP/1.1 411")
    async with connection(lean) as endless:
        endless.send(b"x" * 100_000)
        with suppress(ConnectionError):
            assert await endless.end() == b""


async def test_an_unknown_operation_is_404(peer: Peer) -> None:
    peer.send(request("SP-1", "m", operation="cancel"))
    assert (await peer.reply())[0] == 404


async def test_overlaps_and_repeats_are_counted() -> None:
    async with Lean(TwinSettings(latency=0.05)) as lean, connection(lean) as first, connection(lean) as second:
        for key, message_id in (("SP-1", "m-1"), ("SP-2", "m-2")):
            first.send(request(key, message_id))
            await first.reply()
        seen = lean.tally.summary()
        assert (seen["requests"], seen["keys"], seen["repeated"]) == (2, 2, 0)
        assert (seen["overlaps"], seen["most_at_once"]) == (0, 1)
        first.send(request("SP-1", "m-3"))
        second.send(request("SP-1", "m-3"))
        await asyncio.gather(first.reply(), second.reply())
        seen = lean.tally.summary()
        assert (seen["requests"], seen["keys"], seen["repeated"]) == (4, 2, 1)
        assert (seen["overlaps"], seen["most_at_once"]) == (1, 2)
        calls = read(lean.tally.lines(0))
        assert len(overlaps(calls)) == 1
        assert all(c.finished and c.finished - c.received >= 0.045 for c in calls)


async def test_the_control_address_of_a_lean_twin(lean: Lean, peer: Peer) -> None:
    peer.send(request("SP-1", "m-1"))
    await peer.reply()
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{lean.control_url}/twin/summary") as response:
            assert (await response.json())["requests"] == 1
        async with http.get(f"{lean.control_url}/twin/calls?since=0") as response:
            assert [c.key for c in read(await response.text())] == ["SP-1"]
        async with http.delete(f"{lean.control_url}/twin/calls") as response:
            assert response.status == 204
        async with http.get(f"{lean.control_url}/twin/summary") as response:
            assert (await response.json())["requests"] == 0
        async with http.get(f"{lean.control_url}/twin/calls?since=-1") as response:
            assert response.status == 400


async def test_what_was_under_way_when_all_was_forgotten_does_not_count_afterwards() -> None:
    async with Lean(TwinSettings(latency=0.05)) as lean, connection(lean) as peer:
        peer.send(request("SP-1", "m-1"))
        await eventually(lambda: lean.tally.labels)
        lean.tally.forget()
        await peer.reply()
        peer.send(request("SP-1", "m-2"))
        await peer.reply()
        assert (lean.tally.overlaps, lean.tally.most_at_once) == (0, 1)
        (call,) = read(lean.tally.lines(0))
        assert call.finished


def test_it_runs_on_uvloop() -> None:
    async def one() -> int:
        async with Lean(TwinSettings()) as lean, connection(lean) as peer:
            peer.send(request("SP-1", "m-1"))
            return (await peer.reply())[0]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(one()) == 200
