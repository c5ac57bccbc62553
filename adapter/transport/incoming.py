"""The connections of callers: HTTP/1.1 with keep-alive and pipelining, requests answered one after the other.

The bytes are parsed by llhttp (httptools), which is strict about framing; the sizes and times it does not limit are
limited here. A refused request is answered before its body has been read: the rest of the body is discarded for a
moment, so that the caller can read the answer, then the connection is closed.
"""

import asyncio
import select
import ssl
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from adapter.core.notification import Delivery
from adapter.ports import Answer, Arrival, Caller, Head, Peer, Receiver
from adapter.telemetry import Log, parse_traceparent
from adapter.transport.server_tls import ServerTls

_HEADER_LINES: Final = 100
_HEADER_BYTES: Final = 32 * 1024
"""Bytes of all header lines of a request. A certificate that a proxy passes on may take 8 KiB of them."""
_LONG_HEADER: Final = f"the header is longer than {_HEADER_BYTES} bytes or {_HEADER_LINES} lines"
_PIPELINED: Final = 128
"""Pipelined requests of one connection that may wait; once there are more, those are answered and it is closed."""
_FRAMING_BYTES: Final = 64 * 1024
"""Chunk framing that is allowed in a body, besides a quarter of the body's size: nobody needs chunks of a few bytes."""
_FEW: Final = 10
"""This fraction (1/10) of the connections is reserved for handshakes, however many callers are connected."""
_LINGER: Final = 2.0
"""Seconds for which the rest of a refused request is discarded before the connection is closed."""
_OFFER: Final = frozenset({"connection", "upgrade", "http2-settings"})
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROXIED: Final = "it begins with the PROXY protocol, which has to be off"
_OTHERS: Final = {
    b"PROXY ": _PROXIED,
    b"\r\n\r\n\0\r\nQUIT\n": _PROXIED,
    b"PRI * HTTP/2.0": "it is HTTP/2, and has to be HTTP/1.1",
    b"\x16\x03": "it is TLS, and we listen without",
}
"""First bytes of what load balancers may speak instead of HTTP/1.1, with the explanation."""


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """Times in seconds."""

    body_bytes: int
    bytes_in_flight: int
    connections: int
    idle: float
    body: float


