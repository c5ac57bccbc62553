"""`adapter tickets`, over a real broker and a registry."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapter.catalogue import Catalogue
from adapter.cli import main
from adapter.core.avro import Encoder
from adapter.core.ticket import Clock, Command, Origin, Outcome, Status, Ticket, Transition
from adapter.ports import Outgoing
from tests.cli.conftest import Bus, notification

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


def ticket(reference: str, status: Status, **fields: Any) -> Ticket:
    known: dict[str, Any] = {"opened_at": NOW - 9 * HOUR, "updated_at": NOW, "status_since": NOW - HOUR}
    return Ticket(reference, Origin.BUYER, status=status, **known | fields)


RESOLVED = ticket(
    "SP-1",
    Status.RESOLVED,
    maintainer_reference="CF-1",
    clock=Clock.STOPPED,
    clock_since=NOW - HOUR,
    ran=3 * HOUR,
    paused=timedelta(minutes=90),
    deadline=NOW + 47.5 * HOUR,
    appointments=(
        {
            "appointmentReservationKey": "1000001",
            "appointmentDate": NOW.date(),
            "appointmentStartTime": "08:00",
            "appointmentEndTime": "13:00",
            "appointmentConfirmationStatus": "Confirmed",
            "appointmentClosureCode": "FR",
            "appointmentCancelled": False,
            "changedAt": NOW,
        },
    ),
    commands=(
        Command("c-1", "AddFaultReport", Outcome.ACCEPTED, NOW - 9 * HOUR),
        Command("c-2", "AmendFaultReport", Outcome.REJECTED, NOW - 8 * HOUR, code="409"),
    ),
    events=5,
    late=1,
    illegal=1,
    last_illegal=Transition(Status.PENDING, Status.RESOLVED, NOW - HOUR),
    seen=b"12345678",
)
RUNNING = ticket("SP-2", Status.IN_PROGRESS, clock=Clock.RUNNING, clock_since=NOW - HOUR, ran=HOUR)
CLOSED = ticket("SP-3", Status.CLOSED)


@pytest.fixture
def standing(bus: Bus, compiled: Catalogue) -> Bus:
    """Three tickets, with what they were before, one that was forgotten, and what is no ticket."""
    schema = compiled.tickets["Ticket"]
    for each in (RESOLVED, RUNNING, CLOSED):
        bus.ticket(schema, each.reference, ticket(each.reference, Status.PENDING, clock=Clock.NOT_STARTED).record())
        bus.ticket(schema, each.reference, each.record())
    bus.ticket(schema, "SP-4", RUNNING.record())
    bus.ticket(schema, "SP-4", None)
    bus.write(bus.topics.tickets, "SP-5", b"no Avro")
    return bus


async def test_in_a_pipe_tickets_and_events_are_json_lines(
    standing: Bus, compiled: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["tickets", "--all"]) == 0
    shown = {line["buyerFaultReference"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {reference: each["status"] for reference, each in shown.items()} == {
        "SP-1": "RESOLVED",
        "SP-2": "IN_PROGRESS",
        "SP-3": "CLOSED",
    }
    assert shown["SP-1"]["slaPausedMillis"] == 90 * 60 * 1000
    assert "seen" not in shown["SP-1"]
    standing.event(compiled.events["FaultReportUpdated"], "SP-1", notification(compiled, "SP-1"))
    standing.event(compiled.events["FaultReportUpdated"], "SP-2", notification(compiled, "SP-2"))
    assert await asyncio.to_thread(main, ["tickets", "SP-1"]) == 0
    state, event = map(json.loads, capsys.readouterr().out.splitlines())
    assert state == shown["SP-1"]
    assert (event["event"], event["key"]) == ("FaultReportUpdated", "SP-1")


async def test_as_text_a_table_has_what_needs_an_answer_first_and_one_ticket_its_timeline(
    standing: Bus, compiled: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["tickets", "--text"]) == 0
    shown = capsys.readouterr()
    head, *rows, last = shown.out.splitlines()
    assert head.startswith("REFERENCE")
    assert [re.split(r"\s{2,}", row)[:2] for row in rows] == [["SP-1", "RESOLVED"], ["SP-2", "IN_PROGRESS"]]
    assert "stopped, ran 3h 0m, paused 1h 30m" in rows[0]
    assert "(in 1d 23h)" in rows[0]
    assert "running, ran 2h " in rows[1]
    assert last == "1 more are Closed or Rejected: --all shows them"
    assert "not a ticket: unframed" in shown.err

    standing.event(compiled.events["FaultReportUpdated"], "SP-1", notification(compiled, "SP-1"))
    assert await asyncio.to_thread(main, ["tickets", "SP-1", "--text"]) == 0
    shown = capsys.readouterr()
    portrait, timeline = shown.out.split("\n\n")
    facts = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in portrait.splitlines()[1:])
    assert facts["status"].startswith("RESOLVED since")
    assert facts["supplier's"] == "CF-1"
    assert facts["SLA clock"] == "stopped, ran 3h 0m, paused 1h 30m"
    assert facts["answer"].startswith("with ResolveResponse before")
    assert facts["appointment"].endswith("08:00-13:00, key 1000001, confirmed, closed with FR")
    assert facts["command"].startswith("AmendFaultReport rejected 409")
    assert facts["events"].startswith("5, 1 came late; 1 changes of status the contract does not have")
    assert "FaultReportUpdated: appointment completed" in timeline
    assert "1 events are newer than this state" in shown.err


async def test_of_more_tickets_than_anyone_reads_a_thousand_are_shown(
    bus: Bus, compiled: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = compiled.tickets["Ticket"]
    encoder = Encoder(schema, bus.ids[schema.name])
    tickets = [ticket(f"SP-{number}", Status.IN_PROGRESS) for number in range(1010)] + [RESOLVED]
    records = [Outgoing(bus.topics.tickets, t.reference.encode(), encoder.encode(t.record())) for t in tickets]
    assert bus.sender.send(records) == [None] * len(records)
    assert await asyncio.to_thread(main, ["tickets", "--text"]) == 0
    _, first, *rows, last = capsys.readouterr().out.splitlines()
    assert first.startswith("SP-1 ")
    assert "RESOLVED" in first
    assert len(rows) == 999
    assert last == "10 more: a pipe has all of them"


@pytest.mark.parametrize("form", [(), ("--text",)])
async def test_an_event_that_was_written_again_is_shown_once_and_is_not_newer_than_the_state(
    bus: Bus, compiled: Catalogue, capsys: pytest.CaptureFixture[str], form: tuple[str, ...]
) -> None:
    bus.event(compiled.events["FaultReportUpdated"], "SP-1", notification(compiled, "SP-1"))
    folded = ticket("SP-1", Status.RESOLVED, updated_at=datetime.now(UTC))
    bus.ticket(compiled.tickets["Ticket"], "SP-1", folded.record())
    for _ in range(2):
        bus.event(compiled.events["FaultReportUpdated"], "SP-1", notification(compiled, "SP-1"))
    assert await asyncio.to_thread(main, ["tickets", "SP-1", *form]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("FaultReportUpdated") == 1
    assert shown.err == ""


async def test_a_ticket_without_a_state_still_has_its_events(
    bus: Bus, compiled: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    bus.event(compiled.events["FaultReportUpdated"], "SP-1", notification(compiled, "SP-1"))
    assert await asyncio.to_thread(main, ["tickets", "SP-1", "--text"]) == 0
    first, line = capsys.readouterr().out.splitlines()
    assert "no projector" in first
    assert "FaultReportUpdated" in line


async def test_nothing_known_is_told(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["tickets", "SP-404"]) == 1
    assert capsys.readouterr().err == "adapter: SP-404: no such ticket\n"
    assert await asyncio.to_thread(main, ["tickets", "--text"]) == 0
    assert capsys.readouterr().out == "no tickets; adapter projector makes them from the events\n"
    assert await asyncio.to_thread(main, ["tickets"]) == 0
    assert capsys.readouterr().out == ""
