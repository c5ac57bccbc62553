"""The wires between the parties: TCP relays with a thread of their own, whose troubles are those of real networks."""

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import threading
from collections.abc import Coroutine, Sequence
from enum import StrEnum
from typing import Any, Final, Self, TypeVar

from adapter.listen import stop_listening
from tests.support.ports import free_port
from tests.support.wait import PATIENCE

T = TypeVar("T")
Address = tuple[str, int]


class Trouble(StrEnum):
    RESET = "reset"
    """Once: every open connection ends with RST."""
    REFUSED = "refused"
    """Nobody listens; open connections are cut."""
    BLACK_HOLE = "black hole"
    """Nothing passes, either way; what was sent meanwhile comes afterwards."""
    HALF_OPEN = "half-open"
    """Connections that are open now are dead for good, and nobody is told; new ones work."""
    DELAY = "delay"
    """Whatever passes is late."""
    TRICKLE = "trickle"
    """A few bytes at a time."""
    CUT = "cut"
    """Every connection ends in the middle of its next reply."""


LATE: Final = 0.3
"""Seconds by which DELAY holds back what passes."""
_DROP: Final = 64
"""Bytes that TRICKLE lets pass at a time."""
_DRIP: Final = 0.02
_CHUNK: Final = 65536


class Wire:
    """From a port of its own to the first of `targets` that takes a connection, beginning with another each time.

    Nothing is passed on of a client that has gone in the meantime.
    """

    def __init__(self, wires: "Wires", targets: Sequence[Address]) -> None:
        self.port = free_port()
        self._wires = wires
        self._targets = targets
        self._turn = itertools.cycle(range(len(targets)))
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble: Trouble | None = None
        self._passable = asyncio.Event()
        self._passable.set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def links(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    @property
    def abandoned(self) -> int:
        """Those among them whose client has gone."""
        return sum(link.client_gone for link in list(self._links))

    def begin(self, trouble: Trouble) -> None:
        """Lasts until `heal`, but RESET is over at once. One trouble at a time."""
        self._wires.do(self._begin(trouble))

    def heal(self) -> None:
        self._wires.do(self._heal())

    # -- on the wires' loop --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=512)

    async def close(self) -> None:
        await self._shut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, trouble: Trouble) -> None:
        self._trouble = trouble
        match trouble:
            case Trouble.RESET:
                self._trouble = None
                self._cut_all()
            case Trouble.REFUSED:
                await self._shut()
            case Trouble.BLACK_HOLE:
                self._passable.clear()
            case Trouble.HALF_OPEN:
                for link in self._links:
                    link.dead = True
            case _:
                pass

    async def _heal(self) -> None:
        self._trouble = None
        self._passable.set()
        if self._server is None:
            await self.open()

    async def _shut(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await stop_listening(server)
        self._cut_all()

    def _cut_all(self) -> None:
        for link in list(self._links):
            link.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it came in the moment in which we shut
            _reset(writer)
            return
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._tasks.add(task)

        def ended(_: object) -> None:
            self._tasks.discard(task)
            if not writer.is_closing():  # cancelled before there was a link, or before it began
                _reset(writer)

        task.add_done_callback(ended)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await self._connect()
        except OSError:
            return
        link = _Link(writer, up_writer)
        self._links.add(link)
        ways = (self._carry(link, reader, up_writer, reply=False), self._carry(link, up_reader, writer, reply=True))
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)  # neither side uses half-closed connections
        finally:
            for task in tasks:
                task.cancel()
            self._links.discard(link)
            link.end()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await self._passable.wait()
        first = next(self._turn)
        for host, port in (*self._targets[first:], *self._targets[:first]):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(host, port)
        raise ConnectionRefusedError

    async def _carry(
        self, link: "_Link", source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, reply: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._passable.wait()
                if link.dead:
                    continue
                match self._trouble:
                    case Trouble.DELAY:
                        await asyncio.sleep(LATE)
                    case Trouble.TRICKLE:
                        while self._trouble is Trouble.TRICKLE and len(data) > _DROP:
                            sink.write(data[:_DROP])
                            data = data[_DROP:]
                            await asyncio.sleep(_DRIP)
                    case Trouble.CUT if reply:
                        sink.write(data[: len(data) // 2])
                        await sink.drain()
                        return
                    case _:
                        pass
                # A request must not come later than its caller could have waited: no limit of his can cover that.
                if not reply and link.client_gone:
                    return
                sink.write(data)
                await sink.drain()


class Wires:
    """All wires of a stage. Leaving the context cuts and closes them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._all: list[Wire] = []

    def lay(self, *ports: int) -> Wire:
        """An open wire to the first of these local ports that takes a connection."""

        async def make() -> Wire:
            wire = Wire(self, [("127.0.0.1", port) for port in ports])
            await wire.open()
            return wire

        wire = self.do(make())
        self._all.append(wire)
        return wire

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for wire in self._all:
            self.do(wire.close())
        self.do(_settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Link:
    """One connection on a wire."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self.dead = False

    @property
    def client_gone(self) -> bool:
        """Whether it has ended the connection, as the system knows it: the loop may be behind."""
        if self._client.transport.is_closing():
            return True
        try:
            with socket.socket(fileno=os.dup(self._client.get_extra_info("socket").fileno())) as same:
                return same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def reset(self) -> None:
        for writer in (self._client, self._server):
            _reset(writer)

    def end(self) -> None:
        for writer in (self._client, self._server):
            writer.close()


async def _settle() -> None:
    """Let what the loop itself has begun for connections of the last moment come to its end: `_accept` refuses them."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    await asyncio.sleep(0)  # what was closed is gone one turn later


def _reset(writer: asyncio.StreamWriter) -> None:
    found: socket.socket = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
