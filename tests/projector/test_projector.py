"""The projector before a real broker: what becomes of events, of what is none, and of time."""

import asyncio
import struct
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapter.core.errors import Stop
from adapter.core.partition import partition_of
from tests.projector.conftest import Running, Stage
from tests.projector.scribe import T0, answered, notified
from tests.support import groups
from tests.support import topics as topic_sets
from tests.support.disk import no_file_beyond
from tests.support.processes import Processes
from tests.support.topics import widen
from tests.support.wait import eventually


def minutes(number: float) -> datetime:
    return T0 + timedelta(minutes=number)


async def test_the_events_of_a_ticket_become_its_state(stage: Stage) -> None:
    async with stage.projector():
        await stage.write(
            answered("SP-1", command="C-1", reply={"status": "Pending"}),
            notified("SP-1", "ACCEPTED", maintainer="CF-1", sent=minutes(1)),
            notified("SP-1", "IN_PROGRESS", sent=minutes(2)),
            notified("SP-1", "ON_HOLD", sent=minutes(5)),
            notified("SP-1", "IN_PROGRESS", sent=minutes(9)),
            notified("SP-2", "IN_PROGRESS"),
        )
        tickets = await stage.folded()

    ticket = tickets["SP-1"]
    assert ticket["origin"] == "BUYER"
    assert ticket["maintainerFaultReference"] == "CF-1"
    assert ticket["status"] == "IN_PROGRESS"
    assert ticket["slaClock"] == "RUNNING"
    assert (ticket["slaRunMillis"], ticket["slaPausedMillis"]) == (4 * 60_000, 4 * 60_000)
    assert ticket["events"] == 5
    assert [(c["commandId"], c["outcome"]) for c in ticket["commands"]] == [("C-1", "ACCEPTED")]
    assert tickets["SP-2"]["origin"] == "SUPPLIER"


async def test_how_long_the_supplier_takes_is_measured_by_its_own_times(stage: Stage) -> None:
    async with stage.projector() as running:
        resolved = notified("SP-1", "RESOLVED", sent=minutes(60))
        await stage.write(
            answered("SP-1", reply={"status": "Pending"}),
            notified("SP-1", "ACCEPTED", sent=minutes(10)),
            notified("SP-1", "ON_HOLD", sent=minutes(20)),
            notified("SP-1", "IN_PROGRESS", sent=minutes(40)),
            resolved,
            resolved,
            notified("SP-1", "CLOSED", sent=minutes(90)),
            notified("SP-2", "RESOLVED", sent=minutes(60)),  # nobody knows since when it was anything else
        )
        await stage.folded()
    lasted = {
        status: running.metric("ticket_status_seconds_sum", status=status) / 60
        for status in ("PENDING", "ACCEPTED", "ON_HOLD", "IN_PROGRESS", "RESOLVED")
    }
    assert lasted == {"PENDING": 10, "ACCEPTED": 10, "ON_HOLD": 20, "IN_PROGRESS": 20, "RESOLVED": 30}
    assert running.metric("ticket_status_seconds_count", status="IN_PROGRESS") == 1
    assert (running.metric("ticket_sla_seconds_sum"), running.metric("ticket_sla_seconds_count")) == (30 * 60, 1)


async def test_late_repeated_and_illegal_ones_are_counted(stage: Stage) -> None:
    first = notified("SP-1", "CLOSED", sent=minutes(9))
    async with stage.projector() as running:
        await stage.write(
            first,
            notified("SP-1", "RESOLVED", sent=minutes(5)),  # overtaken
            first,
            notified("SP-1", "IN_PROGRESS", sent=minutes(10)),
        )
        ticket = (await stage.folded())["SP-1"]
    assert (ticket["status"], ticket["events"], ticket["lateEvents"]) == ("IN_PROGRESS", 3, 1)
    assert (ticket["illegalTransitions"], ticket["lastIllegalTransition"]["from"]) == (1, "CLOSED")
    assert {result: running.metric("ticket_events_total", result=result) for result in ("folded", "late")} == {
        "folded": 2,
        "late": 1,
    }
    assert running.metric("ticket_events_total", result="repeated") == 1
    assert running.metric("ticket_illegal_transitions_total", before="CLOSED", after="IN_PROGRESS") == 1


