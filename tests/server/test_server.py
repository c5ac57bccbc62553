"""The listener over real sockets, before a real broker."""

import asyncio
import gzip
import json
import re
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.core.notification import Delivery
from adapter.ports import Arrival, Caller
from adapter.transport.spool import SqliteSpool
from tests.server.conftest import SAMPLE, SAMPLES, Serve, Serving, notification, serving
from tests.support.certificates import Trials
from tests.support.rig import open_rig
from tests.support.wait import PATIENCE, eventually

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\n"


async def raw(port: int, request: bytes) -> bytes:
    """The answer to these bytes, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


async def test_200_means_that_the_event_is_there_keyed_by_the_ticket(serve: Serve) -> None:
    async with serve() as server:
        status, text = await server.post(SAMPLE, traceparent=TRACE)
        assert (status, "receivedNotifyFaultReportUpdate" in text) == (200, True)
        (event,) = server.events()
    assert event.key == b"SP-123ABC"
    assert event.headers["ce_type"] == "fault.event.FaultReportUpdated.APPOINTMENT_CANCELLED"
    assert event.headers["traceparent"] == TRACE


async def test_a_traceparent_that_is_none_is_passed_over(serve: Serve) -> None:
    async with serve() as server:
        for number, none in enumerate(["x" * 3000, f"00-{'0' * 32}-{'0' * 16}-01", "00-1-2-3", f"{TRACE}, {TRACE}"]):
            assert (await server.post(notification(f"T-{number}"), traceparent=none))[0] == 200
            assert (await server.post(b"<nothing/>", traceparent=none))[0] == 400
        kept = (*server.events(), *server.quarantine())
    assert len(kept) == 8
    assert all("traceparent" not in record.headers for record in kept)


async def test_the_three_samples_are_three_events_and_a_repeat_is_none(serve: Serve) -> None:
    async with serve() as server:
        for sample in sorted(SAMPLES.glob("*/notification.xml")):
            for _ in range(2):
                assert (await server.post(sample.read_bytes()))[0] == 200
        assert len({event.id for event in server.events()}) == len(server.events()) == 3
        assert 'notifications_total{result="repeated"} 3.0' in exposed(server)


async def test_repeats_at_the_same_time_are_one_event(serve: Serve) -> None:
    async with serve() as server:
        answers = await asyncio.gather(*(server.post(SAMPLE) for _ in range(20)))
        assert {status for status, _ in answers} == {200}
        assert len(server.events()) == 1


async def test_what_cannot_be_read_is_in_the_quarantine_before_400_and_is_not_echoed(serve: Serve) -> None:
    async with serve() as server:
        status, text = await server.post(b"<secret>007</secret>", **{"Content-Type": "text/xml"})
        assert (status, "Fault" in text, "007" in text) == (400, True, False)
        (kept,) = server.quarantine()
        assert "007" not in server.lines.getvalue()
    assert kept.value == b"<secret>007</secret>"
    assert kept.headers["quarantine-reason"] == "unknown-root"
    assert kept.headers["content-type"] == "text/xml"


async def test_other_methods_are_told_what_to_do(serve: Serve) -> None:
    async with serve() as server, aiohttp.ClientSession() as client:
        async with client.get(server.url) as reply:
            assert (reply.status, reply.headers["Allow"]) == (405, "POST")
        for health in ("/health", "/health/", "/health?from=noc"):
            async with client.get(f"http://127.0.0.1:{server.port}{health}") as reply:
                assert reply.status == 200
        absolute = f"GET http://127.0.0.1:{server.port}/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await raw(server.port, absolute.encode())).startswith(b"HTTP/1.1 200 ")


async def test_what_is_packed_or_in_parts_is_kept_and_what_only_says_so_is_read(serve: Serve) -> None:
    packed, parts = gzip.compress(SAMPLE), b"--x\r\n\r\n" + SAMPLE + b"\r\n--x--\r\n"
    async with serve() as server:
        status, text = await server.post(packed, **{"Content-Encoding": "gzip"})
        assert (status, "encoding: neither UTF-32 nor gzip" in text) == (400, True)
        status, text = await server.post(parts, **{"Content-Type": "multipart/related; boundary=x"})
        assert (status, "malformed: send one XML document, not several parts" in text) == (400, True)
        assert (await server.post(SAMPLE, **{"Content-Encoding": "utf-8"}))[0] == 200
        assert {record.value for record in server.quarantine()} == {packed, parts}


async def test_a_body_that_nobody_could_tell_the_end_of_or_take_apart_is_refused_unread(serve: Serve) -> None:
    async with serve() as server:
        assert b" 411 Length Required" in await raw(server.port, HEAD + b"\r\n" + SAMPLE)
        packed = b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        assert b" 501 " in await raw(server.port, HEAD + packed)
        assert (await server.post(b""))[0] == 400
        assert [kept.headers["quarantine-reason"] for kept in server.quarantine()] == ["empty"]


async def test_a_long_body_is_refused_unread_whether_announced_or_in_chunks(serve: Serve) -> None:
    async with serve(SERVER__MAX_BODY_BYTES="64KiB") as server:
        assert b" 413 " in await raw(server.port, HEAD + b"Content-Length: 100000000\r\n\r\n")
        chunks = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        assert b" 413 " in await raw(server.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 3)
        await eventually(lambda: server.running.listener.bytes_in_flight == 0)


async def test_a_request_that_is_refused_is_in_the_log_with_its_status_and_caller_and_no_content(serve: Serve) -> None:
    proxied = HEAD + b"X-Forwarded-For: 192.0.2.7\r\n"
    async with serve(SERVER__TRUSTED_PROXIES="127.0.0.1/32", SERVER__BODY_TIMEOUT="2s") as server:
        await raw(server.port, proxied.replace(b"POST", b"PUT") + b"\r\n")
        await raw(server.port, proxied + b"Content-Length: 9999999999\r\n\r\nsecret")
        await raw(server.port, proxied + b"Content-Length: 9\r\n\r\nsecret")
        await raw(server.port, b"secret\r\n\r\n")
        lines = list(map(json.loads, server.lines.getvalue().splitlines()))
        assert [(line["status"], line["address"]) for line in lines if line["event"] == "request refused"] == [
            (405, "192.0.2.7"),
            (413, "192.0.2.7"),
            (408, "192.0.2.7"),
            (400, "127.0.0.1"),
        ]
        assert "secret" not in server.lines.getvalue()


async def test_a_caller_that_is_turned_away_again_and_again_does_not_fill_the_log(serve: Serve) -> None:
    async with serve(SERVER__ALLOWED_NETWORKS="192.0.2.0/24", SERVER__TRUSTED_PROXIES="127.0.0.1/32") as server:
        for address in [b"198.51.100.1", b"198.51.100.2"] * 20:
            await raw(server.port, HEAD + b"X-Forwarded-For: " + address + b"\r\nContent-Length: 0\r\n\r\n")
            await raw(server.port, HEAD + b"X-Forwarded-For: 192.0.2.7\r\n\r\n")
        lines = list(map(json.loads, server.lines.getvalue().splitlines()))
        told = [(line["event"], line["address"]) for line in lines if line["event"].endswith(" refused")]
        assert told == [
            ("caller refused", "198.51.100.1"),
            ("request refused", "192.0.2.7"),
            ("caller refused", "198.51.100.2"),
        ]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", "it begins with the PROXY protocol, which has to be off"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "it begins with the PROXY protocol, which has to be off"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it is HTTP/2, and has to be HTTP/1.1"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "it is TLS, and we listen without"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "Invalid method encountered"),
        (HEAD + b"SOAPAction: a\r\n b\r\n\r\n", "Unexpected whitespace after header value"),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "Duplicate Content-Length"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding in HTTP/1.0"),
        (HEAD + b"X: y\r\n" * 101 + b"\r\n", "the header is longer than 32768 bytes or 100 lines"),
    ],
)
async def test_what_is_wrong_with_the_http_is_in_the_answer_and_in_the_log(
    serve: Serve, request_: bytes, why: str
) -> None:
    async with serve() as server:
        answer = await raw(server.port, request_)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(f": {why}.\n".encode())
        (line,) = [json.loads(line) for line in server.lines.getvalue().splitlines() if "request refused" in line]
        assert line["detail"].endswith(f": {why}.")


async def test_slow_heads_and_bodies_end_in_time_and_harm_nobody_else(serve: Serve) -> None:
    async with serve(SERVER__IDLE_TIMEOUT="2s", SERVER__BODY_TIMEOUT="2s") as server:
        slow = [
            asyncio.ensure_future(raw(server.port, HEAD)),
            asyncio.ensure_future(raw(server.port, HEAD + b"Content-Length: 9\r\n\r\nabc")),
        ]
        assert (await server.post(SAMPLE))[0] == 200
        head, body = await asyncio.gather(*slow)
        assert head == b""
        assert b" 408 " in body


async def test_a_flood_of_headers_is_refused_without_its_content(serve: Serve) -> None:
    async with serve() as server:
        answer = await raw(server.port, HEAD + b"".join(b"H%d: secret\r\n" % n for n in range(1000)) + b"\r\n")
        assert b" 400 " in answer
        assert b"secret" not in answer
        assert "secret" not in server.lines.getvalue()


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    async with serve() as server:
        one = HEAD + b"Content-Length: %d\r\n\r\n" % len(SAMPLE) + SAMPLE
        last = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\nx"
        answer = await raw(server.port, one * 30 + last)
        assert (answer.count(b"HTTP/1.1 200 "), answer.count(b"HTTP/1.1 400 ")) == (30, 1)


async def test_beyond_the_limit_the_most_silent_connection_gives_way(serve: Serve) -> None:
    async with serve(SERVER__MAX_CONNECTIONS="20") as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
        await eventually(lambda: server.running.listener.connections <= 20)
        assert (await server.post(SAMPLE))[0] == 200
        for _, writer in idle:
            writer.close()


async def test_too_many_bytes_at_once_are_503(serve: Serve) -> None:
    async with serve(SERVER__MAX_BODY_BYTES="64KiB", SERVER__MAX_BYTES_IN_FLIGHT="64KiB") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD + b"Content-Length: 65000\r\n\r\n" + b"x" * 64_900)
        await eventually(lambda: server.running.listener.bytes_in_flight >= 64_000)
        answer = await raw(server.port, HEAD + b"Content-Length: %d\r\n\r\n" % len(SAMPLE) + SAMPLE)
        assert b" 503 " in answer
        assert b"Retry-After" in answer
        writer.close()
        await reader.read()
        await eventually(lambda: server.running.listener.bytes_in_flight == 0)
        assert (await server.post(SAMPLE))[0] == 200


@pytest.mark.parametrize("network", ["192.0.2.0/24", "2001:db8::/32"])
async def test_a_stranger_is_403_before_the_body_and_counted(serve: Serve, network: str) -> None:
    async with serve(SERVER__ALLOWED_NETWORKS=network) as server:
        assert b" 403 " in await raw(server.port, HEAD + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
        assert 'callers_refused_total{reason="network"} 1.0' in exposed(server)


@pytest.mark.parametrize(
    ("proxies", "line", "why"),
    [
        ("127.0.0.1/32", b"", "the proxy passes on none"),
        (
            "127.0.0.1/32",
            b"Client-Cert: Hash=secret\r\n",
            "client-cert is no single certificate, as RFC 9440 has it or in URL-encoded PEM",
        ),
        ("192.0.2.0/24", b"Client-Cert: :AAAA:\r\n", "neither TLS nor a trusted proxy shows one"),
    ],
)
async def test_why_a_caller_has_no_certificate_is_in_the_log(serve: Serve, proxies: str, line: bytes, why: str) -> None:
    async with serve(SERVER__ALLOWED_SUBJECTS="CN=gateway", SERVER__TRUSTED_PROXIES=proxies) as server:
        assert b" 403 " in await raw(server.port, HEAD + line + b"Content-Length: 1000\r\n\r\n")
        (told,) = [json.loads(line) for line in server.lines.getvalue().splitlines() if "caller refused" in line]
        assert (told["reason"], told["detail"]) == ("certificate", why)
        assert "secret" not in server.lines.getvalue()


async def test_mutual_tls_with_curl_and_openssl(serve: Serve, trials: Trials) -> None:
    good = trials.good
    tls = {
        "SERVER__ALLOW_PLAINTEXT": "false",
        "SERVER__TLS__CERTIFICATE": str(good.server_certificate),
        "SERVER__TLS__KEY": str(good.server_key),
        "SERVER__TLS__CA": str(good.ca),
    }
    file = str(SAMPLES / "appointment-cancelled/notification.xml")

    def curl(url: str, *more: str) -> str:
        call = ["curl", "-s", "--cacert", str(good.ca), "-o", "/dev/null", "-w", "%{http_code}", *more, url]
        return subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout

    pair = ("--cert", str(good.client_certificate), "--key", str(good.client_key))
    stranger = ("--cert", str(trials.unknown_client.certificate), "--key", str(trials.unknown_client.key))
    async with serve(**tls, SERVER__ALLOWED_SUBJECTS="CN=buyer") as server:
        url = f"https://127.0.0.1:{server.port}/any"
        assert await asyncio.to_thread(curl, url, *pair, "--data-binary", f"@{file}") == "200"
        assert await asyncio.to_thread(curl, url, "--data-binary", f"@{file}") == "000"
        assert await asyncio.to_thread(curl, url, *stranger, "--data-binary", f"@{file}") == "000"
        old = await asyncio.to_thread(
            subprocess.run,
            ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_1"],
            input=b"",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert b"Cipher is (NONE)" in old.stdout
    async with serve(**tls, SERVER__ALLOWED_SUBJECTS="CN=somebody else") as server:
        url = f"https://127.0.0.1:{server.port}/any"
        assert await asyncio.to_thread(curl, url, *pair, "--data-binary", f"@{file}") == "403"
        assert '"subject":"CN=buyer"' in server.lines.getvalue()


async def test_any_bytes_get_one_of_three_answers(serve: Serve) -> None:
    async with serve(SERVER__MAX_BODY_BYTES="4KiB") as server, aiohttp.ClientSession() as client:
        answers: set[int] = set()
        bodies: list[bytes] = []

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            st.binary(max_size=6000)
            | st.builds(lambda cut, put: SAMPLE[:cut] + put + SAMPLE[cut:], st.integers(0, 2000), st.binary(max_size=9))
        )
        def collect(body: bytes) -> None:
            bodies.append(body)

        collect()
        for body in bodies:
            async with client.post(server.url, data=body) as reply:
                answers.add(reply.status)
        assert answers <= {200, 400, 413}
        assert {200, 400} <= answers


async def test_order_of_one_ticket_is_that_of_arrival(serve: Serve) -> None:
    async with serve() as server:
        for number in range(30):
            assert (await server.post(notification("T-1", message=f"M-{number}")))[0] == 200
        values = [event.value for event in server.events() if event.key == b"T-1"]
        assert [f"M-{n}".encode() in value for n, value in enumerate(values)] == [True] * 30


async def test_what_strays_is_counted_by_its_place_in_the_schema_alone(serve: Serve) -> None:
    async with serve() as server:
        for number in range(20):
            strange = f"<made-up-{number}>x</made-up-{number}></notifyFaultReportUpdate>".encode()
            body = notification(f"T-{number}").replace(b"</notifyFaultReportUpdate>", strange)
            assert (await server.post(body.replace(b"2018-05-16T12:01:00Z", b"yesterday")))[0] == 200
        shown = exposed(server)
    assert 'notification_deviations_total{path="faultDetails.faultStartTime"} 20.0' in shown
    assert "notification_unknown_elements_total 20.0" in shown
    assert "made-up" not in shown


async def test_beyond_the_window_a_repeat_is_published_again_under_its_id(serve: Serve) -> None:
    async with serve(SERVER__REMEMBERED_NOTIFICATIONS="1") as server:
        for reference in ("A", "B", "A"):
            assert (await server.post(notification(reference)))[0] == 200
        found = [event for event in server.events() if event.key == b"A"]
    assert len(found) == 2
    assert found[0].id == found[1].id


async def test_what_is_repeated_now_and_then_stays_in_the_window(serve: Serve) -> None:
    async with serve(SERVER__REMEMBERED_NOTIFICATIONS="2") as server:
        for reference in "ABACA":
            assert (await server.post(notification(reference)))[0] == 200
        assert sorted(event.key or b"" for event in server.events()) == [b"A", b"B", b"C"]


ENVELOPE = b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>%s</s:Body></s:Envelope>'
BARE = SAMPLE[SAMPLE.index(b"<notify") :]
REFUSED = {
    "empty": b" ",
    "malformed": BARE[:-5],
    "encoding": b"\xff\xfe\x00\x00" + BARE,
    "doctype": b"<!DOCTYPE x>" + BARE,
    "too-deep": b"<a>" * 200 + b"</a>" * 200,
    "too-many-elements": b"<a>" + b"<b/>" * 6000 + b"</a>",
    "unknown-root": b"<secret>007</secret>",
    "several-messages": ENVELOPE % (BARE * 2),
    "no-message": ENVELOPE % b"",
    "no-reference": BARE.replace(b"SP-123ABC", b" "),
    "foreign-buyer": BARE.replace(b"SPDEV1", b"SOMEBODY"),
}


async def test_each_way_not_to_be_a_notification_is_400_and_kept_with_who_when_and_why(serve: Serve) -> None:
    async with serve() as server:
        for reason, body in REFUSED.items():
            status, text = await server.post(body, **{"Content-Type": "text/xml", "traceparent": TRACE})
            assert (status, f"<faultstring>{reason}: " in text) == (400, True), (reason, text)
            assert not {"007", "SOMEBODY", "SP-123ABC"} & set(re.findall(r"[A-Z0-9-]{3,}", text))
        kept = {record.headers["quarantine-reason"]: record for record in server.quarantine()}
        assert all(f'quarantined_total{{reason="{reason}"}} 1.0' in exposed(server) for reason in REFUSED)
    assert {reason: record.value for reason, record in kept.items()} == REFUSED
    headers = kept["doctype"].headers
    assert headers["quarantine-address"] == "127.0.0.1"
    assert headers["quarantine-path"] == "/notify"
    assert headers["quarantine-received-at"].endswith("Z")
    assert (headers["content-type"], headers["traceparent"]) == ("text/xml", TRACE)


async def test_one_in_the_spool_that_cannot_be_read_is_told_and_the_others_are_published(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "spool.db"
    spool = SqliteSpool(path, max_bytes=10**6, damaged=lambda _, __: None, unreadable=lambda _, __: None)
    for reference in ("T-1", "T-2", "T-1"):
        body = notification(reference, message=f"M-{spool.depth}")
        await spool.put(reference.encode(), Arrival(Delivery(body, datetime.now(UTC)), Caller("192.0.2.7", None)))
    await spool.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE notification SET facts = '{}' WHERE number = 1")
        database.commit()
    async with serve(SERVER__SPOOL__PATH=str(path)) as server:
        await eventually(lambda: "fault_adapter_spool_depth 0.0" in exposed(server))
        assert "fault_adapter_spool_damaged 1.0" in exposed(server)
        assert '"event":"spooled notification not readable","number":1,"reason":"KeyError"' in server.lines.getvalue()
        assert (await server.post(notification("T-1", message="M-9")))[0] == 200
        assert sorted(event.key or b"" for event in server.events()) == [b"T-1", b"T-1", b"T-2"]


async def test_one_too_large_for_its_topic_is_503_and_told_with_the_topic(kafka: str) -> None:
    history = b"\n".join(b"line %d" % number for number in range(2000))
    async with open_rig(kafka, largest=10_000) as rig, serving(rig) as server:
        assert (await server.post(SAMPLE.replace(b"Initial", history)))[0] == 503
        assert (await server.post(b"<x>" + b"y" * 20_000))[0] == 503
        told = [json.loads(line) for line in server.lines.getvalue().splitlines() if "too large" in line]
        assert (await server.post(SAMPLE))[0] == 200
    assert {(line["level"], line["event"]) for line in told} == {("error", "notification too large for its topic")}
    assert [(line["topic"], line["reference"]) for line in told] == [
        (rig.topics.events, "SP-123ABC"),
        (rig.topics.quarantine, None),
    ]


def exposed(server: Serving) -> str:
    return server.metrics.exposition("text/plain")[0].decode()
