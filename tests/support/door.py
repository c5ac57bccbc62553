"""A door in front of a server: while it is shut, connections are refused and the open ones are cut."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

from adapter.listen import stop_listening
from tests.support.ports import free_port


class Doorway(ABC):
    """Lets callers in at that port of that host; each connection ends with its relay."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._enter, self._host, self._port, backlog=512)

    async def shut(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await stop_listening(server)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also if it was cancelled before it began


class Door(Doorway):
    """Passes bytes on to that URL's host and port; `url` is the same URL through the door."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        super().__init__("127.0.0.1", free_port())
        self._behind = (parts.hostname, parts.port)
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._port}"))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._behind)
        except OSError:
            return

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()

        ways = {asyncio.ensure_future(carry(reader, up_writer)), asyncio.ensure_future(carry(up_reader, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)  # neither side uses half-closed connections
        finally:
            for way in ways:
                way.cancel()
            up_writer.transport.abort()


@asynccontextmanager
async def door(url: str) -> AsyncIterator[Door]:
    """An open door, shut at the end."""
    made = Door(url)
    await made.open()
    try:
        yield made
    finally:
        await made.shut()