async def test_what_is_no_event_of_a_ticket_is_passed_over_and_counted(stage: Stage) -> None:
    scribe, failed = stage.scribe, list[Any]()
    good = await asyncio.to_thread(scribe.value, notified("SP-1"))
    home = partition_of(b"SP-1", stage.rig.topics.partitions)
    async with stage.projector() as running:
        for value in (b"", b"\x00", b"<xml/>", struct.pack(">bI", 0, 999_999) + b"x", good[:-5], None):
            scribe.put(value, b"SP-1", b"id", failed=failed)
        scribe.put(good, b"SP-1", None, failed=failed)  # no id
        scribe.put(good, b"SP-2", b"id", failed=failed)  # another one's key
        scribe.put(good, None, b"id", failed=failed)
        scribe.put(good, b"SP-1", b"id", partition=(home + 1) % stage.rig.topics.partitions, failed=failed)
        await stage.write(
            answered(None, "CommandRejected", key="A-1", operation="QueryAppointmentAvailability", code="400",
                     rejectedBy="SUPPLIER"),
            answered("SP-1", "CommandRejected", key="SP-2", code="invalid", rejectedBy="ADAPTER"),
            notified("SP-1", "ON_HOLD"),
        )  # fmt: skip
        tickets = await stage.folded()
    assert not failed
    assert {key: ticket["events"] for key, ticket in tickets.items()} == {"SP-1": 1}
    counted = {
        why: running.metric("ticket_events_total", result=why) for why in ("unreadable", "misplaced", "unrelated")
    }
    assert counted == {"unreadable": 7, "misplaced": 3, "unrelated": 2}
    assert {line["reason"] for line in running.logged("event not readable")} == {
        "empty", "truncated", "unframed", "unknown-schema", "malformed", "null-value", "no-id", "other-key",
        "other-partition",
    }  # fmt: skip


async def test_an_event_with_a_number_beyond_its_type_is_passed_over(stage: Stage) -> None:
    async with stage.projector() as running:
        await stage.write(
            notified("SP-1"),
            answered("SP-1", attempts=2**31),
            answered("SP-1", "CommandRejected", attempts=-(2**40), code="400", rejectedBy="SUPPLIER"),
            answered("SP-1", command="C-1", attempts=2**31 - 1),
            notified("SP-1", "ON_HOLD", sent=minutes(1)),
        )
        ticket = (await stage.folded())["SP-1"]
    assert (ticket["status"], ticket["events"]) == ("ON_HOLD", 3)
    assert [(c["commandId"], c["attempts"]) for c in ticket["commands"]] == [("C-1", 2**31 - 1)]
    assert running.metric("ticket_events_total", result="unreadable") == 2
    assert {line["reason"] for line in running.logged("event not readable")} == {"malformed"}


async def test_white_space_around_a_reference_is_none_of_it(stage: Stage) -> None:
    event = notified("SP-1")
    event.record["buyerFaultReference"] = " SP-1\n"
    async with stage.projector():
        await stage.write(event)
        assert (await stage.folded())["SP-1"]["buyerFaultReference"] == "SP-1"


# -- time --------------------------------------------------------------------------------------------------------------

SOON = {"PROJECTOR__RESOLVE_DEADLINE": "60s", "PROJECTOR__WARN_BEFORE": "59s"}


