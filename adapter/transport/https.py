"""Calls to the supplier over HTTP/1.1, and the one question that decides what may follow a failure: can a byte of
the request have left?

It is not answered by the type of an error (the library reports a connection lost after the request as a connect
timeout) but by a fact: `_Request` below is the only place from which a request is written, and notes it first.
Until then every failure is NotSent, from then on Unclear. What is used and why: docs/decisions/0001-supplier-calls.md.
"""

import asyncio
import base64
import select
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from httpx_aiohttp import AiohttpTransport

from adapter.core.errors import Stop
from adapter.ports import NotSent, Reply, Unclear
from adapter.transport import failures
from adapter.transport.tls import ClientTls, Reload, TlsFiles

WATCH_INTERVAL = 5.0
"""Seconds between two looks at the certificate files."""

PIECE = 2**18
"""Bytes of a request that are written in one go."""


@dataclass(frozen=True, slots=True)
class CallSettings:
    base_url: str
    """Where the operations are; their path is appended."""

    connect: timedelta
    """Limit until a connection stands: name, TCP, proxy and TLS together."""

    write: timedelta
    """Limit until the request has been handed to the network, but for what our own buffer holds (64 KiB)."""

    read: timedelta
    """Longest wait for the head of the reply, and longest silence within its body."""

    total: timedelta
    """Limit of the whole call."""

    keep_alive: timedelta
    """A connection idle for longer is not used again. Less than the supplier's own limit."""

    max_reply_bytes: int
    tls: TlsFiles | None = None
    """None: the system's authorities and no client certificate."""

    allow_plaintext: bool = False
    proxy: str | None = None
    """URL of an HTTP proxy that is asked to CONNECT. Proxies of the environment are never used."""

    proxy_credentials: Path | None = None
    """File with one line `user:password`."""


class HttpsCalls:
    """ports.Calls. Made inside a running loop; close() it there.

    `on_reload` is told when the certificate files have changed. Raises Stop when the settings cannot work.
    A cancelled call stays cancelled; the cause (`__cause__`) of its CancelledError is the NotSent or Unclear it
    would have been.
    """

    def __init__(self, settings: CallSettings, *, on_reload: Callable[[Reload], None]) -> None:
        url = _base_url(settings)
        proxy = _proxy(settings)
        self._settings = settings
        self._base = str(url).rstrip("/")
        self._urls: dict[str, httpx.URL] = {}
        self._known: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()
        self.tls = ClientTls(settings.tls or TlsFiles()) if url.scheme == "https" else None
        session = aiohttp.ClientSession(
            # The worker bounds the calls; a second queue in here would only hide waiting from it.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=settings.keep_alive.total_seconds()),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            skip_auto_headers=("User-Agent",),
            trust_env=False,
        )
        # The context given here is never used, it only keeps the transport from building one of its own.
        idle = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._transport = AiohttpTransport(verify=idle, trust_env=False, client=session, proxy=proxy)
        self._watch: asyncio.Task[None] | None = None
        if self.tls is not None:
            self._watch = asyncio.create_task(self.tls.watch(WATCH_INTERVAL, on_reload))

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST `body` to the base URL plus `path`, once. Raises NotSent or Unclear."""
        if (url := self._urls.get(path)) is None:
            url = self._urls[path] = httpx.URL(self._base + path)
        request = httpx.Request(
            "POST",
            url,
            headers={"Accept-Encoding": "identity", "Content-Length": str(len(body)), **headers},
            content=body if len(body) <= PIECE else _Pieces(body),
        )
        call = _Call(self._settings, self._known, self.tls.context if self.tls else None)
        token = _CALL.set(call)
        try:
            async with call.clock:
                return await self._read(await self._send(request, call), call)
        except asyncio.CancelledError as error:
            raise error from call.cancelled()
        except Unclear:
            call.abandon()
            raise
        except _FAILURES as error:
            # Without the chain: a message of the HTTP parser quotes the reply, and a traceback may be logged.
            raise call.failure(error) from None
        except Exception as error:
            # Whatever else a library throws: once bytes may have left, nobody knows whether they were taken.
            if call.phase is _Phase.CONNECT:
                raise
            raise call.failure(error) from None
        finally:
            call.over = True
            _CALL.reset(token)

    async def close(self) -> None:
        """Close every connection; calls under way fail."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        await self._transport.aclose()

    async def _send(self, request: httpx.Request, call: "_Call") -> httpx.Response:
        while True:
            try:
                return await self._transport.handle_async_request(request)
            except _FAILURES:
                # A kept-alive connection that turned out to be of no use before anything was written: another one.
                # Each is discarded, and a new one is not "reused", so this ends.
                if not call.reused or call.phase is not _Phase.CONNECT:
                    raise
                call.reused = False

    async def _read(self, response: httpx.Response, call: "_Call") -> Reply:
        call.answered = True
        limit = self._settings.max_reply_bytes
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        try:
            headers = dict(response.headers)
            if response.status_code < 200:
                raise Unclear("protocol", f"status {response.status_code} is not final")
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise Unclear("protocol", "the reply has a content encoding although none was accepted")
            if int(headers.get("content-length", "0")) > limit:
                raise Unclear("too-large", f"the reply announces more than {limit} bytes")
            parts: list[bytes] = []
            size = 0
            async for part in stream:
                call.enter(_Phase.READ)
                size += len(part)
                if size > limit:
                    raise Unclear("too-large", f"the reply is longer than {limit} bytes")
                parts.append(part)
        finally:
            await stream.aclose()
        return Reply(response.status_code, headers, b"".join(parts))


