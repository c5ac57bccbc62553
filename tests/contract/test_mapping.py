"""Laws of the mapping, held by every operation of the catalogue. No operation and no field is named here."""

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from adapter.catalogue import CompiledOperation
from adapter.core import document, soap
from adapter.core.avro import Decoder, Encoder, Schema, from_json, to_json, unframe
from adapter.core.avro.schema import Array, Enum, Record, Type, optional
from adapter.core.document import admit, fold
from adapter.core.errors import Refused
from adapter.core.mapping import compile_message, record_of
from adapter.core.mapping.pairs import symbol
from adapter.core.xsd import Element, Kind, Leaf
from adapter.suppliers import served
from tests import strategies
from tests.support.known import known

OPERATIONS = [operation.name for operation in served().operations]
GOLDEN = Path(__file__).parents[1] / "golden" / served().name
VALUES: dict[str, Any] = {
    "api_version": "1.0",
    "buyer_identifier": "SPDEV1",
    "sent_at": strategies.PROTOCOL_TIME,
    "message_id": "0f1c5a52-6f0f-5d0b-9a51-3f5d5c1f7b11",
    "correlation_id": "bac72cfa-475e-11e1-a92e-fb2ff6467c99",
    "reseller_id": None,
    "seller_identifier": "SUPPLIER",
}
law = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
every_operation = pytest.mark.parametrize("name", OPERATIONS)


def entry(name: str) -> CompiledOperation:
    return known().operations[name]


@cache
def request(name: str) -> Element:
    return known().xsd.element(entry(name).operation.request)


@cache
def reply(name: str) -> Element:
    return known().xsd.element(entry(name).operation.reply)


