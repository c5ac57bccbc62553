"""The mapping over small schemas made for one point each; the laws over the real ones are in tests/contract."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from adapter.core.avro import Schema
from adapter.core.document import admit
from adapter.core.errors import Refused, Stop
from adapter.core.mapping import (
    Deviation,
    MessageReader,
    RequestWriter,
    ValueClass,
    compile_message,
    compile_request,
    record_of,
)
from adapter.core.mapping.pairs import ITEM_LIMIT
from adapter.core.mapping.texts import DEFAULT_LONGEST
from adapter.core.xsd import Xsd, load_schema

TIME = {"type": "long", "logicalType": "timestamp-millis"}
DATE = {"type": "int", "logicalType": "date"}
TYPES = """
<xs:simpleType name="nonBlank"><xs:restriction base="xs:string">
  <xs:whiteSpace value="collapse"/><xs:pattern value=".*\\S.*"/></xs:restriction></xs:simpleType>
<xs:simpleType name="nonBlank5"><xs:restriction base="nonBlank">
  <xs:maxLength value="5"/></xs:restriction></xs:simpleType>
<xs:simpleType name="text5"><xs:restriction base="xs:string"><xs:maxLength value="5"/></xs:restriction></xs:simpleType>
<xs:simpleType name="code"><xs:restriction base="xs:string"><xs:minLength value="2"/>
  <xs:pattern value="[A-Z]*"/></xs:restriction></xs:simpleType>
<xs:simpleType name="kind"><xs:restriction base="xs:string">
  <xs:enumeration value="Impaired Service"/><xs:enumeration value="R&amp;D"/></xs:restriction></xs:simpleType>
<xs:simpleType name="twins"><xs:restriction base="xs:string">
  <xs:enumeration value="A B"/><xs:enumeration value="a-b"/></xs:restriction></xs:simpleType>
"""
EXTENSION = b"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:ext">
<xs:element name="extra" type="xs:string"/></xs:schema>"""


