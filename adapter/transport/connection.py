"""One HTTP/1.1 connection to the supplier, with one exchange at a time: a request is written, its reply is read.

The bytes are parsed by llhttp (httptools), which is strict about framing; everything it does not bound (head, body,
time) is bounded here. Until `exchange` is called nothing has been written; from then on it may have arrived.
"""

import asyncio
import re
import select
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from adapter.core.allowance import Allowance, Share
from adapter.ports import NotSent, Reply, Unclear
from adapter.transport import failures

_PIECE: Final = 2**18
"""Bytes of a request that are written at once. Written whole, a large one would block the loop while it is copied."""

_HEAD: Final = 2**18
"""Bytes within which the head of a reply has to end."""

LONG: Final = 2**15
"""Bytes of a reply that are read without a share of the allowance."""

_FRAMING: Final = 8
"""How many times as long as its body a chunked reply may be, with the framing of its chunks."""

_NAMED: Final = re.compile(r"\btimeout\s*=\s*([0-9]{1,9})\b", re.IGNORECASE)
"""The timeout in a Keep-Alive header: seconds after which the server closes an idle connection."""

MARGIN: Final = 1.0
"""Seconds before that limit after which a connection is not used again. A request that crosses with the server's close
would be in doubt.
"""


@dataclass(frozen=True, slots=True)
class CallLimits:
    write: float
    """Seconds until the request has been handed to the network, but for what our own buffer holds (64 KiB)."""
    read: float
    """Seconds of silence before the head of the reply, and within its body."""
    idle: float
    """Seconds of idleness after which it is not used again, unless the supplier names fewer. Zero: it never is."""
    body: int
    """Bytes of a reply's body."""


class _Reading:
    """One reply while it comes. The parser calls the `on_` methods."""

    __slots__ = (
        "_announced",
        "_body",
        "_fault",
        "_length",
        "_limit",
        "_parser",
        "framed",
        "headers",
        "size",
        "spoiled",
        "status",
        "whole",
    )

    def __init__(self, limit: int) -> None:
        self.status = 0
        """Of the final reply, once its head is whole."""
        self.headers: dict[str, str] = {}
        self.framed = False
        """Whether it says itself where it ends."""
        self.whole = False
        self.spoiled = False
        """Whether nothing can follow it on its connection."""
        self.size = 0
        """Bytes that came."""
        self._limit = self._announced = limit
        self._length = 0
        self._body: bytes | bytearray = b""
        self._fault: Unclear | None = None
        self._parser = HttpResponseParser(self)
        # A line may end with LF alone (RFC 9112 section 2.2) and be folded (section 5.2, which takes any characters in
        # values along), a chunk's size may be followed by spaces.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: bytes) -> None:
        """Parse more bytes. Raises Unclear if they are no reply that can be accepted."""
        self.size += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            if self.status == 101:
                raise Unclear("protocol", "the reply changes the protocol") from None
            self.spoiled = True  # what was not asked for does
        except HttpParserError:
            if not self.whole:  # without the parser's words: they quote the reply
                raise Unclear("protocol", "the reply is not HTTP") from None
            self.spoiled = True
        if self._fault is not None:
            raise self._fault
        if not self.status and self.size > _HEAD:
            raise Unclear("protocol", "the head of the reply does not end")
        if self._length > self._limit or (not self.whole and self.size > _HEAD + _FRAMING * self._limit):
            raise Unclear("too-large", f"the reply is longer than {self._limit} bytes")

    def reply(self, share: Share | None) -> Reply:
        """The whole reply. A long one keeps as much of its share as its body needs."""
        body, self._body = bytes(self._body), b""
        if share is None:
            return Reply(self.status, self.headers, body)
        share.shrink(len(body))
        return Reply(self.status, self.headers, body, share.release)

    def forget(self) -> None:
        """Break the cycle of references with the parser, which every call would otherwise leave to the garbage
        collector.
        """
        del self._parser

    @property
    def begun(self) -> bool:
        return self.size > 0

    @property
    def most(self) -> int:
        """The maximum size of the whole reply, in bytes."""
        if self.whole:
            return self.size
        return self.size + self._announced - self._length if self.status else _HEAD + self._limit

    def on_message_begin(self) -> None:
        if self.whole:  # more than was asked for
            self.spoiled = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:  # a trailer, or of what was not asked for
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self.headers
        if self.whole:
            return
        if status < 200 and status != 101:  # the final one is still to come
            self.headers = {}
            return
        self.status = status
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        self.framed = coding is not None or length is not None
        if coding is not None and coding.rstrip(" ").lower() != "chunked":  # with a tab it is none to the parser either
            self._fault = Unclear("protocol", "the reply has a transfer encoding other than chunked")
        elif length is not None:
            self._announced = int(length)
            if self._announced > self._limit:
                self._fault = Unclear("too-large", f"the reply announces more than {self._limit} bytes")

    def on_body(self, part: bytes) -> None:
        if self.whole:
            return
        if not self._length:
            self._body = part  # usually the whole body
        else:  # not a list: pieces of a few bytes each would take many times their size
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part
        self._length += len(part)

    def on_message_complete(self) -> None:
        if self.status and not self.whole:
            self.whole = True
            self.spoiled = not self._parser.should_keep_alive()


