"""The XSDs and Avro schemas as they lie in the repository: sources marked, golden messages valid for two judges,
limits as documented, released records unchanged and compatible."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import xmlschema
from lxml import etree
from xmlschema.validators import XsdElement

from adapter import catalogue
from adapter.core.avro import Schema, compatibility, from_json
from adapter.core.avro.schema import Array, Record, Type, optional
from adapter.suppliers import served

ROOT = Path(__file__).parents[2]
XSD = ROOT / "schemas" / "xsd"
AVRO = ROOT / "schemas" / "avro"
GOLDEN = ROOT / "tests" / "golden" / served().name
CONTRACT = ROOT / "docs" / "contract.md"
CHECKLIST = "<!-- checklist: from the XSDs -->\n"

XS = "{http://www.w3.org/2001/XMLSchema}"
SOAP = "{http://schemas.xmlsoap.org/soap/envelope/}"
MARKS = ("seen", "inferred", "assumed")

MESSAGES = sorted(GOLDEN.rglob("*.xml"))
CURRENT = sorted(path for group in catalogue.GROUPS for path in (AVRO / group).glob("*.avsc"))
PUBLIC = [path for path in CURRENT if path.parent.name != "journal"]
"""What others read and write."""
RELEASED = sorted((AVRO / "released").glob("*/*/*.avsc"))


def below(folder: Path) -> Callable[[Path], str]:
    return lambda path: str(path.relative_to(folder))


@cache
def judges(name: str) -> tuple[etree.XMLSchema, xmlschema.XMLSchema]:
    path = XSD / name
    return etree.XMLSchema(etree.parse(path)), xmlschema.XMLSchema(str(path))


def schema_of(element: etree._Element) -> str:
    """The document that declares a message's root."""
    name = str(element.tag)
    if name.startswith(SOAP):
        return "soap/envelope.xsd"
    return next(schema for schema in served().schemas if name in judges(schema)[1].elements)


def verdicts(element: etree._Element) -> tuple[bool, bool]:
    """What libxml2 and xmlschema say; a mere `valid` would hide that they differ."""
    quick, thorough = judges(schema_of(element))
    alone = etree.tostring(element, with_tail=False)
    return quick.validate(etree.fromstring(alone)), thorough.is_valid(alone)


def golden(path: str) -> etree._Element:
    return etree.fromstring((GOLDEN / path).read_bytes())


# --- golden messages


@pytest.mark.parametrize("path", MESSAGES, ids=below(GOLDEN))
def test_a_golden_message_is_valid_for_both_judges(path: Path) -> None:
    message = etree.fromstring(path.read_bytes())
    assert verdicts(message) == (True, True)
    for inner in message.iterfind(f"{SOAP}Body/*"):
        assert schema_of(inner) == "soap/envelope.xsd" or verdicts(inner) == (True, True)


@pytest.mark.parametrize("operation", sorted((AVRO / "commands").glob("*.avsc")), ids=lambda path: path.stem)
def test_every_command_has_a_minimal_a_full_and_a_refused_case(operation: Path) -> None:
    cases = {case.name for case in (GOLDEN / operation.stem).iterdir()}
    assert cases >= {"minimal", "full"}
    assert any(name.startswith("rejected") for name in cases)
    for case in cases:
        files = {file.name for file in (GOLDEN / operation.stem / case).iterdir()}
        assert files - {"protocol.json"} == {"command.json", "request.xml", "reply.xml", "event.json"}


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("command.json")), ids=below(GOLDEN))
def test_a_golden_command_is_a_record_of_its_schema(path: Path) -> None:
    schema = Schema.parse((AVRO / "commands" / f"{path.parts[-3]}.avsc").read_text())
    command = from_json(schema, json.loads(path.read_text()))
    assert command["commandId"]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("[A-Z]*/*/event.json")), ids=below(GOLDEN))
def test_a_golden_event_is_a_record_of_its_schema(path: Path) -> None:
    ((name, event),) = json.loads(path.read_text()).items()
    schema = Schema.parse((AVRO / "events" / f"{name}.avsc").read_text())
    assert from_json(schema, event)["operation"] == path.parts[-3]