class Shared:
    """What all connections of a listener have in common: receiver, limits, TLS context, and the bookkeeping by which
    idle, slow or surplus ones are closed.
    """

    def __init__(self, receiver: Receiver, limits: CallerLimits, tls: ServerTls | None, log: Log) -> None:
        self.receiver = receiver
        self.limits = limits
        self.log = log
        self._tls = tls
        self.entering: dict[Incoming, asyncio.Task[None]] = {}
        """Connections in their handshake with the task that carries it out, oldest first."""
        self.open: OrderedDict[Incoming, float] = OrderedDict()
        """Established connections with the time of their last activity, the least recently active first."""
        self.bodies: OrderedDict[Incoming, float] = OrderedDict()
        """Connections in the middle of a request body, with the time its reading began."""
        self.bytes_in_flight = 0
        self.parting = False
        """Each connection is closed after its next answer that no other request waits behind."""

    @property
    def context(self) -> ssl.SSLContext | None:
        """The newest TLS context; connections made with an older one are closed after their next answer."""
        return None if self._tls is None else self._tls.context

    @property
    def count(self) -> int:
        return len(self.entering) + len(self.open)

    async def evict(self) -> None:
        """Close one connection. Anybody who can open a socket can start a handshake, so while there are more than a
        few handshakes the oldest of them goes; otherwise the connection that has been idle for longest.
        """
        if self.open and len(self.entering) <= max(1, self.limits.connections // _FEW):
            self.close_idlest()
        elif self.entering:
            first = next(iter(self.entering.values()))
            first.cancel()
            await asyncio.wait((first,))  # it counts until it has gone

    def enter(self, incoming: "Incoming") -> None:
        self.entering.pop(incoming, None)
        self.alive(incoming)

    def alive(self, incoming: "Incoming") -> None:
        self.open[incoming] = time.monotonic()
        self.open.move_to_end(incoming)

    def leave(self, incoming: "Incoming") -> None:
        self.open.pop(incoming, None)

    def close_idlest(self) -> None:
        incoming, _ = self.open.popitem(last=False)
        incoming.abort()

    def sweep(self) -> None:
        """Close connections that were idle for too long, and refuse requests whose body takes too long to arrive."""
        now = time.monotonic()
        while self.open:
            incoming, since = next(iter(self.open.items()))
            if since > now - self.limits.idle:
                break
            if incoming.busy or incoming.spoken_to:
                self.alive(incoming)
            else:
                self.close_idlest()
        while self.bodies:
            incoming, since = next(iter(self.bodies.items()))
            if since > now - self.limits.body:
                break
            incoming.refuse(self.receiver.too_slow(incoming.caller))


@dataclass(slots=True)
class _Request:
    head: Head
    keep_alive: bool
    judged: Caller | Answer
    """Who sent it, or the answer that was decided on its header alone."""
    body: bytes = b""
    received: int = 0
    pieces: list[bytes] = field(default_factory=list)


class Incoming(asyncio.Protocol):
    """One connection."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._context = shared.context
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer = Peer("", None)
        self._parser: HttpRequestParser | None = None
        self._path = b""
        self._headers: dict[str, str] = {}
        self._lines = 0
        self._size = 0
        """Bytes of the header being read, then of the body with its framing; may be overestimated, but lacks what came
        in one piece with the end of the header.
        """
        self._reading: _Request | None = None
        """The request whose header is complete and whose body is not."""
        self._waiting: deque[_Request] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._owes_continue = False
        self._without_offer = b""
        """The header of a request that offers a protocol upgrade, without that offer."""
        self._moved = False
        """A header or a body has begun or ended within the bytes being parsed."""
        self._ending = False
        """Nothing more is read; the waiting requests are answered, then the connection is closed."""
        self._unread = False
        """Part of a request was not read."""
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered, so that the idle limit does not apply. A caller who does not
        read its answers counts as idle.
        """
        return self._writable.is_set() and (self._reading is not None or self._serving is not None)

    @property
    def spoken_to(self) -> bool:
        """Whether something has come, while nothing was under way, that the loop has yet to read."""
        if self._transport is None or self._ending or self._reading is not None or self._serving is not None:
            return False
        look = select.poll()
        look.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(look.poll(0))

    @property
    def caller(self) -> Caller:
        """Who sends what is being read, as far as that is known."""
        judged = None if self._reading is None else self._reading.judged
        return judged if isinstance(judged, Caller) else Caller(self._peer.address, None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Answer the requests that are complete, then close."""
        self._ending = True
        self._forget_body()
        if self._serving is None:
            self._end()

    def refuse(self, answer: Answer) -> None:
        """Read nothing more; `answer` is the last one on this connection."""
        self._ending = self._unread = True
        head = Head("", "", {}) if self._reading is None else self._reading.head
        self._forget_body()
        self._queue(_Request(head, keep_alive=False, judged=answer))

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = None if secured is None else secured.getpeercert(binary_form=True)
        self._peer = Peer(str(name[0]) if isinstance(name, tuple) else "", certificate)
        self._shared.enter(self)

    def data_received(self, data: bytes) -> None:
        while data and not self._ending:
            if self._parser is None:
                self._parser = HttpRequestParser(self)
            self._moved = False
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = self._without_offer + data[upgrade.args[0] :]
                self._parser, self._without_offer = None, b""
                continue
            except HttpParserCallbackError as error:
                if not isinstance(error.__context__, _Enough):
                    self._shared.log.exception("notification answer failed")
                    self.refuse(_OURS)
            except HttpParserError as error:  # its words are llhttp's own, and quote nothing
                why = next((said for begin, said in _OTHERS.items() if data.startswith(begin)), str(error))
                self.refuse(self._shared.receiver.garbled(self.caller, why))
            # The parser does not report a line before its end, chunk framing, or bytes before a request. If nothing has
            # begun or ended, all these bytes belong to the same header or body.
            if not self._moved and not self._ending and (answer := self._too_long(len(data))):
                self.refuse(answer)
            return

    def eof_received(self) -> bool:
        """Whether to stay half open: what is whole is still answered. TLS knows no such state."""
        self._ending = True
        return self._serving is not None and self._context is None

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the protocol's signature
        # A request that is being answered goes on: its notification may already be on its way to Kafka.
        self._transport = None
        self._parser = None  # a cycle of references, which would keep the TLS context until a full garbage collection
        self._ending = True
        self._forget_body()
        self._forget_waiting()
        self._writable.set()
        self._shared.leave(self)

    # -- the parser's callbacks --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._path, self._headers, self._lines, self._size = b"", {}, 0, 0
        self._moved = True

    def on_url(self, url: bytes) -> None:
        self._path += url
        self._stop_if(self._too_long(len(url)))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:  # a trailer, which nobody asked for
            return
        self._lines += 1
        self._stop_if(self._too_long(len(name) + len(value)))
        lower, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        self._headers[lower] = f"{self._headers[lower]}, {text}" if lower in self._headers else text

    def on_headers_complete(self) -> None:
        parser, shared = cast("HttpRequestParser", self._parser), self._shared
        if "transfer-encoding" in self._headers and parser.get_http_version() == "1.0":
            # Whoever passed it on may not know of chunks (RFC 9112 section 6.1).
            self._stop_if(shared.receiver.garbled(self.caller, "Transfer-Encoding in HTTP/1.0"))
        if "upgrade" in self._headers and parser.should_upgrade():
            # We do not take up the offer (RFC 9110 section 7.8), but the parser would take the body for another
            # protocol: the request is read again without it.
            kept = [f"{name}: {text}\r\n" for name, text in self._headers.items() if name not in _OFFER]
            method, path, version = parser.get_method(), self._path.decode("latin-1"), parser.get_http_version()
            line = f"{method.decode('latin-1')} {path} HTTP/{version}\r\n"
            after = "Connection: keep-alive\r\n" if parser.should_keep_alive() else "Connection: close\r\n"
            self._without_offer = "".join((line, after, *kept, "\r\n")).encode("latin-1")
            return
        head = Head(parser.get_method().decode("latin-1"), self._path.decode("latin-1"), self._headers)
        shared.alive(self)
        judged = shared.receiver.admit(self._peer, head)
        self._reading = _Request(head, parser.should_keep_alive(), judged)
        self._size = 0
        self._moved = True
        if isinstance(judged, Answer) and judged.close:
            self._stop_if(judged)
        # An older client would take it for the answer (RFC 9110 section 10.1.1).
        asked = self._headers.get("expect", "").lower() == "100-continue"
        self._owes_continue = asked and parser.get_http_version() != "1.0"
        if self._serving is None:
            self._go_on()

    def on_body(self, body: bytes) -> None:
        request, shared = self._reading, self._shared
        assert request is not None
        request.received += len(body)
        shared.bytes_in_flight += len(body)
        if request.received > shared.limits.body_bytes:
            self._stop_if(shared.receiver.too_large(self.caller))
        if shared.bytes_in_flight > shared.limits.bytes_in_flight:
            self._stop_if(shared.receiver.too_busy(self.caller))
        request.pieces.append(body)

    def on_message_complete(self) -> None:
        request = self._reading
        if request is None:  # an offer, which is read again
            return
        request.body = b"".join(request.pieces)
        request.pieces.clear()
        self._reading, self._size, self._moved = None, 0, True
        self._shared.bodies.pop(self, None)
        self._queue(request)
        if not request.keep_alive:
            self._ending = True
            raise _Enough
        if len(self._waiting) > _PIPELINED:
            self._ending = self._unread = True
            raise _Enough

    def _too_long(self, more: int) -> Answer | None:
        self._size += more
        if self._reading is not None:
            received = self._reading.received
            if self._size - received > _FRAMING_BYTES + received // 4:
                return self._shared.receiver.too_large(self.caller)
        elif self._size > _HEADER_BYTES or self._lines > _HEADER_LINES:
            return self._shared.receiver.garbled(self.caller, _LONG_HEADER)
        return None

    def _stop_if(self, answer: Answer | None) -> None:
        if answer is not None:
            self.refuse(answer)
            raise _Enough

    # -- answering ---------------------------------------------------------------------------------------------------

    def _queue(self, request: _Request) -> None:
        self._waiting.append(request)
        if self._serving is None:
            self._serving = self._loop.create_task(self._serve())
        elif self._transport is not None:  # the socket keeps what else the caller has to say
            self._transport.pause_reading()

    async def _serve(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            answer = await self._answer(request)
            self._shared.bytes_in_flight -= request.received
            outdated = self._context is not self._shared.context
            leaving = (self._shared.parting or self._ending) and not self._waiting
            last = answer.close or outdated or leaving
            stay = None if last else int(self._shared.limits.idle)
            self._write(_response(answer, stay=stay, whole=request.head.method != "HEAD"))
            if last:
                self._forget_waiting()
                self._end()
            elif self._transport is not None:
                self._shared.alive(self)
                await self._writable.wait()
        self._serving = None
        if self._transport is not None and not self._ending:
            self._transport.resume_reading()
            if self._reading is not None:
                self._go_on()

    def _go_on(self) -> None:
        """Read the body. Its time limit begins only now, since nothing is read while an earlier request is answered."""
        self._shared.bodies[self] = time.monotonic()
        if self._owes_continue:
            self._owes_continue = False
            self._write(_CONTINUE)

    async def _answer(self, request: _Request) -> Answer:
        if isinstance(request.judged, Answer):
            return request.judged
        try:
            return await self._shared.receiver.receive(_arrival(request, request.judged))
        except Exception:
            self._shared.log.exception("notification answer failed")
            return _OURS

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _end(self) -> None:
        self._ending = True
        transport = self._transport
        if transport is None:
            return
        if not self._unread:
            transport.close()
            return
        # If it were closed with bytes unread, the kernel would reset it, and the answer be lost (RFC 9112 section 9.6).
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        self._loop.call_later(_LINGER, transport.abort)

    def _forget_body(self) -> None:
        if self._reading is not None:
            self._shared.bytes_in_flight -= self._reading.received
            self._shared.bodies.pop(self, None)
            self._reading = None

    def _forget_waiting(self) -> None:
        while self._waiting:
            self._shared.bytes_in_flight -= self._waiting.popleft().received


class _Enough(Exception):  # noqa: N818 -- never leaves this module
    """Raised in the parser's callbacks to stop parsing."""


_OURS: Final = Answer(500, b"A fault of ours; send it again.\n", close=True)


def _arrival(request: _Request, caller: Caller) -> Arrival:
    headers = request.head.headers
    delivery = Delivery(
        body=request.body,
        received_at=datetime.now(UTC),
        path=request.head.path,
        content_type=headers.get("content-type"),
        soap_action=headers.get("soapaction"),
    )
    trace = parse_traceparent(headers.get("traceparent"))
    return Arrival(delivery, caller, None if trace is None else str(trace))


def _response(answer: Answer, *, stay: int | None, whole: bool) -> bytes:
    """`stay`: seconds for which the idle connection is kept; None: it is closed after this answer. Not `whole`: the
    head alone, as the answer to HEAD.
    """
    more = "".join(f"{name}: {text}\r\n" for name, text in answer.headers.items()) if answer.headers else ""
    end = "close" if stay is None else f"keep-alive\r\nKeep-Alive: timeout={stay}"
    head = (
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"{more}"
        f"Date: {_date(int(time.time()))}\r\n"
        "Server: fault-adapter\r\n"
        f"Connection: {end}\r\n\r\n"
    ).encode("latin-1")
    return head + answer.body if whole else head


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
