"""Both sides of the story: services of the estate that send commands and read events, and the supplier's engineers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

from adapter.core import wording
from adapter.core.avro import UnknownFields, from_json
from adapter.core.avro.lookup import Decoders
from adapter.core.kept import DeadLetter, Quarantined
from adapter.demo.board import DEAD_LETTER, QUARANTINED, Board, State, Step
from adapter.demo.display import Display
from adapter.demo.stage import Stage
from adapter.ports import Outgoing
from adapter.telemetry import continued
from adapter.transport.kafka.client import Follower, Seen, Sender
from adapter.twin import Fault, Happening, Manner

_POLL: Final = 0.2
"""Seconds between two looks at whether to stop reading."""


class Ticket:
    """One ticket of the story: what its owner in the estate does about it, and what happens at the supplier."""

    def __init__(self, reference: str, *, stage: Stage, sender: Sender, board: Board, display: Display) -> None:
        self.reference = reference
        self._stage = stage
        self._sender = sender
        self._board = board
        self._display = display
        self._commands = stage.settings.topics.names().commands
        self._told = 0

    # -- the estate --------------------------------------------------------------------------------------------------

    async def send(
        self, command: str, fields: Mapping[str, Any], *, expect: Sequence[str], requests: int = 1, note: str = ""
    ) -> Step:
        """Sends a command and says what is expected of it. `fields` is readable JSON, without the envelope."""
        entry = self._stage.known.operations[command]
        command_id = str(uuid4())
        envelope = {
            "commandId": command_id,
            "issuedAt": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "correlationId": self.reference,
        }
        record = from_json(entry.command, envelope | dict(fields))
        key = record[entry.operation.key].encode()
        headers = [("ce_id", command_id.encode()), ("traceparent", str(continued(None)).encode())]
        sent = Outgoing(self._commands, key, self._stage.encoders[command].encode(record), headers)
        return await self._enter(command_id, Step(self.reference, command, tuple(expect), requests, sent), note)

    async def send_again(self, step: Step) -> None:
        """The same record once more, as a producer does that missed the acknowledgement. Nothing may come of it."""
        await self._put(step, "again, with the same commandId")

    async def send_bytes(self, value: bytes, *, expect: Sequence[str], note: str) -> Step:
        """Sends what is no command at all, under the ticket's key."""
        sent = Outgoing(self._commands, self.reference.encode(), value)
        return await self._enter(digest(value), Step(self.reference, "bytes", tuple(expect), 0, sent), note)

    def ends(self, status: str, *, late: int = 0) -> None:
        """How the ticket should stand when all is over, after all events seen of it."""
        self._board.states[self.reference] = State(status, late)

    # -- the supplier ------------------------------------------------------------------------------------------------

    def expects(self, what: Happening, *, kind: str | None = None, notifications: int = 1) -> Step:
        """That a request will make this happen, and the supplier tell of it: an event of that kind."""
        self._told += 1
        headline = f"FaultReportUpdated: {kind or wording.word(what.name)}"
        step = Step(self.reference, what.value, (headline,), notifications)
        self._board.enter(told(self.reference, self._told), step)
        return step

    def happens(
        self,
        what: Happening,
        *,
        kind: str | None = None,
        manner: Manner | None = None,
        note: str = "",
    ) -> Step:
        """Makes this happen at the supplier, who tells of it in that manner."""
        step = self.expects(what, kind=kind, notifications=2 if manner and manner.repeated else 1)
        self._display.supplier(self.reference, what.value, note)
        self._stage.twin.happen(self.reference, what, manner=manner)
        return step

    async def posts(self, body: bytes, *, expect: Sequence[str], note: str) -> Step:
        """Something that is no notification comes from the supplier's side."""
        step = Step(self.reference, "garbage", tuple(expect), 0)
        self._board.enter(digest(body), step)
        self._display.supplier(self.reference, "posts something else", note)
        status = await self._stage.post(body)
        if status != 400:
            raise RuntimeError(f"{step.what} was answered with {status}, not refused with 400")
        return step

    def trouble(self, fault: Fault, what: str) -> None:
        """What the supplier's machines will do to requests."""
        self._stage.twin.inject(fault)
        self._display.supplier(self.reference, what, "")

    def waits_for(self, what: str) -> Step:
        """Something that time alone brings: an event of that name about this ticket."""
        step = Step(self.reference, what, (what,), 0)
        self._board.enter(named(self.reference, what), step)
        return step

    async def _enter(self, key: str, step: Step, note: str) -> Step:
        self._board.enter(key, step)
        await self._put(step, note)
        return step

    async def _put(self, step: Step, note: str) -> None:
        self._display.sent(self.reference, step.what, note)
        assert step.record is not None
        (fault,) = await asyncio.to_thread(self._sender.send, [step.record])
        if fault is not None:
            raise RuntimeError(f"{step.what} was not stored: {fault}")


