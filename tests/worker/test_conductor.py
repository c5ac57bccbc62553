"""What becomes of one command: repeats, intents, doubt, deadlines, and whatever was overlooked."""

import asyncio
import gc
import io
import json
import re
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import fastavro
import pytest
from lxml import etree

from adapter.core.command import Accepted
from adapter.core.journal import Entry, Kind
from adapter.core.mapping import MessageReader, RequestWriter
from adapter.core.mapping.forms import Forms
from adapter.core.operation import Problem
from adapter.core.retry import BreakerState
from adapter.ports import NotSent, Reply
from adapter.worker.window import Bounds
from tests.support import bus
from tests.support.estate import Command, add, amend, ask_update, query, reserve, resolve, with_deadline
from tests.support.known import known
from tests.support.plant import Bounded, Call, Hand, Plant, accepted, answer, busy, later, refused, silent
from tests.support.wait import eventually


def garbled(_call: Call) -> Reply:
    return Reply(200, {}, b"<p>Hello")


def already(call: Call) -> Reply:
    return replace(refused(call), body=refused(call).body.replace(b">no<", b">it was already answered<"))


def content(command: Command, **fields: Any) -> Command:
    """The same id with other content."""
    return replace(command, record={**command.record, **fields})


def just_issued(command: Command) -> Command:
    """No ticket has to be asked whether it ended before this worker began."""
    return content(command, issuedAt=datetime.now(UTC) + timedelta(minutes=1))


async def test_the_time_a_command_takes_is_counted_from_its_record_on(plant: Plant) -> None:
    """It may have lain unread for long: else all would look well while the commands of an hour are caught up with."""
    hand = plant.hire(0)
    command = add("T-1")
    plant.bus.put(command.key.encode(), plant.encode(command), at=time.time() - 300)
    await plant.caught_up()
    assert 300 <= hand.counted("command_seconds_sum", operation="AddFaultReport") < 360
    (line,) = hand.lines.named("outcome")
    assert 300 <= line["seconds"] < 360


async def test_lanes_that_start_together_all_read_before_the_first_writes(plant: Plant) -> None:
    """What many do one after another stays in the processor's cache."""
    story: list[str] = []

    def reads(_record: Mapping[str, Any]) -> tuple[Problem, ...]:
        story.append("read")
        return ()

    class Told(RequestWriter):
        def write(self, record: Mapping[str, Any], protocol_values: Mapping[str, Any]) -> bytes:
            story.append("write")
            return super().write(record, protocol_values)

    entry = known().operations["AddFaultReport"]
    told = Told.__new__(Told)
    told.__dict__.update(entry.writer.__dict__)
    changed = replace(entry, writer=told, operation=replace(entry.operation, rules=(reads,)))
    plant.catalogue = replace(known(), operations={**known().operations, "AddFaultReport": changed})
    plant.hire(0)
    commands = [just_issued(add(f"T-{number}")) for number in range(20)]
    plant.send(*commands)
    await plant.final(*commands)
    assert story == ["read"] * 20 + ["write"] * 20


async def test_an_outcome_and_the_intent_that_follows_it_in_its_lane_are_one_transaction(plant: Plant) -> None:
    plant.hire(0)
    first, second = just_issued(add("T-1")), just_issued(add("T-1"))
    plant.desk.answers = later
    plant.send(first, second)
    call = await plant.called(first)
    await asyncio.sleep(0.06)  # longer ago than a transaction waits for company while lanes are busy
    answer(call)
    answer(await plant.called(second))
    await plant.final(first, second)
    with_outcome = next(each for each in plant.bus.transactions if each.to(bus.EVENTS))
    entries = [entry for record in with_outcome.to(bus.JOURNAL) for entry in plant.journaled(record.value or b"")]
    assert [(entry.kind, entry.command_id) for entry in entries] == [
        (Kind.SETTLED, first.command_id),
        (Kind.INTENT, second.command_id),
    ]


# -- repeats -----------------------------------------------------------------------------------------------------------


async def test_a_repeat_of_an_unfinished_command_gets_no_call_and_no_second_outcome(plant: Plant) -> None:
    hand = plant.hire(0)
    plant.desk.answers = later
    command = add("T-1")
    plant.send(command, command)
    answer(await plant.called(command))
    await plant.caught_up()
    assert plant.types(command) == ["FaultReportAdded"]
    assert len(plant.desk.calls) == 1
    assert hand.counted("commands_repeated_total", operation="AddFaultReport") == 1


async def test_a_repeat_before_the_outcome_is_committed_gets_no_second_one(plant: Plant) -> None:
    hand = plant.hire(0)
    command = query("K-1")
    hand.member.hold()
    plant.send(command)
    await plant.until(lambda: hand.member.open_transaction)
    plant.send(command)
    await hand.settle()
    hand.member.release()
    await plant.caught_up()
    assert plant.types(command) == ["AppointmentAvailabilityFound"]
    assert len(plant.desk.calls) == 1


async def test_a_repeat_of_an_ended_command_gets_no_second_outcome(plant: Plant) -> None:
    plant.hire(0)
    command = add("T-1")
    plant.send(command)
    await plant.caught_up()
    plant.send(command)
    await plant.caught_up()
    assert plant.types(command) == ["FaultReportAdded"]
    assert len(plant.desk.calls) == 1


async def test_a_repeat_that_a_successor_gets_again_finds_the_end_of_its_command_behind_the_mark(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = lambda call: None if call.operation == "QueryAppointmentAvailability" else accepted(call)
    command, slow = add("T-1"), query("K-1")
    plant.send(command)
    await plant.final(command)
    plant.send(slow)
    plant.send(command)
    await plant.until(lambda: len(plant.kinds(command)) == 3, "the repeat's end")
    assert plant.position() == 1
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.caught_up()
    assert len(plant.desk.of(command)) == 1
    assert plant.types(command) == ["FaultReportAdded"]


async def test_a_repeat_right_behind_an_end_that_is_not_committed_yet_is_known_to_a_successor(plant: Plant) -> None:
    limits = Bounded(remembered=1)  # what the mark does not hold is forgotten
    first = plant.hire(0, limits=limits)
    plant.desk.answers = later
    command, slow, behind = just_issued(add("T-1")), query("K-1"), query("K-2")
    plant.send(command, slow, command, behind)
    call = await plant.called(command)
    await plant.called(behind)
    first.member.hold()
    answer(call)  # its end and the repeat's are entered before either is committed
    await plant.until(lambda: first.member.open_transaction)
    first.member.release()
    await plant.until(lambda: plant.position() == 1)
    plant.desk.answers = accepted
    await let_the_mark_go_on(plant)
    for running in (slow, behind):
        assert plant.desk.running(running)
    await first.kill()
    plant.hire(0, limits=limits)
    await plant.final(command, slow)
    await first.settle()
    assert len(plant.desk.of(command)) == 1


def waits(*keys: str) -> Callable[[Call], Reply | None]:
    """Queries of these addresses are answered later, everything else at once."""

    def look(call: Call) -> Reply | None:
        query = call.operation == "QueryAppointmentAvailability"
        return None if query and any(key.encode() in call.body for key in keys) else accepted(call)

    return look


async def let_the_mark_go_on(plant: Plant) -> None:
    """As many commands end as are remembered after a restart, and more."""
    others = [add(f"T-{number}") for number in range(6)]
    plant.send(*others)
    await plant.final(*others)


async def test_a_repeat_is_known_though_its_command_was_delivered_once_more_after_it(plant: Plant) -> None:
    limits = Bounded(remembered=3)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = waits("K-W", "K-Y")
    before, command, behind = query("K-W"), reserve("K-X"), query("K-Y")
    plant.send(before, command, behind)
    await plant.final(command)
    plant.send(command)
    await plant.until(lambda: len(plant.kinds(command)) == 3, "the repeat's end")
    await first.kill()
    plant.desk.answers = waits("K-Y")
    second = plant.hire(0, limits=limits)
    await plant.until(lambda: plant.position() == 2)
    await let_the_mark_go_on(plant)
    await second.kill()
    plant.desk.answers = accepted
    plant.hire(0, limits=limits)
    await plant.caught_up()
    assert len(plant.desk.of(command)) == 1


@pytest.mark.parametrize("ended", [True, False])
async def test_a_command_is_known_though_an_earlier_record_of_its_id_has_its_turn_after_it(
    plant: Plant,
    ended: bool,  # noqa: FBT001
) -> None:
    """Two spellings of a key are two lanes."""
    limits = Bounded(remembered=3)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = waits("K-W", "K-Y")
    before, command, behind = query("K-W "), query("K-W "), query("K-Y")
    plant.send(before)
    plant.bus.put(b"K-W ", plant.encode(command))
    plant.send(behind)
    plant.bus.put(b"K-W", plant.encode(command))
    blocked, call = await plant.called(before), await plant.called(command)
    for each in (call, blocked) if ended else (blocked, call):
        answer(each)
        await first.settle()
    await plant.final(command)
    await plant.until(lambda: plant.position() == 2)
    await let_the_mark_go_on(plant)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0, limits=limits)
    await plant.caught_up()
    assert len(plant.desk.of(command)) == 1


