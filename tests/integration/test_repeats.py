"""A command that comes again, at once or after a restart, is neither called nor answered twice."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from adapter.twin import Fault, Kind
from tests.support import estate as say
from tests.support.estate import Command, unique
from tests.support.rig import Member, Rig, open_rig
from tests.support.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(rig: Rig) -> AsyncIterator[Member]:
    async with rig.worker() as member:
        yield member


def again(command: Command, **changes: Any) -> Command:
    """The same commandId."""
    return Command(command.name, command.key, {**command.record, **changes}, command_id=command.command_id)


def calls(rig: Rig, command: Command) -> int:
    return sum(call.key == command.key for call in rig.twin.calls)


async def nothing_more(rig: Rig, command: Command, *, outcomes: int) -> None:
    """All that was sent has been finished, with that many outcomes and as many calls."""
    await rig.estate.caught_up(rig.group)
    rig.estate.look()
    assert len(rig.estate.of(command)) == outcomes
    assert calls(rig, command) == outcomes


async def test_the_same_command_again_has_one_outcome(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    before = worker.metric("commands_repeated_total", operation="AddFaultReport")
    rig.estate.send(command)
    rig.estate.send(command)
    await rig.estate.final(command)
    rig.estate.send(again(command, notAfter=datetime.now(UTC) + timedelta(hours=1), correlationId="another"))
    await nothing_more(rig, command, outcomes=1)
    assert worker.metric("commands_repeated_total", operation="AddFaultReport") == before + 2


async def test_the_same_command_again_while_its_call_is_under_way_has_one_outcome(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    rig.twin.inject(Fault(Kind.DELAY, key=command.key, seconds=0.3))
    rig.estate.send(command)
    await rig.estate.heard(lambda: calls(rig, command), what="the call")
    rig.estate.put(rig.estate.encode(command), unique().encode())  # in another lane
    await rig.estate.final(command)
    await nothing_more(rig, command, outcomes=1)


async def test_the_same_id_with_other_content_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    rig.estate.send(command)
    await rig.estate.final(command)
    other = again(command, serviceAffected="S-OTHER")
    letter = await rig.estate.letter(rig.estate.send(other))
    assert letter.reason == "command-id-reused"
    assert letter.value == rig.estate.encode(other)[:5] + (letter.value or b"")[5:]
    await nothing_more(rig, command, outcomes=1)


async def test_the_same_id_for_another_operation_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    rig.estate.send(command)
    await rig.estate.final(command)
    other = say.amend(command.key)
    place = rig.estate.send(Command(other.name, other.key, other.record, command_id=command.command_id))
    assert (await rig.estate.letter(place)).reason == "command-id-reused"
    await nothing_more(rig, command, outcomes=1)


async def test_a_repeat_is_known_after_a_restart(kafka: str) -> None:
    async with open_rig(kafka, partitions=2) as rig:
        command, rejected, slow = say.add(unique()), say.amend(unique()), say.add(unique())
        async with rig.worker():
            for each in (command, rejected):
                rig.estate.send(each)
            await rig.estate.all_final([command, rejected])
            letter = await rig.estate.letter(rig.estate.put(b"rubbish", b"k"))
            rig.twin.inject(Fault(Kind.STATUS, status=503, key=slow.key, times=None))
            rig.estate.send(slow)  # keeps the committed offset from what comes after it
            await rig.estate.heard(lambda: calls(rig, slow), what="the first try")
            behind = [say.add(key) for key in same_partition(rig, slow.key)]
            for each in behind:
                rig.estate.send(each)
            await rig.estate.all_final(behind)
            beyond = await rig.estate.letter(rig.estate.put(b"rubbish", slow.key.encode() + b"-"))
        rig.twin.clear()
        async with rig.worker() as worker:
            for each in (command, rejected, *behind):
                rig.estate.send(each)
            place = rig.estate.send(again(command, serviceAffected="S-OTHER"))
            assert (await rig.estate.letter(place)).reason == "command-id-reused"
            assert (await rig.estate.final(slow)).type == "FaultReportAdded"
            for each in (command, rejected, *behind):
                await nothing_more(rig, each, outcomes=1)
            counted = {"operation": "AddFaultReport", "outcome": "accepted"}
            await eventually(lambda: worker.metric("outcomes_total", **counted) == 1, what="the slow one being counted")
        assert len([each for each in rig.estate.letters if each.place in {letter.place, beyond.place}]) == 2


def same_partition(rig: Rig, key: str) -> list[str]:
    """Some keys that lie where that one lies."""
    return [f"{key}-{n}" for n in range(8)]
