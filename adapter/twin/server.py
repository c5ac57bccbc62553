"""The twin as a server: mutual TLS or plain HTTP in front of the desk, and the control address beside it."""

import asyncio
import contextlib
import signal
import ssl
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol, Self

from aiohttp import web

from adapter import listen
from adapter.catalogue import schema_root
from adapter.twin import control, desk, wire
from adapter.twin.calls import Call, CallLog
from adapter.twin.deliveries import Delivery
from adapter.twin.dialects import Manner
from adapter.twin.faults import Fault, Plan
from adapter.twin.judge import Judge
from adapter.twin.lean import Lean
from adapter.twin.life import Happening, Status, Ticket
from adapter.twin.lines import Log
from adapter.twin.notifier import Notifier
from adapter.twin.settings import TwinSettings
from adapter.twin.tickets import Books, Refusal

_MAX_BODY = 16 * 1024 * 1024


class Twin:
    """A stand-in for the supplier, for as long as the `async with` lasts. Several may run in one process.

    Raises Stop if it cannot start: address in use, certificate files that do not fit.
    """

    def __init__(self, settings: TwinSettings | None = None) -> None:
        self.settings = settings or TwinSettings()
        self.url = ""
        """Where the operations are: append "/addFaultReport"."""

        self.control_url = ""
        self.log = CallLog(self.settings.calls)
        notify = self.settings.notify
        self.delivery_log: Log[Delivery] = Log(notify.log if notify else None)
        self.plan = Plan()
        self.books = Books(self.settings.rules)
        for fault in self.settings.faults:
            self.plan.add(fault)
        schemas = desk.load(schema_root() / "xsd" / "cityfibre")
        self._judge = Judge(schemas["addFaultReport"])
        self._desk = desk.Desk(
            self.books,
            schemas,
            base_path=self.settings.base_path,
            buyer=self.settings.buyer,
            echo_message_id=self.settings.echo_message_id,
        )
        self._running = contextlib.AsyncExitStack()

    @property
    def calls(self) -> list[Call]:
        """Every request so far, oldest first."""
        return list(self.log)

    @property
    def deliveries(self) -> list[Delivery]:
        """Every notification so far and what became of it, oldest first."""
        return list(self.delivery_log)

    @property
    def tickets(self) -> dict[str, Ticket]:
        """The tickets as they stand now, by buyerFaultReference."""
        self.books.advance(datetime.now(UTC))
        return dict(self.books.tickets)

    def inject(self, *faults: Fault) -> None:
        """Puts faults in force, after those that are."""
        for fault in faults:
            self.plan.add(fault)

    def clear(self) -> None:
        """Ends all faults, except for requests to which one is already being applied."""
        self.plan.clear()

    def put(self, reference: str, status: Status) -> Ticket:
        """Sets a ticket's status. KeyError if there is no such ticket."""
        found = self.books.put(reference, status, now=datetime.now(UTC))
        if isinstance(found, Refusal):
            raise KeyError(reference)
        return found

    def happen(self, reference: str, what: Happening, *, code: str = "FR", manner: Manner | None = None) -> Ticket:
        """Makes that happen to a ticket, and with it the notification, in that manner; `code` closes an appointment.
        KeyError if there is no such ticket.
        """
        now = datetime.now(UTC)
        found = self.books.happen(reference, what, now=now, code=code, manner=manner or Manner())
        if isinstance(found, Refusal):
            raise KeyError(reference)
        return found

    async def __aenter__(self) -> Self:
        settings = self.settings
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        controls = control.Control(self.log, self.plan, self.books, self.delivery_log).application()
        async with contextlib.AsyncExitStack() as stack:
            if settings.notify:
                echo = settings.echo_message_id
                await stack.enter_async_context(
                    Notifier(settings.notify, self.books, self._judge, echo=echo, log=self.delivery_log)
                )
            tls = settings.tls.context(ssl.PROTOCOL_TLS_SERVER) if settings.tls else None
            self.url = await listen.serve(stack, app, settings.host, settings.port, tls=tls, idle=settings.keep_alive)
            self.url += settings.base_path
            self.control_url = await listen.serve(stack, controls, settings.control_host, settings.control_port)
            self._running = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()
        self.log.close()
        self.delivery_log.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        received = time.monotonic()
        peer = request.transport.get_extra_info("peername") if request.transport else None
        connection = f"{peer[0]}:{peer[1]}" if peer else ""
        try:
            body = await request.read()
            await _look_at(request)
        except web.HTTPException as refusal:
            self._unread(request, received, connection, answered=refusal.status)
            raise
        except web.RequestPayloadError as error:
            self._unread(request, received, connection, answered=400)
            raise web.HTTPBadRequest from error
        except (ConnectionError, asyncio.CancelledError):
            self._unread(request, received, connection, answered=None)
            raise
        read = self._desk.read(
            method=request.method,
            path=request.path,
            content_type=request.headers.get("Content-Type", ""),
            body=body,
        )
        planned = self.plan.meet(read.operation, read.key)
        fault, now = planned.fault, datetime.now(UTC)
        right = answer = None
        try:
            right = self._desk.take(read, now) if fault is None or fault.takes else None
            answer = right if fault is None else self._desk.spoil(read, right, fault, now)
        finally:
            call = self.log.receive(
                received=received,
                operation=read.operation,
                key=read.key,
                message_id=read.message_id,
                connection=connection,
                fault=fault.kind.value if fault else "delay" if planned.delay else None,
                verdict=right.verdict if right else None,
            )
            if answer is None:  # the desk has failed, and aiohttp answers
                self.log.finish(call, answered=500)
        assert answer is not None
        try:
            if planned.delay:
                await asyncio.sleep(planned.delay)
            return await wire.respond(
                request, answer, fault, done=lambda status: self.log.finish(call, answered=status)
            )
        finally:
            self.log.finish(call, answered=None)

    def _unread(self, request: web.Request, received: float, connection: str, *, answered: int | None) -> None:
        """Enters a request that was not processed: incomplete, too long, wrongly encoded, or given up by its caller."""
        call = self.log.receive(
            received=received,
            operation=request.path.rpartition("/")[2],
            key=None,
            message_id=None,
            connection=connection,
            fault=None,
            verdict=None,
        )
        self.log.finish(call, answered=answered)


async def _look_at(request: web.Request) -> None:
    """Raises ConnectionResetError if the caller has closed the connection. On a busy machine a request may be read only
    after its caller's timeout.
    """
    for _ in range(2):  # the loop reads the end of the connection, which follows the request, in its next iteration
        await asyncio.sleep(0)
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the caller has gone")


class Running(Protocol):
    """What serves, normal or lean."""

    url: str
    control_url: str


async def run(settings: TwinSettings) -> int:
    """Serves until SIGTERM or SIGINT; prints the addresses first. The command `adapter twin`. Raises Stop if it
    cannot start.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Lean(settings) if settings.lean else Twin(settings) as running:
        for text in _greeting(running, settings):
            sys.stdout.write(text + "\n")
        sys.stdout.flush()
        await stopped.wait()
    return 0


def _greeting(running: Running, settings: TwinSettings) -> Iterable[str]:
    yield f"twin: {running.url}" + (" (mutual TLS)" if settings.tls else "") + (" (lean)" if settings.lean else "")
    if settings.notify:
        alone = " (without a certificate: --notify-certificate)" if settings.notify.url.startswith("https:") else ""
        yield f"notifying: {settings.notify.url}" + (" (mutual TLS)" if settings.notify.tls else alone)
    yield f"control: {running.control_url}/twin/"
