"""The estate's side of the story: services that send commands and read events, one ticket at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from adapter.core import wording
from adapter.core.avro import Decoder, from_json, unframe
from adapter.demo.board import DEAD_LETTER, Board, Sending
from adapter.demo.display import Display
from adapter.demo.stage import Stage
from adapter.telemetry import continued
from adapter.transport.kafka.client import Follower, Seen, Sender, Sent
from adapter.twin import Fault, Status
from adapter.worker.events import message_id

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

    async def send(
        self, command: str, fields: Mapping[str, Any], *, expect: Sequence[str], requests: int = 1, note: str = ""
    ) -> Sending:
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
        sent = Sent(self._commands, key, self._stage.encoders[command].encode(record), headers)
        sending = Sending(self.reference, command, tuple(expect), requests, message_id(command_id), sent)
        self._board.enter(command_id, sending)
        await self._put(sending, note)
        return sending

    async def send_again(self, sending: Sending) -> None:
        """The same record once more, as a producer does that missed the acknowledgement. Nothing may come of it."""
        await self._put(sending, "again, with the same commandId")

    async def send_bytes(self, value: bytes, *, expect: Sequence[str], note: str) -> Sending:
        """Sends what is no command at all, under the ticket's key."""
        sent = Sent(self._commands, self.reference.encode(), value)
        sending = Sending(self.reference, "bytes", tuple(expect), 0, None, sent)
        self._board.enter(self.reference, sending)
        await self._put(sending, note)
        return sending

    def moved(self, status: Status) -> str:
        """An engineer of the supplier sets the ticket's status; returns the supplier's own reference of it."""
        reference = self._stage.twin.put(self.reference, status).maintainer_reference
        assert reference is not None, "a ticket that moves on has one"
        self._display.supplier(self.reference, f"ticket {reference} is {status}")
        return reference

    def trouble(self, fault: Fault, what: str) -> None:
        """What the supplier's machines will do to requests."""
        self._stage.twin.inject(fault)
        self._display.supplier(self.reference, what)

    async def _put(self, sending: Sending, note: str) -> None:
        self._display.sent(self.reference, sending.what, note)
        (fault,) = await asyncio.to_thread(self._sender.send, [sending.record])
        if fault is not None:
            raise RuntimeError(f"{sending.what} was not stored: {fault}")


class Reader:
    """Notes on the board, and shows, what is written to the topics of events and dead letters."""

    def __init__(self, *, stage: Stage, board: Board, display: Display) -> None:
        self._stage = stage
        self._board = board
        self._display = display
        self._decoders: dict[int, Decoder] = {}

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[frozenset["asyncio.Task[None]"]]:
        """From now to the end of the context. The tasks end before only if they fail."""
        names = self._stage.settings.topics.names()
        client = self._stage.settings.kafka.client()
        async with (
            _following(client, names.events, self._event) as events,
            _following(client, names.dead_letters, self._dead_letter) as dead_letters,
        ):
            yield frozenset({events, dead_letters})

    async def _event(self, seen: Seen) -> None:
        identifier, payload = unframe(seen.value)
        if identifier not in self._decoders:
            schema = await self._stage.registry.schema(identifier)
            assert schema is not None, "an event's schema is registered"
            self._decoders[identifier] = Decoder(schema, self._stage.known.events.values())
        decoded = self._decoders[identifier].decode(payload)
        name, record = decoded.name, decoded.record
        self._note(record["commandId"], wording.headline(name, record), record, wording.particulars(name, record))

    async def _dead_letter(self, seen: Seen) -> None:
        headers = {name: (value or b"").decode() for name, value in seen.headers}
        text = f"{DEAD_LETTER}: {headers['dead-letter-reason']}"
        self._note((seen.key or b"").decode(), text, {"value": seen.value}, headers["dead-letter-detail"])

    def _note(self, identifier: str, text: str, record: Mapping[str, Any], note: str) -> None:
        sending = self._board.saw(identifier, text, record)
        self._display.event(sending.ticket if sending else "", text, note)


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
