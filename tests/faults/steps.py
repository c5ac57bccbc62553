"""The steps of a command at which something happens to its worker, and what must have become of it in the end.

No hook in the product: what comes next is held back outside, by a door before Kafka, by the supplier, or by a socket in
the supplier's place.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, auto
from pathlib import Path

import httpx

from adapter.twin import Fault, Kind, Status
from adapter.twin.calls import Call, overlaps
from tests.support import estate as say
from tests.support.estate import Command, Event, unique
from tests.support.kafka_door import Api, KafkaDoor, kafka_door
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually

TOTAL = 20.0
"""Seconds a successor's call may take. None of them may reach it on a busy machine, but that story waits it out whose
victim may have made a call that can be repeated."""
VICTIM_TOTAL = 40
"""Seconds a victim's may, and within which it must have come to its step: many are started at once. Less than
ADAPTER_WORKER__STOP_TIMEOUT, which has to outlast a call."""
REPLY = 8.0
"""Seconds the supplier takes to answer where its worker is to be gone by then. A successor that repeats the call must
not find it being answered still."""
HELD_REPLY = 15.0
"""Seconds where the worker gets the answer, and the test must come in between it and the last of the requests."""
AT_ONCE = 7
"""Stories that run side by side."""

SAFE, KEYED, NEVER = "QueryAppointmentAvailability", "ResolveResponse", "AddFaultReport"


@dataclass(slots=True)
class Scene:
    """One victim at work on the commands of one story."""

    rig: Rig
    door: KafkaDoor
    commands: dict[str, Command]
    worker: Process

    def send(self) -> None:
        for command in self.commands.values():
            self.rig.estate.send(command)

    def calls(self, kind: str) -> list[Call]:
        return [call for call in self.rig.twin.calls if call.key == self.commands[kind].key]

    async def received(self) -> None:
        """The supplier has got every command."""
        await eventually(lambda: all(self.calls(kind) for kind in self.commands), within=VICTIM_TOTAL, what="the calls")

    async def answered(self) -> None:
        def done() -> bool:
            return all(call.finished is not None for kind in self.commands for call in self.calls(kind))

        await eventually(done, within=VICTIM_TOTAL, what="the supplier's answers")

    async def held(self) -> None:
        await eventually(lambda: self.door.held, within=VICTIM_TOTAL, what="something being held back")

    async def calling(self) -> None:
        """All calls have been started."""
        telemetry = self.worker.said('"telemetry":"([^"]+)"')
        async with httpx.AsyncClient(base_url=telemetry, timeout=VICTIM_TOTAL, trust_env=False) as http:

            async def started() -> bool:
                assert self.worker.exit_code is None, self.worker.tail()
                try:
                    text = (await http.get("/metrics")).text
                except httpx.ConnectError:  # it is about to end; its log says why
                    return False
                return f"calls_in_flight {len(self.commands)}.0" in text

            await eventually(started, within=VICTIM_TOTAL, what="the calls being under way")


# -- the steps ---------------------------------------------------------------------------------------------------------


async def before_the_intent_is_written(scene: Scene) -> None:
    scene.door.hold_requests(Api.PRODUCE)
    scene.send()
    await scene.held()


async def before_the_intent_is_committed(scene: Scene) -> None:
    scene.door.hold_requests(Api.END_TXN)
    scene.send()
    await scene.held()


async def before_it_is_known_that_the_intent_is_committed(scene: Scene) -> None:
    scene.door.hold_answers(Api.END_TXN)
    scene.send()
    await scene.held()


async def during_the_call(scene: Scene) -> None:
    scene.send()
    await scene.calling()


async def after_the_request_was_taken(scene: Scene) -> None:
    for command in scene.commands.values():
        scene.rig.twin.inject(Fault(Kind.DELAY, key=command.key, seconds=REPLY))
    scene.send()
    await scene.received()


async def before_the_outcome_is_written(scene: Scene) -> None:
    await _reply_into(scene, lambda: scene.door.hold_requests(Api.PRODUCE))


async def before_the_outcome_is_committed(scene: Scene) -> None:
    await _reply_into(scene, lambda: scene.door.hold_requests(Api.END_TXN))


async def before_it_is_known_that_the_outcome_is_committed(scene: Scene) -> None:
    await _reply_into(scene, lambda: scene.door.hold_answers(Api.END_TXN))


async def _reply_into(scene: Scene, hold: Callable[[], None]) -> None:
    """Hold from when the supplier has all requests on, then let it answer."""
    for command in scene.commands.values():
        scene.rig.twin.inject(Fault(Kind.DELAY, key=command.key, seconds=HELD_REPLY))
    scene.send()
    await scene.received()
    hold()
    await scene.answered()
    await scene.held()


async def when_all_is_done(scene: Scene) -> None:
    scene.send()
    await scene.rig.estate.all_final(list(scene.commands.values()))


# -- in the supplier's place -------------------------------------------------------------------------------------------


@contextmanager
def the_twin(rig: Rig) -> Iterator[str]:
    yield rig.twin.url


@contextmanager
def nobody_accepts(_: Rig) -> Iterator[str]:
    """Connecting takes for ever: the queue is full."""
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _filler in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 -- the name has no keyword
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def nobody_reads(_: Rig) -> Iterator[str]:
    """One connects and sends, and that is all."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


