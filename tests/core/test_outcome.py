"""What a reply means: the table of outcomes, and the ways in which answers stray from the contract."""

import gzip
import itertools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.command import (
    Accepted,
    By,
    Forbidden,
    Misdirected,
    Rejected,
    Unavailable,
    Unclear,
    Verdict,
)
from adapter.core.document import DEFAULT_LIMITS
from adapter.core.operation import Replies
from adapter.core.outcome import Judge, retry_after
from adapter.core.soap import SOAP_1_1, SOAP_1_2
from tests.support.known import known

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HEADER = (
    "<apiVersion>1.0</apiVersion><buyerIdentifier>SPDEV1</buyerIdentifier>"
    "<sentAt>2026-01-31T12:00:00.0001Z</sentAt><messageId>m-1</messageId>"
)
ADD, AMEND, NEWS = "AddFaultReport", "AmendFaultReport", "RequestFaultReportUpdate"
QUERY, RESERVE = "QueryAppointmentAvailability", "ReserveAppointment"


def verdict(body: str | bytes, *, status: int = 200, operation: str = ADD, **more: Any) -> Verdict:
    """Without the text of an unclear one, which `told` gives."""
    found = judged(body, status=status, operation=operation, **more)
    return Unclear(found.reason) if isinstance(found, Unclear) else found


def judged(body: str | bytes, *, status: int = 200, operation: str = ADD, **more: Any) -> Verdict:
    entry = known().operations[operation]
    judge = Judge(
        replies=more.pop("replies", known().supplier.replies),
        accepted_codes=frozenset({200, 201, 202}),
        limits=DEFAULT_LIMITS,
    )
    return judge.verdict(
        status=status,
        headers={"content-type": "text/xml; charset=utf-8"} | more.pop("headers", {}),
        body=body if isinstance(body, bytes) else body.encode(),
        operation=entry.operation,
        reader=entry.reader,
        reference=more.pop("reference", None),
        now=NOW,
        **more,
    )


def test_which_fields_and_words_say_yes_or_no_is_the_suppliers_own() -> None:
    reader = known().operations[ADD].reader
    own = Replies(
        reference="messageId",
        code="responseCode",
        status="apiVersion",
        text="buyerIdentifier",
        taken=frozenset({"takenup"}),
        refused="not",
    )

    def said(status: str) -> Verdict:
        body = (
            f"<{reader.element}><apiVersion>{status}</apiVersion><buyerIdentifier>no such line</buyerIdentifier>"
            f"<messageId>SP-1</messageId></{reader.element}>"
        )
        return judged(body, replies=own, reference="SP-1")

    assert isinstance(said("Taken-up"), Accepted)
    assert said("Not taken") == rejected("rejected", "no such line")
    assert isinstance(said("Pending"), Unclear)
    assert isinstance(
        judged(f"<{reader.element}><messageId>SP-2</messageId></{reader.element}>", replies=own, reference="SP-1"),
        Unclear,
    )


def answer(inner: str, *, operation: str = ADD) -> str:
    name = known().operations[operation].reader.element
    return f"<{name}>{HEADER}{inner}</{name}>"


def enveloped(inner: str, namespace: str = SOAP_1_1) -> str:
    return f'<e:Envelope xmlns:e="{namespace}"><e:Header/><e:Body>{inner}</e:Body></e:Envelope>'


def rejected(code: str, text: str | None = None, *aside: tuple[str, str]) -> Rejected:
    return Rejected(By.SUPPLIER, code, text, aside=aside)


UNCLEAR = Unclear("unclear-answer")
TAKEN = answer("<status>Pending</status><responseCode>200</responseCode>")
REFUSED = answer("<status>Rejected</status><responseCode>404</responseCode><errorMessage>no such</errorMessage>")


