"""A worker's whole surroundings in memory: the bus, a registry with our schemas, a supplier that answers as told.

Workers are made of the product's own parts, with time limits of milliseconds.
"""

import asyncio
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import fastavro

from adapter.core import journal
from adapter.core.allowance import Allowance
from adapter.core.avro import Encoder, UnknownFields, unframe
from adapter.core.avro.lookup import Decoders
from adapter.core.command import Policy
from adapter.core.document import DocumentLimits
from adapter.core.journal import Entry, Kind
from adapter.core.outcome import Judge
from adapter.core.partition import partition_of
from adapter.core.rate import RateLimit
from adapter.core.retry import Backoff, Breaker
from adapter.core.ticket import Event as TicketEvent
from adapter.core.ticket import Policy as TicketPolicy
from adapter.core.ticket import Ticket, fold, mark
from adapter.ports import Calls, FollowedTicket, NotSent, Outgoing, Reply, Unclear
from adapter.telemetry import Metrics
from adapter.worker.case import Cases
from adapter.worker.conductor import Conductor
from adapter.worker.doubt import Doubts
from adapter.worker.events import Events, message_id
from adapter.worker.flow import Wiring, Worker
from adapter.worker.gate import Gate
from adapter.worker.ledger import Ledger
from adapter.worker.memory import Memory
from adapter.worker.reader import Reader
from adapter.worker.request import Requests, Terms
from adapter.worker.room import AHEAD
from adapter.worker.tickets import Tickets
from adapter.worker.window import Bounds
from tests.support import bus
from tests.support.bus import Bus, Feed, Member, Schemas, Shelves
from tests.support.estate import Command
from tests.support.known import known
from tests.support.measured import measured
from tests.support.wait import eventually

PROVISIONAL: Final = "CommandOutcomeUnknown"

Answer = Reply | NotSent | Unclear | None


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    record: Mapping[str, Any]
    key: bytes | None

    @property
    def final(self) -> bool:
        return self.type != PROVISIONAL


@dataclass(slots=True, eq=False)
class Call:
    """A request as the supplier got it."""

    operation: str
    message_id: str
    body: bytes
    headers: Mapping[str, str]
    seen: int
    """Transactions that were committed when it came."""
    answer: "asyncio.Future[Reply]"
    waits: bool = False
    """For the test's answer."""
    taken: bool = False
    """It was carried out, whatever was answered."""
    ended: bool = False


class Desk:
    """The supplier. `answers` says what a call gets at once; None: the test answers it later."""

    def __init__(self, bus: Bus) -> None:
        self.calls: list[Call] = []
        self.answers: Callable[[Call], Answer] = accepted
        self._bus = bus

    def door(self, member: Member) -> Calls:
        return _Door(self, member)

    def of(self, command: Command) -> list[Call]:
        return [call for call in self.calls if call.message_id == message_id(command.command_id)]

    def running(self, command: Command) -> Call | None:
        return next((call for call in self.of(command) if not call.ended), None)

    def receive(self, path: str, body: bytes, headers: Mapping[str, str]) -> Call:
        found = re.search(rb"messageId>([^<]+)<", body)
        assert found is not None
        operation = next(o.name for o in known().supplier.operations if o.path == path)
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        call = Call(operation, found[1].decode(), body, headers, len(self._bus.transactions), waiting)
        self.calls.append(call)
        return call


class _Door(Calls):
    def __init__(self, desk: Desk, member: Member) -> None:
        self._desk = desk
        self._member = member

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        if self._member.dead:
            await asyncio.get_running_loop().create_future()
        call = self._desk.receive(path, body, headers)
        try:
            match self._desk.answers(call):
                case NotSent() as failure:
                    raise failure
                case Unclear() as failure:
                    call.taken = True
                    await asyncio.sleep(0)
                    raise failure
                case Reply() as reply:
                    call.taken = reply.status < 300
                    await asyncio.sleep(0)
                    return reply
                case None:
                    call.waits = call.taken = True
                    return await call.answer
        finally:
            call.ended = True


