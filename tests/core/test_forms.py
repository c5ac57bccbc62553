"""Replies known by their form: what is read without the parser is what the parser would have let us read."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from adapter.core.avro import Schema
from adapter.core.command import Accepted, Verdict
from adapter.core.document import DEFAULT_LIMITS, DocumentLimits, admit, local_name
from adapter.core.mapping import MessageReader, compile_message, forms, record_of
from adapter.core.outcome import Judge
from adapter.core.soap import SOAP_1_1
from adapter.core.xsd import load_schema
from tests.support.known import known

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ENTRY = known().operations["AddFaultReport"]
UTF_8 = "text/xml; charset=utf-8"


@pytest.fixture
def reader() -> MessageReader:
    """One that has seen nothing."""
    return fresh()


def fresh() -> MessageReader:
    return compile_message(known().xsd, ENTRY.operation.reply, record_of(ENTRY.accepted, "reply"), zone=UTC)


def verdict(reader: MessageReader, body: str | bytes, **other: Any) -> Verdict:
    judge = Judge(
        replies=known().supplier.replies,
        accepted_codes=frozenset({200}),
        limits=other.get("limits", DEFAULT_LIMITS),
    )
    return judge.verdict(
        status=other.get("status", 200),
        headers={"content-type": other.get("content_type", UTF_8)},
        body=body if isinstance(body, bytes) else body.encode(),
        operation=ENTRY.operation,
        reader=reader,
        reference=None,
        now=NOW,
    )


def reply(reference: str = "SP-1", code: str = "200", more: str = "") -> str:
    return (
        f'<?xml version="1.0"?>\n<e:Envelope xmlns:e="{SOAP_1_1}"><e:Body>\n <receivedAddFaultReport>\n'
        "  <apiVersion>1.0</apiVersion>\n  <buyerIdentifier>SPDEV1</buyerIdentifier>\n"
        "  <sentAt>2026-01-31T12:00:00.0001Z</sentAt>\n  <messageId>m-1</messageId>\n  <status>Pending</status>\n"
        f"  <buyerFaultReference>{reference}</buyerFaultReference>\n  <responseCode>{code}</responseCode>{more}\n"
        " </receivedAddFaultReport>\n</e:Body></e:Envelope>\n"
    )


def by_form(
    reader: MessageReader, body: str, content_type: str | None = UTF_8, limits: DocumentLimits = DEFAULT_LIMITS
) -> Any:
    return reader.forms.read(body.encode(), content_type, limits)


def test_a_reply_of_a_form_that_was_read_before_is_read_without_the_parser(reader: MessageReader) -> None:
    assert by_form(reader, reply()) is None
    first = verdict(reader, reply())
    assert isinstance(first, Accepted)
    assert first.reply == by_form(reader, reply())
    assert by_form(reader, reply("SP-2", "201")) == {
        **(first.reply or {}),
        "buyerFaultReference": "SP-2",
        "responseCode": 201,
    }
    assert verdict(reader, reply(code="400")) == verdict(fresh(), reply(code="400"))


def test_what_no_field_was_found_for_is_kept_each_time(reader: MessageReader) -> None:
    for text in ("one", "two", "three"):
        verdict(reader, reply())
        found = verdict(reader, reply(more=f"<more>{text}</more>"))
        assert isinstance(found, Accepted)
        assert found.aside == (("more", text),)


def test_it_is_another_reply_in_another_frame(reader: MessageReader) -> None:
    verdict(reader, reply())
    small = replace(DEFAULT_LIMITS, size=len(reply()))
    assert by_form(reader, reply(), content_type=None) is None
    assert by_form(reader, reply(), limits=small) is None
    assert by_form(reader, reply(more="<errorMessage>no</errorMessage>")) is None
    assert by_form(reader, reply().replace("\n", "")) is None
    verdict(reader, reply(), limits=small)
    assert by_form(reader, reply(), limits=small) is not None
    assert by_form(reader, reply("SP-12"), limits=small) is None  # too large by one byte, and so refused


@pytest.mark.parametrize("text", [" SP-1", "", "&#83;P", "S\tP", "Ünï", "<![CDATA[SP]]>", "SP<!-- -->-1", "a>b"])
def test_a_text_that_is_not_plain_is_left_to_the_parser(reader: MessageReader, text: str) -> None:
    verdict(reader, reply())
    verdict(reader, reply(text))
    assert by_form(reader, reply(text)) is None
    assert verdict(reader, reply(text)) == verdict(fresh(), reply(text))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (reply(more="<more>x</more>"), 200),  # unknown
        (reply(more="<status>Rejected</status>"), 200),  # there twice
        (reply(code="E-4"), 200),
        (reply(more="<errorMessage><code>a</code></errorMessage>"), 200),
        # As many texts as there should be, the same even, and yet the first is not what the message says.
        (reply().replace("<e:Body>", "<h>1.0</h><e:Body>").replace(">1.0</a", ">&#49;.0</a"), 200),
        (reply().replace("<e:Body>", "<!-- >1.0< --><e:Body>").replace(">1.0</a", "><![CDATA[1.0]]></a"), 200),
        (reply().replace("<e:Body>", "<?p >1.0< ?><e:Body>").replace(">1.0</a", ">1<?p?>.0</a"), 200),
        (reply().replace("receivedAddFaultReport", "error"), 400),
        (reply() + "<", 200),
    ],
)
def test_what_strays_or_is_no_answer_of_the_operation_is_not_learned(
    reader: MessageReader, body: str, status: int
) -> None:
    verdict(reader, body, status=status)
    assert by_form(reader, body) is None


def test_an_empty_list_stays_one() -> None:
    xsd = b"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="message"><xs:complexType>
      <xs:sequence><xs:element name="responseCode" type="xs:int"/>
      <xs:element name="note" type="xs:string" minOccurs="0" maxOccurs="9"/></xs:sequence>
      </xs:complexType></xs:element></xs:schema>"""
    fields = [
        {"name": "responseCode", "type": ["null", "int"], "default": None},
        {"name": "note", "type": {"type": "array", "items": "string"}, "default": []},
    ]
    schema = Schema.parse(json.dumps({"type": "record", "name": "x.Message", "fields": fields}))
    reader = compile_message(load_schema({"x.xsd": xsd}, ["x.xsd"]), "message", schema.record, zone=UTC)
    for _ in range(2):
        found = verdict(reader, "<message><responseCode>200</responseCode></message>")
        assert isinstance(found, Accepted)
        assert found.reply == {"responseCode": 200, "note": []}