@pytest.mark.parametrize(
    "body",
    [
        TAKEN,
        enveloped(TAKEN),
        enveloped(TAKEN, SOAP_1_2),
        f'<Envelope xmlns="{SOAP_1_1}"><Body><!-- x -->{TAKEN}<?p?></Body></Envelope>',
        '<q:receivedAddFaultReport xmlns:q="urn:q"><q:responseCode> 201\n</q:responseCode></q:receivedAddFaultReport>',
        TAKEN.replace("receivedAdd", "ReceivedAdd"),
        answer("<responseCode><![CDATA[202]]></responseCode><status/><more>of it</more>"),
        answer("<responseCode>200</responseCode><status>Logged</status><errorMessage>none</errorMessage>"),
        answer("<status>PENDING</status>"),
        answer("<status> accepted </status><responseCode/>"),
        answer("<status>Accepted.</status>"),
        answer("<status> </status>"),
        answer(""),  # the page of an operation has no code
        answer("<ticket>T-1</ticket>"),
    ],
)
def test_a_yes_in_any_form_is_a_yes(body: str) -> None:
    assert isinstance(verdict(body), Accepted)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("<status>Rejected</status>", rejected("rejected")),
        ("<status>REJECTED: unknown service</status>", rejected("rejected")),
        ("<status lang='en'>Rejected</status>", rejected("rejected", None, ("status.@lang", "en"))),
        (
            "<status>Rejected</status><responseCode>E-4</responseCode>",
            rejected("rejected", None, ("responseCode", "E-4")),
        ),
        ("<status>Rejected</status><responseCode>200</responseCode>", rejected("rejected")),
        ("<status>Rejected</status><responseCode>500</responseCode>", rejected("500")),
        ("<responseCode>404</responseCode><errorMessage>no <b>such</b></errorMessage>", rejected("404", "no such")),
        ("<responseCode>1001</responseCode>", rejected("1001")),
    ],
)
def test_a_no_under_a_good_status_is_a_no(inner: str, expected: Rejected) -> None:
    assert verdict(answer(inner)) == expected


@pytest.mark.parametrize(
    "inner",
    [
        "<status>Pending</status><responseCode>400</responseCode>",
        "<responseCode>200</responseCode><responseCode>400</responseCode>",
        "<responseCode>400</responseCode><responseCode>200</responseCode>",
        "<status>Rejected</status><status>Pending</status>",
        "<responseCode>E-400</responseCode>",
        "<status>Pending</status><responseCode>E-400</responseCode>",
        "<responseCode><code>400</code><text>no such</text></responseCode>",
        "<status>Pending</status><responseCode><code>E-400</code></responseCode>",
        "<responseCode>200</responseCode><responseCode><code>400</code></responseCode>",
        "<status>Pending</status><status><name>Rejected</name></status>",
        "<responseCode>500</responseCode>",  # like a fault of the server: what it had done by then is open
        "<responseCode>408</responseCode>",  # likewise
        "<responseCode>0</responseCode>",  # what many say for: no error
        "<responseCode>204</responseCode>",  # a yes, of which nobody has told us
        "<status>Failed</status>",
        "<errorMessage>no such service</errorMessage>",
        "<errorCode>7</errorCode>",
        "<error>7</error>",
        "<faultString>no such</faultString>",
        "<reason>no such</reason>",
        "<result>7</result>",
        "<rejected>true</rejected>",
        "<accepted>false</accepted>",
        "<success>false</success>",
        "<outcome>7</outcome>",
        "<failure>true</failure>",
        "<ResponseCode>400</ResponseCode>",
        "<return><status>Rejected</status></return>",
        # Where notifications have their status.
        "<faultDetails><status>Rejected</status></faultDetails><responseCode>200</responseCode>",
        "<status>Pending</status><faultDetails><status>Rejected</status></faultDetails>",
        "<responseCode>200</responseCode><Status>Rejected</Status>",
        "<fault><faultcode>400</faultcode><faultmessage>no such</faultmessage></fault>",
        "<![CDATA[<status>Rejected</status>]]>",
    ],
)
def test_what_may_be_either_is_unclear(inner: str) -> None:
    assert verdict(answer(inner)) == UNCLEAR


@pytest.mark.parametrize("inner", ["", "<ticket>T-1</ticket>"])
def test_an_answer_in_which_nothing_could_be_read_is_unclear(inner: str) -> None:
    assert verdict(f"<receivedAddFaultReport>{inner}</receivedAddFaultReport>") == UNCLEAR