async def test_a_deadline_is_warned_of_once_also_across_restarts(stage: Stage, tmp_path: Path) -> None:
    resolved = datetime.now(UTC).replace(microsecond=0)
    more = SOON | {"PROJECTOR__STORE": str(tmp_path / "tickets")}
    async with stage.projector(**more) as running:
        await stage.write(
            notified("SP-1", "RESOLVED", sent=resolved, maintainer="CF-1"), notified("SP-2", "IN_PROGRESS")
        )
        await _warned(stage, 1)
        tickets = await stage.folded()
        assert running.metric("ticket_deadline_warnings_total") == 1
        assert [line["reference"] for line in running.logged("deadline approaches")] == ["SP-1"]
    assert tickets["SP-1"]["resolveDeadlineWarned"]
    assert tickets["SP-1"]["events"] == 2
    (warning,) = await _warnings(stage, "SP-1")
    assert warning["maintainerFaultReference"] == "CF-1"
    assert warning["resolvedAt"] == resolved
    assert warning["deadline"] == resolved + timedelta(seconds=60)
    assert warning["ce_type"] == "fault.event.ResolveDeadlineApproaching"

    # The copy on disk knows, and so does the topic.
    for store, other in (("tickets", "SP-3"), ("another", "SP-4")):
        async with stage.projector(**(more | {"PROJECTOR__STORE": str(tmp_path / store)})) as running:
            await _ticked(stage, running, other)
    assert await _warnings(stage, "SP-1") == [warning]

    async with stage.projector(**more):
        again = datetime.now(UTC)
        await stage.write(
            notified("SP-1", "RE_OPENED", sent=again),
            notified("SP-1", "RESOLVED", sent=again + timedelta(seconds=1)),
        )
        await _warned(stage, 2)
    first, second = await _warnings(stage, "SP-1")
    assert first["id"] != second["id"]


async def test_nobody_is_warned_of_what_is_over_by_the_end_of_the_events(stage: Stage) -> None:
    """A projector that was away reads that the ticket was closed before it looks at the clock."""
    resolved = datetime.now(UTC) - timedelta(minutes=1)
    filler = [notified(f"SP-F{n}") for n in range(2000)]
    await stage.write(
        notified("SP-1", "RESOLVED", sent=resolved),
        *filler,
        notified("SP-1", "CLOSED", sent=resolved + timedelta(seconds=1)),
    )
    async with stage.projector(**SOON) as running:
        await _ticked(stage, running, "SP-2")
        assert (await stage.folded())["SP-1"]["status"] == "CLOSED"
    assert await _warnings(stage, "SP-1") == []


async def test_a_deadline_that_passed_while_nobody_looked_is_told_of(stage: Stage) -> None:
    async with stage.projector():
        await stage.write(notified("SP-1", "RESOLVED", sent=datetime.now(UTC) - timedelta(hours=60)))
        await _warned(stage, 1)


async def test_a_closed_ticket_is_forgotten_with_a_tombstone_and_may_be_heard_of_again(stage: Stage) -> None:
    more = {"PROJECTOR__TOMBSTONE_AFTER": "1s"}
    async with stage.projector(**more) as running:
        await stage.write(notified("SP-1", "CLOSED"), notified("SP-2", "ON_HOLD"))

        def forgotten() -> bool:
            return running.metric("tickets_forgotten_total") == 1

        await eventually(forgotten, what="the tombstone")
        history = await asyncio.to_thread(stage.scribe.history)
        assert [record.ticket is None for record in history if record.key == b"SP-1"] == [False, True]
        await eventually(lambda: running.tickets() == 1, what="one ticket")
        await stage.write(notified("SP-1", "IN_PROGRESS", sent=minutes(30)))
        tickets = await stage.folded()
    assert tickets.keys() == {"SP-1", "SP-2"}
    assert tickets["SP-1"]["events"] == 1


async def test_a_setting_that_has_changed_counts_for_what_was_kept_once_it_is_due(stage: Stage) -> None:
    async with stage.projector(PROJECTOR__TOMBSTONE_AFTER="20s") as running:
        await stage.write(notified("SP-1", "CLOSED"))
        await stage.folded()
    assert not running.metric("tickets_forgotten_total")

    async def dues() -> list[int]:
        return [int(record.headers["due"]) for record in await asyncio.to_thread(stage.scribe.history)]

    async def two() -> bool:
        return len(await dues()) == 2

    async with stage.projector(PROJECTOR__TOMBSTONE_AFTER="1h"):
        await eventually(two, what="the ticket kept anew")
    first, second = await dues()
    assert second - first == 3_580_000