def paths(kind: Type, prefix: str = "") -> Iterator[str]:
    """Every field of a record, as a dotted path."""
    match optional(kind)[0]:
        case Array(items):
            yield from paths(items, prefix)
        case Record(fields=fields):
            for field in fields:
                yield f"{prefix}{field.name}"
                yield from paths(field.type, f"{prefix}{field.name}.")
        case _:
            pass


def given(value: Any, prefix: str = "") -> Iterator[str]:
    match value:
        case dict():
            for name, inner in value.items():
                yield f"{prefix}{name}"
                yield from given(inner, f"{prefix}{name}.")
        case list():
            for inner in value:
                yield from given(inner, prefix)
        case _:
            pass


@pytest.mark.parametrize("operation", sorted((AVRO / "commands").glob("*.avsc")), ids=lambda path: path.stem)
def test_the_golden_cases_of_a_command_use_every_field(operation: Path) -> None:
    cases = [json.loads(p.read_text()) for p in (GOLDEN / operation.stem).glob("*/command.json")]
    used = {path for case in cases for path in given(case)}
    unused = set(paths(Schema.parse(operation.read_text()).record)) - used
    # the fields of a person under another name prove nothing more
    assert {path for path in unused if "ContactDetails." not in path} == set()


# --- limits


LONG = [
    ("AddFaultReport/full/request.xml", "reporterContactDetails/name", 1000),
    ("AddFaultReport/full/request.xml", "reporterContactDetails/phone", 1000),
    ("AddFaultReport/full/request.xml", "endUserContactDetails/email", 1000),
    ("AddFaultReport/full/request.xml", "faultDetails/description", 4000),
    ("AddFaultReport/full/request.xml", "faultDetails/faultLocation", 1000),
    ("AddFaultReport/full/request.xml", "faultDetails/siteAccessDetails", 1000),
    ("AddFaultReport/full/request.xml", "faultDetails/triageFindings", 1000),
    ("AddFaultReport/full/request.xml", "apiVersion", 36),
    ("AddFaultReport/full/request.xml", "buyerIdentifier", 36),
    ("AddFaultReport/full/request.xml", "messageId", 36),
    ("AmendFaultReport/full/request.xml", "faultDetails/description", 4000),
    ("ResolveResponse/full/request.xml", "messageId", 36),
    ("notifications/appointment-cancelled/notification.xml", "faultDetails/type", 100),
    ("QueryAppointmentAvailability/full/request.xml", "buyer/buyerIdentifier", 36),
]


@pytest.mark.parametrize(("message", "path", "limit"), LONG)
def test_a_text_may_be_as_long_as_documented_and_not_longer(message: str, path: str, limit: int) -> None:
    assert verdicts(changed(message, path, "ä" * limit)) == (True, True)
    assert verdicts(changed(message, path, "ä" * (limit + 1))) == (False, False)


REFERENCE = "AddFaultReport/minimal/request.xml"
FULL = "AddFaultReport/full/request.xml"
VALUES = [
    (REFERENCE, "buyerFaultReference", "x" * 5000, True),  # no length is documented
    (REFERENCE, "buyerFaultReference", " \n ", False),
    (REFERENCE, "serviceAffected", "", False),
    (REFERENCE, "apiVersion", " ", False),
    (REFERENCE, "buyerIdentifier", "", True),  # no pattern is documented
    (FULL, "faultDetails/faultLocation", "\n 1 Road\n Town\n", True),
    (FULL, "faultDetails/faultLocation", "\n", False),
    (FULL, "faultDetails/type", "Fault", False),
    (FULL, "faultDetails/type", "service outage", False),
    (FULL, "faultDetails/triageComplete", "yes", False),
    (FULL, "sentAt", "2018-06-09T11:15:17.0001Z", True),
    (FULL, "sentAt", "2018-06-09T11:15:17+01:00", True),
    (FULL, "sentAt", "2018-06-09T11:15:17.001+01:00", False),  # 29 characters
    (FULL, "sentAt", "2018-06-09", False),
    (FULL, "faultDetails/faultStartTime", "2018-06-09T11:15:17.001+01:00", True),
    (FULL, "appointment/appointmentDate", "20/01/2012", False),
    ("ResolveResponse/full/request.xml", "resolveAccepted", "maybe", False),
    ("ResolveResponse/full/reply.xml", "responseCode", "OK", False),
    ("AddFaultReport/full/reply.xml", "status", "whatever", True),
    ("notifications/appointment-cancelled/notification.xml", "faultDetails/type", "Fault", True),
    ("notifications/appointment-cancelled/notification.xml", "parentFaultReference", "", True),
]