@pytest.mark.parametrize(("named", "other"), [("SP-2", True), (" Sp-1\n", False), ("", False), (" ", False)])
@pytest.mark.parametrize("code", [200, 400])
def test_an_answer_that_names_another_ticket_is_none_to_this_request(named: str, code: int, *, other: bool) -> None:
    body = answer(f"<buyerFaultReference>{named}</buyerFaultReference><responseCode>{code}</responseCode>")
    clear = verdict(body)
    assert isinstance(clear, Accepted if code == 200 else Rejected)
    assert verdict(body, reference="sP-1") == (Unclear("other-reference") if other else clear)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"", Unclear("unreadable-empty")),
        (202, b"", Unclear("unreadable-empty")),
        (204, b"", Unclear("unreadable-empty")),
        (200, b"<html/>", Unclear("unexpected-body")),
        (200, enveloped(""), Unclear("unexpected-body")),
        (200, enveloped(TAKEN + TAKEN), Unclear("unexpected-body")),
        (200, enveloped(f"<addFaultReportResponse>{TAKEN}</addFaultReportResponse>"), Unclear("unexpected-body")),
        (400, TAKEN, Unclear("http-400")),
        (400, answer("<status>Pending</status>"), Unclear("http-400")),
        (400, answer("<status>Rejected</status><responseCode>200</responseCode>"), rejected("rejected")),
        (400, REFUSED, rejected("404", "no such")),
        (
            400,
            answer("<responseCode>E-4</responseCode><errorMessage>no</errorMessage>"),
            rejected("400", "no", ("responseCode", "E-4")),
        ),
        (400, "<error><responseCode>7</responseCode></error>", rejected("7")),
        (200, "<error><responseCode>200</responseCode></error>", Unclear("unexpected-body")),
        (422, "<error><responseCode>7</responseCode></error>", Unclear("http-422")),
        (400, b"<html/>", Unclear("http-400")),
        (422, REFUSED, rejected("404", "no such")),
        (404, b"<html/>", Misdirected("http-404")),
        (404, enveloped("<e:Fault><faultcode>e:Client</faultcode></e:Fault>"), Misdirected("http-404")),
        (404, enveloped(REFUSED), rejected("404", "no such")),  # who answers like this is there
        (404, TAKEN, Unclear("http-404")),
        (405, b"<html/>", Misdirected("http-405")),
        (410, b"<html/>", Misdirected("http-410")),
        (415, b"<html/>", Misdirected("http-415")),  # so would all others be
        (415, REFUSED, rejected("404", "no such")),
        (421, b"<html/>", Misdirected("http-421")),
        (501, b"<html/>", Misdirected("http-501")),
        (302, REFUSED, Misdirected("http-302")),
        (302, TAKEN, Unclear("http-302")),
        (401, REFUSED, Forbidden("http-401", "no such")),
        (401, TAKEN, Unclear("http-401")),
        (403, b"", Forbidden("http-403")),
        (403, b"<html/>", Forbidden("http-403")),
        (403, enveloped(""), Forbidden("http-403")),
        (403, answer("<errorMessage/>"), Forbidden("http-403")),
        (403, enveloped(TAKEN), Unclear("http-403")),
        (408, REFUSED, Unclear("http-408")),
        (429, b"", Unavailable("http-429", 7.0)),
        (429, TAKEN, Unclear("http-429")),
        (503, b"<html/>", Unavailable("http-503", 7.0)),
        (503, REFUSED, Unavailable("http-503", 7.0)),
        (503, answer(""), Unavailable("http-503", 7.0)),
        (503, TAKEN, Unclear("http-503")),
        (500, b"<html/>", Unclear("http-500")),
        (500, REFUSED, rejected("404", "no such")),
        (500, TAKEN, Unclear("http-500")),
        (500, answer("<responseCode>404</responseCode>"), rejected("404")),
        (500, answer("<responseCode>1001</responseCode>"), Unclear("http-500")),
        (500, answer("<responseCode>408</responseCode>"), Unclear("http-500")),
        (400, answer("<responseCode>0</responseCode>"), rejected("0")),
        (400, answer("<status>Pending</status><responseCode>0</responseCode>"), Unclear("http-400")),
        (400, answer("<responseCode>204</responseCode>"), Unclear("http-400")),
        (502, b"Bad Gateway", Unclear("http-502")),
    ],
)
def test_body_and_status_together(status: int, body: str | bytes, expected: Verdict) -> None:
    assert verdict(body, status=status, headers={"retry-after": "7"}) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (429, Unavailable("http-429", 7.0)),
        (503, Unavailable("http-503", 7.0)),
        (401, Forbidden("http-401")),
        (403, Forbidden("http-403")),
        (302, Misdirected("http-302")),
        (408, Unclear("http-408")),
        (200, Unclear("reset")),
        (202, Unclear("reset")),
        (400, Unclear("reset")),
        (404, Unclear("reset")),  # the operation's own answer may have been on its way
        (415, Unclear("reset")),
        (500, Unclear("reset")),
        (502, Unclear("reset")),
    ],
)
def test_under_a_reply_that_broke_off_only_a_status_that_needs_no_body_decides(status: int, expected: Verdict) -> None:
    broken = Unclear("reset")
    assert verdict(b"", status=status, headers={"retry-after": "7"}, broken=broken) == expected
    silent = verdict(b"", status=status, headers={"retry-after": "7"}, operation=NEWS, broken=broken)
    assert silent == expected