# -- stores, sizes, topics ---------------------------------------------------------------------------------------------


async def test_a_restart_on_the_same_disk_reads_nothing_and_on_another_one_all(stage: Stage, tmp_path: Path) -> None:
    same = {"PROJECTOR__STORE": str(tmp_path / "same")}
    async with stage.projector(**same):
        await stage.write(*(notified(f"SP-{n}", "ACCEPTED") for n in range(40)))
        await stage.folded()

    async def again(where: str, at: float) -> int:
        """Over how many offsets a projector with its tickets there has read; then it folds something more."""
        async with stage.projector(PROJECTOR__STORE=str(tmp_path / where)) as running:
            await eventually(lambda: running.tickets() == 40, what="all tickets")
            await stage.write(*(notified(f"SP-{n}", "IN_PROGRESS", sent=minutes(at)) for n in range(40)))
            await stage.folded()
            return sum(line["read"] for line in running.logged("partition started"))

    assert await again("same", 1) == 0
    assert await again("other", 2) >= 80
    tickets = await asyncio.to_thread(stage.scribe.tickets)
    assert {ticket["events"] for ticket in tickets.values()} == {3}


async def test_a_ticket_that_an_operator_forgets_stays_so_for_projectors_without_a_store(
    stage: Stage, tmp_path: Path
) -> None:
    """What docs/personal-data.md has them do; a store that is left knows nothing of it."""
    before = {"PROJECTOR__STORE": str(tmp_path / "tickets")}
    async with stage.projector(**before):
        await stage.write(notified("SP-1", endUserContactDetails={"name": "Ann Example"}), notified("SP-2"))
        await stage.folded()
    await asyncio.to_thread(stage.scribe.forget, "SP-1")
    for path in (tmp_path / "tickets").glob("tickets-*"):
        path.unlink()
    async with stage.projector(**before) as running:
        await eventually(lambda: running.tickets() == 1, what="the one that is left")
        await stage.write(notified("SP-1", "CLOSED", sent=minutes(1)))
        tickets = await stage.folded()
    assert tickets["SP-1"]["events"] == 1, "it begins anew"
    assert tickets["SP-1"]["report"].get("endUserContactDetails") is None
    assert tickets["SP-2"]["events"] == 1


async def test_a_report_too_long_to_be_stored_again_is_left_out(stage: Stage) -> None:
    async with stage.projector(TOPICS__MAX_MESSAGE_BYTES="65536") as running:
        await stage.write(
            notified("SP-1", "ACCEPTED", sent=minutes(1)),
            notified("SP-1", "ON_HOLD", sent=minutes(2), faultDetails={"description": "x" * 100_000}),
            notified("SP-2", "ON_HOLD"),
        )
        tickets = await stage.folded()
        assert running.metric("tickets_trimmed_total") == 1
    assert (tickets["SP-1"]["status"], tickets["SP-1"]["report"]) == ("ON_HOLD", None)
    assert tickets["SP-2"]["report"] is not None


async def test_topics_that_do_not_match_stop_the_start(stage: Stage) -> None:
    widen(stage.rig.bootstrap, stage.rig.topics.tickets, stage.rig.topics.partitions + 2)
    with pytest.raises(Stop, match=r"topics of one key must have the same number of partitions: .*has 4, .*has 6"):
        async with stage.projector():
            pass
    with pytest.raises(
        Stop, match=r"nowhere: the topic is missing, or we may not see it; adapter topics create makes it"
    ):
        async with stage.projector(TOPICS__TICKETS="nowhere"):
            pass


