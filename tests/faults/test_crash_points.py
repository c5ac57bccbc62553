"""kill -9 of the worker at every step of a command, one by one, for each way of repeating: another one goes on."""

from collections.abc import Mapping

import pytest
import pytest_asyncio

from tests.faults.steps import STORIES, Fate, Seen, judge, play_all

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Seen]:
    return await play_all(STORIES, Fate.KILLED, kafka, tmp_path_factory.mktemp("workers"))


@pytest.mark.parametrize("name", STORIES)
async def test_a_command_ends_once_wherever_its_worker_is_killed(told: Mapping[str, Seen], name: str) -> None:
    judge(STORIES[name], told[name])
