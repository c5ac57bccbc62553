"""The "good Python" peer: what one careful Python process does for this job, without transactions, journal, retries or
metrics. A lane per key on one event loop, an HTTP client of its own, events acknowledged by all replicas, the contiguous
finished frontier committed once a second; Avro and XML work as in xmlwork.py.
"""
import asyncio, collections, os, signal, sys, threading, time

import uvloop
from confluent_kafka import Consumer, Producer, TopicPartition

from xmlwork import XmlWork

E = os.environ
HIGH, LOW = 20000, 12000  # commands held in memory: pause above, resume below


class RawClient:
    """HTTP/1.1 keep-alive POST over asyncio protocols; one request in flight per connection, no pipelining."""

    def __init__(self, url, limit):
        host, path = url.split("//", 1)[1].split("/", 1)
        self.host, self.port = host.split(":")
        self.head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: ".encode()
        self.free, self.limit, self.open, self.waiters = [], limit, 0, collections.deque()
        self.busy = set()
        asyncio.get_running_loop().call_later(1, self.sweep)

    def sweep(self):  # one timer for all deadlines
        now = time.monotonic()
        for c in [c for c in self.busy if c.deadline < now]:
            c.transport.abort()
        asyncio.get_running_loop().call_later(1, self.sweep)

    async def post(self, body):
        if self.free:
            c = self.free.pop()
        elif self.open < self.limit:
            self.open += 1
            _, c = await asyncio.get_running_loop().create_connection(lambda: RawConn(self), self.host, int(self.port))
        else:
            w = asyncio.get_running_loop().create_future()
            self.waiters.append(w)
            c = await w
        c.deadline = time.monotonic() + 30
        self.busy.add(c)
        c.future = c.loop.create_future()
        c.transport.write(b"%s%d\r\n\r\n%s" % (self.head, len(body), body))
        return await c.future

    def release(self, c):
        self.busy.discard(c)
        while self.waiters:
            w = self.waiters.popleft()
            if not w.done():
                w.set_result(c)
                return
        self.free.append(c)

    async def close(self):
        pass


class RawConn(asyncio.Protocol):
    def __init__(self, pool):
        self.pool, self.loop, self.buf, self.need, self.future = pool, asyncio.get_running_loop(), b"", 0, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        buf = self.buf = self.buf + data if self.buf else data
        if not self.need:
            at = buf.find(b"\r\n\r\n")
            if at < 0:
                return
            head = buf[:at].lower()
            i = head.find(b"content-length:")
            if i < 0:
                self.transport.abort()  # chunked replies are aiohttp's business
                return
            end = head.find(b"\r\n", i)
            self.at = at + 4
            self.need = self.at + int(head[i + 15: end if end > 0 else None])
            self.status = int(buf[9:12])
        if len(buf) < self.need:
            return
        body, self.buf, self.need = buf[self.at:self.need], buf[self.need:], 0
        f, self.future = self.future, None
        self.pool.release(self)
        if not f.done():
            f.set_result((self.status, body))

    def connection_lost(self, exc):
        self.pool.open -= 1
        self.pool.busy.discard(self)
        if self in self.pool.free:
            self.pool.free.remove(self)
        if self.future and not self.future.done():
            self.future.set_exception(exc or ConnectionResetError())


class Part:
    """Finished offsets of one partition; frontier is the first offset not finished."""
    __slots__ = ("frontier", "done", "stored", "active", "dropped")

    def __init__(self, offset):
        self.frontier, self.done, self.stored, self.active, self.dropped = offset, set(), offset, 0, False

    def finish(self, offset):
        self.active -= 1
        if offset != self.frontier:
            self.done.add(offset)
            return
        f, done = offset + 1, self.done
        while f in done:
            done.remove(f)
            f += 1
        self.frontier = f