@pytest.mark.parametrize(
    ("status", "encoding", "body", "expected"),
    [
        (200, "gzip", gzip.compress(TAKEN.encode(), mtime=0), Unclear("unreadable-encoding")),
        (503, "gzip", gzip.compress(b"<html/>", mtime=0), Unavailable("http-503", None)),
        (500, "utf-8", REFUSED, rejected("404", "no such")),  # a charset in the wrong place
    ],
)
def test_a_body_that_is_encoded_cannot_be_read_and_one_that_only_says_so_can(
    status: int, encoding: str, body: str | bytes, expected: Verdict
) -> None:
    assert verdict(body, status=status, headers={"content-encoding": encoding}) == expected


def test_an_answer_with_bytes_that_are_not_the_utf_8_it_says_counts_all_the_same() -> None:
    yes = TAKEN.replace("<messageId>", "<note>\xa35</note><messageId>").encode("cp1252")
    for _ in range(2):  # it is learned as no form
        found = verdict(yes)
        assert isinstance(found, Accepted)
        assert found.deviations == 2  # the bytes, and the unknown element
    assert verdict(REFUSED.replace("no such", "no \xa3").encode("cp1252"), status=400) == rejected("404", "no \xa3")


def test_the_charset_of_the_header_counts() -> None:
    yes = TAKEN.replace("<messageId>", "<note>\xa35</note><messageId>").encode("latin-1")
    found = verdict(yes, headers={"content-type": "text/xml; charset=iso-8859-1"})
    assert isinstance(found, Accepted)
    assert (found.deviations, found.aside) == (1, (("note", "\xa35"),))


def test_an_answer_of_a_known_form_strays_as_it_did_the_first_time() -> None:
    strays = answer("<status when='now'>Pending</status>")
    first, again = verdict(strays), verdict(strays)
    assert isinstance(first, Accepted)
    assert (first.aside, first) == ((("status.@when", "now"),), again)
    elsewhere = "<oops><responseCode>7</responseCode></oops>"
    assert verdict(elsewhere, status=400) == rejected("7")
    assert verdict(elsewhere) == Unclear("unexpected-body")


CLIENT = "<e:Fault><faultcode>e:Client</faultcode><faultstring>no</faultstring></e:Fault>"
SERVER = "<e:Fault><faultcode>e:Server.Busy</faultcode><faultstring>down</faultstring></e:Fault>"
OTHER = "<fault><faultcode>F-9</faultcode><faultmessage>no</faultmessage><detail>of <b>it</b></detail></fault>"


@pytest.mark.parametrize(
    ("status", "inner", "expected"),
    [
        (200, CLIENT, rejected("Client", "no")),
        (500, CLIENT, rejected("Client", "no")),
        (500, SERVER, Unclear("fault-server")),
        (400, SERVER, Unclear("fault-server")),
        (400, OTHER, rejected("F-9", "no; of it")),
        (500, OTHER, Unclear("fault")),
        (403, OTHER, Forbidden("http-403", "F-9; no; of it")),
        (500, CLIENT.replace("e:Client", "e:Client.No-Such_Service.12"), rejected("Client.No-Such_Service.12", "no")),
        (500, CLIENT.replace("e:Client", "Client Joe, 0771 2"), rejected("fault", "Client Joe, 0771 2; no")),
        (500, CLIENT.replace("e:Client", f"Client.{'x' * 100}"), rejected("fault", f"Client.{'x' * 100}; no")),
        (400, CLIENT.replace("e:Client", ""), rejected("fault", "no")),
        (200, CLIENT + TAKEN, Unclear("unexpected-body")),
        (200, TAKEN + CLIENT, Unclear("unexpected-body")),
    ],
)
def test_faults(status: int, inner: str, expected: Verdict) -> None:
    assert verdict(enveloped(inner), status=status) == expected


