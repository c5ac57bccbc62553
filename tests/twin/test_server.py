"""The twin over real sockets: its answers, what each fault looks like from outside, and the call log."""

import asyncio
import gc
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from lxml import etree

from adapter.core import soap
from adapter.core.errors import Stop
from adapter.twin import Fault, Kind, Notify, Rules, Status, TlsFiles, Twin, TwinSettings
from adapter.twin.calls import overlaps, read, repeats
from tests.support.certificates import trials
from tests.support.wait import PATIENCE, eventually
from tests.support.xsd import judge
from tests.twin.caller import ENVELOPE, addition, post, ticket

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "cityfibre"
SOAP = "{http://schemas.xmlsoap.org/soap/envelope/}"
BEFORE, AFTER = ENVELOPE.split("{}")


@pytest.fixture
async def twin() -> AsyncIterator[Twin]:
    async with Twin() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def value(body: bytes, name: str) -> str | None:
    return next((e.text for e in etree.fromstring(body).iter() if etree.QName(e).localname == name), None)


SOAP_JUDGE = etree.XMLSchema(etree.parse(ROOT / "schemas" / "xsd" / "soap" / "envelope.xsd"))


def assert_valid(body: bytes) -> None:
    """The envelope, if any, and what is in it hold to the XSDs."""
    root = etree.fromstring(body)
    element = root
    if root.tag == f"{SOAP}Envelope":
        SOAP_JUDGE.assertValid(root)
        element = etree.fromstring(etree.tostring(root[0][0]))
    if element.tag != f"{SOAP}Fault":
        judge(str(element.tag)).assertValid(element)


GOLDEN_REQUESTS = {
    f"{path.parent.parent.name}-{path.parent.name}": path.read_text(encoding="utf-8")
    for path in sorted(GOLDEN.glob("*/*/request.xml"))
}


ENVELOPE_1_2 = ENVELOPE.replace(soap.SOAP_1_1, soap.SOAP_1_2)


@pytest.mark.parametrize(
    ("envelope", "version", "media"),
    [
        (ENVELOPE, soap.Version.SOAP_1_1, "text/xml"),
        (ENVELOPE_1_2, soap.Version.SOAP_1_2, "application/soap+xml"),
        ("{}", soap.Version.NONE, "text/xml"),
    ],
    ids=["1.1", "1.2", "bare"],
)
async def test_every_answer_comes_in_the_form_of_its_request(
    envelope: str, version: soap.Version, media: str, http: aiohttp.ClientSession
) -> None:
    add, amend = addition(), ticket("amendFaultReport", "REF", reference="SP-9")
    statuses = []
    async with Twin(TwinSettings(buyer="SPDEV1")) as twin:
        for operation, text, fault in (
            ("addFaultReport", add, None),
            ("addFaultReport", add, None),  # rejected, since it is there already
            ("amendFaultReport", amend, None),
            ("addFaultReport", add.replace("SPDEV1", "OTHER"), None),
            ("addFaultReport", amend, None),
            ("addFaultReport", add, Fault(Kind.EXTRA_ELEMENT)),
            ("addFaultReport", add, Fault(Kind.STATUS, status=401)),
            ("addFaultReport", add, Fault(Kind.FAULT_BLOCK)),
        ):
            twin.inject(*([fault] if fault else []))
            body = envelope.format(text.removeprefix(BEFORE).removesuffix(AFTER))
            async with http.post(f"{twin.url}/{operation}", data=body) as response:
                statuses.append(response.status)
                answered = soap.unwrap(etree.fromstring(await response.read()))
                assert (answered.version, response.content_type) == (version, media), (operation, fault)
    assert statuses == [200, 200, 400, 403, 400, 200, 401, 500]


