"""Brokers that die under load, one by one and most of them at once: back-pressure, then on, and nothing is lost."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from confluent_kafka.admin import AdminClient

from adapter.twin import Fault, Kind
from adapter.twin.calls import overlaps, repeats
from tests.support import estate as say
from tests.support.broker import Cluster
from tests.support.estate import Command, unique
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually

OUTAGE = float(os.environ.get("FAULT_OUTAGE", "0"))
"""Seconds without a quorum. None, and only one node dies: the short version."""
KEYS = 20


class Load:
    """Commands for new tickets, a round at a time, as fast as they are finished."""

    def __init__(self, rig: Rig) -> None:
        self.commands: list[Command] = []
        self._rig = rig

    def send(self) -> list[Command]:
        keys = [unique() for _ in range(KEYS)]
        round_ = [build(key) for build in (say.add, say.amend, say.amend) for key in keys]
        estate = self._rig.estate
        estate.put_all([(estate.encode(command), command.key.encode()) for command in round_])
        self.commands += round_
        return round_

    async def done(self, *rounds: Sequence[Command], within: float) -> None:
        await self._rig.estate.all_final([command for each in rounds for command in each], within=within)


@pytest.mark.timeout(600 + 2 * OUTAGE)
async def test_the_coordinator_of_the_group_dies_under_load_and_then_the_others(
    kafka_cluster: Callable[..., Cluster], processes: Processes
) -> None:
    cluster = kafka_cluster(nodes=3)
    async with open_rig(cluster.bootstrap, partitions=6) as rig:
        rig.twin.inject(Fault(Kind.DELAY, seconds=0.1, jitter=0.1, times=None))

        async def start() -> Process:
            # A coordinator that dies may cost a worker its partitions, and then calls under way are in doubt.
            limits = {"AddFaultReport": "2s", "AmendFaultReport": "2s"}
            worker = processes.adapter("worker", env=rig.environment(SUPPLIER__DOUBT_LIMITS=json.dumps(limits)))
            return await worker.ready(lambda process: "partition started" in process.output, within=100)

        workers = [await start(), await start()]
        load = Load(rig)
        # Others lead some partitions, or coordinate transactions; this one made the client library wait for ever.
        first = coordinator(cluster.bootstrap, rig.group)
        others = [node for node in cluster.nodes if node != first] if OUTAGE else []
        for node in (first, *others):
            under_way = load.send()
            await eventually(lambda: len(rig.twin.log) >= len(load.commands) - 2 * KEYS, what="calls")
            await asyncio.to_thread(cluster.kill, node)
            await load.done(under_way, load.send(), within=100)
            if OUTAGE:
                cluster.restart(node)  # from this thread: a node dies with the one that started it
        if OUTAGE:
            await outage(cluster, rig, load)
            assert all(worker.exit_code is None for worker in workers)
        await rig.estate.caught_up(rig.group, within=100)
        for worker in workers:
            assert await worker.stop() == 0
        judge(rig, load.commands)


def coordinator(bootstrap: str, group: str) -> int:
    """The node that coordinates the group."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    found = client.describe_consumer_groups([group])[group].result(PATIENCE)
    return int(found.coordinator.id)


async def outage(cluster: Cluster, rig: Rig, load: Load) -> None:
    """Two of three nodes are gone for a while: nothing can be written, so no call that must not be repeated starts."""
    under_way = load.send()
    for node in (1, 2):
        cluster.kill(node)
    # What was written before has led to its calls, and these have ended.
    await eventually(lambda: all(call.finished is not None for call in rig.twin.calls), what="no call under way")
    calls = len(rig.twin.log)
    await asyncio.sleep(OUTAGE)  # the outage itself, not a wait for something
    assert len(rig.twin.log) - calls <= KEYS
    for node in (1, 2):
        cluster.restart(node)
    await load.done(under_way, load.send(), within=150)


def judge(rig: Rig, commands: Sequence[Command]) -> None:
    """One final event per command; none called twice, per key in order and never two at once."""
    rig.estate.look()
    finals = Counter(command.command_id for command in commands for _ in rig.estate.finals(command))
    kinds = Counter(event.type for event in rig.estate.events)
    print(dict(kinds))
    assert set(finals.values()) == {1}
    assert len(finals) == len(commands)
    assert not repeats(rig.twin.calls)
    assert not overlaps(rig.twin.calls)
    for key in {command.key for command in commands}:
        sent = [command.command_id for command in commands if command.key == key]
        told = [e.record["commandId"] for e in rig.estate.events if e.final and e.key == key.encode()]
        assert told == sent
    assert kinds["CommandOutcomeUnknown"] == kinds["CommandSettled"]
