"""A worker that is stopped at any step of a command and wakes up when another one has its partition does no harm."""

import os
from collections.abc import Mapping

import pytest
import pytest_asyncio

from tests.faults.steps import STORIES, Fate, Seen, judge, play_all

CHOSEN = (
    tuple(STORIES)
    if "FAULT_ROUNDS" in os.environ
    else (
        "before the intent is written",
        "before the intent is committed",
        "before an intent is known to be committed",
        "before the reply",
        "before the outcome is committed",
        "before an outcome is known to be committed",
    )
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Seen]:
    return await play_all(CHOSEN, Fate.FROZEN, kafka, tmp_path_factory.mktemp("workers"))


@pytest.mark.parametrize("name", CHOSEN)
async def test_a_command_ends_once_wherever_its_worker_is_frozen(told: Mapping[str, Seen], name: str) -> None:
    judge(STORIES[name], told[name])
