"""A supplier that does what a test tells it, byte by byte, over real sockets: the script of a connection is a
coroutine. It speaks just enough HTTP to be wrong on purpose, and counts what it was given, read or not."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

from adapter.listen import stop_listening
from adapter.twin.certificates import Certificates


@dataclass(frozen=True, slots=True)
class Request:
    line: str
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """One connection, from the server's side."""

    def __init__(self, reader: "_CountingReader", writer: asyncio.StreamWriter, requests: list[Request]) -> None:
        self._reader = reader
        self._writer = writer
        self._requests = requests

    @property
    def received(self) -> int:
        """Bytes that came, decrypted ones with TLS, whether the script has read them or not."""
        return self._reader.received

    @property
    def certificate(self) -> bytes | None:
        """The client's certificate (DER)."""
        found: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return found.getpeercert(binary_form=True)

    async def head(self) -> tuple[str, dict[str, str]]:
        """Request line and headers (names in lower case). IncompleteReadError when the client is gone."""
        line, *rest = (await self._reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
        return line, {name.lower(): value for name, value in (each.split(": ", 1) for each in rest)}

    async def request(self) -> Request:
        line, headers = await self.head()
        taken = Request(line, headers, await self._reader.readexactly(int(headers.get("content-length", "0"))))
        self._requests.append(taken)
        return taken

    async def read(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    async def some(self) -> bytes:
        return await self._reader.read(65536)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self, body: bytes = b"<ok/>", *, status: str = "200 OK", headers: str = "") -> None:
        """A whole reply. `headers` are complete lines."""
        await self.send(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def wait_for_client(self) -> None:
        """Until the client has closed the connection."""
        while await self._reader.read(65536):
            pass

    def stop_reading(self) -> None:
        transport: Any = self._writer.transport
        transport.pause_reading()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """End with RST instead of FIN."""
        _reset(self._writer)


Script = Callable[[Exchange], Awaitable[None]]


@dataclass(slots=True)
class Supplier:
    url: str
    port: int
    exchanges: list[Exchange] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    active: int = 0
    """Connections whose script is still running."""

    @property
    def received(self) -> int:
        return sum(exchange.received for exchange in self.exchanges)


async def answering(exchange: Exchange) -> None:
    """The script of a good server: every request is answered, the connection is kept."""
    while True:
        await exchange.request()
        await exchange.reply()


@asynccontextmanager
async def supplier(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Supplier]:
    """A server on the loopback interface whose connections follow `script`. What a script raises, other than losing
    its client, is raised at the end."""
    loop = asyncio.get_running_loop()
    found = Supplier("", 0)
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _CountingReader)
        exchange = Exchange(reader, writer, found.requests)
        found.exchanges.append(exchange)
        writers.add(writer)
        found.active += 1
        try:
            await script(exchange)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001 -- raised by the test that runs the server
            failures.append(error)
        finally:
            found.active -= 1
            writers.discard(writer)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(follow(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: None if writer.is_closing() else writer.transport.abort())  # never begun

    server = await loop.create_server(
        lambda: asyncio.StreamReaderProtocol(_CountingReader(limit=2**22), connected),
        "127.0.0.1",
        0,
        ssl=tls,
        backlog=1024,
    )
    found.port = server.sockets[0].getsockname()[1]
    found.url = f"{'https' if tls else 'http'}://localhost:{found.port}"
    try:
        yield found
    finally:
        await stop_listening(server)
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
    if failures:
        raise failures[0]


def server_context(files: Certificates, *, ask: bool = True, only: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A server's context; with `ask` it demands a client certificate of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server_certificate, files.server_key)
    if only is not None:
        context.minimum_version = context.maximum_version = only
    if ask:
        context.load_verify_locations(files.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def tunnel(exchange: Exchange, port: int) -> None:
    """Go on as a proxy that was asked to CONNECT: pass bytes on, both ways, to that port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def back() -> None:
        while data := await reader.read(65536):
            await exchange.send(data)
        exchange.close()

    answers = asyncio.create_task(back())
    try:
        while data := await exchange.some():
            writer.write(data)
            await writer.drain()
    finally:
        answers.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await answers
        writer.transport.abort()


class Cut:
    """A relay in front of a server that ends each connection, both ways, once so many bytes have passed."""

    def __init__(self, at: int, *, upwards: bool, reset: bool, armed: bool) -> None:
        self.port = 0
        self.armed = armed
        self._at = at
        self._upwards = upwards
        self._reset = reset
        self._passed = 0

    def arm(self) -> None:
        """Count from here on."""
        self.armed = True
        self._passed = 0

    def passes(self, data: bytes, *, upwards: bool) -> bytes:
        """What of these bytes may still pass."""
        if not self.armed or upwards is not self._upwards:
            return data
        allowed = data[: self._at - self._passed]
        self._passed += len(data)
        return allowed

    @property
    def due(self) -> bool:
        return self.armed and self._passed >= self._at

    def end(self, writer: asyncio.StreamWriter) -> None:
        if self._reset:
            _reset(writer)
        else:
            writer.close()


@asynccontextmanager
async def cutting(port: int, at: int, *, upwards: bool, reset: bool, armed: bool) -> AsyncIterator[Cut]:
    """A Cut in front of that port, after `at` bytes towards the server (`upwards`) or the client."""
    cut = Cut(at, upwards=upwards, reset=reset, armed=armed)
    tasks: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
            with suppress(OSError):
                while not cut.due and (data := await source.read(65536)):
                    sink.write(cut.passes(data, upwards=up))
                    await sink.drain()
            cut.end(writer)
            cut.end(up_writer)

        try:
            await asyncio.gather(
                pass_on(reader, up_writer, up=True), pass_on(up_reader, writer, up=False), return_exceptions=True
            )
        except asyncio.CancelledError:
            writer.transport.abort()
            up_writer.transport.abort()
            raise

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(relay(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: None if writer.is_closing() else writer.transport.abort())  # never begun

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    cut.port = server.sockets[0].getsockname()[1]
    try:
        yield cut
    finally:
        await stop_listening(server)
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def black_hole() -> AsyncIterator[int]:
    """A port whose connections are never established: its queue is full."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as server:
        server.setblocking(False)  # noqa: FBT003 -- the name of the method says it
        port: int = server.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)  # noqa: FBT003 -- as above
            filler.connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()


class _CountingReader(asyncio.StreamReader):
    received = 0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        assert isinstance(data, bytes)
        self.received += len(data)
        super().feed_data(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    found: socket.socket = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
