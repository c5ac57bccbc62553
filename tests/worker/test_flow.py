"""A worker over buses in memory: what it promises while partitions come, go and are lost."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from adapter.core.errors import Stop
from adapter.core.journal import Entry, Kind
from adapter.core.partition import partition_of
from adapter.ports import NotSent, Reply, Unclear
from adapter.worker.flow import REWRITE_AFTER
from adapter.worker.window import Bounds
from tests.support.estate import add, amend, query
from tests.support.plant import Bounded, Plant, accepted, answer, busy, later, silent

OLD = 30.0


async def test_a_command_ends_in_its_accepted_event_and_its_offset_is_committed(plant: Plant) -> None:
    plant.hire(0)
    command = add("T-1")
    plant.send(command)
    event = await plant.final(command)
    assert event.type == "FaultReportAdded"
    assert event.key == b"T-1"
    await plant.caught_up()
    assert plant.kinds(command) == [Kind.INTENT, Kind.SETTLED]
    assert len(plant.desk.calls) == 1


async def test_a_503_whose_page_is_cut_off_is_tried_again_and_leaves_no_doubt(plant: Plant) -> None:
    cut = Unclear("reset", "closed by the server", head=Reply(503, {"content-length": "100"}, b""))
    plant.desk.answers = lambda _: cut if len(plant.desk.calls) == 1 else accepted(plant.desk.calls[-1])
    plant.hire(0)
    command = add("T-1")
    plant.send(command)
    assert (await plant.final(command)).type == "FaultReportAdded"
    assert plant.types(command) == ["FaultReportAdded"]
    assert len(plant.desk.calls) == 2


async def test_a_200_whose_answer_is_cut_off_is_in_doubt(plant: Plant) -> None:
    plant.desk.answers = lambda _: Unclear("reset", "closed by the server", head=Reply(200, {}, b""))
    plant.hire(0)
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: plant.types(command))
    assert plant.types(command) == ["CommandOutcomeUnknown"]
    assert plant.of(command)[0].record["text"] == "closed by the server"
    assert len(plant.desk.calls) == 1


async def test_a_call_that_fails_without_any_answer_is_in_doubt_and_says_how(plant: Plant) -> None:
    plant.desk.answers = lambda _: Unclear("protocol", "the head of the reply does not end")
    plant.hire(0)
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: plant.types(command))
    assert plant.of(command)[0].record["text"] == "the head of the reply does not end"


async def test_keys_outside_their_own_partition_are_counted(plant: Plant) -> None:
    hand = plant.hire(0, 1, 2)
    commands = [add(f"T-{number}") for number in range(9)]
    for command in commands:
        plant.send(command, partition=partition_of(command.key.encode(), 3))
    for partition in range(3):
        plant.bus.put(None, b"\1", partition=partition)
    await plant.final(*commands)
    await plant.until(lambda: len(plant.letters) == 3)
    assert hand.counted("keys_misplaced_total") == 0
    elsewhere = add("T-9")
    plant.send(elsewhere, partition=(partition_of(b"T-9", 3) + 1) % 3)
    await plant.final(elsewhere)
    assert hand.counted("keys_misplaced_total") == 1


async def test_a_request_names_the_correlation_id_of_its_command_or_else_its_own_message(plant: Plant) -> None:
    plant.hire(0)
    named, unnamed = query("K-1", correlationId="c-9"), query("K-2")
    plant.send(named, unnamed)
    await plant.final(named, unnamed)
    (first,), (second,) = plant.desk.of(named), plant.desk.of(unnamed)
    assert b"correlationId>c-9<" in first.body
    assert f"correlationId>{second.message_id}<".encode() in second.body


@pytest.mark.parametrize("failure", [NotSent("connect", "no route to host"), Unclear("read-timeout", "no answer")])
async def test_a_call_that_fails_is_counted_by_its_reason(plant: Plant, failure: NotSent | Unclear) -> None:
    hand = plant.hire(0, limits=Bounded(retry=30))
    plant.desk.answers = lambda _: failure
    command = query("K-1")
    plant.send(command)
    await plant.until(lambda: hand.flow.assignments[0].waiting == {b"K-1": failure.reason})
    assert hand.counted("supplier_call_failures_total", reason=failure.reason) == 1


# -- revoke ------------------------------------------------------------------------------------------------------------


async def test_a_revoke_waits_for_running_calls_and_commits_their_outcomes(plant: Plant) -> None:
    hand = plant.hire(0, 1)
    plant.desk.answers = later
    command = add("T-1")
    plant.send(command)
    call = await plant.called(command)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await hand.settle()
    assert not leaving.done()
    answer(call)
    await leaving
    assert plant.types(command) == ["FaultReportAdded"]
    assert plant.position() == 1


async def test_a_revoke_leaves_waiting_commands_untouched_and_starts_nothing(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(permits=1))
    plant.desk.answers = later
    running, behind, other = add("T-1"), query("T-1"), add("T-2")
    plant.send(running, behind, other)
    call = await plant.called(running)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await hand.settle()
    answer(call)
    await leaving
    await hand.settle()
    assert len(plant.desk.calls) == 1
    assert plant.types(behind) == plant.types(other) == []
    assert plant.kinds(other) == []
    assert plant.position() == 1
    plant.desk.answers = accepted
    hand.member.assign(0)
    await plant.final(behind, other)
    assert len(plant.desk.calls) == 3


async def test_an_intent_committed_during_a_revoke_is_cleared_and_not_called(plant: Plant) -> None:
    hand = plant.hire(0)
    hand.member.hold()
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: hand.member.open_transaction)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await hand.settle()
    hand.member.release()
    await leaving
    assert plant.desk.calls == []
    assert plant.kinds(command) == [Kind.INTENT, Kind.CLEARED]
    assert plant.types(command) == []
    hand.member.assign(0)
    assert (await plant.final(command)).type == "FaultReportAdded"


async def test_a_revoke_does_not_wait_for_the_retry_of_a_call_that_ended(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(retry=OLD, revoke=OLD))
    plant.desk.answers = later
    command = add("T-1")
    plant.send(command)
    call = await plant.called(command)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await hand.settle()
    answer(call, busy)
    await asyncio.wait_for(leaving, OLD / 2)
    assert plant.kinds(command) == [Kind.INTENT, Kind.CLEARED]


async def test_a_revoke_does_not_wait_for_the_doubt_of_a_call_that_ended(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(doubt=OLD, revoke=OLD))
    plant.desk.answers = later
    command = add("T-1")
    plant.send(command)
    call = await plant.called(command)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    await hand.settle()
    call.answer.set_exception(silent(call))
    await asyncio.wait_for(leaving, OLD / 2)
    assert plant.types(command) == ["CommandOutcomeUnknown"]
    assert plant.kinds(command)[-1] is Kind.HELD


async def test_a_partition_that_goes_before_its_journal_was_read_commits_nothing(plant: Plant) -> None:
    first = plant.hire(0)
    command = add("T-1")
    plant.send(command)
    await plant.caught_up()
    behind = add("T-2")
    first.member.hold()
    plant.send(behind)
    await plant.until(lambda: first.member.open_transaction)
    first.member.expel()
    second = plant.hire(0)  # its reading waits for the open transaction
    await second.settle()
    leaving = asyncio.ensure_future(second.member.revoke(0))
    await second.settle()
    assert leaving.done()
    assert second.member.attempts == []
    assert plant.position() == 1


async def test_a_worker_that_can_not_go_on_finishes_its_calls_and_begins_no_more(plant: Plant) -> None:
    hand = plant.hire(0)
    plant.desk.answers = later
    under_way, behind = add("T-1"), amend("T-1")
    plant.send(under_way, behind)
    call = await plant.called(under_way)
    hand.flow.failed(Stop("the topic has other partitions"))
    await hand.settle()
    answer(call)
    with pytest.raises(Stop, match="the topic has other partitions"):
        await hand.running
    assert plant.types(under_way) == ["FaultReportAdded"]
    assert plant.position() == 1
    assert plant.desk.of(behind) == []
    assert hand.lines.named("stopping") == [{"reason": "the topic has other partitions"}]
    hand.member.kill()


# -- the journal -------------------------------------------------------------------------------------------------------


async def test_a_worker_does_not_pass_over_a_journal_that_a_later_release_has_written(plant: Plant) -> None:
    plant.send(add("T-1"))
    event = {"commandId": "c", "operation": "AddFaultReport", "occurredAt": datetime.now(UTC)}
    plant.write("FaultReportAdded", event)
    hand = plant.hire(0)
    with pytest.raises(Stop, match=r"fault\.event\.FaultReportAdded is none of .*: start the later one, or .*disaster"):
        await hand.running
    assert plant.desk.calls == []
    hand.member.kill()


async def test_a_worker_does_not_pass_over_an_entry_of_a_kind_that_a_later_release_has_added(plant: Plant) -> None:
    command = add("T-1")
    plant.send(command)
    entry = Entry(Kind.PARKED, command.command_id, 0, b"", time.time()).record()
    plant.write("JournalEntries", {"entries": [entry | {"kind": "UNKNOWN"}]})
    hand = plant.hire(0)
    with pytest.raises(Stop, match="a kind that this release does not know: start the later one"):
        await hand.running
    assert plant.desk.calls == []
    hand.member.kill()


async def test_foreign_bytes_in_the_journal_are_passed_over_and_told(plant: Plant) -> None:
    plant.bus.journal[0] += [b"foreign", None]
    command = add("T-1")
    plant.send(command)
    hand = plant.hire(0)
    assert (await plant.final(command)).type == "FaultReportAdded"
    assert hand.lines.named("journal entry not readable") == [{"reason": "unframed"}]


async def test_a_partition_waits_for_the_schema_of_an_entry_that_may_be_ours(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    command, other = add("T-1"), query("K-1")
    plant.send(command)
    await plant.called(command)
    await first.kill()
    schema_id, text = plant.registry.forget("JournalEntries")
    plant.desk.answers = accepted
    second = plant.hire(0, 1)
    plant.send(other, partition=1)
    await plant.final(other)
    await plant.until(lambda: second.lines.named("journal not readable"))
    assert second.lines.named("journal not readable")[0] == {
        "partition": 0,
        "reason": f"the record at offset 0, unknown-schema: the registry has no schema {schema_id}",
        "attempt": 1,
    }
    plant.registry.texts[schema_id] = text
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    assert len(plant.desk.of(command)) == 1


async def test_what_waits_in_a_quiet_journal_for_hours_is_written_forward_once(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(parked_after=0.01))
    plant.desk.answers = silent
    held, behind = add("T-1"), amend("T-1")
    plant.send(held, behind)
    await plant.caught_up()
    await first.kill()
    old = [replace(entry, at=entry.at - 7 * 3600).record() for entry in plant.entries()]
    plant.bus.journal[0] = []
    plant.write("JournalEntries", {"entries": old})
    second = plant.hire(0)
    await second.settle()
    assignment = second.flow.assignments[0]
    for _ in range(3):  # however long the commit takes
        second.flow._write_forward(assignment)
    await plant.until(lambda: not assignment.forward)
    assert (plant.kinds(held)[-2:], plant.kinds(behind)) == ([Kind.HELD] * 2, [Kind.PARKED] * 2)
    assert assignment.extent.stale(10**9, time.time() - REWRITE_AFTER) == ()
    await second.kill()
    plant.bus.journal[0][:2] = [None, None]  # as retention leaves it
    third = plant.hire(0)
    await third.settle()
    assert third.flow.assignments[0].residents.keys() == {held.command_id, behind.command_id}


async def test_a_call_of_what_was_parked_is_known_after_its_entry_was_written_forward(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(doubt=2, parked_after=0.01))
    plant.desk.answers = silent
    held, behind = add("T-1"), amend("T-1", maintainerFaultReference="CF-1")
    plant.send(held, behind)
    await plant.until(lambda: plant.kinds(behind) == [Kind.PARKED])
    plant.desk.answers = later
    await plant.called(behind)
    assignment = first.flow.assignments[0]
    assignment.extent._written[behind.command_id] = 0.0  # long ago
    first.flow._write_forward(assignment)
    await plant.until(lambda: not assignment.forward)
    assert plant.kinds(behind) == [Kind.PARKED, Kind.INTENT, Kind.INTENT]
    await first.kill()
    plant.hire(0)
    await plant.until(lambda: plant.types(behind) == ["CommandOutcomeUnknown"])
    assert len(plant.desk.of(behind)) == 1


# -- lost --------------------------------------------------------------------------------------------------------------


async def test_results_of_a_lost_partition_are_dropped(plant: Plant) -> None:
    hand = plant.hire(0)
    plant.desk.answers = later
    command = query("T-1")
    plant.send(command)
    call = await plant.called(command)
    hand.member.lose(0)
    answer(call)
    await hand.settle()
    assert plant.types(command) == []
    assert plant.position() == 0


async def test_an_outcome_that_was_not_committed_when_the_partition_was_lost_is_not_remembered(plant: Plant) -> None:
    hand = plant.hire(0)
    command = query("T-1")
    hand.member.hold()
    plant.send(command)
    await plant.until(lambda: hand.member.open_transaction)
    hand.member.lose(0)  # the broker refuses what was sent under the old generation
    hand.member.release()
    await hand.settle()
    assert plant.types(command) == []
    hand.member.assign(0)
    await plant.final(command)
    assert len(plant.desk.of(command)) == 2
    await plant.caught_up()


async def test_an_intent_of_a_lost_partition_gives_its_permit_back(plant: Plant) -> None:
    hand = plant.hire(0, 1, limits=Bounded(permits=1))
    gone, other = add("T-1"), add("T-2")
    hand.member.hold()
    plant.send(gone)
    await plant.until(lambda: hand.member.open_transaction)
    hand.member.lose(0)
    hand.member.release()
    plant.send(other, partition=1)
    await plant.final(other)
    assert plant.desk.of(gone) == []


async def test_a_member_that_was_expelled_commits_nothing(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    command = query("T-1")
    plant.send(command)
    call = await plant.called(command)
    first.member.expel()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.final(command)
    answer(call)
    await plant.until(lambda: len(first.member.attempts) > 1, "it tries")
    first.member.lose(0)
    assert len([event for event in plant.of(command) if event.final]) == 1


async def test_a_revoke_of_many_partitions_takes_no_longer_than_of_one_while_nothing_can_be_committed(
    plant: Plant,
) -> None:
    hand = plant.hire(0, 1, 2, limits=Bounded(revoke=3.0))
    command = add("T-1")
    plant.send(command)
    await plant.final(command)
    await plant.until(lambda: len(hand.lines.named("partition started")) == 3, what="three partitions")
    hand.member.hold()
    began = asyncio.get_running_loop().time()
    await hand.member.revoke(0, 1, 2)
    assert asyncio.get_running_loop().time() - began < 7.5
    hand.member.release()


async def test_other_partitions_go_on_while_one_is_revoked(plant: Plant) -> None:
    hand = plant.hire(0, 1)
    plant.desk.answers = later
    command, other = add("T-1"), add("T-2")
    plant.send(command)
    call = await plant.called(command)
    leaving = asyncio.ensure_future(hand.member.revoke(0))
    plant.desk.answers = accepted
    plant.send(other, partition=1)
    await plant.final(other)
    assert not leaving.done()
    answer(call)
    await leaving


# -- take-over ---------------------------------------------------------------------------------------------------------


async def test_what_was_settled_is_passed_over(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = lambda call: None if call.operation == "QueryAppointmentAvailability" else accepted(call)
    slow, done = query("T-1"), add("T-2")
    plant.send(slow, done)
    await plant.final(done)
    assert plant.position() == 0
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.final(slow)
    await plant.caught_up()
    assert plant.types(done) == ["FaultReportAdded"]
    assert len(plant.desk.of(done)) == 1


async def test_what_a_successor_finds_in_the_journal_is_counted_command_by_command(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(parked_after=0.01))
    plant.desk.answers = later
    called = [add(f"T-{number}") for number in range(3)]
    plant.send(*called)
    for each in called:
        await plant.called(each)
    plant.desk.answers = silent
    held, parked, done = add("T-9"), [amend("T-9"), amend("T-9")], query("K-1")
    plant.send(held, *parked)
    await plant.until(lambda: plant.kinds(parked[1]) == [Kind.PARKED])
    plant.desk.answers = accepted
    plant.send(done)
    await plant.final(done)
    await first.kill()
    second = plant.hire(0)
    await plant.until(lambda: second.lines.named("partition started"))
    states = ("settled", "intent", "held", "parked")
    assert [second.counted("journal_recovered_total", state=state) for state in states] == [1, 3, 1, 2]


async def test_a_command_at_the_offset_of_a_dead_letter_that_was_lost_is_not_passed_over(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = lambda call: None if call.operation == "QueryAppointmentAvailability" else accepted(call)
    slow, command = query("K-1"), add("T-1")
    plant.send(slow)
    plant.bus.put(b"T-1", b"\1")
    await plant.until(lambda: plant.letters)
    await first.kill()
    plant.bus.commands[0].pop()
    plant.send(command)
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.final(slow, command)
    await plant.caught_up()
    assert (plant.types(command), plant.letters) == (["FaultReportAdded"], ["unframed"])


async def test_what_another_release_has_settled_is_passed_over_though_it_reads_differently(plant: Plant) -> None:
    """One of them does not know a field of it, so that its digest is another."""
    command = add("T-1")
    plant.send(command)
    entry = Entry(Kind.SETTLED, command.command_id, 0, b"another", time.time())
    plant.write("JournalEntries", {"entries": [entry.record()]})
    plant.hire(0)
    await plant.caught_up()
    assert (plant.letters, plant.types(command), plant.desk.calls) == ([], [], [])


async def test_what_was_settled_is_passed_over_though_memory_is_too_small_for_it(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = lambda call: None if call.operation == "QueryAppointmentAvailability" else accepted(call)
    slow, done = query("T-0"), [add(f"T-{n}") for n in range(1, 5)]
    plant.send(slow, *done)
    await plant.final(*done)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0, limits=Bounded(remembered=1))
    await plant.caught_up()
    assert [len(plant.desk.of(command)) for command in done] == [1, 1, 1, 1]
    assert [plant.types(command) for command in done] == [["FaultReportAdded"]] * 4


async def test_a_successor_waits_for_the_transaction_of_its_predecessor(plant: Plant) -> None:
    first = plant.hire(0)
    first.member.hold()
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: first.member.open_transaction)
    first.member.expel()
    second = plant.hire(0)
    await second.settle()
    assert not plant.desk.calls
    await first.kill(committed=True)
    await plant.until(lambda: plant.types(command))
    assert plant.types(command) == ["CommandOutcomeUnknown"]
    assert plant.desk.calls == []


# -- window ------------------------------------------------------------------------------------------------------------


async def test_a_partition_pauses_at_the_span_and_flows_again(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(window=Bounds(10_000, 10**8, 8)))
    hand.member.batch = 4
    plant.desk.answers = later
    commands = [query(f"T-{n}") for n in range(20)]
    plant.send(*commands)
    await plant.until(lambda: 0 in hand.member.paused)
    assert len(hand.flow.assignments[0].items) == 8
    plant.desk.answers = accepted
    for call in plant.desk.calls:
        answer(call)
    await plant.final(*commands)
    await plant.caught_up()