@cache
def commands(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Commands the XSD takes."""
    return strategies.fitting_command(request(name), entry(name).command, known().supplier.envelope)


def verdicts(body: bytes) -> tuple[bool, bool]:
    xsd = known().xsd
    return xsd.judge.validate(etree.fromstring(body)), xsd.model.is_valid(body.decode())


def mirror(element: Element, namespace: str) -> Any:
    """The Avro type that reads everything an element can hold."""
    primitive = {
        Kind.BOOLEAN: "boolean",
        Kind.INTEGER: "long",
        Kind.DATE: {"type": "int", "logicalType": "date"},
        Kind.DATE_TIME: {"type": "long", "logicalType": "timestamp-millis"},
    }
    if isinstance(element.content, Leaf):
        return primitive.get(element.content.kind, "string")
    if len(element.content) == 1 and element.content[0].repeated:
        (child,) = element.content
        return {"type": "array", "items": mirror(child, f"{namespace}.{element.name}")}
    fields = []
    for child in element.content:
        kind = mirror(child, f"{namespace}.{element.name}")
        kind = {"type": "array", "items": kind} if child.repeated else kind
        fields.append({"name": child.name, "type": ["null", kind], "default": None})
    return {"type": "record", "name": f"{namespace}.{element.name}", "fields": fields}


def normalised(content: Leaf | tuple[Element, ...], kind: Type | None, value: Any, path: str = "") -> Any:
    """What comes back of a value: the declared normalisations, and the protocol fields filled in."""
    plain = optional(kind)[0] if kind else None
    if isinstance(content, Leaf):
        if value is None:
            return None
        if isinstance(plain, Enum):
            return next(text for text in content.values if symbol(text) == value)
        if content.kind is Kind.TEXT:
            return fold(value) if content.collapse else value
        return value
    if isinstance(plain, Array):
        repeated = content[0]
        # The wrapper of an empty optional list is left out; it comes back as null.
        return [normalised(repeated.content, plain.items, item) for item in value] if value else None
    fields = {field.name: field.type for field in plain.fields} if isinstance(plain, Record) else {}
    if value is None and plain is not None:
        return None
    return {
        child.name: protocol_value(child, f"{path}{child.name}")
        if child.name not in fields
        else normalised(child.content, fields[child.name], value[child.name], f"{path}{child.name}.")
        for child in content
    }


def protocol_value(element: Element, path: str) -> Any:
    if isinstance(element.content, Leaf):
        value = VALUES[known().supplier.protocol[path]]
        if isinstance(value, datetime):
            return value.replace(microsecond=value.microsecond // 1000 * 1000)
        return value
    return {child.name: protocol_value(child, f"{path}.{child.name}") for child in element.content}


@every_operation
def test_a_command_goes_to_xml_and_back_unchanged(name: str) -> None:
    root, made = request(name), entry(name)
    mirrored = Schema.parse(json.dumps(mirror(root, "x")))
    reader = compile_message(known().xsd, made.operation.request, mirrored.record, zone=UTC)

    @law
    @given(commands(name))
    def holds(record: dict[str, Any]) -> None:
        read = reader.read(admit(made.writer.write(record, VALUES)))
        assert normalised(root.content, made.command.record, record) == read.record
        assert (read.unknown, read.deviations) == ((), ())

    holds()


@every_operation
def test_a_command_survives_the_bus(name: str) -> None:
    schema = entry(name).command
    encoder, decoder = Encoder(schema, 7), Decoder(schema.text, known().commands.values())

    @law
    @given(commands(name))
    def holds(record: dict[str, Any]) -> None:
        identifier, payload = unframe(encoder.encode(record))
        decoded = decoder.decode(payload)
        assert (7, name, record, ()) == (identifier, decoded.name, decoded.record, decoded.unknown)
        assert record == from_json(schema, json.loads(json.dumps(to_json(schema, record))))

    holds()


@every_operation
def test_both_judges_accept_what_the_writer_makes(name: str) -> None:
    @law
    @given(commands(name))
    def holds(record: dict[str, Any]) -> None:
        body = entry(name).writer.write(record, VALUES)
        assert verdicts(body) == (True, True), body

    holds()


@every_operation
def test_both_judges_agree_on_mutations(name: str) -> None:
    @law
    @given(commands(name), st.data())
    def holds(record: dict[str, Any], data: st.DataObject) -> None:
        root = admit(entry(name).writer.write(record, VALUES))
        victim = data.draw(st.sampled_from(list(root.iter())[1:]))
        parent = victim.getparent()
        assert parent is not None
        match data.draw(st.sampled_from(["drop", "double", "last", "rename", "blank", "lengthen", "nest"])):
            case "drop":
                parent.remove(victim)
            case "double":
                parent.insert(0, deepcopy(victim))
            case "last":
                parent.append(victim)
            case "rename":
                victim.tag = "other"
            case "blank":
                victim.text = " "
            case "lengthen":
                victim.text = "x" * data.draw(st.sampled_from([37, 101, 1001, 4001]))
            case _:
                etree.SubElement(victim, "other")
        body = etree.tostring(root)
        libxml2, thorough = verdicts(body)
        assert libxml2 == thorough, body

    holds()


@every_operation
def test_whatever_the_texts_a_command_becomes_valid_xml_or_is_refused(name: str) -> None:
    made = entry(name)

    @law
    @given(strategies.values(made.command.record), strategies.any_text)
    def holds(record: dict[str, Any], text: str) -> None:
        values = VALUES | {"correlation_id": text, "buyer_identifier": text}
        try:
            body = made.writer.write(record, values)
        except Refused:
            return
        assert verdicts(body)[0]
        assert made.writer.problems(record, values) == ()

    holds()


def test_what_is_wrong_with_a_correlation_id_is_told_of_the_commands_own_field() -> None:
    made = entry("QueryAppointmentAvailability")
    with pytest.raises(Refused) as refused:
        made.writer.write(strategies.filled(made.command.record, "x"), VALUES | {"correlation_id": "\x00"})
    assert str(refused.value.problems[0]) == "correlationId: has a character XML cannot carry (U+0000)"


@every_operation
def test_ten_megabytes_of_any_text_are_refused_in_words(name: str) -> None:
    made = entry(name)
    record = strategies.filled(made.command.record, "\x01" * 10_000_000)
    with pytest.raises(Refused) as refused:
        made.writer.write(record, VALUES)
    assert all(problem.text.startswith("longer than") for problem in refused.value.problems)


@every_operation
def test_a_reply_is_read_in_any_order_and_under_any_prefix(name: str) -> None:
    made = entry(name)
    record_type = record_of(made.accepted, "reply")

    @law
    @given(strategies.fitting(reply(name).content, record_type), st.randoms(use_true_random=False))
    def holds(record: dict[str, Any], random: Any) -> None:
        root = etree.Element("{urn:any}root")
        build(root, reply(name).content, record_type, record, random)
        read = made.reader.read(admit(etree.tostring(root)))
        assert incoming(reply(name).content, record_type, record) == read.record
        assert read.unknown == ()
        assert {deviation.what for deviation in read.deviations} <= {"missing", "holds nothing"}

    holds()


def build(parent: Any, content: Leaf | tuple[Element, ...], kind: Type, value: Any, random: Any) -> None:
    plain = optional(kind)[0]
    if isinstance(content, Leaf):
        parent.text = str(value).lower() if isinstance(value, bool) else _written(value)
        return
    if isinstance(plain, Array):
        for item in value:
            build(
                etree.SubElement(parent, f"{{urn:any}}{content[0].name}"), content[0].content, plain.items, item, random
            )
        return
    assert isinstance(plain, Record)
    fields = {field.name: field.type for field in plain.fields}
    shuffled = list(content)
    random.shuffle(shuffled)
    for child in shuffled:
        if value[child.name] is None:
            continue
        space = random.choice(["", "{urn:any}", "{urn:other}"])
        inner = optional(fields[child.name])[0]
        if child.repeated and isinstance(inner, Array):
            for item in value[child.name]:
                build(etree.SubElement(parent, space + child.name), child.content, inner.items, item, random)
        else:
            build(etree.SubElement(parent, space + child.name), child.content, inner, value[child.name], random)


def _written(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def incoming(content: Leaf | tuple[Element, ...], kind: Type, value: Any) -> Any:
    plain = optional(kind)[0]
    if value is None:
        return None
    if isinstance(content, Leaf):
        return fold(value) if isinstance(value, str) and content.collapse else value
    if isinstance(plain, Array):
        return _items(content[0].content, plain.items, value)
    assert isinstance(plain, Record)
    fields = {field.name: field.type for field in plain.fields}
    found = {}
    for child in content:
        inner = optional(fields[child.name])[0]
        if child.repeated and isinstance(inner, Array) and value[child.name] is not None:
            found[child.name] = _items(child.content, inner.items, value[child.name])
        else:
            found[child.name] = incoming(child.content, inner, value[child.name])
    return found


def _items(content: Leaf | tuple[Element, ...], kind: Type, values: list[Any]) -> list[Any]:
    """Without those that hold nothing."""
    found = [incoming(content, kind, value) for value in values]
    return [item for item in found if any(text is not None and str(text).strip() for text in item.values())]


@every_operation
def test_whatever_a_reply_holds_it_is_read_into_a_record_of_its_schema(name: str) -> None:
    made = entry(name)
    known = sorted({each.name for each in _below(reply(name))})
    schema = Schema.parse(_record_json(made.accepted, "reply"))
    encoder = Encoder(schema, 1)

    @law
    @given(strategies.elements(known))
    def holds(element: etree._Element) -> None:
        read = made.reader.read(element)
        encoder.encode(read.record)
        json.dumps(to_json(schema, read.record))

    holds()


def _below(element: Element) -> list[Element]:
    inner = () if isinstance(element.content, Leaf) else element.content
    return [element, *(each for child in inner for each in _below(child))]


def _record_json(schema: Schema, field: str) -> str:
    kinds = next(each["type"] for each in json.loads(schema.text)["fields"] if each["name"] == field)
    return json.dumps(next(kind for kind in kinds if isinstance(kind, dict)))


CASES = sorted(path.parent for path in GOLDEN.glob("*/*/command.json"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_golden_messages(case: Path) -> None:
    made = entry(case.parent.name)
    command = from_json(made.command, json.loads((case / "command.json").read_text()))
    body = made.writer.write(command, protocol(case))
    assert canonical((case / "request.xml").read_bytes()) == canonical(body)
    event = json.loads((case / "event.json").read_text())
    (kind,) = event
    if kind == made.accepted.name:
        expected = from_json(made.accepted, event[kind])["reply"]
        message = soap.unwrap(admit((case / "reply.xml").read_bytes()))
        assert message.element is not None
        assert expected == made.reader.read(message.element).record
        assert known().xsd.judge.validate(message.element)


def protocol(case: Path) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for path in (case.parents[1] / "protocol.json", case / "protocol.json"):
        found |= json.loads(path.read_text()) if path.exists() else {}
    return found | {"sent_at": datetime.fromisoformat(found["sent_at"]).astimezone(UTC)}


def canonical(body: bytes) -> bytes:
    message = soap.unwrap(document.admit(body))
    assert message.element is not None
    return etree.tostring(etree.fromstring(etree.tostring(message.element)), method="c14n2", strip_text=True)