def xsd(children: str, types: str = TYPES) -> Xsd:
    """A schema whose element `message` holds a sequence of these."""
    text = f"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:cfh="urn:ext">
      <xs:import namespace="urn:ext" schemaLocation="folder/ext.xsd"/>{types}
      <xs:element name="message"><xs:complexType><xs:sequence>{children}</xs:sequence></xs:complexType></xs:element>
    </xs:schema>"""
    return load_schema({"main.xsd": text.encode(), "ext.xsd": EXTENSION}, ["main.xsd"])


def element(name: str, kind: str = "xs:string", least: int = 1, most: str = "1") -> str:
    return f'<xs:element name="{name}" type="{kind}" minOccurs="{least}" maxOccurs="{most}"/>'


def holding(name: str, children: str, least: int = 1, most: str = "1") -> str:
    return (
        f'<xs:element name="{name}" minOccurs="{least}" maxOccurs="{most}"><xs:complexType><xs:sequence>'
        f"{children}</xs:sequence></xs:complexType></xs:element>"
    )


def record(*fields: dict[str, Any], name: str = "x.Message") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(name: str, kind: Any = "string") -> dict[str, Any]:
    return {"name": name, "type": kind}


def maybe(name: str, kind: Any = "string") -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None}


def listed(name: str, items: Any) -> dict[str, Any]:
    return {"name": name, "type": {"type": "array", "items": items}, "default": []}


def kind_enum(*symbols: str, default: str | None = "UNKNOWN") -> dict[str, Any]:
    return {"type": "enum", "name": "Kind", "symbols": list(symbols)} | ({"default": default} if default else {})


def writer(children: str, *fields: dict[str, Any], **protocol: str) -> RequestWriter:
    paths = {path.replace("__", "."): value for path, value in protocol.items()}
    schema = Schema.parse(json.dumps(record(*fields)))
    return compile_request(xsd(children), "message", schema, protocol=paths, envelope=frozenset({"commandId"}))


def reader(children: str, *fields: dict[str, Any]) -> MessageReader:
    schema = Schema.parse(json.dumps(record(*fields)))
    return compile_message(xsd(children), "message", schema.record, zone=ZoneInfo("Europe/London"))


def written(children: str, given_field: dict[str, Any], value: Any) -> str:
    """What `value` looks like between the tags of the message."""
    body = writer(children, given_field).write({given_field["name"]: value}, {}).decode()
    return body.removeprefix("<message>").removesuffix("</message>")


def refusal(made: RequestWriter, command: dict[str, Any], values: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(Refused) as refused:
        made.write(command, values or {})
    return [str(problem) for problem in refused.value.problems]


def faults(children: str, *fields: dict[str, Any], out: bool = True, **protocol: str) -> list[str]:
    compiled: Callable[..., object] = partial(writer, **protocol) if out else reader
    with pytest.raises(Stop) as stop:
        compiled(children, *fields)
    return list(stop.value.problems)


# -- writing


@pytest.mark.parametrize(
    ("kind", "avro", "value", "text"),
    [
        ("xs:string", "string", "a < b & c > d \"'", "a &lt; b &amp; c &gt; d \"'"),
        ("xs:string", "string", "a\r\nb\tc", "a&#13;\nb\tc"),
        ("xs:string", "string", "", ""),
        ("xs:string", "string", "é\U0001f600\u00a0", "é\U0001f600\u00a0"),
        ("nonBlank", "string", " two\r\n words\t", "two words"),
        ("xs:boolean", "boolean", False, "false"),
        ("xs:int", "long", -5, "-5"),
        ("xs:date", DATE, date(2026, 2, 28), "2026-02-28"),
        ("xs:dateTime", TIME, datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000Z"),
        (
            "xs:dateTime",
            TIME,
            datetime(2026, 1, 31, 12, 0, 0, 5999, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-31T10:00:00.005Z",
        ),
        ("xs:dateTime", TIME, datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
        ("kind", kind_enum("IMPAIRED_SERVICE", "R_D", "UNKNOWN"), "R_D", "R&amp;D"),
    ],
)
def test_how_values_are_written(kind: str, avro: Any, value: Any, text: str) -> None:
    assert written(element("a", kind), field("a", avro), value) == f"<a>{text}</a>"


@pytest.mark.parametrize(
    ("kind", "avro", "value", "words"),
    [
        ("text5", "string", "123456", "longer than 5"),
        ("nonBlank5", "string", "1 \n 3456", "longer than 5"),
        ("nonBlank", "string", " \t\r\n", "is blank"),
        ("nonBlank", "string", "\u00a0", "is blank"),
        ("nonBlank", "string", "x" * (DEFAULT_LONGEST + 1), f"longer than {DEFAULT_LONGEST}"),
        ("nonBlank5", "string", " " * (DEFAULT_LONGEST + 1), "longer than 5"),
        ("code", "string", "A", "shorter than 2"),
        ("code", "string", "Ab", "does not have the demanded form"),
        ("xs:string", "string", "a\x01", "has a character XML cannot carry (U+0001)"),
        ("xs:string", "string", "\ud800", "has a character XML cannot carry (U+D800)"),
        ("xs:string", "string", "\uffff", "has a character XML cannot carry (U+FFFF)"),
        ("xs:int", "long", 2**31, "greater than 2147483647"),
        ("xs:int", "long", -(2**31) - 1, "less than -2147483648"),
        ("kind", kind_enum("IMPAIRED_SERVICE", "R_D", "UNKNOWN"), "UNKNOWN", "not one of IMPAIRED_SERVICE, R_D"),
    ],
)
def test_what_is_refused_and_in_which_words(kind: str, avro: Any, value: Any, words: str) -> None:
    assert refusal(writer(element("a", kind), field("a", avro)), {"a": value}) == [f"a: {words}"]


def test_what_is_as_long_as_allowed_is_written() -> None:
    assert written(element("a", "text5"), field("a"), "\U0001f600" * 5) == "<a>" + "\U0001f600" * 5 + "</a>"
    assert written(element("a", "nonBlank5"), field("a"), "  1 \n 3   4 ") == "<a>1 3 4</a>"


def test_every_violation_is_told_with_its_path() -> None:
    made = writer(
        element("a", "text5")
        + holding("group", element("b", "nonBlank") + holding("inner", element("c")))
        + element("d"),
        field("a"),
        field("group", record(field("b"), field("inner", record(field("c"), name="I")), name="G")),
        field("d"),
    )
    assert refusal(made, {"a": "123456", "group": {"b": " ", "inner": {"c": "\x00"}}, "d": None}) == [
        "a: longer than 5",
        "group.b: is blank",
        "group.inner.c: has a character XML cannot carry (U+0000)",
        "d: is required",
    ]


def test_a_value_is_never_repeated_in_a_refusal() -> None:
    made = writer(element("a", "text5"), field("a"))
    with pytest.raises(Refused) as refused:
        made.write({"a": "secret name"}, {})
    assert "secret" not in str(refused.value)


def test_what_only_the_validator_sees_is_refused_with_its_path() -> None:
    types = (
        TYPES
        + """<xs:simpleType name="either"><xs:restriction base="xs:string">
      <xs:pattern value="A+"/><xs:pattern value="B+"/></xs:restriction></xs:simpleType>"""
    )
    schema = Schema.parse(json.dumps(record(field("g", record(field("a"), name="G")))))
    made = compile_request(
        xsd(holding("g", element("a", "either")), types), "message", schema, protocol={}, envelope=frozenset()
    )
    assert made.write({"g": {"a": "BB"}}, {}) == b"<message><g><a>BB</a></g></message>"
    assert refusal(made, {"g": {"a": "AB"}}) == ["g.a: is not what the supplier's schema allows"]


def test_optional_parts_are_left_out() -> None:
    made = writer(
        element("a", least=0) + holding("g", element("b", least=0), least=0) + element("c", least=0),
        maybe("a"),
        maybe("g", record(maybe("b"), name="G")),
        maybe("c"),
    )
    assert made.write({"a": None, "g": None, "c": None}, {}) == b"<message></message>"
    assert made.write({"a": "1", "g": {"b": None}, "c": None}, {}) == b"<message><a>1</a><g></g></message>"


@pytest.mark.parametrize(
    ("least", "inner_least", "avro", "value", "text"),
    [
        (0, 1, "listed", ["1", "2"], "<many><one>1</one><one>2</one></many>"),
        (0, 1, "listed", [], ""),
        (0, 0, "listed", [], ""),
        (1, 0, "listed", [], "<many></many>"),
        (0, 0, "maybe", None, ""),
        (0, 0, "maybe", [], "<many></many>"),
        (0, 1, "maybe", [], ""),
    ],
)
def test_lists_in_a_wrapper(least: int, inner_least: int, avro: str, value: Any, text: str) -> None:
    given_field = listed("many", "string") if avro == "listed" else maybe("many", {"type": "array", "items": "string"})
    children = holding("many", element("one", least=inner_least, most="unbounded"), least=least)
    assert written(children, given_field, value) == text


def test_lists_without_a_wrapper() -> None:
    children = element("one", "text5", least=0, most="3")
    made = writer(children, listed("one", "string"))
    assert made.write({"one": ["1", "2"]}, {}) == b"<message><one>1</one><one>2</one></message>"
    assert refusal(made, {"one": ["1", "123456", "\x00"]}) == [
        "one[1]: longer than 5",
        "one[2]: has a character XML cannot carry (U+0000)",
    ]
    assert refusal(made, {"one": ["1"] * 4}) == ["one: more than 3"]


def test_lists_that_are_too_short_or_endless() -> None:
    made = writer(
        holding("many", element("one", most="unbounded")), field("many", {"type": "array", "items": "string"})
    )
    assert refusal(made, {"many": []}) == ["many: needs at least 1"]
    assert refusal(made, {"many": ["x"] * (ITEM_LIMIT + 1)}) == [f"many: more than {ITEM_LIMIT}"]


def test_protocol_values_are_filled_in_and_checked() -> None:
    children = (
        holding("head", element("id", "text5") + element("at", "xs:dateTime")) + element("who", least=0) + element("a")
    )
    made = writer(children, field("a"), field("commandId"), head__id="identifier", head__at="now", who="who")
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    assert made.write({"a": "1", "commandId": "c"}, {"identifier": "7", "now": moment, "who": None}) == (
        b"<message><head><id>7</id><at>2026-01-31T00:00:00.000Z</at></head><a>1</a></message>"
    )
    assert refusal(made, {"a": "1"}, {"identifier": "123456"}) == ["head.id: longer than 5", "head.at: is required"]


def test_an_optional_element_of_protocol_values_is_left_out_without_them() -> None:
    made = writer(holding("head", element("id"), least=0) + element("a"), field("a"), head__id="identifier")
    assert made.write({"a": "1"}, {"identifier": None}) == b"<message><a>1</a></message>"
    assert made.write({"a": "1"}, {"identifier": "7"}) == b"<message><head><id>7</id></head><a>1</a></message>"


def test_what_is_wrong_with_protocol_values_of_an_optional_element_is_told() -> None:
    made = writer(
        holding("head", element("id", "text5") + element("by"), least=0) + element("a"),
        field("a"),
        head__id="identifier",
        head__by="who",
    )
    assert refusal(made, {"a": "1"}, {"identifier": "123456"}) == ["head.id: longer than 5", "head.by: is required"]


def test_elements_of_another_namespace_have_the_prefix_of_its_schema() -> None:
    made = writer('<xs:element ref="cfh:extra"/>', field("extra"))
    assert made.write({"extra": "1"}, {}) == b'<message xmlns:cfh="urn:ext"><cfh:extra>1</cfh:extra></message>'


# -- reading


def read(made: MessageReader, text: str) -> tuple[Any, tuple[str, ...], list[str]]:
    found = made.read(admit(text.encode()))
    return found.record, found.unknown, [f"{deviation.path}: {deviation.what}" for deviation in found.deviations]


@pytest.mark.parametrize(
    ("kind", "avro", "text", "value", "deviations"),
    [
        ("xs:string", "string", " a\n b ", " a\n b ", []),
        ("xs:string", "string", "", "", []),
        ("nonBlank", "string", " a\n  b ", "a b", []),
        ("nonBlank", "string", "  ", "", ["is blank"]),
        ("text5", "string", "123456", "123456", ["longer than 5"]),
        ("kind", "string", "Other", "Other", ["not a known value"]),
        ("xs:string", "string", "<b>x</b> y", "x y", ["elements where text is expected"]),
        ("xs:boolean", "boolean", " TRUE ", True, []),
        ("xs:boolean", "boolean", "1", True, []),
        ("xs:boolean", "boolean", "0", False, []),
        ("xs:boolean", "boolean", " Yes", True, ["a word, taken for true or false"]),
        ("xs:boolean", "boolean", "n", False, ["a word, taken for true or false"]),
        ("xs:boolean", "boolean", "yesterday", None, ["not true or false"]),
        ("xs:boolean", "boolean", "", None, ["is empty"]),
        ("xs:int", "int", " +0200 ", 200, []),
        ("xs:int", "int", "2147483648", None, ["not a whole number"]),
        ("xs:int", "long", "2147483648", 2147483648, []),
        ("xs:int", "int", "2e2", None, ["not a whole number"]),
        ("xs:int", "int", "1_0", None, ["not a whole number"]),
        ("xs:int", "int", "9" * 5000, None, ["not a whole number"]),
        ("xs:date", DATE, "2012-01-20", date(2012, 1, 20), []),
        ("xs:date", DATE, "2012-01-20Z", date(2012, 1, 20), []),
        ("xs:date", DATE, "2012-01-20T08:00:00", date(2012, 1, 20), ["a time, the date in it is taken"]),
        ("xs:date", DATE, "20/01/2012", None, ["not a date"]),
        ("xs:date", DATE, "2012-02-30", None, ["not a date"]),
    ],
)
def test_how_texts_are_read(kind: str, avro: Any, text: str, value: Any, deviations: list[str]) -> None:
    made = reader(element("a", kind), maybe("a", avro))
    assert read(made, f"<message><a>{text}</a></message>") == ({"a": value}, (), [f"a: {each}" for each in deviations])


NO_OFFSET = "no offset, taken for Europe/London"


@pytest.mark.parametrize(
    ("text", "value", "deviation"),
    [
        ("2018-06-09T11:15:17.0001Z", datetime(2018, 6, 9, 11, 15, 17, tzinfo=UTC), None),
        ("2018-06-09T11:15:17.123456789Z", datetime(2018, 6, 9, 11, 15, 17, 123000, tzinfo=UTC), None),
        ("2018-06-09T11:15:17.5+01:00", datetime(2018, 6, 9, 10, 15, 17, 500000, tzinfo=UTC), None),
        ("2018-06-09T11:15:17-0530", datetime(2018, 6, 9, 16, 45, 17, tzinfo=UTC), None),
        (" 2018-06-09 11:15z ", datetime(2018, 6, 9, 11, 15, tzinfo=UTC), None),
        ("2018-06-09T24:00:00Z", datetime(2018, 6, 10, tzinfo=UTC), None),
        ("2018-06-09T11:15:17", datetime(2018, 6, 9, 10, 15, 17, tzinfo=UTC), NO_OFFSET),
        ("2018-12-09T11:15:17", datetime(2018, 12, 9, 11, 15, 17, tzinfo=UTC), NO_OFFSET),
        ("2018-06-09T24:00:01Z", None, "not a time"),
        ("2018-06-09T25:00:00Z", None, "not a time"),
        ("2018-06-09T11:15:60Z", None, "not a time"),
        ("9999-12-31T23:59:59-01:00", None, "not a time"),
        ("0001-01-01T00:00:00+01:00", None, "not a time"),
        ("9999-12-31T24:00:00Z", None, "not a time"),
        ("0000-01-01T00:00:00Z", None, "not a time"),
        ("2018-06-09T11:15:17+99:99", None, "not a time"),
        ("2018-06-09", None, "not a time"),
        ("soon", None, "not a time"),
        ("", None, "is empty"),
    ],
)
def test_how_times_are_read(text: str, value: datetime | None, deviation: str | None) -> None:
    made = reader(element("a", "xs:dateTime"), maybe("a", TIME))
    assert read(made, f"<message><a>{text}</a></message>") == (
        {"a": value},
        (),
        [f"a: {deviation}"] if deviation else [],
    )


@given(st.text(st.sampled_from("0123456789-:TZ+. /,"), max_size=30))
def test_whatever_looks_like_a_time_is_one_or_none(text: str) -> None:
    made = reader(element("a", "xs:dateTime"), maybe("a", TIME))
    value = made.read(admit(f"<message><a>{text}</a></message>".encode())).record["a"]
    assert value is None or value.tzinfo is UTC


ANYTHING = (
    '<xs:element name="a" minOccurs="0"><xs:complexType mixed="true"><xs:sequence>'
    '<xs:any minOccurs="0" maxOccurs="unbounded" processContents="skip"/></xs:sequence></xs:complexType></xs:element>'
)


@pytest.mark.parametrize("text", ["no such ticket", " no <b>such</b>\n<c> ticket</c>", "<b>no such</b><b>ticket</b>"])
def test_an_error_message_as_text_or_as_children(text: str) -> None:
    record_read, unknown, deviations = read(reader(ANYTHING, maybe("a")), f"<message><a>{text}</a></message>")
    assert (record_read, unknown, deviations) == ({"a": "no such ticket"}, (), [])


GROUPED = element("a") + holding("g", element("b", "xs:int") + element("c", least=0), least=0)
GROUPED_FIELDS = (maybe("a"), maybe("g", record(maybe("b", "int"), maybe("c"), name="G")))


def test_any_order_prefix_and_namespace() -> None:
    text = "<q:message xmlns:q='urn:q' xmlns='urn:d'><g><q:c>2</q:c><b>1</b></g><q:a>0</q:a></q:message>"
    assert read(reader(GROUPED, *GROUPED_FIELDS), text) == ({"a": "0", "g": {"b": 1, "c": "2"}}, (), [])


def test_what_is_missing_unknown_double_or_out_of_place_is_told() -> None:
    text = "<message>x<b>1</b><g><x/>y<b>z</b><g/></g><g/><x/></message>"
    assert read(reader(GROUPED, *GROUPED_FIELDS), text) == (
        {"a": None, "g": {"b": None, "c": None}},
        ("b", "g.x", "g.g", "x"),
        [
            "g.b: not a whole number",
            "g: more than once, the first is taken",
            "a: missing",
            ": text where elements are expected",
        ],
    )


def test_nil_is_null() -> None:
    text = (
        '<message xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><a i:nil="true"/><g><b i:nil="1"/></g></message>'
    )
    assert read(reader(GROUPED, *GROUPED_FIELDS), text)[0] == {"a": None, "g": {"b": None, "c": None}}


NIL = 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:nil="true"'
WRAPPED = holding("many", holding("one", element("b", "xs:int"), least=0, most="unbounded"), least=0)
ITEM = record(maybe("b", "int"), name="Item")


def test_lists_are_read_from_their_wrapper() -> None:
    made = reader(WRAPPED, listed("many", ITEM))
    assert read(made, "<message/>")[0] == {"many": []}
    assert read(made, "<message><many/></message>")[0] == {"many": []}
    assert read(made, "<message><many><one><b>1</b></one><x/><one><b>x</b><y/></one></many></message>") == (
        {"many": [{"b": 1}, {"b": None}]},
        ("many.x", "many[1].y"),
        ["many[1].b: not a whole number"],
    )


def test_a_list_that_may_be_null_tells_nothing_from_empty() -> None:
    made = reader(WRAPPED, maybe("many", {"type": "array", "items": ITEM}))
    assert read(made, "<message/>")[0] == {"many": None}
    assert read(made, "<message><many/></message>")[0] == {"many": []}


def test_lists_without_wrapper_are_gathered_from_where_they_stand() -> None:
    made = reader(element("a", "xs:int", least=0, most="unbounded") + element("c"), listed("a", "int"), maybe("c"))
    assert read(made, "<message><a>1</a><c>x</c><a>z</a><a>2</a></message>") == (
        {"a": [1, 2], "c": "x"},
        (),
        ["a[1]: not a whole number"],
    )


def aside(made: MessageReader, text: str) -> list[tuple[str, str]]:
    return list(made.read(admit(text.encode())).aside)


@pytest.mark.parametrize("text", ["2026-06-30T23:00:00Z", "2026-07-01Tmorning"])
def test_a_time_where_a_date_is_expected_is_kept_aside_as_it_was_written(text: str) -> None:
    made = reader(element("a", "xs:date"), maybe("a", DATE))
    assert aside(made, f"<message><a>{text}</a></message>") == [("a", text)]


def test_what_has_no_place_in_the_record_is_kept_aside() -> None:
    text = "<message>x<b>1</b><g><x/>y<b>z</b><g>2</g></g><g><b>3</b>t</g><x>4<y>5</y>6</x></message>"
    assert sorted(aside(reader(GROUPED, *GROUPED_FIELDS), text)) == [
        ("", "x"),
        ("b", "1"),
        ("g", "t"),
        ("g", "y"),
        ("g.b", "3"),
        ("g.b", "z"),
        ("g.g", "2"),
        ("x", "4"),
        ("x", "6"),
        ("x.y", "5"),
    ]
    assert aside(reader(GROUPED, *GROUPED_FIELDS), "<message><a>1</a><g><b>1</b></g></message>") == []


def test_items_without_their_wrapper_and_wrappers_that_are_items() -> None:
    made = reader(WRAPPED, listed("many", ITEM))
    assert read(made, "<message><one><b>1</b></one><one><b>2</b></one></message>") == (
        {"many": [{"b": 1}, {"b": 2}]},
        (),
        ["many[0]: outside its wrapper", "many[1]: outside its wrapper"],
    )
    assert read(made, "<message><many><b>1</b></many><many><b>2</b></many></message>") == (
        {"many": [{"b": 1}, {"b": 2}]},
        (),
        [
            "many: an item where its wrapper is expected",
            "many: an item where its wrapper is expected",
            "many: more than once, all are taken",
        ],
    )


@pytest.mark.parametrize(
    "text",
    [
        "<many><one/></many>",
        "<many><one><b/> </one></many>",
        f"<many><one {NIL}/></many>",
        "<one/>",
        "<many><b/></many>",
    ],
)
def test_an_item_that_holds_nothing_is_none(text: str) -> None:
    record_read, _, deviations = read(reader(WRAPPED, listed("many", ITEM)), f"<message>{text}</message>")
    assert record_read == {"many": []}
    assert any("holds nothing" in each for each in deviations)


def test_an_item_of_blank_texts_holds_nothing_either() -> None:
    texts = holding("many", holding("one", element("b"), least=0, most="unbounded"), least=0)
    made = reader(texts, listed("many", record(maybe("b"), name="Item")))
    assert read(made, "<message><many><one><b>\n </b></one><one><b>x</b></one></many></message>")[0] == {
        "many": [{"b": "x"}]
    }


def test_and_what_it_holds_without_a_field_is_kept_aside() -> None:
    made = reader(WRAPPED, listed("many", ITEM))
    text = "<message><many><one><b>1</b></one><one/><one at='x'/><one><c>2</c></one></many></message>"
    assert read(made, text)[0] == {"many": [{"b": 1}, {"b": None}]}
    assert aside(made, text) == [("many[1].c", "2"), ("many.one.@at", "x")]


def test_text_in_a_wrapper_is_kept_aside() -> None:
    made = reader(WRAPPED, listed("many", ITEM))
    assert aside(made, "<message><many>lost?</many></message>") == [("many", "lost?")]
    between = "<message><many><one><b>1</b></one>2 <x/> and 3<one/></many></message>"
    assert aside(made, between) == [("many", "2"), ("many", "and 3")]


def test_an_item_whose_name_is_a_field_of_its_own_stays_that_field() -> None:
    made = reader(WRAPPED + element("one", least=0), listed("many", ITEM), maybe("one"))
    assert read(made, "<message><one>1</one><many><one><b>2</b></one></many></message>") == (
        {"many": [{"b": 2}], "one": "1"},
        (),
        [],
    )


def test_a_flood_of_strange_content_is_cut() -> None:
    found = reader(GROUPED, *GROUPED_FIELDS).read(admit(b"<message><x>" + b"<y>1</y>" * 5000 + b"</x></message>"))
    assert (found.unknown, len(found.aside)) == (("x",), 1000)


def test_a_flood_of_deviations_is_cut() -> None:
    found = reader(GROUPED, *GROUPED_FIELDS).read(admit(b"<message>" + b"<a/><x/>" * 5000 + b"</message>"))
    assert (len(found.unknown), len(found.deviations)) == (100, 100)
    assert found.deviations[0] == Deviation("a", "more than once, the first is taken", ValueClass.EMPTY)


def as_they_stand(kind: str) -> etree.XMLSchema:
    text = f"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">{TYPES}<xs:element name="message">
      <xs:complexType><xs:sequence>{element("a", kind)}</xs:sequence></xs:complexType></xs:element></xs:schema>"""
    return etree.XMLSchema(etree.fromstring(text))


