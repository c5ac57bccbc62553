"""What tickets do for commands: the supplier's reference where it is left out, and the end of doubts."""

import re
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest

from adapter.core.journal import Kind
from adapter.core.partition import partition_of
from adapter.core.ticket import Origin, Ticket
from adapter.ports import Position
from tests.support.estate import Command, add, amend, ask_update, query, reserve, resolve, with_deadline
from tests.support.plant import Bounded, Call, Plant, accepted, busy, later, refused, silent

NOW: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
ELSEWHERE: Final = "T-1"
"""With three partitions, the commands of a test lie in partition 0 and this ticket in another."""


def known(reference: str, theirs: str | None = "CF-1") -> Ticket:
    return Ticket(reference, Origin.BUYER, NOW, NOW, maintainer_reference=theirs)


def named(call: Call) -> str | None:
    """The supplier's reference that a request names."""
    found = re.search(rb"<maintainerFaultReference>(.*?)</maintainerFaultReference>", call.body)
    return found and found[1].decode()


def rejected(code: str, *problems: str) -> dict[str, Any]:
    return {
        "rejectedBy": "ADAPTER",
        "code": code,
        "problems": [{"path": "maintainerFaultReference", "text": text} for text in problems],
    }


def outcome(record: Any) -> dict[str, Any]:
    return {name: record[name] for name in ("rejectedBy", "code", "problems")}


def settled(record: Any) -> tuple[str, str, str | None]:
    return record["outcome"], record["settledBy"], record["text"]


# -- the supplier's reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [ask_update, amend, resolve, partial(amend, maintainerFaultReference="  ")])
async def test_a_reference_that_is_left_out_or_blank_is_taken_from_the_ticket(plant: Plant, build: Any) -> None:
    plant.hire(0)
    await plant.tell(known("T-1"))
    command = build("T-1")
    plant.send(command)
    await plant.final(command)
    assert [named(call) for call in plant.desk.of(command)] == ["CF-1"]


async def test_a_successor_that_repeats_a_call_names_the_reference_as_well(plant: Plant) -> None:
    first = plant.hire(0)
    await plant.tell(known("T-1"))
    plant.desk.answers = later
    command = resolve("T-1")
    plant.send(command)
    await plant.called(command)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.final(command)
    assert [named(call) for call in plant.desk.of(command)] == ["CF-1", "CF-1"]


@pytest.mark.parametrize("build", [ask_update, amend, resolve])
async def test_a_reference_that_is_given_is_sent_as_it_is_and_nothing_is_followed(plant: Plant, build: Any) -> None:
    hand = plant.hire(0)
    await hand.settle()
    await plant.tell(known("T-1"))
    command = build("T-1", maintainerFaultReference="CF-9")
    plant.send(command, add("T-2"))
    await plant.final(command)
    assert [named(call) for call in plant.desk.of(command)] == ["CF-9"]
    assert hand.feed.asked == []


async def test_who_can_do_without_a_reference_does_not_wait_for_one(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(reference_wait=30))
    await plant.tell(known("T-1", None))
    for command in (amend("T-1"), amend("T-2")):
        plant.send(command)
        await plant.final(command)
        assert [named(call) for call in plant.desk.of(command)] == [None]


async def test_who_needs_a_reference_waits_for_the_ticket_to_have_one(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(reference_wait=30))
    ask, other = ask_update("T-1"), add("T-2")
    plant.send(ask, other)
    await plant.final(other)
    await plant.until(lambda: hand.flow.assignments[0].waiting == {b"T-1": "ticket"})
    await plant.tell(known("T-1", None))
    await hand.settle()
    assert plant.desk.of(ask) == []
    await plant.tell(known("T-1"))
    assert (await plant.final(ask)).type == "FaultReportUpdateRequested"
    assert [named(call) for call in plant.desk.of(ask)] == ["CF-1"]


async def test_a_reference_that_does_not_come_in_time_is_a_rejection_that_says_what_is_known(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(reference_wait=0.1))
    unknown, pending = ask_update("T-1"), ask_update("T-2")
    await plant.notice("T-2", "PENDING", status="PENDING")
    plant.send(unknown, pending)
    assert outcome((await plant.final(unknown)).record) == rejected(
        "reference-unknown", "left out, and nothing is known of its ticket"
    )
    assert outcome((await plant.final(pending)).record) == rejected(
        "reference-unknown", "left out, and not told by the supplier; the ticket is PENDING"
    )
    assert plant.desk.calls == []


