"""A ticket in doubt and what waits behind it, while workers come and go: nothing is lost, repeated or out of order."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from adapter.core.partition import partition_of
from adapter.twin import Fault, Kind
from adapter.twin.calls import overlaps, repeats
from tests.support import estate as say
from tests.support.estate import Command, unique
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import eventually

PARTITIONS = 2


@pytest_asyncio.fixture
async def rig(kafka: str) -> AsyncIterator[Rig]:
    async with open_rig(kafka, partitions=PARTITIONS) as opened:
        yield opened


def settings(limit: str) -> dict[str, str]:
    return {
        "WORKER__PARKED_AFTER": "200ms",
        "SUPPLIER__DOUBT_LIMITS": f'{{"AddFaultReport": "{limit}"}}',
        "KAFKA__TRANSACTION_TIMEOUT": "3s",
    }


def keys_of(partition: int, count: int) -> list[str]:
    """Keys that lie in that partition."""
    keys = (unique() for _ in itertools.count())
    return list(itertools.islice((k for k in keys if partition_of(k.encode(), PARTITIONS) == partition), count))


async def stuck(rig: Rig, key: str) -> list[Command]:
    """A ticket whose opening is in doubt, and what the estate asks for after that."""
    opening = say.add(key)
    rig.twin.inject(Fault(Kind.CLOSE, key=key, taken=True))
    rig.estate.send(opening)
    await rig.estate.doubt(opening)
    behind = [say.amend(key), say.resolve(key), say.amend(key)]
    for command in behind:
        rig.estate.send(command)
    return [opening, *behind]


async def parked(rig: Rig) -> None:
    """The frontier has passed all there is: what waits is in the journal alone."""
    await rig.estate.caught_up(rig.group)


async def all_done(rig: Rig, tickets: Sequence[Sequence[Command]]) -> None:
    for commands in tickets:
        await rig.estate.all_final(commands)
    await rig.estate.caught_up(rig.group)
    for commands in tickets:
        opening, *behind = commands
        doubt, end = rig.estate.of(opening)
        assert (doubt.type, end.type) == ("CommandOutcomeUnknown", "CommandSettled")
        assert (end.record["outcome"], end.record["settledBy"]) == ("UNDETERMINED", "TIME_LIMIT")
        events = [event for event in rig.estate.events if event.record["buyerFaultReference"] == opening.key]
        assert [event.record["commandId"] for event in events[2:]] == [command.command_id for command in behind]
        calls = [call for call in rig.twin.calls if call.key == opening.key]
        assert [call.message_id for call in calls] == [event.record["messageId"] for event in events[1:]]
        assert not repeats(calls)
        assert not overlaps(calls)


async def test_what_is_parked_outlives_a_restart_of_the_worker(rig: Rig) -> None:
    async with rig.worker(**settings("15s")):
        commands = await stuck(rig, unique())
        await parked(rig)
    assert not rig.estate.finals(commands[1])
    async with rig.worker(**settings("15s")) as worker:
        await eventually(lambda: worker.metric("doubts_held") == 1, what="the doubt being held again")
        await all_done(rig, [commands])
        await eventually(lambda: worker.metric("doubts_held") == 0, what="no doubt being held")


async def test_what_is_parked_outlives_the_kill_of_the_worker(rig: Rig, processes: Processes) -> None:
    async def start() -> Process:
        worker = processes.adapter("worker", env=rig.environment(**settings("9s")))
        return await worker.ready(lambda process: process.output.count("partition started") == PARTITIONS)

    worker = await start()
    commands = await stuck(rig, unique())
    await parked(rig)
    worker.kill()
    successor = await start()
    assert not rig.estate.finals(commands[0])
    await all_done(rig, [commands])
    assert await successor.stop() == 0


@pytest.mark.parametrize(
    ("protocol", "properties"),
    [("classic", '{"heartbeat.interval.ms": "300"}'), ("consumer", "{}")],  # with the second the broker says how often
    ids=["classic", "consumer"],
)
async def test_what_is_parked_moves_with_its_partition(rig: Rig, protocol: str, properties: str) -> None:
    more = {**settings("20s"), "KAFKA__GROUP_PROTOCOL": protocol, "KAFKA__PROPERTIES": properties}
    async with rig.worker(**more) as first:
        keys = [key for partition in range(PARTITIONS) for key in keys_of(partition, 2)]
        tickets = await asyncio.gather(*(stuck(rig, key) for key in keys))
        await parked(rig)
        async with rig.worker(**more) as second:
            await eventually(lambda: second.flow.assignments, what="a partition moving")
            await eventually(
                lambda: first.metric("doubts_held") + second.metric("doubts_held") == len(keys),
                what="all doubts being held again",
            )
            later = [say.amend(key) for key in keys]  # queues behind what is parked
            for command in later:
                rig.estate.send(command)
            await all_done(rig, [[*ticket, command] for ticket, command in zip(tickets, later, strict=True)])
        assert not first.running.done()