class Reader:
    """Notes on the board, and shows, what is written to the topics."""

    def __init__(self, *, stage: Stage, board: Board, display: Display) -> None:
        self._stage = stage
        self._board = board
        self._display = display
        known, registry = stage.known, stage.registry
        self._events = Decoders(registry, tuple(known.events.values()), UnknownFields.REJECT)
        self._tickets = Decoders(registry, tuple(known.tickets.values()), UnknownFields.REJECT)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[frozenset["asyncio.Task[None]"]]:
        """From now to the end of the context. The tasks end before only if they fail."""
        names = self._stage.settings.topics.names()
        client = self._stage.settings.kafka.client()
        async with (
            _following(client, names.events, self._event) as events,
            _following(client, names.tickets, self._ticket) as tickets,
            _following(client, names.dead_letters, self._dead_letter) as dead_letters,
            _following(client, names.quarantine, self._quarantined) as quarantine,
        ):
            yield frozenset({events, tickets, dead_letters, quarantine})

    async def _event(self, seen: Seen) -> None:
        decoded = await self._events.decode(seen.value)
        name, record = decoded.name, decoded.record
        reference = (seen.key or b"").decode()
        self._board.saw_event(reference, seen.header("ce_id"))
        if "commandId" in record:
            key = record["commandId"]
        elif name == self._stage.known.notification.event.name:
            key = told(reference, self._stage.place_of(record["report"]["messageId"]))
        else:
            key = named(reference, name)
        self._note(key, wording.headline(name, record), record, wording.particulars(name, record))

    async def _ticket(self, seen: Seen) -> None:
        decoded = await self._tickets.decode(seen.value)
        self._board.tickets[(seen.key or b"").decode()] = decoded.record

    async def _dead_letter(self, seen: Seen) -> None:
        self._kept(seen, DEAD_LETTER, DeadLetter.of(seen.headers))

    async def _quarantined(self, seen: Seen) -> None:
        self._kept(seen, QUARANTINED, Quarantined.of(seen.headers))

    def _kept(self, seen: Seen, text: str, told: DeadLetter | Quarantined) -> None:
        self._note(digest(seen.value or b""), f"{text}: {told.reason}", {"value": seen.value}, told.detail or "")

    def _note(self, key: str, text: str, record: Mapping[str, Any], note: str) -> None:
        step = self._board.saw(key, text, record)
        self._display.event(step.ticket if step else "", text, note)


def told(reference: str, place: int) -> str:
    """The board's key of what the supplier tells about a ticket, counted from 1."""
    return f"{reference}#{place}"


def named(reference: str, event: str) -> str:
    """The board's key of what comes by itself."""
    return f"{reference}: {event}"


def digest(value: bytes) -> str:
    """The board's key of what nobody can read."""
    return sha256(value).hexdigest()


@asynccontextmanager
async def _following(
    client: Mapping[str, str], topic: str, note: Callable[[Seen], Awaitable[None]]
) -> AsyncIterator["asyncio.Task[None]"]:
    follower = await asyncio.to_thread(Follower, client, topic)
    stopped = False

    async def follow() -> None:
        while not stopped:
            seen = await asyncio.to_thread(next, follower.read(time.monotonic() + _POLL), None)
            if seen is not None:
                await note(seen)

    task = asyncio.create_task(follow())
    try:
        yield task
    finally:
        stopped = True
        await asyncio.wait([task])  # its thread uses the follower up to the end
        await asyncio.to_thread(follower.close)
