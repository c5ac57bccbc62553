"""The listener for notifications: accepts, with mutual TLS, and keeps one caller from harming others.

Who may call and what is answered is the receiver's business (`ports.Receiver`). A connection has so long for its
handshake, for a whole header and for a body; there are so many connections, those in their handshake included (for one
too many another gives way), and so many bytes under way at once.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from adapter.core.errors import Stop
from adapter.ports import Receiver
from adapter.telemetry import Log
from adapter.transport.incoming import Incoming, Limits, Room
from adapter.transport.server_tls import ServerTls
from adapter.transport.tls import Reload

_BACKLOG: Final = 1024
_HANDSHAKE: Final = 10.0
_SHUTDOWN: Final = 2.0
"""Seconds a TLS connection has for its handshake, and any one to take leave, whose peer may read no more."""
_PARTING: Final = 1.0
"""Seconds in which requests that were on their way when we began to close are still answered. A gateway sends on a kept
connection until it has seen its end, and has no other way for what it sent then.
"""
_RELOAD: Final = 5.0
"""Seconds between two looks at the certificate files."""
_SWEEPS: Final = 10
"""Looks at silent connections within the shortest limit."""
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.1
"""Seconds without accepting while the process has no file descriptor left, or the system no memory."""


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
        self._limits = limits
        self._tls = tls
        self._on_reload = on_reload
        self._loop = asyncio.get_running_loop()
        self._room = Room(receiver, limits, log)
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connections(self) -> int:
        return self._room.connections

    @property
    def bytes_in_flight(self) -> int:
        return self._room.bytes_in_flight

    @property
    def port(self) -> int:
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    async def open(self, host: str, port: int) -> None:
        """Raises Stop if the port can't be had."""
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
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
        self._tasks = [asyncio.ensure_future(self._accept(bound)), asyncio.ensure_future(self._sweep())]
        if self._tls is not None:
            self._room.context = self._tls.context
            self._tasks.append(asyncio.ensure_future(self._watch(self._tls)))

    async def close(self, limit: float) -> None:
        """Take no new connections and, after a moment, no new requests; answer those under way within `limit` seconds,
        close all connections; who does not read its answers is not waited for that long.
        """
        ending = (*self._tasks, *self._room.entering.values())
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        end = self._loop.time() + limit
        await self._part(min(_PARTING, limit))
        for incoming in list(self._room.open):
            incoming.finish()
        leaving: dict[Incoming, float] = {}
        while self._room.open and (now := self._loop.time()) < end:
            for incoming in list(self._room.open):
                if incoming.busy:
                    leaving.pop(incoming, None)
                elif now - leaving.setdefault(incoming, now) > _SHUTDOWN:
                    incoming.abort()
            await asyncio.sleep(0.01)  # each tells the room, none tells us
        for incoming in list(self._room.open):
            incoming.abort()

    async def _part(self, seconds: float) -> None:
        """Let the next answer to each caller be its last one."""
        for incoming in self._room.open:
            incoming.part()
        until = self._loop.time() + seconds
        while self._room.open and self._loop.time() < until:  # noqa: ASYNC110 -- each tells the room, none tells us
            await asyncio.sleep(0.01)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, address = await self._loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _SCARCE:
                    await self._room.make()
                    await asyncio.sleep(_PAUSE)
                continue  # or the caller has gone already
            incoming = Incoming(self._room)
            entering = self._loop.create_task(self._enter(incoming, accepted, address))
            self._room.entering[incoming] = entering
            entering.add_done_callback(partial(self._entered, incoming, accepted))
            if self._room.context is None:
                await asyncio.wait((entering,))  # no handshake: it is there at once
            else:
                await asyncio.sleep(0)  # sock_accept does not wait while somebody else wants to come in
            if self._room.connections > self._limits.connections:
                await self._room.make()

    async def _enter(self, incoming: Incoming, accepted: socket.socket, address: Any) -> None:
        secure: dict[str, Any] = {}
        if self._room.context is not None:
            secure = {
                "ssl": self._room.context,
                "ssl_handshake_timeout": _HANDSHAKE,
                "ssl_shutdown_timeout": _SHUTDOWN,
            }
        try:
            await self._loop.connect_accepted_socket(lambda: incoming, accepted, **secure)
        except ssl.SSLCertVerificationError as error:
            self._room.receiver.stranger(str(address[0]), error.verify_message)
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLEOFError):  # it hung up by itself
                self._room.receiver.stranger(str(address[0]), error.reason or "unknown")
        except OSError:  # the caller has gone, as those do that only look whether the port is open
            pass

    def _entered(self, incoming: Incoming, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._room.entering.pop(incoming, None)
        if task.cancelled():  # perhaps before it began
            accepted.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self._limits.idle, self._limits.body) / _SWEEPS)
            self._room.sweep()

    async def _watch(self, tls: ServerTls) -> None:
        while True:
            await asyncio.sleep(_RELOAD)
            reload = await asyncio.to_thread(tls.refresh)
            self._room.context = tls.context
            if reload is not None:
                self._on_reload(reload)