async def test_every_dead_letter_is_known_to_a_successor(plant: Plant) -> None:
    limits = Bounded(remembered=3)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = waits("K-W")
    plant.send(query("K-W"))
    plant.bus.put(b"X", b"\1")
    await plant.until(lambda: len(plant.letters) == 1)
    plant.bus.put(b"X", b"\1")
    await plant.until(lambda: len(plant.letters) == 2)
    await let_the_mark_go_on(plant)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0, limits=limits)
    await plant.caught_up()
    assert plant.letters == ["unframed"] * 2


async def test_a_repeat_in_another_partition_does_not_end_the_command_it_repeats(plant: Plant) -> None:
    first = plant.hire(0, 1)
    plant.desk.answers = later
    command = query("K-1")
    plant.send(command)
    await plant.called(command)
    plant.send(command, partition=1)
    await plant.caught_up(1)
    await first.kill()
    plant.desk.answers = accepted
    second = plant.hire(1)
    await plant.until(lambda: 1 in second.flow.assignments and second.flow.assignments[1].recovered)
    second.member.assign(0)
    assert (await plant.final(command)).type == "AppointmentAvailabilityFound"


@pytest.mark.parametrize("ended", [True, False])
async def test_other_content_under_a_known_id_is_a_dead_letter(plant: Plant, ended: bool) -> None:  # noqa: FBT001
    plant.hire(0)
    plant.desk.answers = accepted if ended else later
    command = add("T-1")
    plant.send(command)
    call = await plant.called(command)
    if ended:
        await plant.caught_up()
    plant.send(content(command, serviceAffected="S2"))
    if not ended:
        answer(call)
    await plant.caught_up()
    assert plant.letters == ["command-id-reused"]
    assert plant.types(command) == ["FaultReportAdded"]
    assert len(plant.desk.calls) == 1