NOT_BLANK = {kind: (xsd(element("a", kind)), as_they_stand(kind)) for kind in ("nonBlank", "nonBlank5")}


@given(st.text(st.sampled_from(" \t\n\r\u00a0\u2028ab."), max_size=8))
def test_what_is_blank_is_what_the_pattern_says(text: str) -> None:
    child = etree.SubElement(message := etree.Element("message"), "a")
    child.text = text
    for made, plain in NOT_BLANK.values():
        assert made.judge.validate(message) == plain.validate(message)


def test_a_type_that_is_not_blank_may_say_so_in_any_words() -> None:
    """What libxml2 is told in words it is quicker with has to leave alone what cannot be said in them."""
    nothing, blank, full = (etree.fromstring(f"<message><a>{text}</a></message>") for text in ("", " ", " a"))
    restriction = '<xs:simpleType name="t"><xs:restriction base="xs:string">{}</xs:restriction></xs:simpleType>'
    collapse, pattern = '<xs:whiteSpace value="collapse"/>', '<xs:pattern value=".*\\S.*"/>'
    for facets, taken in (
        (collapse + pattern, [full]),
        (pattern, [full]),
        (collapse + pattern + '<xs:pattern value=""/>', [nothing, blank, full]),  # one of the two is enough
        (collapse + '<xs:minLength value="0"/>' + pattern, [full]),
    ):
        made = xsd(element("a", "t"), restriction.format(facets))
        assert [message for message in (nothing, blank, full) if made.judge.validate(message)] == taken, facets


