"""The room before the gate, where lanes sleep that could only wait for a permit.

A lane that is awake has a task, a decoded command and its request in memory; asleep it has only its undecoded records.
Only as many lanes are awake as the gate can use at once; the others are woken in the order in which they fell asleep. A
lane that sleeps for long is looked at once, so that a command that ends without a call need not wait for a permit.
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
"""Lanes that wait at the gate awake: more than can get a permit in one turn of the loop."""
_LOOK: Final = 0.1
LONG: Final = 10.0
"""Seconds after which a sleeping lane is looked at."""
_SOME: Final = 50
"""Sleeping lanes looked at in one go, which takes a few milliseconds."""

_Sleeper = tuple[Assignment, bytes]


class Room:
    """`start` runs a lane. `wakes_in` returns within how many seconds a lane must be woken, None if it can sleep until
    its turn comes; it raises Unavailable if that can't be told now.
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
        """Sleeping lanes, with the time at which they fell asleep."""
        self._unseen: deque[tuple[float, _Sleeper]] = deque()
        """Those that were not looked at yet, with that time."""
        self._due: list[tuple[float, float, int, _Sleeper]] = []
        """A heap: when to wake them, since when they sleep, a number to tell ties apart."""
        self._count = 0
        self._rising = 0
        """Lanes woken in this turn of the loop, which do not wait at the gate yet."""
        gate.eased = self._fill

    @property
    def crowded(self) -> bool:
        """Whether a lane sleeps here: then one that has had its turn goes to sleep behind the others."""
        return bool(self._asleep)

    def add(self, assignment: Assignment, lane: bytes) -> None:
        """A lane has work: start it, or let it sleep until its turn comes."""
        if not self._asleep and self._wanted > 0:
            self._wake(assignment, lane)
            return
        now, sleeper = self._loop.time(), (assignment, lane)
        self._asleep[sleeper] = now
        self._unseen.append((now, sleeper))
        assignment.waiting[lane] = "gate"

    def forget(self, assignment: Assignment) -> None:
        """Drop its lanes: the partition is gone."""
        for sleeper in [each for each in self._asleep if each[0] is assignment]:
            del self._asleep[sleeper]

    async def run(self) -> None:
        """Look after the sleeping lanes, for ever."""
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
        """Ask when lanes that have slept for long must be woken. Raises Unavailable; a lane that could not be asked
        about is looked at again after the others.
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