async def test_nothing_waits_for_a_reference_beyond_its_deadline(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(reference_wait=30))
    command = with_deadline(ask_update("T-1"), 0.1)
    plant.send(command)
    assert (await plant.final(command)).record["code"] == "expired"


async def test_nothing_is_decided_before_the_tickets_were_read_to_their_end(plant: Plant) -> None:
    plant.bus.tickets_away = True
    hand = plant.hire(0, limits=Bounded(reference_wait=0.05))
    await hand.settle()
    ask, deadline, change = ask_update("T-1"), with_deadline(ask_update("T-2"), 0.1), amend("T-3")
    plant.send(ask, deadline, change)
    assert (await plant.final(deadline)).record["code"] == "expired"
    assert named(await plant.called(change)) is None, "it can do without, and does not wait for ever"
    assert plant.of(ask) == []
    for number in range(5):
        await plant.tell(known(f"T-1{number}"))
    await plant.tell(known("T-1"))
    await plant.come_back()
    assert (await plant.final(ask)).type == "FaultReportUpdateRequested"
    assert hand.counted("tickets_followed", state="behind") == 0


async def test_the_time_for_a_reference_counts_from_when_the_tickets_were_read(plant: Plant) -> None:
    plant.bus.tickets_away = True
    hand = plant.hire(0, limits=Bounded(reference_wait=2))
    await hand.settle()
    command, without = ask_update("T-1"), amend("T-2")
    plant.send(command, without)
    await plant.called(without)  # the time is over for who does not need one
    await plant.come_back()
    await plant.until(lambda: hand.counted("tickets_followed", state="behind") == 0)
    await hand.settle()
    assert plant.of(command) == []
    await plant.tell(known("T-1"))
    assert (await plant.final(command)).type == "FaultReportUpdateRequested"


async def test_a_key_outside_its_own_partition_has_its_ticket_where_the_key_belongs(plant: Plant) -> None:
    hand = plant.hire(0, 1, 2)
    elsewhere = next(key for key in map(str, range(99)) if partition_of(key.encode(), 3) == 2)
    await plant.tell(known(elsewhere))
    command = ask_update(elsewhere)
    plant.send(command, partition=0)
    await plant.final(command)
    assert [named(call) for call in plant.desk.of(command)] == ["CF-1"]
    assert hand.feed.asked == [(2, 0)]


async def test_many_tickets_of_a_partition_are_followed_once(plant: Plant) -> None:
    hand = plant.hire(0)
    commands = [amend(f"T-{n}") for n in range(20)]
    plant.send(*commands)
    await plant.final(*commands)
    assert sorted(partition for partition, _ in hand.feed.asked) == [0, 1, 2]


async def test_the_wait_for_a_reference_does_not_keep_a_partition_from_being_given_back(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(reference_wait=30, revoke=30))
    ask = ask_update("T-1")
    plant.send(ask)
    await plant.until(lambda: hand.flow.assignments[0].waiting == {b"T-1": "ticket"})
    began = time.monotonic()
    await hand.stop()
    assert time.monotonic() - began < 15
    await plant.tell(known("T-1"))
    plant.hire(0)
    await plant.final(ask)


async def test_a_reference_the_request_cannot_hold_is_a_rejection(plant: Plant) -> None:
    plant.hire(0)
    await plant.tell(known("T-1", "CF\u0001"))
    command = amend("T-1")
    plant.send(command)
    event = await plant.final(command)
    assert (event.record["code"], [p["path"] for p in event.record["problems"]]) == (
        "invalid",
        ["maintainerFaultReference"],
    )


# -- repeats -----------------------------------------------------------------------------------------------------------


def issued(command: Command, ago: float) -> Command:
    record = {**command.record, "issuedAt": datetime.now(UTC) - timedelta(seconds=ago)}
    return Command(command.name, command.key, record, command_id=command.command_id)


async def forgotten(plant: Plant, command: Command) -> None:
    """It has ended, the ticket tells of it, and the worker remembers only what came after it."""
    after = add("T-9")
    plant.send(command)
    await plant.final(command)
    plant.send(after)
    await plant.final(after)
    await plant.project()


