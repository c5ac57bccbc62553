"""From a record to a command that can be judged: identity, key, digest, rules, what is not a command at all."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from adapter.core.avro import UnknownFields
from adapter.core.errors import Refused, Unavailable, Undecodable
from adapter.core.journal import Source
from adapter.core.operation import Problem
from adapter.worker.reader import Reader, Task
from tests.contract.test_mapping import VALUES
from tests.support.estate import Command, add, amend, query, resolve
from tests.support.plant import Plant


@pytest.fixture
def reader(plant: Plant) -> Reader:
    return Reader(plant.catalogue, plant.registry, UnknownFields.REJECT)


def source(value: bytes | None, key: bytes | None = b"T-1", **headers: bytes) -> Source:
    return Source(0, 0, 1.0, key, value, tuple(headers.items()))


async def read(plant: Plant, reader: Reader, command: Command, **fields: Any) -> Task:
    changed = replace(command, record={**command.record, **fields})
    return await reader.read(source(plant.encode(changed), command.key.encode()))


async def test_a_command_knows_who_it_is(plant: Plant, reader: Reader) -> None:
    command = add("T-1")
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    value = plant.encode(replace(command, record={**command.record, "correlationId": "corr"}))
    task = await reader.read(source(value, TraceParent=trace))
    assert task.subject.command_id == command.command_id
    assert (task.subject.correlation_id, task.subject.reference, task.subject.key) == ("corr", "T-1", b"T-1")
    assert task.subject.traceparent == trace.decode()
    assert (task.problems, task.warnings, task.not_after) == ((), (), None)


async def test_the_digest_is_of_what_is_asked_for_alone(plant: Plant, reader: Reader) -> None:
    command = amend("T-1")
    same = [
        await read(plant, reader, command),
        await read(plant, reader, command, correlationId="x", notAfter=datetime(2030, 1, 1, tzinfo=UTC)),
        await read(plant, reader, replace(command, command_id="another")),
    ]
    assert len({task.digest for task in same}) == 1
    assert (await read(plant, reader, command, serviceAffected="S2")).digest != same[0].digest
    other = await read(plant, reader, resolve("T-1"))
    assert other.digest != same[0].digest


async def test_the_deadline_is_in_seconds_since_the_epoch(plant: Plant, reader: Reader) -> None:
    task = await read(plant, reader, add("T-1"), notAfter=datetime.fromtimestamp(1_900_000_000, UTC))
    assert task.not_after == 1_900_000_000


@pytest.mark.parametrize("name", ["__value_schema_id", "apicurio.value.globalId", "apicurio.value.contentId"])
async def test_a_value_whose_schema_is_told_in_a_header_alone_is_told_so(
    plant: Plant, reader: Reader, name: str
) -> None:
    framed = plant.encode(add("T-1"))
    with pytest.raises(Undecodable) as refused:
        await reader.read(source(framed[5:], **{name: framed[1:5]}))
    assert refused.value.reason == "unframed"
    assert refused.value.detail == (
        f"the first byte is not zero; the header {name} has the schema's id, with which the value must begin"
    )


@pytest.mark.parametrize("key", [b"T-2", b"\xff\xfe", b""])
async def test_a_key_that_is_not_the_reference_is_a_problem(plant: Plant, reader: Reader, key: bytes) -> None:
    task = await reader.read(source(plant.encode(add("T-1")), key))
    assert [str(problem) for problem in task.problems] == ["buyerFaultReference: is not the key of the record"]
    assert task.subject.key == key


@pytest.mark.parametrize("key", [b'"T-1"', b"\0\0\0\0\7\6T-1"], ids=["as JSON", "as Avro"])
async def test_a_key_in_another_form_than_plain_text_is_told_so(plant: Plant, reader: Reader, key: bytes) -> None:
    task = await reader.read(source(plant.encode(add("T-1")), key))
    assert [str(problem) for problem in task.problems] == [
        "buyerFaultReference: is not the key of the record, which looks like Avro or JSON; it must be plain text"
    ]


@pytest.mark.parametrize(("reference", "ticket"), [(" T-1", "T-1"), ("T  1\t\n2", "T 1 2"), ("\u00a0T-1\u2003", "T-1")])
async def test_a_reference_names_the_ticket_that_the_supplier_calls_so(
    plant: Plant, reader: Reader, reference: str, ticket: str
) -> None:
    for key in (reference, ticket):
        task = await reader.read(source(plant.encode(add(reference)), key.encode()))
        assert (task.problems, task.subject.key) == ((), ticket.encode())
    task = await reader.read(source(plant.encode(query(reference)), reference.encode()))
    assert task.subject.key == ticket.encode()


async def test_the_declaration_says_which_field_names_the_ticket(plant: Plant) -> None:
    supplier = plant.catalogue.supplier
    theirs = replace(supplier, notification=replace(supplier.notification, reference="serviceAffected"))
    reader = Reader(replace(plant.catalogue, supplier=theirs), plant.registry, UnknownFields.REJECT)
    command = add("T-1")
    assert (await read(plant, reader, command)).subject.reference == command.record["serviceAffected"]


async def test_without_a_key_the_outcome_still_finds_its_timeline(plant: Plant, reader: Reader) -> None:
    task = await reader.read(source(plant.encode(add("T-1")), None))
    assert [str(problem) for problem in task.problems] == [
        "buyerFaultReference: the record has no key; it must be this value"
    ]
    assert task.subject.key == b"T-1"


async def test_broken_rules_are_problems(plant: Plant, reader: Reader) -> None:
    task = await read(plant, reader, resolve("T-1"), resolveAccepted=False)
    assert [problem.path for problem in task.problems] == ["rejectedReason"]


async def test_a_rule_that_only_warns_is_no_problem(plant: Plant) -> None:
    compiled = plant.catalogue.operations["AddFaultReport"]
    wary = replace(compiled.operation, rules=(lambda _: [Problem("faultDetails", "is odd", warning=True)],))
    operations = {**plant.catalogue.operations, "AddFaultReport": replace(compiled, operation=wary)}
    reader = Reader(replace(plant.catalogue, operations=operations), plant.registry, UnknownFields.REJECT)
    task = await read(plant, reader, add("T-1"))
    assert (task.problems, [problem.path for problem in task.warnings]) == ((), ["faultDetails"])


@pytest.mark.parametrize(("issued", "warned"), [(1_764_000_000, ["issuedAt"]), (1_764_000_000_000, [])])
async def test_who_writes_times_in_seconds_is_warned_of(
    plant: Plant, reader: Reader, issued: int, warned: list[str]
) -> None:
    task = await read(plant, reader, add("T-1"), issuedAt=datetime.fromtimestamp(issued / 1000, UTC))
    assert (task.problems, [problem.path for problem in task.warnings]) == ((), warned)


async def test_an_empty_command_id_is_no_command(plant: Plant, reader: Reader) -> None:
    with pytest.raises(Undecodable) as why:
        await reader.read(source(plant.encode(replace(add("T-1"), command_id=" "))))
    assert why.value.reason == "no-command-id"


async def test_a_command_id_has_an_end(plant: Plant, reader: Reader) -> None:
    task = await reader.read(source(plant.encode(replace(add("T-1"), command_id="\U0001f600" * 1000))))
    assert task.subject.command_id == "\U0001f600" * 1000
    with pytest.raises(Undecodable) as why:
        await reader.read(source(plant.encode(replace(add("T-1"), command_id="x" * 1001))))
    assert why.value.reason == "command-id-too-long"


async def test_a_list_that_is_too_long_is_a_problem_and_one_beyond_all_measure_no_command(
    plant: Plant, reader: Reader
) -> None:
    named = {"name": "", "contentType": None, "description": None}
    task = await read(plant, reader, add("T-1"), attachments=[named] * 2500)
    with pytest.raises(Refused) as why:
        task.compiled.writer.write(task.record, VALUES)
    assert [str(problem) for problem in why.value.problems] == ["attachments: more than 1000"]
    with pytest.raises(Undecodable) as no_command:
        await read(plant, reader, add("T-1"), attachments=[named] * 2501)
    assert (no_command.value.reason, no_command.value.detail) == (
        "unresolvable",
        "AddFaultReport.attachments: too many items, a record may hold 10000 values in arrays and maps",
    )


async def test_a_record_of_ours_that_is_no_command_is_undecodable(plant: Plant, reader: Reader) -> None:
    events = plant.catalogue.events
    number = next(n for n, text in plant.registry.texts.items() if text == events["CommandSettled"].text)
    with pytest.raises(Undecodable) as why:
        await reader.read(source(b"\0" + number.to_bytes(4, "big")))
    assert why.value.reason == "unknown-record"


async def test_a_schema_is_asked_for_once(plant: Plant, reader: Reader) -> None:
    await read(plant, reader, add("T-1"))
    plant.registry.away = True
    await read(plant, reader, add("T-2"))
    with pytest.raises(Unavailable):
        await read(plant, reader, amend("T-1"))
