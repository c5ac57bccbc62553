"""The listener for notifications: accepts, with mutual TLS, and keeps one caller from harming others.

Who may call and what is answered is decided by the receiver (`ports.Receiver`). Handshake, header and body have a time
limit each. The number of connections, including those in their handshake, is limited (a surplus one evicts another),
and so is the number of request bytes held in memory at once.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from adapter.core.errors import Stop
from adapter.ports import Receiver
from adapter.telemetry import Log
from adapter.transport.incoming import CallerLimits, Incoming, Shared
from adapter.transport.server_tls import ServerTls

_BACKLOG: Final = 1024
_HANDSHAKE: Final = 10.0
_SHUTDOWN: Final = 2.0
"""Seconds for a TLS handshake, and for a connection to close although its peer may not read any more."""
_PARTING: Final = 1.0
"""Seconds for which requests that were on their way when closing began are still answered. A gateway uses a kept-alive
connection until it sees it closed, and does not repeat elsewhere what it has already sent on it.
"""
_SWEEPS: Final = 10
"""How many times per shortest time limit idle and slow connections are looked for."""
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.1
"""Seconds without accepting while the process has no file descriptor left, or the system no memory."""


class Listener:
    """Listens from `open` to `close`."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        limits: CallerLimits,
        tls: ServerTls | None,
        log: Log,
    ) -> None:
        """Without `tls` connections are in plain text; it is for the caller to keep fresh."""
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._shared = Shared(receiver, limits, tls, log)
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connections(self) -> int:
        return self._shared.count

    @property
    def bytes_in_flight(self) -> int:
        return self._shared.bytes_in_flight

    @property
    def port(self) -> int:
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    async def open(self, host: str, port: int) -> None:
        """Raises Stop if address and port can't be had."""
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
                f"ADAPTER_SERVER__HOST, ADAPTER_SERVER__PORT: can't listen on {host}:{port} ({reason}); name an "
                "address of this machine, and a port that is free, or 0 to take one"
            ) from None
        self._socket = bound
        self._tasks = [asyncio.ensure_future(self._accept(bound)), asyncio.ensure_future(self._sweep())]

    async def close(self, limit: float) -> None:
        """Accept no new connections and, after a moment, no new requests; answer the requests under way within `limit`
        seconds, then close all connections. A caller who does not read its answers is waited for only briefly.
        """
        if self._socket is not None:
            bound, self._socket = self._socket, None
            self._loop.remove_reader(bound)
            # Who is being accepted is let in first: an accept that is cancelled then would forget him, open.
            for _ in range(2):
                await asyncio.sleep(0)
            await _cancel(self._tasks)
            bound.close()
        end = self._loop.time() + limit
        await self._part(min(_PARTING, limit))
        await _cancel(self._shared.entering.values())
        for incoming in list(self._shared.open):
            incoming.finish()
        leaving: dict[Incoming, float] = {}
        while self._shared.open and (now := self._loop.time()) < end:
            for incoming in list(self._shared.open):
                if incoming.busy:
                    leaving.pop(incoming, None)
                elif now - leaving.setdefault(incoming, now) > _SHUTDOWN:
                    incoming.abort()
            await asyncio.sleep(0.01)  # a connection that ends leaves `open`, and notifies nobody
        for incoming in list(self._shared.open):
            incoming.abort()

    async def _part(self, seconds: float) -> None:
        """Announce to each caller, those in their handshake included, that its next answer is the last one on its
        connection.
        """
        self._shared.parting = True
        until = self._loop.time() + seconds
        while self._shared.count and self._loop.time() < until:  # noqa: ASYNC110 -- as in close
            await asyncio.sleep(0.01)

    async def _accept(self, listening: socket.socket) -> None:
        while self._socket is listening:
            try:
                accepted, address = await self._loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _SCARCE:
                    await self._shared.evict()
                    await asyncio.sleep(_PAUSE)
                continue  # or the caller has gone already
            incoming = Incoming(self._shared)
            entering = self._loop.create_task(self._enter(incoming, accepted, address))
            self._shared.entering[incoming] = entering
            entering.add_done_callback(partial(self._entered, incoming, accepted))
            if self._shared.context is None:
                await asyncio.wait((entering,))  # no handshake: it is established at once
            else:
                await asyncio.sleep(0)  # sock_accept does not yield to the loop while connections are pending
            if self._shared.count > self._limits.connections:
                await self._shared.evict()

    async def _enter(self, incoming: Incoming, accepted: socket.socket, address: Any) -> None:
        secure: dict[str, Any] = {}
        if self._shared.context is not None:
            secure = {
                "ssl": self._shared.context,
                "ssl_handshake_timeout": _HANDSHAKE,
                "ssl_shutdown_timeout": _SHUTDOWN,
            }
        try:
            await self._loop.connect_accepted_socket(lambda: incoming, accepted, **secure)
        except ssl.SSLCertVerificationError as error:
            self._shared.receiver.handshake_failed(str(address[0]), error.verify_message)
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLEOFError):  # it hung up by itself
                self._shared.receiver.handshake_failed(str(address[0]), error.reason or "unknown")
        except OSError:  # the caller has gone, as those do that only look whether the port is open
            pass

    def _entered(self, incoming: Incoming, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._shared.entering.pop(incoming, None)
        if task.cancelled():  # perhaps before it began
            accepted.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self._limits.idle, self._limits.body) / _SWEEPS)
            self._shared.sweep()


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
