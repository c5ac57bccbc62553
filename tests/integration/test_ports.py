"""Ports that were given to one test are no other's."""

import sys

from tests.support.ports import free_port
from tests.support.processes import Processes

MANY = 300
GIVEN = f"from tests.support.ports import free_port; print(*(free_port() for _ in range({MANY})))"


def test_none_is_given_twice() -> None:
    assert len({free_port() for _ in range(MANY)}) == MANY


async def test_none_is_given_to_two_processes_of_a_run(processes: Processes) -> None:
    given = []
    for number in range(3):
        worker = {"PYTEST_XDIST_WORKER": f"gw{number}", "PYTEST_XDIST_WORKER_COUNT": "3"}
        process = processes.start(sys.executable, "-c", GIVEN, env=worker)
        assert await process.ended() == 0
        given += process.output.split()
    assert len(set(given)) == 3 * MANY
