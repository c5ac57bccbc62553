"""Order per ticket, concurrency across tickets."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from adapter.twin import Fault, Kind
from adapter.twin.calls import overlaps, repeats
from tests.support import estate as say
from tests.support.estate import unique
from tests.support.rig import Member, Rig, open_rig
from tests.support.wait import eventually

BATCH = 500
"""Records that may come at once, before a partition is paused."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(kafka: str) -> AsyncIterator[Rig]:
    async with open_rig(kafka, partitions=2) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(rig: Rig) -> AsyncIterator[Member]:
    async with rig.worker() as member:
        yield member


async def test_two_hundred_commands_of_five_keys_run_in_order_and_never_two_of_a_key(rig: Rig, worker: Member) -> None:
    keys = [unique() for _ in range(5)]
    rig.twin.inject(Fault(Kind.DELAY, key="|".join(keys), seconds=0.0, jitter=0.05, times=None))
    rig.twin.inject(Fault(Kind.STATUS, status=503, key="|".join(keys), probability=0.05, seed=1, times=None))
    commands = [say.add(key) for key in keys]
    rest = [build(key) for key in keys for build in (say.amend,) * 20 + (say.resolve,) * 19]
    random.shuffle(rest)
    commands += rest
    rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
    await rig.estate.all_final(commands)

    sent, asked, told = (defaultdict[str, list[str]](list) for _ in range(3))
    calls = [call for call in rig.twin.calls if call.key in keys]
    for command in commands:
        (event,) = rig.estate.finals(command)
        sent[command.key].append(event.record["messageId"])
    for call in calls:
        ids = asked[call.key or ""]
        if call.message_id not in ids[-1:]:  # else it is called again
            ids.append(call.message_id or "")
    for event in rig.estate.events:
        if (event.key or b"").decode() in keys:
            told[(event.key or b"").decode()].append(event.record["messageId"])
    assert asked == sent
    assert told == sent
    assert not overlaps(calls)
    assert set(repeats(calls).values()) == {1}  # called again only after a call that was not taken


async def test_a_slow_key_holds_up_nobody_else(rig: Rig, worker: Member) -> None:
    slow, others = say.add(unique()), [say.add(unique()) for _ in range(40)]
    behind = say.amend(slow.key)
    rig.twin.inject(Fault(Kind.DELAY, key=slow.key, seconds=12.0))
    for command in (slow, behind, *others):
        rig.estate.send(command)
    await rig.estate.all_final(others)
    assert not rig.estate.of(slow)
    assert (await rig.estate.final(slow)).type == "FaultReportAdded"
    assert (await rig.estate.final(behind)).type == "FaultReportAmended"


async def test_commands_of_different_keys_run_side_by_side_far_beyond_the_partitions(rig: Rig, worker: Member) -> None:
    commands = [say.add(unique("WIDE")) for _ in range(60)]
    rig.twin.inject(Fault(Kind.DELAY, key="WIDE-.*", seconds=2.0, times=None))
    rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
    await rig.estate.all_final(commands)
    calls = [call for call in rig.twin.calls if (call.key or "").startswith("WIDE")]
    assert max(sum(c.received <= at.received < (c.finished or 0) for c in calls) for at in calls) > 40


async def test_a_full_window_pauses_the_intake_and_loses_nothing(kafka: str) -> None:
    async with open_rig(kafka, partitions=1) as rig, rig.worker(WORKER__WINDOW_RECORDS="64") as worker:
        rig.twin.inject(Fault(Kind.STATUS, status=503, times=None))
        commands = [say.add(unique()) for _ in range(64 + BATCH + 100)]
        rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
        await rig.estate.heard(lambda: worker.metric("partition_paused", partition="0"), what="the pause")
        assert 64 <= worker.metric("window_records") < 64 + BATCH
        rig.twin.clear()
        await rig.estate.all_final(commands)
        assert not repeats(call for call in rig.twin.calls if call.taken)
        await rig.estate.caught_up(rig.group)
        await eventually(lambda: worker.metric("partition_paused", partition="0") == 0, what="the end of the pause")
