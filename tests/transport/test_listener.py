"""The listener's HTTP, before a receiver whose answers the test gives."""

import asyncio
import gc
import io
import resource
import socket
import ssl
import struct
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.ports import Answer, Arrival, Caller, Head, Peer
from adapter.telemetry import start_logging
from adapter.transport.incoming import CallerLimits
from adapter.transport.listener import Listener
from adapter.transport.server_tls import ServerTls
from adapter.transport.tls import TlsFiles
from tests.support.certificates import Trials
from tests.support.wait import PATIENCE, eventually

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\n"


def post(body: bytes, *lines: bytes) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Receiver:
    """`ports.Receiver`: answers with the body it got, or when and as the test says."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.bodies: list[bytes] = []
        self.strangers: list[str] = []
        self.hold: asyncio.Event | None = None
        self.broken = False
        self.more = b""

    def admit(self, peer: Peer, head: Head) -> Caller | Answer:
        self.heads.append(head)
        if head.method != "POST":
            return Answer(405, b"no", close=head.path != "/again")
        if head.path == "/refused":
            return Answer(403, b"no", close=True)
        if head.path == "/broken":
            raise RuntimeError("secret")
        return Caller(peer.address, "someone" if peer.certificate else None)

    def handshake_failed(self, address: str, reason: str) -> None:  # noqa: ARG002 -- the port's signature
        self.strangers.append(reason)

    def too_large(self, caller: Caller) -> Answer:  # noqa: ARG002 -- the port's signature
        return Answer(413, b"", close=True)

    def too_slow(self, caller: Caller) -> Answer:  # noqa: ARG002 -- the port's signature
        return Answer(408, b"", close=True)

    def too_busy(self, caller: Caller) -> Answer:  # noqa: ARG002 -- the port's signature
        return Answer(503, b"", close=True)

    def garbled(self, caller: Caller, why: str) -> Answer:  # noqa: ARG002 -- the port's signature
        return Answer(400, b"", close=True)

    async def receive(self, arrival: Arrival) -> Answer:
        self.bodies.append(arrival.delivery.body)
        if self.hold is not None:
            await self.hold.wait()
        if self.broken:
            raise RuntimeError("secret")
        return Answer(200, b"<" + arrival.delivery.body[:20] + b">" + self.more)


class Open:
    def __init__(self, listener: Listener, receiver: Receiver, lines: io.StringIO) -> None:
        self.listener = listener
        self.receiver = receiver
        self.lines = lines

    async def said(self, *requests: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """All that comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port, ssl=context)
        for request in requests:
            writer.write(request)
            await writer.drain()
        try:
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        finally:
            writer.close()


Opened = Callable[..., AbstractAsyncContextManager[Open]]


@pytest.fixture
async def opened() -> Opened:
    """Opens listeners: `opened(idle=1.0)`."""

    @asynccontextmanager
    async def make(
        *, port: int = 0, tls: ServerTls | None = None, stop: float = 5.0, **limits: float
    ) -> AsyncIterator[Open]:
        receiver, lines = Receiver(), io.StringIO()
        chosen = {"body_bytes": 1000, "bytes_in_flight": 5000, "connections": 50, "idle": 20.0, "body": 20.0} | limits
        listener = Listener(
            receiver,
            limits=CallerLimits(**chosen),  # type: ignore[arg-type]  # whole numbers where they belong
            tls=tls,
            log=start_logging(form="json", stream=lines),
        )
        await listener.open("127.0.0.1", port)
        try:
            yield Open(listener, receiver, lines)
        finally:
            await listener.close(stop)
        await eventually(lambda: listener.connections == 0)
        assert listener.bytes_in_flight == 0

    return make


LAST = post(b"last", b"Connection: close")


