"""Carries out on the connection what was decided for one request: the right answer, or one of the faults."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

from adapter.twin.desk import Answer
from adapter.twin.faults import Fault, Kind

_XML = "text/xml; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "aaaaaaaaaaaaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (b, b"&%c;" % a * 20) for a, b in zip(b"abcdefgh", b"bcdefghi", strict=True))
    + b"]><receivedAddFaultReport><status>&i;</status></receivedAddFaultReport>"
)


async def respond(  # noqa: C901 -- one case per kind
    request: web.Request, answer: Answer, fault: Fault | None, *, done: Callable[[int | None], None]
) -> web.StreamResponse:
    """Answers, or carries out the fault. `done` is called with the status just before the first byte leaves (None:
    there is no HTTP answer).
    """
    if fault is None:
        return await _send(request, answer, done)
    match fault.kind:
        case Kind.DELAY | Kind.REFUSE | Kind.SOAP_FAULT | Kind.FAULT_BLOCK | Kind.EXTRA_ELEMENT:
            return await _send(request, answer, done)
        case Kind.STATUS:
            return await _send(request, _status(fault, answer), done)
        case Kind.RESET:
            done(None)
            _linger(request.transport)
            return _gone(request.transport, abort=True)
        case Kind.CLOSE:
            done(None)
            return _gone(request.transport)
        case Kind.SILENCE:
            try:
                await asyncio.Event().wait()
            finally:
                done(None)
        case Kind.GARBAGE:
            done(None)
            return _gone(request.transport, last=b"\x16\x03\x01 this is not HTTP \r\n\r\n" + bytes(range(256)))
        case Kind.TRUNCATED:
            done(answer.status)
            half = answer.body[: len(answer.body) // 2]
            return _gone(request.transport, last=_head(answer) + half)
        case Kind.TRICKLE:
            return await _stream(request, answer, done, step=1, pause=fault.seconds)
        case Kind.MALFORMED:
            return await _send(request, _ok(answer.body[: len(answer.body) * 2 // 3], answer.content_type), done)
        case Kind.ENCODING:
            body = b'<?xml version="1.0" encoding="utf-8"?><receivedAddFaultReport><status>caf\xe9 \xff'
            return await _send(request, _ok(body + b"</status></receivedAddFaultReport>"), done)
        case Kind.DOCTYPE:
            return await _send(request, _ok(_BOMB), done)
        case Kind.HTML:
            return await _send(request, _ok(_page(200), _HTML), done)
        case Kind.EMPTY:
            return await _send(request, _ok(b""), done)
        case Kind.HUGE:
            padding = b" " * max(fault.size - 25, 0)
            body = b"<receivedAddFaultReport>" + padding + b"/"
            return await _stream(request, _ok(body), done, step=65536, pause=0)
        case Kind.OTHER_ELEMENT:
            return await _send(request, _ok(b"<somethingElse><status>Pending</status></somethingElse>"), done)
    raise AssertionError("unreachable: silence ends by cancellation only")


def _ok(body: bytes, content_type: str = _XML) -> Answer:
    return Answer(200, body, content_type=content_type)


def _status(fault: Fault, answer: Answer) -> Answer:
    headers: dict[str, str] = {}
    if fault.retry_after is not None:
        until = datetime.now(UTC) + timedelta(seconds=fault.retry_after)
        form = format_datetime(until, usegmt=True) if fault.retry_after_date else f"{fault.retry_after:.0f}"
        headers["Retry-After"] = form
    if 300 <= fault.http_status < 400:
        headers["Location"] = "https://elsewhere.invalid/"
    if fault.http_status in (401, 403, 500):
        return replace(answer, status=fault.http_status, headers=headers)
    if fault.http_status in (204, 304):
        return Answer(fault.http_status, b"", headers=headers)
    return Answer(fault.http_status, _page(fault.http_status), content_type=_HTML, headers=headers)


def _page(status: int) -> bytes:
    head = f"<!DOCTYPE html>\n<html><head><title>{status}</title></head>"
    return f"{head}<body><h1>{status}</h1><p>Gateway<br></body></html>".encode()


async def _send(request: web.Request, answer: Answer, done: Callable[[int | None], None]) -> web.Response:
    response = web.Response(
        status=answer.status,
        body=answer.body,
        headers={"Content-Type": answer.content_type, **answer.headers},
    )
    done(answer.status)
    await response.prepare(request)
    await response.write_eof()
    return response


async def _stream(
    request: web.Request, answer: Answer, done: Callable[[int | None], None], *, step: int, pause: float
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    response.content_length = len(answer.body)
    await response.prepare(request)
    try:
        for start in range(0, len(answer.body), step):
            await response.write(answer.body[start : start + step])
            await asyncio.sleep(pause)
        await response.write_eof()
    finally:
        done(answer.status)
    return response


def _head(answer: Answer) -> bytes:
    return (
        f"HTTP/1.1 {answer.status} OK\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n\r\n"
    ).encode("ascii")


def _gone(transport: asyncio.Transport | None, *, last: bytes = b"", abort: bool = False) -> web.Response:
    """Ends the connection after the last bytes. The response it returns meets a closing transport and is dropped."""
    if transport is not None:
        if last:
            transport.write(last)
        if abort:
            transport.abort()
        else:
            transport.close()
    return web.Response()


def _linger(transport: asyncio.Transport | None) -> None:
    """Makes the end of the connection a reset (RST) instead of an orderly one (FIN)."""
    if transport is not None and (sock := transport.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
