"""The supplier's declaration together with the schema folders, compiled and checked once at start.

The folders are schemas/xsd/ and schemas/avro/{commands,events,tickets,journal}; schemas/avro/released/ holds frozen
copies and is not read here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapter.core.answer import AnswerWriter, compile_answer
from adapter.core.avro import Schema, SubjectStrategy, subject
from adapter.core.avro.schema import NONE, Array, Enum, Map, Primitive, Record, Type, Union, optional
from adapter.core.avro.writer import source
from adapter.core.errors import Stop
from adapter.core.mapping import MessageReader, RequestWriter, compile_message, compile_request, record_of
from adapter.core.notification import NotificationReader, compile_notification
from adapter.core.operation import Operation, Replies, Supplier
from adapter.core.xsd import Xsd, load_schema

GROUPS: Final = ("commands", "events", "tickets", "journal")
"""The folders of Avro schemas, and what their topics are called in the settings."""


@dataclass(frozen=True, slots=True)
class CompiledOperation:
    """One operation, ready to be carried out."""

    operation: Operation
    command: Schema
    accepted: Schema
    writer: RequestWriter
    reader: MessageReader


@dataclass(frozen=True, slots=True)
class CompiledNotification:
    """The supplier's notification, ready to be read and answered."""

    event: Schema
    reader: NotificationReader
    answers: AnswerWriter


@dataclass(frozen=True, slots=True)
class Catalogue:
    supplier: Supplier
    operations: Mapping[str, CompiledOperation]
    """By the command's record name."""

    notification: CompiledNotification

    commands: Mapping[str, Schema]
    events: Mapping[str, Schema]
    tickets: Mapping[str, Schema]
    journal: Mapping[str, Schema]
    """Schemas by record name without namespace."""

    xsd: Xsd

    @property
    def groups(self) -> Mapping[str, Mapping[str, Schema]]:
        """All schemas, by GROUPS."""
        return dict(zip(GROUPS, (self.commands, self.events, self.tickets, self.journal), strict=True))

    def subjects(self, strategy: SubjectStrategy, topics: Mapping[str, str]) -> tuple[tuple[str, Schema], ...]:
        """Every subject with its schema. `topics` has a topic's name for each of GROUPS, and may have more."""
        return tuple(
            (subject(strategy, topics[group], schema), schema)
            for group, schemas in self.groups.items()
            for schema in schemas.values()
        )


def schema_root() -> Path:
    """The schema folders: inside the package in a wheel, beside it in a working copy."""
    package = Path(__file__).parent
    packed = package / "_schemas"
    return packed if packed.is_dir() else package.parent / "schemas"


def load(supplier: Supplier, root: Path | None = None) -> Catalogue:
    """Read and compile everything. Raises Stop with all faults, each with its file or path."""
    root = root or schema_root()
    faults: list[str] = []
    xsd = _xsds(supplier, root / "xsd", faults)
    commands, events, tickets, journal = (_records(root / "avro" / group, faults) for group in GROUPS)
    entries = {}
    for operation in supplier.operations:
        command = _of(commands, operation.name, "commands", faults)
        accepted = _of(events, operation.accepted, "events", faults)
        if xsd is None or command is None or accepted is None:
            continue
        writer, reader = None, None
        try:
            writer = compile_request(
                xsd, operation.request, command, protocol=supplier.protocol, envelope=supplier.envelope
            )
        except Stop as stop:
            faults += stop.problems
        try:
            reader = compile_message(xsd, operation.reply, record_of(accepted, "reply"), zone=supplier.time_zone)
        except Stop as stop:
            faults += stop.problems
        faults += _contract_faults(operation, command, accepted, supplier)
        if writer and reader:
            entries[operation.name] = CompiledOperation(operation, command, accepted, writer, reader)
    faults += [
        f"commands/{name}.avsc: {supplier.name} has no operation of that name"
        for name in sorted(commands.keys() - {operation.name for operation in supplier.operations})
    ]
    notification = _notification(supplier, xsd, events, faults)
    if faults or xsd is None or notification is None:
        raise Stop(*faults)
    return Catalogue(supplier, entries, notification, commands, events, tickets, journal, xsd)


def _notification(
    supplier: Supplier, xsd: Xsd | None, events: Mapping[str, Schema], faults: list[str]
) -> CompiledNotification | None:
    declared = supplier.notification
    event = _of(events, declared.event, "events", faults)
    if event is not None:
        faults += _unheard_of(supplier, event)
    if xsd is None or event is None:
        return None
    reader, answers = None, None
    try:
        reader = compile_notification(xsd, declared, event, zone=supplier.time_zone)
    except Stop as stop:
        faults += stop.problems
    try:
        answers = compile_answer(xsd, declared.answer)
    except Stop as stop:
        faults += stop.problems
    return CompiledNotification(event, reader, answers) if reader and answers else None