async def test_what_comes_in_one_piece_or_in_many_is_the_same(opened: Opened) -> None:
    async with opened() as it:
        whole = await it.said(post(b"one") + post(b"two") + LAST)
        pieces = await it.said(*(bytes([byte]) for byte in post(b"one") + post(b"two") + LAST))
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n2;e=f\r\nne\r\n0\r\nX: y\r\n\r\n"
        in_chunks = await it.said(chunked + post(b"two") + LAST)
    for answer in (whole, pieces, in_chunks):
        assert [part[:5] for part in answer.split(b"<")[1:]] == [b"one>H", b"two>H", b"last>"]
        assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
        assert answer.count(b"Connection: close\r\n") == 1
    assert "x" not in it.receiver.heads[-1].headers  # a trailer is no header


async def test_many_requests_in_one_piece_are_no_long_header_together(opened: Opened) -> None:
    async with opened(bytes_in_flight=10**6) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"x" * 400) * 100)
        await eventually(lambda: len(it.receiver.bodies) == 100)
        writer.write(LAST)
        assert (await reader.read()).count(b"HTTP/1.1 200 OK\r\n") == 101
        writer.close()


async def test_an_answer_names_no_software_but_ours_and_has_a_date(opened: Opened) -> None:
    async with opened() as it:
        head = (await it.said(LAST)).partition(b"\r\n\r\n")[0].decode().splitlines()
    assert [line.partition(":")[0] for line in head[1:]] == [
        "Content-Type", "Content-Length", "Date", "Server", "Connection",
    ]  # fmt: skip
    assert head[4] == "Server: fault-adapter"


async def test_a_head_has_lower_names_and_lines_of_one_name_are_joined(opened: Opened) -> None:
    async with opened() as it:
        await it.said(post(b"", b"X-Y: a", b"x-y:  b ", b'SOAPAction: "urn:x"', b"Connection: close"))
    head = it.receiver.heads[0]
    assert (head.method, head.path) == ("POST", "/x")
    assert head.headers["x-y"] == "a, b"
    assert head.headers["soapaction"] == '"urn:x"'


async def test_a_caller_is_told_to_go_on_only_when_it_is_let_in(opened: Opened) -> None:
    async with opened() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert b"200 OK" in await reader.read()
        writer.close()
        refused = await it.said(
            b"POST /refused HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        assert refused.startswith(b"HTTP/1.1 403 ")
        assert it.receiver.bodies == [b"body"]


async def test_who_expects_to_be_told_behind_another_request_is_told_after_its_answer(opened: Opened) -> None:
    async with opened() as it:
        it.receiver.hold = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"first") + HEAD + b"Expect: 100-continue\r\nContent-Length: 6\r\nConnection: close\r\n\r\n")
        await eventually(lambda: len(it.receiver.heads) == 2)
        it.receiver.hold.set()
        assert b"<first>HTTP/1.1 100 Continue" in await reader.readuntil(b"Continue\r\n\r\n")
        writer.write(b"second")
        assert (await reader.read()).endswith(b"<second>")
        writer.close()