async def test_a_command_whose_end_is_forgotten_is_known_by_its_ticket(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(remembered=1))
    command, following = issued(add("T-1"), 3600), amend("T-1")
    await forgotten(plant, command)
    plant.send(command, following)
    await plant.final(following)
    await plant.caught_up()
    assert (plant.types(command), len(plant.desk.of(command))) == (["FaultReportAdded"], 1)
    assert hand.counted("commands_repeated_total", operation="AddFaultReport") == 1


async def test_a_command_that_was_issued_long_ago_and_never_called_is_called(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(remembered=1))
    await forgotten(plant, issued(add("T-1"), 3600))
    late = [issued(amend("T-1"), 3600), issued(add("T-2"), 3600)]
    plant.send(*late)
    await plant.final(*late)
    assert [plant.types(command) for command in late] == [["FaultReportAmended"], ["FaultReportAdded"]]


async def test_nothing_is_asked_about_a_command_whose_end_would_be_remembered(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(remembered=1))
    await hand.settle()
    await forgotten(plant, add("T-1"))
    recent = add("T-2", issuedAt=datetime.now(UTC) + timedelta(seconds=20))
    plant.send(recent)
    await plant.final(recent)
    assert hand.feed.asked == []


async def test_a_forgotten_command_that_comes_again_behind_a_held_one_ends_when_it_would_be_parked(
    plant: Plant,
) -> None:
    plant.hire(0, limits=Bounded(remembered=1, parked_after=0.01))
    command = issued(add("T-1"), 3600)
    await forgotten(plant, command)
    held = amend("T-1")
    await doubted(plant, held)
    plant.send(command)
    await plant.caught_up()
    assert (plant.types(command), plant.kinds(command)[-1:]) == (["FaultReportAdded"], [Kind.SETTLED])
    assert len(plant.desk.of(command)) == 1


async def test_a_worker_with_another_journal_than_the_offsets_speak_of_knows_ends_by_the_tickets(plant: Plant) -> None:
    first = plant.hire(0)
    commands = [add(f"T-{n}") for n in range(3)]
    plant.desk.answers = lambda call: None if b"T-0<" in call.body else accepted(call)
    plant.send(*commands)
    await plant.final(*commands[1:])
    await plant.project()
    await first.kill()
    plant.bus.journal[0].clear()
    plant.bus.committed[0] = Position(0, 0, "{}")
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.caught_up()
    assert [len(plant.desk.of(command)) for command in commands] == [2, 1, 1]


@pytest.mark.parametrize("committed", [[Position(0, 0, "")], []])
async def test_ends_that_were_in_a_lost_journal_are_known_by_the_tickets_though_another_was_begun(
    plant: Plant, committed: list[Position]
) -> None:
    """Offsets that `kafka-consumer-groups --reset-offsets` has written have no metadata; in another cluster there are
    none. Another worker was started and killed since.
    """
    first = plant.hire(0)
    plant.desk.answers = lambda call: None if b"K-1<" in call.body else accepted(call)
    commands, behind = [add(f"T-{n}") for n in range(3)], add("T-9")
    plant.send(query("K-1"), *commands)
    await plant.final(*commands)
    await plant.project()
    await first.kill()
    plant.bus.journal[0].clear()
    plant.bus.committed = dict(enumerate(committed))
    second = plant.hire(0)
    plant.send(behind)
    await plant.final(behind)
    await second.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    await plant.caught_up()
    assert [len(plant.desk.of(command)) for command in commands] == [1, 1, 1]


# -- doubts ------------------------------------------------------------------------------------------------------------


async def doubted(plant: Plant, command: Command) -> None:
    """Its call stays without an answer, the doubt is published and folded."""
    plant.desk.answers = silent
    plant.send(command)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"])
    await plant.project()
    plant.desk.answers = accepted


async def test_the_suppliers_next_notification_settles_a_report(plant: Plant) -> None:
    plant.hire(0)
    command, behind = add("T-1"), amend("T-1")
    await doubted(plant, command)
    plant.send(behind)
    await plant.notice("T-1", "PENDING")
    assert settled((await plant.final(command)).record) == (
        "ACCEPTED",
        "NOTIFICATION",
        "the supplier has sent: PENDING",
    )
    assert (await plant.final(behind)).type == "FaultReportAmended"
    assert len(plant.desk.of(command)) == 1