# -- what stops the start


@pytest.mark.parametrize(
    ("children", "fields", "expected"),
    [
        (element("a") + element("b"), [field("a")], ["b: in the XSD, not in the Avro record x.Message"]),
        (element("a"), [field("a"), field("b")], ["b: in the Avro record x.Message, not in the XSD"]),
        (
            holding("g", element("a")),
            [field("g", record(field("b"), name="G"))],
            ["g.a: in the XSD, not in the Avro record x.G", "g.b: in the Avro record x.G, not in the XSD"],
        ),
        (element("a"), [maybe("a")], ["a: required in the XSD, nullable in Avro"]),
        (element("a", least=0), [field("a")], ["a: optional in the XSD, not nullable in Avro"]),
        (
            element("a", least=0),
            [{"name": "a", "type": ["string", "null"], "default": "x"}],
            ["a: nullable, must have the default null"],
        ),
        (element("a", least=0), [maybe("a", "int")], ["a: text in the XSD needs string in Avro, not int"]),
        (element("a", "xs:int"), [field("a")], ["a: integer in the XSD needs int or long in Avro, not string"]),
        (element("a", "xs:date"), [field("a", "int")], ["a: date in the XSD needs int (date) in Avro, not int"]),
        (
            element("a", "xs:dateTime"),
            [field("a", "long")],
            ["a: dateTime in the XSD needs long (timestamp-millis) in Avro, not long"],
        ),
        (element("a", "xs:boolean"), [field("a")], ["a: boolean in the XSD needs boolean in Avro, not string"]),
        (element("a", "xs:decimal"), [field("a")], ["message.a: the type decimal cannot be mapped"]),
        (element("a", "kind"), [field("a")], ["a: an enumeration in the XSD needs an enum in Avro, not string"]),
        (
            element("a", "kind"),
            [field("a", kind_enum("IMPAIRED_SERVICE", "OTHER", "UNKNOWN"))],
            ["a: the enum lacks R_D; the XSD does not know OTHER"],
        ),
        (
            element("a", "kind"),
            [field("a", kind_enum("IMPAIRED_SERVICE", "R_D", default=None))],
            ["a: the enum must have the default UNKNOWN"],
        ),
        (
            element("a", "twins"),
            [field("a", kind_enum("A_B", "UNKNOWN"))],
            ["a: two values of the enumeration have the same symbol"],
        ),
        (element("a") + element("a"), [field("a")], ["a: two elements of this name"]),
        (holding("a", element("b")), [field("a")], ["a: elements in the XSD, string in Avro"]),
        (element("a"), [field("a", record(name="G"))], ["a: text in the XSD, record x.G in Avro"]),
        (element("a", most="2"), [field("a")], ["a: repeated in the XSD, string in Avro"]),
        (element("a"), [listed("a", "string")], ["a: text in the XSD, array in Avro"]),
        (
            element("a", least=0, most="2"),
            [field("a", {"type": "array", "items": "string"})],
            ["a: optional in the XSD, needs a default in Avro"],
        ),
        (
            element("a", most="2"),
            [maybe("a", {"type": "array", "items": "string"})],
            ["a: required in the XSD, nullable in Avro"],
        ),
        (element("a"), [field("a", ["string", "int"])], ["a: a union of more than null and one type cannot be mapped"]),
        (
            f"<xs:choice>{element('a')}{element('b')}</xs:choice>",
            [field("a")],
            ["a choice cannot be mapped"],
        ),
        (ANYTHING, [maybe("a")], ["a: content of any kind cannot be written"]),
    ],
)
def test_schemas_that_do_not_fit_stop_the_start(
    children: str, fields: list[dict[str, Any]], expected: list[str]
) -> None:
    assert [fault.removeprefix("message: ") for fault in faults(children, *fields)] == expected