@pytest.mark.parametrize(
    ("status", "body", "reason", "text"),
    [
        (500, enveloped(OTHER), "fault", "F-9; no; of it"),
        (500, enveloped(SERVER), "fault-server", "Server.Busy; down"),
        (500, enveloped("<e:Fault/>"), "fault", None),
        (200, enveloped(CLIENT + TAKEN), "unexpected-body", "Client; no; and more elements: 1"),
        (200, "<done><status>Pending</status></done>", "unexpected-body", "done: Pending"),
        (502, "<html><h1>502 Bad\nGateway</h1></html>", "http-502", "html: 502 Bad Gateway"),
        (200, enveloped(""), "unexpected-body", None),
        (200, enveloped(" Out of\n order"), "unexpected-body", "Out of order"),
        (200, "<html>", "unreadable-malformed", "not well-formed, line 1 column 7"),
        (502, "Bad Gateway", "http-502", None),
        (200, answer("<status>Failed</status>"), "unclear-answer", "status: Failed"),
        (200, answer("<errorCode>7</errorCode>"), "unclear-answer", "errorCode: 7"),
        (200, answer("<status/><responseCode>0</responseCode>"), "unclear-answer", "responseCode: 0"),
        (
            200,
            answer("<responseCode>500</responseCode><errorMessage><c>7</c><d>down</d></errorMessage>"),
            "unclear-answer",
            "responseCode: 500; errorMessage: 7 down",
        ),
        (400, TAKEN, "http-400", "status: Pending; responseCode: 200"),
        (500, TAKEN, "http-500", "status: Pending; responseCode: 200"),
        (
            200,
            answer("<buyerFaultReference>SP-2</buyerFaultReference><status>Pending</status>"),
            "other-reference",
            "buyerFaultReference: SP-2; status: Pending",
        ),
        (408, REFUSED, "http-408", None),
    ],
)
def test_of_an_unclear_answer_it_is_told_what_it_says(status: int, body: str, reason: str, text: str | None) -> None:
    assert judged(body, status=status, reference="SP-1") == Unclear(reason, text)


def test_of_a_long_one_the_beginning() -> None:
    found = judged(f"<html>{'x' * 2000}</html>")
    assert isinstance(found, Unclear)
    assert found.text == f"html: {'x' * 994}"


def test_an_operation_whose_page_has_no_code_says_yes_with_its_answer_alone() -> None:
    assert isinstance(verdict(answer("", operation=AMEND), operation=AMEND), Accepted)


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize("body", ["", " \n", enveloped(""), "<receivedRequestFaultReportUpdate/>"])
def test_nothing_at_all_is_a_yes_where_no_answer_is_documented(body: str, status: int) -> None:
    assert isinstance(verdict(body, status=status, operation=NEWS), Accepted)
    assert isinstance(verdict(body.replace(NEWS, AMEND), status=status, operation=AMEND), Unclear)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html/>"),
        (200, "<html>"),
        (200, "done"),
        (200, enveloped(answer("", operation=NEWS) * 2)),
        (200, enveloped(CLIENT + answer("", operation=NEWS))),
        (200, enveloped("Out of order")),
        (200, f'<e:Envelope xmlns:e="{SOAP_1_1}">{CLIENT}</e:Envelope>'),
        (200, "<receivedRequestFaultReportUpdate><status>Failed</status></receivedRequestFaultReportUpdate>"),
        (500, ""),
        (502, enveloped("")),
    ],
)
def test_and_something_else_is_not(status: int, body: str) -> None:
    assert isinstance(verdict(body, status=status, operation=NEWS), Unclear)


def test_the_ticket_itself_may_be_the_answer_to_who_asks_about_it() -> None:
    report = "<responseCode>200</responseCode><faultDetails><status>Rejected</status></faultDetails>"
    assert isinstance(verdict(answer(report, operation=NEWS), operation=NEWS), Accepted)


def test_a_status_on_a_page_that_has_none_is_heard_all_the_same() -> None:
    def said(inner: str) -> Verdict:
        return verdict(answer(inner, operation=AMEND), operation=AMEND)

    assert isinstance(said("<status>Accepted</status>"), Accepted)
    assert isinstance(said("<status>Amended</status><responseCode>200</responseCode>"), Accepted)
    no = rejected("rejected", None, ("status", "Rejected"))
    assert said("<status>Rejected</status><responseCode>200</responseCode>") == no
    assert said("<status>Failed</status>") == UNCLEAR


