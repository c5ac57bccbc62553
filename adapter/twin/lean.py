"""The lean twin: fixed replies for measurements, as cheap as a bare protocol can be. It validates nothing and
keeps no tickets, but it counts, and notes key, message id and times of every request, so that order and overlaps
can still be proved. About 250 bytes of memory per request; DELETE /twin/calls forgets them.

It reads HTTP/1.1 requests with a Content-Length and answers each with 200. Give it an event loop of its own
(uvloop): then it serves more than any client here can ask for.
"""

import asyncio
import contextlib
import ssl
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final, Self, cast

from aiohttp import web

from adapter import listen
from adapter.core.soap import Version
from adapter.twin import answers, calls, control, desk
from adapter.twin.lines import line
from adapter.twin.settings import TwinSettings
from adapter.twin.tickets import Slot

_MESSAGE_ID: Final = "@message-id@"
_MAX_HEAD: Final = 65536
_MAX_BODY: Final = 16 * 1024 * 1024


class Lean:
    """A lean twin, for as long as the `async with` lasts. Raises Stop if it cannot listen."""

    def __init__(self, settings: TwinSettings) -> None:
        self.settings = settings
        self.tally = Tally()
        self.url = ""
        self.control_url = ""
        self._running = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        given = self.settings
        replies = _replies(datetime.now(UTC))
        loop = asyncio.get_running_loop()
        controls = _controls(self.tally)
        async with contextlib.AsyncExitStack() as stack:
            self.url = await listen.serve_protocol(
                stack,
                lambda: _Connection(loop, self.tally, replies, given.latency),
                given.host,
                given.port,
                tls=given.tls.context(ssl.PROTOCOL_TLS_SERVER) if given.tls else None,
            )
            self.url += given.base_path
            self.control_url = await listen.serve(stack, controls, given.control_host, given.control_port)
            self._running = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()
        self.tally.hang_up()


@dataclass(slots=True)
class Tally:
    """What the lean twin remembers: parallel columns, one entry per request."""

    received: "array[float]" = field(default_factory=lambda: array("d"))
    finished: "array[float]" = field(default_factory=lambda: array("d"))
    labels: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    """Operation, key, message id."""

    under_way: Counter[bytes] = field(default_factory=Counter)
    messages: set[bytes] = field(default_factory=set)
    overlaps: int = 0
    most_at_once: int = 0
    at_once: int = 0
    forgotten: int = 0
    connections: set["_Connection"] = field(default_factory=set)

    def begin(self, operation: bytes, key: bytes, message_id: bytes) -> int:
        """Notes a request; its number."""
        self.received.append(time.monotonic())
        self.finished.append(0.0)
        self.labels.append((operation, key, message_id))
        self.messages.add(message_id)
        under_way = self.under_way
        if key and under_way[key]:
            self.overlaps += 1
        under_way[key] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        return self.forgotten + len(self.labels) - 1

    def end(self, number: int, key: bytes) -> None:
        self.under_way[key] -= 1
        self.at_once -= 1
        if number >= self.forgotten:
            self.finished[number - self.forgotten] = time.monotonic()

    def forget(self) -> None:
        """Starts from nothing, for the next measurement; what is under way stays under way."""
        self.forgotten += len(self.labels)
        del self.received[:], self.finished[:]
        self.labels.clear()
        self.under_way = +self.under_way
        self.messages.clear()
        self.overlaps = 0
        self.most_at_once = self.at_once

    def hang_up(self) -> None:
        for connection in list(self.connections):
            connection.close()

    def summary(self) -> dict[str, float]:
        """As `calls.summary`, and the most requests that were under way at once."""
        return {
            "requests": len(self.labels),
            "keys": len(self.under_way) - (b"" in self.under_way),
            "repeated": len(self.labels) - len(self.messages),
            "overlaps": self.overlaps,
            "seconds": self.received[-1] - self.received[0] if self.received else 0.0,
            "most_at_once": self.most_at_once,
        }

    def lines(self, since: int) -> str:
        """JSON lines as in the call log, from the request after `since`."""
        wall = time.time() - time.monotonic()
        out: list[str] = []
        for number in range(since, len(self.labels)):
            operation, key, message_id = (part.decode("utf-8", "replace") for part in self.labels[number])
            finished = self.finished[number] or None
            received = self.received[number]
            call = calls.Call(
                sequence=number + 1,
                received=received,
                received_at=datetime.fromtimestamp(wall + received, UTC).isoformat(),
                operation=operation,
                key=key or None,
                message_id=message_id or None,
                connection="",
                taken=True,
                verdict="accepted",
                answered=200 if finished else None,
                finished=finished,
            )
            out.append(line(call))
        return "".join(out)