def test_all_misfits_are_told_at_once() -> None:
    found = faults(element("a") + element("b", "xs:int") + element("c"), field("b"), field("d"), maybe("c"))
    assert len(found) == 4


def test_what_is_read_must_be_nullable() -> None:
    expected = ["message: a: may be missing in a real message, must be nullable in Avro"]
    assert faults(element("a"), field("a"), out=False) == expected


def test_an_element_the_xsd_has_not_stops_the_start() -> None:
    schema = Schema.parse(json.dumps(record(maybe("a"))))
    with pytest.raises(Stop, match="other: no such element"):
        compile_message(xsd(element("a")), "other", schema.record, zone=UTC)


def test_a_record_without_the_field_asked_for_stops_the_start() -> None:
    with pytest.raises(Stop, match="no record in a field reply"):
        record_of(Schema.parse(json.dumps(record(maybe("a")))), "reply")


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"main.xsd": b"<xs:schema"},
        {"main.xsd": b"<other/>"},
        {
            "main.xsd": b'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
            b'<xs:element name="a" type="gone"/></xs:schema>'
        },
        {
            "main.xsd": b'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
            b'<xs:include schemaLocation="/etc/hostname"/><xs:element name="a" type="xs:string"/></xs:schema>'
        },
    ],
)
def test_xsds_that_cannot_be_read_stop_the_start(texts: dict[str, bytes]) -> None:
    with pytest.raises(Stop):
        load_schema(texts, ["main.xsd"])


