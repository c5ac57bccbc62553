"""How many lanes resume in one turn of the event loop, and how far they get.

A commit lets hundreds of lanes resume at once. If all of them called the supplier together, their replies would arrive
together and their outcomes would wait for the same commit: in lockstep, every lane waits for all others, and the loop
idles while the supplier works. Resumed a few at a time, with other work in between, the lanes fall out of step. Commits
and replies have a pace each: a reply that waited for all lanes of a commit would be in step with them again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from types import coroutine
from typing import Final

_AT_ONCE: Final = 32
"""Lanes per turn, some milliseconds of work. With 64 they stay in step for longer, with 16 nothing more is gained."""


class Pace:
    """A queue of what lets lanes resume; `run` carries it out in order, a few per turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._some = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._passed = 0
        """How many have passed without waiting, in this turn of the loop."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def soon(self, act: Callable[[], None]) -> None:
        """Call `act` when its turn comes."""
        self._waiting.append(act)
        self._some.set()

    async def turn(self) -> None:
        """Returns when the caller's turn comes: at once if few have passed in this turn of the loop."""
        if self._passed < _AT_ONCE and not self._waiting:
            if not self._passed:
                self._loop.call_soon(self._turned)
            self._passed += 1
            return
        mine: asyncio.Future[None] = self._loop.create_future()
        self.soon(lambda: None if mine.done() else mine.set_result(None))
        await mine

    def _turned(self) -> None:
        self._passed = 0

    async def run(self) -> None:
        """Work for ever. Raises what an act raises."""
        while True:
            await self._some.wait()
            for _ in range(min(_AT_ONCE, len(self._waiting))):
                self._waiting.popleft()()
            if self._waiting:
                await asyncio.sleep(0)
            else:
                self._some.clear()


class Cohort:
    """Lanes that resume in one turn of the loop take each step of their work together: all of them read, then all of
    them write, and so on.

    The code of one step fits the processor's caches and branch predictor, that of a whole command does not: run one
    command after the other, it takes a fifth more time (J. Larus, M. Parkes: Using Cohort Scheduling to Enhance Server
    Performance, USENIX 2002).
    """

    def __init__(self) -> None:
        self.waiting = 0
        """Lanes between two steps."""

    @coroutine
    def step(self) -> Generator[None]:
        """Returns once all lanes that resume in this turn of the loop have come as far."""
        self.waiting += 1
        try:
            yield  # to a task this is `asyncio.sleep(0)`, without a coroutine of its own
        finally:
            self.waiting -= 1
