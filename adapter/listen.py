"""Listening: an aiohttp application or a bare protocol on an address, plain or with TLS."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from adapter.core.errors import Stop


async def serve(
    stack: AsyncExitStack,
    app: web.Application,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    idle: float = 60.0,
) -> str:
    """Serves `app` until the stack ends, and returns its URL; port 0 takes a free one. Connections are closed after
    `idle` seconds without a request. Raises Stop if it cannot listen.
    """
    # Handlers are cancelled with their connection, so that one held open by a fault does not delay the stop.
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, keepalive_timeout=idle, shutdown_timeout=0.2
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    protocol = runner.server
    assert protocol is not None  # it has been set up
    return await serve_protocol(stack, protocol, host, port, tls=tls)


async def serve_protocol(
    stack: AsyncExitStack,
    protocol: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
) -> str:
    """As `serve`, for a bare protocol."""
    loop = asyncio.get_running_loop()
    try:
        if host == "::":  # by itself asyncio takes IPv6 alone there, unlike the listener for notifications
            both = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
            server = await loop.create_server(protocol, sock=both, ssl=tls, backlog=1024)
        else:
            server = await loop.create_server(protocol, host, port, ssl=tls, backlog=1024)
    except OSError as error:
        raise Stop(f"can't listen on {host}:{port} ({error.strerror or type(error).__name__})") from error
    stack.push_async_callback(stop_listening, server)
    port = server.sockets[0].getsockname()[1]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


async def stop_listening(server: asyncio.Server) -> None:
    """Returns when nobody is taken in any more. What was accepted at this moment comes to its protocol, which must
    turn it away.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening)
    await asyncio.sleep(0)  # what was accepted gets its transport, which a closed server would leave it without
    server.close()
