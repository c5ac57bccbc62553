"""Somebody who is notified: answers as a test says, and keeps what came."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from lxml import etree

from adapter import listen
from adapter.core import soap

GOOD = (
    "<receivedNotifyFaultReportUpdate><apiVersion>1.0</apiVersion><buyerIdentifier>{buyer}</buyerIdentifier>"
    "<sentAt>2026-07-01T12:00:00.000Z</sentAt><messageId>{id}</messageId><responseCode>200</responseCode>"
    "</receivedNotifyFaultReportUpdate>"
)


@dataclass(frozen=True, slots=True)
class Got:
    """One notification as it came."""

    path: str
    soap_action: str
    body: bytes
    element: etree._Element
    at: float
    """Seconds of the loop's clock."""

    def text(self, path: str) -> str:
        return self.element.findtext(path) or ""

    @property
    def reference(self) -> str:
        return self.text("buyerFaultReference")

    @property
    def status(self) -> str:
        return self.text("faultDetails/status")


Answering = Callable[[Got], Awaitable[web.Response | None]]
"""None: the connection ends without an answer."""


async def acknowledge(got: Got) -> web.Response:
    return answer(got)


def answer(got: Got, **changed: str) -> web.Response:
    """A valid acknowledgement, but for what is changed."""
    parts = {"buyer": got.text("buyerIdentifier"), "id": got.text("messageId"), **changed}
    text = GOOD.format(**parts)
    if got.element.getroottree().getroot() is not got.element:
        text = f'<e:Envelope xmlns:e="{soap.SOAP_1_1}"><e:Body>{text}</e:Body></e:Envelope>'
    return web.Response(text=text, content_type="text/xml")


@dataclass(slots=True)
class Receiver:
    url: str = ""
    answering: Answering = acknowledge
    came: list[Got] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        element = soap.unwrap(etree.fromstring(body)).element
        assert element is not None
        now = asyncio.get_running_loop().time()
        got = Got(request.path, request.headers["SOAPAction"], body, element, now)
        self.came.append(got)
        answered = await self.answering(got)
        if answered is None and request.transport is not None:
            request.transport.close()
        return answered or web.Response()


@asynccontextmanager
async def receiver(answering: Answering = acknowledge, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiving = Receiver(answering=answering)
    app = web.Application()
    app.router.add_post("/{path:.*}", receiving.handle)
    async with AsyncExitStack() as stack:
        receiving.url = f"{await listen.serve(stack, app, '127.0.0.1', 0, tls=tls)}/hook"
        yield receiving