async def test_a_refusal_reads_none_of_the_body_and_ends_the_connection(opened: Opened) -> None:
    async with opened(body_bytes=10**6) as it:
        answer = await it.said(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n", b"x" * 500_000)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close\r\n" in answer
        assert it.listener.bytes_in_flight == 0
    assert it.receiver.bodies == []


async def test_who_is_refused_and_stays_is_cut_off(opened: Opened) -> None:
    async with opened(idle=2 * PATIENCE) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
        await eventually(lambda: it.listener.connections == 0)
        writer.close()


async def test_an_answer_to_head_has_no_body(opened: Opened) -> None:
    async with opened() as it:
        answer = await it.said(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"Content-Length: 2\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_caller_is_told_how_long_a_silent_connection_is_kept(opened: Opened) -> None:
    async with opened(idle=7.5) as it:
        kept, last = (await it.said(post(b"one"), LAST)).split(b"HTTP/1.1 200 OK")[1:]
    assert b"\r\nConnection: keep-alive\r\nKeep-Alive: timeout=7\r\n" in kept
    assert b"Keep-Alive:" not in last


async def test_an_older_client_gets_its_answer_and_the_end(opened: Opened) -> None:
    async with opened() as it:
        assert (await it.said(b"POST /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nold")).endswith(b"<old>")


async def test_an_older_client_that_asks_to_stay_is_told_that_it_may(opened: Opened) -> None:
    stays = b"POST /x HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\none"
    async with opened() as it:
        answer = await it.said(stays + stays + b"POST /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nend")
    first, second, last = answer.split(b"HTTP/1.1 200 OK")[1:]
    assert b"Connection: keep-alive\r\n" in first
    assert b"Connection: keep-alive\r\n" in second
    assert b"Connection: close\r\n" in last


async def test_an_older_client_knows_no_answer_before_the_answer(opened: Opened) -> None:
    async with opened() as it:
        answer = await it.said(b"POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nold")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_an_offer_to_upgrade_is_passed_over(opened: Opened) -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    async with opened() as it:
        answer = await it.said(post(b"one", *offer) + post(b"two") + LAST)
    assert it.receiver.bodies == [b"one", b"two", b"last"]
    assert answer.count(b"200 OK") == 3


@pytest.mark.parametrize(
    "last",
    [
        b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\none",
        b"POST /x HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\none",
    ],
)
async def test_a_request_that_is_the_last_one_is_so_with_an_offer_to_upgrade(opened: Opened, last: bytes) -> None:
    async with opened() as it:
        answer = await it.said(last + post(b"two"))
    assert it.receiver.bodies == [b"one"]
    assert b"Connection: close\r\n" in answer


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
async def test_who_asks_for_a_tunnel_gets_an_answer_and_no_tunnel(opened: Opened, offer: bytes) -> None:
    async with opened() as it:
        answer = await it.said(b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n" + offer + b"\r\n" + LAST)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert it.receiver.bodies == []


async def test_who_has_no_more_to_say_still_gets_the_answer(opened: Opened) -> None:
    async with opened() as it:
        it.receiver.hold = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"one"))
        writer.write_eof()
        await eventually(lambda: it.receiver.bodies)
        it.receiver.hold.set()
        assert (await reader.read()).endswith(b"<one>")
        writer.close()


async def test_what_was_received_is_finished_though_the_caller_has_gone(opened: Opened) -> None:
    finished = asyncio.Event()

    class Finishing(asyncio.Event):
        async def wait(self) -> bool:  # type: ignore[override]  # as the original is typed
            await super().wait()
            finished.set()
            return True

    async with opened() as it:
        it.receiver.hold = Finishing()
        _, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"one"))
        await eventually(lambda: it.receiver.bodies)
        linger = struct.pack("ii", 1, 0)  # gone with a reset
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        await eventually(lambda: it.listener.connections == 0)
        it.receiver.hold.set()
        await eventually(finished.is_set)


async def test_the_clock_of_a_body_stands_still_while_the_one_before_is_answered(opened: Opened) -> None:
    async with opened(body=2.0) as it:
        it.receiver.hold = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"one") + post(b"two") + HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nth")
        await eventually(lambda: len(it.receiver.heads) == 3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await reader.read(1)
        it.receiver.hold.set()
        await reader.readuntil(b"<two>")
        writer.write(b"ree")
        assert (await reader.read()).endswith(b"<three>")
        writer.close()


async def test_a_fault_of_ours_is_500_and_in_the_log_without_the_content(opened: Opened) -> None:
    async with opened() as it:
        it.receiver.broken = True
        assert (await it.said(post(b"one"))).startswith(b"HTTP/1.1 500 ")
        assert (await it.said(b"POST /broken HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).startswith(
            b"HTTP/1.1 500 "
        )
    assert it.lines.getvalue().count('"notification answer failed"') == 2


async def test_closing_answers_what_is_under_way_and_takes_nothing_new(opened: Opened) -> None:
    async with opened(stop=10.0) as it:
        it.receiver.hold = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        silent, other = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"one"))
        await eventually(lambda: it.receiver.bodies)
        port = it.listener.port
        closing = asyncio.ensure_future(it.listener.close(10.0))
        assert await silent.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        it.receiver.hold.set()
        answer = await reader.read()
        assert answer.endswith(b"<one>")
        assert b"Connection: close\r\n" in answer
        await closing
        writer.close()
        other.close()