# -- the stories -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """How often the supplier got the command altogether, and how it ended."""

    calls: int
    end: str
    doubt: bool = False


DONE = {SAFE: "AppointmentAvailabilityFound", KEYED: "ResolveResponseDelivered", NEVER: "FaultReportAdded"}
ONCE = {kind: Expected(1, end) for kind, end in DONE.items()}
TWICE = {kind: Expected(2, end) for kind, end in DONE.items()}
UNSENT = Expected(0, "CommandSettled", doubt=True)
"""There was an intent and no call, which a successor can't know."""
UNHEARD = Expected(1, "CommandSettled", doubt=True)


@dataclass(frozen=True, slots=True)
class Story:
    step: Callable[[Scene], Awaitable[None]]
    expected: Mapping[str, Expected]
    supplier: Callable[[Rig], AbstractContextManager[str]] = the_twin


STORIES = {
    "before the intent is written": Story(before_the_intent_is_written, {**ONCE, SAFE: TWICE[SAFE]}),
    "before the intent is committed": Story(before_the_intent_is_committed, {**ONCE, SAFE: TWICE[SAFE]}),
    "before a keyed intent is known to be committed": Story(
        before_it_is_known_that_the_intent_is_committed, {KEYED: ONCE[KEYED]}
    ),
    "before an intent is known to be committed": Story(
        before_it_is_known_that_the_intent_is_committed, {NEVER: UNSENT}
    ),
    "while connecting": Story(during_the_call, {**ONCE, NEVER: UNSENT}, nobody_accepts),
    "after the first byte": Story(during_the_call, {**ONCE, NEVER: UNSENT}, nobody_reads),
    "before the reply": Story(after_the_request_was_taken, {**TWICE, NEVER: UNHEARD}),
    "before the outcome is written": Story(before_the_outcome_is_written, {**TWICE, NEVER: UNHEARD}),
    "before the outcome is committed": Story(before_the_outcome_is_committed, {**TWICE, NEVER: UNHEARD}),
    "before a safe outcome is known to be committed": Story(
        before_it_is_known_that_the_outcome_is_committed, {SAFE: ONCE[SAFE]}
    ),
    "before a keyed outcome is known to be committed": Story(
        before_it_is_known_that_the_outcome_is_committed, {KEYED: ONCE[KEYED]}
    ),
    "before an outcome is known to be committed": Story(
        before_it_is_known_that_the_outcome_is_committed, {NEVER: ONCE[NEVER]}
    ),
    "when all is done": Story(when_all_is_done, ONCE),
}


@dataclass(frozen=True, slots=True)
class Told:
    """What there was to see in the end."""

    events: Mapping[str, Sequence[Event]]
    calls: Mapping[str, Sequence[Call]]


Seen = Told | BaseException
"""What a story came to, or why it could not be played to its end."""