async def test_only_the_confirmation_settles_an_amendment(plant: Plant) -> None:
    hand = plant.hire(0)
    await plant.notice("T-1", "AMENDED")
    command = amend("T-1")
    await doubted(plant, command)
    await plant.notice("T-1", "IN_PROGRESS")
    await hand.settle()
    assert plant.types(command) == ["CommandOutcomeUnknown"]
    await plant.notice("T-1", "AMENDED")
    assert settled((await plant.final(command)).record) == (
        "ACCEPTED",
        "NOTIFICATION",
        "the supplier has sent: AMENDED",
    )


async def test_a_notification_about_another_ticket_settles_nothing(plant: Plant) -> None:
    hand = plant.hire(0)
    command = add("T-1")
    await doubted(plant, command)
    await plant.notice("T-2", "ACCEPTED")
    await hand.settle()
    assert plant.types(command) == ["CommandOutcomeUnknown"]


async def test_no_ticket_tells_of_a_reservation(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(doubt=0.2))
    command = reserve("T-1")
    plant.desk.answers = silent
    plant.send(command)
    await plant.until(lambda: plant.types(command))
    await plant.notice("T-1", "ACCEPTED")
    await plant.decide(command, "ACCEPTED")
    assert settled((await plant.final(command)).record) == ("UNDETERMINED", "TIME_LIMIT", None)
    assert hand.feed.asked == []


@pytest.mark.parametrize("ruling", ["ACCEPTED", "REJECTED"])
async def test_an_operator_settles_a_doubt(plant: Plant, ruling: str) -> None:
    plant.hire(0)
    command, behind = amend("T-1"), amend("T-1")
    await doubted(plant, command)
    plant.send(behind)
    await plant.decide(command, ruling)
    assert settled((await plant.final(command)).record) == (ruling, "OPERATOR", "joe: asked them")
    assert (await plant.final(behind)).type == "FaultReportAmended"


async def test_a_doubt_waits_for_the_schema_of_its_ticket(plant: Plant) -> None:
    hand = plant.hire(0)
    command = add("T-1")
    schema_id, text = plant.registry.forget("Ticket")
    await doubted(plant, command)
    await plant.notice("T-1", "PENDING")
    await plant.until(lambda: hand.lines.named("registry not available"))
    plant.registry.texts[schema_id] = text
    assert settled((await plant.final(command)).record)[:2] == ("ACCEPTED", "NOTIFICATION")


async def test_of_a_notification_and_a_decision_the_first_counts(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(reference_wait=0.05))
    await hand.settle()
    plant.bus.tickets_away = True
    decided, confirmed = amend("T-1"), amend("T-2")
    await doubted(plant, decided)
    await doubted(plant, confirmed)
    await plant.decide(decided, "REJECTED")
    await plant.notice("T-1", "AMENDED")
    await plant.notice("T-2", "AMENDED")
    await plant.decide(confirmed, "REJECTED")
    await plant.come_back()
    await plant.final(decided, confirmed)
    assert [settled(plant.of(each)[-1].record)[:2] for each in (decided, confirmed)] == [
        ("REJECTED", "OPERATOR"),
        ("ACCEPTED", "NOTIFICATION"),
    ]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (accepted, ("ACCEPTED", "OPERATOR", "joe: asked them; sent again, and accepted")),
        (refused, ("REJECTED", "OPERATOR", "joe: asked them; sent again, and rejected: 400, no")),
    ],
)
async def test_an_operator_has_a_command_sent_again(plant: Plant, reply: Any, expected: tuple[str, str, str]) -> None:
    plant.hire(0)
    command = add("T-1")
    await doubted(plant, command)
    plant.desk.answers = reply
    await plant.decide(command, "REPEAT")
    event = await plant.final(command)
    assert (event.type, settled(event.record), event.record["attempts"]) == ("CommandSettled", expected, 2)
    said = [{"path": "responseCode", "text": "201"}] if reply is accepted else []
    assert event.record["answer"] == said
    assert len(plant.desk.of(command)) == 2
    assert plant.kinds(command) == [Kind.INTENT, Kind.HELD, Kind.INTENT, Kind.SETTLED]
    await plant.caught_up()


