"""What `adapter check` finds on the way to the supplier: it goes the way that the calls go."""

import asyncio
import socket

import pytest

from adapter.core.errors import Unavailable
from adapter.transport.probe import greet
from adapter.transport.tls import TlsFiles, client_context
from adapter.transport.way import Proxy
from tests.support.certificates import Trials
from tests.support.supplier import Exchange, Script, answering, black_hole, server_context, supplier, tunnel
from tests.support.wait import eventually

LIMIT = 20.0
"""Seconds, far above what a test needs."""


def proxying(port: int, answer: bytes, seen: list[str]) -> Script:
    async def script(exchange: Exchange) -> None:
        seen.append((await exchange.head())[0])
        await exchange.send(answer)
        await tunnel(exchange, port)

    return script


async def test_the_supplier_is_reached_though_one_of_its_addresses_swallows_connections(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _ = client_context(TlsFiles(ca=trials.good.ca))
    async with black_hole() as hole, supplier(answering, tls=server_context(trials.good, ask=False)) as server:

        async def both(_host: str, _port: int, **_: object) -> list[object]:
            ports = (hole, server.port)
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", each)) for each in ports]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        greeting = await greet("localhost", 443, context, limit=LIMIT)
    assert greeting is not None
    assert greeting.version == "TLSv1.3"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 204 Connected\r\nVia: x\r\n\r\n"])
@pytest.mark.parametrize(("host", "place"), [("localhost", "localhost"), ("::1", "[::1]")])
async def test_the_supplier_is_reached_through_a_proxy(trials: Trials, answer: bytes, host: str, place: str) -> None:
    context, _ = client_context(TlsFiles(ca=trials.good.ca))
    seen: list[str] = []
    async with (
        supplier(answering, tls=server_context(trials.good, ask=False)) as server,
        supplier(proxying(server.port, answer, seen)) as proxy,
    ):
        through = Proxy("127.0.0.1", proxy.port, None)
        assert await greet(host, server.port, context, limit=LIMIT, proxy=through) is not None
    assert seen == [f"CONNECT {place}:{server.port} HTTP/1.1"]


async def test_who_shakes_no_hands_is_not_waited_for_longer_than_the_limit(trials: Trials) -> None:
    context, _ = client_context(TlsFiles(ca=trials.good.ca))
    async with supplier(Exchange.wait_for_client) as server:
        with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
            await greet("localhost", server.port, context, limit=0.2)
        await eventually(lambda: server.active == 0, what="the connection being closed")


async def test_who_answers_a_handshake_in_plain_text_is_told_as_such(trials: Trials) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await exchange.wait_for_client()

    context, _ = client_context(TlsFiles(ca=trials.good.ca))
    async with supplier(script) as server:
        with pytest.raises(Unavailable, match="does not speak TLS"):
            await greet("localhost", server.port, context, limit=LIMIT)


async def test_a_proxy_that_refuses_is_told_by_its_status() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    async with supplier(script) as proxy:
        with pytest.raises(Unavailable, match="407"):
            await greet("localhost", 1, None, limit=LIMIT, proxy=Proxy("127.0.0.1", proxy.port, None))