async def test_closing_answers_what_was_on_its_way_and_says_that_it_was_the_last(opened: Opened) -> None:
    async with opened() as it:
        kept_reader, kept = await asyncio.open_connection("127.0.0.1", it.listener.port)
        kept.write(post(b"zero"))
        await kept_reader.readuntil(b"<zero>")
        half_reader, half = await asyncio.open_connection("127.0.0.1", it.listener.port)
        half.write(HEAD + b"Content-Length: 3\r\n\r\nt")
        await eventually(lambda: len(it.receiver.heads) == 2)
        listening = it.listener._socket
        closing = asyncio.ensure_future(it.listener.close(10.0))
        await eventually(lambda: listening is not None and listening.fileno() < 0)
        kept.write(post(b"one"))
        half.write(b"wo")
        for reader, body in ((kept_reader, b"<one>"), (half_reader, b"<two>")):
            answer = await reader.read()
            assert answer.endswith(body)
            assert b"Connection: close\r\n" in answer
        await closing
        for each in (kept, half):
            each.close()


async def test_a_port_can_be_had_again_as_soon_as_the_listener_is_closed(opened: Opened) -> None:
    """Though the system keeps what is left of a connection that was closed from here."""
    async with opened() as first:
        port = first.listener.port
        await first.said(LAST)
    async with opened(port=port) as second:
        assert b" 200 " in await second.said(LAST)


async def test_a_request_that_came_before_its_connection_was_silent_for_too_long_is_answered(opened: Opened) -> None:
    async with opened(idle=2.0) as it:
        with socket.create_connection(("127.0.0.1", it.listener.port)) as caller:
            await eventually(lambda: it.listener._shared.open)
            time.sleep(2.1)  # noqa: ASYNC251 -- as a busy loop: what comes now is read after the silent are looked for
            caller.sendall(LAST)
            it.listener._shared.sweep()
            caller.setblocking(False)  # noqa: FBT003 -- the library's signature
            reader, writer = await asyncio.open_connection(sock=caller)
            assert (await reader.read()).endswith(b"<last>")
            writer.close()


async def test_a_connection_stays_while_it_has_been_silent_for_less_than_it_may(opened: Opened) -> None:
    async with opened(idle=PATIENCE) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"one"))
        await reader.readuntil(b"<one>")
        it.listener._shared.sweep()
        writer.write(LAST)
        assert (await reader.read()).endswith(b"<last>")
        writer.close()


async def test_who_sends_or_is_answered_is_not_silent_however_long_it_takes(opened: Opened) -> None:
    async with opened(idle=1.0) as it:
        it.receiver.hold = asyncio.Event()
        asks, asking = await asyncio.open_connection("127.0.0.1", it.listener.port)
        asking.write(LAST)
        await eventually(lambda: it.receiver.bodies)
        sends, sending = await asyncio.open_connection("127.0.0.1", it.listener.port)
        sending.write(LAST[:-1])
        await eventually(lambda: len(it.receiver.heads) == 2)
        silent, other = await asyncio.open_connection("127.0.0.1", it.listener.port)
        assert await silent.read() == b""  # the youngest of them, but the only one that was
        sending.write(LAST[-1:])
        it.receiver.hold.set()
        for reader in (asks, sends):
            assert (await reader.read()).endswith(b"<last>")
        for writer in (asking, sending, other):
            writer.close()


async def test_a_body_that_takes_less_than_it_may_is_waited_for(opened: Opened) -> None:
    async with opened(body=PATIENCE) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(LAST[:-1])
        await eventually(lambda: it.listener.bytes_in_flight)
        it.listener._shared.sweep()
        writer.write(LAST[-1:])
        assert (await reader.read()).endswith(b"<last>")
        writer.close()


