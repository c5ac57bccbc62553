"""The system's clock is set by hours, both ways, under worker, server and projector: nothing is lost, no doubt ends."""

import asyncio
from pathlib import Path

import aiohttp

from adapter.twin import Fault, Kind
from tests.projector.scribe import Scribe
from tests.server.conftest import PLAIN, notification, port_of
from tests.support import estate as say
from tests.support.clock import Clock
from tests.support.estate import Command, unique
from tests.support.processes import Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import eventually

HOUR = 3600.0
SESSION = 10.0
"""Seconds after which the group gives up a member that is not heard."""


async def test_a_clock_that_is_set_back_and_ahead_loses_nothing_and_settles_nothing(
    kafka: str, processes: Processes, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    async with open_rig(kafka, partitions=2) as rig:
        environment = clock.environment | rig.environment(
            **PLAIN,
            KAFKA__SESSION_TIMEOUT=f"{SESSION:g}s",
            KAFKA__TRANSACTION_TIMEOUT="3s",
            SUPPLIER__DOUBT_LIMITS='{"AddFaultReport": "1h"}',
            WORKER__PARKED_AFTER="20ms",  # then it looks at a doubt as often
            SERVER__PUBLISH_TIMEOUT="2s",
            SERVER__SPOOL__PATH=str(tmp_path / "spool.db"),
        )
        worker, server, projector = (processes.adapter(r, env=environment) for r in ("worker", "server", "projector"))
        await server.ready(port_of)
        for process in (worker, projector):
            await process.ready(lambda p: p.output.count("partition started") == 2)
        url = f"http://127.0.0.1:{port_of(server)}/notify"
        doubtful = say.add(unique())
        rig.twin.inject(Fault(Kind.CLOSE, key=doubtful.key, taken=True))
        rig.estate.send(doubtful)
        await rig.estate.doubt(doubtful)

        clock.set(2 * HOUR)  # Kafka refuses what is written more than an hour in the future
        ahead = send(rig)
        await notify(url, ahead)
        await worker.ready(lambda p: "transaction not committed" in p.output)
        rig.estate.look()
        assert not [command for command in ahead if rig.estate.of(command)]

        clock.set(0)
        await rig.estate.all_final(ahead)
        assert not rig.estate.finals(doubtful)

        clock.set(-HOUR)
        await asyncio.sleep(SESSION + 1)  # the time of the session itself: nobody is missed meanwhile
        back = send(rig)
        await notify(url, back)
        await rig.estate.all_final(back)

        clock.set(0)
        await notify(url, [doubtful])
        settled = await rig.estate.final(doubtful)
        assert (settled.record["outcome"], settled.record["settledBy"]) == ("ACCEPTED", "NOTIFICATION")
        assert {event.type for command in (*back, *ahead) for event in rig.estate.of(command)} == {"FaultReportAdded"}
        await in_their_tickets(rig, (*back, *ahead, doubtful))
        for process in (worker, server, projector):
            assert await process.stop() == 0
            assert "partitions lost" not in process.output


def send(rig: Rig) -> list[Command]:
    commands = [say.add(unique()) for _ in range(10)]
    rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
    return commands


async def notify(url: str, commands: list[Command]) -> None:
    """Each is acknowledged."""
    async with aiohttp.ClientSession() as client:
        for command in commands:
            async with client.post(url, data=notification(command.key)) as reply:
                assert reply.status == 200


async def in_their_tickets(rig: Rig, commands: tuple[Command, ...]) -> None:
    """Outcome and notification of each are in its ticket."""
    scribe = Scribe(rig.bootstrap, rig.registry.url, rig.topics)

    async def folded() -> bool:
        tickets = await asyncio.to_thread(scribe.tickets)
        return all((tickets.get(command.key) or {"events": 0})["events"] >= 2 for command in commands)

    await eventually(folded, what="the tickets")