@pytest.mark.parametrize(
    ("envelope", "version", "codes"),
    [
        (ENVELOPE, soap.Version.SOAP_1_1, ("Server", "Client")),
        (ENVELOPE_1_2, soap.Version.SOAP_1_2, ("Receiver", "Sender")),
        ("{}", soap.Version.SOAP_1_1, ("Server", "Client")),
    ],
    ids=["1.1", "1.2", "bare"],
)
async def test_a_soap_fault_is_one_of_the_requests_version(
    envelope: str, version: soap.Version, codes: tuple[str, str], twin: Twin, http: aiohttp.ClientSession
) -> None:
    twin.inject(Fault(Kind.SOAP_FAULT, text="a < b"), Fault(Kind.SOAP_FAULT, code="Client", text="a < b"))
    body = envelope.format(addition().removeprefix(BEFORE).removesuffix(AFTER))
    for code in codes:
        status, answer = await post(http, twin, "addFaultReport", body)
        root = etree.fromstring(answer)
        if version is soap.Version.SOAP_1_1:
            SOAP_JUDGE.assertValid(root)
        said = soap.unwrap(root)
        assert (status, said.version, said.fault) == (500, version, soap.Fault(code, "a < b", ""))


@pytest.mark.parametrize("enveloped", [True, False], ids=["envelope", "bare"])
@pytest.mark.parametrize("text", GOLDEN_REQUESTS.values(), ids=GOLDEN_REQUESTS.keys())
async def test_every_golden_request_is_understood_and_answered_by_the_schema(
    text: str, twin: Twin, http: aiohttp.ClientSession, *, enveloped: bool
) -> None:
    operation = etree.QName(etree.fromstring(text)).localname
    status, body = await post(http, twin, operation, ENVELOPE.format(text) if enveloped else text)
    assert status in (200, 400)
    assert_valid(body)
    assert (etree.fromstring(body).tag == f"{SOAP}Envelope") == enveloped
    assert b"not valid by the schema" not in body, "the request itself was found fault with"
    assert twin.calls[0].taken


async def test_a_ticket_from_report_to_close(twin: Twin, http: aiohttp.ClientSession) -> None:
    status, body = await post(http, twin, "addFaultReport", addition(message_id="m-7"))
    assert (status, value(body, "status"), value(body, "messageId")) == (200, "Pending", "m-7")
    assert len(value(body, "sentAt") or "") == 25
    amendment = ticket("amendFaultReport", "REF")
    assert (await post(http, twin, "amendFaultReport", amendment))[0] == 200
    maintainer = twin.put("SP-1", Status.RESOLVED).maintainer_reference
    known = f"<maintainerFaultReference>{maintainer}</maintainerFaultReference>REF"
    asked = await post(http, twin, "requestFaultReportUpdate", ticket("requestFaultReportUpdate", known))
    assert asked[0] == 200
    answer = ticket("resolveResponse", "<resolveAccepted>true</resolveAccepted>REF")
    status, body = await post(http, twin, "resolveResponse", answer)
    assert (status, value(body, "resolveAccepted")) == (200, "true")
    assert twin.tickets["SP-1"].status == Status.CLOSED
    status, body = await post(http, twin, "resolveResponse", answer)
    assert (status, value(body, "responseCode")) == (400, "409")
    assert [c.verdict for c in twin.calls] == ["accepted"] * 4 + ["refused"]
    assert [c.answered for c in twin.calls] == [200] * 4 + [400]
    assert_valid(body)


PARTIES = (
    "<message><messageId>m</messageId><correlationId>c-9</correlationId>"
    "<sentAt>2026-03-02T09:30:00.000Z</sentAt></message>"
    "<buyer><buyerIdentifier>SPDEV1</buyerIdentifier></buyer>"
    "<seller><sellerIdentifier>CITYFIBRE</sellerIdentifier></seller>"
)
CFH = 'xmlns:cfh="http://www.cityfibre.com/ala/ext1"'
KIND = "<appointmentType>Repair</appointmentType><cfh:productName>ftthl2r</cfh:productName>"


def query(first: str) -> str:
    return (
        f"<queryAppointmentAvailability {CFH}>{PARTIES}<addressKey>77</addressKey>"
        f"<appointmentsFrom>{first}</appointmentsFrom>{KIND}</queryAppointmentAvailability>"
    )