def test_an_xsd_includes_another_that_is_given_too() -> None:
    begin = '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
    head = f'{begin}<xs:group name="head"><xs:sequence>{element("a")}</xs:sequence></xs:group></xs:schema>'
    message = '<xs:complexType><xs:sequence><xs:group ref="head"/></xs:sequence></xs:complexType>'
    new = f'{begin}<xs:include schemaLocation="head.xsd"/><xs:element name="new">{message}</xs:element></xs:schema>'
    texts = {"head.xsd": head.encode(), "new.xsd": new.encode()}
    loaded = load_schema(texts, list(texts))
    assert loaded.element("new").content
    assert loaded.judge.validate(etree.fromstring("<new><a>1</a></new>"))


def test_the_same_xsds_are_read_once_and_changed_ones_anew() -> None:
    read = xsd(element("a"))
    assert xsd(element("a")) is read
    assert xsd(element("b")) is not read


def test_an_element_of_text_alone_cannot_be_a_message() -> None:
    text = b'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="a" type="xs:string"/></xs:schema>'
    schema = Schema.parse(json.dumps(record()))
    with pytest.raises(Stop, match="holds text"):
        compile_message(load_schema({"main.xsd": text}, ["main.xsd"]), "a", schema.record, zone=UTC)


def test_tree_of_a_parser_without_our_admission_is_read_too() -> None:
    root = etree.Element("message")
    etree.SubElement(root, "a").text = "1"
    assert reader(GROUPED, *GROUPED_FIELDS).read(root).record["a"] == "1"


