"""What the twin has against an answer to its notification."""

from pathlib import Path

import pytest
from lxml import etree

from adapter.core import soap
from adapter.twin.judge import Asked, Judge, asked_by
from tests.twin.receiver import GOOD

ROOT = Path(__file__).parents[2]
JUDGE = Judge(etree.XMLSchema(etree.parse(ROOT / "schemas" / "xsd" / "cityfibre" / "faultReport.xsd")))
NOTIFICATION = ROOT / "tests" / "golden" / "cityfibre" / "notifications" / "appointment-cancelled"
ANSWER = GOOD.format(buyer="SPDEV1", id="CF-00003")
ASKED = Asked(soap.Version.NONE, "CF-00003", "SPDEV1")


def wrapped(inner: str, namespace: str = soap.SOAP_1_1) -> str:
    return f'<e:Envelope xmlns:e="{namespace}"><e:Body>{inner}</e:Body></e:Envelope>'


def problems(body: str | bytes, *, status: int = 200, media: str = "text/xml", asked: Asked = ASKED) -> tuple[str, ...]:
    return JUDGE.problems(status, media, body.encode() if isinstance(body, str) else body, asked)


def test_an_answer_after_the_contract_has_no_problem() -> None:
    assert problems(ANSWER) == ()
    assert problems(wrapped(ANSWER), asked=Asked(soap.Version.SOAP_1_1, "CF-00003", "SPDEV1")) == ()
    assert problems(ANSWER.encode("utf-16"), media="text/xml; charset=utf-16") == ()


def test_the_published_answer_mended_has_only_another_message_id() -> None:
    asked = asked_by((NOTIFICATION / "notification.xml").read_bytes(), "text/xml")
    assert asked == ASKED
    answer = (NOTIFICATION / "acknowledgement.xml").read_bytes()
    assert problems(answer, asked=asked) == ("messageId: not the notification's",)
    assert problems(answer.replace(b"/receivedNotify", b"/receivedRequest"), asked=asked) == (
        "not a document: malformed",
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("", "not a document: empty"),
        ("<!DOCTYPE x><x/>", "not a document: doctype"),
        ("<html/>", "the body element is not receivedNotifyFaultReportUpdate"),
        (wrapped(ANSWER), "envelope: 1.1 instead of none"),
        (
            wrapped("<e:Fault><faultcode>e:Client</faultcode><faultstring>x</faultstring></e:Fault>"),
            "a fault instead of an acknowledgement",
        ),
        (wrapped(ANSWER + ANSWER), "more than one element in the body"),
        (ANSWER.replace("12:00:00.000Z", "12:00:00.0000+01:00"), "sentAt: longer than 25 characters"),
        (ANSWER.replace(">200<", ">500<"), "responseCode: not 200"),
        (ANSWER.replace(">CF-00003<", ">CF-00004<"), "messageId: not the notification's"),
        (ANSWER.replace(">SPDEV1<", ">SPDEV2<"), "buyerIdentifier: not the notification's"),
        (ANSWER.replace("<apiVersion>1.0</apiVersion>", ""), "not valid by the schema at"),
    ],
)
def test_each_thing_wrong_is_told(body: str, told: str) -> None:
    assert any(problem.startswith(told) for problem in problems(body))


def test_status_and_media_type_are_looked_at_too() -> None:
    assert problems(ANSWER, status=202, media="text/plain") == (
        "HTTP status 202 instead of 200",
        "Content-Type: not XML but text/plain",
    )


def test_of_what_can_not_be_read_any_answer_is_asked_for() -> None:
    assert asked_by(b"<no") == Asked()