def test_places_that_stray_are_counted() -> None:
    found = verdict(
        answer("<responseCode>200</responseCode><more/><sentAt>now</sentAt>", operation=AMEND), operation=AMEND
    )
    assert isinstance(found, Accepted)
    assert found.deviations == 2


@pytest.mark.parametrize(
    ("inner", "aside"),
    [
        ("", ()),
        ("<reservationKey>CAMS-4711</reservationKey>", (("reservationKey", "CAMS-4711"),)),
        ("<slot a='1'><key>C-1</key></slot>", (("slot.key", "C-1"), ("slot.@a", "1"))),
        ("<sentAt>now</sentAt>of it", (("sentAt", "now"), ("", "of it"))),
    ],
)
def test_what_no_field_was_found_for_is_kept_beside_the_reply(inner: str, aside: tuple[tuple[str, str], ...]) -> None:
    name = known().operations[RESERVE].reader.element
    found = verdict(f"<{name}><responseCode>200</responseCode>{inner}</{name}>", operation=RESERVE)
    assert isinstance(found, Accepted)
    assert found.aside == aside


def test_and_beside_a_refusal() -> None:
    inner = "<responseCode>404</responseCode><advice>use ONT 2</advice>"
    for status in (200, 400):
        assert verdict(answer(inner), status=status) == rejected("404", None, ("advice", "use ONT 2"))


SLOT = "<appointmentSlot><appointmentDate>2026-02-02</appointmentDate></appointmentSlot>"


@pytest.mark.parametrize(
    ("inner", "clear"),
    [
        ("", True),
        ("<appointmentSlots/>", True),
        ("<seller><name>CityFibre</name></seller><advice>none this week</advice>", True),
        (f"<appointmentSlots>{SLOT}<slot><day>2026-02-03</day></slot></appointmentSlots>", True),
        ("<appointmentSlots><slot><day>2026-02-02</day></slot></appointmentSlots>", False),
        ("<appointmentSlots>2026-02-02 08:00</appointmentSlots>", False),
        ("<appointmentSlots>2026-02-02 08:00</appointmentSlots><advice>call us</advice>", False),
        ("<appointmentSlots><appointmentSlot><day>2026-02-02</day></appointmentSlot></appointmentSlots>", False),
        ("<availableAppointments><appointment><date>2026-02-02</date></appointment></availableAppointments>", False),
    ],
)
def test_an_answer_whose_slots_could_not_be_read_is_not_one_without_slots(inner: str, *, clear: bool) -> None:
    name = known().operations[QUERY].reader.element
    body = f"<{name}><addressKey>K-1</addressKey><responseCode>200</responseCode>{inner}</{name}>"
    found = verdict(body, operation=QUERY)
    assert isinstance(found, Accepted) if clear else found == UNCLEAR


