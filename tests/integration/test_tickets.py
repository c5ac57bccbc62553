"""References left out and doubts, with everything real: worker, server, projector, a twin that notifies, a broker."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from adapter.cli import main
from adapter.core.partition import partition_of
from adapter.twin import Fault, Kind, Notify, Rules, TwinSettings
from tests.integration.conftest import requests, text
from tests.projector.conftest import projecting
from tests.server.conftest import notification, serving
from tests.support import estate as say
from tests.support.estate import Command, Event, unique
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.rig import ListeningTwin, Rig, open_rig
from tests.support.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTITIONS: Final = 4
SETTINGS: Final = {
    "WORKER__PARKED_AFTER": "200ms",
    "WORKER__REFERENCE_WAIT": "90s",
    "KAFKA__TRANSACTION_TIMEOUT": "3s",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(kafka: str) -> AsyncIterator[Rig]:
    """All but the worker. A report is accepted after half a second, and told so."""
    port = free_port()
    twin = ListeningTwin(
        TwinSettings(rules=Rules(speed=4), notify=Notify(f"http://127.0.0.1:{port}/notify", retry=0.1))
    )
    async with open_rig(kafka, partitions=PARTITIONS, twin=twin) as opened:
        more = {"SERVER__PORT": str(port), "SUPPLIER__BUYER_IDENTIFIER": "SPDEV1"}
        async with serving(opened, **more), projecting(opened):
            yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def worker(rig: Rig) -> AsyncIterator[None]:
    async with rig.worker(**SETTINGS):
        yield


class Operator:
    """Somebody at the command line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def runs(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """What is printed, as JSON."""
        self._capsys.readouterr()
        assert await asyncio.to_thread(main, words) == code, self._capsys.readouterr()
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines() if line.startswith("{")]

    async def sees_in_doubt(self) -> set[str]:
        return {line["commandId"] for line in await self.runs("doubt", "list")}