async def test_closing_waits_for_who_is_answered_and_hardly_for_who_does_not_read(opened: Opened) -> None:
    async with opened() as it:
        it.receiver.more = b"x" * 1_000_000  # more than the kernel keeps for who does not read
        _, mute = await asyncio.open_connection("127.0.0.1", it.listener.port, limit=1000)
        mute.write(post(b"mute") * 30)
        await eventually(lambda: it.receiver.bodies)
        (incoming,) = it.listener._shared.open
        await eventually(lambda: not incoming.busy)
        it.receiver.hold = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.write(post(b"one"))
        await eventually(lambda: b"one" in it.receiver.bodies)
        closing = asyncio.ensure_future(it.listener.close(60.0))
        await eventually(lambda: it.listener.connections == 1)
        assert not closing.done()
        it.receiver.hold.set()
        assert b"\r\n\r\n<one>x" in await reader.read()
        await closing
        for each in (mute, writer):
            each.close()


async def test_who_does_not_read_the_answers_is_cut_off_also_in_the_middle_of_another_request(opened: Opened) -> None:
    async with opened(idle=1.0, body=1.0) as it:
        it.receiver.more = b"x" * 1_000_000  # more than the kernel keeps for who does not read
        _, mute = await asyncio.open_connection("127.0.0.1", it.listener.port, limit=1000)
        mute.write(post(b"mute") * 30 + post(b"more")[:-1])
        await eventually(lambda: it.receiver.bodies)
        await eventually(lambda: it.listener.connections == 0)
        mute.close()


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        HEAD + b"Content-Length: +3\r\n\r\nabc",
        HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
        HEAD + b"Content-Length : 3\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: gzip, identity\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b" folded: x\r\n\r\n",
        HEAD + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
        b"POST /x HTTP/1.1\nHost: x\nContent-Length: 3\n\nabc",
        b"POST /x HTTP/9.9\r\n\r\n",
        b"post /x HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_another_could_read_otherwise_is_refused(opened: Opened, request_: bytes) -> None:
    # A proxy in front of us that took the body's length from the other header would let its callers smuggle requests.
    async with opened() as it:
        answer = await it.said(request_ + LAST)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"last" not in b"".join(it.receiver.bodies)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(post(b"", *[b"X: y"] * 98), b"200", id="a hundred lines"),
        pytest.param(post(b"", *[b"X: y"] * 99), b"400", id="a line more"),
        pytest.param(post(b"", b"X: " + b"y" * 15_000), b"200", id="a long line"),
        pytest.param(post(b"", b"X: " + b"y" * 33_000), b"400", id="a longer line"),
        pytest.param(post(b"", *[b"X: " + b"y" * 4_000] * 9), b"400", id="long lines together"),
        pytest.param(post(b"").replace(b"/x", b"/" + b"x" * 33_000), b"400", id="a long path"),
        pytest.param(CHUNKED + b"e" * 30_000 + b"\r\na\r\n0\r\n\r\n", b"200", id="a chunk with an extension"),
        pytest.param(CHUNKED + b"e" * 400_000 + b"\r\na\r\n0\r\n\r\n", b"413", id="a chunk with a longer one"),
    ],
)
async def test_of_a_header_and_of_what_frames_a_body_only_so_much_is_read(
    opened: Opened, request_: bytes, status: bytes
) -> None:
    async with opened() as it:
        answer = await it.said(request_ + LAST)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(b"<last>") == (status == b"200")