async def test_events_made_anew_while_workers_write_stop_the_projector_until_somebody_has_looked(
    stage: Stage, processes: Processes
) -> None:
    topics = stage.rig.topics
    # However long that takes, the group does not give it up while it stands still.
    projector = processes.adapter("projector", env=stage.rig.environment(KAFKA__SESSION_TIMEOUT="2m"))
    await stage.write(*(notified("SP-1", sent=minutes(number)) for number in range(2)))
    await stage.folded()
    stood = await groups.stand(stage.rig.bootstrap, stage.group, topics.events, topics.partitions)
    projector.freeze()
    topic_sets.remake(stage.rig.bootstrap, topics, topics.events)
    await stage.write(*(notified("SP-1", sent=minutes(number)) for number in range(2, 6)))
    projector.thaw()
    assert await projector.ended() == 2
    assert f'{topics.events} was deleted and made anew while we ran: see "' in projector.output

    # With the topic Kafka deletes what the group has committed, unless a projector commits after that and before it
    # notices; whether it does is a matter of moments.
    await groups.commit(stage.rig.bootstrap, stage.group, stood)

    with pytest.raises(Stop, match=rf"--topic {topics.events} --to-earliest --execute"):
        async with stage.projector() as again:  # as an orchestrator does it, unasked
            await again.running
    await groups.reset_to_earliest(stage.rig.bootstrap, stage.group, topics.events, topics.partitions)
    async with stage.projector():
        assert (await stage.folded())["SP-1"]["events"] == 6


async def _warnings(stage: Stage, reference: str) -> list[dict[str, Any]]:
    warnings = await asyncio.to_thread(stage.scribe.warnings)
    return [warning for warning in warnings if warning["buyerFaultReference"] == reference]


async def _warned(stage: Stage, count: int) -> None:
    """Returns when SP-1 was warned of so often."""

    async def enough() -> bool:
        return len(await _warnings(stage, "SP-1")) >= count

    await eventually(enough, what="the warning")


async def _ticked(stage: Stage, running: Running, reference: str) -> None:
    """Returns when the projector has looked at what is due: it has warned of this ticket."""
    await stage.write(notified(reference, "RESOLVED", sent=datetime.now(UTC) - timedelta(hours=70)))
    await eventually(
        lambda: reference in {line["reference"] for line in running.logged("deadline approaches")},
        what="a look at what is due",
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
async def test_a_full_disk_delays_the_tickets_and_with_room_all_are_folded(stage: Stage, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with no_file_beyond(4096):
            running = await stack.enter_async_context(stage.projector(PROJECTOR__STORE=str(tmp_path)))
            await eventually(lambda: running.logged("tickets not readable"), what="a look at the disk")
        await stage.write(notified("SP-1", "IN_PROGRESS"))
        assert (await stage.folded())["SP-1"]["events"] == 1
        with no_file_beyond(4096):
            await stage.write(notified("SP-1", "ON_HOLD", sent=minutes(1)), notified("SP-2"))
            await eventually(lambda: running.logged("tickets not kept"), what="a transaction that is not kept")
        await stage.write(notified("SP-1", "IN_PROGRESS", sent=minutes(2)))
        tickets = await stage.folded()
    assert (tickets["SP-1"]["events"], tickets["SP-2"]["events"]) == (3, 1)
    async with stage.projector(PROJECTOR__STORE=str(tmp_path)) as running:
        await eventually(lambda: running.tickets() == 2, what="the copy")
        assert all(line["read"] == 0 for line in running.logged("partition started"))


async def test_leaving_that_is_given_up_can_be_ended_later(stage: Stage) -> None:
    async with stage.projector(KAFKA__TRANSACTION_TIMEOUT="1s") as running:
        flow = running.flow
        await eventually(lambda: len(flow.partitions) == 4, what="all partitions")
        async with flow._turn:  # a round that does not end
            leaving = asyncio.ensure_future(flow.close())
            await eventually(lambda: not flow.partitions, what="the partitions being given back")
            await asyncio.wait((leaving,), timeout=1)
            leaving.cancel()
            await asyncio.wait((leaving,))
        await flow.close()
