"""Listening: an aiohttp application or a bare protocol on an address, plain or with mutual TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from aiohttp import web

from adapter.core.errors import Stop
from adapter.twin.settings import TlsFiles


async def serve(
    stack: contextlib.AsyncExitStack,
    app: web.Application,
    host: str,
    port: int,
    *,
    tls: TlsFiles | None = None,
    idle: float = 60.0,
) -> str:
    """Serves `app` until the stack ends, and returns its URL. Raises Stop if it cannot listen."""
    # Handlers are cancelled with their connection, so that one held open by a fault does not delay the stop.
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        keepalive_timeout=idle,
        shutdown_timeout=0.2,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    protocol = runner.server
    assert protocol is not None  # it has been set up
    return await serve_protocol(stack, protocol, host, port, tls=tls)


async def serve_protocol(
    stack: contextlib.AsyncExitStack,
    protocol: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    *,
    tls: TlsFiles | None = None,
) -> str:
    """As `serve`, for a bare protocol."""
    context = tls.context(ssl.PROTOCOL_TLS_SERVER) if tls else None
    try:
        server = await asyncio.get_running_loop().create_server(protocol, host, port, ssl=context, backlog=1024)
    except OSError as error:
        raise Stop(f"cannot listen on {host}:{port}: {error.strerror}") from error
    stack.push_async_callback(stop_listening, server)
    port = server.sockets[0].getsockname()[1]
    return f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


async def stop_listening(server: asyncio.Server) -> None:
    """Returns when nobody is taken in any more. What was accepted at this moment comes to its protocol, which must
    turn it away.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening)
    await asyncio.sleep(0)  # what was accepted gets its transport, which a closed server would leave it without
    server.close()