async def test_any_bytes_get_answers_in_http_or_nothing(opened: Opened) -> None:
    async with opened(idle=0.3, body=0.3) as it:

        @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            st.lists(
                st.sampled_from(
                    [
                        HEAD,
                        b"Content-Length: 3\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                        b"\r\n",
                        b"3\r\nabc\r\n",
                        b"0\r\n\r\n",
                        b"Expect: 100-continue\r\n",
                        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
                        b"abc",
                        post(b"one"),
                        LAST,
                    ]
                )
                | st.binary(max_size=20),
                max_size=12,
            )
        )
        def collect(pieces: list[bytes]) -> None:
            stories.append(pieces)

        stories: list[list[bytes]] = []
        collect()
        for start in range(0, len(stories), 25):
            answers = await asyncio.gather(*(_answered(it, pieces) for pieces in stories[start : start + 25]))
            assert all(answer == b"" or answer.startswith(b"HTTP/1.1 ") for answer in answers)
    assert "exception" not in it.lines.getvalue()


async def _answered(it: Open, pieces: Sequence[bytes], context: ssl.SSLContext | None = None) -> bytes:
    try:
        return await it.said(*pieces, context=context)
    except (ConnectionError, ssl.SSLError):
        return b""


async def test_a_caller_without_a_certificate_of_ours_is_told_to_the_receiver(opened: Opened, trials: Trials) -> None:
    good = trials.good
    async with opened(tls=ServerTls(TlsFiles(good.server_certificate, good.server_key, good.ca))) as it:
        context = ssl.create_default_context(cafile=str(good.ca))
        for pair in (None, trials.unknown_client, trials.expired_client):
            if pair is not None:
                context.load_cert_chain(pair.certificate, pair.key)
            assert await _answered(it, [LAST], context) == b""
        await eventually(lambda: len(it.receiver.strangers) == 3)
        _, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        writer.close()  # one that only looks whether the port is open is no stranger
        context.load_cert_chain(good.client_certificate, good.client_key)
        assert (await it.said(LAST, context=context)).endswith(b"<last>")
    assert it.receiver.strangers == [
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "unable to get local issuer certificate",
        "certificate has expired",
    ]


@pytest.mark.usefixtures("no_collector")
async def test_the_sessions_of_callers_who_come_anew_each_time_are_not_kept_for_good(
    opened: Opened, trials: Trials
) -> None:
    good = trials.good
    context = ssl.create_default_context(cafile=str(good.ca))
    context.load_cert_chain(good.client_certificate, good.client_key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def visit(port: int, session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession, bool]:
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secured,
        ):
            secured.sendall(LAST)
            while secured.recv(1000):
                pass
            assert secured.session is not None
            return secured.session, bool(secured.session_reused)

    tls = ServerTls(TlsFiles(good.server_certificate, good.server_key, good.ca))
    full = weakref.ref(tls.context)  # with it, all that it remembers
    watching = asyncio.create_task(tls.watch(lambda _: None, interval=0.1))
    async with opened(tls=tls) as it:
        first, _ = await asyncio.to_thread(visit, it.listener.port)
        assert (await asyncio.to_thread(visit, it.listener.port, first))[1]
        for _ in range(51):
            await asyncio.gather(*(asyncio.to_thread(visit, it.listener.port) for _ in range(20)))

        async def forgotten() -> bool:
            return not (await asyncio.to_thread(visit, it.listener.port, first))[1]

        await eventually(forgotten)
        await eventually(lambda: full() is None)
    watching.cancel()


async def test_a_burst_of_callers_who_never_begin_their_handshake_stays_within_the_limit(
    opened: Opened, trials: Trials
) -> None:
    good = trials.good
    tls = ServerTls(TlsFiles(good.server_certificate, good.server_key, good.ca))
    async with opened(tls=tls, connections=20) as it:
        context = ssl.create_default_context(cafile=str(good.ca))
        context.load_cert_chain(good.client_certificate, good.client_key)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.listener.port, ssl=context)
        await eventually(lambda: it.listener.connections == 1)
        mute = [socket.socket() for _ in range(200)]
        for one in mute:  # all of them are there before the listener looks
            one.setblocking(False)  # noqa: FBT003 -- the library's signature
            one.connect_ex(("127.0.0.1", it.listener.port))
        most = 0
        while sum(map(_ended, mute)) < 181:
            await asyncio.sleep(0)
            most = max(most, it.listener.connections)
        assert 20 <= most <= 21
        writer.write(LAST)  # no stranger has thrown out who was let in
        assert (await reader.read()).endswith(b"<last>")
        assert (await it.said(LAST, context=context)).endswith(b"<last>")
        writer.close()
        for one in mute:
            one.close()


