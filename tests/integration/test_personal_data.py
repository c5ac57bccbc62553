"""What people's names, numbers and words, and keys, must never reach: log lines, metrics, the status page, spans."""

import re
import shutil
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adapter.twin.faults import Fault, Kind
from tests.server.conftest import PLAIN, notification
from tests.support.certificates import Trials
from tests.support.collector import collector
from tests.support.estate import add, amend, unique
from tests.support.processes import Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually

MARKS = ("Zaphod Marked", "07700900123", "zaphod.marked@example.org", "Marked words of a customer", "1 Marked Lane")
CONTACT = {"name": MARKS[0], "phone": MARKS[1], "email": MARKS[2]}
REPORT = {
    "reporterContactDetails": CONTACT,
    "endUserContactDetails": CONTACT,
    "faultDetails": {"type": "IMPAIRED_SERVICE", "description": MARKS[3], "faultLocation": MARKS[4]},
}
SECRET = "TWFya2VkIGtleSBvZiBub2JvZHk="
UNCLEAR = (Kind.SOAP_FAULT, Kind.HTML, Kind.MALFORMED, Kind.RESET, Kind.OTHER_ELEMENT, Kind.DOCTYPE)


async def test_no_output_carries_what_a_command_or_a_notification_says_or_what_is_in_a_key(
    kafka: str, processes: Processes, trials: Trials, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    secrets = trials.good.server_key.read_text().splitlines()[1:-1]
    shutil.copy(trials.good.server_key, key)
    spans: list[Any] = []
    async with open_rig(kafka) as rig, collector(spans) as endpoint:
        more = {
            "TELEMETRY__LOG_LEVEL": "debug",
            "TELEMETRY__TRACING": "true",
            "SUPPLIER__DOUBT_LIMITS": '{"AddFaultReport": "500ms"}',
            "SERVER__ALLOW_PLAINTEXT": "false",
            "SERVER__TLS__CERTIFICATE": str(trials.good.server_certificate),
            "SERVER__TLS__KEY": str(key),
            "SERVER__TLS__CA": str(trials.good.ca),
        }
        standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        process = processes.adapter("run", env=rig.environment(**(PLAIN | more)) | standard)
        await process.ready(lambda p: len(set(re.findall('"event":"(worker|server|projector) starts"', p.output))) == 3)

        first = unique()
        sent = [add(first, **REPORT), amend(first, **REPORT)]
        for command in sent:
            rig.estate.send(command)
        await rig.estate.all_final(sent)
        for kind in UNCLEAR:
            command = add(unique(), **REPORT)
            rig.twin.inject(Fault(kind, key=command.key))
            rig.estate.send(command)
            sent.append(command)
        refused = add(unique(), **REPORT)
        rig.twin.inject(Fault(Kind.REFUSE, key=refused.key, text=f"{MARKS[0]} is unknown"))
        too_long = add(unique(), **(REPORT | {"reporterContactDetails": {"name": MARKS[0] * 100}}))
        for command in (refused, too_long):
            rig.estate.send(command)
        await rig.estate.all_final([*sent, refused, too_long])
        letter = rig.estate.put(b"\0\0\0\0\1" + " ".join(MARKS).encode(), b"SP-X")
        await rig.estate.letter(letter)

        port = process.said('"event":"server starts","flow":"server","port":([0-9]+)')
        telemetry = process.said('"telemetry":"([^"]+)"')
        marked = notification(first).decode().replace("</", f"<!-- --><x>{' '.join(MARKS)}</x></", 1).encode()
        bodies = [
            notification(first),
            marked,
            marked[: len(marked) // 2],
            b"<!DOCTYPE x>" + marked,
            f"<a>{' '.join(MARKS)}</a>".encode(),
            " ".join(MARKS).encode(),
        ]
        packed = {"Content-Encoding": "gzip", "SOAPAction": MARKS[0], "Content-Type": f"text/xml; charset={MARKS[1]}"}
        tls = ssl.create_default_context(cafile=trials.good.ca)
        tls.load_cert_chain(trials.good.client_certificate, trials.good.client_key)
        stranger = ssl.create_default_context(cafile=trials.good.ca)
        stranger.load_cert_chain(trials.unknown_client.certificate, trials.unknown_client.key)
        url = f"https://127.0.0.1:{port}/{MARKS[1]}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as client:
            for body in bodies:
                for headers in ({}, packed, packed | {"Content-Encoding": "identity"}):
                    async with client.post(f"{url}?{MARKS[2]}", data=body, headers=headers) as answer:
                        assert answer.status in {200, 400}
            async with client.get(url) as answer:
                assert answer.status == 405
            with pytest.raises(aiohttp.ClientError):
                await client.post(url, data=marked, ssl=stranger)
            key.write_text(f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n")
            await eventually(lambda: '"event":"new certificates are not used"' in process.output)
            await eventually(lambda: process.output.count('"event":"notification not readable"') >= 3)
            pages = []
            for page in ("metrics", "status", "health/ready"):
                async with client.get(f"{telemetry}/{page}") as answer:
                    pages.append(await answer.text())
        assert await process.stop() == 0

    assert {span.kind for span in spans} == {2, 3, 4, 5}, "server, client, producer and consumer"
    everything = "\n".join((process.output, *pages, *map(str, spans)))
    assert '"event":"outcome"' in everything, "there was something to look at"
    assert '"event":"dead letter"' in everything
    assert '"level":"debug"' in everything
    assert '"reason":"tls"' in everything
    for mark in (*MARKS, *MARKS[0].split(), "-----BEGIN", SECRET, *secrets):
        assert mark not in everything
