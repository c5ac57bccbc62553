"""SIGTERM at a bad moment: in the first second of a start, or while Kafka is away. Exit code 0, in time."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.server.conftest import PLAIN
from tests.support import estate as say
from tests.support.broker import Cluster, await_nodes
from tests.support.estate import unique
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually

ROLES = ("worker", "server", "projector")
LIMITS = {"worker": 3.0, "server": 3.0, "projector": 7.0}
"""Seconds in which each leaves; a projector's are five more than a transaction may take."""
SLACK = 5.0
"""Seconds a process may need beyond its limit, of which two are for its clients."""
SHORT = {
    **{f"{role.upper()}__STOP_TIMEOUT": f"{LIMITS[role]:g}s" for role in ("worker", "server")},
    "KAFKA__TRANSACTION_TIMEOUT": "2s",
    **{f"SUPPLIER__{limit}_TIMEOUT": "1s" for limit in ("CONNECT", "WRITE", "READ", "TOTAL")},
}


MOMENTS = ("", "uvloop", "pydantic", "lxml", "librdkafka", "fastavro")
"""What is loaded by then, one after the other; nothing: the handler of the signal is set."""


async def test_leaving_while_kafka_is_away_takes_no_longer_than_the_limit(
    kafka_cluster: Callable[..., Cluster], processes: Processes
) -> None:
    cluster = kafka_cluster()
    async with open_rig(cluster.bootstrap, partitions=2) as rig:
        environment = rig.environment(**PLAIN, **SHORT)
        at_work = [processes.adapter(role, env=environment) for role in ROLES]
        for role, process in zip(ROLES, at_work, strict=True):
            await process.ready(is_at_work(role))
        commands = [say.add(unique()) for _ in range(50)]
        rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
        await eventually(lambda: rig.twin.log, what="calls")
        cluster.freeze()  # in the middle of transactions
        try:
            starting = [processes.adapter(role, env=environment) for role in ROLES]
            for process in starting:
                await process.ready(asks_kafka)
            took = await asyncio.gather(*(seconds_to_leave(p) for p in (*at_work, *starting)))
        finally:
            cluster.thaw()
            # It was missed by its own controller and comes back; the rig deletes its topics there.
            await asyncio.to_thread(await_nodes, cluster.bootstrap, nodes=1)
        print([round(seconds, 1) for seconds in took])
        for role, seconds in zip((*ROLES, *ROLES), took, strict=True):
            assert seconds < LIMITS[role] + SLACK, role


async def test_told_to_leave_at_any_moment_of_a_start(processes: Processes) -> None:
    async def told(moment: str, role: str) -> None:
        process = await processes.adapter(role, env=lonely()).ready(lambda p: has_come_to(p, moment))
        assert await process.stop() == 0

    for moment in MOMENTS:
        await asyncio.gather(*(told(moment, role) for role in (*ROLES, "run")))


async def test_one_that_is_to_outlive_its_terminal_does(processes: Processes) -> None:
    role = processes.start("nohup", sys.executable, "-m", "adapter", "run", env=lonely())
    await role.ready(asks_kafka)
    role.send(signal.SIGHUP)
    role.send(signal.SIGUSR1)  # delivered behind it: the lower number comes first
    await role.ready(lambda process: '"log level"' in process.output)
    assert "stopping" not in role.output
    assert await role.stop() == 0


def has_come_to(process: Process, moment: str) -> bool:
    proc = Path("/proc") / str(process.pid)
    if moment:
        return moment in (proc / "maps").read_text()
    caught = int(re.findall(r"SigCgt:\s*([0-9a-f]+)", (proc / "status").read_text())[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def is_at_work(role: str) -> Callable[[Process], bool]:
    sign = "server starts" if role == "server" else "partition started"
    return lambda process: sign in process.output


def asks_kafka(process: Process) -> bool:
    threads = (Path("/proc") / str(process.pid) / "task").glob("*/comm")
    return any(thread.read_text().startswith("rdk:") for thread in threads)


async def seconds_to_leave(process: Process) -> float:
    """By its own log: how long a busy machine takes to begin and to end a process is not its doing."""
    assert await process.stop() == 0
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    asked = next(line["time"] for line in lines if line["event"] == "stopping")
    return (datetime.fromisoformat(lines[-1]["time"]) - datetime.fromisoformat(asked)).total_seconds()


def lonely() -> dict[str, str]:
    """Settings of a role that finds nobody."""
    nowhere = f"127.0.0.1:{free_port()}"
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": nowhere,
        "REGISTRY__URL": f"http://{nowhere}",
        "SUPPLIER__BASE_URL": f"http://{nowhere}",
        "SUPPLIER__ALLOW_PLAINTEXT": "true",
        "SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
        "TELEMETRY__PORT": "0",
        **PLAIN,
    }
    return {f"ADAPTER_{name}": value for name, value in settings.items()}
