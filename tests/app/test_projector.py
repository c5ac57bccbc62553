"""How a projector is put together."""

import io
from pathlib import Path

import pytest

from adapter.app.projector import _stores
from adapter.telemetry import start_logging

LIMIT = 256
"""MiB of the 512 that the chart gives a projector."""


@pytest.mark.parametrize("partitions", [8, 64, 200, 1000])
async def test_a_projector_that_owns_all_partitions_keeps_no_more_of_their_stores_in_memory_than_it_has(
    partitions: int, tmp_path: Path
) -> None:
    stores = _stores(tmp_path, partitions, start_logging(stream=io.StringIO()))
    store = await stores.open(0, "one")
    ((negative_kib,),) = store._database.execute("PRAGMA cache_size")
    assert 0 < -negative_kib * partitions <= LIMIT * 1024
    await store.close()
    stores.close()
