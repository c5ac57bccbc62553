"""`adapter run`: a command goes out, a notification comes in, and both are in the ticket; one stop ends all."""

import asyncio
import re
from typing import Any

import aiohttp

from tests.projector.scribe import Scribe
from tests.server.conftest import PLAIN, notification
from tests.support.estate import add, unique
from tests.support.processes import Process, Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually


async def test_all_flows_in_one_process(kafka: str, processes: Processes) -> None:
    async with open_rig(kafka) as rig:
        more = PLAIN | {"PROJECTOR__GROUP_ID": f"{rig.topics.prefix}-projectors"}
        process = processes.adapter("run", env=rig.environment(**more))
        await process.ready(lambda p: len(set(re.findall('"event":"(worker|server|projector) starts"', p.output))) == 3)
        url = _said(process, '"telemetry":"([^"]+)"')
        async with aiohttp.ClientSession() as client:

            async def ready() -> bool:
                async with client.get(f"{url}/health/ready") as answer:
                    return answer.status == 200

            await eventually(ready, within=30, what="readiness")
            reference = unique()
            rig.estate.send(command := add(reference))
            await rig.estate.final(command)
            port = _said(process, '"event":"server starts","flow":"server","port":([0-9]+)')
            async with client.post(f"http://127.0.0.1:{port}/notify", data=notification(reference)) as answer:
                assert answer.status == 200
            scribe = Scribe(kafka, rig.registry.url, rig.topics)

            async def whole() -> dict[str, Any] | None:
                ticket = (await asyncio.to_thread(scribe.tickets)).get(reference)
                return ticket if ticket is not None and ticket["events"] == 2 else None

            ticket = await eventually(whole, within=20, what="the ticket")
            assert ticket is not None
            assert ticket["origin"] == "BUYER"
            assert ticket["report"] is not None
            async with client.get(f"{url}/status") as answer:
                assert {"calls", "connections", "tickets"} <= set(await answer.json())
        assert await process.stop(within=30) == 0
        assert process.output.count('"event":"stopped"') == 1


def _said(process: Process, pattern: str) -> str:
    found = re.search(pattern, process.output)
    assert found is not None, process.output
    return found[1]