@pytest.mark.parametrize("length", [10, 2000], ids=["short", "long"])
async def test_a_command_that_is_sent_again_names_the_reference_its_ticket_has_by_now(
    plant: Plant, length: int
) -> None:
    plant.hire(0)
    command = amend("T-1", faultDetails={"description": "x" * length})
    await doubted(plant, command)
    await plant.notice("T-1", "IN_PROGRESS", maintainerFaultReference="CF-1")
    await plant.decide(command, "REPEAT")
    await plant.final(command)
    assert [named(call) for call in plant.desk.of(command)] == [None, "CF-1"]


async def test_a_command_that_is_sent_again_and_stays_unclear_is_a_doubt_again(plant: Plant) -> None:
    plant.hire(0)
    command = amend("T-1")
    await doubted(plant, command)
    plant.desk.answers = silent
    await plant.decide(command, "REPEAT")
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"] * 2)
    assert [event.record["attempts"] for event in plant.of(command)] == [1, 2]
    await plant.project()
    assert len(plant.desk.of(command)) == 2, "the decision was about the first doubt"
    await plant.decide(command, "ACCEPTED", attempts=2)
    assert settled((await plant.final(command)).record) == ("ACCEPTED", "OPERATOR", "joe: asked them")


async def test_a_repeat_waits_for_a_supplier_that_is_away(plant: Plant) -> None:
    plant.hire(0)
    command = amend("T-1")
    await doubted(plant, command)
    plant.desk.answers = busy
    await plant.decide(command, "REPEAT")
    await plant.until(lambda: Kind.CLEARED in plant.kinds(command))
    plant.desk.answers = accepted
    event = await plant.final(command)
    assert settled(event.record) == ("ACCEPTED", "OPERATOR", "joe: asked them; sent again, and accepted")


async def test_a_command_is_taken_on_only_if_the_journal_can_keep_it_with_why_it_is_sent_again(plant: Plant) -> None:
    plant.hire(0, limits=Bounded(largest=9000))
    plant.desk.answers = silent
    small, large = amend("T-1", serviceAffected="S" * 400), amend("T-2", serviceAffected="S" * 5500)
    plant.send(small, large)
    assert (await plant.final(large)).record["problems"] == [
        {"path": "", "text": "too large to be kept while it waits"}
    ]
    await plant.until(lambda: plant.types(small) == ["CommandOutcomeUnknown"])
    await plant.project()
    await plant.decide(small, "REPEAT", why="é" * 5000)
    plant.desk.answers = busy
    await plant.until(lambda: plant.kinds(small)[-1] is Kind.CLEARED)


# -- doubts and successors ---------------------------------------------------------------------------------------------


async def test_a_doubt_that_was_taken_over_is_settled_by_what_came_before_and_after(plant: Plant) -> None:
    first = plant.hire(0)
    heard, unheard = add("T-1"), add("T-2")
    for command in (heard, unheard):
        await doubted(plant, command)
    await first.kill()
    await plant.notice("T-1", "ACCEPTED")
    plant.hire(0)
    assert settled((await plant.final(heard)).record)[:2] == ("ACCEPTED", "NOTIFICATION")
    await plant.decide(unheard, "REJECTED")
    assert settled((await plant.final(unheard)).record)[:2] == ("REJECTED", "OPERATOR")


async def test_a_crash_during_a_call_is_settled_by_a_notification_that_was_there_first(plant: Plant) -> None:
    first = plant.hire(0)
    plant.desk.answers = later
    command = add("T-1")
    plant.send(command)
    await plant.called(command)
    await first.kill()
    await plant.notice("T-1", "ACCEPTED")
    plant.hire(0)
    assert settled((await plant.final(command)).record)[:2] == ("ACCEPTED", "NOTIFICATION")
    assert plant.types(command) == ["CommandOutcomeUnknown", "CommandSettled"]


async def test_a_doubt_whose_time_was_up_before_anybody_took_it_over_still_hears_the_ticket(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(doubt=3.0))
    heard, unheard = add("T-1"), add("T-2")
    for command in (heard, unheard):
        await doubted(plant, command)
    await first.kill()
    (held, _) = plant.entries(unheard)[-1], None
    await plant.notice("T-1", "ACCEPTED")
    await plant.until(lambda: time.time() > (held.until or 0))
    plant.hire(0)
    assert settled((await plant.final(heard)).record)[:2] == ("ACCEPTED", "NOTIFICATION")
    assert settled((await plant.final(unheard)).record)[:2] == ("UNDETERMINED", "TIME_LIMIT")


