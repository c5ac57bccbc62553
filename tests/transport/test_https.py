"""Supplier calls over real sockets: what each way of failing is called, and that NotSent is never a guess."""

import asyncio
import base64
import gc
import select
import socket
import ssl
import threading
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.core.allowance import Allowance
from adapter.core.errors import Stop
from adapter.ports import NotSent, Reply, Unclear
from adapter.settings import tree
from adapter.transport.connection import LONG, CallLimits, Connection
from adapter.transport.https import HttpsCalls
from adapter.transport.way import Proxy
from tests.support.certificates import Trials
from tests.support.ports import free_port
from tests.support.supplier import (
    Exchange,
    Script,
    answering,
    black_hole,
    cutting,
    server_context,
    supplier,
    tunnel,
)
from tests.support.wait import PATIENCE, eventually

SECOND = timedelta(seconds=1)
SHORT = timedelta(milliseconds=200)
HEADERS = {"content-type": "text/xml; charset=utf-8", "soapaction": '"add"'}
MIB = 2**20

Make = Callable[..., HttpsCalls]


SUPPLIER = tree.Supplier(
    buyer_identifier="SPDEV1",
    connect_timeout=20 * SECOND,
    write_timeout=20 * SECOND,
    read_timeout=20 * SECOND,
    total_timeout=30 * SECOND,
    keep_alive=20 * SECOND,
    max_reply_bytes=MIB,
)
"""Limits far above what a test on a busy machine needs; each test lowers the one it is about."""


def opened(url: str, **changes: Any) -> HttpsCalls:
    return HttpsCalls(url, SUPPLIER.model_copy(update=changes))


@pytest.fixture
async def calls() -> AsyncIterator[Make]:
    made: list[HttpsCalls] = []

    def make(url: str, **changes: Any) -> HttpsCalls:
        made.append(opened(url, **changes))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def outcome(call: Awaitable[Reply]) -> tuple[type, str]:
    try:
        reply = await call
    except (NotSent, Unclear) as failure:
        return type(failure), failure.reason
    return Reply, str(reply.status)


def post(made: HttpsCalls, body: bytes = b"<request/>") -> Awaitable[Reply]:
    return made.post("/addFaultReport", body, HEADERS)


async def test_a_request_arrives_as_it_was_given_and_its_reply_comes_back(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.reply(b"<reply/>", headers="X-Trace: 1\r\nContent-Type: text/xml\r\nx-trace: 2\r\n")

    async with supplier(script) as server:
        reply = await post(calls(server.url + "/prod/api2/"))
    (request,) = server.requests
    assert request.line == "POST /prod/api2/addFaultReport HTTP/1.1"
    assert request.body == b"<request/>"
    assert request.headers["soapaction"] == '"add"'
    assert request.headers["content-type"] == "text/xml; charset=utf-8"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"] == "fault-adapter"
    assert request.headers["host"] == f"localhost:{server.port}"
    assert request.headers.keys().isdisjoint({"cookie", "expect", "transfer-encoding"})
    assert reply == Reply(200, {"x-trace": "1, 2", "content-type": "text/xml", "content-length": "8"}, b"<reply/>")


# What happens before a request can leave


async def test_a_refused_connection_is_not_sent(calls: Make) -> None:
    assert await outcome(post(calls(f"http://127.0.0.1:{free_port()}"))) == (NotSent, "connect")


@pytest.mark.parametrize(
    ("url", "proxy", "place"),
    [
        ("https://supplier.example/prod", None, ("supplier.example", 443)),
        ("http://supplier.example/prod", None, ("supplier.example", 80)),
        ("https://supplier.example/prod", "http://proxy.example", ("proxy.example", 80)),
    ],
)
async def test_an_address_without_a_port_means_that_of_its_scheme(
    calls: Make, monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None, place: tuple[str, int]
) -> None:
    asked: list[tuple[str, int]] = []

    async def nowhere(host: str, port: int, **_: object) -> list[object]:
        asked.append((host, port))
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nowhere)
    assert (await outcome(post(calls(url, proxy=tree.Proxy(url=proxy)))))[0] is NotSent
    assert asked == [place]


async def test_a_host_without_address_is_not_sent(calls: Make) -> None:
    assert await outcome(post(calls("http://no-such-host.invalid"))) == (NotSent, "resolve")


NEVER = 10 * PATIENCE * SECOND
"""A limit that no test waits for."""


@pytest.mark.parametrize("short", ["connect_timeout", "total_timeout"])
async def test_a_port_that_swallows_connections_is_not_sent_at_the_first_of_both_limits(
    calls: Make, short: str
) -> None:
    async with black_hole() as port, asyncio.timeout(PATIENCE):
        made = calls(f"http://127.0.0.1:{port}", **{"connect_timeout": NEVER, "total_timeout": NEVER, short: SHORT})
        assert await outcome(post(made)) == (NotSent, "connect-timeout")


async def test_a_handshake_that_is_never_answered_is_not_sent(calls: Make) -> None:
    async with supplier(Exchange.wait_for_client) as server, asyncio.timeout(PATIENCE):
        made = calls(server.url.replace("http", "https"), connect_timeout=SHORT, total_timeout=NEVER)
        assert await outcome(post(made)) == (NotSent, "connect-timeout")