def _xsds(supplier: Supplier, folder: Path, faults: list[str]) -> Xsd | None:
    paths = [folder / name for name in supplier.schemas]
    try:
        # An included file lies beside the one that includes it.
        texts = {
            path.name: path.read_bytes() for parent in {path.parent for path in paths} for path in parent.glob("*.xsd")
        }
        return load_schema(texts, [path.name for path in paths])
    except Stop as stop:
        faults += stop.problems
    except OSError as error:
        faults.append(f"{error.filename}: {error.strerror}")
    return None


def _records(folder: Path, faults: list[str]) -> dict[str, Schema]:
    schemas: dict[str, Schema] = {}
    for path in sorted(folder.glob("*.avsc")):
        where = f"{folder.name}/{path.name}"
        try:
            schema = Schema.parse(path.read_text(encoding="utf-8"))
            source(schema)  # has it types that an encoder does not write?
        except (ValueError, OSError) as error:
            faults.append(f"{where}: {error}")
            continue
        if schema.name != path.stem:
            faults.append(f"{where}: holds the record {schema.name}")
        faults += [f"{where}: {fault}" for fault in _defaults(schema.record, "")]
        schemas[schema.name] = schema
    return schemas


def _of(schemas: Mapping[str, Schema], name: str, group: str, faults: list[str]) -> Schema | None:
    if name not in schemas:
        faults.append(f"{name}: no such record in avro/{group}")
    return schemas.get(name)


_ACCEPTED: Final = (
    "commandId",
    "correlationId",
    "operation",
    "buyerFaultReference",
    "messageId",
    "attempts",
    "occurredAt",
    "reply",
    "alreadyDone",
    "unknownElements",
)
"""Fields of every accepted record, whatever the operation."""


def _contract_faults(operation: Operation, command: Schema, accepted: Schema, supplier: Supplier) -> Iterable[str]:
    fields = command.fields()
    for name in sorted(supplier.envelope - fields.keys()):
        yield f"{operation.name}.{name}: every command has it, this one has not"
    if operation.key not in fields:
        yield f"{operation.name}.{operation.key}: the key field is missing"
    told = accepted.fields()
    for name in _ACCEPTED:
        if name not in told:
            yield f"{operation.accepted}.{name}: every accepted record has it, this one has not"
    if "reply" in told:
        yield from _unsaid(f"{operation.accepted}.reply", optional(told["reply"].type)[0], supplier.replies)
    if operation.finds and "reply" in told and not _is_list(optional(told["reply"].type)[0], operation.finds):
        yield f"{operation.accepted}.reply.{operation.finds}: no list of records, but what {operation.name} finds"


def _unsaid(where: str, reply: Type, replies: Replies) -> Iterable[str]:
    """Reasons why a refusal in a reply would not be recognised, and would pass for an acceptance."""
    kinds = {field.name: optional(field.type)[0] for field in (reply.fields if isinstance(reply, Record) else ())}
    if kinds.keys().isdisjoint({replies.code, replies.status}):
        yield f"{where}: has neither {replies.code} nor {replies.status}, by which alone an answer says no"
    judged = dict.fromkeys((replies.reference, replies.status, replies.text), "string") | {replies.code: "int"}
    for name, kind in judged.items():
        if name in kinds and kinds[name] != Primitive(kind, None):
            yield f"{where}.{name}: is no {kind}, as which an answer is judged"


def _unheard_of(supplier: Supplier, event: Schema) -> Iterable[str]:
    """Faults: kinds of notification that are declared to settle a doubt, but do not exist and would never come."""
    kind = event.fields().get("kind")
    known = kind.type.symbols if kind and isinstance(kind.type, Enum) else ()
    for operation in supplier.operations:
        for name in sorted((operation.confirmed_by | operation.refused_by).difference(known)):
            yield f"{operation.name}: ends a doubt by {name}, but {event.name}.kind has no such symbol"


def _is_list(record: Type, name: str) -> bool:
    """Whether the field of that name is a list of records, never null."""
    fields = record.fields if isinstance(record, Record) else ()
    kinds = (field.type for field in fields if field.name == name)
    return any(isinstance(kind, Array) and isinstance(kind.items, Record) for kind in kinds)


def _defaults(kind: Type, path: str) -> Iterable[str]:
    """Faults in the defaults: fastavro inserts them as they are in the JSON, so that of a time would be a number."""
    match kind:
        case Record(_, fields, _):
            for field in fields:
                where = f"{path}.{field.name}" if path else field.name
                plain, _ = optional(field.type)
                if field.default not in (NONE, None) and isinstance(plain, Primitive) and plain.logical:
                    yield f"{where}: a {plain.logical} can have no default but null"
                yield from _defaults(field.type, where)
        case Array(items):
            yield from _defaults(items, f"{path}[]")
        case Map(values):
            yield from _defaults(values, f"{path}{{}}")
        case Union(branches):
            for branch in branches:
                yield from _defaults(branch, path)
        case _:
            return