def test_neither_forms_without_end_nor_long_replies_fill_the_memory(reader: MessageReader) -> None:
    for number in range(3 * forms._MOST):
        verdict(reader, reply().replace("<e:Body>", f'<e:Body id="{number}">'))
    assert 0 < len(reader.forms._known) <= forms._MOST
    long = reply("x" * forms._LONGEST)
    assert isinstance(verdict(reader, long), Accepted)
    assert by_form(reader, long) is None


REQUIRED = ("apiVersion", "buyerIdentifier", "messageId", "sentAt", "status")
PLAIN = {
    "sentAt": st.sampled_from(["2026-01-31T12:00:00Z", "2026-02-28T12:00:00.0001Z"]),
    "status": st.sampled_from(["Pending", "Rejected"]),
    "responseCode": st.sampled_from(["200", "400"]),
}
ANY = st.sampled_from(["1.0", "x", "SP-1", "a b", "]]", "="])
ODD = st.sampled_from(
    [
        *("", " ", " a", "a  b", "a ", "&amp;", "&#49;", "<", ">", "&", "'", '"', "]]>", "é", "\x00", "\r\n"),
        *("<!-- >a< -->", "<![CDATA[>a<]]>", "<?p >a< ?>", "</status>", "<a>b</a>", "xmlns='urn:x'"),
        "<status>Rejected</status>",
    ]
)
NAMES = st.sampled_from(["buyerFaultReference", "responseCode", "errorMessage", "q:responseCode", "other", "status"])
ROOTS = st.sampled_from([ENTRY.reader.element, ENTRY.reader.element, f"q:{ENTRY.reader.element}", "error"])
FRAMES = st.sampled_from(
    [
        "{}",
        '<?xml version="1.0" encoding="utf-8"?>\n{}',
        '<?xml version="1.0" encoding="utf-16"?>{}',
        f'<e:Envelope xmlns:e="{SOAP_1_1}"><e:Body>{{}}</e:Body></e:Envelope>',
        f'<Envelope xmlns="{SOAP_1_1}"><Header><id>x</id></Header><Body>\n{{}}\n</Body></Envelope>',
        '<e:Envelope xmlns:e="urn:e" a=">x"><e:Body>{}</e:Body></e:Envelope><!-- >x< -->',
    ]
)


@st.composite
def families(draw: st.DrawFn) -> list[bytes]:
    """Replies of one form, with other texts in them, some of which are not what they should be."""
    names = draw(st.permutations([*REQUIRED, *draw(st.lists(NAMES, max_size=3, unique=True))]))
    root, gap, frame = draw(ROOTS), draw(st.sampled_from(["", "\n  ", "x"])), draw(FRAMES)
    found = []
    for _ in range(draw(st.integers(2, 4))):
        texts = [draw(PLAIN.get(name, ANY) if draw(st.integers(0, 20)) else ODD) for name in names]
        inner = gap.join(f"<{name}>{text}</{name}>" for name, text in zip(names, texts, strict=True))
        whole = frame.format(f"<{root} xmlns:q='urn:q'>{gap}{inner}</{root}>")
        if not draw(st.integers(0, 4)):
            at = draw(st.integers(0, len(whole)))
            whole = whole[:at] + draw(ODD) + whole[at:]
        found.append(whole.encode())
    return found


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(families(), st.sampled_from([200, 400, 500, 404]), st.sampled_from([UTF_8, "text/xml; charset=utf-16", "x/y"]))
def test_whatever_was_read_before_the_verdict_is_that_of_a_reader_that_has_seen_nothing(
    bodies: list[bytes], status: int, content_type: str
) -> None:
    seen = fresh()
    for body in [*bodies, *bodies]:
        alone = verdict(fresh(), body, status=status, content_type=content_type)
        assert verdict(seen, body, status=status, content_type=content_type) == alone
        record = seen.forms.read(body, content_type, DEFAULT_LIMITS)
        if record is not None:
            event("known by its form")
            (element,) = (each for each in admit(body).iter() if local_name(each) == seen.element)
            assert seen.read(element).record == record