async def test_a_server_that_does_not_speak_tls_is_not_sent(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.some()
        await exchange.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await exchange.wait_for_client()

    async with supplier(script) as server:
        made = calls(server.url.replace("http", "https"))
        assert await outcome(post(made)) == (NotSent, "tls")


@pytest.mark.parametrize("wrong", ["expired", "wrong-host", "unknown-authority"])
async def test_a_server_whose_certificate_is_refused_is_sent_nothing(calls: Make, trials: Trials, wrong: str) -> None:
    pair = {
        "expired": trials.expired_server,
        "wrong-host": trials.wrong_host_server,
        "unknown-authority": trials.unknown_server,
    }[wrong]
    files = replace(trials.good, server_certificate=pair.certificate, server_key=pair.key)
    async with supplier(answering, tls=server_context(files, ask=False)) as server:
        with pytest.raises(NotSent, match="the server's certificate is refused") as caught:
            await post(calls(server.url, tls=tree.Tls(ca=trials.good.ca)))
        assert caught.value.reason == "tls"
        assert server.received == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("certificate", ["none", "of an unknown authority"])
async def test_a_server_that_refuses_our_certificate_has_taken_nothing(
    calls: Make, trials: Trials, version: ssl.TLSVersion, certificate: str
) -> None:
    files = tree.Tls(ca=trials.good.ca)
    if certificate != "none":
        unknown = trials.unknown_client
        files = tree.Tls(certificate=unknown.certificate, key=unknown.key, ca=trials.good.ca)
    # asyncio's server closes the connection without an alert.
    async with supplier(answering, tls=server_context(trials.good, only=version)) as server:
        kind, reason = await outcome(post(calls(server.url, tls=files)))
        assert kind is NotSent
        assert reason in {"tls", "connect"}
        assert server.received == 0


async def test_a_server_that_sends_no_tickets_is_called_all_the_same(calls: Make, trials: Trials) -> None:
    context = server_context(trials.good, only=ssl.TLSVersion.TLSv1_3)
    context.num_tickets = 0
    files = tree.Tls(certificate=trials.good.client_certificate, key=trials.good.client_key, ca=trials.good.ca)
    async with supplier(answering, tls=context) as server:
        assert await outcome(post(calls(server.url, tls=files))) == (Reply, "200")


@pytest.mark.parametrize("certificate", ["none", "of an unknown authority", "with another's signature"])
async def test_a_refusal_of_our_certificate_that_comes_after_the_request_is_proof(
    calls: Make, trials: Trials, tmp_path: Path, certificate: str
) -> None:
    files = tree.Tls(certificate=trials.unknown_client.certificate, key=trials.unknown_client.key, ca=trials.good.ca)
    if certificate == "none":
        files = tree.Tls(ca=trials.good.ca)
    elif certificate == "with another's signature":
        whole = ssl.PEM_cert_to_DER_cert(trials.good.client_certificate.read_text())
        forged = tmp_path / "forged.pem"
        forged.write_text(ssl.DER_cert_to_PEM_cert(whole[:-1] + bytes([whole[-1] ^ 1])))
        files = tree.Tls(certificate=forged, key=trials.good.client_key, ca=trials.good.ca)
    context = server_context(trials.good, only=ssl.TLSVersion.TLSv1_3)
    refusals: list[str] = []

    def serve() -> None:
        accepted, _ = server.accept()
        accepted.settimeout(PATIENCE)
        connection = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        try:
            connection.do_handshake()
        except ssl.SSLError as error:
            refusals.append(error.reason)
        # Left open until the client has gone, so that no reset overtakes the alert.
        with socket.socket(fileno=connection.detach()) as left, suppress(OSError):
            while left.recv(65536):
                pass

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        found = await outcome(post(calls(f"https://localhost:{server.getsockname()[1]}", tls=files)))
        await asyncio.to_thread(thread.join)
    assert refusals
    assert found == (NotSent, "tls")


@pytest.mark.parametrize("state", ["new", "reused", "answered", "context"])
async def test_a_certificate_alert_is_proof_only_as_the_first_thing_of_a_new_connection(state: str) -> None:
    alert = ssl.SSLError(1, "alert")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    error = ConnectionResetError()
    # An error that the caller is handling meanwhile is the context of ours, and says nothing about this call.
    error.__context__, error.__cause__ = (alert, None) if state == "context" else (None, alert)
    async with supplier(silent) as server:
        loop = asyncio.get_running_loop()
        transport, made = await loop.create_connection(
            lambda: Connection(CallLimits(20, 20, 20, MIB), None, Allowance(MIB), lambda _: None),
            "127.0.0.1",
            server.port,
        )

        def exchange() -> asyncio.Task[Reply]:
            return asyncio.ensure_future(made.exchange(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"", 1e12))

        call = exchange()
        await asyncio.sleep(0)
        if state == "reused":
            made.data_received(OK + b"Content-Length: 0\r\n\r\n")
            await call
            call = exchange()
            await asyncio.sleep(0)
        if state == "answered":
            made.data_received(b"HTTP/1.1 2")
        made.connection_lost(error)
        expected = (NotSent, "tls") if state == "new" else (Unclear, "reset")
        assert await outcome(call) == expected
        transport.abort()


async def test_a_certificate_that_is_refused_before_anything_was_written_is_called_so() -> None:
    alert = ssl.SSLError(1, "alert")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    async with supplier(silent) as server:
        transport, made = await asyncio.get_running_loop().create_connection(
            lambda: Connection(CallLimits(20, 20, 20, MIB), None, Allowance(MIB), lambda _: None),
            "127.0.0.1",
            server.port,
        )
        made.connection_lost(alert)
        assert (made.alive, made.refusal is not None and made.refusal.reason) == (False, "tls")
        transport.abort()


@pytest.mark.parametrize("bad", [1, 2, 3])
async def test_after_addresses_that_shake_no_hands_another_one_is_tried_first(
    calls: Make, trials: Trials, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    dead = [f"127.0.0.{2 + number}" for number in range(bad)]

    async def all_of_them(host: str, port: int, **_: object) -> list[object]:
        addresses = (*dead, "127.0.0.1") if host == "localhost" else (host,)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, port)) for each in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", all_of_them)
    async with (
        supplier(answering, tls=server_context(trials.good, ask=False)) as server,
        await asyncio.start_server(hang_up, dead, server.port),
    ):
        made = calls(server.url, tls=tree.Tls(ca=trials.good.ca))
        for _ in dead:
            assert (await outcome(post(made)))[0] is NotSent
        assert await outcome(post(made)) == (Reply, "200")


