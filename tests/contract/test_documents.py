"""What the documentation says of commands and events is what the schemas and the supplier's declaration say."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from adapter.core.avro.schema import Array, Enum, Field, Map, Primitive, Record, Schema, Type, optional
from adapter.core.operation import Operation, Repeat
from adapter.suppliers import served
from adapter.worker.reader import REASONS
from tests.contract.test_schemas import CHECKLIST, CONTRACT, checklist
from tests.support.known import known

DOCS = Path(__file__).parents[2] / "docs"
KNOWN = known()
OUTCOMES = ("commandId", "correlationId", "operation", "buyerFaultReference", "messageId", "attempts", "occurredAt")
"""Fields of all outcomes of commands."""
ACCEPTED = ("reply", "alreadyDone", "unknownElements")
"""Further fields of the outcome of an accepted command, whatever its operation."""

MARK = "<!-- fields: from the schemas -->\n"
HEAD = "\n| field | type | meaning |\n| --- | --- | --- |\n"
WORDS = {
    Repeat.SAFE: "asked again",
    Repeat.KEYED: "sent again under the same message id",
    Repeat.NEVER: "never sent again",
}


def events() -> Iterator[str]:
    """The last part of docs/events.md."""
    accepted = [KNOWN.events[operation.accepted] for operation in KNOWN.supplier.operations]
    yield f"\n### Every event of an accepted command\n{HEAD}"
    yield from rows({name: accepted[0].fields()[name] for name in ACCEPTED}, closed=("reply",))
    for schema in KNOWN.events.values():
        yield f"\n### `{schema.name}`\n\n{schema.record.doc}\n{HEAD}"
        if schema in accepted:
            reply, _ = optional(schema.fields()["reply"].type)
            assert isinstance(reply, Record)
            yield from rows(inside(reply), above="reply.")
        else:
            shared = OUTCOMES if set(OUTCOMES) <= schema.fields().keys() else ()
            yield from rows(schema.fields(), without=shared)


def tickets() -> Iterator[str]:
    """The last part of docs/tickets.md."""
    yield HEAD
    yield from rows(KNOWN.tickets["Ticket"].fields(), closed=("report",))


def commands() -> Iterator[str]:
    """The last part of docs/commands.md."""
    envelope = KNOWN.supplier.envelope
    first = next(iter(KNOWN.commands.values())).fields()
    yield f"\n### Every command\n{HEAD}"
    yield from rows({name: field for name, field in first.items() if name in envelope})
    for schema in KNOWN.commands.values():
        yield f"\n### `{schema.name}`\n\n{schema.record.doc}\n{HEAD}"
        yield from rows(schema.fields(), without=envelope)


def rows(
    fields: Mapping[str, Field], *, without: Collection[str] = (), closed: Collection[str] = (), above: str = ""
) -> Iterator[str]:
    """A line for each field, and for those of its record unless it is `closed`."""
    for name, field in fields.items():
        if name in without:
            continue
        kind, nullable = optional(field.type)
        yield f"| `{above}{name}` | {words(kind)}{', or null' if nullable else ''} | {field.doc} |\n"
        inner = kind.items if isinstance(kind, Array) else kind
        if isinstance(inner, Record) and name not in closed:
            place = "[]" if isinstance(kind, Array) else ""
            yield from rows(inside(inner), above=f"{above}{name}{place}.")


def inside(record: Record) -> Mapping[str, Field]:
    return {field.name: field for field in record.fields}


def words(kind: Type) -> str:
    match kind:
        case Enum(_, symbols, _):
            return " ".join(symbols)
        case Array(items):
            return f"list of {words(items)}s"
        case Map(values):
            return f"map of {words(values)}s"
        case Record():
            return "record"
        case Primitive("long", "timestamp-millis"):
            return "time"
        case Primitive(name, logical):
            return logical or name
        case _:
            raise AssertionError(kind)


PAGES = {"events.md": events, "commands.md": commands, "tickets.md": tickets}


@pytest.mark.parametrize("page", PAGES)
def test_the_documented_fields_are_those_of_the_schemas(page: str) -> None:
    """After a change: python -m tests.contract.test_documents"""
    assert text(page).partition(MARK)[2] == "".join(PAGES[page]())


def test_every_event_is_explained() -> None:
    explained = text("events.md").partition(MARK)[0]
    assert [name for name in KNOWN.events if f"`{name}`" not in explained] == []


@pytest.mark.parametrize("schema", KNOWN.events.values(), ids=lambda schema: schema.name)
def test_what_is_explained_once_is_what_all_outcomes_share(schema: Schema) -> None:
    explained = text("events.md").partition("## Outcomes of commands")[2].partition("\n\n`reply`")[0]
    assert set(re.findall(r"`(\w+)`", explained.partition("| --- |")[2])) == set(OUTCOMES)
    about_a_command = "correlationId" in schema.fields()
    assert about_a_command is (set(OUTCOMES) <= schema.fields().keys())


@pytest.mark.parametrize("operation", served().operations, ids=lambda operation: operation.name)
def test_the_table_of_commands_is_the_declaration(operation: Operation) -> None:
    limit = operation.doubt_limit
    longest = f"{limit // timedelta(hours=1)}h" if limit >= timedelta(hours=1) else f"{limit.seconds}s"
    row = f"| `{operation.name}` | `{operation.key}` | `{operation.accepted}` | {WORDS[operation.repeat]} | {longest} |"
    assert row in text("commands.md").splitlines()


def test_the_readme_names_every_command_and_what_it_is_accepted_as() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| `(\w+)` \|$", readme, re.MULTILINE))
    assert listed == {operation.name: operation.accepted for operation in KNOWN.supplier.operations}


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    table = text("commands.md").partition("| reason | meaning |")[2].partition("\n\n")[0]
    named = {reason for line in table.splitlines() for reason in re.findall(r"`([a-z-]+)`", line.rpartition(" | ")[0])}
    assert named == REASONS
    source = "".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "adapter").rglob("*.py"))
    assert set(re.findall(r'(?:Undecodable|Foreign)\(\s*"([a-z-]+)"', source)) == REASONS


def test_the_example_of_a_workers_rights_is_the_table() -> None:
    page = text("rights.md")
    kinds = {"--topic": "Topic", "--group": "Group", "--transactional-id": "TransactionalId"}
    granted = set()
    for words in (line.split()[1:] for line in page.splitlines() if line.startswith("acls --")):
        options = list(pairwise(words))
        prefix = " (prefix)" if ("--resource-pattern-type", "prefixed") in options else ""
        names = [(kinds[option], value + prefix) for option, value in options if option in kinds]
        granted |= {(*name, value) for name in names for option, value in options if option == "--operation"}
    rows = re.findall(r"^\| worker \| (\w+) \| `([\w.-]+)`(.*) \| ([\w, ]+) \|$", page, re.MULTILINE)
    assert granted == {
        (kind, name + more, operation) for kind, name, more, operations in rows for operation in operations.split(", ")
    }


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


if __name__ == "__main__":
    for name, part in PAGES.items():
        (DOCS / name).write_text(text(name).partition(MARK)[0] + MARK + "".join(part()), encoding="utf-8")
    CONTRACT.write_text(text(CONTRACT.name).partition(CHECKLIST)[0] + CHECKLIST + checklist(), encoding="utf-8")