def test_an_empty_slot_is_none() -> None:
    inner = "<responseCode>200</responseCode><appointmentSlots><appointmentSlot/></appointmentSlots>"
    body = answer(inner, operation=QUERY)
    found = verdict(body, operation=QUERY)
    assert isinstance(found, Accepted)
    assert found.reply is not None
    assert found.reply["appointmentSlots"] == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        (" 0 ", 0.0),
        ("999999999", 3600.0),
        ("9" * 400, 3600.0),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30.0),
        ("Saturday, 31-Jan-26 12:00:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Sun, 06 Nov 9999 08:49:37 GMT", 3600.0),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("soon", None),
        ("Sat, 31 Jan 2026 12:00:30 +99999999999999999999", None),
        (None, None),
    ],
)
def test_what_retry_after_asks_for(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize("ahead", [timedelta(days=1), -timedelta(days=1)], ids=["ahead", "behind"])
def test_a_date_in_retry_after_is_told_by_the_suppliers_clock(ahead: timedelta) -> None:
    said = {
        "date": format_datetime(NOW + ahead, usegmt=True),
        "retry-after": format_datetime(NOW + ahead + timedelta(seconds=30), usegmt=True),
    }
    assert verdict(b"", status=503, headers=said) == Unavailable("http-503", 30.0)


def test_an_answer_whose_own_date_is_garbage_is_taken_to_be_of_now() -> None:
    said = {"date": "soon", "retry-after": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}
    assert verdict(b"", status=503, headers=said) == Unavailable("http-503", 30.0)


@given(st.text(max_size=40) | st.datetimes(timezones=st.just(UTC)).map(lambda at: format_datetime(at, usegmt=True)))
def test_any_retry_after_is_a_bearable_wait_or_none(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or 0.0 <= seconds <= 3600.0


STATUSES = (200, 202, 204, 302, 400, 401, 404, 408, 409, 422, 429, 500, 502, 503)
PIECES = ("", "<status>Pending</status>", "<status>Rejected</status>", "<status>Odd</status>")
CODES = ("", "<responseCode>200</responseCode>", "<responseCode>404</responseCode>", "<responseCode>x</responseCode>")


@pytest.mark.parametrize("said", ["The SSL certificate error", "No required SSL certificate was sent"])
def test_the_page_by_which_nginx_refuses_our_certificate_is_no_answer_to_the_request(said: str) -> None:
    page = (
        f"<html>\r\n<head><title>400 {said}</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n"
        f"<center>{said}</center>\r\n<hr><center>nginx/1.27.0</center>\r\n</body>\r\n</html>\r\n"
    )
    # Whatever the command, and whomever another gateway of theirs lets in meanwhile: it is about none of them.
    assert verdict(page, status=400) == Misdirected("client-certificate", said)
    assert verdict(page, status=500) == Unclear("http-500")
    assert verdict(page.replace(said, "Bad Request"), status=400) == Unclear("http-400")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (  # nginx
            "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n<body>\r\n",
            "The plain HTTP request was sent to HTTPS port",
        ),
        (  # Apache httpd
            "<h1>Bad Request</h1>\nReason: You're speaking plain HTTP to an SSL-enabled server port.<br />\n",
            "You're speaking plain HTTP to an SSL-enabled server port",
        ),
        # whatever is written in Go
        ("Client sent an HTTP request to an HTTPS server.\n", "Client sent an HTTP request to an HTTPS server"),
    ],
)
def test_who_wants_tls_and_gets_plain_text_has_handed_the_request_to_nobody(page: str, said: str) -> None:
    assert verdict(page, status=400) == Misdirected("plain-http", said)
    assert verdict(page, status=500) == Unclear("http-500")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("connection termination", Unclear("http-503", "connection termination")),
        ("remote reset", Unclear("http-503", "remote reset")),
        ("local reset", Unclear("http-503", "local reset")),
        ("protocol error", Unclear("http-503", "protocol error")),
        ("HTTP/1 premature upstream half close", Unclear("http-503", "HTTP/1 premature upstream half close")),
        ("remote refused stream reset", Unavailable("http-503")),
        ("connection failure", Unavailable("http-503")),
        ("remote connection failure, transport failure reason: delayed connect error: 111", Unavailable("http-503")),
        ("overflow", Unavailable("http-503")),
    ],
)
def test_a_gateway_that_lost_who_had_the_request_leaves_its_outcome_open(reason: str, expected: Verdict) -> None:
    for words in ("reset reason", "retried and the latest reset reason"):
        page = f"upstream connect error or disconnect/reset before headers. {words}: {reason}"
        assert judged(page, status=503) == expected
    assert verdict("upstream connect error or disconnect/reset before headers", status=503) == Unavailable("http-503")


def test_a_cache_that_does_not_say_whether_anybody_had_the_request_leaves_its_outcome_open() -> None:
    # As Varnish 7.1 says it of a supplier it did not reach, and of one that had the request and hung up.
    page = (
        "<!DOCTYPE html>\n<html>\n  <head>\n    <title>503 {said}</title>\n  </head>\n  <body>\n"
        "    <h1>Error 503 {said}</h1>\n    <p>{said}</p>\n    <h3>Guru Meditation:</h3>\n    <p>XID: 36</p>\n"
        "    <hr>\n    <p>Varnish cache server</p>\n  </body>\n</html>\n"
    )
    headers = {"retry-after": "5"}
    failed = judged(page.format(said="Backend fetch failed"), status=503, headers=headers)
    assert failed == Unclear("http-503", "Backend fetch failed")
    its_own = judged(page.format(said="Service Unavailable"), status=503, headers=headers)
    assert its_own == Unavailable("http-503", 5.0)


def test_never_a_yes_under_a_bad_status_or_with_a_no_in_the_body() -> None:
    for status, word, code in itertools.product(STATUSES, PIECES, CODES):
        found = verdict(answer(word + code), status=status)
        if isinstance(found, Accepted):
            assert 200 <= status < 300
            assert "Rejected" not in word
            assert "404" not in code
