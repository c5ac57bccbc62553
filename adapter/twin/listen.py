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
    context = tls.context(ssl.PROTOCOL_TLS_SERVER) if tls else None
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port, ssl_context=context, backlog=1024).start()
    except OSError as error:
        raise _in_use(host, port, error) from error
    return _url(host, runner.addresses[0][1], context)


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
        raise _in_use(host, port, error) from error
    stack.callback(server.close)
    return _url(host, server.sockets[0].getsockname()[1], context)


def _in_use(host: str, port: int, error: OSError) -> Stop:
    return Stop(f"cannot listen on {host}:{port}: {error.strerror}")


def _url(host: str, port: int, context: ssl.SSLContext | None) -> str:
    return f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