@pytest.mark.parametrize("first", ["12026-03-02", "-0001-03-02", "9999-12-31"])
async def test_dates_beyond_every_calendar_are_refused(first: str, twin: Twin, http: aiohttp.ClientSession) -> None:
    status, body = await post(http, twin, "queryAppointmentAvailability", query(first))
    assert (status, value(body, "description")) == (400, "appointmentsFrom is out of reach")


async def test_query_then_reserve_then_report_with_the_key(http: aiohttp.ClientSession) -> None:
    async with Twin(TwinSettings(rules=Rules(reserved_keys_only=True))) as twin:
        status, body = await post(http, twin, "queryAppointmentAvailability", query("2026-03-02"))
        assert (status, value(body, "correlationId")) == (200, "c-9")
        slot = next(e for e in etree.fromstring(body).iter() if e.tag == "appointmentSlot")
        reserve = (
            f"<reserveAppointment {CFH}>{PARTIES}{etree.tostring(slot, encoding='unicode')}{KIND}"
            "<cfh:addressKey>77</cfh:addressKey></reserveAppointment>"
        )
        status, body = await post(http, twin, "reserveAppointment", reserve)
        key = value(body, "appointmentReservationKey")
        assert (status, bool(key)) == (200, True)
        status, body = await post(http, twin, "reserveAppointment", reserve)
        assert (status, value(body, "responseCode")) == (400, "409")
        outage = addition(details="<type>Service Outage</type>", key=key or "")
        assert value((await post(http, twin, "addFaultReport", outage))[1], "status") == "Pending"
        assert [c.key for c in twin.calls] == ["77", "77", "77", "SP-1"]


async def test_bad_requests_are_refused_with_the_path_and_never_the_value(
    twin: Twin, http: aiohttp.ClientSession
) -> None:
    bad = addition(details="<type>Secret Trouble</type>")
    status, body = await post(http, twin, "addFaultReport", bad)
    assert (status, value(body, "status")) == (200, "Rejected")
    assert "faultDetails/type" in (value(body, "errorMessage") or "")
    assert b"Secret" not in body
    assert_valid(body)
    for operation, given, expected in (
        ("addFaultReport", b"", 400),
        ("addFaultReport", b"<addFaultReport>", 400),
        ("addFaultReport", b"<!DOCTYPE x><addFaultReport/>", 400),
        ("addFaultReport", ticket("amendFaultReport", "REF").encode(), 400),
        ("addFaultReport", ENVELOPE.format("").encode(), 400),
        ("noSuchOperation", b"<x/>", 404),
    ):
        assert (await post(http, twin, operation, given))[0] == expected, given
    async with http.get(f"{twin.url}/addFaultReport") as response:
        assert response.status == 405
    assert not twin.tickets


async def test_only_the_agreed_buyer_and_path_are_served(http: aiohttp.ClientSession) -> None:
    settings = TwinSettings(buyer="OTHER", base_path="/prod/api2", echo_message_id=False)
    async with Twin(settings) as twin:
        status, body = await post(http, twin, "addFaultReport", addition())
        assert (status, value(body, "faultcode")) == (403, "Client")
        assert_valid(body)
        bare = twin.url.removesuffix("/prod/api2")
        async with http.post(f"{bare}/addFaultReport", data=b"<x/>") as response:
            assert response.status == 404


async def test_own_message_ids_are_all_different(http: aiohttp.ClientSession) -> None:
    async with Twin(TwinSettings(echo_message_id=False)) as twin:
        bodies = [(await post(http, twin, "addFaultReport", addition(f"SP-{n}")))[1] for n in range(3)]
        assert len({value(body, "messageId") for body in bodies} - {"m-1"}) == 3


