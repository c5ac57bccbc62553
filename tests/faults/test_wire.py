"""The wires do to connections what they say."""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.faults.wire import LATE, Trouble, Wire, Wires
from tests.support.wait import PATIENCE, eventually

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def wires() -> Iterator[Wires]:
    with Wires() as laid:
        yield laid


@asynccontextmanager
async def echo(heard: list[bytes] | None = None) -> AsyncIterator[int]:
    """The port of a server that says everything again, and notes it in `heard`."""
    writers: set[asyncio.StreamWriter] = set()

    async def again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                if heard is not None:
                    heard.append(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            writers.discard(writer)

    server = await asyncio.start_server(again, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await eventually(lambda: not writers)


def test_wires_may_end_while_connections_come() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as target:
        for _ in range(20):
            with Wires() as wires:
                wire = wires.lay(target.getsockname()[1])
                callers = [socket.create_connection(("127.0.0.1", wire.port)) for _ in range(20)]
            for caller in callers:
                caller.close()
    gc.collect()  # whatever was left open says so now, which is an error


@asynccontextmanager
async def connected(wire: Wire) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def say(ends: Ends, text: bytes = b"word", *, within: float = PATIENCE) -> bytes:
    reader, writer = ends
    writer.write(text)
    async with asyncio.timeout(within):
        return await reader.readexactly(len(text))


async def test_a_wire_without_trouble_passes_everything(wires: Wires) -> None:
    async with echo() as port, connected(wires.lay(port)) as ends:
        assert await say(ends, b"x" * 300_000) == b"x" * 300_000


async def test_reset_ends_what_is_open_and_nothing_else(wires: Wires) -> None:
    async with echo() as port:
        wire = wires.lay(port)
        async with connected(wire) as ends:
            await say(ends)
            wire.begin(Trouble.RESET)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await say(ends)
        async with connected(wire) as ends:
            assert await say(ends) == b"word"


async def test_refused_until_it_is_healed(wires: Wires) -> None:
    async with echo() as port:
        wire = wires.lay(port)
        wire.begin(Trouble.REFUSED)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", wire.port)
        wire.heal()
        async with connected(wire) as ends:
            assert await say(ends) == b"word"


async def test_what_went_into_a_black_hole_comes_when_it_is_healed(wires: Wires) -> None:
    async with echo() as port:
        wire = wires.lay(port)
        async with connected(wire) as ends:
            await say(ends)
            wire.begin(Trouble.BLACK_HOLE)
            with pytest.raises(TimeoutError):
                await say(ends, b"lost?", within=0.3)
            wire.heal()
            async with asyncio.timeout(PATIENCE):
                assert await ends[0].readexactly(5) == b"lost?"


async def test_nothing_comes_out_of_a_black_hole_from_one_who_has_gone(wires: Wires) -> None:
    heard: list[bytes] = []
    async with echo(heard) as port:
        wire = wires.lay(port)
        async with connected(wire) as ends:
            await say(ends, b"before")
            wire.begin(Trouble.BLACK_HOLE)
            ends[1].write(b"after")
            ends[1].close()
        await eventually(lambda: wire.abandoned == 1)
        wire.heal()
        await eventually(lambda: wire.links == 0)
    assert heard == [b"before"]


async def test_half_open_connections_are_dead_for_good_and_new_ones_work(wires: Wires) -> None:
    async with echo() as port:
        wire = wires.lay(port)
        async with connected(wire) as ends:
            await say(ends)
            wire.begin(Trouble.HALF_OPEN)
            wire.heal()
            with pytest.raises(TimeoutError):
                await say(ends, within=0.3)
            async with connected(wire) as others:
                assert await say(others) == b"word"


async def test_delay_holds_back_and_trickle_drips(wires: Wires) -> None:
    async with echo() as port:
        wire = wires.lay(port)
        async with connected(wire) as ends:
            wire.begin(Trouble.DELAY)
            began = time.monotonic()
            await say(ends)
            assert time.monotonic() - began >= 2 * LATE
            wire.begin(Trouble.TRICKLE)
            began = time.monotonic()
            await say(ends, b"x" * 640)
            assert time.monotonic() - began >= 0.15


async def test_cut_ends_a_reply_in_its_middle(wires: Wires) -> None:
    async with echo() as port:
        wire = wires.lay(port)
        async with connected(wire) as ends:
            wire.begin(Trouble.CUT)
            ends[1].write(b"x" * 100)
            async with asyncio.timeout(PATIENCE):
                assert await ends[0].read() == b"x" * 50


async def test_one_of_two_targets_that_is_gone_is_passed_over(wires: Wires) -> None:
    async with echo() as port:
        async with echo() as gone:
            wire = wires.lay(gone, port)
        for _ in range(3):
            async with connected(wire) as ends:
                assert await say(ends) == b"word"
