"""What the supplier gets for a notification: judged by the XSDs, as the supplier would."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from adapter import catalogue
from adapter.core import soap
from adapter.core.answer import Written, compile_answer, refused
from adapter.core.document import admit, charset
from adapter.core.errors import Stop
from adapter.core.notification import Delivery, Readable, Refusal
from adapter.core.soap import Blame, Version
from tests.strategies import xml_text
from tests.support.known import known

GOLDEN = Path(__file__).parents[1] / "golden" / "cityfibre" / "notifications"
KNOWN = known()
NOW = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)


def notification() -> Readable:
    body = (GOLDEN / "appointment-cancelled" / "notification.xml").read_bytes()
    found = KNOWN.notification.reader.read(Delivery(body=body, received_at=NOW), buyers=frozenset({"SPDEV1"}))
    assert isinstance(found, Readable)
    return found


READ = notification()


def accepted(found: Readable, *, own_id: bool = False, at: datetime = NOW) -> Written:
    return KNOWN.notification.answers.accepted(found, api_version="1.0", buyer="OURS", at=at, own_id=own_id)


def fields(answer: Written) -> dict[str, str | None]:
    """The fields of an answer that the XSD takes."""
    element = soap.unwrap(admit(answer.body, charset=charset(answer.content_type))).element
    assert element is not None
    assert element.tag == "receivedNotifyFaultReportUpdate"
    alone = etree.fromstring(etree.tostring(element))
    assert KNOWN.xsd.judge.validate(alone), KNOWN.xsd.judge.error_log
    assert KNOWN.xsd.model.is_valid(etree.tostring(alone).decode())
    return {str(child.tag): child.text for child in element}


# contract section 8, number 1: the published answer is not well-formed
def test_1_the_answer_is_well_formed_and_valid() -> None:
    assert fields(accepted(READ)) == {
        "apiVersion": "1.0",
        "buyerIdentifier": "SPDEV1",
        "sentAt": "2026-01-31T12:00:00.123Z",
        "messageId": "CF-00003",
        "responseCode": "200",
    }


def test_the_answer_has_the_fields_of_the_published_one_in_its_order() -> None:
    published = etree.fromstring((GOLDEN / "appointment-cancelled" / "acknowledgement.xml").read_bytes())
    assert list(fields(accepted(READ))) == [child.tag for child in published]


@pytest.mark.parametrize(
    ("version", "root", "media"),
    [
        (Version.NONE, "receivedNotifyFaultReportUpdate", "application/xml"),
        (Version.SOAP_1_1, f"{{{soap.SOAP_1_1}}}Envelope", "text/xml"),
        (Version.SOAP_1_2, f"{{{soap.SOAP_1_2}}}Envelope", "application/soap+xml"),
        (Version.OTHER, f"{{{soap.SOAP_1_1}}}Envelope", "text/xml"),
    ],
)
def test_the_answer_is_enveloped_as_its_notification_was(version: Version, root: str, media: str) -> None:
    answer = accepted(replace(READ, version=version))
    assert etree.fromstring(answer.body).tag == root
    assert answer.content_type == f"{media}; charset=utf-8"
    assert fields(answer)["responseCode"] == "200"


def test_an_own_message_id_is_the_same_for_a_repeat_and_another_for_another_notification() -> None:
    first, again, other = (
        fields(accepted(found, own_id=True))["messageId"] for found in (READ, READ, replace(READ, id="x"))
    )
    assert first == again != other
    assert first is not None
    assert len(first) == 36
    assert first not in {READ.id, READ.message_id}


@pytest.mark.parametrize("message_id", ["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "<a> & b", "one\rtwo"])
def test_a_message_id_that_fits_is_repeated_as_it_is(message_id: str) -> None:
    assert fields(accepted(replace(READ, message_id=message_id)))["messageId"] == message_id


@pytest.mark.parametrize("message_id", [None, "", "  ", "x" * 37])
def test_a_message_id_that_cannot_be_repeated_is_replaced(message_id: str | None) -> None:
    assert fields(accepted(replace(READ, message_id=message_id)))["messageId"] == fields(
        accepted(READ, own_id=True)
    ).get("messageId")


@pytest.mark.parametrize("buyer", [None, "x" * 37])
def test_our_own_buyer_identifier_stands_in(buyer: str | None) -> None:
    assert fields(accepted(replace(READ, buyer=buyer)))["buyerIdentifier"] == "OURS"


@given(xml_text, xml_text, st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])))
def test_any_answer_is_valid_and_its_time_within_25_characters(message_id: str, buyer: str, at: datetime) -> None:
    if at < datetime(2, 1, 1, tzinfo=UTC) or at > datetime(9998, 1, 1, tzinfo=UTC):
        at = NOW
    found = fields(accepted(replace(READ, message_id=message_id, buyer=buyer or None), at=at))
    assert len(found["sentAt"] or "") == 24


# -- refusals


@pytest.mark.parametrize("version", list(Version))
def test_a_refusal_is_a_soap_fault_that_blames_the_sender(version: Version) -> None:
    answer = refused(Refusal("foreign-buyer", "buyerIdentifier is <not> ours & so on", version))
    media = "application/soap+xml" if version is Version.SOAP_1_2 else "text/xml"
    assert answer.content_type == f"{media}; charset=utf-8"
    message = soap.unwrap(admit(answer.body, charset=charset(answer.content_type)))
    assert message.fault is not None
    assert message.fault.blame is Blame.CLIENT
    assert message.fault.text == "foreign-buyer: buyerIdentifier is <not> ours & so on"
    assert message.version is (Version.SOAP_1_2 if version is Version.SOAP_1_2 else Version.SOAP_1_1)


def test_a_fault_is_valid_against_the_envelopes_schema() -> None:
    judge = etree.XMLSchema(etree.parse(catalogue.schema_root() / "xsd" / "soap" / "envelope.xsd"))
    root = etree.fromstring(refused(Refusal("malformed", "line 1")).body)
    assert judge.validate(root), judge.error_log


# -- the declaration


def test_an_answer_with_a_required_field_nobody_fills_stops_the_start() -> None:
    with pytest.raises(Stop) as stop:
        compile_answer(KNOWN.xsd, "resolveResponse")
    assert stop.value.problems == ("resolveResponse.buyerFaultReference: required, and nothing fills it",)
