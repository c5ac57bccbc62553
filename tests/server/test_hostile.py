"""Callers who mean harm, or behave as if: a server process of its own, what it costs it, and how others fare."""

import asyncio
import re
import resource
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.server.conftest import PLAIN, notification, port_of
from tests.support.certificates import Trials
from tests.support.processes import Process, Processes
from tests.support.rig import open_rig
from tests.support.wait import PATIENCE, eventually

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\n"
QUICK = {"SERVER__IDLE_TIMEOUT": "1s", "SERVER__BODY_TIMEOUT": "1s"}
SOON = 15.0
"""Seconds for a request beside what others do: much for a busy machine, little for one who waits for their end."""
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Target:
    process: Process
    port: int
    certificates: Trials

    def resident(self) -> int:
        """Bytes in memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]  # it is there

    async def well(self) -> None:
        """Another caller gets 200, and soon."""
        limit = aiohttp.ClientTimeout(total=SOON)
        async with aiohttp.ClientSession(timeout=limit) as client:
            body = notification(f"W-{time.monotonic()}")
            async with client.post(f"http://127.0.0.1:{self.port}/", data=body) as reply:
                assert reply.status == 200

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def target(
    kafka: str, processes: Processes, trials: Trials, request: pytest.FixtureRequest
) -> AsyncIterator[Target]:
    """A server in plain text; `indirect` parameters are further settings."""
    more = getattr(request, "param", {})
    async with open_rig(kafka) as rig:
        process = processes.adapter("server", env=rig.environment(**(PLAIN | more)))
        await process.ready(port_of)
        yield Target(process, port_of(process), trials)
        assert process.exit_code is None
        assert "Traceback" not in process.output
        await process.stop()


async def poured(target: Target, start: bytes, more: bytes, *, most: int) -> tuple[int, bytes]:
    """Sends `start`, then `more` again and again until the other side has had enough: how many bytes we got rid of by
    then, and its answer."""
    reader, writer = await target.connect()
    answer = asyncio.ensure_future(reader.read())
    sent = 0
    try:
        writer.write(start)
        while not answer.done() and sent < most:
            writer.write(more)
            sent += len(more)
            await writer.drain()
            await asyncio.sleep(0)  # a drain that need not wait lets nobody else in
    except ConnectionError:
        pass
    finally:
        writer.close()
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            return sent, await answer
    return sent, b""


CHUNK = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "100 MB announced": (HEAD + b"Content-Length: 104857600\r\n\r\n", b"x" * 0x8000, b"413"),
    "100 MB in chunks": (CHUNKED, CHUNK, b"413"),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n" * 4000, b"413"),
    "a chunk's extension": (CHUNKED + b"1;", b"e" * 0x8000, b"413"),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"e" * 0x8000, b"413"),
    "a header": (HEAD + b"X: ", b"y" * 0x8000, b"400"),
    "headers": (HEAD, b"X: y\r\n" * 1000, b"400"),
    "a path": (b"POST /", b"y" * 0x8000, b"400"),
    "no HTTP": (b"", b"X" * 0x8000, b"400"),
    "empty lines": (b"", b"\r\n" * 0x4000, b"400"),
}


async def test_what_never_ends_is_cut_off_and_others_fare_well(target: Target) -> None:
    before = target.resident()
    for name, (start, more, status) in ENDLESS.items():
        floods = [asyncio.ensure_future(poured(target, start, more, most=100 * MIB)) for _ in range(8)]
        await target.well()
        results = await asyncio.gather(*floods)
        assert all(sent < 40 * MIB for sent, _ in results), name
        assert {answer.split(b" ")[1] for _, answer in results if answer} == {status}, name
    assert target.resident() - before < 60 * MIB


@pytest.mark.parametrize("target", [QUICK], indirect=True)
async def test_a_byte_now_and_then_does_not_buy_time(target: Target) -> None:
    async def trickle(start: bytes, drop: bytes) -> tuple[float, bytes]:
        reader, writer = await target.connect()
        writer.write(start)
        answer = asyncio.ensure_future(reader.read())
        began = time.monotonic()
        while not answer.done() and time.monotonic() < began + 60:
            with suppress(ConnectionError):
                writer.write(drop)
            await asyncio.wait((answer,), timeout=0.1)
        writer.close()
        with suppress(ConnectionError):
            return time.monotonic() - began, await answer
        return time.monotonic() - began, b""

    results = await asyncio.gather(
        trickle(b"PO", b"S"),
        trickle(HEAD, b"X"),
        trickle(HEAD, b"X: y\r\n"),
        trickle(HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
        trickle(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        target.well(),
    )
    took = [each[0] for each in results[:-1]]
    assert max(took) < 30  # the limit, a sweep, and the moment in which a refused body is thrown away take five
    assert [each[1].split(b" ")[1:2] for each in results[3:-1]] == [[b"408"], [b"408"]]


async def test_a_thousand_requests_at_once_on_one_connection_are_answered_in_part_and_in_order(target: Target) -> None:
    small = HEAD + b"Content-Length: 1\r\n\r\nx"
    reader, writer = await target.connect()
    writer.write(small * 1000)
    async with asyncio.timeout(PATIENCE):
        answers = (await reader.read()).count(b"HTTP/1.1 400 ")
    writer.close()
    assert 100 <= answers <= 200
    await target.well()


@pytest.mark.parametrize("target", [QUICK], indirect=True)
async def test_who_never_reads_the_answers_is_cut_off(target: Target) -> None:
    before = target.resident()
    reader, writer = await target.connect()
    small = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(15):
            for _ in range(10_000):
                writer.write(small * 50)
                await writer.drain()
    await target.well()
    assert target.resident() - before < 30 * MIB
    writer.close()
    with suppress(ConnectionError):
        await reader.read()


@pytest.mark.parametrize("target", [{"SERVER__MAX_CONNECTIONS": "11000"}], indirect=True)
async def test_ten_thousand_idle_connections_leave_room_for_others(target: Target) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 11_000:
        pytest.skip("needs 11,000 file descriptors (ulimit -n)")
    before = target.resident()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        idle = [await target.connect() for _ in range(10_000)]
        await asyncio.gather(*(target.well() for _ in range(20)))
        assert target.resident() - before < 120 * MIB
        for _, writer in idle:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in idle), return_exceptions=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


async def test_over_tls_too_who_has_no_certificate_or_never_begins_harms_nobody(
    kafka: str, processes: Processes, trials: Trials
) -> None:
    good = trials.good
    tls = {
        "SERVER__HOST": "127.0.0.1",
        "SERVER__PORT": "0",
        "SERVER__TLS__CERTIFICATE": str(good.server_certificate),
        "SERVER__TLS__KEY": str(good.server_key),
        "SERVER__TLS__CA": str(good.ca),
        "SERVER__MAX_CONNECTIONS": "50",
    }
    async with open_rig(kafka) as rig:
        process = processes.adapter("server", env=rig.environment(**tls))
        await process.ready(port_of)
        port = port_of(process)
        mute = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        context = ssl.create_default_context(cafile=str(good.ca))
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.ClientError):
                await client.post(f"https://127.0.0.1:{port}/", data=notification("T-1"), ssl=context)
            context = ssl.create_default_context(cafile=str(good.ca))
            context.load_cert_chain(good.client_certificate, good.client_key)
            async with client.post(f"https://127.0.0.1:{port}/", data=notification("T-1"), ssl=context) as reply:
                assert reply.status == 200
        for _, writer in mute:
            writer.close()
        await eventually(lambda: "PEER_DID_NOT_RETURN_A_CERTIFICATE" in process.output)
        assert await process.stop() == 0
        assert "Traceback" not in process.output
