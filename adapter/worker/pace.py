"""How many lanes go on in one turn of the event loop, and how far.

A commit lets hundreds of lanes go on, all of them call, their replies come together, and their outcomes wait for one
commit: in step like that, every lane waits for all others, and the loop rests while the supplier works. Let go on a few
at a time, with whatever else there is to do in between, they fall out of step. Commits and replies have each a pace of
their own: a reply that waited for all of a commit's lanes would be back in step with them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from types import coroutine
from typing import Final

_AT_ONCE: Final = 32
"""Some milliseconds of work. With 64 they stay in step for longer, with 16 nothing more is won."""


class Pace:
    """Whatever lets a lane go on passes here, in its order, while `run` runs."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._some = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._passed = 0
        """Who has had a turn at once, in this turn of the loop."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def soon(self, act: Callable[[], None]) -> None:
        """Do that when its turn comes."""
        self._waiting.append(act)
        self._some.set()

    async def turn(self) -> None:
        """Returns when the caller's turn comes: at once where few have come in this turn of the loop."""
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
    """Lanes that go on in one turn of the loop take every step of their work together: all of them read, then all of
    them write, and so on.

    The code of a whole command is more than a processor predicts and keeps at hand, that of one step is not. What goes
    through all of it one command after another takes a fifth more time (J. Larus, M. Parkes: Using Cohort Scheduling
    to Enhance Server Performance, USENIX 2002).
    """

    def __init__(self) -> None:
        self.waiting = 0
        """Lanes between two steps."""

    @coroutine
    def step(self) -> Generator[None]:
        """Returns once all others that go on in this turn of the loop have come as far."""
        self.waiting += 1
        try:
            yield  # to a task this is `asyncio.sleep(0)`, without a coroutine of its own
        finally:
            self.waiting -= 1