class _Connection(asyncio.Protocol):
    """One connection. Requests that come before the one ahead is answered wait in the buffer, so that answers
    keep the order of the requests.
    """

    __slots__ = ("_buffer", "_busy", "_latency", "_loop", "_replies", "_tally", "_transport")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tally: Tally,
        replies: dict[bytes, tuple[bytes, bytes]],
        latency: float,
    ) -> None:
        self._loop = loop
        self._tally = tally
        self._replies = replies
        self._latency = latency
        self._buffer = b""
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._tally.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._tally.connections.discard(self)

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while not self._busy and self._take():
            pass

    def _take(self) -> bool:
        """Takes one request from the buffer if it is there whole."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > _MAX_HEAD:
                self.close()
            return False
        head = buffer[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        length = head[at + 17 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b""
        if not length.isdigit() or len(length) > 18 or int(length) > _MAX_BODY:
            self._write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            if self._transport:
                self._transport.close()
            self._buffer = b""
            return False
        total = end + 4 + int(length)
        if len(buffer) < total:
            return False
        path = buffer[: buffer.find(b"\r\n")].split(b" ", 2)[1]
        operation = path[path.rfind(b"/") + 1 :]
        key = _between(buffer, b"buyerFaultReference>", end) or _between(buffer, b"addressKey>", end)
        message_id = _between(buffer, b"messageId>", end)
        self._buffer = buffer[total:]
        number = self._tally.begin(operation, key, message_id)
        if self._latency:
            self._busy = True
            self._loop.call_later(self._latency, self._answer_late, number, operation, key, message_id)
        else:
            self._answer(number, operation, key, message_id)
        return True

    def _answer_late(self, number: int, operation: bytes, key: bytes, message_id: bytes) -> None:
        self._busy = False
        self._answer(number, operation, key, message_id)
        while self._buffer and not self._busy and self._take():
            pass

    def _answer(self, number: int, operation: bytes, key: bytes, message_id: bytes) -> None:
        self._tally.end(number, key)
        reply = self._replies.get(operation)
        if reply is None:
            self._write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        before, after = reply
        length = len(before) + len(message_id) + len(after)
        self._write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b%b%b"
            % (length, before, message_id, after)
        )

    def _write(self, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)


def _between(buffer: bytes, tag: bytes, start: int) -> bytes:
    """The text after the first `tag` up to the next "<"; empty if there is none."""
    at = buffer.find(tag, start)
    if at < 0:
        return b""
    at += len(tag)
    return buffer[at : buffer.find(b"<", at)]


def _replies(now: datetime) -> dict[bytes, tuple[bytes, bytes]]:
    """Operation to what stands before and after the message id in its reply."""
    slot = Slot(date(now.year + 1, 1, 4), "08:00", "13:00")
    inner = {
        "addFaultReport": answers.elements(status="Pending", responseCode="200"),
        "amendFaultReport": answers.elements(responseCode="200"),
        "requestFaultReportUpdate": answers.elements(responseCode="200"),
        "resolveResponse": answers.elements(responseCode="200"),
        "queryAppointmentAvailability": answers.available("100012345678", [slot]),
        "reserveAppointment": answers.reserved("1000001", slot),
    }
    replies: dict[bytes, tuple[bytes, bytes]] = {}
    for operation, text in inner.items():
        correlation_id = "lean" if operation in desk.APPOINTMENTS else None
        letterhead = answers.Letterhead("LEAN", _MESSAGE_ID, now, correlation_id)
        body = answers.document(answers.reply(operation, letterhead, text), Version.SOAP_1_1)
        before, _, after = body.partition(_MESSAGE_ID.encode())
        replies[operation.encode()] = (before, after)
    return replies


def _controls(tally: Tally) -> web.Application:
    async def get_summary(_: web.Request) -> web.Response:
        return web.json_response(tally.summary())

    async def get_calls(request: web.Request) -> web.Response:
        return web.Response(text=tally.lines(control.since(request)), content_type="application/x-ndjson")

    async def delete_calls(_: web.Request) -> web.Response:
        tally.forget()
        return web.Response(status=204)

    app = web.Application(middlewares=[control.explained])
    app.router.add_get("/twin/summary", get_summary)
    app.router.add_get("/twin/calls", get_calls)
    app.router.add_delete("/twin/calls", delete_calls)
    return app