def accepted(call: Call) -> Reply:
    element = known().operations[call.operation].operation.reply.rpartition("}")[2]
    return Reply(200, {}, f"<{element}><responseCode>201</responseCode></{element}>".encode())


def refused(call: Call) -> Reply:
    element = known().operations[call.operation].operation.reply.rpartition("}")[2]
    text = f"<{element}><responseCode>400</responseCode><errorMessage>no</errorMessage></{element}>"
    return Reply(400, {}, text.encode())


def busy(_call: Call) -> Reply:
    return Reply(503, {}, b"")


def silent(_call: Call) -> Unclear:
    return Unclear("read-timeout", "no answer")


def later(_call: Call) -> None:
    """The test answers."""


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, dict[str, Any]]] = []

    def bind(self, **_fields: Any) -> "Lines":
        return self

    def debug(self, event: str, **fields: Any) -> None:
        self.all.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.all.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.all.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.all.append(("error", event, fields))

    def exception(self, event: str, **fields: Any) -> None:
        self.all.append(("error", event, fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.all if name == event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """What a test may want otherwise; seconds."""

    call_limit: float = 0.08
    doubt: float = 30.0
    retry: float = 0.005
    parked_after: float = 30.0
    parked: int = 100
    permits: int = 64
    rate: float | None = None
    """Calls a second."""
    ahead: int = AHEAD
    asleep: float = 0.01
    threshold: int = 1000
    probe: float = 0.03
    window: Bounds = field(default_factory=lambda: Bounds(10_000, 10**8, 10_000))
    remembered: int = 10_000
    revoke: float = 2.0
    reference_wait: float = 30.0
    linger: float = 30.0
    largest: int = 10**7


@dataclass(slots=True, kw_only=True)
class Hand:
    """One worker at work."""

    flow: Worker
    member: Member
    gate: Gate
    metrics: Metrics
    lines: Lines
    feed: Feed
    running: "asyncio.Task[None]"

    async def settle(self) -> None:
        """Let everything run that can run now."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def kill(self, *, committed: bool = False) -> None:
        """As kill -9 does it."""
        self.member.kill(committed=committed)
        await self.feed.close()
        tasks = [self.running, *(t for a in self.flow.assignments.values() for t in a._tasks.values())]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def stop(self) -> None:
        """As SIGTERM does it."""
        if not self.running.done():
            await self.flow.close()
            await self.feed.close()
            self.running.cancel()
            await asyncio.wait([self.running])
        if not self.running.cancelled() and not self.member.dead:
            self.running.result()

    def counted(self, name: str, **labels: str) -> float:
        """As `measured` has it."""
        return measured(self.metrics, name, **labels)


class Plant:
    """Make it on the loop that uses it."""

    def __init__(self, *, partitions: int = 3) -> None:
        self.bus = Bus(partitions)
        self.desk = Desk(self.bus)
        self.registry = Schemas()
        self.hands: list[Hand] = []
        self.catalogue = known()
        self.ahead = 0.0
        """Seconds by which the clocks of the workers' systems are wrong; set it, and they jump."""
        everything = {**known().commands, **known().events, **known().tickets, **known().journal}
        self._ids = {name: self.registry.add(schema.text) for name, schema in everything.items()}
        self.tickets: dict[str, Ticket] = {}
        """As the projector has folded them."""
        self._projected = 0
        self._names = {number: name for name, number in self._ids.items()}
        self._parsed = {name: schema.parsed for name, schema in everything.items()}

    # -- workers -----------------------------------------------------------------------------------------------------

    def hire(self, *partitions: int, limits: Bounded | None = None) -> Hand:
        """A worker that owns these partitions."""
        at = limits or Bounded()
        member, metrics, lines, memory = self.bus.member(), Metrics(), Lines(), Memory(at.remembered)
        feed = Feed(self.bus)
        encoders = {
            name: Encoder(schema, self._ids[name])
            for name, schema in (*known().events.items(), *known().journal.items())
        }
        events = Events(
            events_topic=bus.EVENTS,
            dead_letters_topic=bus.DEAD_LETTERS,
            quarantine_topic=bus.QUARANTINE,
            journal_topic=bus.JOURNAL,
            source="/test",
            encoders=encoders,
        )
        gate = Gate(
            places=at.permits,
            rate=None if at.rate is None else RateLimit(at.rate),
            breaker=Breaker(threshold=at.threshold, backoff=Backoff(at.probe, at.probe)),
            changed=lambda *_: None,
        )

        def conductor(flow: Worker) -> Conductor:
            cases = Cases(
                reader=Reader(self.catalogue, self.registry, UnknownFields.REJECT),
                ledger=flow.ledger,
                events=events,
                policy=Policy(
                    backoff=Backoff(at.retry, at.retry),
                    call_limit=at.call_limit,
                    doubt_limits={operation.name: at.doubt for operation in known().supplier.operations},
                    share=lambda: 0.5,
                    reference_wait=at.reference_wait,
                ),
                memory=memory,
                tickets=Tickets(
                    feed=feed,
                    stores=Shelves(),
                    decoders=Decoders(self.registry, tuple(known().tickets.values()), UnknownFields.IGNORE),
                    partitions=len(self.bus.tickets),
                    linger=at.linger,
                    failed=flow.failed,
                    log=lines,
                ),
                commands_topic="commands",
                largest_record=at.largest,
                assignments=flow.assignments.values,
                finished=flow.finished,
                log=lines,
                metrics=metrics,
                wall=lambda: time.time() + self.ahead,
            )
            return Conductor(
                cases=cases,
                doubts=Doubts(cases=cases, parked_after=at.parked_after, parked=at.parked),
                requests=Requests(
                    supplier=self.catalogue.supplier,
                    calls=self.desk.door(member),
                    terms=_TERMS,
                    judge=Judge(
                        replies=self.catalogue.supplier.replies,
                        accepted_codes=frozenset({200, 201}),
                        limits=DocumentLimits(size=10**6),
                    ),
                    log=lines,
                    metrics=metrics,
                ),
                gate=gate,
                room=flow.room,
                replies=flow.replies,
                cohort=flow.cohort,
                allowance=Allowance(at.window.size),
            )

        flow = Worker(
            Wiring(
                intake=member.listened,
                ledger=lambda intake, commits, busy: Ledger(
                    intake=intake,
                    transactor=member,
                    commits=commits,
                    busy=busy,
                    entries=events.entries,
                    journal=bus.IDENTITY,
                    topic="cluster/commands",
                    observe=lambda _seconds, _count: None,
                ),
                conductor=conductor,
                journal=member,
                entries=Decoders(self.registry, tuple(known().journal.values()), UnknownFields.IGNORE),
                gate=gate,
                bounds=at.window,
                memory=memory,
                partitions=len(self.bus.commands),
                call_limit=at.revoke,
                commit_limit=at.revoke,
                log=lines,
                metrics=metrics,
                ahead=at.ahead,
                long_asleep=at.asleep,
            )
        )
        hand = Hand(
            flow=flow,
            member=member,
            gate=gate,
            metrics=metrics,
            lines=lines,
            feed=feed,
            running=asyncio.ensure_future(flow.run()),
        )
        self.hands.append(hand)
        if partitions:
            member.assign(*partitions)
        return hand

    async def close(self) -> None:
        """Ends all; raises what a worker has died of."""
        died = [
            hand.running.exception()
            for hand in self.hands
            if not hand.member.dead and hand.running.done() and not hand.running.cancelled()
        ]
        for hand in self.hands:
            await hand.kill()
        for error in died:
            if error is not None:
                raise error

    # -- the bus -----------------------------------------------------------------------------------------------------

    def encode(self, command: Command) -> bytes:
        common = {"commandId": command.command_id, "issuedAt": datetime.now(UTC)}
        out = io.BytesIO()
        out.write(b"\0" + self._ids[command.name].to_bytes(4, "big"))
        fastavro.schemaless_writer(out, self._parsed[command.name], {**common, **command.record})
        return out.getvalue()

    def send(self, *commands: Command, partition: int = 0, gap: int = 0) -> int:
        """Offset of the last one."""
        offset = -1
        for command in commands:
            offset = self.bus.put(command.key.encode(), self.encode(command), partition=partition, gap=gap)
        return offset

    async def project(self) -> None:
        """As the projector does it with the events there are; `notice` and `decide` make some."""
        committed = self.bus.to(bus.EVENTS)
        told, self._projected = committed[self._projected :], len(committed)
        for record in told:
            event, identifier = self._event(record), dict(record.headers)["ce_id"]
            if event.record["buyerFaultReference"] is not None:
                await self._fold(TicketEvent(event.type, str(identifier), event.record, datetime.now(UTC)))

    async def notice(self, reference: str, kind: str = "AMENDED", **fields: Any) -> None:
        """A notification from the supplier, folded at once."""
        now = datetime.now(UTC)
        record = {
            "buyerFaultReference": reference,
            "kind": kind,
            "status": None,
            "receivedAt": now,
            "supplierSentAt": None,
            "maintainerFaultReference": None,
            "report": None,
            **fields,
        }
        await self._fold(TicketEvent("FaultReportUpdated", uuid4().hex, record, now))

    async def decide(self, command: Command, ruling: str, *, attempts: int = 1, why: str = "asked them") -> None:
        """An operator's decision, folded at once."""
        now = datetime.now(UTC)
        record = {
            "buyerFaultReference": command.key,
            "commandId": command.command_id,
            "attempts": attempts,
            "decision": ruling,
            "why": why,
            "who": "joe",
            "decidedAt": now,
        }
        await self._fold(TicketEvent("DoubtDecided", uuid4().hex, record, now))

    async def come_back(self) -> None:
        """The tickets can be read again."""
        self.bus.tickets_away = False
        async with self.bus.grown:
            self.bus.grown.notify_all()

    async def _fold(self, event: TicketEvent) -> None:
        reference = event.record["buyerFaultReference"]
        policy = TicketPolicy(timedelta(hours=48), timedelta(hours=6), timedelta(days=90))
        self.tickets[reference] = fold(self.tickets.get(reference), reference, event, policy).ticket
        await self.tell(self.tickets[reference])

    async def tell(self, ticket: Ticket | None, *, key: bytes | None = None, value: bytes | None = None) -> None:
        """What the projector writes of a ticket; None and its key: it is forgotten. `value`: other bytes."""
        key = key if ticket is None else ticket.reference.encode()
        assert key is not None
        reference, commands = None, b""
        if ticket is not None and value is None:
            out = io.BytesIO(b"\0" + self._ids["Ticket"].to_bytes(4, "big"))
            out.seek(0, io.SEEK_END)
            fastavro.schemaless_writer(out, self._parsed["Ticket"], ticket.record())
            value = out.getvalue()
            theirs = ticket.maintainer_reference
            reference = None if theirs is None else theirs.encode()
            commands = b"".join(mark(command.command_id) for command in ticket.commands)
        log = self.bus.tickets[partition_of(key, len(self.bus.tickets))]
        log[:] = [each for each in log if each.key != key]  # as compaction does it
        self.bus.written += 1
        async with self.bus.grown:
            log.append(FollowedTicket(key, self.bus.written, value, reference, commands))
            self.bus.grown.notify_all()

    @property
    def events(self) -> list[Event]:
        return [self._event(record) for record in self.bus.to(bus.EVENTS)]

    @property
    def letters(self) -> list[str]:
        """Reasons of the dead letters."""
        letters = self.bus.to(bus.DEAD_LETTERS)
        return [(dict(letter.headers)["dead-letter-reason"] or b"").decode() for letter in letters]

    def of(self, command: Command) -> list[Event]:
        return [event for event in self.events if event.record["commandId"] == command.command_id]

    def types(self, command: Command) -> list[str]:
        """Kinds of its events so far."""
        return [event.type for event in self.of(command)]

    def entries(self, command: Command | None = None, partition: int = 0) -> list[Entry]:
        """Committed entries of the journal, of one command or of all."""
        found = [entry for _, value in self.bus.entries(partition, 0) for entry in self.journaled(value)]
        return [entry for entry in found if command is None or entry.command_id == command.command_id]

    def kinds(self, command: Command, partition: int = 0) -> list[Kind]:
        return [entry.kind for entry in self.entries(command, partition)]

    def journaled(self, value: bytes) -> list[Entry]:
        """Entries of a record of the journal."""
        number, payload = unframe(value)
        record = fastavro.schemaless_reader(io.BytesIO(payload), self._parsed[self._names[number]], None)
        assert isinstance(record, dict)
        return journal.entries(record)

    def write(self, name: str, record: Mapping[str, Any], partition: int = 0) -> None:
        """A transaction of an earlier worker that has put this record into the journal."""
        out = io.BytesIO(b"\0" + self._ids[name].to_bytes(4, "big"))
        out.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(out, self._parsed[name], record)
        self.bus.journal[partition] += [out.getvalue(), None]

    def position(self, partition: int = 0) -> int:
        """The committed offset."""
        found = self.bus.committed.get(partition)
        return 0 if found is None else found.offset

    def _event(self, record: Outgoing) -> Event:
        number, payload = unframe(record.value)
        content = fastavro.schemaless_reader(io.BytesIO(payload), self._parsed[self._names[number]], None)
        assert isinstance(content, dict)
        return Event(self._names[number], content, record.key)

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Wait for a condition; a worker that has died meanwhile says why."""

        def looked() -> bool:
            for hand in self.hands:
                if hand.running.done() and not hand.running.cancelled() and not hand.member.dead:
                    hand.running.result()
            return bool(condition())

        await eventually(looked, what=what)

    async def final(self, *commands: Command) -> Event:
        """Final event of the last one, once all have one."""

        def ended() -> bool:
            finals = Counter(event.record["commandId"] for event in self.events if event.final)
            return all(finals[command.command_id] for command in commands)

        await self.until(ended, f"the outcomes of {len(commands)} commands")
        return next(event for event in self.of(commands[-1]) if event.final)

    async def called(self, command: Command, times: int = 1) -> Call:
        """Its call number `times`, once it was made."""
        await self.until(lambda: len(self.desk.of(command)) >= times, f"call {times} of a {command.name}")
        return self.desk.of(command)[times - 1]

    async def caught_up(self, partition: int = 0) -> None:
        end = self.bus.commands[partition][-1].offset + 1
        await self.until(lambda: self.position(partition) == end, f"the committed offset at {end}")
        for _ in range(20):  # what is committed is told a few lanes a turn
            await asyncio.sleep(0)
        for hand in self.hands:
            if partition in hand.member.owned and not hand.member.expelled:
                held = hand.flow.assignments[partition].items
                await self.until(lambda: not held, "what is done leaves the window")  # noqa: B023 -- asked at once


def answer(call: Call, reply: Callable[[Call], Reply] = accepted) -> None:
    call.answer.set_result(reply(call))


_TERMS = Terms(
    protocol={"api_version": "1", "buyer_identifier": "SP", "seller_identifier": "CF", "reseller_id": None},
    content_type="text/xml; charset=utf-8",
    soap_actions={},
    base_url="https://supplier.test",
)