async def test_a_call_cancelled_while_connecting_says_that_nothing_was_sent(calls: Make) -> None:
    async with black_hole() as port:
        task = asyncio.ensure_future(post(calls(f"http://127.0.0.1:{port}")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert isinstance(caught.value.__cause__, NotSent)


async def test_a_call_that_is_cancelled_at_any_moment_leaves_nothing_behind(calls: Make, trials: Trials) -> None:
    async with supplier(answering, tls=server_context(trials.good, ask=False)) as server:
        for turns in range(100):
            made = calls(server.url, tls=tree.Tls(ca=trials.good.ca))
            cut_short = asyncio.ensure_future(post(made))
            for _ in range(turns):
                await asyncio.sleep(0)
            cut_short.cancel()
            await asyncio.wait((cut_short,))
            assert await outcome(post(made)) == (Reply, "200")  # over a socket of the same number


# What happens once it may have left


async def test_a_call_cancelled_after_the_request_has_left_says_so(calls: Make) -> None:
    async with supplier(silent) as server:
        task = asyncio.ensure_future(post(calls(server.url)))
        await eventually(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert isinstance(caught.value.__cause__, Unclear)


async def silent(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.wait_for_client()


async def reset_before_reading(exchange: Exchange) -> None:
    exchange.reset()


async def reset_after_reading(exchange: Exchange) -> None:
    await exchange.request()
    exchange.reset()


async def close_after_answering(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.reply()


async def close_after_reading(exchange: Exchange) -> None:
    await exchange.request()


def saying(*parts: bytes) -> Script:
    """Reads the request, says this and ends the connection."""

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        for part in parts:
            await exchange.send(part)

    return script


def repeating(start: bytes, part: bytes, *, pause: float = 0) -> Script:
    """Reads the request, then talks until the client hangs up."""

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(start)
        while True:
            await exchange.send(part)
            await asyncio.sleep(pause)

    return script


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(reset_after_reading, "reset", id="reset after reading"),
        pytest.param(close_after_reading, "reset", id="close after reading"),
        pytest.param(saying(OK + b"Content-Le"), "reset", id="close within the head"),
        pytest.param(saying(OK + b"Content-Length: 10\r\n\r\nabc"), "reset", id="shorter than announced"),
        pytest.param(saying(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"), "reset", id="half a chunk"),
        pytest.param(saying(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"), "protocol", id="no chunk size"),
        pytest.param(saying(b"220 mail.example ESMTP\r\n\r\n"), "protocol", id="not HTTP"),
        pytest.param(saying(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "protocol", id="two lengths"),
        pytest.param(saying(OK + b"Content-Length: -1\r\n\r\nab"), "protocol", id="negative length"),
        pytest.param(
            saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            "protocol",
            id="upgrade",
        ),
        pytest.param(repeating(OK, b"X-More: and more\r\n" * 100), "protocol", id="endless headers"),
        pytest.param(repeating(OK, b"X" * 4096), "protocol", id="endless header"),
        pytest.param(repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "protocol", id="endless interim replies"),
        pytest.param(
            repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1" + b";x" * 2048 + b"\r\nx\r\n"),
            "too-large",
            id="chunks of little more than framing",
        ),
        pytest.param(
            repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: y\r\n" * 100),
            "too-large",
            id="endless trailers",
        ),
        pytest.param(
            saying(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
            "protocol",
            id="coding that was not accepted",
        ),
        pytest.param(
            saying(OK + b"Transfer-Encoding: chunked\t\r\n\r\n1\r\na\r\n0\r\n\r\n"),
            "protocol",
            id="chunked with a tab, which the parser takes for another coding",
        ),
        pytest.param(
            saying(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n"),
            "protocol",
            id="a length and chunks",
        ),
        pytest.param(saying(OK + b"Content-Length: 52428800\r\n\r\n", b"x" * 4096), "too-large", id="50 MiB announced"),
        pytest.param(
            repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
            "too-large",
            id="endless chunks",
        ),
        pytest.param(repeating(OK + b"\r\n", b"x" * 65536), "too-large", id="endless without length"),
    ],
)
async def test_a_call_without_a_whole_reply_is_unclear(calls: Make, script: Script, reason: str) -> None:
    async with supplier(script) as server:
        assert await outcome(post(calls(server.url))) == (Unclear, reason)
        assert len(server.requests) == 1


BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n"


def breaking_off(said: bytes, end: Callable[[Exchange], Awaitable[None]]) -> Script:
    """Reads the request, says this and ends as told; then answers on the next connection."""
    left = iter([True])

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        if not next(left, False):
            await exchange.reply()
            return
        await exchange.send(said)
        await end(exchange)

    return script


async def closing_it(_: Exchange) -> None:
    pass


async def resetting_it(exchange: Exchange) -> None:
    exchange.reset()


@pytest.mark.parametrize(
    ("said", "end", "reason"),
    [
        pytest.param(b"Content-Length: 100\r\n\r\n<html>", closing_it, "reset", id="closed"),
        pytest.param(b"Content-Length: 100\r\n\r\n", closing_it, "reset", id="closed behind the head"),
        pytest.param(b"Content-Length: 100\r\n\r\n<html>", resetting_it, "reset", id="reset"),
        pytest.param(b"Content-Length: 100\r\n\r\n", Exchange.wait_for_client, "read-timeout", id="silence"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n9\r\nab", closing_it, "reset", id="half a chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", closing_it, "protocol", id="no chunk size"),
        pytest.param(b"Transfer-Encoding: gzip, chunked\r\n\r\n", closing_it, "protocol", id="coding"),
        pytest.param(b"Content-Length: 9000000\r\n\r\n", closing_it, "too-large", id="too large a length"),
        pytest.param(b"\r\n" + b"x" * (MIB + 1), closing_it, "too-large", id="too large"),
    ],
)
async def test_of_a_reply_that_breaks_off_behind_its_head_the_failure_has_the_head(
    calls: Make, said: bytes, end: Callable[[Exchange], Awaitable[None]], reason: str
) -> None:
    async with supplier(breaking_off(BUSY + said, end)) as server:
        made = calls(server.url, read_timeout=2 * SECOND)
        with pytest.raises(Unclear) as caught:
            await post(made)
        assert caught.value.reason == reason
        head = caught.value.head
        assert head is not None
        assert (head.status, head.headers["retry-after"], head.body) == (503, "7", b"")
        assert await outcome(post(made)) == (Reply, "200")
        assert len(server.exchanges) == 2


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(BUSY + b"Content-Le", id="within the head"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="behind an interim one"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + BUSY, id="within the head behind an interim one"),
    ],
)
async def test_a_reply_that_breaks_off_before_its_head_is_whole_says_nothing(calls: Make, said: bytes) -> None:
    async with supplier(saying(said)) as server:
        with pytest.raises(Unclear) as caught:
            await post(calls(server.url))
    assert caught.value.head is None


async def test_a_connection_reset_before_reading_is_never_called_sent_for_sure(calls: Make) -> None:
    async with supplier(reset_before_reading) as server:
        # Whether the reset comes before or after our first byte is a race; both answers are honest, a reply is not.
        assert await outcome(post(calls(server.url))) in {(NotSent, "connect"), (Unclear, "reset")}


async def test_no_text_of_a_reply_gets_into_the_exception(calls: Make) -> None:
    async with supplier(saying(OK + b"Content-Length: Joe-Smith\r\n\r\n")) as server:
        with pytest.raises(Unclear) as caught:
            await post(calls(server.url))
    assert "Smith" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("script", "changes", "reason"),
    [
        pytest.param(silent, {"read_timeout": SHORT}, "read-timeout", id="silence"),
        pytest.param(silent, {"total_timeout": SECOND}, "total-timeout", id="silence, total limit first"),
        pytest.param(
            repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.02),
            {"read_timeout": SHORT},
            "read-timeout",
            id="never final",
        ),
        pytest.param(
            repeating(OK + b"Content-Length: 1000000\r\n\r\n", b"x"),
            {"total_timeout": SECOND},
            "total-timeout",
            id="trickle",
        ),
    ],
)
async def test_a_slow_reply_is_unclear_at_the_limit(
    calls: Make, script: Script, changes: dict[str, timedelta], reason: str
) -> None:
    async with supplier(script) as server:
        assert await outcome(post(calls(server.url, **changes))) == (Unclear, reason)


@pytest.mark.parametrize("secure", [False, True])
async def test_a_call_of_a_server_that_stops_reading_ends_at_the_write_limit_and_its_connection_with_it(
    calls: Make, trials: Trials, *, secure: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        exchange.stop_reading()
        await asyncio.get_running_loop().create_future()

    async with supplier(script, tls=server_context(trials.good, ask=False) if secure else None) as server:
        made = calls(server.url, write_timeout=2 * SHORT, tls=tree.Tls(ca=trials.good.ca))
        before = open_sockets()
        assert await outcome(post(made, b"x" * (32 * MIB))) == (Unclear, "write-timeout")
        # What others of this process had open may be closed meanwhile.
        await eventually(lambda: len(open_sockets() - before) == 1, what="only the server's end left open")


def open_sockets() -> set[str]:
    found: set[str] = set()
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # it is closed already, as the folder that was listed
            found.add(str(link.readlink()))
    return {name for name in found if name.startswith("socket:")}


@pytest.mark.parametrize("secure", [False, True])
async def test_a_large_request_arrives_whole(calls: Make, trials: Trials, *, secure: bool) -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    async with supplier(answering, tls=server_context(trials.good, ask=False) if secure else None) as server:
        assert (await post(calls(server.url, tls=tree.Tls(ca=trials.good.ca)), body)).status == 200
    assert server.requests[0].body == body


@pytest.mark.parametrize(
    ("said", "body"),
    [
        pytest.param(
            [OK + b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"],
            b"abcde",
            id="chunked",
        ),
        pytest.param([OK + b"\r\n", b"abc", b"de"], b"abcde", id="until the connection ends"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Length: 2\r\n\r\nab"], b"ab", id="interim"),
        pytest.param([b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nab"], b"ab", id="fault"),
        pytest.param([OK + b"Content-Length: 0\r\n\r\n"], b"", id="empty"),
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], b"", id="no content"),
        pytest.param([b"HTTP/1.0 200 OK\nContent-Length: 2\n\nab"], b"ab", id="lines that end with LF alone"),
        pytest.param(
            [OK + b"Transfer-Encoding: Chunked\r\n\r\n2 \r\nab\r\n0\r\nContent-Encoding: gzip\r\n\r\n"],
            b"ab",
            id="chunked with a trailer",
        ),
        pytest.param(
            [OK + b"Transfer-Encoding:  chunked  \r\n\r\n2\r\nab\r\n0\r\n\r\n"],
            b"ab",
            id="chunked with blanks around it",
        ),
        pytest.param([OK + b"Content-Length:  2 \t\r\n\r\nab"], b"ab", id="a length with white space around it"),
        pytest.param([OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\na"], b"a", id="whatever its encoding"),
        pytest.param([OK + b"X: a\r\n b\r\nContent-Length:\r\n\t1\r\n\r\na"], b"a", id="folded lines"),
    ],
)
async def test_every_way_to_frame_a_reply_is_read(calls: Make, said: list[bytes], body: bytes) -> None:
    async with supplier(saying(*said)) as server:
        assert (await post(calls(server.url))).body == body


async def test_a_reply_of_exactly_the_limit_is_taken(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.reply(b"x" * 1000)

    async with supplier(script) as server:
        assert len((await post(calls(server.url, max_reply_bytes=1000))).body) == 1000
        assert await outcome(post(calls(server.url, max_reply_bytes=999))) == (Unclear, "too-large")


async def test_a_reply_in_pieces_of_a_few_bytes_takes_up_few_times_its_bytes(calls: Make) -> None:
    pieces = b"2\r\nxx\r\n" * (MIB // 4)

    async with supplier(saying(OK + b"Transfer-Encoding: chunked\r\n\r\n", pieces, b"0\r\n\r\n")) as server:
        made = calls(server.url)
        tracemalloc.start()
        try:
            reply = await post(made)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(reply.body) == MIB // 2
    assert peak < 10 * len(reply.body)  # what the server of the test sends is among it


async def test_redirects_and_cookies_are_not_followed(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        while True:
            await exchange.request()
            await exchange.reply(status="307 Temporary Redirect", headers="Location: /else\r\nSet-Cookie: a=b\r\n")

    async with supplier(script) as server:
        made = calls(server.url)
        assert await outcome(post(made)) == (Reply, "307")
        assert await outcome(post(made)) == (Reply, "307")
    assert [request.line.split()[1] for request in server.requests] == ["/addFaultReport"] * 2
    assert "cookie" not in server.requests[1].headers


# Long replies, which share a limit


LONG_REPLY = b"x" * (MIB - 1000)
ROOM = 32
"""How many of them fit the limit at once."""


async def long_reply(exchange: Exchange) -> None:
    while True:
        await exchange.request()
        await exchange.reply(LONG_REPLY)


def release(reply: Reply) -> None:
    assert reply.release is not None
    reply.release()


@asynccontextmanager
async def crowded(made: HttpsCalls) -> AsyncIterator[list[Reply]]:
    """The limit is used up by replies that are not released before the end."""
    held = [await post(made) for _ in range(ROOM)]
    yield held
    for reply in held:
        release(reply)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "framing",
    [
        pytest.param(b"Content-Length: %d\r\n\r\n%s" % (len(LONG_REPLY), LONG_REPLY), id="of a length that it says"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(LONG_REPLY), LONG_REPLY),
            id="in chunks",
        ),
        pytest.param(b"\r\n" + LONG_REPLY, id="until the connection ends"),
    ],
)
async def test_of_many_long_replies_no_more_are_read_than_fit_the_limit_and_all_arrive_whole(
    calls: Make, trials: Trials, framing: bytes, *, secure: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        request = await exchange.request()
        if request.body == b"short":
            await exchange.reply()
        else:
            await exchange.send(OK + framing)

    kept: list[Reply] = []

    async def call() -> None:
        reply = await post(made)
        assert reply.body == LONG_REPLY
        kept.append(reply)

    async with supplier(script, tls=server_context(trials.good, ask=False) if secure else None) as server:
        made = calls(server.url, tls=tree.Tls(ca=trials.good.ca))
        running = [asyncio.create_task(call()) for _ in range(3 * ROOM)]
        await eventually(lambda: len(kept) == ROOM, within=PATIENCE, what="as many as fit the limit")
        for _ in range(ROOM):  # whatever else could be read would be by then
            await post(made, b"short")
        assert len(kept) == ROOM
        while kept:
            release(kept.pop())
            await eventually(lambda: kept or all(call.done() for call in running), within=PATIENCE, what="the next")
        await asyncio.gather(*running)


async def test_where_the_limit_of_one_reply_is_high_there_is_room_for_eight_of_them(calls: Make) -> None:
    longest = 5 * MIB

    async def script(exchange: Exchange) -> None:
        while True:
            await exchange.request()
            await exchange.reply(b"x" * longest)

    async with supplier(script) as server:
        made = calls(server.url, max_reply_bytes=longest)
        held = [await post(made) for _ in range(7)]  # the eighth would also need room for its head
        assert {len(reply.body) for reply in held} == {longest}


async def test_a_short_reply_does_not_wait_for_long_ones(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        while True:
            request = await exchange.request()
            await exchange.reply(b"x" * int(request.body))

    async with supplier(script) as server:
        made = calls(server.url)
        held = [await post(made, b"%d" % len(LONG_REPLY)) for _ in range(ROOM)]
        waiting = asyncio.ensure_future(post(made, b"%d" % len(LONG_REPLY)))
        await eventually(lambda: len(server.requests) > ROOM, within=PATIENCE, what="the request of the next")
        for _ in range(ROOM):
            assert (await post(made, b"%d" % (LONG - 1000))).release is None
        assert not waiting.done()
        release(held[0])
        assert (await waiting).body == LONG_REPLY


async def test_a_long_reply_that_waits_for_its_share_is_not_called_silent(calls: Make) -> None:
    async with supplier(long_reply) as server:
        made = calls(server.url, read_timeout=2 * SECOND, total_timeout=30 * SECOND)
        async with crowded(made) as held:
            waiting = asyncio.ensure_future(post(made))
            await asyncio.sleep(3)  # longer than it may be silent
            assert not waiting.done()
            release(held[0])
            assert (await waiting).body == LONG_REPLY


async def test_a_long_reply_that_waits_for_its_share_too_long_ends_with_the_call(calls: Make) -> None:
    async with supplier(long_reply) as server:
        made = calls(server.url, total_timeout=3 * SECOND)
        async with crowded(made) as held:
            assert await outcome(post(made)) == (Unclear, "total-timeout")
            release(held[0])
            assert await outcome(post(made)) == (Reply, "200")


@pytest.mark.parametrize("secure", [False, True])
async def test_of_a_long_reply_that_waits_for_its_share_little_is_buffered(
    calls: Make, trials: Trials, *, secure: bool
) -> None:
    sent = 0
    context = server_context(trials.good, ask=False)

    def serve() -> None:
        nonlocal sent
        connection, _ = server.accept()
        connection.settimeout(PATIENCE)
        if secure:
            connection = context.wrap_socket(connection, server_side=True)
        with connection, suppress(OSError):
            for _ in range(ROOM):
                connection.recv(65536)
                connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(LONG_REPLY) + LONG_REPLY)
            connection.recv(65536)
            connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(LONG_REPLY))
            for _ in range(len(LONG_REPLY) // 4096):
                sent += connection.send(b"x" * 4096)

    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http{'s' if secure else ''}://localhost:{server.getsockname()[1]}"
        made = calls(url, tls=tree.Tls(ca=trials.good.ca), total_timeout=4 * SECOND)
        async with crowded(made):
            assert await outcome(post(made)) == (Unclear, "total-timeout")
        await asyncio.to_thread(thread.join)
    assert LONG < sent < 8 * LONG


@pytest.mark.parametrize("secure", [False, True])
async def test_closing_ends_the_calls_that_wait_for_their_share(calls: Make, trials: Trials, *, secure: bool) -> None:
    async with supplier(long_reply, tls=server_context(trials.good, ask=False) if secure else None) as server:
        made = calls(server.url, tls=tree.Tls(ca=trials.good.ca))
        async with crowded(made):
            waiting = [asyncio.ensure_future(outcome(post(made))) for _ in range(ROOM)]
            await eventually(lambda: len(server.requests) == 2 * ROOM, within=PATIENCE, what="all requests")
            await made.close()
            assert {reason for _, reason in await asyncio.gather(*waiting)} == {"reset"}


async def until_cancelled(exchange: Exchange) -> None:
    await exchange.wait_for_client()


async def too_much(exchange: Exchange) -> None:
    await exchange.send(b"x" * 2 * MIB)


@pytest.mark.parametrize("end", [resetting_it, closing_it, too_much, until_cancelled])
async def test_the_share_of_a_long_reply_that_never_arrives_whole_is_returned(
    calls: Make, end: Callable[[Exchange], Awaitable[None]]
) -> None:
    begun = 0

    async def script(exchange: Exchange) -> None:
        nonlocal begun
        request = await exchange.request()
        if request.body == b"whole":
            await exchange.reply(LONG_REPLY)
            return
        await exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 2 * LONG)
        begun += 1
        await end(exchange)

    async with supplier(script) as server:
        made = calls(server.url)
        failing = [asyncio.ensure_future(outcome(post(made))) for _ in range(2 * ROOM)]
        await eventually(lambda: begun == len(failing), within=PATIENCE, what="all of them having begun")
        if end is until_cancelled:
            for call in failing:
                call.cancel()
        await asyncio.wait(failing)
        whole = [await post(made, b"whole") for _ in range(ROOM)]
        assert [reply.body for reply in whole] == [LONG_REPLY] * ROOM


LIMITS = CallLimits(write=20, read=20, idle=20, body=MIB)


async def connected(port: int, *, limits: CallLimits = LIMITS, allowance: Allowance | None = None) -> Connection:
    """A connection as the calls make them, for tests that say what comes and when."""
    _, made = await asyncio.get_running_loop().create_connection(
        lambda: Connection(limits, None, allowance or Allowance(MIB), lambda _: None), "127.0.0.1", port
    )
    return made


async def begun(made: Connection) -> "asyncio.Future[Reply]":
    """An exchange whose request is written."""
    call = asyncio.ensure_future(made.exchange(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"", 1e12))
    await asyncio.sleep(0)
    return call


async def test_a_reply_that_comes_byte_by_byte_is_read() -> None:
    head = OK + b"X-Long: " + b"x" * 60_000 + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = b"HTTP/1.1 100 Continue\r\n\r\n" + head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with supplier(silent) as server:
        made = await connected(server.port)
        call = await begun(made)
        for place in range(len(said)):
            made.data_received(said[place : place + 1])
        assert (await call).body == b"abcde"
        made.abort()


async def test_a_reply_whose_connection_ends_while_it_waits_for_its_share_is_unclear() -> None:
    async with supplier(silent) as server:
        allowance = Allowance(MIB)
        made = await connected(server.port, allowance=allowance)
        others = allowance.request(MIB, lambda: None)
        transport = made._transport
        assert transport is not None
        call = await begun(made)
        made.data_received(OK + b"\r\n" + b"x" * 2 * LONG)
        made.connection_lost(None)
        assert await outcome(call) == (Unclear, "reset")
        others.release()
        assert allowance.left == MIB
        transport.abort()


async def test_a_short_request_that_is_never_taken_ends_at_the_write_limit() -> None:
    async with supplier(silent) as server, asyncio.timeout(PATIENCE):
        made = await connected(server.port, limits=replace(LIMITS, write=0.1, read=10 * PATIENCE))
        made.pause_writing()  # as asyncio does while its buffer is full
        assert await outcome(await begun(made)) == (Unclear, "write-timeout")


def test_a_reply_that_goes_on_may_take_longer_than_its_longest_silence() -> None:
    async def story() -> None:
        async with supplier(silent) as server:
            made = await connected(server.port, limits=replace(LIMITS, read=20))
            call = await begun(made)
            for part in (OK, b"Content-Length: 3\r\n\r\n", b"a", b"b", b"c"):
                made.data_received(part)
                loop.ahead += 15
                await asyncio.sleep(0.001)  # first comes what was due meanwhile
            assert (await call).body == b"abc"
            made.abort()

    loop = Ahead()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(story())


async def test_a_reply_without_length_is_not_whole_where_we_are_the_ones_who_end_its_connection() -> None:
    async with supplier(silent) as server:
        made = await connected(server.port)
        call = await begun(made)
        made.data_received(OK + b"\r\n<half")
        made.abort()
        assert await outcome(call) == (Unclear, "reset")


# Connections that are kept


async def test_a_connection_is_used_again(calls: Make) -> None:
    async with supplier(answering) as server:
        made = calls(server.url)
        for _ in range(3):
            await post(made)
    assert len(server.exchanges) == 1


async def test_without_keep_alive_no_connection_is_used_again(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.reply()
        await exchange.wait_for_client()

    async with supplier(script) as server:
        made = calls(server.url, keep_alive=0 * SECOND)
        for _ in range(3):  # at once after each other: none may find a connection that is about to be closed
            assert await outcome(post(made)) == (Reply, "200")
    assert len(server.exchanges) == 3


async def test_an_idle_connection_is_dropped_before_the_supplier_would(calls: Make) -> None:
    async with supplier(answering) as server:
        await post(calls(server.url, keep_alive=SHORT))
        await eventually(lambda: server.active == 0, what="the client closing its idle connection")


@pytest.mark.parametrize(("ours", "named"), [(60 * SECOND, 1), (60 * SECOND, 2), (SHORT, 60)])
async def test_an_idle_connection_is_dropped_before_the_time_that_the_supplier_names_and_ours(
    calls: Make, ours: timedelta, named: int
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(OK + b"Keep-Alive: max=9, timeout=%d\r\nContent-Length: 0\r\n\r\n" % named)
        await exchange.wait_for_client()

    async with supplier(script) as server:
        await post(calls(server.url, keep_alive=ours))
        await eventually(lambda: server.active == 0, within=20, what="the client closing its idle connection")


@asynccontextmanager
async def mute(trials: Trials, left: threading.Event) -> AsyncIterator[str]:
    """The address of a server that answers one request and from then on says nothing, not even within TLS. It sets
    `left` when the client has gone.
    """
    context = server_context(trials.good, ask=False)

    def serve() -> None:
        accepted, _ = server.accept()
        accepted.settimeout(PATIENCE)
        connection = context.wrap_socket(accepted, server_side=True)
        while b"<request/>" not in connection.recv(65536):
            pass
        connection.sendall(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
        with socket.socket(fileno=connection.detach()) as silent, suppress(OSError):
            silent.settimeout(20)  # a loop of its own accord waits for 30
            while silent.recv(65536):
                pass
            left.set()

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://localhost:{server.getsockname()[1]}"
        await asyncio.to_thread(thread.join)


async def test_a_server_that_does_not_answer_our_good_bye_is_left_all_the_same(calls: Make, trials: Trials) -> None:
    left = threading.Event()
    async with mute(trials, left) as url:
        assert await outcome(post(calls(url, tls=tree.Tls(ca=trials.good.ca)))) == (Reply, "200")
    assert left.is_set()


async def test_calls_end_while_a_connection_that_is_never_kept_waits_for_the_answer_to_our_good_bye(
    calls: Make, trials: Trials
) -> None:
    left = threading.Event()
    async with mute(trials, left) as url:
        made = calls(url, tls=tree.Tls(ca=trials.good.ca), keep_alive=0 * SECOND)
        assert await outcome(post(made)) == (Reply, "200")
        for _ in range(10):  # so that the time limit of an idle connection has come, too
            await asyncio.sleep(0)
        await made.close()


class Ahead(asyncio.SelectorEventLoop):
    """Its clock can be put ahead."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def test_a_kept_connection_is_left_a_second_before_the_supplier_would_close_it() -> None:
    async def story() -> None:
        async with supplier(silent) as server:
            made = await connected(server.port, limits=replace(LIMITS, idle=600))
            call = await begun(made)
            made.data_received(OK + b"Keep-Alive: timeout=60\r\nContent-Length: 0\r\n\r\n")
            await call
            for ahead, fit in ((50, True), (9.2, False)):
                loop.ahead += ahead
                await asyncio.sleep(0.001)  # first comes what was due meanwhile
                assert made.fit() == fit

    loop = Ahead()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(story())


def test_a_name_is_resolved_again_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def count() -> None:
        asked = 0

        async def counted(host: str, port: int, **_: object) -> list[object]:
            nonlocal asked
            asked += 1
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

        monkeypatch.setattr(loop, "getaddrinfo", counted)
        async with supplier(close_after_answering) as server:
            made = opened(server.url, keep_alive=0 * SECOND)
            for ahead, expected in ((0, 1), (5, 1), (10, 2)):
                loop.ahead += ahead
                assert await outcome(post(made)) == (Reply, "200")
                assert asked == expected
            await made.close()

    loop = Ahead()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(count())


def test_after_the_time_at_which_the_supplier_has_ended_one_no_idle_connection_is_used_for_an_hour() -> None:
    async def count() -> None:
        async with supplier(answering) as server:
            made = opened(server.url, keep_alive=600 * SECOND)

            async def connections(*, idle: float) -> int:
                """How many were ever used when those there are were idle for so long and another call is made."""
                loop.ahead += idle
                await asyncio.sleep(0.001)  # first comes what was due meanwhile
                assert await outcome(post(made)) == (Reply, "200")
                return len(server.exchanges)

            async def end(*, idle: float) -> None:
                loop.ahead += idle
                before = server.active
                server.exchanges[-1].close()
                await eventually(lambda: server.active < before, what="an end of the idle connection")

            await asyncio.gather(post(made), post(made))
            assert await connections(idle=100) == 2
            await asyncio.gather(post(made), post(made))
            await end(idle=50)
            assert await connections(idle=0) == 3  # perhaps the other is being ended
            assert await connections(idle=25) == 3
            assert await connections(idle=100) == 4
            await end(idle=200)  # another gateway's limit
            assert await connections(idle=0) == 5
            assert await connections(idle=100) == 6
            assert await connections(idle=3600) == 7
            assert await connections(idle=100) == 7  # it may have been a gateway that started anew
            await made.close()

    loop = Ahead()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(count())


@pytest.mark.parametrize("ours", [False, True])
async def test_only_an_end_that_the_supplier_makes_says_how_long_it_keeps_an_idle_connection(*, ours: bool) -> None:
    async with supplier(answering) as server:
        made = await connected(server.port)
        await begun(made)
        await eventually(lambda: made.idle_since)
        if ours:
            made.close()
        else:
            server.exchanges[0].close()
        await eventually(lambda: not made.alive)
        assert (made.left_after is None) == ours


async def test_a_reused_connection_lost_after_the_request_is_unclear_and_not_called_again(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.reply()
        await exchange.request()

    async with supplier(script) as server:
        made = calls(server.url)
        await post(made)
        assert await outcome(post(made)) == (Unclear, "reset")
    assert len(server.requests) == 2


async def test_what_tls_says_of_itself_on_a_new_connection_is_no_reason_to_give_it_up(
    calls: Make, trials: Trials
) -> None:
    # A server of TLS 1.3 sends tickets after its handshake; on a thread, it does so once the client is done with its.
    context = server_context(trials.good, ask=False, only=ssl.TLSVersion.TLSv1_3)

    def serve() -> None:
        for _ in range(_NEW):
            accepted, _ = server.accept()
            accepted.settimeout(PATIENCE)
            with context.wrap_socket(accepted, server_side=True) as connection:
                found = b""
                while not found.endswith(b"<request/>"):
                    found += connection.recv(65536)
                connection.sendall(OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n")

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        made = calls(f"https://localhost:{server.getsockname()[1]}", tls=tree.Tls(ca=trials.good.ca))
        assert [await outcome(post(made)) for _ in range(_NEW)] == [(Reply, "200")] * _NEW
        await asyncio.to_thread(thread.join)


_NEW = 8


@pytest.mark.parametrize("leaving", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_a_kept_connection_the_server_has_left_meanwhile_costs_no_doubt(calls: Make, leaving: bytes) -> None:
    # The server lives on a thread and the loop is held up, so the client cannot have noticed before it writes.
    leave, left = threading.Event(), threading.Event()
    requests: list[bytes] = []

    def take(connection: socket.socket) -> None:
        found = b""
        while not found.endswith(b"<request/>"):
            found += connection.recv(65536)
        requests.append(found)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def serve() -> None:
        first, _ = server.accept()
        first.settimeout(PATIENCE)
        with first:
            take(first)
            leave.wait(PATIENCE)
            first.sendall(leaving)
        left.set()
        second, _ = server.accept()
        second.settimeout(PATIENCE)
        with second:
            take(second)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        made = calls(f"http://127.0.0.1:{server.getsockname()[1]}")
        assert await outcome(post(made)) == (Reply, "200")
        leave.set()
        assert left.wait(PATIENCE)
        assert await outcome(post(made)) == (Reply, "200")
        await asyncio.to_thread(thread.join)
    assert len(requests) == 2


async def test_an_answer_that_comes_before_the_request_is_taken_is_the_answer(calls: Make) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        exchange.stop_reading()
        await exchange.reply(b"<no/>", status="413 Too Large")
        await asyncio.get_running_loop().create_future()

    async with supplier(script) as server:
        made = calls(server.url)
        reply = await post(made, b"x" * (32 * MIB))
        assert (reply.status, reply.body) == (413, b"<no/>")
        assert (await post(made, b"x")).status == 413
        assert len(server.exchanges) == 2  # the rest of the first request was never written, so nothing fits behind it


async def test_nothing_follows_a_request_of_which_a_part_still_waits_to_be_sent_when_its_answer_comes() -> None:
    async with supplier(silent) as server:
        made = await connected(server.port)
        made.pause_writing()  # as asyncio does while its buffer is full
        call = await begun(made)
        made.data_received(OK + b"Content-Length: 0\r\n\r\n")
        assert (await call).status == 200
        assert not made.kept
        made.abort()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nab", id="says that it closes"),
        pytest.param(OK + b"Content-Length: 2\r\n\r\nab" + OK + b"Content-Length: 2\r\n\r\nno", id="says more"),
        pytest.param(OK + b"Content-Length: 2\r\n\r\nabcdef", id="babbles on"),
        pytest.param(
            OK + b"Content-Length: 2\r\n\r\nab" + b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            id="changes the protocol",
        ),
    ],
)
async def test_a_connection_on_which_no_other_answer_can_come_is_not_used_again(calls: Make, said: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(said)
        await exchange.wait_for_client()

    async with supplier(script) as server:
        made = calls(server.url)
        for _ in range(2):
            assert (await post(made)).body == b"ab"
        assert len(server.exchanges) == 2
        await eventually(lambda: server.active == 0, what="the client closing both")


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
async def test_a_header_with_a_line_break_is_refused_before_anything_is_sent(calls: Make, end: str) -> None:
    async with supplier(answering) as server:
        with pytest.raises(ValueError, match="line break"):
            await calls(server.url).post("/add", b"", {"soapaction": f'"a"{end}x-evil: 1'})
        assert not server.exchanges


async def test_a_reply_nobody_asked_for_is_not_taken_for_the_answer_to_the_next_request(calls: Make) -> None:
    speak = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.reply(b"<first/>")
        if len(server.exchanges) == 1:
            await speak.wait()
            await exchange.reply(b"<stray/>")
        await exchange.request()
        await exchange.reply(b"<second/>")

    async with supplier(script) as server, supplier(answering) as other:
        made = calls(server.url)
        await post(made)
        speak.set()
        await post(calls(other.url))  # meanwhile the client's loop has read the stray reply
        assert (await post(made)).body == b"<first/>"
        assert len(server.exchanges) == 2


async def test_a_call_leaves_nothing_to_the_collector_of_cycles(calls: Make) -> None:
    async with supplier(answering) as server:
        made = calls(server.url)
        await post(made)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await post(made)
            # The server of the test has its own; parsers are of the client alone.
            left = [each for each in gc.get_objects() if type(each).__name__ == "_Reading"]
        finally:
            gc.enable()
    assert not left


async def test_hundreds_of_calls_run_side_by_side(calls: Make) -> None:
    everybody = asyncio.Barrier(512)

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await everybody.wait()
        await exchange.reply()

    async with supplier(script) as server:
        made = calls(server.url)
        replies = await asyncio.gather(*(post(made) for _ in range(512)))
    assert [reply.status for reply in replies] == [200] * 512


# Mutual TLS


async def test_the_client_shows_its_certificate_and_a_new_one_after_rotation(calls: Make, trials: Trials) -> None:
    shown: list[str] = []

    async def script(exchange: Exchange) -> None:
        assert exchange.certificate is not None
        subject = x509.load_der_x509_certificate(exchange.certificate).subject
        shown.append(str(subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value))
        await answering(exchange)

    before = trials.authority.client("rotating", subject="before")
    files = tree.Tls(certificate=before.certificate, key=before.key, ca=trials.good.ca)
    async with supplier(script, tls=server_context(trials.good)) as server:
        made = calls(server.url, tls=files)
        await post(made)
        await post(made)
        assert shown == ["before"]
        trials.authority.client("rotating", subject="after")
        assert made.tls is not None
        assert made.tls.refresh() is not None
        await post(made)
        await post(made)
        assert shown == ["before", "after"]


async def test_a_call_under_way_survives_a_rotation(calls: Make, trials: Trials) -> None:
    answer = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await answer.wait()
        await exchange.reply()

    pair = trials.authority.client("rotating-too")
    async with supplier(script, tls=server_context(trials.good)) as server:
        made = calls(server.url, tls=tree.Tls(certificate=pair.certificate, key=pair.key, ca=trials.good.ca))
        task = asyncio.ensure_future(post(made))
        await eventually(lambda: server.requests)
        trials.authority.client("rotating-too")
        assert made.tls is not None
        assert made.tls.refresh() is not None
        answer.set()
        assert (await task).status == 200


# A proxy


def connect_proxy(port: int, seen: list[tuple[str, dict[str, str]]]) -> Script:
    async def script(exchange: Exchange) -> None:
        seen.append(await exchange.head())
        await exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await tunnel(exchange, port)

    return script


async def test_a_configured_proxy_is_asked_to_connect(calls: Make, trials: Trials, tmp_path: Path) -> None:
    secret = tmp_path / "proxy"
    secret.write_text("user:pass word\n")
    seen: list[tuple[str, dict[str, str]]] = []
    async with (
        supplier(answering, tls=server_context(trials.good, ask=False)) as server,
        supplier(connect_proxy(server.port, seen)) as proxy,
    ):
        made = calls(server.url, proxy=tree.Proxy(url=proxy.url, credentials=secret), tls=tree.Tls(ca=trials.good.ca))
        assert await outcome(post(made)) == (Reply, "200")
        assert await outcome(post(made)) == (Reply, "200")
    ((line, headers),) = seen
    assert line == f"CONNECT localhost:{server.port} HTTP/1.1"
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:pass word").decode()
    assert all("proxy-authorization" not in request.headers for request in server.requests)


async def test_a_proxy_gets_the_credentials_that_are_in_the_file_when_it_is_asked(
    calls: Make, trials: Trials, tmp_path: Path
) -> None:
    secret = tmp_path / "proxy"
    secret.write_text("user:old")
    seen: list[tuple[str, dict[str, str]]] = []
    async with (
        supplier(answering, tls=server_context(trials.good, ask=False)) as server,
        supplier(connect_proxy(server.port, seen)) as proxy,
    ):
        never = timedelta(0)
        made = calls(
            server.url,
            proxy=tree.Proxy(url=proxy.url, credentials=secret),
            tls=tree.Tls(ca=trials.good.ca),
            keep_alive=never,
        )
        assert await outcome(post(made)) == (Reply, "200")
        secret.write_text("user:new")
        assert await outcome(post(made)) == (Reply, "200")
        secret.unlink()
        assert await outcome(post(made)) == (NotSent, "proxy")
        secret.write_text("user:newer")
        assert await outcome(post(made)) == (Reply, "200")
    told = [base64.b64decode(headers["proxy-authorization"].removeprefix("Basic ")) for _, headers in seen]
    assert told == [b"user:old", b"user:new", b"user:newer"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(saying(b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n"), id="refuses"),
        pytest.param(saying(), id="closes"),
        pytest.param(reset_after_reading, id="resets"),
        pytest.param(saying(b"hello\r\n\r\n"), id="babbles"),
        pytest.param(repeating(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 100), id="does not end"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_not_sent(calls: Make, trials: Trials, script: Script) -> None:
    async with supplier(script) as proxy:
        made = calls("https://localhost:1", proxy=tree.Proxy(url=proxy.url), tls=tree.Tls(ca=trials.good.ca))
        assert await outcome(post(made)) == (NotSent, "proxy")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 407 Authenticate\r\n\r\n", "with 407"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n", "with 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "with 200, but with more than a head, or less"),
        (b"HTTP/1.1 200 OK\r\nX-More: and mo", "with 200, but with more than a head, or less"),
        (b"hello\r\n\r\n", "with no status"),
        (b"", "with no status"),
    ],
)
async def test_what_is_told_of_a_proxy_that_does_not_connect(answer: bytes, told: str) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        ours.setblocking(False)  # noqa: FBT003 -- the library's signature
        its.sendall(answer)
        its.shutdown(socket.SHUT_WR)
        with pytest.raises(NotSent) as failure:
            await Proxy("proxy", 80, None).connect(ours, "supplier", 443)
        assert (failure.value.reason, failure.value.detail) == ("proxy", f"the proxy answered CONNECT {told}")


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_heads_before_the_answer_of_a_proxy_are_passed_over(size: int) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        for each in (ours, its):
            each.setblocking(False)  # noqa: FBT003 -- the library's signature
        loop = asyncio.get_running_loop()
        connecting = asyncio.ensure_future(Proxy("proxy", 80, None).connect(ours, "supplier", 443))
        await loop.sock_recv(its, 1000)
        said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
        for at in range(0, len(said), size):
            await loop.sock_sendall(its, said[at : at + size])
            await asyncio.sleep(0)
        await connecting


async def test_an_answer_of_a_proxy_that_comes_in_two_parts_is_read() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        for each in (ours, its):
            each.setblocking(False)  # noqa: FBT003 -- the library's signature
        loop = asyncio.get_running_loop()
        connecting = asyncio.ensure_future(Proxy("proxy", 80, None).connect(ours, "supplier", 443))
        assert (await loop.sock_recv(its, 1000)).startswith(b"CONNECT supplier:443 ")
        for part in (b"HTTP/1.1 200 Connect", b"ion established\r\n", b"\r\n"):
            await loop.sock_sendall(its, part)
            await eventually(lambda: not select.select([ours], [], [], 0)[0], what="the part being read")
        await connecting


async def test_a_proxy_that_is_away_or_silent_is_not_sent(calls: Make, trials: Trials) -> None:
    made = calls("https://localhost:1", proxy=tree.Proxy(url=f"http://127.0.0.1:{free_port()}"))
    assert await outcome(post(made)) == (NotSent, "proxy")
    async with supplier(silent) as proxy, asyncio.timeout(PATIENCE):
        made = calls("https://localhost:1", proxy=tree.Proxy(url=proxy.url), connect_timeout=SHORT, total_timeout=NEVER)
        assert await outcome(post(made)) == (NotSent, "connect-timeout")


async def test_a_certificate_is_verified_behind_a_proxy_too(calls: Make, trials: Trials) -> None:
    files = replace(
        trials.good,
        server_certificate=trials.wrong_host_server.certificate,
        server_key=trials.wrong_host_server.key,
    )
    async with (
        supplier(answering, tls=server_context(files, ask=False)) as server,
        supplier(connect_proxy(server.port, [])) as proxy,
    ):
        made = calls(server.url, proxy=tree.Proxy(url=proxy.url), tls=tree.Tls(ca=trials.good.ca))
        assert await outcome(post(made)) == (NotSent, "tls")
        assert server.received == 0


async def test_proxies_of_the_environment_are_ignored(calls: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with supplier(answering) as server:
        assert await outcome(post(calls(server.url))) == (Reply, "200")


# Settings that cannot work


@pytest.mark.parametrize("url", ["https://exa\x00mple.com/", "https://\u2603.example.com/"])
async def test_an_address_that_cannot_be_called_stops_the_start(url: str) -> None:
    with pytest.raises(Stop, match="ADAPTER_SUPPLIER__BASE_URL: can't be used"):
        opened(url)


async def test_a_proxy_that_cannot_be_asked_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="ADAPTER_SUPPLIER__PROXY__URL: can't be used"):
        opened("https://example.com", proxy=tree.Proxy(url="http://\u2603.example.com"))
    secret = tmp_path / "proxy"
    secret.write_text("user:password")
    proxy = tree.Proxy(url="http://proxy:1", credentials=secret)
    secret.unlink()
    with pytest.raises(Stop, match=r"CREDENTIALS: /.*No such file"):
        opened("https://example.com", proxy=proxy)


async def test_a_certificate_without_its_key_stops_the_start(trials: Trials) -> None:
    with pytest.raises(Stop, match="go together"):
        opened("https://example.com", tls=tree.Tls(certificate=trials.good.client_certificate))


# Wherever the exchange is cut


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    version=st.sampled_from([None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
    upwards=st.booleans(),
    at=st.integers(0, 6000),
    reset=st.booleans(),
    reused=st.booleans(),
    loop=st.sampled_from([asyncio.new_event_loop, uvloop.new_event_loop]),
)
def test_not_sent_is_said_only_if_the_server_has_seen_no_byte_of_the_request(
    trials: Trials,
    *,
    version: ssl.TLSVersion | None,
    upwards: bool,
    at: int,
    reset: bool,
    reused: bool,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def story() -> None:
        context = None if version is None else server_context(trials.good, only=version)
        files = tree.Tls(certificate=trials.good.client_certificate, key=trials.good.client_key, ca=trials.good.ca)
        async with (
            supplier(answering, tls=context) as server,
            cutting(server.port, at, upwards=upwards, reset=reset, armed=not reused) as cut,
        ):
            url = f"{'http' if version is None else 'https'}://localhost:{cut.port}"
            made = opened(url, tls=files)
            try:
                if reused:
                    assert await outcome(post(made)) == (Reply, "200")
                    cut.arm()
                before = server.received
                kind, _ = await outcome(post(made, b"x" * 3000))
                await eventually(lambda: kind is Reply or server.active == 0)
                if kind is NotSent:
                    assert server.received == before
                if kind is Reply:
                    assert len(server.requests) == 1 + reused
            finally:
                await made.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())
