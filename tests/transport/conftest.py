"""Event loops for tests of the transports: the supplier calls must classify alike on both, since the two lay TLS and
buffers out differently."""

import asyncio
import gc
from collections.abc import Callable, Iterator

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in {"test_https.py", "test_listener.py"}:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What ends now ends because nobody knows of it any more. Workers and projectors seldom collect."""
    gc.disable()
    yield
    gc.enable()
