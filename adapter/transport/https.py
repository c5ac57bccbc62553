"""Calls to the supplier over HTTP/1.1, and the one question that decides what may follow a failure: can a byte of
the request have left?

It is answered by a fact, not by the type of an error: a request is written in one place only, `Connection.exchange`.
Whatever fails before that is NotSent, whatever fails in it is Unclear. Why so: docs/decisions/0001-supplier-calls.md.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from adapter.core.allowance import Allowance
from adapter.core.errors import Stop
from adapter.ports import NotSent, Reply
from adapter.settings import Supplier
from adapter.transport import failures
from adapter.transport.address import endpoint, parsed
from adapter.transport.connection import MARGIN, CallLimits, Connection
from adapter.transport.tls import ClientTls, TlsFiles
from adapter.transport.way import Proxy, handed_over, proxy, reach, resolve

_GOOD_BYE: Final = 2.0
"""Seconds for the server to answer our close of TLS; until then its socket stays open."""

_FIRST_WORD: Final = 0.1
"""Seconds in which a server of TLS 1.3 is expected to refuse our certificate or to send a ticket, at least; as long as
the connection took to stand, if that was longer: two round trips of the network, and this takes one.
"""

_RESOLVED: Final = 10.0
"""Seconds for which the resolved addresses of a name are used."""

_DISTRUSTED: Final = 60.0
"""Seconds for which an address is tried last, after a connection to it has failed."""

_LONG_REPLIES: Final = 2**25
"""Bytes that long replies may hold in all, from their first bytes until their release; at least eight times the largest
one's.
"""

_RECEIVED: Final = 2**15
"""Size of the kernel's receive buffer of a connection, in bytes (Linux doubles it). By default it grows to megabytes,
which count as memory of the container while a reply waits unread.
"""

_LOOK: Final = 0.001
"""Seconds between two looks whether the server has sent its first word."""

_BELIEVED: Final = 3600.0
"""Seconds for which a closed idle connection is taken as a sign of the supplier's own limit. It may have been closed by
a gateway that restarted.
"""


class HttpsCalls:
    """ports.Calls, as the settings of the supplier have it, to its operations below `base_url`. Made inside a running
    loop; close() it there.

    `tls` is for the caller to keep fresh. Raises Stop when the settings cannot work.
    A cancelled call stays cancelled; the cause (`__cause__`) of its CancelledError is the NotSent or Unclear it
    would have been.
    """

    def __init__(self, base_url: str, supplier: Supplier) -> None:
        url = parsed("ADAPTER_SUPPLIER__BASE_URL", base_url)
        self._proxy: Callable[[], Proxy] | None = None
        if supplier.proxy.url is not None:
            self._proxy = partial(proxy, supplier.proxy.url, supplier.proxy.credentials)
            self._proxy()
        self._loop = asyncio.get_running_loop()
        self._host, self._port = endpoint(url)
        self._prefix = url.raw_path.decode("ascii").rstrip("/")
        self._netloc = url.netloc.decode("ascii")
        self._connect = supplier.connect_timeout.total_seconds()
        self._total = supplier.total_timeout.total_seconds()
        self._limits = CallLimits(
            write=supplier.write_timeout.total_seconds(),
            read=supplier.read_timeout.total_seconds(),
            idle=supplier.keep_alive.total_seconds(),
            body=supplier.max_reply_bytes,
        )
        self._allowance = Allowance(max(_LONG_REPLIES, 8 * supplier.max_reply_bytes))
        self._idle: dict[Connection, None] = {}
        """Idle connections, the one used last at the end. It is taken first, so that surplus ones reach their limit."""
        self._left_after = self._left_until = 0.0
        """Seconds of idleness after which the supplier closed a connection, and until when that is believed."""
        self._open: set[Connection] = set()
        self._none_left: asyncio.Future[None] | None = None
        self._resolving = asyncio.Lock()
        self._addresses: tuple[float, list[Any]] = (0.0, [])
        self._distrusted: dict[Any, float] = {}
        """Addresses to try last, each with the time since when."""
        tls = supplier.tls
        self.tls = ClientTls(TlsFiles(tls.certificate, tls.key, tls.ca)) if url.scheme == "https" else None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST `body` to the base URL plus `path`, once. Raises NotSent or Unclear; ValueError for a header that is
        none.
        """
        now = self._loop.time()
        head = self._head(path, headers, len(body))
        connection = self._kept()
        if connection is None:
            connection = await self._connected(now + min(self._connect, self._total))
        reply = await connection.exchange(head, body, now + self._total)
        if connection.kept:
            self._idle[connection] = None
        else:
            connection.close()
        return reply

    async def close(self) -> None:
        """Close every connection; the calls on them fail. The caller cancels those that are still connecting."""
        for connection in list(self._open):
            connection.abort()
        if self._open:
            self._none_left = self._loop.create_future()
            await self._none_left

    def _head(self, path: str, headers: Mapping[str, str], length: int) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError("a header holds a line break")
        return (
            f"POST {self._prefix}{path} HTTP/1.1\r\nHost: {self._netloc}\r\nAccept: */*\r\n"
            f"User-Agent: fault-adapter\r\n"  # some firewalls take no request without one
            f"Accept-Encoding: identity\r\nContent-Length: {length}\r\n{lines}\r\n"
        ).encode("latin-1")

    def _kept(self) -> Connection | None:
        """An idle connection, if one is fit. Those that are not, or were made with an older certificate, are closed.
        Nothing was written to them, so using another one is no retry.
        """
        context = self.tls.context if self.tls is not None else None
        now = self._loop.time()
        since = now - self._left_after + MARGIN if now < self._left_until else 0.0
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.context is context and connection.idle_since > since and connection.fit():
                return connection
            connection.close()
        return None

    async def _connected(self, until: float) -> Connection:
        """A new connection, fit to be written to. Raises NotSent."""
        began = self._loop.time()
        try:
            async with asyncio.timeout_at(until):
                connection = await self._new()
            stands = self._loop.time()
            expected = min(until, stands + max(_FIRST_WORD, stands - began))
            while connection.unheard and self._loop.time() < expected:  # noqa: ASYNC110 -- TLS tells nobody
                await asyncio.sleep(_LOOK)
            # What the loop has yet to read, such as another ticket, is no reason to give it up.
            while connection.alive and not connection.fit():  # noqa: ASYNC110 -- the socket tells, not the loop
                await asyncio.sleep(0)
        except TimeoutError:
            raise NotSent("connect-timeout", "no connection within the time limit") from None
        except OSError as error:
            raise failures.not_connected(error) from None
        except asyncio.CancelledError as error:
            raise error from NotSent("cancelled", "cancelled by the caller while connecting")
        if not connection.alive:
            why = "" if connection.context is None else ": the server may refuse our certificate"
            raise connection.refusal or NotSent("connect", f"the connection was lost before anything was sent{why}")
        return connection

    async def _new(self) -> Connection:
        context = self.tls.context if self.tls is not None else None
        link = await (self._tunnel(self._proxy) if self._proxy is not None else self._link(self._host, self._port))
        try:
            address = link.getpeername()
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED)
        except OSError:  # the connection has gone already
            link.close()
            raise
        try:
            with handed_over(link):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._limits, context, self._allowance, self._ended),
                    sock=link,
                    ssl=context,
                    server_hostname=None if context is None else self._host,
                    ssl_shutdown_timeout=None if context is None else _GOOD_BYE,
                )
        except BaseException:
            self._distrusted[address] = self._loop.time()
            raise
        if connection.alive:
            self._open.add(connection)
        return connection

    def _ended(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._open.discard(connection)
        after, now = connection.left_after, self._loop.time()
        # A shorter time says nothing about a limit: a restarting gateway closes all connections, even busy ones.
        if after is not None and after > 2 * MARGIN and (after <= self._left_after or now >= self._left_until):
            self._left_after, self._left_until = after, now + _BELIEVED
        if not self._open and self._none_left is not None and not self._none_left.done():
            self._none_left.set_result(None)

    async def _link(self, host: str, port: int) -> socket.socket:
        async with self._resolving:
            believed, addresses = self._addresses
            if believed < self._loop.time():
                addresses = await resolve(host, port)
                self._addresses = (self._loop.time() + _RESOLVED, addresses)
        over = self._loop.time() - _DISTRUSTED
        self._distrusted = {address: since for address, since in self._distrusted.items() if since > over}
        # Of several that have failed, the one that failed longest ago comes first.
        return await reach(sorted(addresses, key=lambda each: self._distrusted.get(each[4], over)))

    async def _tunnel(self, found: Callable[[], Proxy]) -> socket.socket:
        """A connection to the supplier through the proxy. Raises NotSent."""
        try:
            through = found()  # each time, since its credentials may have been replaced
        except Stop as stop:
            raise NotSent("proxy", str(stop)) from None
        try:
            link = await self._link(through.host, through.port)
        except OSError as error:
            raise failures.not_tunnelled(error) from None
        await through.connect(link, self._host, self._port)
        return link
