"""From a delivered record to a decoded command: schema look-up, decoding, identity, rules."""

from datetime import datetime
from typing import Any, Final

from adapter.catalogue import Catalogue, CompiledOperation
from adapter.core.avro import UnknownFields, decoder
from adapter.core.avro.digest import compile_digest
from adapter.core.avro.lookup import Decoders, Lookup
from adapter.core.command import COMMAND_ID_LIMIT
from adapter.core.document import trimmed
from adapter.core.errors import Foreign, Undecodable
from adapter.core.immutable import immutable
from adapter.core.journal import Source
from adapter.core.operation import Problem
from adapter.telemetry import parse_traceparent
from adapter.worker.events import Subject, message_id

REASONS: Final = decoder.REASONS | {
    "unknown-schema",  # the registry does not have it
    "no-command-id",
    "command-id-too-long",
    "command-id-reused",  # by a command with other content
    "internal-error",  # reading it failed in a way nobody foresaw
}
"""Why a record becomes a dead letter."""


VALUE_LIMIT: Final = 10_000
"""The most values in the arrays and maps of a command, since hundreds of commands are in memory at once."""


@immutable
class Task:
    """A decoded command."""

    compiled: CompiledOperation
    subject: Subject
    record: dict[str, Any]
    digest: bytes
    """Of its content, without the envelope."""
    issued_at: float
    not_after: float | None
    problems: tuple[Problem, ...]
    """Why it must not be sent; empty if it may."""
    warnings: tuple[Problem, ...]
    """Reasons why the supplier may refuse it, or its producer can hardly mean it. It is sent all the same."""


class Reader:
    """Reads commands of the catalogue's operations."""

    def __init__(self, catalogue: Catalogue, registry: Lookup, unknown_fields: UnknownFields) -> None:
        self._operations = catalogue.operations
        self._decoders = Decoders(registry, tuple(catalogue.commands.values()), unknown_fields, most=VALUE_LIMIT)
        self.supplier = catalogue.supplier
        self._digests = {
            # A repeat may have been issued at another time and have another deadline.
            name: compile_digest(schema, aside=self.supplier.envelope)
            for name, schema in catalogue.commands.items()
        }

    async def read(self, source: Source) -> Task:
        """Raises Undecodable, or Unavailable while the registry does not answer."""
        try:
            decoded = await self._decoders.decode(source.value)
        except Foreign as why:
            if told := next((name for name, _ in source.headers if name in _SCHEMA_HEADERS), None):
                misplaced = f"the header {told} has the schema's id, with which the value must begin"
                raise Foreign(why.reason, f"{why.detail}; {misplaced}") from None
            raise
        record = decoded.record
        compiled = self._operations[decoded.name]
        operation = compiled.operation
        command_id: str = record["commandId"]
        if not command_id.strip():
            raise Undecodable("no-command-id", "commandId is empty")
        if len(command_id) > COMMAND_ID_LIMIT:
            raise Undecodable("command-id-too-long", f"commandId has more than {COMMAND_ID_LIMIT} characters")
        named: str = record[operation.key]
        # Trimmed, as the supplier's notifications are keyed: one ticket has one timeline.
        key = trimmed(named).encode("utf-8", "replace")
        problems = [Problem(path, "unknown field") for path in decoded.unknown]
        warnings: list[Problem] = []
        if source.key is None:
            problems.append(Problem(operation.key, "the record has no key; it must be this value"))
        elif source.key not in (key, named.encode("utf-8", "replace")):
            looks = ", which looks like Avro or JSON; it must be plain text" if source.key[:1] in {b"\0", b'"'} else ""
            problems.append(Problem(operation.key, f"is not the key of the record{looks}"))
            key = source.key
        for rule in operation.rules:
            for problem in rule(record):
                (warnings if problem.warning else problems).append(problem)
        issued_at: datetime = record["issuedAt"]
        if issued_at.year == 1970:
            warnings.append(_IN_SECONDS)
        not_after: datetime | None = record["notAfter"]
        return Task(
            compiled=compiled,
            subject=Subject(
                operation=operation,
                command_id=command_id,
                correlation_id=record["correlationId"],
                reference=record.get(self.supplier.notification.reference),
                key=key,
                trace=parse_traceparent(_header(source, "traceparent")),
                message_id=message_id(command_id),
            ),
            record=record,
            digest=self._digests[decoded.name](record),
            issued_at=issued_at.timestamp(),
            not_after=None if not_after is None else not_after.timestamp(),
            problems=tuple(problems),
            warnings=tuple(warnings),
        )


_SCHEMA_HEADERS: Final = {"__value_schema_id", "apicurio.value.globalId", "apicurio.value.contentId"}
"""Where serializers of Confluent and Apicurio, set so, put the id of the schema."""

_IN_SECONDS: Final = Problem(
    "issuedAt", "is in 1970: are this and its other times seconds? They must be milliseconds", warning=True
)
"""A producer that writes this time in seconds writes all of them so: the supplier would be told of a fault in 1970."""


def _header(source: Source, name: str) -> bytes | None:
    for header, value in source.headers:
        if header.lower() == name:
            return value
    return None
