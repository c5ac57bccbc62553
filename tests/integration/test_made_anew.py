"""Topics that are deleted and made anew under a worker, which goes on reading where it was in the old ones."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from adapter.core.errors import Stop
from tests.support import estate as say
from tests.support import topics as topic_sets
from tests.support.estate import unique
from tests.support.groups import reset_to_earliest
from tests.support.processes import Processes
from tests.support.rig import Rig, open_rig

WRONG = 2
"""Exit code: something has to be set right first."""


@pytest_asyncio.fixture
async def rig(kafka: str) -> AsyncIterator[Rig]:
    async with open_rig(kafka, partitions=1) as opened:
        yield opened


async def test_commands_and_journal_made_anew_while_producers_write_stop_the_worker_until_somebody_has_looked(
    rig: Rig, processes: Processes
) -> None:
    # However long that takes, the group does not give it up while it stands still.
    worker = processes.adapter("worker", env=rig.environment(KAFKA__SESSION_TIMEOUT="2m"))
    old = [say.add(unique()) for _ in range(2)]
    for command in old:
        rig.estate.send(command)
    await rig.estate.all_final(old)
    await rig.estate.caught_up(rig.group)
    worker.freeze()
    topic_sets.remake(rig.bootstrap, rig.topics, rig.topics.commands, rig.topics.journal)
    new = [say.add(unique()) for _ in range(4)]
    for command in new:
        rig.estate.send(command)
    worker.thaw()
    assert await worker.ended() == WRONG
    told = [line for line in worker.output.splitlines() if line.startswith("adapter: ")]
    assert any(f'{rig.topics.commands} was deleted and made anew while we ran: see "' in line for line in told)
    assert any(f"{rig.topics.journal} was deleted and made anew while we ran" in line for line in told)

    with pytest.raises(Stop, match=rf"--topic {rig.topics.commands} --to-earliest --execute"):
        async with rig.worker() as again:  # as an orchestrator does it, unasked
            await again.running
    await reset_to_earliest(rig.bootstrap, rig.group, rig.topics.commands, rig.topics.partitions)
    async with rig.worker():
        await rig.estate.all_final(new)
    assert [len(rig.estate.finals(command)) for command in (*old, *new)] == [1] * 6
    assert len(rig.twin.heard) == 6
