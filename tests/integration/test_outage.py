"""A supplier that is down, busy or refuses us: back-pressure, and nothing is lost."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapter.twin import Fault, Kind
from adapter.twin.calls import overlaps, repeats
from tests.support import estate as say
from tests.support.door import Door, door
from tests.support.estate import Command, unique
from tests.support.processes import Processes
from tests.support.rig import Member, Rig, open_rig
from tests.support.wait import PATIENCE, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = 2.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def supplier_door(rig: Rig) -> AsyncIterator[Door]:
    async with door(rig.twin.url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(rig: Rig, supplier_door: Door) -> AsyncIterator[Member]:
    async with rig.worker(SUPPLIER__BASE_URL=supplier_door.url) as member:
        yield member


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def fair_weather(rig: Rig, supplier_door: Door) -> AsyncIterator[None]:
    """What a test does to the supplier ends with it, also if it fails."""
    yield
    rig.twin.clear()
    await supplier_door.shut()
    await supplier_door.open()


def send(rig: Rig, count: int) -> list[Command]:
    commands = [say.add(unique()) for _ in range(count)]
    rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
    return commands


async def opened(worker: Member, rig: Rig) -> None:
    await rig.estate.heard(lambda: worker.metric("breaker_state") == OPEN, what="the open breaker")


async def ready(worker: Member) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
        return (await http.get(f"{worker.endpoint.url}/health/ready")).status_code


async def all_accepted(rig: Rig, commands: Sequence[Command]) -> None:
    """Each once, after any number of tries, of which one was taken."""
    await rig.estate.all_final(commands)
    assert Counter(event.type for c in commands for event in rig.estate.of(c)) == {"FaultReportAdded": len(commands)}
    keys = {command.key for command in commands}
    calls = [call for call in rig.twin.calls if call.key in keys]
    assert set(repeats(calls).values()) <= {1}
    assert not overlaps(calls)
    await rig.estate.caught_up(rig.group)


async def test_while_the_supplier_answers_503_commands_wait_and_readiness_stays(
    rig: Rig, worker: Member, processes: Processes
) -> None:
    rig.twin.inject(Fault(Kind.STATUS, status=503, times=None))
    before = worker.metric("dead_letters_total")
    commands = send(rig, 50)
    await opened(worker, rig)
    await rig.estate.heard(
        lambda: worker.metric("supplier_calls_in_flight") == 0, what="the end of calls that began before it"
    )
    tried = len(rig.twin.calls)
    more = send(rig, 50)
    await rig.estate.heard(lambda: worker.metric("window_records") == 100, what="all commands being taken in")
    await rig.estate.heard(lambda: len(rig.twin.calls) > tried, what="a probe")
    assert await ready(worker) == 200
    assert not any(rig.estate.of(command) for command in commands + more)
    stuck = processes.adapter("stuck", "--older", "0s", "--worker", worker.endpoint.url)
    assert await stuck.ended() == 0
    assert "waits for the supplier: the circuit breaker is open" in stuck.output
    # Probes alone, each by half of the time that is set behind the one before or more.
    assert all(later.received - sooner.received > 0.045 for sooner, later in pairwise(rig.twin.calls[tried:]))
    rig.twin.clear()
    await all_accepted(rig, commands + more)
    await eventually(lambda: worker.metric("breaker_state") == 0, what="the breaker being closed")
    assert worker.metric("dead_letters_total") == before
    assert worker.metric("retries_total", operation="AddFaultReport", reason="http-503") > 0


async def test_while_connections_are_refused_commands_wait(rig: Rig, worker: Member, supplier_door: Door) -> None:
    await supplier_door.shut()
    commands = send(rig, 30)
    await opened(worker, rig)
    assert await ready(worker) == 200
    await rig.estate.heard(
        # The first calls may have had a connection that was about to break.
        lambda: worker.metric("supplier_call_failures_total", reason="connect") > 0,
        what="a refused connection",
    )
    assert not any(rig.estate.of(command) for command in commands)
    await supplier_door.open()
    await all_accepted(rig, commands)


async def test_while_the_suppliers_name_is_not_resolved_commands_wait_and_nothing_is_in_doubt(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, known = socket.getaddrinfo, asyncio.Event()

    def resolver(host: Any, *rest: Any, **more: Any) -> Any:
        """The system's, with a name server that is away until it is `known` again."""
        if host != "supplier.test":
            return resolve(host, *rest, **more)
        if not known.is_set():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    async with open_rig(kafka) as rig:
        url = rig.twin.url.replace("127.0.0.1", "supplier.test")
        async with rig.worker(SUPPLIER__BASE_URL=url) as worker:
            commands = send(rig, 30)
            await opened(worker, rig)
            assert worker.metric("supplier_call_failures_total", reason="resolve") > 0
            assert await ready(worker) == 200
            assert not any(rig.estate.of(command) for command in commands)
            known.set()
            await all_accepted(rig, commands)


@pytest.mark.parametrize(("status", "as_date"), [(503, False), (503, True), (429, False)])
async def test_the_time_a_supplier_asks_for_is_waited(rig: Rig, worker: Member, status: int, *, as_date: bool) -> None:
    command = say.add(unique())
    rig.twin.inject(
        Fault(Kind.STATUS, status=status, key=command.key, retry_after=2.0, retry_after_date=as_date, times=1)
    )
    rig.estate.send(command)
    await all_accepted(rig, [command])
    first, second = (call for call in rig.twin.calls if call.key == command.key)
    # A date has whole seconds, so up to one of them is lost.
    assert second.received - (first.finished or 0) >= (1.0 if as_date else 2.0) - 0.01
    (event,) = rig.estate.of(command)
    assert event.record["attempts"] == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_one_command_that_is_forbidden_while_others_pass_is_rejected(
    rig: Rig, worker: Member, status: int
) -> None:
    forbidden = say.add(unique())
    rig.twin.inject(Fault(Kind.STATUS, status=status, key=forbidden.key, times=None))
    rig.estate.send(forbidden)

    async def others() -> None:
        while not rig.estate.of(forbidden):
            await all_accepted_soon(rig, send(rig, 1))

    await asyncio.wait_for(others(), PATIENCE)
    event = await rig.estate.final(forbidden)
    assert (event.type, event.record["rejectedBy"], event.record["code"]) == (
        "CommandRejected",
        "SUPPLIER",
        "forbidden",
    )
    assert event.record["attempts"] >= 3
    assert sum(call.key == forbidden.key for call in rig.twin.calls) == event.record["attempts"]
    rig.twin.clear()


async def all_accepted_soon(rig: Rig, commands: Sequence[Command]) -> None:
    await rig.estate.all_final(commands)
    assert {event.type for c in commands for event in rig.estate.of(c)} == {"FaultReportAdded"}


@pytest.mark.parametrize("status", [401, 403, 404, 302])
async def test_when_all_calls_are_refused_nothing_is_finished(rig: Rig, worker: Member, status: int) -> None:
    rig.twin.inject(Fault(Kind.STATUS, status=status, times=None))
    commands = send(rig, 10)
    await opened(worker, rig)
    tried = len(rig.twin.calls)
    await rig.estate.heard(lambda: len(rig.twin.calls) >= tried + 3, what="probes")
    assert not any(rig.estate.of(command) for command in commands)
    rig.twin.clear()
    await all_accepted(rig, commands)
