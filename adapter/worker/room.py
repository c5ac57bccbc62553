"""The room before the gate, where lanes sleep that could do nothing but wait for a permit.

A lane that is awake has a task, a decoded command and its request; asleep it costs what its records weigh. As many are
awake as the gate can want at once, and they are woken in the order in which they lay down. Who sleeps for long is
looked at once, so that what ends without a call does not wait for those that need one.
"""

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from adapter.core.errors import Unavailable
from adapter.worker.assignment import Assignment
from adapter.worker.gate import Gate
from adapter.worker.pace import Cohort

AHEAD: Final = 500
"""Lanes that wait before the gate, awake: more than can get a permit in one turn of the loop."""
_LOOK: Final = 0.1
LONG: Final = 10.0
"""Seconds after which a sleeper is looked at."""
_SOME: Final = 50
"""Sleepers looked at in one go, a few milliseconds."""

_Sleeper = tuple[Assignment, bytes]


class Room:
    """`start` runs a lane. `wakes_in` says in how many seconds a lane must be woken at the latest, None if it can sleep
    until a permit is near; it raises Unavailable if that can't be told now.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        cohort: Cohort,
        ahead: int,
        long_asleep: float,
        start: Callable[[Assignment, bytes], None],
        wakes_in: Callable[[Assignment, bytes], Awaitable[float | None]],
    ) -> None:
        self._gate = gate
        self._cohort = cohort
        self._ahead = ahead
        self._start = start
        self._wakes_in = wakes_in
        self._long = long_asleep
        self._loop = asyncio.get_running_loop()
        self._asleep: OrderedDict[_Sleeper, float] = OrderedDict()
        """Since when they sleep."""
        self._unseen: deque[tuple[float, _Sleeper]] = deque()
        self._due: list[tuple[float, float, int, _Sleeper]] = []
        """A heap: when to wake them, since when they sleep."""
        self._count = 0
        self._rising = 0
        """Woken in this turn of the loop, and not yet on their way to the gate."""
        gate.eased = self._fill

    @property
    def crowded(self) -> bool:
        """Whether somebody sleeps here: whoever has had a turn lies down behind them."""
        return bool(self._asleep)

    def add(self, assignment: Assignment, lane: bytes) -> None:
        """A lane has work: it starts, or sleeps until its turn comes."""
        if not self._asleep and self._wanted > 0:
            self._wake(assignment, lane)
            return
        now, sleeper = self._loop.time(), (assignment, lane)
        self._asleep[sleeper] = now
        self._unseen.append((now, sleeper))
        assignment.waiting[lane] = "gate"

    def forget(self, assignment: Assignment) -> None:
        """Its partition is gone."""
        for sleeper in [each for each in self._asleep if each[0] is assignment]:
            del self._asleep[sleeper]

    async def run(self) -> None:
        """Look at who sleeps for long, for ever."""
        while True:
            await asyncio.sleep(_LOOK)
            self._fill()
            with suppress(Unavailable):
                await self._look()
            while self._due and self._due[0][0] <= self._loop.time():
                _, since, _, sleeper = heapq.heappop(self._due)
                if self._asleep.get(sleeper) == since:
                    self._rouse(sleeper)

    @property
    def _wanted(self) -> int:
        return self._ahead - self._gate.waiting - self._cohort.waiting - self._rising

    def _fill(self) -> None:
        if not self._asleep:
            return
        for _ in range(min(self._wanted, len(self._asleep))):
            self._rouse(next(iter(self._asleep)))

    def _rouse(self, sleeper: _Sleeper) -> None:
        del self._asleep[sleeper]
        assignment, lane = sleeper
        if not assignment.closing:
            self._wake(assignment, lane)

    def _wake(self, assignment: Assignment, lane: bytes) -> None:
        assignment.waiting.pop(lane, None)
        if not self._rising:  # called when all that are woken in this turn have set out
            self._loop.call_soon(self._loop.call_soon, self._risen)
        self._rising += 1
        self._start(assignment, lane)

    def _risen(self) -> None:
        self._rising = 0
        self._fill()

    async def _look(self) -> None:
        """Ask about those that sleep for long. Raises Unavailable; who could not be looked at comes again behind the
        others.
        """
        before, looked_at = self._loop.time() - self._long, 0
        while looked_at < _SOME and self._unseen and self._unseen[0][0] <= before:
            since, sleeper = self._unseen.popleft()
            if self._asleep.get(sleeper) != since:
                continue
            looked_at += 1
            try:
                seconds = await self._wakes_in(*sleeper)
            except Unavailable:
                self._unseen.append((since, sleeper))
                raise
            if seconds is not None:
                self._count += 1
                heapq.heappush(self._due, (self._loop.time() + seconds, since, self._count, sleeper))