async def test_an_open_intent_keeps_its_id_from_another_record_after_a_crash(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    blocker, other = query("T-1"), add("T-2")
    reused = replace(add("T-1"), command_id=other.command_id)
    plant.send(blocker, reused, other)  # the second waits in its lane while the third is called
    await plant.called(other)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.until(lambda: plant.letters)
    await plant.until(lambda: plant.of(other))
    assert plant.letters == ["command-id-reused"]
    assert plant.types(other) == ["CommandOutcomeUnknown"]
    assert len(plant.desk.of(other)) == 1


async def test_an_open_intent_keeps_its_id_from_a_record_in_another_partition(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    command = add("T-1")
    plant.send(command)
    await plant.called(command)
    await first.kill()
    plant.desk.answers = accepted
    second = plant.hire(0, limits=Bounded(ahead=0))  # its lane sleeps until it is looked at
    await plant.until(lambda: 0 in second.flow.assignments and second.flow.assignments[0].lanes)
    plant.send(command, partition=1)
    second.member.assign(1)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    await plant.caught_up(1)
    assert len(plant.desk.of(command)) == 1


# -- intents and commits -----------------------------------------------------------------------------------------------


async def test_the_intent_is_committed_before_the_first_byte(plant: Plant) -> None:
    seen: list[list[Kind]] = []
    command = add("T-1")

    def look(call: Call) -> Reply:
        seen.append(plant.kinds(command))
        return accepted(call)

    plant.desk.answers = look
    hand = plant.hire(0)
    hand.member.hold()
    plant.send(command)
    await plant.until(lambda: hand.member.open_transaction)
    await hand.settle()
    assert plant.desk.calls == []
    hand.member.release()
    await plant.final(command)
    assert seen == [[Kind.INTENT]]


async def test_an_aborted_intent_is_sent_again_and_only_then_called(plant: Plant) -> None:
    hand = plant.hire(0)
    hand.member.refusals = 2
    command = add("T-1")
    plant.send(command)
    await plant.final(command)
    assert hand.member.attempts[0].records == hand.member.attempts[2].records
    assert plant.kinds(command) == [Kind.INTENT, Kind.SETTLED]
    assert len(plant.desk.calls) == 1


async def ahead(plant: Plant, seconds: float = 60.0, threshold: int = 1000) -> tuple[Hand, list[Command]]:
    """Two places, two calls under way, and the intent of a third command committed ahead of its call; it is wanted for
    so many seconds.
    """
    hand = plant.hire(0, limits=Bounded(permits=2, threshold=threshold))
    plant.desk.answers = later
    asked, first = query("T-0"), add("T-1")
    plant.send(asked)
    call = await plant.called(asked)
    hand.member.hold()
    plant.send(first)
    await plant.until(lambda: hand.member.open_transaction)
    answer(call)  # a call ends while an intent is being committed
    await hand.settle()
    hand.member.release()
    await plant.called(first)
    second, third = add("T-2"), with_deadline(add("T-3"), seconds)
    plant.send(second, third)
    await plant.called(second)
    await plant.until(lambda: plant.kinds(third) == [Kind.INTENT])
    await hand.settle()
    assert plant.desk.of(third) == []
    assert hand.gate.in_flight == 2
    return hand, [first, second, third]


async def test_an_intent_is_committed_while_other_calls_are_under_way_and_its_call_waits_for_one_to_end(
    plant: Plant,
) -> None:
    hand, commands = await ahead(plant)
    answer(await plant.called(commands[0]))
    for command in commands[1:]:
        answer(await plant.called(command))
    await plant.final(*commands)
    assert plant.kinds(commands[2]) == [Kind.INTENT, Kind.SETTLED]
    assert hand.gate.in_flight == 0


async def test_an_intent_whose_call_finds_no_place_while_it_is_good_is_taken_back(plant: Plant) -> None:
    hand, commands = await ahead(plant)
    taken_back = [Kind.INTENT, Kind.CLEARED]
    await eventually(lambda: plant.kinds(commands[2])[:2] == taken_back)
    assert plant.desk.of(commands[2]) == []
    for command in commands:
        answer(await plant.called(command))
    await plant.final(*commands)
    assert plant.kinds(commands[2])[-2:] == [Kind.INTENT, Kind.SETTLED]
    assert hand.gate._permits == 0


async def test_a_deadline_that_passes_while_a_committed_intent_waits_for_a_place_is_a_rejection(plant: Plant) -> None:
    _, commands = await ahead(plant, seconds=2)
    event = await plant.final(commands[2])
    assert (event.type, event.record["code"]) == ("CommandRejected", "expired")
    assert plant.kinds(commands[2]) == [Kind.INTENT, Kind.CLEARED, Kind.SETTLED]
    assert plant.desk.of(commands[2]) == []


async def test_an_intent_whose_call_waits_for_a_place_is_taken_back_at_once_where_the_partition_goes(
    plant: Plant,
) -> None:
    hand, commands = await ahead(plant)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await plant.until(lambda: plant.kinds(commands[2]) == [Kind.INTENT, Kind.CLEARED])
    for command in commands[:2]:
        answer(await plant.called(command))
    await leaving
    assert plant.desk.of(commands[2]) == []


async def test_an_intent_whose_call_waits_for_a_place_is_taken_back_at_once_where_the_breaker_opens(
    plant: Plant,
) -> None:
    hand, (first, second, third) = await ahead(plant, threshold=1)
    seen: list[list[Kind]] = []

    def look(call: Call) -> Reply:
        if call in plant.desk.of(third):
            seen.append(plant.kinds(third))
        return accepted(call)

    plant.desk.answers = look
    answer(await plant.called(first), busy)
    answer(await plant.called(second))
    await plant.final(first, second, third)
    assert seen == [[Kind.INTENT, Kind.CLEARED, Kind.INTENT]]
    assert hand.gate.in_flight == 0


@pytest.mark.parametrize("behind", [query("T-1"), resolve("T-1"), add("T-1")], ids=["safe", "keyed", "never"])
async def test_no_call_starts_before_the_last_outcome_of_its_lane_is_committed(plant: Plant, behind: Command) -> None:
    hand = plant.hire(0)
    plant.desk.answers = later
    command = query("T-1")
    plant.send(command, behind)
    call = await plant.called(command)
    hand.member.hold()
    answer(call)
    await plant.until(lambda: hand.member.open_transaction)
    await hand.settle()
    assert plant.desk.of(behind) == []
    hand.member.release()
    await plant.called(behind)
    assert plant.types(command) == ["AppointmentAvailabilityFound"]


async def test_commands_of_a_key_run_one_after_the_other_and_keys_side_by_side(plant: Plant) -> None:
    hand = plant.hire(0)
    plant.desk.answers = later
    first, second, other = add("T-1"), amend("T-1"), add("T-2")
    plant.send(first, second, other)
    call = await plant.called(first)
    await plant.called(other)
    await hand.settle()
    assert plant.desk.of(second) == []
    answer(call)
    await plant.called(second)


# -- take-over ---------------------------------------------------------------------------------------------------------


async def test_a_crash_during_a_call_that_must_not_be_repeated_is_a_doubt(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    command = add("T-1")
    plant.send(command)
    await plant.called(command)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    assert plant.of(command)[0].record["reason"] == "interrupted"
    await plant.caught_up()
    assert len(plant.desk.calls) == 1


async def test_a_crash_during_a_keyed_call_is_repeated_once_that_call_must_be_over(plant: Plant) -> None:
    limits = Bounded(call_limit=0.15)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = later
    command = resolve("T-1")
    plant.send(command)
    await plant.called(command)
    (intent,) = plant.entries(command)
    await first.kill()
    again: list[float] = []

    def late(call: Call) -> Reply:
        again.append(time.time())
        return accepted(call)

    plant.desk.answers = late
    plant.hire(0, limits=limits)
    assert (await plant.final(command)).type == "ResolveResponseDelivered"
    assert again[0] >= intent.at + limits.call_limit
    assert plant.desk.calls[0].message_id == plant.desk.calls[1].message_id


async def test_what_is_already_done_counts_as_accepted_though_its_unclear_try_was_before_a_crash(plant: Plant) -> None:
    command = resolve("T-1", maintainerFaultReference="CF-1")
    first = plant.hire(0)
    plant.desk.answers = lambda call: busy(call) if len(plant.desk.calls) > 1 else silent(call)
    plant.send(command)
    await plant.until(lambda: Kind.CLEARED in plant.kinds(command))
    plant.desk.answers = later
    await first.kill()
    plant.desk.answers = already
    plant.hire(0)
    event = await plant.final(command)
    assert (event.type, event.record["alreadyDone"]) == ("ResolveResponseDelivered", True)


async def test_what_provably_did_nothing_is_called_again_by_a_successor(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(retry=30))
    plant.desk.answers = busy
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: plant.kinds(command) == [Kind.INTENT, Kind.CLEARED])
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    event = await plant.final(command)
    assert (event.type, event.record["attempts"]) == ("FaultReportAdded", 2)


async def test_a_call_of_a_later_release_is_not_made_again_without_a_field_that_only_that_one_knows(
    plant: Plant,
) -> None:
    command = add("T-1", severity="high")
    newer = json.loads(known().commands[command.name].text)
    newer["fields"].append({"name": "severity", "type": ["null", "string"], "default": None})
    out = io.BytesIO(struct.pack(">xI", plant.registry.add(json.dumps(newer))))
    out.seek(0, io.SEEK_END)
    common = {"commandId": command.command_id, "issuedAt": datetime.now(UTC)}
    fastavro.schemaless_writer(out, newer, {**common, **command.record})
    offset = plant.bus.put(b"T-1", out.getvalue())
    cleared = Entry(Kind.CLEARED, command.command_id, offset, b"", time.time(), attempt=1)
    plant.write("JournalEntries", {"entries": [cleared.record()]})
    plant.hire(0)
    event = await plant.final(command)
    assert (event.type, event.record["code"]) == ("CommandRejected", "invalid")
    assert [problem["path"] for problem in event.record["problems"]] == ["severity"]
    assert plant.desk.calls == []


@pytest.mark.parametrize("shift", [-100, 3])
@pytest.mark.parametrize("cleared", [True, False])
async def test_a_call_is_known_to_the_workers_of_a_mirror_where_its_record_has_another_offset(
    plant: Plant,
    shift: int,
    cleared: bool,  # noqa: FBT001
) -> None:
    first = plant.hire(0, limits=Bounded(retry=30))
    plant.desk.answers = busy if cleared else later
    command = add("T-1")
    plant.send(command, gap=100)
    await plant.called(command)
    await plant.until(lambda: plant.kinds(command) == [Kind.INTENT, *[Kind.CLEARED][:cleared]])
    await first.kill()
    plant.bus.commands[0] = [replace(source, offset=source.offset + shift) for source in plant.bus.commands[0]]
    plant.bus.committed.clear()  # the group starts at the first record there is
    plant.desk.answers = accepted
    plant.hire(0, limits=Bounded(parked_after=0.01))
    plant.send(command)
    await plant.caught_up()
    await plant.until(lambda: plant.types(command) == ["FaultReportAdded" if cleared else "CommandOutcomeUnknown"])
    assert len(plant.desk.of(command)) == 1 + cleared


@pytest.mark.parametrize("late", [False, True])
async def test_a_call_whose_record_has_a_greater_offset_now_stays_known(plant: Plant, late: bool) -> None:  # noqa: FBT001
    limits = Bounded(call_limit=30, remembered=3)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = later
    command = resolve("T-A", maintainerFaultReference="CF-1")
    plant.send(command)
    await plant.called(command)
    await first.kill()
    moved = [replace(source, offset=source.offset + 3) for source in plant.bus.commands[0]]
    plant.bus.commands[0] = [] if late else moved
    plant.bus.committed.clear()
    plant.desk.answers = accepted
    second = plant.hire(0, limits=limits)
    if late:  # copied when the partition had been taken over
        await plant.until(lambda: second.lines.named("partition started"))
        plant.bus.commands[0] = moved
        second.member.wake()
    await let_the_mark_go_on(plant)
    await second.kill()
    plant.hire(0, limits=limits)
    await let_the_mark_go_on(plant)
    assert len(plant.desk.of(command)) == 1


async def test_a_call_stays_known_though_the_frontier_has_passed_the_offset_it_had_in_another_cluster(
    plant: Plant,
) -> None:
    limits = Bounded(remembered=1)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = later
    command, before, others = add("T-1"), resolve("T-1"), [add(f"O-{number}") for number in range(5)]
    plant.send(command)
    await plant.called(command)
    await plant.until(lambda: plant.kinds(command) == [Kind.INTENT])
    await first.kill()
    plant.bus.commands[0] = []
    plant.bus.committed.clear()
    plant.send(*others, before, command)
    plant.desk.answers = lambda call: later(call) if b"resolveResponse" in call.body else accepted(call)
    second = plant.hire(0, limits=limits)
    await plant.called(before)
    await plant.until(lambda: plant.position() == 5)
    await second.kill(committed=True)
    plant.desk.answers = accepted
    plant.hire(0, limits=limits)
    await plant.until(lambda: plant.types(command))
    assert plant.types(command) == ["CommandOutcomeUnknown"]
    assert len(plant.desk.of(command)) == 1


async def test_ends_with_offsets_of_another_cluster_do_not_hold_the_mark_for_ever(plant: Plant) -> None:
    first = plant.hire(0)
    commands = [add(f"T-{number}") for number in range(3)]
    plant.send(*commands, gap=100)
    await plant.final(*commands)
    await first.kill()
    plant.bus.commands[0] = [replace(source, offset=source.offset - 100) for source in plant.bus.commands[0][1:]]
    plant.bus.committed.clear()
    second, after = plant.hire(0), add("T-9")
    plant.send(after)
    await plant.final(after)
    await plant.caught_up()
    extent = second.flow.assignments[0].extent
    assert extent.mark(plant.position()) == extent.end
    assert [len(plant.desk.of(command)) for command in commands] == [1, 1, 1]


async def test_a_doubt_of_another_cluster_holds_its_lane_though_its_offset_is_the_greatest(plant: Plant) -> None:
    limits = Bounded(parked_after=0.01)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = silent
    held, behind = add("T-1"), amend("T-1")
    plant.send(held, gap=100)
    await plant.until(lambda: plant.types(held))
    await first.kill()
    plant.bus.commands[0] = [replace(source, offset=source.offset - 100) for source in plant.bus.commands[0]]
    plant.bus.committed.clear()
    second = plant.hire(0, limits=limits)
    plant.send(behind)
    await plant.caught_up()
    await second.kill()
    plant.desk.answers = accepted
    third = plant.hire(0)
    await plant.until(lambda: third.flow.assignments[0].recovered)
    await third.settle()
    assert plant.desk.of(behind) == []
    await plant.project()
    await plant.decide(held, "ACCEPTED")
    assert (await plant.final(held, behind)).type == "FaultReportAmended"


async def test_an_open_intent_is_taken_up_once(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    command, after = add("T-1", issuedAt=datetime.now(UTC) + timedelta(seconds=20)), add("T-2")
    plant.send(command)
    await plant.called(command)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0, limits=Bounded(remembered=1))
    await plant.until(lambda: plant.types(command))
    await plant.project()
    await plant.decide(command, "REJECTED")
    await plant.final(command)
    plant.send(after)
    await plant.final(after)
    plant.send(command)  # forgotten: a new one
    await plant.caught_up()
    assert plant.types(command) == ["CommandOutcomeUnknown", "CommandSettled", "FaultReportAdded"]


async def test_what_was_called_before_and_waits_behind_a_doubt_keeps_its_intent(plant: Plant) -> None:
    """Its own record is gone; another one of the same content lies in the lane of a key that is written otherwise."""
    first = plant.hire(0)
    plant.desk.answers = later
    held, command = add("T-1"), add("T-1 ")
    plant.send(held)
    plant.bus.put(b"T-1", plant.encode(command))
    plant.bus.put(b"T-1 ", plant.encode(command))
    for each in (held, command):
        await plant.called(each)
    await first.kill()
    plant.bus.commands[0].pop()
    plant.desk.answers = accepted
    second = plant.hire(0, limits=Bounded(parked_after=0.01, parked=0))
    await plant.caught_up()
    assert plant.kinds(command) == [Kind.INTENT, Kind.INTENT]
    await second.kill()
    plant.hire(0)
    await plant.project()
    await plant.decide(held, "REJECTED")
    await plant.final(held)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    assert len(plant.desk.of(command)) == 1


async def test_a_repeat_of_a_parked_command_is_known_to_the_next_owner_before_its_turn_has_come(plant: Plant) -> None:
    """It lies in the lane of a key that is written otherwise, which nothing holds."""
    limits = Bounded(parked_after=0.01)
    first = plant.hire(0, limits=limits)
    plant.desk.answers = silent
    held, parked = add("T-1"), amend("T-1 ")
    plant.send(held)
    plant.bus.put(b"T-1", plant.encode(parked))
    await plant.until(lambda: plant.kinds(parked) == [Kind.PARKED])
    await plant.caught_up()
    await first.kill()
    plant.desk.answers = accepted
    plant.bus.put(b"T-1 ", plant.encode(parked))
    plant.bus.put(b"T-1 ", plant.encode(content(parked, serviceAffected="S2")))
    plant.hire(0, limits=limits)
    await plant.caught_up()
    assert (plant.desk.of(parked), plant.types(parked)) == ([], [])
    assert plant.letters == ["command-id-reused"]
    await plant.project()
    await plant.decide(held, "REJECTED")
    await plant.final(parked)
    assert len(plant.desk.of(parked)) == 1


async def test_residents_are_taken_up_in_order_before_new_records_of_their_lane(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(doubt=2, parked_after=0.01))
    plant.desk.answers = silent
    held, parked, new = add("T-1"), [amend("T-1", serviceAffected=f"S{n}") for n in range(3)], amend("T-1")
    plant.send(held, *parked)
    await plant.until(lambda: plant.kinds(parked[-1]) == [Kind.PARKED])
    await plant.caught_up()
    await first.kill()
    plant.send(new)
    plant.desk.answers = accepted
    plant.hire(0, limits=Bounded(doubt=2))
    await plant.final(held, *parked, new)
    order = [call.message_id for call in plant.desk.calls[1:]]
    assert order == [plant.desk.of(command)[0].message_id for command in (*parked, new)]
    assert plant.types(held) == ["CommandOutcomeUnknown", "CommandSettled"]


async def test_a_resident_that_is_delivered_again_is_finished_at_once(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = lambda call: silent(call) if call.operation == "AddFaultReport" else None
    slow, held = query("K-1"), add("T-1")
    plant.send(slow, held)
    await plant.until(lambda: plant.types(held) == ["CommandOutcomeUnknown"])
    assert plant.position() == 0
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.caught_up()
    assert plant.types(held) == ["CommandOutcomeUnknown"]
    assert len(plant.desk.of(held)) == 1


async def test_a_resident_that_cannot_be_read_any_more_is_a_dead_letter(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = silent
    held = add("T-1")
    plant.send(held)
    await plant.caught_up()
    await first.kill()
    texts = dict(plant.registry.texts)
    number = next(n for n, text in texts.items() if text == known().commands["AddFaultReport"].text)
    del plant.registry.texts[number]
    plant.desk.answers = accepted
    second = plant.hire(0)
    await plant.until(lambda: plant.letters == ["unknown-schema"])
    assert plant.kinds(held)[-1] is Kind.SETTLED
    await second.kill()
    plant.registry.texts = texts
    third, after = plant.hire(0), add("T-1")
    plant.send(after)
    await plant.final(after)
    assert third.flow.assignments[0].residents == {}
    assert plant.letters == ["unknown-schema"]


@pytest.mark.parametrize("restarted", [True, False])
async def test_what_was_parked_and_could_not_be_read_is_carried_out_once_it_is_put_back(
    plant: Plant,
    restarted: bool,  # noqa: FBT001
) -> None:
    """As after a rollback to a release that does not know its operation."""
    first = plant.hire(0, limits=Bounded(parked_after=0.01))
    plant.desk.answers = silent
    held, parked = add("T-1"), amend("T-1")
    plant.send(held, parked)
    await plant.caught_up()
    assert plant.kinds(parked) == [Kind.PARKED]
    await first.kill()
    value = plant.bus.commands[0][1].value
    forgotten, text = plant.registry.forget("AmendFaultReport")
    plant.desk.answers = accepted
    second = plant.hire(0)
    await plant.project()
    await plant.decide(held, "REJECTED")
    await plant.until(lambda: plant.letters == ["unknown-schema"])
    if restarted:
        await second.kill()
    plant.registry.texts[forgotten] = text
    if restarted:
        plant.hire(0)
    plant.bus.put(b"T-1", value)
    assert (await plant.final(parked)).type == "FaultReportAmended"
    await plant.caught_up()
    assert len(plant.desk.of(parked)) == 1
    assert plant.letters == ["unknown-schema"]


# -- doubt -------------------------------------------------------------------------------------------------------------


async def test_a_doubt_holds_its_lane_alone_and_is_settled_at_the_limit(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(doubt=4.0))
    plant.desk.answers = lambda call: silent(call) if call.operation == "AddFaultReport" else accepted(call)
    held, behind, other = add("T-1"), amend("T-1"), query("T-2")
    plant.send(held, behind, other)
    await plant.final(other)
    await plant.until(lambda: plant.types(held) == ["CommandOutcomeUnknown"])
    assert plant.desk.of(behind) == []
    assert plant.position() == 1
    settled = await plant.final(held)
    assert (settled.type, settled.record["outcome"], settled.record["settledBy"]) == (
        "CommandSettled",
        "UNDETERMINED",
        "TIME_LIMIT",
    )
    assert (await plant.final(behind)).type == "FaultReportAmended"
    assert len(plant.desk.of(held)) == 1


async def test_what_waits_behind_a_doubt_is_parked_and_above_the_cap_rejected(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(doubt=2, parked_after=0.01, parked=2))
    plant.desk.answers = lambda call: silent(call) if call.operation == "AddFaultReport" else accepted(call)
    held, behind = add("T-1"), [amend("T-1", serviceAffected=f"S{n}") for n in range(4)]
    plant.send(held, *behind, behind[3])
    await plant.caught_up()
    blocked = [event.record["code"] for command in behind[2:] for event in plant.of(command)]
    assert blocked == ["ticket-blocked"] * 2
    assert [plant.kinds(command) for command in behind[:2]] == [[Kind.PARKED]] * 2
    await plant.final(held, *behind)
    assert [len(plant.desk.of(command)) for command in behind] == [1, 1, 0, 0]


async def test_what_waits_behind_a_doubt_counts_as_received_once(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(doubt=2, parked_after=0.01, parked=2))
    plant.desk.answers = lambda call: silent(call) if call.operation == "AddFaultReport" else accepted(call)
    held, behind = add("T-1"), [amend("T-1", serviceAffected=f"S{n}") for n in range(4)]
    plant.send(held, *behind, behind[0])
    await plant.caught_up()
    assert first.counted("commands_received_total", operation="AmendFaultReport") == 4, "two parked, two rejected"
    await first.kill()
    second = plant.hire(0)
    await plant.final(held, *behind)
    assert second.counted("commands_received_total", operation="AmendFaultReport") == 0, "they came to the first"


async def test_what_is_unreadable_or_repeated_behind_a_doubt_does_not_hold_the_frontier(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(parked_after=0.01))
    plant.desk.answers = silent
    held = add("T-1")
    plant.send(held, held, content(held, serviceAffected="S2"))
    plant.bus.put(b"T-1", b"\1")
    await plant.caught_up()
    assert sorted(plant.letters) == ["command-id-reused", "unframed"]
    assert plant.types(held) == ["CommandOutcomeUnknown"]


async def test_what_ends_behind_a_doubt_takes_no_room(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(parked_after=0.01, parked=1))
    plant.desk.answers = silent
    held, parked, last = add("T-1"), amend("T-1"), amend("T-1")
    plant.send(held, parked)
    await plant.until(lambda: plant.kinds(parked) == [Kind.PARKED])
    for _ in range(3):
        plant.send(held, parked, amend("T-1"))
        plant.bus.put(b"T-1", b"\1")
        await plant.caught_up()
    lanes = hand.flow.assignments[0].lanes
    await plant.until(lambda: len(lanes.behind(b"T-1")) == 1)
    plant.desk.answers = accepted
    await plant.project()
    await plant.decide(held, "REJECTED")
    await plant.final(parked)
    plant.send(last)
    await plant.final(last)
    assert (len(plant.desk.of(parked)), len(plant.letters), len(lanes)) == (1, 3, 0)


async def test_a_command_the_journal_could_not_keep_is_rejected_before_it_is_called_or_parked(plant: Plant) -> None:
    plant.bus.largest = 9000
    plant.hire(0, limits=Bounded(parked_after=0.01, largest=9000))
    plant.desk.answers = silent
    held, huge = add("T-1"), [amend(key, serviceAffected="S" * 8950) for key in ("T-1", "T-2")]
    plant.send(held, *huge)
    await plant.caught_up()
    for command in huge:
        (event,) = plant.of(command)
        assert event.type == "CommandRejected"
        assert event.record["problems"] == [{"path": "", "text": "too large to be kept while it waits"}]
    assert plant.types(held) == ["CommandOutcomeUnknown"]


async def test_a_reservation_in_doubt_is_never_called_again(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(doubt=0.1))
    plant.desk.answers = silent
    command = reserve("K-1")
    plant.send(command)
    await plant.final(command)
    assert plant.types(command) == ["CommandOutcomeUnknown", "CommandSettled"]
    assert len(plant.desk.calls) == 1


# -- the supplier is away ----------------------------------------------------------------------------------------------


async def test_an_open_breaker_holds_calls_and_finishes_nothing(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(threshold=1, probe=30))
    plant.desk.answers = busy
    first, others = query("K-0"), [query(f"K-{n}") for n in range(1, 6)]
    plant.send(first)
    await plant.until(lambda: hand.gate.breaker.state is BreakerState.OPEN)
    plant.send(*others)
    await plant.until(lambda: hand.gate.waiting >= 5)
    assert len(plant.desk.calls) == 1
    assert plant.events == []


async def test_a_supplier_that_hangs_is_asked_with_queries_and_brings_no_other_report_into_doubt(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(threshold=1, probe=0.4))
    plant.desk.answers = silent
    first, waiting = add("T-0"), [add("T-1"), query("K-1")]
    plant.send(first)
    await plant.until(lambda: hand.gate.breaker.state is BreakerState.OPEN)
    plant.send(*waiting)
    await plant.until(lambda: hand.gate.waiting == 2)
    await plant.until(lambda: len(plant.desk.calls) == 2)
    assert [len(plant.desk.of(command)) for command in (first, *waiting)] == [1, 0, 1]


async def test_a_request_that_waited_for_the_supplier_says_when_it_was_sent(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(threshold=1, probe=0.4))
    plant.desk.answers = busy
    plant.send(query("K-0"))
    await plant.until(lambda: hand.gate.breaker.state is BreakerState.OPEN)
    waiting = query("K-1")
    plant.send(waiting)
    await plant.until(lambda: hand.gate.waiting >= 1)
    clock = asyncio.get_running_loop().time
    await plant.until(lambda: hand.gate.breaker.retry_at - clock() < 0.1)
    shortly_before = datetime.now(UTC) - timedelta(milliseconds=1)  # it has whole ones
    plant.desk.answers = accepted
    call = await plant.called(waiting)
    sent_at = re.search(rb"sentAt>([^<]+)<", call.body)
    assert sent_at is not None
    assert datetime.fromisoformat(sent_at[1].decode()) >= shortly_before


async def test_a_deadline_that_passes_at_the_gate_is_a_rejection_and_leaks_no_permit(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(permits=1))
    plant.desk.answers = later
    first, hurried = query("K-1"), [with_deadline(make("K-2"), 0.1) for make in (query, query)]
    plant.send(first)
    call = await plant.called(first)
    plant.send(*hurried)
    event = await plant.final(*hurried)
    assert (event.type, event.record["code"]) == ("CommandRejected", "expired")
    assert plant.kinds(hurried[0]) == [Kind.SETTLED]
    answer(call)
    last = query("K-3")
    plant.send(last)
    answer(await plant.called(last))
    await plant.caught_up()
    assert hand.gate.in_flight == 0
    assert len(plant.desk.calls) == 2


async def test_a_deadline_that_passes_while_the_supplier_is_busy_is_a_rejection(plant: Plant) -> None:
    plant.hire(0)
    plant.desk.answers = busy
    command = with_deadline(add("T-1"), 1.5)
    plant.send(command)
    event = await plant.final(command)
    assert event.record["code"] == "expired"
    assert event.record["attempts"] > 1


async def test_not_sent_is_tried_again_under_the_same_message_id(plant: Plant) -> None:
    hand = plant.hire(0)
    plant.desk.answers = lambda call: (
        accepted(call) if len(plant.desk.calls) > 2 else NotSent("connect", "nobody listens")
    )
    command = add("T-1")
    plant.send(command)
    assert (await plant.final(command)).record["attempts"] == 3
    assert len({call.message_id for call in plant.desk.calls}) == 1
    assert plant.kinds(command) == [Kind.INTENT, Kind.CLEARED] * 2 + [Kind.INTENT, Kind.SETTLED]
    assert hand.counted("retries_total", operation="AddFaultReport") == 2


async def test_a_refusal_is_a_rejection_by_the_supplier(plant: Plant) -> None:
    plant.hire(0)
    plant.desk.answers = refused
    command = add("T-1")
    plant.send(command)
    event = await plant.final(command)
    assert (event.type, event.record["rejectedBy"], event.record["text"]) == ("CommandRejected", "SUPPLIER", "no")


# -- long requests -----------------------------------------------------------------------------------------------------

SHARED = 400_000
"""Bytes that long requests may have in all."""
FIVE = Bounded(window=Bounds(10_000, SHARED, 10_000))
"""So many of `swelling` fit."""


def swelling(reference: str, **fields: Any) -> Command:
    """15 kB that become 75 kB when they are escaped."""
    return just_issued(add(reference, attachments=[{"name": "log.txt", "description": "&" * 15_000}], **fields))


async def five_called(plant: Plant, *commands: Command, times: int = 1) -> list[Call]:
    """The calls that are under way: those of the first five of the commands."""
    for command in commands[:5]:
        await plant.called(command, times)
    for hand in plant.hands:
        await hand.settle()
    running = [call for call in plant.desk.calls if not call.ended]
    assert [plant.desk.running(command) for command in commands] == [*running, *[None] * (len(commands) - 5)]
    assert SHARED - 75_000 < sum(len(call.body) for call in running) <= SHARED
    return running


async def test_as_many_long_requests_are_made_at_once_as_fit_the_limit_and_in_order(plant: Plant) -> None:
    plant.hire(0, limits=FIVE)
    plant.desk.answers = later
    commands = [swelling(f"T-{number}") for number in range(7)]
    plant.send(*commands)
    calls = await five_called(plant, *commands)
    answer(calls[3])
    calls.append(await plant.called(commands[5]))
    assert not plant.desk.of(commands[6])
    answer(calls[0])
    calls.append(await plant.called(commands[6]))
    assert [call.body.count(b"&amp;") for call in calls] == [15_000] * 7
    for call in calls[1:3] + calls[4:]:
        answer(call)
    await plant.final(*commands)


async def test_a_short_request_does_not_wait_for_long_ones(plant: Plant) -> None:
    plant.hire(0, limits=FIVE)
    plant.desk.answers = later
    commands, short = [swelling(f"T-{number}") for number in range(7)], just_issued(add("T-8"))
    plant.send(*commands, short)
    await plant.called(short)
    assert not plant.desk.of(commands[5])


async def test_a_request_that_is_longer_than_the_limit_is_made_alone(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(window=Bounds(10_000, 70_000, 10_000)))
    plant.desk.answers = later
    commands = [swelling(f"T-{number}") for number in range(2)]
    plant.send(*commands)
    call = await plant.called(commands[0])
    assert not plant.desk.of(commands[1])
    answer(call)
    answer(await plant.called(commands[1]))
    await plant.final(*commands)


async def test_a_long_request_whose_deadline_passes_while_it_waits_for_others_takes_nothing_up(plant: Plant) -> None:
    plant.hire(0, limits=FIVE)
    plant.desk.answers = later
    commands = [swelling(f"T-{number}") for number in range(7)]
    commands[5] = with_deadline(commands[5], 0.3)
    plant.send(*commands)
    calls = await five_called(plant, *commands)
    event = await plant.final(commands[5])
    assert (event.type, event.record["code"]) == ("CommandRejected", "expired")
    answer(calls[0])
    await plant.called(commands[6])


async def test_a_partition_that_goes_while_its_long_requests_wait_leaves_the_limit_to_others(plant: Plant) -> None:
    hand = plant.hire(0, 1, limits=FIVE)
    plant.desk.answers = later
    commands, other = [swelling(f"T-{number}") for number in range(7)], swelling("T-9")
    plant.send(*commands)
    calls = await five_called(plant, *commands)
    plant.send(other, partition=1)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await hand.settle()
    for call in calls:
        answer(call)
    await leaving
    await plant.called(other)
    assert not plant.desk.of(commands[5])


async def test_long_requests_that_are_tried_again_share_the_limit_after_a_restart_too(plant: Plant) -> None:
    first = plant.hire(0, limits=replace(FIVE, retry=30))
    plant.desk.answers = busy
    commands = [swelling(f"T-{number}") for number in range(7)]
    plant.send(*commands)
    await plant.until(lambda: [plant.kinds(command) for command in commands] == [[Kind.INTENT, Kind.CLEARED]] * 7)
    await first.kill()
    plant.desk.answers = later
    plant.hire(0, limits=FIVE)
    await five_called(plant, *commands, times=2)


# -- whatever was overlooked -------------------------------------------------------------------------------------------


async def test_an_unexpected_error_in_reading_a_record_is_a_dead_letter(plant: Plant) -> None:
    def broken(_record: Any) -> Any:
        raise ZeroDivisionError

    entry = known().operations["AddFaultReport"]
    wrong = replace(entry, operation=replace(entry.operation, rules=(broken,)))
    plant.catalogue = replace(known(), operations={**known().operations, "AddFaultReport": wrong})
    hand = plant.hire(0)
    command, after = add("T-1"), amend("T-1")
    plant.send(command, after)
    await plant.final(after)
    await plant.caught_up()
    assert plant.letters == ["internal-error"]
    assert hand.lines.named("record not readable") == [{"partition": 0, "offset": 0}]


async def test_a_rejection_names_what_breaks_the_rules_and_what_breaks_the_schema(plant: Plant) -> None:
    outage, answered = add("T-1"), resolve("T-2", resolveAccepted=False, maintainerFaultReference="\x01")
    outage = replace(
        outage, record={**outage.record, "serviceAffected": " ", "faultDetails": {"type": "SERVICE_OUTAGE"}}
    )
    plant.hire(0)
    plant.send(outage, answered)
    named = [
        [each["path"] for each in (await plant.final(command)).record["problems"]] for command in (outage, answered)
    ]
    assert named == [
        ["appointment.appointmentReservationKey", "serviceAffected"],
        ["rejectedReason", "maintainerFaultReference"],
    ]
    assert plant.desk.calls == []


async def test_an_unexpected_error_in_writing_a_request_is_a_rejection(plant: Plant) -> None:
    class Broken(RequestWriter):
        def write(self, record: Mapping[str, Any], protocol_values: Mapping[str, Any]) -> bytes:
            raise ZeroDivisionError(record, protocol_values)

    broken = replace(known().operations["AddFaultReport"], writer=Broken.__new__(Broken))
    plant.catalogue = replace(known(), operations={**known().operations, "AddFaultReport": broken})
    hand = plant.hire(0)
    command = add("T-1")
    plant.send(command)
    event = await plant.final(command)
    assert (event.type, event.record["code"], event.record["attempts"]) == ("CommandRejected", "invalid", 0)
    assert [problem["text"] for problem in event.record["problems"]] == [
        "can't be written as a request; the worker's log says how"
    ]
    assert len(hand.lines.named("request not writable")) == 1
    assert plant.desk.calls == []


async def test_a_time_of_a_producer_without_logical_types_is_one(plant: Plant) -> None:
    command = amend("T-1", reportDateTime=1_769_860_800_005)
    theirs = json.loads(known().commands[command.name].text)
    (field,) = (field for field in theirs["fields"] if field["name"] == "reportDateTime")
    field["type"] = ["null", "long"]
    out = io.BytesIO(struct.pack(">bI", 0, plant.registry.add(json.dumps(theirs))))
    out.seek(5)
    content = {"commandId": command.command_id, "issuedAt": datetime.now(UTC), **command.record}
    fastavro.schemaless_writer(out, fastavro.parse_schema(theirs), content)
    plant.hire(0)
    plant.bus.put(b"T-1", out.getvalue())
    assert (await plant.final(command)).type == "FaultReportAmended"
    assert b"<reportDateTime>2026-01-31T12:00:00.005Z</reportDateTime>" in plant.desk.of(command)[0].body


async def test_an_unexpected_error_in_judging_a_reply_is_unclear(plant: Plant) -> None:
    class Broken(MessageReader):
        def read(self, element: etree._Element) -> Any:
            raise ZeroDivisionError(element.tag)

    entry = known().operations["AddFaultReport"]
    broken = Broken.__new__(Broken)
    broken.__dict__.update(entry.reader.__dict__)
    broken.forms = Forms(())  # knows none, so that it is read
    plant.catalogue = replace(
        known(), operations={**known().operations, "AddFaultReport": replace(entry, reader=broken)}
    )
    plant.hire(0)
    command, other = add("T-1"), amend("T-2")
    plant.send(command, other)
    await plant.final(other)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    assert plant.of(command)[0].record["reason"] == "unreadable-reply"


async def test_unreadable_records_are_dead_letters_and_the_lane_goes_on(plant: Plant) -> None:
    plant.hire(0)
    for value in (None, b"", b"\1\2\3\4\5\6", b"\0\0\0\xff\xff\0"):
        plant.bus.put(b"T-1", value)
    command = add("T-1")
    plant.send(command)
    await plant.final(command)
    await plant.caught_up()
    assert plant.letters == ["null-value", "empty", "unframed", "unknown-schema"]


async def test_while_the_registry_is_away_commands_wait(plant: Plant) -> None:
    hand = plant.hire(0)
    plant.registry.away = True
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: hand.lines.named("registry not available"))
    assert plant.letters == []
    plant.registry.away = False
    await plant.final(command)


async def test_that_the_registry_is_away_is_told_once_however_many_commands_wait_for_it(plant: Plant) -> None:
    hand = plant.hire(0)
    plant.registry.away = True
    commands = [add(f"T-{number}") for number in range(50)]
    plant.send(*commands)
    await plant.until(lambda: plant.registry.refused > 2 * len(commands))
    assert len(hand.lines.named("registry not available")) == 1
    plant.registry.away = False
    await plant.final(*commands)


async def test_a_lane_in_doubt_still_tells_so_after_what_is_behind_it_has_waited_for_the_registry(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(parked_after=0.01))
    plant.desk.answers = silent
    command, behind = add("T-1"), amend("T-1")  # each of a schema of its own
    plant.send(command)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    plant.registry.away = True
    plant.send(behind)
    waiting = hand.flow.assignments[0].waiting
    await plant.until(lambda: waiting == {b"T-1": "registry"})
    plant.registry.away = False
    await plant.until(lambda: plant.kinds(behind) == [Kind.PARKED])
    assert waiting == {b"T-1": "doubt"}


async def test_what_has_ended_keeps_no_long_record_until_its_commit(plant: Plant) -> None:
    hand = plant.hire(0)
    hand.member.refusals = 1_000_000
    plant.send(*(add(f"T-{number}", attachments=[{"name": "x"}] * 2_345) for number in range(3)))
    await plant.until(lambda: len(hand.flow.assignments[0].ending) == 3)
    gc.collect()
    assert [each for each in gc.get_objects() if type(each) is list and len(each) == 2_345] == []
    hand.member.refusals = 0
    await plant.until(lambda: len(plant.events) == 3)
    assert {event.record["code"] for event in plant.events} == {"invalid"}


@pytest.mark.parametrize("remembered", [1000, 1], ids=["for its reference", "for its end, and its reference"])
async def test_what_waits_for_its_ticket_keeps_no_long_record_meanwhile(plant: Plant, remembered: int) -> None:
    plant.bus.tickets_away = True
    hand = plant.hire(0, limits=Bounded(remembered=remembered))
    commands = [add(f"T-{number}", attachments=[{"name": "x"}] * 789) for number in range(3)]
    for command in (query("K-1"), query("K-2")):  # of the first one's end on only one is remembered
        plant.send(command)
        await plant.final(command)
    plant.send(*commands)
    waiting = hand.flow.assignments[0].waiting
    await plant.until(lambda: [waiting.get(command.key.encode()) for command in commands] == ["ticket"] * 3)
    gc.collect()
    lists = [each for each in gc.get_objects() if type(each) is list and len(each) == 789]
    assert [each for each in lists if each[0] != {"name": "x"}] == [], "besides those of the commands sent here"
    await plant.come_back()
    for command in commands:
        await plant.final(command)
        (call,) = plant.desk.of(command)
        assert call.body.count(b"<name>x</name>") == 789


async def test_what_waits_for_its_answer_or_to_be_sent_again_keeps_no_long_record_meanwhile(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(retry=0.5))
    plant.desk.answers = lambda call: busy(call) if len(plant.desk.calls) <= 3 else None
    commands = [just_issued(add(f"T-{number}", attachments=[{"name": "x"}] * 678)) for number in range(3)]

    def decoded() -> list[Any]:
        gc.collect()
        lists = [each for each in gc.get_objects() if type(each) is list and len(each) == 678]
        return [each for each in lists if each[0] != {"name": "x"}]  # besides those of the commands sent here

    plant.send(*commands)
    waiting = hand.flow.assignments[0].waiting
    await plant.until(lambda: [waiting.get(command.key.encode()) for command in commands] == ["http-503"] * 3)
    assert decoded() == []
    calls = [await plant.called(command, 2) for command in commands]
    await hand.settle()
    assert decoded() == []
    for call in calls:
        assert call.body.count(b"<name>x</name>") == 678
        answer(call)
    await plant.final(*commands)


async def test_a_long_command_in_doubt_that_an_operator_repeats_is_sent_as_before(plant: Plant) -> None:
    plant.hire(0)
    plant.desk.answers = lambda call: silent(call) if len(plant.desk.calls) == 1 else accepted(call)
    command = just_issued(add("T-1", attachments=[{"name": "x"}] * 678))
    plant.send(command)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    await plant.project()
    await plant.decide(command, "REPEAT")
    await plant.final(command)
    assert [call.body.count(b"<name>x</name>") for call in plant.desk.of(command)] == [678, 678]


async def test_a_query_whose_slots_cannot_be_read_is_asked_again(plant: Plant) -> None:
    def listed(call: Call) -> Reply:
        day = "appointmentDate" if len(plant.desk.of(command)) > 1 else "day"
        slots = f"<appointmentSlots><appointmentSlot><{day}>2026-03-02</{day}></appointmentSlot></appointmentSlots>"
        return Reply(200, {}, accepted(call).body.replace(b"</received", f"{slots}</received".encode()))

    plant.hire(0)
    plant.desk.answers = listed
    command = query("K-1")
    plant.send(command)
    await plant.final(command)
    (event,) = plant.events
    assert (event.record["attempts"], event.record["unknownElements"]) == (2, [])
    assert [slot["appointmentDate"] for slot in event.record["reply"]["appointmentSlots"]] == [date(2026, 3, 2)]


async def test_of_what_a_reply_has_no_field_for_an_event_tells_as_much_as_the_topic_takes(plant: Plant) -> None:
    def wordy(call: Call) -> Reply:
        deep = f"<{'a' * 99}><{'b' * 99}>{'<c>1</c>' * 60}</{'b' * 99}></{'a' * 99}>"
        return Reply(200, {}, accepted(call).body.replace(b"</received", f"{deep}</received".encode()))

    plant.hire(0, limits=Bounded(largest=4000))
    plant.desk.answers = wordy
    command = ask_update("T-1", maintainerFaultReference="CF-1")
    plant.send(command)
    await plant.final(command)
    (event,) = plant.events
    assert event.record["unknownElements"] == [{"path": f"{'a' * 99}.{'b' * 99}.c", "text": "1"}] * 15


# -- replies that say neither yes nor no -------------------------------------------------------------------------------


def page(_call: Call, status: int = 502) -> Reply:
    return Reply(status, {"content-type": "text/html"}, b"<html>Bad gateway")


@pytest.mark.parametrize("status", [502, 403, 404])
async def test_a_reply_that_says_neither_yes_nor_no_is_kept_raw(plant: Plant, status: int) -> None:
    plant.hire(0)
    plant.desk.answers = partial(page, status=status)
    command = add("T-1")
    plant.send(command)
    (kept,) = await eventually(lambda: plant.bus.to(bus.QUARANTINE))
    headers = {name: (value or b"").decode() for name, value in kept.headers}
    datetime.fromisoformat(headers.pop("quarantine-received-at"))
    assert (kept.key, kept.value) == (None, b"<html>Bad gateway")
    assert headers == {
        "quarantine-reason": f"http-{status}",
        "quarantine-detail": f"HTTP status {status}",
        "quarantine-operation": "AddFaultReport",
        "quarantine-command-id": command.command_id,
        "content-type": "text/html",
    }


@pytest.mark.parametrize(
    "told", [accepted, refused, silent, lambda _: Reply(502, {}, b"")], ids=["accepted", "refused", "none", "empty"]
)
async def test_a_clear_reply_and_one_without_content_are_not_kept(plant: Plant, told: Callable[[Call], Reply]) -> None:
    plant.hire(0)
    plant.desk.answers = told
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: bool(plant.types(command)))
    assert plant.bus.to(bus.QUARANTINE) == []


async def test_of_the_unclear_replies_to_a_command_that_is_asked_again_the_first_is_kept(plant: Plant) -> None:
    plant.hire(0)
    plant.desk.answers = lambda call: accepted(call) if len(plant.desk.of(command)) > 3 else garbled(call)
    command = query("K-1")
    plant.send(command)
    assert (await plant.final(command)).type == "AppointmentAvailabilityFound"
    assert [record.value for record in plant.bus.to(bus.QUARANTINE)] == [b"<p>Hello"]


async def test_an_unclear_reply_to_what_an_operator_had_sent_again_is_kept_too(plant: Plant) -> None:
    plant.hire(0)
    plant.desk.answers = lambda call: page(call) if len(plant.desk.of(command)) > 1 else garbled(call)
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    await plant.project()
    await plant.decide(command, "REPEAT")
    await plant.until(lambda: plant.types(command).count("CommandOutcomeUnknown") == 2)
    assert [record.value for record in plant.bus.to(bus.QUARANTINE)] == [b"<p>Hello", b"<html>Bad gateway"]


class Held:
    """Counts the long replies that are not released."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, reply: Reply) -> Reply:
        self.count += 1
        return replace(reply, release=self._release)

    def _release(self) -> None:
        self.count -= 1


@pytest.mark.parametrize("command", [add("T-1"), ask_update("T-1", maintainerFaultReference="CF-1")])
@pytest.mark.parametrize("told", [accepted, refused, garbled])
async def test_a_long_reply_is_released_when_its_outcome_is_committed_and_not_before(
    plant: Plant, command: Command, told: Callable[[Call], Reply]
) -> None:
    hand, held = plant.hire(0, limits=Bounded(retry=30)), Held()
    plant.desk.answers = later
    command = just_issued(command)
    plant.send(command)
    call = await plant.called(command)
    hand.member.hold()
    call.answer.set_result(held(told(call)))
    await plant.until(lambda: hand.member.open_transaction)
    await hand.settle()
    assert held.count == 1
    hand.member.release()
    await plant.until(lambda: held.count == 0)


async def test_a_long_reply_is_released_when_its_partition_is_lost(plant: Plant) -> None:
    hand, held = plant.hire(0), Held()
    plant.desk.answers = later
    answered, waiting = query("K-1"), query("K-2")
    hand.member.hold()
    plant.send(answered, waiting)
    call, late = await plant.called(answered), await plant.called(waiting)
    call.answer.set_result(held(accepted(call)))
    await plant.until(lambda: hand.member.open_transaction)
    hand.member.lose(0)
    late.answer.set_result(held(accepted(late)))
    hand.member.release()
    await plant.until(lambda: held.count == 0)


async def test_of_an_outcome_that_waits_for_its_commit_its_record_alone_is_kept(plant: Plant) -> None:
    def wordy(call: Call) -> Reply:
        return Reply(200, {}, accepted(call).body.replace(b"</received", b"<more>what nobody asked</more></received"))

    hand = plant.hire(0)
    plant.desk.answers = wordy
    command = query("K-1")
    hand.member.hold()
    plant.send(command)
    await plant.until(lambda: hand.member.open_transaction)
    await hand.settle()
    gc.collect()
    ours = (("more", "what nobody asked"),)
    kept = [each for each in gc.get_objects() if isinstance(each, Accepted) and each.aside == ours]
    assert kept == []
    hand.member.release()
    await plant.final(command)


async def test_a_record_too_large_for_any_outcome_halts_its_lane_alone_and_lets_the_partition_go(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(largest=1200, revoke=30))
    plant.bus.put(b"T-1", b"\1" * 1500)
    other = query("T-2")
    plant.send(other)
    await plant.final(other)
    assert hand.flow.assignments[0].waiting == {b"T-1": "dead-letter-too-large"}
    await asyncio.wait_for(hand.member.revoke(0), 15)


@pytest.mark.parametrize("reason", ["dead-letter-too-large", "event-too-large"])
async def test_what_is_too_large_for_any_outcome_behind_a_doubt_leaves_the_doubt_its_end(
    plant: Plant, reason: str
) -> None:
    first = plant.hire(0, limits=Bounded(largest=9000, parked_after=0.01))
    plant.desk.answers = silent
    held, behind = add("T-1"), amend("T-1", correlationId="c" * 9000)
    plant.send(held)
    if reason == "event-too-large":
        plant.send(behind)
    else:
        plant.bus.put(b"T-1", b"\1" * 9000)
    await plant.until(lambda: first.lines.named("lane halted"))
    assert first.flow.assignments[0].waiting == {b"T-1": "doubt"}
    plant.desk.answers = accepted
    await plant.project()
    await plant.decide(held, "REPEAT")
    assert (await plant.final(held)).record["settledBy"] == "OPERATOR"
    await plant.until(lambda: first.flow.assignments[0].waiting == {b"T-1": reason})
    assert [line["reason"] for line in first.lines.named("lane halted")] == [reason] * 2
    await first.kill()
    plant.hire(0)
    await plant.caught_up()
    assert (plant.letters, plant.types(behind)) == (
        ([], ["FaultReportAmended"]) if reason == "event-too-large" else (["unframed"], [])
    )