@pytest.fixture
def operator(rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    for name, value in rig.environment(**SETTINGS).items():
        monkeypatch.setenv(name, value)
    return Operator(capsys)


def settled(event: Event) -> tuple[str, str]:
    assert event.type == "CommandSettled"
    return event.record["outcome"], event.record["settledBy"]


async def accepted(rig: Rig, reference: str) -> str:
    """A ticket the supplier has accepted: its reference there."""
    rig.estate.send(opening := say.add(reference))
    await rig.estate.final(opening)
    await eventually(lambda: rig.twin.tickets[reference].maintainer_reference, what="acceptance")
    return str(rig.twin.tickets[reference].maintainer_reference)


async def doubted(rig: Rig, command: Command, *, taken: bool) -> None:
    """Its connection ends without an answer."""
    rig.twin.inject(Fault(Kind.CLOSE, key=command.key, taken=taken, times=1))
    rig.estate.send(command)
    await rig.estate.doubt(command)


async def test_a_question_right_after_the_report_waits_for_the_suppliers_reference(rig: Rig, worker: None) -> None:
    reference = unique()
    opening, ask, change = say.add(reference), say.ask_update(reference), say.amend(reference)
    for command in (opening, ask, change):
        rig.estate.send(command)
    assert (await rig.estate.final(ask)).type == "FaultReportUpdateRequested"
    assert (await rig.estate.final(change)).type == "FaultReportAmended"
    named = [text(element, "maintainerFaultReference") for _, element in requests(rig, opening)]
    theirs = rig.twin.tickets[reference].maintainer_reference
    assert theirs
    assert named == [None, theirs, theirs]


async def test_a_reference_is_found_where_the_key_belongs_though_its_command_lies_elsewhere(
    rig: Rig, worker: None
) -> None:
    reference = unique()
    theirs = await accepted(rig, reference)
    home = partition_of(reference.encode(), PARTITIONS)
    ask = say.ask_update(reference)
    rig.estate.put(rig.estate.encode(ask), reference.encode(), partition=(home + 1) % PARTITIONS)
    assert (await rig.estate.final(ask)).type == "FaultReportUpdateRequested"
    assert text(requests(rig, ask)[-1][1], "maintainerFaultReference") == theirs


async def test_a_command_that_comes_again_when_its_worker_has_forgotten_it_is_known_by_its_ticket(rig: Rig) -> None:
    issued = {"issuedAt": datetime.now(UTC) - timedelta(days=1)}
    command = say.add(unique(), **issued)
    async with rig.worker(**SETTINGS, WORKER__REMEMBERED_COMMANDS="1") as worker:
        for each in (command, say.ask_update(command.key)):  # which ends when the ticket tells of both
            rig.estate.send(each)
            await rig.estate.final(each)
        rig.estate.send(command)
        new = say.amend(command.key, **issued)
        rig.estate.send(new)
        assert (await rig.estate.final(new)).type == "FaultReportAmended"
        assert worker.metric("commands_repeated_total", operation="AddFaultReport") == 1
    assert [call.operation for call in rig.twin.calls if call.key == command.key] == [
        "addFaultReport",
        "requestFaultReportUpdate",
        "amendFaultReport",
    ]
    assert len([each for each in rig.estate.events if each.record.get("commandId") == command.command_id]) == 1


async def test_a_report_in_doubt_that_was_taken_is_settled_by_the_suppliers_next_notification(
    rig: Rig, worker: None
) -> None:
    command, behind = say.add(unique()), None
    await doubted(rig, command, taken=True)
    rig.estate.send(behind := say.amend(command.key))
    assert settled(await rig.estate.final(command)) == ("ACCEPTED", "NOTIFICATION")
    assert (await rig.estate.final(behind)).type == "FaultReportAmended"
    assert [call.operation for call in rig.twin.calls if call.key == command.key] == [
        "addFaultReport",
        "amendFaultReport",
    ]


async def test_an_amendment_in_doubt_that_was_taken_is_settled_by_its_confirmation(rig: Rig, worker: None) -> None:
    reference = unique()
    await accepted(rig, reference)
    command = say.amend(reference)
    await doubted(rig, command, taken=True)
    event = await rig.estate.final(command)
    assert (settled(event), event.record["text"]) == (
        ("ACCEPTED", "NOTIFICATION"),
        "the supplier has sent: AMENDED",
    )


async def test_an_operator_sees_a_doubt_and_settles_it(rig: Rig, worker: None, operator: Operator) -> None:
    lost, behind = say.add(unique()), None
    await doubted(rig, lost, taken=False)
    rig.estate.send(behind := say.ask_update(lost.key, maintainerFaultReference="CF-0"))
    await rig.estate.caught_up(rig.group)
    (shown,) = [line for line in await operator.runs("doubt", "list") if line["commandId"] == lost.command_id]
    assert (shown["operation"], shown["key"], shown["parkedBehind"]) == ("AddFaultReport", lost.key, 1)
    stuck = {line["commandId"]: line["why"] for line in await operator.runs("stuck", "--older", "1ms")}
    assert "adapter doubt settles it" in stuck[lost.command_id]
    assert stuck[behind.command_id] == "waits behind one that is in doubt"

    events = await operator.runs("doubt", "settle", lost.command_id, "rejected", "--why", "not on the portal", "--wait")
    assert [event["event"] for event in events] == ["DoubtDecided", "CommandSettled"]
    event = await rig.estate.final(lost)
    assert settled(event) == ("REJECTED", "OPERATOR")
    assert event.record["text"].endswith(": not on the portal")
    await rig.estate.final(behind)
    assert lost.command_id not in await operator.sees_in_doubt()
    await operator.runs("doubt", "settle", lost.command_id, "accepted", "--why", "too late", code=2)


async def test_an_operator_has_a_command_sent_again(rig: Rig, worker: None, operator: Operator) -> None:
    lost = say.add(unique())
    await doubted(rig, lost, taken=False)
    words = ("doubt", "settle", lost.command_id, "repeat", "--why", "not on the portal", "--who", "joe", "--wait")
    await operator.runs(*words)
    event = await rig.estate.final(lost)
    assert settled(event) == ("ACCEPTED", "OPERATOR")
    assert event.record["text"] == "joe: not on the portal; sent again, and accepted"
    assert event.record["attempts"] == 2
    assert lost.key in rig.twin.tickets


async def test_what_is_decided_and_told_while_no_worker_is_there_settles_at_the_next(
    rig: Rig, operator: Operator, processes: Processes
) -> None:
    async def start() -> Process:
        process = processes.adapter("worker", env=rig.environment(**SETTINGS))
        return await process.ready(lambda p: p.output.count("partition started") == PARTITIONS)

    first = await start()
    lost, taken = say.add(unique()), say.add(unique())
    await doubted(rig, lost, taken=False)
    cut_off = Fault(Kind.SILENCE, key=taken.key, times=1)
    rig.twin.inject(cut_off)
    rig.estate.send(taken)
    await eventually(lambda: any(call.key == taken.key for call in rig.twin.calls), what="the call")
    first.kill()
    await operator.runs("doubt", "settle", lost.command_id, "rejected", "--why", "not on the portal")
    await eventually(lambda: rig.twin.tickets[taken.key].maintainer_reference, what="its acceptance")
    second = await start()
    assert settled(await rig.estate.final(lost)) == ("REJECTED", "OPERATOR")
    assert settled(await rig.estate.final(taken)) == ("ACCEPTED", "NOTIFICATION")
    assert [event.type for event in rig.estate.of(taken)] == ["CommandOutcomeUnknown", "CommandSettled"]
    assert await second.stop() == 0


async def test_what_a_worker_waits_for_is_told_by_itself(rig: Rig, operator: Operator) -> None:
    async with rig.worker(**SETTINGS) as member:
        ask = say.ask_update(unique())
        for command in (ask, behind := say.amend(ask.key)):
            rig.estate.send(command)
        expected = "waits for its ticket to have the supplier's reference; 1 more behind it"

        async def told() -> bool:
            rows = await operator.runs("stuck", "--older", "1ms", "--worker", member.endpoint.url)
            return (ask.key, expected) in [(row["key"], row["why"]) for row in rows]

        await eventually(told, what="the lane at the worker's address")
        assert rig.twin.settings.notify is not None
        theirs = notification(ask.key).replace(b"(Not in report; only after creation)", b"CF-1")
        async with aiohttp.ClientSession() as client, client.post(rig.twin.settings.notify.url, data=theirs) as reply:
            assert reply.status == 200
        await rig.estate.all_final([ask, behind])
