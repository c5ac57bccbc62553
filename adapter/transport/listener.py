"""The listener for notifications: HTTP/1.1 with mutual TLS, and limits on everything a caller could use up.

Who may call and what is answered is the receiver's business (`ports.Receiver`). Here is what keeps one caller from
harming others: a connection has so long for a whole header and so long for a body, there are so many connections (the
one that was silent for longest gives way) and so many bytes under way at once.
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from adapter.core.errors import Stop
from adapter.core.notification import Delivery
from adapter.ports import Answer, Arrival, Caller, Head, Peer, Receiver
from adapter.telemetry import Log
from adapter.transport.server_tls import ServerTls
from adapter.transport.tls import Reload

_BACKLOG: Final = 1024
_READ_AHEAD: Final = 16 * 1024
"""Bytes of a body that wait unread in a connection, twice: what each of many connections may cost."""
_LINGER: Final = 2.0
"""Seconds in which what is left of a refused body is thrown away, so that the caller gets to read the answer."""
_HANDSHAKE: Final = 10.0
_RELOAD: Final = 5.0
"""Seconds between two looks at the certificate files."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds."""

    body_bytes: int
    bytes_in_flight: int
    connections: int
    idle: float
    body: float


class Listener:
    """Listens from `open` to `close`."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        limits: Limits,
        tls: ServerTls | None,
        on_reload: Callable[[Reload], None],
        log: Log,
    ) -> None:
        """Without `tls` in plain text. `on_reload` is told of every change of the certificate files."""
        self._receiver = receiver
        self._limits = limits
        self._tls = tls
        self._on_reload = on_reload
        self._log = log
        self._web = _Web(self._answer, receiver, limits)
        self._socket: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None
        self._watching: asyncio.Task[None] | None = None
        self.bytes_in_flight = 0

    @property
    def connections(self) -> int:
        return len(self._web.open)

    @property
    def port(self) -> int:
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    async def open(self, host: str, port: int) -> None:
        """Raises Stop if the port can't be had."""
        try:
            family, _, _, _, address = (
                await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            )[0]
            bound = socket.socket(family, socket.SOCK_STREAM)
            try:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.setblocking(False)  # noqa: FBT003 -- the library's signature
                bound.bind(address)
                bound.listen(_BACKLOG)
            except BaseException:
                bound.close()
                raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Stop(
                f"ADAPTER_SERVER__PORT: can't listen on {host}:{port} ({reason}); choose another, or 0 for a free one"
            ) from None
        self._socket = bound
        await self._listen()
        if self._tls is not None:
            self._watching = asyncio.ensure_future(self._watch(self._tls))

    async def close(self, limit: float) -> None:
        """Take no new requests, answer those under way within `limit` seconds, close all connections."""
        if self._watching is not None:
            self._watching.cancel()
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.close()
        self._web.pre_shutdown()
        await self._web.shutdown(limit)

    async def _listen(self) -> None:
        """Accept on the socket with the newest context; connections of an older one end after their next answer."""
        assert self._socket is not None
        before = self._server
        secure: dict[str, Any] = {}
        if self._tls is not None:
            secure = {
                "ssl": self._tls.context,
                "ssl_handshake_timeout": _HANDSHAKE,
                "ssl_shutdown_timeout": _LINGER,
            }
        # A socket of its own for each: whoever is told to stop closes the one it was given.
        self._server = await asyncio.get_running_loop().create_server(
            self._web, sock=self._socket.dup(), backlog=_BACKLOG, **secure
        )
        if before is not None:
            before.close()
            self._web.epoch += 1

    async def _watch(self, tls: ServerTls) -> None:
        while True:
            await asyncio.sleep(_RELOAD)
            reload = await asyncio.to_thread(tls.refresh)
            if reload is None:
                continue
            if not reload.problems:
                await self._listen()
            self._on_reload(reload)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._exchange(request)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 -- told in the log, and answered; the listener goes on
            self._log.exception("notification answer failed")
            answer = Answer(500, b"A fault of ours; send it again.\n", close=True)
        headers = {**answer.headers, "Content-Type": answer.content_type, "Server": "fault-adapter"}
        response = web.Response(status=answer.status, body=answer.body, headers=headers)
        if answer.close or self._web.outdated(request.protocol):
            response.force_close()
        return response

    async def _exchange(self, request: web.BaseRequest) -> Answer:
        connection = self._web.active(request.protocol)
        head = Head(request.method, request.path, _headers(request))
        caller = self._receiver.admit(connection.peer, head)
        if isinstance(caller, Answer):
            return caller
        if head.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        received = 0
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(self._limits.body):
                    async for chunk in request.content.iter_any():
                        received += len(chunk)
                        self.bytes_in_flight += len(chunk)
                        if received > self._limits.body_bytes:
                            return self._receiver.too_large()
                        if self.bytes_in_flight > self._limits.bytes_in_flight:
                            return self._receiver.too_busy()
                        body += chunk
            except TimeoutError:
                return self._receiver.too_slow()
            except web.RequestPayloadError:
                return self._receiver.garbled()
            return await self._receiver.receive(_arrival(head, caller, bytes(body)))
        finally:
            self.bytes_in_flight -= received


