"""A collector of OpenTelemetry, as far as exporters know it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapter import listen


@asynccontextmanager
async def collector(spans: list[Any]) -> AsyncIterator[str]:
    """Puts the spans it gets into the list; gives its endpoint."""

    async def take(request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        spans.extend(span for r in message.resource_spans for scope in r.scope_spans for span in scope.spans)
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with AsyncExitStack() as stack:
        yield await listen.serve(stack, app, "127.0.0.1", 0)