def _ended(calling: socket.socket) -> bool:
    try:
        return calling.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_who_is_in_the_handshake_when_closing_begins_is_still_answered(opened: Opened, trials: Trials) -> None:
    good = trials.good
    async with opened(tls=ServerTls(TlsFiles(good.server_certificate, good.server_key, good.ca))) as it:
        context = ssl.create_default_context(cafile=str(good.ca))
        context.load_cert_chain(good.client_certificate, good.client_key)
        caller = socket.create_connection(("127.0.0.1", it.listener.port))
        caller.setblocking(False)  # noqa: FBT003 -- the library's signature
        await eventually(lambda: it.listener.connections == 1)
        listening = it.listener._socket
        closing = asyncio.ensure_future(it.listener.close(10.0))
        await eventually(lambda: listening is not None and listening.fileno() < 0)
        reader, writer = await asyncio.open_connection(sock=caller, ssl=context, server_hostname="127.0.0.1")
        writer.write(post(b"one"))
        answer = await reader.read()
        assert answer.endswith(b"<one>")
        assert b"Connection: close\r\n" in answer
        await closing
        writer.close()


async def test_callers_give_way_to_another_who_is_let_in(opened: Opened, trials: Trials) -> None:
    good = trials.good
    async with opened(tls=ServerTls(TlsFiles(good.server_certificate, good.server_key, good.ca)), connections=3) as it:
        context = ssl.create_default_context(cafile=str(good.ca))
        context.load_cert_chain(good.client_certificate, good.client_key)
        callers = []
        for count in range(1, 4):
            callers.append(await asyncio.open_connection("127.0.0.1", it.listener.port, ssl=context))
            await eventually(lambda: len(it.listener._shared.open) == count)  # noqa: B023 -- asked at once
        reader, writer = callers[0]
        writer.write(post(b"one"))
        await reader.readuntil(b"<one>")
        assert (await it.said(LAST, context=context)).endswith(b"<last>")
        assert await callers[1][0].read() == b""  # the most silent of them
        writer.write(LAST)
        assert (await reader.read()).endswith(b"<last>")
        for _, each in callers:
            each.close()


async def test_without_file_descriptors_the_most_silent_gives_way(opened: Opened) -> None:
    async with opened() as it:
        silent, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        await eventually(lambda: it.listener.connections == 1)
        assert it.listener._socket is not None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = socket.socket()  # ours, to call with
        spare.setblocking(False)  # noqa: FBT003 -- the library's signature
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno() + 1, hard))
        try:
            await asyncio.get_running_loop().sock_connect(spare, ("127.0.0.1", it.listener.port))
            assert await silent.read() == b""
            writer.close()
            await asyncio.get_running_loop().sock_sendall(spare, LAST)
            answer = b""
            while data := await asyncio.get_running_loop().sock_recv(spare, 4096):
                answer += data
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            spare.close()
    assert answer.endswith(b"<last>")


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("secure", [False, True])
async def test_closing_leaves_no_connection_open_that_came_in_its_moment(
    opened: Opened, trials: Trials, turns: int, *, secure: bool
) -> None:
    good = trials.good
    tls = ServerTls(TlsFiles(good.server_certificate, good.server_key, good.ca)) if secure else None
    with ExitStack() as callers:
        async with opened(tls=tls, stop=0.0) as it:
            for _ in range(5):
                callers.enter_context(socket.create_connection(("127.0.0.1", it.listener.port)))
            for _ in range(turns):
                await asyncio.sleep(0)
    gc.collect()  # an open connection that nobody holds is an error
