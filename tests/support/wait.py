"""Waiting for a condition with a deadline, instead of sleeping and hoping.

Deadlines cost nothing but in a test that fails: where none is promised they are long, for a machine with much to do.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar, overload

T = TypeVar("T")

PATIENCE = 90.0
"""Seconds for whatever is promised in no time at all. A machine may be several times as slow as another, and busy."""
PAUSE = 0.02
"""Seconds between two looks: short against what tests wait for, long against what most looks cost."""
SELDOM = 0.25
"""The same for a look that asks a broker over a client of its own."""


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], *, within: float = PATIENCE, what: str = "", every: float = PAUSE
) -> T: ...
@overload
async def eventually(
    condition: Callable[[], T], *, within: float = PATIENCE, what: str = "", every: float = PAUSE
) -> T: ...
async def eventually(
    condition: Callable[[], T | Awaitable[T]], *, within: float = PATIENCE, what: str = "", every: float = PAUSE
) -> T:
    """The first truthy answer of `condition`, looked at again and again for `within` seconds. AssertionError
    after that. An exception of the condition passes through."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        seen = await answer if isawaitable(answer) else answer
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(_late(what, within, seen))
        await asyncio.sleep(every)


def wait_until(condition: Callable[[], T], *, within: float = PATIENCE, what: str = "") -> T:
    """As `eventually`, for tests and fixtures without a loop."""
    deadline = time.monotonic() + within
    while not (seen := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(_late(what, within, seen))
        time.sleep(PAUSE)
    return seen


def _late(what: str, within: float, seen: object) -> str:
    return f"{what or 'the condition'} did not hold within {within:g} s, last seen: {seen!r}"
