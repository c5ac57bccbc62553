"""What becomes of a command, as records for the bus: outcome events, dead letters, journal entries. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from adapter.catalogue import Catalogue
from adapter.core import cloudevents
from adapter.core.avro import Encoder, Schema
from adapter.core.command import Accepted, By, Event, InDoubt, Rejected, Settled, Settlement
from adapter.core.derived import namespace
from adapter.core.errors import Undecodable
from adapter.core.immutable import immutable
from adapter.core.instant import utc
from adapter.core.journal import Entry, Source
from adapter.core.kept import DeadLetter, Quarantined
from adapter.core.operation import Operation
from adapter.ports import Outgoing, Reply
from adapter.telemetry import Trace

NAMESPACE: Final = UUID("5d7e0f5e-6a0f-5c0e-9d6b-1f1a7c0d2b43")
"""Root of all derived ids: the same command always gets the same ids, also in another process."""

_derive: Final = namespace(NAMESPACE)

TEXT_LIMIT: Final = 4000
"""Characters of a supplier's text that an event carries."""

_GROUP_BYTES: Final = 64 * 1024
"""The most bytes of one journal record; an entry that carries a longer command has a record of its own."""


def written(catalogue: Catalogue) -> list[Schema]:
    """The schemas of all outcome events."""
    shared = ("CommandRejected", "CommandOutcomeUnknown", "CommandSettled")
    return [entry.accepted for entry in catalogue.operations.values()] + [catalogue.events[name] for name in shared]


def message_id(command_id: str) -> str:
    """The id under which the supplier sees every attempt of a command: 36 characters, the contract's limit."""
    return _derive(command_id)


@immutable
class Subject:
    """The command an event is about."""

    operation: Operation
    command_id: str
    correlation_id: str | None
    reference: str | None
    key: bytes | None
    trace: Trace | None
    message_id: str
    """Under which the supplier sees every attempt."""

    @property
    def traceparent(self) -> str | None:
        return None if self.trace is None else str(self.trace)


class Events:
    """Makes the records of one deployment."""

    def __init__(
        self,
        *,
        events_topic: str,
        dead_letters_topic: str,
        quarantine_topic: str,
        journal_topic: str,
        source: str,
        encoders: Mapping[str, Encoder],
    ) -> None:
        self._events_topic = events_topic
        self._dead_letters_topic = dead_letters_topic
        self._quarantine_topic = quarantine_topic
        self._journal_topic = journal_topic
        self._source = source.encode()
        self._encoders = encoders

    def outcome(self, subject: Subject, event: Event, *, attempts: int, at: datetime) -> Outgoing:
        """The event that tells the estate what became of the command."""
        name, particulars = _particulars(subject.operation, event)
        record = {
            "commandId": subject.command_id,
            "correlationId": subject.correlation_id,
            "operation": subject.operation.name,
            "buyerFaultReference": subject.reference,
            "messageId": subject.message_id if attempts else None,
            "attempts": attempts,
            "occurredAt": at,
            **particulars,
        }
        # A command that an operator has sent again may come into doubt again: another event, another id.
        told = f"{name}/{attempts}" if isinstance(event, InDoubt) else name
        encoder = self._encoders[name]
        headers = cloudevents.headers(
            _derive(f"{subject.command_id}/{told}"),
            source=self._source,
            kind=encoder.schema.fullname,
            at=at,
            traceparent=subject.traceparent,
        )
        return Outgoing(self._events_topic, subject.key, encoder.encode(record), headers)

    def dead_letter(self, source: Source, topic: str, why: Undecodable, *, at: datetime) -> Outgoing:
        """The record as it came, with headers that say where it came from and why it can't be a command. If it has such
        headers already, because it is a dead letter that was copied back, they are left out: they would be read first.
        """
        told = DeadLetter(
            reason=why.reason,
            detail=why.detail,
            topic=topic,
            partition=str(source.partition),
            offset=str(source.offset),
            timestamp=str(round(source.timestamp * 1000)),
            at=utc(at),
        )
        headers = [*DeadLetter.own(source.headers), *told.headers()]
        return Outgoing(self._dead_letters_topic, source.key, source.value, headers)

    def quarantined(self, subject: Subject, reply: Reply, reason: str, *, at: datetime) -> Outgoing:
        """The reply's body as it came, with headers that say what it answers and why it is no yes and no no."""
        told = Quarantined(
            reason=reason,
            detail=f"HTTP status {reply.status}",
            operation=subject.operation.name,
            command_id=subject.command_id,
            received_at=utc(at),
            content_type=reply.headers.get("content-type"),
            traceparent=subject.traceparent,
        )
        return Outgoing(self._quarantine_topic, None, reply.body, told.headers())

    def entries(self, entries: Iterable[Entry], partition: int) -> list[Outgoing]:
        """Journal entries as records of the journal, as few as can carry them, for the commands' partition number."""
        records: list[Outgoing] = []
        group: list[dict[str, Any]] = []
        size = 0
        for entry in entries:
            if group and size + entry.size > _GROUP_BYTES:
                records.append(self._group(group, partition))
                group, size = [], 0
            group.append(entry.record())
            size += entry.size
        return [*records, self._group(group, partition)] if group else records

    def _group(self, entries: list[dict[str, Any]], partition: int) -> Outgoing:
        value = self._encoders["JournalEntries"].encode({"entries": entries})
        return Outgoing(self._journal_topic, None, value, partition=partition)


def _particulars(operation: Operation, event: Event) -> tuple[str, dict[str, Any]]:
    match event:
        case Accepted():
            return operation.accepted, {
                "reply": event.reply,
                "alreadyDone": event.already_done,
                "unknownElements": _aside(event),
            }
        case Rejected(by, code, text, problems):
            return "CommandRejected", {
                "rejectedBy": by.value,
                "code": code,
                "text": None if text is None else text[:TEXT_LIMIT],
                "problems": [{"path": p.path, "text": p.text} for p in problems],
                "unknownElements": _aside(event),
            }
        case Settled(outcome, by, text):
            return "CommandSettled", {
                "outcome": outcome.value,
                "settledBy": by.value,
                "text": None if text is None else text[:TEXT_LIMIT],
                "answer": _aside(event),
            }
        case InDoubt(reason, sent_at, until, text):
            return "CommandOutcomeUnknown", {
                "reason": reason,
                "text": text,
                "sentAt": None if sent_at is None else datetime.fromtimestamp(sent_at, UTC),
                "doubtUntil": datetime.fromtimestamp(until, UTC),
            }


def _aside(event: Accepted | Rejected | Settled) -> list[dict[str, str]]:
    return [{"path": path, "text": text} for path, text in event.aside]


_REJECTED: Final = {by: f"rejected-by-{by.value.lower()}" for by in By}
_SETTLED: Final = {outcome: f"settled-{outcome.value.lower()}" for outcome in Settlement}
KINDS: Final = ("accepted", *_REJECTED.values(), "in-doubt", *_SETTLED.values())


def kind(event: Event) -> str:
    """Label of metrics and log lines: one of KINDS."""
    match event:
        case Accepted():
            return "accepted"
        case Rejected(by):
            return _REJECTED[by]
        case Settled(outcome):
            return _SETTLED[outcome]
        case InDoubt():
            return "in-doubt"
