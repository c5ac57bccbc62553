"""The projector before a real broker: what becomes of events."""

from datetime import timedelta

from tests.projector.conftest import Stage
from tests.projector.scribe import T0, answered, notified


async def test_the_events_of_a_ticket_become_its_state(stage: Stage) -> None:
    async with stage.projector():
        await stage.write(
            answered("SP-1", command="C-1", reply={"status": "Pending"}),
            notified("SP-1", "ACCEPTED", maintainer="CF-1", sent=T0 + timedelta(minutes=1)),
            notified("SP-1", "IN_PROGRESS", sent=T0 + timedelta(minutes=2)),
            notified("SP-1", "ON_HOLD", sent=T0 + timedelta(minutes=5)),
            notified("SP-1", "IN_PROGRESS", sent=T0 + timedelta(minutes=9)),
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
