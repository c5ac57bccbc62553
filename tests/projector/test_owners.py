"""Exactly once, whatever becomes of the projectors: each ticket is what the fold makes of its events, each once."""

import asyncio
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from adapter.core.ticket import Policy, Status, Ticket, fold
from tests.projector.conftest import Running, Stage
from tests.projector.scribe import T0, Event, Scribe, answered, notified
from tests.support.broker import Cluster
from tests.support.processes import Process, Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "2"))
POLICY = Policy(timedelta(hours=48), timedelta(hours=6), timedelta(days=90))
TICKETS = 40


def happenings(seed: int) -> Callable[[], Event]:
    """Random events of a few tickets: out of order, repeated, of all states."""
    chance = random.Random(seed)
    past: list[Event] = []

    def happen() -> Event:
        if past and chance.random() < 0.1:
            return chance.choice(past[-200:])
        reference = f"SP-{chance.randrange(TICKETS)}"
        if chance.random() < 0.2:
            event = answered(reference, operation=chance.choice(["AddFaultReport", "AmendFaultReport"]))
        else:
            status = chance.choice([s.value for s in Status if s is not Status.RESOLVED])
            event = notified(reference, status, sent=T0 + timedelta(seconds=chance.randrange(100_000)))
        past.append(event)
        return event

    return happen


class Load:
    """Events without end, until it is told to end."""

    def __init__(self, scribe: Scribe, seed: int) -> None:
        self._scribe = scribe
        self._happen = happenings(seed)
        self._ending = False
        self._task = asyncio.ensure_future(self._run())

    async def end(self) -> None:
        self._ending = True
        await self._task

    async def _run(self) -> None:
        while not self._ending:
            await asyncio.to_thread(self._scribe.write, [self._happen() for _ in range(20)])
            await asyncio.sleep(0.04)  # as much as projectors fold on a machine with much else to do


@asynccontextmanager
async def load(stage: Stage, seed: int) -> AsyncIterator[Load]:
    running = Load(stage.scribe, seed)
    try:
        yield running
    finally:
        await running.end()


async def judge(stage: Stage) -> None:
    """Every ticket equals the fold of its events in their order, and was never written twice for the same ones."""
    tickets = await stage.folded()
    expected: dict[str, Ticket | None] = defaultdict(lambda: None)
    for key, event in await asyncio.to_thread(stage.scribe.events):
        reference = key.decode()
        expected[reference] = fold(expected[reference], reference, event, POLICY).ticket
    assert len(expected) == TICKETS
    assert tickets == {reference: ticket.record() for reference, ticket in expected.items() if ticket is not None}
    counts: dict[bytes, list[int]] = defaultdict(list)
    for record in await asyncio.to_thread(stage.scribe.history):
        assert record.ticket is not None
        counts[record.key].append(record.ticket["events"])
    assert all(before < after for each in counts.values() for before, after in pairwise(each))


@pytest.mark.timeout(600 + 60 * ROUNDS)
async def test_kill_9_under_load(stage: Stage, processes: Processes, tmp_path: Path) -> None:
    folders = [str(tmp_path / "tickets"), ""]  # the same disk, and none
    async with load(stage, seed=7):
        for number in range(ROUNDS):
            env = stage.rig.environment(PROJECTOR__STORE=folders[number % 2])
            process = await processes.adapter("projector", env=env).ready(_started)
            await stage.more(300)
            process.kill()
    async with stage.projector(PROJECTOR__STORE=folders[0]):
        await judge(stage)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_projectors_that_come_and_go_under_load(stage: Stage, protocol: str) -> None:
    more = {"KAFKA__GROUP_PROTOCOL": protocol}

    async with load(stage, seed=8) as running, stage.projector(**more) as first:
        await eventually(lambda: len(first.flow.partitions) == 4, what="all partitions")
        async with stage.projector(**more) as second:
            await eventually(partial(_shared, first, second), what="two partitions each")
            await stage.more(200)
        await eventually(lambda: len(first.flow.partitions) == 4, what="all partitions again")
        await stage.more(100)
        await running.end()
        await judge(stage)


async def test_one_that_was_stopped_and_goes_on_writes_nothing_of_what_another_has(
    stage: Stage, processes: Processes
) -> None:
    async with load(stage, seed=9) as running:
        sleeper = await processes.adapter("projector", env=stage.rig.environment()).ready(_started)
        await stage.more(200)
        sleeper.send(signal.SIGSTOP)
        async with stage.projector() as other:
            await eventually(lambda: len(other.flow.partitions) == 4, what="the sleeper's partitions")
            await stage.more(200)
            sleeper.send(signal.SIGCONT)
            await eventually(lambda: "partitions lost" in sleeper.output, what="the sleeper's awakening")
            await stage.more(200)
        await running.end()
        await judge(stage)
        assert await sleeper.stop() == 0


async def test_it_stops_in_time_while_the_broker_does_not_answer(
    kafka_cluster: Callable[..., Cluster], processes: Processes
) -> None:
    cluster = kafka_cluster()
    async with open_rig(cluster.bootstrap) as rig:
        stage = Stage(rig, Scribe(cluster.bootstrap, rig.registry.url, rig.topics))
        env = stage.rig.environment(KAFKA__TRANSACTION_TIMEOUT="3s")
        process = await processes.adapter("projector", env=env).ready(_started)
        await stage.write(*(notified(f"SP-{n}") for n in range(200)))
        await stage.folded()
        cluster.freeze()
        try:
            assert await process.stop(within=40) == 0
        finally:
            cluster.thaw()


def _shared(first: Running, second: Running) -> bool:
    return len(first.flow.partitions) == len(second.flow.partitions) == 2


def _started(process: Process) -> bool:
    return "partition started" in process.output
