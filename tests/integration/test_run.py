"""`adapter run`: a command goes out, a notification comes in, and both are in the ticket; one stop ends all."""

import asyncio
import re
from contextlib import suppress
from typing import Any

import aiohttp

from tests.projector.scribe import Scribe
from tests.server.conftest import PLAIN, notification
from tests.support.estate import add, unique
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually


async def test_all_flows_in_one_process(kafka: str, processes: Processes) -> None:
    async with open_rig(kafka) as rig:
        process = processes.adapter("run", env=rig.environment(**PLAIN))
        await process.ready(lambda p: len(set(re.findall('"event":"(worker|server|projector) starts"', p.output))) == 3)
        url = process.said('"telemetry":"([^"]+)"')
        async with aiohttp.ClientSession() as client:

            async def ready() -> bool:
                async with client.get(f"{url}/health/ready") as answer:
                    return answer.status == 200

            await eventually(ready, what="readiness")
            reference = unique()
            rig.estate.send(command := add(reference))
            await rig.estate.final(command)
            port = process.said('"event":"server starts","flow":"server","port":([0-9]+)')
            async with client.post(f"http://127.0.0.1:{port}/notify", data=notification(reference)) as answer:
                assert answer.status == 200
            scribe = Scribe(kafka, rig.registry.url, rig.topics)

            async def whole() -> dict[str, Any] | None:
                ticket = (await asyncio.to_thread(scribe.tickets)).get(reference)
                return ticket if ticket is not None and ticket["events"] == 2 else None

            ticket = await eventually(whole, what="the ticket")
            assert ticket is not None
            assert ticket["origin"] == "BUYER"
            assert ticket["report"] is not None
            async with client.get(f"{url}/status") as answer:
                assert {"calls", "connections", "tickets"} <= set(await answer.json())
        assert await process.stop() == 0
        assert process.output.count('"event":"stopped"') == 1


async def test_a_flow_that_waits_for_kafka_is_not_ready_and_stops_when_it_is_told(processes: Processes) -> None:
    environment = {
        "ADAPTER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "ADAPTER_REGISTRY__URL": f"http://127.0.0.1:{free_port()}",
        "ADAPTER_SUPPLIER__BASE_URL": f"http://127.0.0.1:{free_port()}",
        "ADAPTER_SUPPLIER__ALLOW_PLAINTEXT": "true",
        "ADAPTER_SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
        "ADAPTER_TELEMETRY__HOST": "127.0.0.1",
        "ADAPTER_TELEMETRY__PORT": str(port := free_port()),
        **{f"ADAPTER_{name}": value for name, value in PLAIN.items()},
    }
    process = processes.adapter("run", env=environment)
    async with aiohttp.ClientSession() as client:

        async def alive() -> bool:
            with suppress(aiohttp.ClientConnectionError):
                async with client.get(f"http://127.0.0.1:{port}/health/live") as answer:
                    return answer.status == 200
            return False

        await eventually(alive, what="life")

        async def told() -> bool:
            async with client.get(f"http://127.0.0.1:{port}/health/ready") as answer:
                assert answer.status == 503
                reasons = [reason.split(": ") for reason in (await answer.json())["reasons"]]
            assert [reason[0] for reason in reasons] == [
                "the projector is starting",
                "the server is starting",
                "the worker is starting",
            ]
            return all(reason[1:2] == ["it waits for Kafka"] for reason in reasons)

        await eventually(told, what="why they are not ready")
    assert await process.stop(within=40) == 0


async def test_if_one_flow_can_not_go_on_all_stop_and_the_reason_is_told(kafka: str, processes: Processes) -> None:
    async with open_rig(kafka) as rig:
        process = processes.adapter("run", env=rig.environment(SERVER__PORT="0"))  # no certificate, no plain listener
        assert await process.ended() == 2
        assert "adapter: ADAPTER_SERVER__TLS__CERTIFICATE: is missing" in process.output
