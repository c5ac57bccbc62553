"""The supplier of the peers, as cheap as the lean twin and built like it: every POST is answered after --delay seconds
with the bytes of --reply, in which {{KEY}} and {{SEQ}} are filled in from the request. GET /stats says what was seen, and
whether each key's requests came in order, once, and one at a time.
"""

import argparse
import asyncio
import json
import time
from collections import defaultdict

import uvloop


class Seen:
    def __init__(self):
        self.requests = self.late = self.gaps = self.duplicates = self.overlaps = self.in_flight = 0
        self.next = defaultdict(int)
        self.busy = set()
        self.first = self.last = 0.0

    def begin(self, key, number):
        self.requests += 1
        self.last = time.monotonic()
        self.first = self.first or self.last
        wanted = self.next[key]
        if number < wanted:
            self.late += 1
            self.duplicates += 1
        elif number > wanted:
            self.gaps += 1
        self.next[key] = max(wanted, number + 1)
        if key in self.busy:
            self.overlaps += 1
        self.busy.add(key)
        self.in_flight += 1

    def end(self, key):
        self.busy.discard(key)
        self.in_flight -= 1

    def stats(self):
        return {name: getattr(self, name) for name in ("requests", "late", "gaps", "duplicates", "overlaps", "in_flight", "first", "last")}


class Connection(asyncio.Protocol):
    def __init__(self, loop, seen, reply, delay):
        self.loop, self.seen, self.reply, self.delay, self.buffer, self.transport = loop, seen, reply, delay, b"", None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, _):
        self.transport = None

    def data_received(self, data):
        buffer = self.buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        if buffer.startswith(b"GET "):
            self.buffer = b""
            self.write(json.dumps(self.seen.stats()).encode())
            return
        head = buffer[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        total = end + 4 + int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(buffer) < total:
            return
        self.buffer = buffer[total:]
        key, number = between(buffer, b"Key>", end), between(buffer, b"Seq>", end)
        self.seen.begin(key, int(number))
        self.loop.call_later(self.delay, self.answer, key, number)

    def answer(self, key, number):
        self.seen.end(key)
        self.write(self.reply[0] + key + self.reply[1] + number + self.reply[2])

    def write(self, body):
        if self.transport:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def between(buffer, tag, start):
    at = buffer.find(tag, start) + len(tag)
    return buffer[at : buffer.find(b"<", at)]


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, required=True)
    parser.add_argument("--reply", required=True)
    given = parser.parse_args()
    with open(given.reply, "rb") as file:
        before, _, rest = file.read().partition(b"{{KEY}}")
    middle, _, after = rest.partition(b"{{SEQ}}")
    loop, seen = asyncio.get_running_loop(), Seen()
    server = await loop.create_server(lambda: Connection(loop, seen, (before, middle, after), given.delay), "127.0.0.1", 0, backlog=1024)
    print(f"stub: http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


uvloop.run(main())
