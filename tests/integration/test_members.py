"""Workers that join and leave under load, as real processes: nothing is lost, nothing done twice, order is kept.

FAULT_ROUNDS=50 makes a storm of it.
"""

import asyncio
import json
import os
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from adapter.twin import Fault, Kind
from adapter.twin.calls import overlaps, repeats
from tests.support import estate as say
from tests.support.estate import Command, unique
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import eventually

KEYS = 30
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
"""Times that the oldest of three workers leaves and another one joins."""
LONGER = 10.0
"""Seconds a call takes: longer than a session of either protocol."""
BACKLOG = 90
"""Commands that wait or are under way at any time."""


@pytest_asyncio.fixture
async def rig(kafka: str) -> AsyncIterator[Rig]:
    async with open_rig(kafka, partitions=6) as opened:
        opened.twin.inject(Fault(Kind.DELAY, seconds=0.1, jitter=0.1, times=None))
        yield opened


@pytest.mark.timeout(600 + 30 * ROUNDS)
@pytest.mark.parametrize(
    ("protocol", "properties"),
    [("classic", {"heartbeat.interval.ms": "300"}), ("consumer", {})],  # with the second the broker says how often
    ids=["classic", "consumer"],
)
async def test_workers_join_and_leave_under_load_and_nobody_notices(
    rig: Rig, processes: Processes, protocol: str, properties: dict[str, str]
) -> None:
    environment = rig.environment(
        KAFKA__GROUP_PROTOCOL=protocol,
        KAFKA__PROPERTIES=json.dumps(properties),
        KAFKA__SESSION_TIMEOUT="30s",  # nobody dies here
    )

    async def start() -> Process:
        worker = processes.adapter("worker", env=environment)
        return await worker.ready(lambda process: "partition started" in process.output)

    load = Load(rig)
    first = await start()
    feeding = asyncio.ensure_future(load.run())
    await load.progress()
    second = await start()
    await load.progress()
    assert await first.stop() == 0
    gone = [first]
    await load.progress()
    workers = [second, await start()]
    for _ in range(ROUNDS):
        await load.progress()
        leaving = workers.pop(0)
        assert await leaving.stop() == 0
        gone.append(leaving)
        await load.progress()
        if ROUNDS > 1:
            workers += [await start() for _ in range(3 - len(workers))]
    load.enough = True
    await feeding
    await rig.estate.all_final(load.commands)
    for worker in workers:
        assert await worker.stop() == 0

    judge(rig, load.commands)
    await rig.estate.caught_up(rig.group)
    for process in (*gone, *workers):
        assert "partitions lost" not in process.output
    # Else nothing was under way when partitions moved, and all of this proves nothing.
    for process in gone[:2]:
        assert max(seconds_to_give_back(process)) > 0.02


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_worker_that_leaves_keeps_its_partitions_for_as_long_as_its_calls_take(
    rig: Rig, processes: Processes, protocol: str
) -> None:
    environment = rig.environment(KAFKA__GROUP_PROTOCOL=protocol, KAFKA__SESSION_TIMEOUT="3s")
    leaving = processes.adapter("worker", env=environment)
    await leaving.ready(lambda process: process.output.count("partition started") == rig.topics.partitions)
    rig.twin.inject(Fault(Kind.DELAY, seconds=LONGER))
    command = say.add(unique())
    rig.estate.send(command)
    await eventually(lambda: rig.twin.log, what="the call")
    leaving.send(signal.SIGTERM)
    staying = processes.adapter("worker", env=environment)
    assert await leaving.ended() == 0
    await rig.estate.final(command)
    assert [event.type for event in rig.estate.of(command)] == ["FaultReportAdded"]
    assert await staying.stop() == 0
    assert len(rig.twin.calls) == 1


class Load:
    """Commands for some tickets, again and again: as fast as they are called, a constant number ahead of it."""

    def __init__(self, rig: Rig) -> None:
        self.commands: list[Command] = []
        self.enough = False
        self._rig = rig
        self._called = len(rig.twin.calls)

    async def run(self) -> None:
        references = [unique() for _ in range(KEYS)]
        self._send([say.add(reference) for reference in references])
        while not self.enough:
            await self._rig.estate.heard(
                lambda: self.called >= len(self.commands) - BACKLOG, what="the calls that are due"
            )
            build = (say.amend, say.amend, say.resolve)[len(self.commands) // KEYS % 3]
            self._send([build(reference) for reference in references])

    async def progress(self) -> None:
        """Returns when all that was sent before this was asked has been called."""
        sent = len(self.commands)
        await self._rig.estate.heard(lambda: self.called >= sent + KEYS, what="calls going on")

    @property
    def called(self) -> int:
        return len(self._rig.twin.log) - self._called

    def _send(self, commands: Sequence[Command]) -> None:
        estate = self._rig.estate
        estate.put_all([(estate.encode(command), command.key.encode()) for command in commands])
        self.commands += commands


def seconds_to_give_back(process: Process) -> list[float]:
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    return [line["seconds"] for line in lines if line["event"] == "partitions given back"]


def judge(rig: Rig, commands: Sequence[Command]) -> None:
    """One final event per command, none in doubt, each called once, per key in order and never two at once."""
    finals = Counter(event.record["commandId"] for event in rig.estate.events if event.final)
    assert set(finals) == {command.command_id for command in commands}
    assert set(finals.values()) == {1}
    assert not [event for event in rig.estate.events if not event.final]

    keys = {command.key for command in commands}
    calls = [call for call in rig.twin.calls if call.key in keys]
    assert not repeats(calls)
    assert not overlaps(calls)
    sent: defaultdict[str, list[str]] = defaultdict(list)
    for command in commands:
        (event,) = rig.estate.finals(command)
        sent[command.key].append(event.record["messageId"])
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.received):
        asked[call.key or ""].append(call.message_id or "")
    assert asked == sent
