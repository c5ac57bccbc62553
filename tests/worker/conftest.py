import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.support.plant import Plant


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What is told by timers and turns of the loop also on uvloop, on which workers run."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in {"test_gate.py", "test_pace.py", "test_room.py", "test_conductor.py", "test_flow.py"}:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    """Three partitions, nobody at work yet. At the end a worker that has died fails the test."""
    plant = Plant()
    yield plant
    await plant.close()