@pytest.mark.parametrize(("message", "path", "text", "valid"), VALUES)
def test_a_value_is_valid_as_documented(*, message: str, path: str, text: str, valid: bool) -> None:
    assert verdicts(changed(message, path, text)) == (valid, valid)


def changed(message: str, path: str, text: str) -> etree._Element:
    root = golden(message)
    element = root.find(path)
    assert element is not None
    element.text = text
    return root


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/minimal/request.xml")), ids=below(GOLDEN))
def test_a_minimal_request_has_nothing_that_could_be_left_out(path: Path) -> None:
    names = [child.tag for child in etree.fromstring(path.read_bytes())]
    for place in range(len(names)):
        request = etree.fromstring(path.read_bytes())
        request.remove(request[place])
        assert verdicts(request) == (False, False), names[place]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/full/request.xml")), ids=below(GOLDEN))
def test_a_request_keeps_its_order_and_has_nothing_else(path: Path) -> None:
    request = etree.fromstring(path.read_bytes())
    turned = copy.deepcopy(request)
    turned.append(turned[0])
    assert verdicts(turned) == (False, False)
    twice = copy.deepcopy(request)
    twice.insert(0, copy.deepcopy(twice[0]))
    assert verdicts(twice) == (False, False)
    etree.SubElement(request, "more").text = "1"
    assert verdicts(request) == (False, False)


# --- marks


@pytest.mark.parametrize("path", sorted(XSD.rglob("*.xsd")), ids=below(XSD))
def test_every_element_says_where_it_comes_from(path: Path) -> None:
    declarations = list(etree.parse(path).iter(f"{XS}element"))
    for declaration in declarations:
        where = f"line {declaration.sourceline}"
        sources = declaration.findall(f"{XS}annotation/{XS}appinfo/source")
        assert [source.text for source in sources] in [[mark] for mark in MARKS], where
        assert declaration.findtext(f"{XS}annotation/{XS}documentation", "").strip(), where


def checklist() -> str:
    """The tables of docs/contract.md: every element of every message, with what there is to compare."""
    lines: list[str] = []
    # One that includes another has its elements too.
    roots = {root.name: root for name in served().schemas for root in judges(name)[1].elements.values()}
    for root in roots.values():
        if root.target_namespace:
            continue
        lines += ["", f"### `{root.local_name}` ({mark(root)})", "", "| element | type | | source |"]
        lines += ["| --- | --- | --- | --- |", *rows(root.type, "", MARKS[0])]
    return "\n".join(lines) + "\n"


def rows(parent: Any, prefix: str, surest: str) -> Iterator[str]:
    """A row for each element in a type, none surer than `surest`."""
    for element in parent.content.iter_elements():
        own = max(mark(element), surest, key=MARKS.index)
        name = f"cfh:{element.local_name}" if element.target_namespace else element.local_name
        occurs = "required" if element.min_occurs else "optional"
        occurs += ", repeated" if element.max_occurs is None else ""
        yield f"| `{prefix}{name}` | {described(element.type)} | {occurs} | {own} |"
        if element.type.is_element_only():
            yield from rows(element.type, f"{prefix}{name}.", own)


def mark(element: XsdElement) -> str:
    assert element.annotation is not None
    (source,) = [child.text for info in element.annotation.appinfo for child in info]
    return str(source)


def described(kind: Any) -> str:
    if kind.is_element_only():
        return ""
    if not kind.is_simple():
        return "anything"
    words = [kind.root_type.local_name if kind.root_type.local_name != "decimal" else "int"]
    words += [f"<= {kind.max_length}"] if kind.max_length is not None else []
    steps = [step for step in (kind, kind.base_type, getattr(kind.base_type, "base_type", None)) if step is not None]
    words += [f"`{pattern}`" for step in steps for pattern in (step.patterns.regexps if step.patterns else [])]
    words += [" \\| ".join(kind.enumeration)] if kind.enumeration else []
    return ", ".join(dict.fromkeys(words))