class _Pieces:
    """A large body, handed over piece by piece: whole it would be copied at once while the loop waits."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), PIECE):
            yield self._body[start : start + PIECE]


class _Phase(StrEnum):
    CONNECT = "connect"
    WRITE = "write"
    READ = "read"


class _Call:
    """Facts about one call, noted where they happen."""

    def __init__(
        self,
        settings: CallSettings,
        known: weakref.WeakSet[ResponseHandler],
        context: ssl.SSLContext | None,
    ) -> None:
        now = asyncio.get_running_loop().time()
        self._settings = settings
        self._end = now + settings.total.total_seconds()
        self.clock = asyncio.timeout_at(min(self._end, now + settings.connect.total_seconds()))
        self.known = known
        self.context = context
        self.phase = _Phase.CONNECT
        self.transport: asyncio.Transport | None = None
        self.reused = False
        self.answered = False
        self.over = False

    def enter(self, phase: _Phase) -> None:
        """Begin a phase, or its time limit anew. The writer's task may come here after the call has ended."""
        self.phase = phase
        if not (self.over or self.clock.expired()):
            limit = self._settings.write if phase is _Phase.WRITE else self._settings.read
            now = asyncio.get_running_loop().time()
            self.clock.reschedule(min(self._end, now + limit.total_seconds()))

    def abandon(self) -> None:
        """Nothing more is written. A connection merely closed would stay until its peer has read the rest."""
        self.over = True
        if self.transport is not None:
            self.transport.abort()

    def cancelled(self) -> NotSent | Unclear:
        """What a call is that its caller has cancelled."""
        self.abandon()
        said = NotSent if self.phase is _Phase.CONNECT else Unclear
        return said("cancelled", f"cancelled by the caller, phase {self.phase}")

    def failure(self, error: Exception) -> NotSent | Unclear:
        """What a failed call is."""
        self.abandon()
        timed_out = isinstance(error, TimeoutError) and self.clock.expired()
        if self.phase is _Phase.CONNECT:
            if timed_out:
                return NotSent("connect-timeout", "no connection within the time limit")
            return failures.not_sent(error, proxied=self._settings.proxy is not None)
        if timed_out:
            limit = "total" if self.clock.when() == self._end else self.phase
            return Unclear(f"{limit}-timeout", f"time limit reached, phase {self.phase}")
        refused = None if self.reused or self.answered else failures.refused_certificate(error)
        return refused or failures.unclear(error)


_CALL: ContextVar[_Call] = ContextVar("call")

_FAILURES = (httpx.HTTPError, aiohttp.ClientError, OSError)
"""What the libraries raise when a call fails; TimeoutError and ssl.SSLError are OSErrors."""


class _Request(aiohttp.ClientRequest):
    """aiohttp's request, which notes in the call what happens to it.

    A CONNECT to a proxy is made from the plain class, so it counts as connecting.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._call = _CALL.get()
        if self._call.context is not None:
            # The context is part of the key under which connections are pooled: those made with an older
            # certificate are not found any more, and end by idling.
            kwargs["ssl"] = self._call.context
        super().__init__(*args, **kwargs)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        call, protocol, transport = self._call, conn.protocol, conn.transport
        call.reused = protocol in call.known
        if protocol is None or transport is None:
            raise failures.Gone
        call.transport = transport
        if not call.reused:
            call.known.add(protocol)
        elif protocol.should_close or _readable(transport):
            raise failures.Gone
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        protocol, transport = conn.protocol, conn.transport
        if self._call.over or transport is None or transport.is_closing():
            if protocol is not None:
                protocol.set_exception(failures.Gone())
            return
        # From here to the first byte nothing is awaited.
        self._call.enter(_Phase.WRITE)
        await super().write_bytes(writer, conn, content_length)
        self._call.enter(_Phase.READ)


def _readable(transport: asyncio.Transport) -> bool:
    # Between two calls a server has nothing to say but good-bye, or something that must not be taken for the answer
    # to the next request. The loop may not have seen it yet; the socket tells.
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _base_url(settings: CallSettings) -> httpx.URL:
    url = _url("base URL", settings.base_url)
    problems = []
    match url.scheme:
        case "https":
            pass
        case "http" if settings.allow_plaintext:
            if settings.proxy is not None:
                problems.append("proxy: needs an https:// base URL; a plain one is not tunnelled")
        case "http":
            problems.append("base URL: http:// sends everything in the clear; use https://, or allow plaintext")
        case _:
            problems.append("base URL: must start with https://")
    if not url.host or url.userinfo or url.query or url.fragment:
        problems.append("base URL: must be scheme, host, port and path, without user, query or fragment")
    if problems:
        raise Stop(*problems)
    return url


def _proxy(settings: CallSettings) -> httpx.Proxy | None:
    if settings.proxy is None:
        return None
    url = _url("proxy", settings.proxy)
    if url.scheme != "http" or not url.host or url.userinfo:
        raise Stop("proxy: must be http://host:port; its credentials belong in a file")
    headers = {}
    if settings.proxy_credentials is not None:
        try:
            credentials = settings.proxy_credentials.read_text().strip()
        except OSError as error:
            raise Stop(f"{settings.proxy_credentials}: cannot be read ({error.strerror})") from None
        if ":" not in credentials:
            raise Stop(f"{settings.proxy_credentials}: must hold one line user:password")
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return httpx.Proxy(url, headers=headers)


def _url(what: str, text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except httpx.InvalidURL:
        raise Stop(f"{what}: is not a URL") from None
