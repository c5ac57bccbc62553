"""What people's names, numbers and words must never reach: log lines, metrics, the status page."""

import re

import aiohttp

from adapter.twin.faults import Fault, Kind
from tests.server.conftest import PLAIN, notification
from tests.support.estate import add, amend, unique
from tests.support.processes import Process, Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually

MARKS = ("Zaphod Marked", "07700900123", "zaphod.marked@example.org", "Marked words of a customer", "1 Marked Lane")
CONTACT = {"name": MARKS[0], "phone": MARKS[1], "email": MARKS[2]}
REPORT = {
    "reporterContactDetails": CONTACT,
    "endUserContactDetails": CONTACT,
    "faultDetails": {"type": "IMPAIRED_SERVICE", "description": MARKS[3], "faultLocation": MARKS[4]},
}
UNCLEAR = (Kind.SOAP_FAULT, Kind.HTML, Kind.MALFORMED, Kind.RESET, Kind.OTHER_ELEMENT, Kind.DOCTYPE)


async def test_no_output_carries_what_a_command_or_a_notification_says(kafka: str, processes: Processes) -> None:
    async with open_rig(kafka) as rig:
        more = {"PROJECTOR__GROUP_ID": f"{rig.topics.prefix}-projectors", "TELEMETRY__LOG_LEVEL": "debug"}
        more["SUPPLIER__DOUBT_LIMITS"] = '{"AddFaultReport": "500ms"}'
        process = processes.adapter("run", env=rig.environment(**PLAIN, **more))
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

        port = _said(process, '"event":"server starts","flow":"server","port":([0-9]+)')
        telemetry = _said(process, '"telemetry":"([^"]+)"')
        marked = notification(first).decode().replace("</", f"<!-- --><x>{' '.join(MARKS)}</x></", 1).encode()
        bodies = [
            notification(first),
            marked,
            marked[: len(marked) // 2],
            b"<!DOCTYPE x>" + marked,
            f"<a>{' '.join(MARKS)}</a>".encode(),
            " ".join(MARKS).encode(),
        ]
        async with aiohttp.ClientSession() as client:
            for body in bodies:
                async with client.post(f"http://127.0.0.1:{port}/{MARKS[1]}?{MARKS[2]}", data=body) as answer:
                    assert answer.status in {200, 400}
            async with client.get(f"http://127.0.0.1:{port}/{MARKS[1]}") as answer:
                assert answer.status == 405
            await eventually(lambda: process.output.count('"event":"notification not readable"') >= 3, within=10)
            pages = []
            for page in ("metrics", "status", "health/ready"):
                async with client.get(f"{telemetry}/{page}") as answer:
                    pages.append(await answer.text())
        assert await process.stop(within=30) == 0

    everything = "\n".join((process.output, *pages))
    assert '"event":"outcome"' in everything, "there was something to look at"
    assert '"event":"dead letter"' in everything
    assert '"level":"debug"' in everything
    for mark in (*MARKS, *MARKS[0].split(), "-----BEGIN"):
        assert mark not in everything


def _said(process: Process, pattern: str) -> str:
    found = re.search(pattern, process.output)
    assert found is not None, process.output
    return found[1]
