"""SOAP and TLS clients that nobody here wrote, against the listener with mutual TLS and without."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import zeep
from lxml import etree

from tests.server.conftest import SAMPLE, SAMPLES, Serve, Serving
from tests.support.certificates import Trials
from tests.support.wait import PATIENCE, eventually

WSDL = Path(__file__).with_name("notify.wsdl")
SOAP_12 = ("http://schemas.xmlsoap.org/wsdl/soap/", "http://schemas.xmlsoap.org/wsdl/soap12/")
FILE = str(SAMPLES / "appointment-cancelled/notification.xml")


@pytest.fixture
async def secure(serve: Serve, trials: Trials) -> AsyncIterator[Serving]:
    good = trials.good
    async with serve(
        SERVER__ALLOW_PLAINTEXT="false",
        SERVER__TLS__CERTIFICATE=str(good.server_certificate),
        SERVER__TLS__KEY=str(good.server_key),
        SERVER__TLS__CA=str(good.ca),
        SERVER__ALLOWED_SUBJECTS="CN=buyer",
    ) as server:
        yield server


def client(wsdl: Path, server: Serving, trials: Trials) -> Any:
    transport = zeep.Transport()
    transport.session.trust_env = False
    transport.session.cert = (str(trials.good.client_certificate), str(trials.good.client_key))
    transport.session.verify = str(trials.good.ca)
    made = zeep.Client(str(wsdl), transport=transport)
    return made.create_service("{urn:test}binding", f"https://127.0.0.1:{server.port}/any")


@pytest.mark.parametrize("version", ["1.1", "1.2"])
async def test_zeep_sends_a_notification_and_understands_the_answer(
    secure: Serving, trials: Trials, tmp_path: Path, version: str
) -> None:
    wsdl = tmp_path / "notify.wsdl"
    text = WSDL.read_text(encoding="utf-8")
    wsdl.write_text(text if version == "1.1" else text.replace(*SOAP_12), encoding="utf-8")

    def call() -> Any:
        return client(wsdl, secure, trials).notify(
            apiVersion="1.0",
            buyerIdentifier="SPDEV1",
            sentAt=datetime.now(UTC),
            messageId="CF-00009",
            buyerFaultReference="SP-ZEEP",
            maintainerFaultReference="FR-1",
            faultDetails={"status": "In Progress"},
        )

    answer = await asyncio.to_thread(call)
    assert (answer.responseCode, answer.messageId, answer.buyerIdentifier) == (200, "CF-00009", "SPDEV1")
    (event,) = secure.events()
    assert event.key == b"SP-ZEEP"
    assert event.headers["ce_type"].endswith(".IN_PROGRESS")


@pytest.mark.parametrize("version", ["1.1", "1.2"])
async def test_zeep_understands_why_it_was_refused(
    secure: Serving, trials: Trials, tmp_path: Path, version: str
) -> None:
    wsdl = tmp_path / "notify.wsdl"
    text = WSDL.read_text(encoding="utf-8")
    wsdl.write_text(text if version == "1.1" else text.replace(*SOAP_12), encoding="utf-8")
    service = client(wsdl, secure, trials)
    said: dict[str, Any] = {"apiVersion": "1.0", "buyerIdentifier": "SPDEV1", "sentAt": datetime.now(UTC)}
    said |= {
        "messageId": "M",
        "buyerFaultReference": "",
        "maintainerFaultReference": "",
        "faultDetails": {"status": ""},
    }
    with pytest.raises(zeep.exceptions.Fault, match="no-reference") as fault:
        await asyncio.to_thread(lambda: service.notify(**said))
    assert str(fault.value.code).rpartition(":")[2] in {"Client", "Sender"}
    assert [kept.headers["quarantine-reason"] for kept in secure.quarantine()] == ["no-reference"]


async def test_openssl_posts_over_tls_1_2_and_1_3_and_with_nothing_older(secure: Serving, trials: Trials) -> None:
    head = f"POST /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(SAMPLE)}\r\n\r\n"

    def post(version: str) -> bytes:
        call = ["openssl", "s_client", "-quiet", version, "-connect", f"127.0.0.1:{secure.port}"]
        call += ["-cert", str(trials.good.client_certificate), "-key", str(trials.good.client_key)]
        call += ["-CAfile", str(trials.good.ca), "-verify_return_error"]
        asked = head.encode() + SAMPLE
        return subprocess.run(call, input=asked, capture_output=True, timeout=PATIENCE, check=False).stdout

    for version in ("-tls1_2", "-tls1_3"):
        answer = await asyncio.to_thread(post, version)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        root = etree.fromstring(answer.partition(b"\r\n\r\n")[2])
        assert root.tag == "receivedNotifyFaultReportUpdate"
    assert await asyncio.to_thread(post, "-tls1_1") == b""


async def test_curl_asks_before_it_sends_a_long_body_and_is_told_at_once(secure: Serving, trials: Trials) -> None:
    long = b"<x>" + b" " * 3 * 1024**2 + b"</x>"

    def curl() -> list[str]:
        call = ["curl", "-sv", "--cacert", str(trials.good.ca), "--cert", str(trials.good.client_certificate)]
        call += ["--key", str(trials.good.client_key), "-H", "Expect: 100-continue", "--data-binary", "@-"]
        call += ["--expect100-timeout", "30", f"https://127.0.0.1:{secure.port}/"]
        done = subprocess.run(call, input=long, capture_output=True, timeout=PATIENCE, check=False)
        return [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("< HTTP")]

    phrase = HTTPStatus.REQUEST_ENTITY_TOO_LARGE.phrase  # another since Python 3.13
    assert await asyncio.to_thread(curl) == [f"< HTTP/1.1 413 {phrase}"]


async def test_new_certificate_files_are_used_for_the_next_connection(
    serve: Serve, trials: Trials, tmp_path: Path
) -> None:
    pair = tmp_path / "server.pem", tmp_path / "server.key"
    for path, source in zip(pair, (trials.good.server_certificate, trials.good.server_key), strict=True):
        path.write_bytes(source.read_bytes())
    tls = {
        "SERVER__ALLOW_PLAINTEXT": "false",
        "SERVER__TLS__CERTIFICATE": str(pair[0]),
        "SERVER__TLS__KEY": str(pair[1]),
        "SERVER__TLS__CA": str(trials.good.ca),
    }

    def served(port: int) -> str:
        call = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"]
        call += ["-cert", str(trials.good.client_certificate), "-key", str(trials.good.client_key)]
        done = subprocess.run(call, input=b"", capture_output=True, timeout=PATIENCE, check=False)
        return done.stdout.partition(b"-----BEGIN")[2].partition(b"-----END")[0].decode()

    async with serve(**tls) as server:
        before = await asyncio.to_thread(served, server.port)
        renewed = trials.authority.server("renewed-server")
        pair[0].write_bytes(renewed.certificate.read_bytes())
        pair[1].write_bytes(renewed.key.read_bytes())

        async def other() -> bool:
            return await asyncio.to_thread(served, server.port) != before

        await eventually(other)
        assert "new certificates in use" in server.lines.getvalue()