class Bridge:
    def __init__(self, client, work):
        self.loop = asyncio.get_running_loop()
        self.client, self.work = client, work
        self.lanes, self.parts, self.held, self.stopping, self.failed = {}, {}, 0, False, None
        self.p = Producer({"bootstrap.servers": E["PB_BOOTSTRAP"], "acks": "all", "enable.idempotence": True, "linger.ms": 5})
        self.c = Consumer({"bootstrap.servers": E["PB_BOOTSTRAP"], "group.id": E["PB_GROUP"], "auto.offset.reset": "earliest",
                           "partition.assignment.strategy": "cooperative-sticky", "enable.auto.commit": True, "auto.commit.interval.ms": 1000,
                           "enable.auto.offset.store": False, "fetch.message.max.bytes": 262144, "queued.max.messages.kbytes": 16384})

    # --- consumer thread
    def consume(self):
        self.c.subscribe([E["PB_COMMANDS"]], on_revoke=self.revoke, on_lost=self.revoke)
        paused, last = False, time.monotonic()
        while not self.stopping:
            batch = self.c.consume(500, 0.05)
            if time.monotonic() - last > 0.25:
                self.store()
                last = time.monotonic()
            if batch:
                self.loop.call_soon_threadsafe(self.accept, batch)
                self.held += len(batch)  # += from two threads: only a rough bound, reset by the loop's own count
            if not paused and self.held > HIGH:
                self.c.pause(self.c.assignment())
                paused = True
            elif paused and self.held < LOW:
                self.c.resume(self.c.assignment())
                paused = False

    def revoke(self, consumer, partitions):
        """Drop what is queued, wait for what is in flight, hand over the frontier."""
        if self.stopping:
            return  # close() calls this; run() has already drained and stored
        gone = [x.partition for x in partitions]
        ready = threading.Event()
        self.loop.call_soon_threadsafe(self.drop, gone, ready, time.monotonic() + 10)
        ready.wait(12)
        self.store()
        for i in gone:
            self.parts.pop(i, None)

    def drop(self, gone, ready, until):
        parts = [self.parts[i] for i in gone if i in self.parts]
        for p in parts:
            p.dropped = True
        if time.monotonic() < until and any(p.active for p in parts):
            self.loop.call_later(0.02, self.drop, gone, ready, until)
            return
        ready.set()

    # --- event loop
    def accept(self, batch):
        lanes, parts = self.lanes, self.parts
        for m in batch:
            if m.error():
                print(m.error(), file=sys.stderr)
                self.held -= 1
                continue
            i, o = m.partition(), m.offset()
            part = parts.get(i)
            if part is None:
                part = parts[i] = Part(o)
            part.active += 1
            key = m.key()
            lane = lanes.get(key)
            if lane is None:
                lane = lanes[key] = collections.deque(((part, o, m.value()),))
                self.loop.create_task(self.run_lane(key, lane))
            else:
                lane.append((part, o, m.value()))

    async def run_lane(self, key, lane):
        post, work, produce, topic = self.client.post, self.work, self.p.produce, E["PB_EVENTS"]
        try:
            while lane:
                part, offset, value = lane[0]
                if part.dropped:
                    part.active -= 1
                    self.held -= 1
                else:
                    status, reply = await post(work.request(value))
                    if status != 200:
                        raise RuntimeError(f"supplier answered {status}")
                    event = work.event(reply)
                    cb = lambda err, _m, part=part, offset=offset: self.delivered(err, part, offset)
                    while True:
                        try:
                            produce(topic, event, key, on_delivery=cb)
                            break
                        except BufferError:
                            await asyncio.sleep(0.005)
                lane.popleft()
            del self.lanes[key]
        except Exception as e:  # a benchmark peer stops at the first fault; nothing after the frontier is committed
            self.failed = e

    def delivered(self, err, part, offset):
        if err:
            self.failed = err
            return
        self.held -= 1
        part.finish(offset)

    def store(self):
        """Only from the consumer's thread: store_offsets() beside a running consume() hangs both (confluent-kafka 2.16.1)."""
        todo = []
        for i, p in list(self.parts.items()):
            if p.frontier != p.stored:
                p.stored = p.frontier
                todo.append(TopicPartition(E["PB_COMMANDS"], i, p.frontier))
        if todo:
            self.c.store_offsets(offsets=todo)

    async def run(self):
        stop = asyncio.Event()
        self.loop.add_signal_handler(signal.SIGTERM, stop.set)
        t = threading.Thread(target=self.consume, daemon=True)
        t.start()
        while not stop.is_set() and not self.failed:
            await asyncio.sleep(0.01)
            self.p.poll(0)
        self.stopping = True
        await asyncio.to_thread(t.join, 5)
        until = time.monotonic() + 10
        for p in self.parts.values():
            p.dropped = True
        while self.lanes and not self.failed and time.monotonic() < until:
            await asyncio.sleep(0.02)
            self.p.poll(0)
        self.p.flush(10)
        self.store()
        self.c.close()
        await self.client.close()
        if self.failed:
            sys.exit(f"stopped: {self.failed}")


async def main():
    await Bridge(RawClient(E["PB_URL"], 1000), XmlWork()).run()


uvloop.run(main())
