"""The system's clock is set by an hour while a command is under way: no time limit ends early, none is drawn out."""

import pytest

from adapter.core.journal import Kind
from tests.support.estate import add, amend, query, resolve, with_deadline
from tests.support.plant import Bounded, Plant, accepted, answer, busy, later, silent

HOUR = 3600.0

jumps = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])


async def test_a_clock_set_ahead_does_not_settle_a_doubt(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(doubt=30.0, parked_after=0.01))
    plant.desk.answers = silent
    held, behind = add("T-1"), amend("T-1")
    plant.send(held)
    await plant.until(lambda: plant.types(held) == ["CommandOutcomeUnknown"])
    plant.ahead = HOUR
    plant.send(behind)
    await plant.until(lambda: plant.kinds(behind) == [Kind.PARKED], "the doubt being looked at again")
    assert plant.types(held) == ["CommandOutcomeUnknown"]
    await plant.notice("T-1")
    settled = await plant.final(held)
    assert (settled.record["outcome"], settled.record["settledBy"]) == ("ACCEPTED", "NOTIFICATION")


async def test_a_clock_set_back_does_not_draw_a_doubt_out(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(doubt=0.3, parked_after=0.01))
    plant.desk.answers = silent
    held = add("T-1")
    plant.send(held)
    await plant.until(lambda: plant.types(held))
    plant.ahead = -HOUR
    assert (await plant.final(held)).record["settledBy"] == "TIME_LIMIT"


@jumps
async def test_a_clock_that_jumps_does_not_end_the_tries_of_a_command(plant: Plant, jump: float) -> None:
    plant.hire(0)
    plant.desk.answers = silent
    command = resolve("T-1")
    plant.send(command)
    await plant.called(command)
    plant.ahead = jump
    await plant.called(command, times=3)
    plant.desk.answers = accepted
    assert (await plant.final(command)).type != "CommandSettled"


@jumps
async def test_a_deadline_of_a_command_that_waits_is_kept_though_the_clock_jumps(plant: Plant, jump: float) -> None:
    plant.hire(0, limits=Bounded(permits=1))
    plant.desk.answers = busy
    patient, hurried = with_deadline(query("K-1"), 60.0), with_deadline(query("K-2"), 2.0)
    plant.send(patient, hurried)
    await plant.called(patient)
    await plant.called(hurried)
    plant.ahead = jump
    assert (await plant.final(hurried)).record["code"] == "expired"
    plant.desk.answers = accepted
    assert (await plant.final(patient)).type == "AppointmentAvailabilityFound"


@jumps
async def test_an_intent_is_as_old_as_it_is_though_the_clock_jumps(plant: Plant, jump: float) -> None:
    hand = plant.hire(0)
    plant.desk.answers = later
    command = add("T-1")
    hand.member.hold()
    plant.send(command)
    await hand.settle()
    plant.ahead = jump
    hand.member.release()
    answer(await plant.called(command))
    await plant.final(command)
    assert plant.kinds(command) == [Kind.INTENT, Kind.SETTLED]