async def exchange(twin: Twin, body: str | None = None) -> bytes:
    """The bare bytes of one exchange, up to the end of the connection. ConnectionResetError passes through."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(twin.url.rsplit(":", 1)[1]))
    data = (body or addition()).encode()
    head = f"POST /addFaultReport HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    try:
        return await reader.read()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("kind", "looks"),
    [
        (Kind.DELAY, rb"HTTP/1.1 200 .*<status>Pending</status>"),
        (Kind.STATUS, rb"HTTP/1.1 503 .*<!DOCTYPE html>"),
        (Kind.REFUSE, rb"HTTP/1.1 200 .*<status>Rejected</status><responseCode>400<.*on demand"),
        (Kind.SOAP_FAULT, rb"HTTP/1.1 500 .*<soap:Fault><faultcode>soap:Server<"),
        (Kind.FAULT_BLOCK, rb"HTTP/1.1 500 .*<fault><faultcode>Server</faultcode><faultmessage>"),
        (Kind.CLOSE, rb"\Z"),
        (Kind.TRUNCATED, rb"HTTP/1.1 200 .*<apiVersion>(?!.*</receivedAddFaultReport>)"),
        (Kind.GARBAGE, rb"(?!HTTP)."),
        (Kind.MALFORMED, rb"HTTP/1.1 200 .*<apiVersion>(?!.*</receivedAddFaultReport>)"),
        (Kind.ENCODING, rb"HTTP/1.1 200 .*utf-8.*caf\xe9"),
        (Kind.DOCTYPE, rb"HTTP/1.1 200 .*<!DOCTYPE r \[<!ENTITY"),
        (Kind.HTML, rb"HTTP/1.1 200 .*<html>"),
        (Kind.EMPTY, rb"HTTP/1.1 200 (?!.*\r\n\r\n.)"),
        (Kind.OTHER_ELEMENT, rb"HTTP/1.1 200 .*<somethingElse>"),
        (Kind.EXTRA_ELEMENT, rb"HTTP/1.1 200 .*<status>Pending<.*<supplierNote>"),
        (Kind.TRICKLE, rb"HTTP/1.1 200 .*<status>Pending</status>"),
        (Kind.HUGE, rb"HTTP/1.1 200 .*<receivedAddFaultReport>   "),
    ],
)
async def test_what_a_fault_looks_like_from_outside(kind: Kind, looks: bytes, twin: Twin) -> None:
    fault = Fault(kind, size=300_000)
    twin.inject(fault)
    assert re.match(looks, await exchange(twin), re.DOTALL)
    await eventually(lambda: twin.calls[0].finished)
    assert ("SP-1" in twin.tickets) == fault.takes == twin.calls[0].taken
    assert re.match(rb"HTTP/1.1 200 .*responseCode>(200|409)<", await exchange(twin), re.DOTALL), "it is over"


async def test_where_there_is_no_operation_none_is_refused(twin: Twin, http: aiohttp.ClientSession) -> None:
    twin.inject(Fault(Kind.REFUSE))
    assert (await post(http, twin, "nope", addition()))[0] == 404
    assert [(c.fault, c.taken, c.answered) for c in twin.calls] == [("refuse", False, 404)]


async def test_an_answer_that_is_no_reply_has_no_extra_element(twin: Twin, http: aiohttp.ClientSession) -> None:
    async def answers() -> list[tuple[int, bytes]]:
        asked = (("addFaultReport", "<junk"), ("nope", addition()))
        return [await post(http, twin, operation, body) for operation, body in asked]

    right = await answers()
    twin.inject(Fault(Kind.EXTRA_ELEMENT, times=None))
    assert await answers() == right
    assert [(c.fault, c.answered) for c in twin.calls[2:]] == [("extra-element", 400), ("extra-element", 404)]


async def test_a_request_that_the_twin_fails_over_is_in_the_log(twin: Twin, http: aiohttp.ClientSession) -> None:
    twin.inject(Fault(Kind.REFUSE, text="\ud800", taken=True))
    assert (await post(http, twin, "addFaultReport", addition()))[0] == 500
    (call,) = twin.calls
    assert (call.key, call.fault, call.taken, call.answered) == ("SP-1", "refuse", True, 500)
    assert call.finished


@pytest.mark.parametrize("taken", [False, True])
async def test_a_reset_comes_before_or_after_the_request_was_taken(twin: Twin, *, taken: bool) -> None:
    twin.inject(Fault(Kind.RESET, taken=taken))
    with pytest.raises(ConnectionResetError):
        await exchange(twin)
    assert ("SP-1" in twin.tickets) == taken
    assert [(c.fault, c.taken, c.answered) for c in twin.calls] == [("reset", taken, None)]


async def test_silence_lasts_until_the_caller_gives_up_and_the_log_knows_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    async with Twin(TwinSettings(calls=path, faults=(Fault(Kind.SILENCE),))) as twin:
        waiting = asyncio.create_task(exchange(twin))
        await eventually(lambda: len(read(path.read_text())) == 1)
        (call,) = read(path.read_text())
        assert (call.taken, call.verdict, call.finished) == (True, "accepted", None)
        assert not waiting.done()
        waiting.cancel()
        await eventually(lambda: twin.calls[0].finished)
    (call,) = read(path.read_text())
    assert (call.answered, call.finished is not None) == (None, True)


async def test_a_stop_does_not_wait_for_what_a_fault_holds_open(http: aiohttp.ClientSession) -> None:
    async with Twin(TwinSettings(faults=(Fault(Kind.SILENCE, times=None),))) as twin:
        waiting = [asyncio.create_task(exchange(twin)) for _ in range(5)]
        await eventually(lambda: len(twin.calls) == 5)
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - before < 30
    assert await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("turns", range(3))
@pytest.mark.parametrize("secure", [False, True])
async def test_a_stop_leaves_no_connection_open_that_came_in_its_moment(
    turns: int, tmp_path: Path, *, secure: bool
) -> None:
    good = trials(tmp_path).good
    tls = TlsFiles(good.server_certificate, good.server_key, good.ca) if secure else None
    with ExitStack() as callers:
        async with Twin(TwinSettings(tls=tls)) as twin:
            address = urlsplit(twin.url)
            for _ in range(5):
                callers.enter_context(socket.create_connection((address.hostname, address.port)))
            for _ in range(turns):
                await asyncio.sleep(0)
    gc.collect()  # an open connection that nobody holds is an error


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        (Fault(Kind.STATUS, status=429, retry_after=3), r"3"),
        (Fault(Kind.STATUS, status=503, retry_after=3, retry_after_date=True), r"\w{3}, \d\d \w{3} \d{4} .* GMT"),
    ],
)
async def test_retry_after_in_both_forms(fault: Fault, pattern: str, twin: Twin, http: aiohttp.ClientSession) -> None:
    twin.inject(fault)
    async with http.post(f"{twin.url}/addFaultReport", data=addition()) as response:
        assert response.status == fault.status
        assert re.fullmatch(pattern, response.headers["Retry-After"])


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_documented_statuses_carry_the_fault_block(status: int, twin: Twin, http: aiohttp.ClientSession) -> None:
    twin.inject(Fault(Kind.STATUS, status=status))
    answered, body = await post(http, twin, "addFaultReport", addition())
    assert (answered, value(body, "faultmessage")) == (status, "fault on demand")
    assert_valid(body)


async def test_a_redirect_and_a_missing_page(twin: Twin, http: aiohttp.ClientSession) -> None:
    twin.inject(Fault(Kind.STATUS, status=302), Fault(Kind.STATUS, status=404))
    async with http.post(f"{twin.url}/addFaultReport", data=addition(), allow_redirects=False) as response:
        assert (response.status, "Location" in response.headers) == (302, True)
    assert (await post(http, twin, "addFaultReport", addition()))[0] == 404


async def test_calls_of_one_key_overlap_only_if_they_did(http: aiohttp.ClientSession) -> None:
    delay = Fault(Kind.DELAY, key="SP-2", seconds=1.0, times=None)
    async with Twin(TwinSettings(faults=(delay,))) as twin:
        for n in range(3):
            await post(http, twin, "addFaultReport", addition("SP-1", message_id=f"m-{n}"))
        assert overlaps(twin.calls) == []
        assert repeats(twin.calls) == {}
        await asyncio.gather(*(post(http, twin, "addFaultReport", addition("SP-2")) for _ in range(2)))
        assert [(a.key, b.key) for a, b in overlaps(twin.calls)] == [("SP-2", "SP-2")]
        assert repeats(twin.calls) == {"m-1": 3}
        assert len({c.connection for c in twin.calls}) == 2


async def test_a_request_cut_off_in_its_body_is_in_the_log_and_not_taken(twin: Twin) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(twin.url.rsplit(":", 1)[1]))
    writer.write(b"POST /addFaultReport HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n<addFaultReport>")
    await writer.drain()
    writer.close()
    await eventually(lambda: twin.calls)
    call = twin.calls[0]
    assert (call.operation, call.key, call.taken, call.answered) == ("addFaultReport", None, False, None)


async def test_a_request_that_is_too_long_or_wrongly_packed_is_in_the_log_with_its_answer(
    twin: Twin, http: aiohttp.ClientSession
) -> None:
    for data, packed, status in ((b" " * (16 * 1024 * 1024 + 1), "identity", 413), (b"junk", "gzip", 400)):
        headers = {"Content-Encoding": packed}
        async with http.post(f"{twin.url}/addFaultReport", data=BytesIO(data), headers=headers) as response:
            assert response.status == status
    assert [(c.operation, c.taken, c.answered) for c in twin.calls] == [
        ("addFaultReport", False, 413),
        ("addFaultReport", False, 400),
    ]


async def test_a_request_whose_caller_gave_up_before_it_was_read_is_in_the_log_and_not_taken(twin: Twin) -> None:
    body = addition().encode()
    # Without a turn of the loop in between, which the twin shares: it finds the request and the end behind it at once.
    with socket.create_connection(("127.0.0.1", int(twin.url.rsplit(":", 1)[1]))) as caller:
        caller.sendall(b"POST /addFaultReport HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await eventually(lambda: twin.calls)
    call = twin.calls[0]
    assert (call.operation, call.key, call.taken, call.answered) == ("addFaultReport", None, False, None)
    assert "SP-1" not in twin.tickets


async def test_idle_connections_are_closed() -> None:
    async with Twin(TwinSettings(keep_alive=0.2)) as twin:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(twin.url.rsplit(":", 1)[1]))
        writer.write(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.1 404")
        writer.close()


async def test_the_control_address(http: aiohttp.ClientSession) -> None:
    async with Twin() as twin:
        control = f"{twin.control_url}/twin"
        fault = {"kind": "status", "status": 503, "times": 2}
        async with http.post(f"{control}/faults", json=fault) as response:
            assert response.status == 204
        assert (await post(http, twin, "addFaultReport", addition()))[0] == 503
        async with http.get(f"{control}/faults") as response:
            assert await response.json() == [{**fault, "times": 1}]
        async with http.delete(f"{control}/faults") as response:
            assert response.status == 204
        assert (await post(http, twin, "addFaultReport", addition()))[0] == 200
        async with http.get(f"{control}/calls?since=1") as response:
            (call,) = read(await response.text())
            assert (call.sequence, call.verdict, call.key) == (2, "accepted", "SP-1")
        async with http.post(f"{control}/tickets/SP-1", json={"status": "Resolved"}) as response:
            assert (await response.json())["status"] == "Resolved"
        async with http.get(f"{control}/tickets") as response:
            assert [t["reference"] for t in await response.json()] == ["SP-1"]
        async with http.get(f"{control}/changes?since=1") as response:
            (change,) = [json.loads(text) for text in (await response.text()).splitlines()]
            assert (change["cause"], change["ticket"]["status"]) == ("set by hand", "Resolved")
        async with http.get(f"{control}/summary") as response:
            assert (await response.json())["requests"] == 2


async def test_the_control_address_says_what_is_wrong(twin: Twin, http: aiohttp.ClientSession) -> None:
    control = f"{twin.control_url}/twin"
    for path, text, expected in (
        ("faults", '{"kind": "boom"}', 400),
        ("faults", "{", 400),
        ("faults", "[" * 100_000, 400),
        ("faults", f'{{"seed": {"9" * 5000}}}', 400),
        ("faults", b'"\xff"', 400),
        ("faults", '{"kind": "delay", "seconds": NaN}', 400),
        ("tickets/SP-1", '{"status": "Gone"}', 400),
        ("tickets/SP-1", '{"status": "Closed"}', 404),
    ):
        async with http.post(f"{control}/{path}", data=text) as response:
            assert (response.status, bool((await response.json())["problems"])) == (expected, True)
    for headers in ({"Content-Type": "application/json; charset=foo"}, {"Content-Encoding": "gzip"}):
        async with http.post(f"{control}/notify", data="{}", headers=headers) as response:
            assert (response.status, len((await response.json())["problems"])) == (400, 1)
    for path in ("calls", "changes", "notifications"):
        for since in ("x", "-1", "1.5", "", "9" * 5000):
            async with http.get(f"{control}/{path}?since={since}") as response:
                assert response.status == 400
    async with http.get(f"{control}/") as response:
        assert response.status == 404
        assert "/twin/tickets/{reference}" in (await response.json())["there"]


async def test_mutual_tls_serves_only_who_has_a_certificate_of_the_authority(tmp_path: Path) -> None:
    certificates = trials(tmp_path)
    good = certificates.good
    files = TlsFiles(good.server_certificate, good.server_key, good.ca)
    context = ssl.create_default_context(cafile=str(good.ca))
    stranger = ssl.create_default_context(cafile=str(good.ca))
    stranger.load_cert_chain(certificates.unknown_client.certificate, certificates.unknown_client.key)
    known = ssl.create_default_context(cafile=str(good.ca))
    known.load_cert_chain(good.client_certificate, good.client_key)
    async with Twin(TwinSettings(tls=files)) as twin:
        assert twin.url.startswith("https://127.0.0.1:")
        for refused in (context, stranger):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=refused)) as http:
                with pytest.raises(aiohttp.ClientError):
                    await post(http, twin, "addFaultReport", addition())
        assert not twin.calls
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=known)) as http:
            twin.inject(Fault(Kind.RESET, taken=True))
            with pytest.raises(aiohttp.ClientError):
                await post(http, twin, "addFaultReport", addition("SP-9"))
            assert (await post(http, twin, "addFaultReport", addition()))[0] == 200
        assert set(twin.tickets) == {"SP-9", "SP-1"}


async def test_a_twin_that_cannot_start_says_why(tmp_path: Path, twin: Twin) -> None:
    port = int(twin.url.rsplit(":", 1)[1])
    with pytest.raises(Stop, match=f"can't listen on 127.0.0.1:{port}"):
        async with Twin(TwinSettings(port=port)):
            pass
    certificates = trials(tmp_path)
    good = certificates.good
    with pytest.raises(Stop, match="server"):
        async with Twin(TwinSettings(tls=TlsFiles(good.server_certificate, good.client_key, good.ca))):
            pass
    with pytest.raises(Stop, match=r"none\.pem"):
        async with Twin(TwinSettings(tls=TlsFiles(good.server_certificate, good.server_key, tmp_path / "none.pem"))):
            pass


@pytest.mark.parametrize("name", ["", "absent/log.jsonl"])
def test_a_log_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    said = "No such file or directory" if name else "Is a directory"
    for settings in (TwinSettings(calls=path), TwinSettings(notify=Notify("http://127.0.0.1:1/", log=path))):
        with pytest.raises(Stop, match=rf"\A{re.escape(str(path))}: cannot be written: {said}\Z"):
            Twin(settings)


async def test_tickets_move_by_the_clock_of_the_settings(http: aiohttp.ClientSession) -> None:
    async with Twin(TwinSettings(rules=Rules(speed=1e6, resolve_after=timedelta(hours=1)))) as twin:
        await post(http, twin, "addFaultReport", addition())
        await eventually(lambda: twin.tickets["SP-1"].status == Status.CLOSED)
