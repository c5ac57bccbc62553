"""The telemetry endpoint: /metrics for the scraper, /health for the platform, /status for people.

It runs on the flow's own loop, so a loop that hangs answers nobody: that is what /health/live is for. A fault in
answering is a 500 and a log line; the flow goes on.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from aiohttp import web

from adapter import listen
from adapter.core.errors import Stop
from adapter.telemetry import Log, Metrics

_IDLE: Final = 600.0
"""Seconds for which a scraper's connection is kept between two questions."""


@asynccontextmanager
async def served(
    host: str,
    port: int,
    *,
    metrics: Metrics,
    log: Log,
    unready: Callable[[], Sequence[str]],
    status: Callable[[], Mapping[str, Any]],
) -> AsyncIterator[str]:
    """The URL of an endpoint that listens on `port`, or on a free one if it is 0. Raises Stop if that can't be had.

    `unready` gives the reasons why the flow can't work at the moment, none if it can. `status` is what a person wants
    to know; it is shown as it is, so it must carry no personal data.
    """
    app = web.Application(middlewares=[_guarded(log)])
    app.add_routes(
        [
            web.get("/metrics", _metrics(metrics)),
            web.get("/health/live", _live),
            web.get("/health/ready", _ready(unready)),
            web.get("/status", _status(status)),
        ]
    )
    app.on_response_prepare.append(_anonymous)
    async with AsyncExitStack() as stack:
        try:
            url = await listen.serve(stack, app, host, port, idle=_IDLE)
        except Stop as why:
            raise Stop(
                f"ADAPTER_TELEMETRY__HOST, ADAPTER_TELEMETRY__PORT: {why}; name an address of this machine, and a port "
                "that is free, or 0 to take one"
            ) from None
        yield url


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _metrics(metrics: Metrics) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        body, content_type = metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return answer


async def _live(_request: web.Request) -> web.Response:
    return _json({"live": True})


def _ready(unready: Callable[[], Sequence[str]]) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        reasons = list(unready())
        return _json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    return answer


def _status(status: Callable[[], Mapping[str, Any]]) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return _json(status())

    return answer


def _json(content: Mapping[str, Any], *, status: int = 200) -> web.Response:
    text = json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n"
    return web.Response(text=text, status=status, content_type="application/json")


def _guarded(log: Log) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            there = ", ".join(resource.canonical for resource in request.app.router.resources())
            return web.Response(text=f"Nothing is here; there are {there}.\n", status=404)
        except web.HTTPException:
            raise
        except Exception:
            log.exception("telemetry answer failed", path=request.path)
            return _json({"error": "see the log"}, status=500)

    return guard


async def _anonymous(_request: web.Request, response: web.StreamResponse) -> None:
    """Hide the versions of aiohttp and Python."""
    response.headers["Server"] = "fault-adapter"