class Connection(asyncio.Protocol):
    """A connection to the supplier, as asyncio's protocol. `context` is the TLS context it was made with, `allowance`
    grants the shares of long replies, and `ended` is called when the connection is gone.
    """

    def __init__(
        self,
        limits: CallLimits,
        context: ssl.SSLContext | None,
        allowance: Allowance,
        ended: Callable[["Connection"], None],
    ) -> None:
        self.context = context
        self.refusal: NotSent | None = None
        """Why the server closed it before anything was written, if it gave a reason."""
        self.left_after: float | None = None
        """Seconds for which it had been idle when the server closed it."""
        self.idle_since = 0.0
        self._limits = limits
        self._allowance = allowance
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._socket = select.poll()
        self._transport: asyncio.Transport | None = None
        self._fresh = True
        self._spoiled = False
        self._idle = limits.idle
        self._reading: _Reading | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._share: Share | None = None
        """Of the allowance, for a long reply. Until it is granted, nothing is read."""
        self._room: asyncio.Future[None] | None = None
        """Exists while the transport takes no more."""
        self._end = self._deadline = self._rings_at = 0.0
        self._phase = ""
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        """Whether `ended` has not been called yet."""
        return self._transport is not None

    @property
    def kept(self) -> bool:
        """Whether it may be used for another exchange later."""
        return not self._spoiled

    @property
    def unheard(self) -> bool:
        """Whether nothing shows yet that the server takes our certificate. In TLS 1.3 it looks at it when we have ended
        our handshake. If it refuses, it closes the connection; if not, most servers send a ticket for a later session
        (RFC 8446 section 4.6.1).
        """
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return tls is not None and tls.version() == "TLSv1.3" and not tls.session.has_ticket

    def fit(self) -> bool:
        """Whether a request may be written: nothing came since the last reply, not even an end."""
        if self._spoiled or self._transport is None or self._transport.is_closing():
            return False
        # What a server sends between two calls is its close, or something that must not be taken for the answer to the
        # next request. The loop may not have read it yet, so the socket is asked.
        return not self._socket.poll(0)

    async def exchange(self, head: bytes, body: bytes, end: float) -> Reply:
        """Write the request and wait for its reply, at most until `end` (the loop's time); for a fit connection only.

        Raises Unclear, or NotSent where that is proved after all. Then, and when it is cancelled, the connection is
        gone. A cancelled exchange stays cancelled, caused by the Unclear it would have been.
        """
        assert self._transport is not None and self._reply is None, "it was fit"  # noqa: PT018 -- one question
        reading = self._reading = _Reading(self._limits.body)
        self._end = end
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._reply = reply
        try:
            self._enter("write", self._limits.write)
            if len(body) <= _PIECE:
                self._transport.write(head + body)
            else:
                await self._write_pieces(self._transport, head, body, reply)
            if self._room is not None:
                await self._room
            if not self._waits:
                self._enter("read", self._limits.read)
            found = await reply
        except asyncio.CancelledError as error:
            self.abort()
            raise error from Unclear("cancelled", f"cancelled by the caller, phase {self._phase}")
        else:
            self._share = None  # the caller releases it
            return found
        finally:
            reading.forget()
            self._reading = self._reply = None
            if self._share is not None:
                self._share.release()
                self._share = None
            self._fresh = False
            self.idle_since = self._loop.time()
            self._enter("idle", self._idle)

    async def _write_pieces(
        self, transport: asyncio.Transport, head: bytes, body: bytes, reply: "asyncio.Future[Reply]"
    ) -> None:
        transport.write(head)
        for start in range(0, len(body), _PIECE):
            if self._room is not None:
                await self._room
            if reply.done():  # an answer, or the end, before all was written
                self._spoiled = True
                return
            transport.write(body[start : start + _PIECE])

    def close(self) -> None:
        self._spoiled = True
        if self._transport is not None and not self._transport.is_closing():  # a second time, asyncio's loses its way
            self._transport.close()

    def abort(self) -> None:
        """Close it without writing the rest of the buffer; `close` would wait until the peer has read that."""
        self._spoiled = True
        if self._transport is not None:
            self._transport.abort()

    # -- the transport tells -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if self.context is not None:
            # By default TLS goes on reading up to 256 KiB while we do not. The limits must exceed a record, of 16 KiB.
            cast("Any", transport).set_read_buffer_limits(LONG, LONG)
        self._socket.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._enter("idle", self._limits.write)  # its first request follows; how long it may be kept is another matter

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if reading is None or self._reply is None or self._reply.done():
            self.abort()
            return
        try:
            reading.feed(data)
        except Unclear as failure:
            self._fail(failure)
            return
        if reading.size > LONG:
            if self._share is None:
                self._share = self._allowance.request(reading.most, self._granted)
            if self._waits:  # TLS may deliver more even so
                self._pause()
                return
        self._taken(self._reply, reading)

    def eof_received(self) -> None:
        """The transport then closes by itself."""

    def connection_lost(self, error: Exception | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        given_up, self._spoiled = self._spoiled, True
        reading = self._reading
        if reading is not None and self._reply is not None and not self._reply.done():
            ended = error is None and not given_up and not self._waits
            if ended and reading.status and not reading.framed:  # such a reply ends with the connection
                self._settle(self._reply, reading)
            else:
                proof = failures.refused_certificate(error) if self._fresh and not reading.begun else None
                self._fail(proof or failures.lost(error))
        elif self._fresh:
            self.refusal = failures.refused_certificate(error)
        elif not given_up:
            self.left_after = self._loop.time() - self.idle_since
        self.resume_writing()
        self._transport = None
        self._ended(self)

    # -- within ------------------------------------------------------------------------------------------------------

    @property
    def _waits(self) -> bool:
        """Whether the reply waits for its share."""
        return self._share is not None and not self._share.granted

    def _pause(self) -> None:
        """Stop reading. A silent server cannot be told from a busy one then, so only the total time limit applies."""
        assert self._transport is not None, "something came"
        self._transport.pause_reading()
        self._enter("wait", inf)

    def _granted(self) -> None:
        """Resume reading, after handling what has already arrived."""
        if self._transport is None or self._reading is None or self._reply is None or self._reply.done():
            return  # the exchange has failed and is about to release it
        self._transport.resume_reading()
        self._taken(self._reply, self._reading)

    def _taken(self, reply: "asyncio.Future[Reply]", reading: _Reading) -> None:
        if reading.whole:
            self._spoiled = self._spoiled or reading.spoiled
            self._settle(reply, reading)
        elif reading.status:
            self._enter("read", self._limits.read)

    def _settle(self, reply: "asyncio.Future[Reply]", reading: _Reading) -> None:
        found = reading.reply(self._share)
        reply.set_result(found)
        if named := _NAMED.search(found.headers.get("keep-alive", "")):
            self._idle = min(self._limits.idle, float(named[1]) - MARGIN)
        self._spoiled = self._spoiled or self._idle <= 0
        self._let_go()

    def _fail(self, failure: NotSent | Unclear) -> None:
        assert self._reply is not None, "within an exchange"
        if isinstance(failure, Unclear) and self._reading is not None and self._reading.status:
            failure.head = Reply(self._reading.status, self._reading.headers, b"")
        self._reply.set_exception(failure)
        self.abort()
        self._let_go()

    def _let_go(self) -> None:
        """Release an exchange that is still waiting to write the rest of its request."""
        if self._room is not None and not self._room.done():
            self._spoiled = True
            self._room.set_result(None)

    def _enter(self, phase: str, seconds: float) -> None:
        """Begin a phase, or restart its time limit. An alarm that is set for an earlier time is kept, and set again
        when it rings, so that an exchange usually needs no timer of its own.
        """
        self._phase = phase
        self._deadline = self._loop.time() + seconds
        if phase != "idle":
            self._deadline = min(self._deadline, self._end)
        if self._alarm is not None and self._rings_at > self._deadline:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None and self._transport is not None:
            self._rings_at = self._deadline
            self._alarm = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._loop.time() < self._deadline:
            self._rings_at = self._deadline
            self._alarm = self._loop.call_at(self._deadline, self._ring)
        elif self._reply is None:
            self.close()
        elif not self._reply.done():
            limit = "total" if self._deadline == self._end else self._phase
            self._fail(Unclear(f"{limit}-timeout", f"time limit reached, phase {self._phase}"))
