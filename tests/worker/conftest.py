from collections.abc import AsyncIterator

import pytest

from tests.support.plant import Plant


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    """Three partitions, nobody at work yet. At the end a worker that has died fails the test."""
    plant = Plant()
    yield plant
    await plant.close()
