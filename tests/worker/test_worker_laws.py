"""Any order of commands, answers, aborted transactions, rebalances and deaths keeps the laws of the command path."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.core import journal
from adapter.core.journal import read_mark
from adapter.core.operation import Repeat
from adapter.ports import NotSent, Reply
from adapter.worker.events import message_id
from adapter.worker.window import Bounds
from tests.support.bus import IDENTITY
from tests.support.estate import Command, add, amend, ask_update, resolve
from tests.support.known import known
from tests.support.plant import (
    Bounded,
    Call,
    Hand,
    Plant,
    accepted,
    answer,
    busy,
    later,
    refused,
    silent,
)

PARTITIONS: Final = {"A": 0, "B": 0, "C": 1}
ANSWERS: Final[Mapping[str, Any]] = {
    "accepts": accepted,
    "refuses": refused,
    "is busy": busy,
    "is silent": silent,
    "takes its time": later,
    "is not there": lambda _call: NotSent("connect", "nobody listens"),
    "forbids": lambda _call: Reply(401, {}, b""),
    "has moved": lambda _call: Reply(404, {}, b""),
}
KINDS: Final = ["add", "amend", "ask", "ask the ticket", "resolve"]
LIMITS: Final = Bounded(
    call_limit=0.03,
    doubt=0.06,
    retry=0.002,
    parked_after=0.01,
    parked=2,
    permits=8,
    probe=0.005,
    reference_wait=0.02,
    linger=0.01,
)

steps = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(sorted(PARTITIONS)), st.sampled_from(KINDS)),
    st.tuples(st.just("send"), st.just("A"), st.sampled_from(KINDS)),
    st.tuples(st.just("hurry"), st.sampled_from(sorted(PARTITIONS)), st.sampled_from(KINDS), st.integers(0, 15)),
    st.tuples(st.just("repeat"), st.integers(0, 9)),
    st.tuples(st.just("reuse"), st.integers(0, 9)),
    st.tuples(st.just("garbage"), st.sampled_from(sorted(PARTITIONS))),
    st.tuples(st.just("supplier"), st.sampled_from(sorted(ANSWERS))),
    st.tuples(st.just("answer"), st.sampled_from(["accepts", "refuses", "is busy"])),
    st.tuples(st.just("turns"), st.integers(1, 25)),
    st.tuples(st.just("nap"), st.integers(1, 15)),
    st.tuples(st.just("hold")),
    st.tuples(st.just("release")),
    st.tuples(st.just("abort"), st.integers(1, 3)),
    st.tuples(st.just("kill"), st.booleans()),
    st.tuples(st.just("fail_over")),
    st.tuples(st.just("revoke")),
    st.tuples(st.just("lose")),
    st.tuples(st.just("expel")),
    st.tuples(st.just("registry"), st.booleans()),
    st.tuples(st.just("tickets"), st.booleans()),
    st.tuples(st.just("project")),
    st.tuples(st.just("notice"), st.sampled_from(sorted(PARTITIONS)), st.sampled_from(["AMENDED", "ACCEPTED"])),
    st.tuples(st.just("decide"), st.integers(0, 9), st.sampled_from(["ACCEPTED", "REJECTED", "REPEAT"])),
)


@settings(max_examples=40, deadline=None)
@given(
    story=st.lists(steps, max_size=40),
    remembered=st.sampled_from([1, 1000]),
    batch=st.sampled_from([1, 500]),
    ahead=st.sampled_from([1, 500]),
    permits=st.sampled_from([1, 8]),
    rate=st.sampled_from([None, 300.0]),
    threshold=st.sampled_from([1, 1000]),
    span=st.sampled_from([2, 10_000]),
)
def test_every_story_keeps_the_laws(story: list[tuple[Any, ...]], batch: int, **limits: Any) -> None:
    """Ids come again only where the worker is told to remember: how far back that reaches is a setting. Where it is
    not, the mark alone says what a successor knows.
    """
    window = Bounds(10_000, 10**8, limits.pop("span"))
    asyncio.run(_tell(story, batch, replace(LIMITS, window=window, **limits)))


async def _tell(story: list[tuple[Any, ...]], batch: int, limits: Bounded) -> None:
    teller = _Teller(batch, limits)
    try:
        for step, *what in story:
            await getattr(teller, f"_{step}")(*what)
            teller.marks_hold()
        await teller.end()
        teller.laws_hold()
    finally:
        await teller.plant.close()


class _Teller:
    def __init__(self, batch: int, limits: Bounded) -> None:
        self.plant = Plant(partitions=2)
        self.remembers = limits.remembered > 1
        self.limits = limits
        self.batch = batch
        self.sent: list[Command] = []
        """In the order of their first records."""
        self.reused: set[str] = set()
        self.sent_again: set[str] = set()
        """Somebody has decided so, at least once."""
        self.garbage = 0
        self.hand = self.hire()

    def hire(self) -> Hand:
        hand = self.plant.hire(limits=self.limits)
        hand.member.batch = self.batch
        hand.member.assign(0, 1)
        return hand

    # -- steps -------------------------------------------------------------------------------------------------------

    async def _send(self, key: str, kind: str, **fields: Any) -> None:
        command = {
            "add": lambda: add(key, **fields),
            "amend": lambda: amend(key, **fields),
            "ask": lambda: ask_update(key, maintainerFaultReference="M-1", **fields),
            "ask the ticket": lambda: ask_update(key, **fields),
            "resolve": lambda: resolve(key, **fields),
        }[kind]()
        self.sent.append(command)
        partition = PARTITIONS[key]
        self.plant.send(command, partition=partition, gap=0 if self.plant.bus.commands[partition] else 1000)

    async def _hurry(self, key: str, kind: str, milliseconds: int) -> None:
        await self._send(key, kind, notAfter=datetime.now(UTC) + timedelta(milliseconds=milliseconds))

    async def _repeat(self, number: int) -> None:
        if self.sent and self.remembers:
            command = self.sent[number % len(self.sent)]
            self.plant.send(command, partition=PARTITIONS[command.key])

    async def _reuse(self, number: int) -> None:
        if self.sent and self.remembers:
            command = self.sent[number % len(self.sent)]
            other = replace(amend(command.key, serviceAffected="S-2"), command_id=command.command_id)
            self.reused.add(command.command_id)
            self.plant.send(other, partition=PARTITIONS[command.key])

    async def _garbage(self, key: str) -> None:
        self.garbage += 1
        self.plant.bus.put(key.encode(), b"\1", partition=PARTITIONS[key], gap=1000)

    async def _supplier(self, kind: str) -> None:
        self.plant.desk.answers = ANSWERS[kind]

    async def _answer(self, kind: str) -> None:
        for call in self.plant.desk.calls:
            if call.waits and not call.answer.done():
                call.taken = kind == "accepts"
                answer(call, ANSWERS[kind])

    async def _turns(self, number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    async def _nap(self, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds / 1000)

    async def _hold(self) -> None:
        self.hand.member.hold()

    async def _release(self) -> None:
        self.hand.member.release()

    async def _abort(self, number: int) -> None:
        self.hand.member.refusals = number

    async def _kill(self, committed: bool) -> None:  # noqa: FBT001 -- drawn
        await self.hand.kill(committed=committed)
        self.hand = self.hire()

    async def _fail_over(self) -> None:
        """To a cluster in which the records have other offsets and the group has none. Not with residents: theirs tell
        nothing of their place among later ones.
        """
        await self.hand.kill()
        if any(journal.recover(self.plant.entries(partition=number), 0).residents for number in (0, 1)):
            self.hand = self.hire()
            return
        for log in self.plant.bus.commands.values():
            log[:] = [replace(source, offset=source.offset - 10) for source in log]
        self.plant.bus.committed.clear()
        self.hand = self.hire()

    async def _revoke(self) -> None:
        self.hand.member.release()
        leaving = asyncio.ensure_future(self.hand.member.revoke(0, 1))
        while not leaving.done():
            await self._answer("accepts")
            await asyncio.sleep(0.001)
        await leaving
        self.hand.member.assign(0, 1)

    async def _lose(self) -> None:
        self.hand.member.lose(0, 1)
        self.hand.member.release()
        self.hand.member.assign(0, 1)

    async def _expel(self) -> None:
        """It works on for a while beside its successor; calls end within their limit."""
        old = self.hand
        old.member.expel()
        if self.plant.desk.answers is later:
            self.plant.desk.answers = accepted
        self.hand = self.hire()
        await self._answer("accepts")
        await self._turns(10)
        old.member.lose(0, 1)
        old.member.release()

    async def _registry(self, away: bool) -> None:  # noqa: FBT001 -- drawn
        self.plant.registry.away = away

    async def _tickets(self, away: bool) -> None:  # noqa: FBT001 -- drawn
        self.plant.bus.tickets_away = away
        if not away:
            await self.plant.come_back()

    async def _project(self) -> None:
        await self.plant.project()

    async def _notice(self, key: str, kind: str) -> None:
        await self.plant.notice(key, kind, maintainerFaultReference="M-2")

    async def _decide(self, number: int, ruling: str) -> None:
        doubts = [event for event in self.plant.events if not event.final]
        if doubts:
            doubt = doubts[number % len(doubts)]
            command = next(c for c in self.sent if c.command_id == doubt.record["commandId"])
            if ruling == "REPEAT":
                self.sent_again.add(command.command_id)
            await self.plant.project()
            await self.plant.decide(command, ruling, attempts=doubt.record["attempts"])

    async def end(self) -> None:
        """Everything recovers."""
        await self._registry(away=False)
        await self._tickets(away=False)
        self.plant.desk.answers = accepted
        self.hand.member.release()
        await self._answer("accepts")
        for partition in (0, 1):
            if self.plant.bus.commands[partition]:
                await self.plant.caught_up(partition)
        if self.sent:
            await self.plant.final(*self.sent)
        self.marks_hold()

    # -- laws --------------------------------------------------------------------------------------------------------

    def marks_hold(self) -> None:
        """A successor that reads from the mark knows all it needs."""
        for partition, position in self.plant.bus.committed.items():
            mark = read_mark(position.metadata, IDENTITY)
            assert mark is not None
            whole, found = (
                journal.recover(
                    (e for _, value in self.plant.bus.entries(partition, start) for e in self.plant.journaled(value)),
                    position.offset,
                )
                for start in (0, mark.offset)
            )
            assert (found.open, found.residents) == (whole.open, whole.residents)
            if self.remembers:
                continue
            again = {s.value for s in self.plant.bus.commands[partition] if s.offset >= position.offset}
            ids = {c.command_id for c in self.sent if any(c.command_id.encode() in (value or b"") for value in again)}
            assert ids & whole.settled.keys() == ids & found.settled.keys()

    def laws_hold(self) -> None:
        finals = Counter(event.record["commandId"] for event in self.plant.events if event.final)
        assert finals == Counter(command.command_id for command in self.sent), "one final event each"
        doubts = Counter(event.record["commandId"] for event in self.plant.events if not event.final)
        assert all(count == 1 or i in self.sent_again for i, count in doubts.items()), "one doubt each"
        letters = Counter(self.plant.letters)
        assert letters["malformed"] + letters["unframed"] >= self.garbage
        assert set(letters) <= {"unframed", "command-id-reused"}
        for command in self.sent:
            calls = self.plant.desk.of(command)
            repeat = known().operations[command.name].operation.repeat
            if repeat is Repeat.NEVER and command.command_id not in self.reused | self.sent_again:
                assert not any(call.taken for call in calls[:-1]), "no blind repeat"
            if command.command_id in doubts and command.command_id not in self.reused:
                assert repeat is Repeat.NEVER
            self._agrees(command, calls)
        self._in_order()

    def _agrees(self, command: Command, calls: list[Call]) -> None:
        (final,) = (event for event in self.plant.of(command) if event.final)
        repeat = known().operations[command.name].operation.repeat
        match final.type:
            case "CommandSettled" if final.record["settledBy"] == "OPERATOR" and command.command_id in self.sent_again:
                assert final.record["outcome"] != "ACCEPTED" or any(call.taken for call in calls)
            case "CommandSettled":
                assert any(call.taken for call in calls) or final.record["commandId"] in self._intended()
            case "CommandRejected" if final.record["code"] in {"ticket-blocked", "reference-unknown"}:
                assert not calls
            case "CommandRejected" if final.record["code"] == "expired":
                assert repeat is Repeat.SAFE or not any(call.taken for call in calls)
            case "CommandRejected":
                assert any(call.ended and not call.taken for call in calls)
            case _:
                assert any(call.taken for call in calls)

    def _intended(self) -> set[str]:
        return {
            entry.command_id
            for partition in (0, 1)
            for entry in self.plant.entries(partition=partition)
            if entry.kind is journal.Kind.INTENT
        }

    def _in_order(self) -> None:
        numbers = {message_id(c.command_id): n for n, c in enumerate(self.sent) if c.command_id not in self.reused}
        keys = {message_id(c.command_id): c.key for c in self.sent}
        called: defaultdict[str, list[int]] = defaultdict(list)
        for call in self.plant.desk.calls:
            if call.message_id in numbers:
                called[keys[call.message_id]].append(numbers[call.message_id])
        ended: defaultdict[str, list[int]] = defaultdict(list)
        for event in self.plant.events:
            number = numbers.get(message_id(event.record["commandId"]))
            if event.final and number is not None and event.record.get("code") != "ticket-blocked":
                ended[keys[message_id(event.record["commandId"])]].append(number)
        assert all(found == sorted(found) for found in called.values()), "calls of a key in order"
        assert all(found == sorted(found) for found in ended.values()), "outcomes of a key in order"
