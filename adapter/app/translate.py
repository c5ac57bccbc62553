"""Translates messages by the code and settings of the flows: the request a worker would send for a command, the event
it would publish for an answer, and the event a server would publish for a notification.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from adapter.app.server import reread
from adapter.app.start import load_catalogue
from adapter.app.worker import judge, policy, records, terms
from adapter.catalogue import CompiledOperation
from adapter.core.avro import Decoder, Encoder, Schema, UnknownFields, unframe
from adapter.core.command import Action, Command, Intend, Publish, Untouched, Wait
from adapter.core.document import trimmed
from adapter.core.journal import Source
from adapter.core.notification import Delivery, Refusal
from adapter.core.operation import Operation, Problem
from adapter.ports import Arrival, Caller, Calls, Outgoing, Reply
from adapter.settings import Translating
from adapter.telemetry import Log, Metrics
from adapter.worker.reader import Reader, Task
from adapter.worker.request import Requests


@dataclass(frozen=True, slots=True)
class Request:
    """The request the supplier would receive."""

    operation: Operation
    headers: Mapping[str, str]
    body: bytes
    warnings: Sequence[Problem]
    """Problems for which the supplier may refuse the request."""


@dataclass(frozen=True, slots=True)
class Published:
    """The record that would be written to the events topic."""

    schema: Schema
    record: Mapping[str, Any]
    key: str
    headers: Mapping[str, str]


class Translator:
    """Translates as a deployment with these settings would. Nothing is looked up or remembered."""

    def __init__(self, settings: Translating, log: Log) -> None:
        self.known = known = load_catalogue(settings)
        self._settings = settings
        self._log = log
        self._schemas = [*known.commands.values(), *known.events.values()]
        self._encoders = {schema.name: Encoder(schema, n) for n, schema in enumerate(self._schemas)}
        self._reader = Reader(known, self, UnknownFields.REJECT)
        self._events = records(settings, known, self._encoders)
        self._reread = reread(settings, known, self._encoders[known.notification.event.name])

    async def schema(self, identifier: int) -> str | None:
        """Look-up of schemas for the worker's reader, instead of a registry. Ids are indices into our own schemas."""
        return self._schemas[identifier].text

    async def request(self, entry: CompiledOperation, record: Mapping[str, Any]) -> Request:
        """The request for a command. Raises Refused with all problems that would prevent it."""
        task = await self._task(entry, record)
        requests = self._requests(_NOBODY)
        return Request(entry.operation, requests.headers(entry.operation), requests.write(task, None), task.warnings)

    async def outcome(self, entry: CompiledOperation, record: Mapping[str, Any], calls: Calls) -> Published | Wait:
        """The outcome of a command whose first call is made by `calls`. Raises Refused if none would be made."""
        task = await self._task(entry, record)
        requests = self._requests(calls)
        body = requests.write(task, None)
        now = time.time()
        command = Command(entry.operation, policy(self._settings), not_after=None)
        if isinstance(command.begin(now, Untouched()), Intend):
            command.intended(now)
        verdict = await requests.send(task, body, attempt=1, about=dict, keep=lambda _: None)
        return self._told(task, command.answered(now, verdict))

    def event(self, delivery: Delivery) -> Published | Refusal:
        """The event for a notification, or the reason why it would be quarantined."""
        made = self._reread(Arrival(delivery, Caller("", None)))
        return made if isinstance(made, Refusal) else self._published(made)

    async def _task(self, entry: CompiledOperation, record: Mapping[str, Any]) -> Task:
        operation = entry.operation
        key = trimmed(record[operation.key]).encode()
        value = self._encoders[entry.command.name].encode(record)
        task = await self._reader.read(Source(0, 0, time.time(), key, value, ()))
        supplier = self.known.supplier
        if operation.needs_reference and supplier.leaves_out_reference(record):
            field = supplier.notification.supplier_reference
            left_out = Problem(field, "left out: a worker takes it from the ticket; write one here")
            task = replace(task, problems=(*task.problems, left_out))
        return task

    def _requests(self, calls: Calls) -> Requests:
        return Requests(
            supplier=self.known.supplier,
            calls=calls,
            terms=terms(self._settings, ""),
            judge=judge(self._settings, self.known),
            log=self._log,
            metrics=Metrics(),
        )

    def _told(self, task: Task, action: Action) -> Published | Wait:
        if isinstance(action, Wait):
            return action
        assert isinstance(action, Publish), "nothing else follows an answer"
        return self._published(self._events.outcome(task.subject, action.event, attempts=1, at=datetime.now(UTC)))

    def _published(self, made: Outgoing) -> Published:
        number, payload = unframe(made.value)
        schema = self._schemas[number]
        headers = {name: (value or b"").decode() for name, value in made.headers}
        record = Decoder(schema.text, [schema]).decode(payload).record
        return Published(schema, record, (made.key or b"").decode(), headers)


@dataclass(frozen=True, slots=True)
class Answered:
    """`ports.Calls` with the same reply for every call; nothing is sent."""

    reply: Reply

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:  # noqa: ARG002 -- Calls
        return self.reply


_NOBODY = Answered(Reply(503, {}, b""))
"""A placeholder where no call is made."""