def test_the_documented_checklist_is_that_of_the_xsds() -> None:
    """After a change: python -m tests.contract.test_documents"""
    assert CONTRACT.read_text().partition(CHECKLIST)[2] == checklist()


# --- Avro


@pytest.mark.parametrize("path", PUBLIC, ids=below(AVRO))
def test_a_record_is_documented_and_open_to_change(path: Path) -> None:
    document = json.loads(path.read_text())
    assert document["name"] == path.stem
    assert document["namespace"] == f"fault.{path.parent.name.removesuffix('s')}"
    for kind in named_types(document):
        assert kind["doc"], kind["name"]
        if kind["type"] == "enum":
            assert kind["default"] == "UNKNOWN"
            assert kind["default"] in kind["symbols"]
            continue
        for field in kind["fields"]:
            assert field.get("doc"), f"{kind['name']}.{field['name']}"
            if isinstance(field["type"], list):
                assert field["type"][0] == "null"
                assert field["default"] is None


def named_types(kind: Any) -> Iterator[dict[str, Any]]:
    match kind:
        case {"type": "record"}:
            yield kind
            for field in kind["fields"]:
                yield from named_types(field["type"])
        case {"type": "enum"}:
            yield kind
        case {"type": "array"}:
            yield from named_types(kind["items"])
        case list():
            for branch in kind:
                yield from named_types(branch)
        case _:
            pass


@pytest.mark.parametrize("folder", ["commands", "events"])
def test_records_of_one_kind_share_their_envelope(folder: str) -> None:
    shared = {
        "commands": ["commandId", "issuedAt", "notAfter", "correlationId"],
        "events": [
            "commandId",
            "correlationId",
            "operation",
            "buyerFaultReference",
            "messageId",
            "attempts",
            "occurredAt",
        ],
    }[folder]
    no_outcomes = {"FaultReportUpdated", "ResolveDeadlineApproaching", "DoubtDecided"}
    paths = [path for path in CURRENT if path.parent.name == folder and path.stem not in no_outcomes]
    schemas = [json.loads(path.read_text()) for path in paths]
    heads = [schema["fields"][: len(shared)] for schema in schemas]
    assert [field["name"] for field in heads[0]] == shared
    assert all(head == heads[0] for head in heads)


@pytest.mark.parametrize("path", RELEASED, ids=below(AVRO))
def test_a_released_record_and_todays_read_each_other(path: Path) -> None:
    released = Schema.parse(path.read_text())
    today = Schema.parse((AVRO / path.parent.name / path.name).read_text())
    assert compatibility(released, today) == []
    assert compatibility(today, released) == []


@pytest.mark.parametrize("release", sorted((AVRO / "released").iterdir()), ids=lambda path: path.name)
def test_a_released_record_is_never_edited(release: Path) -> None:
    sums = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(release)}\n"
        for path in sorted(release.rglob("*.avsc"))
    )
    assert sums
    assert (release / "SHA256SUMS").read_text() == sums


@pytest.mark.parametrize("release", sorted((AVRO / "released").iterdir()), ids=lambda path: path.name)
def test_a_release_has_records_of_every_topic(release: Path) -> None:
    assert {path.parent.name for path in release.glob("*/*.avsc")} == set(catalogue.GROUPS)


def test_every_record_of_a_release_still_exists() -> None:
    today = {(path.parent.name, path.name) for path in CURRENT}
    assert today >= {(path.parent.name, path.name) for path in RELEASED}


def test_a_ticket_keeps_the_report_as_the_event_has_it() -> None:
    def report(path: str, namespace: str) -> Any:
        fields = json.loads((AVRO / path).read_text().replace(namespace, "here"))["fields"]
        kind = next(field["type"] for field in fields if field["name"] == "report")
        return kind[1] if isinstance(kind, list) else kind

    event = report("events/FaultReportUpdated.avsc", "fault.event.fault_report_updated")
    assert report("tickets/Ticket.avsc", "fault.ticket.ticket") == event
    visit = next(field for field in event["fields"] if field["name"] == "appointments")["type"]["items"]
    ticket = json.loads((AVRO / "tickets" / "Ticket.avsc").read_text())["fields"]
    known = next(field for field in ticket if field["name"] == "appointments")["type"]["items"]
    assert known["fields"][:-1] == visit["fields"]