# -- what an XSD may and may not have


def test_elements_of_an_optional_group_are_optional() -> None:
    made = writer(f'<xs:sequence minOccurs="0">{element("a")}{element("b")}</xs:sequence>', maybe("a"), maybe("b"))
    assert made.write({"a": None, "b": None}, {}) == b"<message></message>"
    assert refusal(made, {"a": None, "b": "1"}) == ["b: is not what the supplier's schema allows"]


def test_room_for_unnamed_elements_and_optional_attributes_are_passed_over() -> None:
    children = (
        element("a")
        + '<xs:element name="g"><xs:complexType><xs:sequence><xs:any minOccurs="0" processContents="skip"/>'
        + f'{element("b")}</xs:sequence><xs:attribute name="x"/></xs:complexType></xs:element>'
    )
    with pytest.raises(Stop, match=r"main\.xsd"):  # the judges refuse it first: what `any` takes, b takes too
        writer(children, field("a"), field("g", record(field("b"), name="G")))
    clear = children.replace("<xs:any ", '<xs:any namespace="##other" ')
    made = writer(clear, field("a"), field("g", record(field("b"), name="G")))
    assert made.write({"a": "1", "g": {"b": "2"}}, {}) == b"<message><a>1</a><g><b>2</b></g></message>"


@pytest.mark.parametrize(
    ("children", "types", "fault"),
    [
        (f'<xs:sequence maxOccurs="2">{element("a")}</xs:sequence>', "", "message: a repeated group cannot be mapped"),
        ('<xs:any processContents="skip"/>', "", "message: a required wildcard cannot be mapped"),
        (
            (
                '<xs:element name="a"><xs:complexType>'
                '<xs:attribute name="x" use="required"/></xs:complexType></xs:element>'
            ),
            "",
            "message.a: the required attribute x cannot be mapped",
        ),
        (
            element("a", "tree"),
            f'<xs:complexType name="tree"><xs:sequence>{element("a", "tree", least=0)}</xs:sequence></xs:complexType>',
            "a type that contains itself cannot be mapped",
        ),
    ],
)
def test_what_the_mapping_cannot_carry_stops_the_start(children: str, types: str, fault: str) -> None:
    with pytest.raises(Stop, match=fault):
        xsd(children, types).element("message")