@dataclass(slots=True)
class _Connection:
    transport: asyncio.Transport
    peer: Peer
    epoch: int
    """Which set of certificate files it was made with."""


class _Web(web.Server):
    """aiohttp's server, with a bound on its connections."""

    def __init__(self, handler: Callable[[web.BaseRequest], Any], receiver: Receiver, limits: Limits) -> None:
        super().__init__(handler)
        self._receiver = receiver
        self._limits = limits
        self.open: OrderedDict[RequestHandler, _Connection] = OrderedDict()
        self.epoch = 0

    def __call__(self) -> RequestHandler:
        return _Handler(self, self._receiver, self._limits)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.open[handler] = _Connection(transport, _peer(transport), self.epoch)
        if len(self.open) > self._limits.connections:
            _, silent = self.open.popitem(last=False)
            silent.transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self.open.pop(handler, None)
        super().connection_lost(handler, exc)

    def active(self, handler: RequestHandler) -> _Connection:
        """The connection of `handler`, now the last to be closed for silence."""
        if handler not in self.open:  # closed for silence while its request came in
            raise ConnectionResetError
        self.open.move_to_end(handler)
        return self.open[handler]

    def outdated(self, handler: RequestHandler) -> bool:
        connection = self.open.get(handler)
        return connection is not None and connection.epoch != self.epoch


class _Handler(RequestHandler):
    __slots__ = ("_receiver",)

    def __init__(self, server: _Web, receiver: Receiver, limits: Limits) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle,
            access_log=None,  # type: ignore[arg-type]  # None turns it off, the annotation forgets that
            lingering_time=_LINGER,
            read_bufsize=_READ_AHEAD,
            auto_decompress=False,
        )
        self._receiver = receiver

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 -- given by position
        exc: BaseException | None = None,  # noqa: ARG002 -- as above
        message: str | None = None,  # noqa: ARG002 -- as above
    ) -> web.StreamResponse:
        """In place of one that logs the exception and answers its text, both of which repeat what was sent."""
        if request.writer.output_size > 0:
            raise ConnectionResetError
        answer = self._receiver.garbled()
        response = web.Response(status=answer.status, body=answer.body, headers={"Server": "fault-adapter"})
        response.force_close()
        return response


def _peer(transport: asyncio.Transport) -> Peer:
    name = transport.get_extra_info("peername")
    secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = None if secured is None else secured.getpeercert(binary_form=True)
    return Peer(str(name[0]) if isinstance(name, tuple) else "", certificate)


def _headers(request: web.BaseRequest) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return headers


def _arrival(head: Head, caller: Caller, body: bytes) -> Arrival:
    headers = head.headers
    delivery = Delivery(
        body=body,
        received_at=datetime.now(UTC),
        path=head.path,
        content_type=headers.get("content-type"),
        soap_action=headers.get("soapaction"),
    )
    return Arrival(delivery, caller, headers.get("traceparent"))
