"""The callers of case N: many connections that post notifications, cheap enough to leave the machine to the server.

A process of its own: `python -m bench.callers URL --connections 64 --seconds 10 [--rate 1000] [--files CERT KEY CA]`.
Without a rate every connection posts as soon as it was answered; with one, notifications start at equal distances,
whatever the answers do, and a latency counts from when its notification was due. The last line is JSON.
"""

import argparse
import asyncio
import json
import ssl
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

_SAMPLE: Final = (
    Path(__file__).parents[1] / "tests/golden/cityfibre/notifications/appointment-confirmation/notification.xml"
)
_ENTRY: Final = (
    b"  <update>\n      <description>%s</description>\n      <updatedBy>maintainer</updatedBy>\n"
    b"      <updatedTime>2018-06-09T15:11:11.0001Z</updatedTime>\n    </update>\n"
)
_SIZE: Final = 2500
_REFERENCE: Final = b"SP-123ABC"
_MESSAGE: Final = b"CF-00003"


class Post:
    """Requests that differ in reference and message id alone."""

    def __init__(self, host: str, tickets: int) -> None:
        body, _, rest = _SAMPLE.read_bytes().partition(b"  </updates>")
        rest = b"  </updates>" + rest
        words = b"The engineer has replaced the power supply of the ONT and watches the light levels. " * 10
        body += _ENTRY % words[: _SIZE - len(body) - len(rest) - len(_ENTRY)] + rest
        body = body.replace(_REFERENCE, b"SP-%(ticket)08d").replace(_MESSAGE, b"CF-%(number)012d")
        self._tickets = tickets
        self.size = len(body % {b"ticket": 0, b"number": 0})
        head = (
            f"POST /notify HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml; charset=utf-8\r\n"
            f"Content-Length: {self.size}\r\n\r\n"
        )
        self._text = head.encode() + body
        self._number = time.time_ns() // 1000 % 10**12

    def next(self) -> bytes:
        self._number += 1
        return self._text % {b"ticket": self._number % self._tickets, b"number": self._number}


class Connection(asyncio.Protocol):
    def __init__(self, callers: "Callers") -> None:
        self._callers = callers
        self._buffer = b""
        self._end = 0
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._callers.free(self)

    def post(self, request: bytes, due: float) -> None:
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        if not self._end:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return
            place = data.index(b"ength: ", 0, head) + 7
            self._end = head + 4 + int(data[place : data.index(b"\r\n", place)])
        if len(data) >= self._end:
            self._buffer, self._end = b"", 0
            self._callers.answered(self, data[9:12])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the protocol's signature
        self._callers.lost()


class Callers:
    def __init__(self, post: Post, rate: float, seconds: float) -> None:
        self._post = post
        self._rate = rate
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.statuses: Counter[bytes] = Counter()
        self.broken = 0

    async def run(self) -> float:
        """Seconds it took."""
        self._began = began = self._loop.time()
        self._until = began + self._seconds
        if self._rate:
            for number in range(int(self._rate * self._seconds)):
                due = began + number / self._rate
                if (left := due - self._loop.time()) > 0:
                    await asyncio.sleep(left)
                if self._idle:
                    self._idle.popleft().post(self._post.next(), due)
                else:
                    self._waiting.append(due)
        else:
            while self._idle:
                self._idle.popleft().post(self._post.next(), began)
            await asyncio.sleep(self._seconds)
        return self._loop.time() - began

    def free(self, connection: Connection) -> None:
        self._idle.append(connection)

    def answered(self, connection: Connection, status: bytes) -> None:
        now = self._loop.time()
        self.statuses[status] += 1
        self.latencies.append(now - connection.due)
        if not self._rate and now < self._until:
            connection.post(self._post.next(), now)
        elif self._waiting:
            connection.post(self._post.next(), self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self) -> None:
        self.broken += 1


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    url = urlsplit(arguments.url)
    context = None
    if arguments.files:
        certificate, key, ca = arguments.files
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
    post = Post(url.netloc, arguments.tickets)
    callers = Callers(post, arguments.rate, arguments.seconds)
    loop = asyncio.get_running_loop()
    for _ in range(arguments.connections):
        await loop.create_connection(lambda: Connection(callers), url.hostname, url.port, ssl=context)
    cpu = time.process_time()
    took = await callers.run()
    found = sorted(callers.latencies)
    return {
        "bytes": post.size,
        "seconds": round(took, 3),
        "answers": {status.decode(): count for status, count in callers.statuses.items()},
        "per_second": round(len(found) / took, 1),
        "p50_ms": round(found[len(found) // 2] * 1000, 2),
        "p99_ms": round(found[len(found) * 99 // 100] * 1000, 2),
        "max_ms": round(found[-1] * 1000, 2),
        "cpu_ms": round((time.process_time() - cpu) / len(found) * 1000, 4),
        "broken": callers.broken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="notifications a second; 0: as fast as they are answered"
    )
    parser.add_argument("--tickets", type=int, default=10_000)
    parser.add_argument("--files", nargs=3, metavar=("CERTIFICATE", "KEY", "CA"))
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