@pytest.mark.parametrize("away", [False, True], ids=["no-ticket", "tickets-away"])
async def test_a_doubt_whose_time_was_up_ends_though_nothing_can_be_learnt_of_its_ticket(
    plant: Plant,
    away: bool,  # noqa: FBT001
) -> None:
    first = plant.hire(0, limits=Bounded(doubt=2.0, reference_wait=0.01))
    plant.desk.answers = silent
    command = add("T-1")
    plant.send(command)
    await plant.until(lambda: plant.kinds(command)[-1:] == [Kind.HELD])
    await first.kill()
    (held,) = [entry for entry in plant.entries(command) if entry.kind is Kind.HELD]
    await plant.until(lambda: time.time() > (held.until or 0))
    plant.bus.tickets_away = away
    plant.hire(0)
    assert settled((await plant.final(command)).record) == ("UNDETERMINED", "TIME_LIMIT", None)


async def test_a_crash_between_a_decision_and_the_repeat_is_no_third_call(plant: Plant) -> None:
    first = plant.hire(0)
    command = amend("T-1")
    await doubted(plant, command)
    plant.desk.answers = later
    await plant.decide(command, "REPEAT")
    await plant.called(command, 2)
    await first.kill()
    plant.desk.answers = accepted
    second = plant.hire(0)
    await plant.until(lambda: plant.types(command) == ["CommandOutcomeUnknown"] * 2)
    assert plant.of(command)[1].record["reason"] == "interrupted"
    await second.settle()
    assert len(plant.desk.of(command)) == 2
    await plant.project()
    await plant.decide(command, "REPEAT", attempts=2)
    assert settled((await plant.final(command)).record)[:2] == ("ACCEPTED", "OPERATOR")
    assert len(plant.desk.of(command)) == 3


async def test_a_repeat_that_waited_ends_settled_at_its_next_owner(plant: Plant) -> None:
    first = plant.hire(0, limits=Bounded(retry=30))
    command = amend("T-1")
    await doubted(plant, command)
    plant.desk.answers = busy
    await plant.decide(command, "REPEAT")
    await plant.until(lambda: plant.kinds(command)[-1] is Kind.CLEARED)
    await first.kill()
    plant.desk.answers = accepted
    plant.hire(0)
    event = await plant.final(command)
    assert settled(event.record) == ("ACCEPTED", "OPERATOR", "joe: asked them; sent again, and accepted")


async def test_what_waits_behind_a_doubt_is_parked_while_the_tickets_cannot_be_read(plant: Plant) -> None:
    plant.bus.tickets_away = True
    hand = plant.hire(0, limits=Bounded(parked_after=0.01, reference_wait=0.05))
    await hand.settle()
    command, behind = amend("T-1"), amend("T-1")
    await doubted(plant, command)
    plant.send(behind)
    await plant.until(lambda: plant.kinds(behind) == [Kind.PARKED])
    await plant.decide(command, "ACCEPTED")
    await plant.come_back()
    await plant.final(command, behind)


async def test_tickets_that_were_not_asked_for_a_while_are_followed_on_from_where_they_were_left(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(linger=0.01))
    await plant.tell(known("T-1"))
    first = ask_update("T-1")
    plant.send(first)
    await plant.final(first)
    await plant.until(lambda: hand.feed.followed == set())
    second = ask_update("T-1")
    plant.send(second)
    await plant.final(second)
    assert [named(call) for call in plant.desk.calls] == ["CF-1", "CF-1"]
    (partition, start), again = hand.feed.asked
    assert (start, again) == (0, (partition, 2))
    doubtful = amend("T-1")
    await plant.until(lambda: hand.feed.followed == set())
    await doubted(plant, doubtful)
    await plant.notice("T-1", "AMENDED")
    await plant.final(doubtful)


async def test_tickets_that_were_asked_again_before_they_were_left_are_left_later(plant: Plant) -> None:
    hand = plant.hire(0, limits=Bounded(linger=0.3))
    await plant.tell(known("T-1"))
    for _ in range(2):
        command = ask_update("T-1")
        plant.send(command)
        await plant.final(command)
    await plant.until(lambda: hand.feed.followed == set())
