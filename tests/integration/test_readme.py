"""The README's Python, run as it stands by the clients it is written for, against a real broker."""

import re
import sys
from pathlib import Path

from tests.server.conftest import SAMPLE, serving
from tests.support import estate as say
from tests.support.processes import ROOT, Processes
from tests.support.rig import Rig, open_rig

RESOLVED = SAMPLE.replace(b"SP-123ABC", b"SP-2001").replace(b"in-progress", b"Resolved")


def blocks(rig: Rig) -> list[str]:
    """The Python of the README, with the addresses and topics of this test."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    head = f"KAFKA, REGISTRY = {rig.bootstrap!r}, {rig.registry.url!r}\n"
    names = {"fault.commands": rig.topics.commands, "fault.events": rig.topics.events}
    for written, real in names.items():
        found = [block.replace(f'"{written}"', repr(real)) for block in found]
    return [head + block for block in found]


async def test_the_readmes_producer_and_consumer_work_as_they_stand(
    kafka: str, processes: Processes, tmp_path: Path
) -> None:
    async with open_rig(kafka) as rig, rig.worker(), serving(rig) as server:
        producer, consumer = blocks(rig)
        shown = processes.adapter("schemas", "show", "AddFaultReport")
        assert await shown.ended() == 0
        (tmp_path / "AddFaultReport.avsc").write_text(shown.output)
        rig.estate.put(rig.estate.encode(say.add("SP-2000")), b"\xff")  # by a producer whose key is no text
        reading = processes.start(sys.executable, "-c", consumer, cwd=tmp_path)
        await reading.ready(lambda process: "no: invalid" in process.output)
        for _ in range(2):  # another report of the same reference is refused
            sending = processes.start(sys.executable, "-c", producer, cwd=tmp_path)
            assert await sending.ended() == 0, sending.tail()
        await reading.ready(lambda process: "SP-2001 no: 409" in process.output)
        assert "SP-2001 FaultReportAdded" in reading.output
        assert (await server.post(RESOLVED))[0] == 200
        await reading.ready(lambda process: "SP-2001 is resolved [" in process.output)
        assert reading.exit_code is None, reading.tail()