def command(kind: str, rig: Rig) -> Command:
    reference = unique()
    match kind:
        case "ResolveResponse":
            now = datetime.now(UTC)
            rig.twin.books.add(
                reference=reference, service="S1", incident="Impaired Service", reservation_key=None, now=now
            )
            rig.twin.put(reference, Status.RESOLVED)
            return say.resolve(reference)
        case "AddFaultReport":
            return say.add(reference)
        case _:
            return say.query(reference)


class Fate(StrEnum):
    """What happens to the worker at the step."""

    KILLED = auto()
    FROZEN = auto()
    """It wakes up when a successor has its partition, and what was held back goes on then."""


async def play(story: Story, fate: Fate, kafka: str, processes: Processes) -> Told:
    """The victim comes to the step and meets its fate, a successor finishes."""
    async with open_rig(kafka, partitions=1) as rig, kafka_door(kafka) as door:
        commands = {kind: command(kind, rig) for kind in story.expected}
        with story.supplier(rig) as url:
            patient = {
                f"SUPPLIER__{limit}_TIMEOUT": f"{VICTIM_TOTAL}s" for limit in ("CONNECT", "WRITE", "READ", "TOTAL")
            }
            victim = processes.adapter(
                "worker",
                env=rig.environment(KAFKA__BOOTSTRAP_SERVERS=door.bootstrap, SUPPLIER__BASE_URL=url, **patient),
            )
            await victim.ready(lambda process: "partition started" in process.output)
            await story.step(Scene(rig, door, commands, victim))
            if fate is Fate.FROZEN:
                victim.freeze()
            else:
                victim.kill()
                await door.shut()
        brief = {f"SUPPLIER__{limit}_TIMEOUT": f"{TOTAL}s" for limit in ("CONNECT", "WRITE", "READ", "TOTAL")}
        successor = processes.adapter(
            "worker", env=rig.environment(SUPPLIER__DOUBT_LIMITS=json.dumps({NEVER: "1s"}), **brief)
        )
        await successor.ready(lambda process: "partition started" in process.output)
        if fate is Fate.FROZEN:
            victim.thaw()
            door.release()
            await victim.ready(lambda process: "partitions lost" in process.output)
        await rig.estate.all_final(list(commands.values()), within=TOTAL + PATIENCE)
        await rig.estate.caught_up(rig.group)
        if fate is Fate.FROZEN:
            assert await victim.stop() == 0
        assert await successor.stop() == 0
        rig.estate.look()
        return Told(
            {kind: rig.estate.of(each) for kind, each in commands.items()},
            {kind: [call for call in rig.twin.calls if call.key == each.key] for kind, each in commands.items()},
        )


async def play_all(names: Collection[str], fate: Fate, kafka: str, folder: Path) -> dict[str, Seen]:
    """These stories side by side, since most of their time is waiting. Of one that could not be played to its end, why:
    it is no fault of the others.
    """
    some = asyncio.Semaphore(AT_ONCE)
    with Processes(folder) as processes:

        async def one(story: Story) -> Told:
            async with some:
                return await play(story, fate, kafka, processes)

        told = await asyncio.gather(*(one(STORIES[name]) for name in names), return_exceptions=True)
        return dict(zip(names, told, strict=True))


def judge(story: Story, seen: Seen) -> None:
    """AssertionError if what was seen is not what the story has to come to; whatever kept it from its end."""
    if isinstance(seen, BaseException):
        raise seen
    found = {
        kind: Expected(len(seen.calls[kind]), events[-1].type, doubt=len(events) == 2 and not events[0].final)
        for kind, events in seen.events.items()
    }
    assert found == story.expected
    assert [len(events) for events in seen.events.values()] == [1 + each.doubt for each in story.expected.values()]
    for kind, calls in seen.calls.items():
        assert len({call.message_id for call in calls}) <= 1
        if kind is not SAFE:
            assert not overlaps(calls)
    if len(calls := seen.calls.get(KEYED, ())) > 1:  # whoever made the first may have been making it for so long
        assert calls[1].received - calls[0].received > TOTAL
