"""Floods: a long backlog with poison in it, one key with very many commands, a partition that is stuck behind one key.

FLOOD=1000000 makes the backlog that long, before a lean twin.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from adapter.core.partition import partition_of
from adapter.twin import Fault, Kind
from tests.support import estate as say
from tests.support.estate import Command, unique
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually

LONG = "FLOOD" in os.environ
BACKLOG = int(os.environ.get("FLOOD", "2000"))
BUSIEST = BACKLOG // 10 if LONG else 100
"""Commands of one key, of all."""
MEMORY = 250
"""MiB, at the most."""
AT_ONCE = 10_000
SMALL = {} if LONG else {"WORKER__WINDOW_RECORDS": "400", "WORKER__PARTITION_SPAN": "1000"}
PARTITIONS = 4


@pytest.mark.timeout(600 + BACKLOG // 100)
async def test_a_backlog_with_poison_and_a_busy_key_is_worked_off_in_bounded_memory(
    kafka: str, processes: Processes
) -> None:
    async with open_rig(kafka, partitions=PARTITIONS) as rig:
        busiest = unique()
        at = partition_of(busiest.encode(), PARTITIONS)
        rig.twin.inject(Fault(Kind.DELAY, key=busiest, seconds=1.0, times=None))
        keys = [unique() for _ in range(BACKLOG // 100)]
        commands, poison, elsewhere = 0, 0, 0
        for start in range(0, BACKLOG, AT_ONCE):
            records: list[tuple[bytes | None, bytes | None]] = []
            for number in range(start, min(start + AT_ONCE, BACKLOG)):
                key = busiest if number % (BACKLOG // BUSIEST) == 0 else keys[number % len(keys)]
                if number % 100 == 7:
                    records.append((b"no command", key.encode()))
                    poison += 1
                else:
                    records.append((rig.estate.encode(say.query(key)), key.encode()))
                    commands += 1
                    elsewhere += partition_of(key.encode(), PARTITIONS) != at
            rig.estate.put_all(records)
        supplier = await lean(processes) if LONG else {}
        worker = processes.adapter("worker", env=rig.environment(**SMALL, **supplier))
        await worker.ready(lambda p: "partition started" in p.output)

        def finals(*, of: str | None = None) -> int:
            return sum(event.final and of in (None, (event.key or b"").decode()) for event in rig.estate.events)

        assert elsewhere, "some keys lie in other partitions"
        if not LONG:
            # They do not wait for the busy key, which is served one by one to the end.
            await rig.estate.heard(
                lambda: sum(e.final and e.place.partition != at for e in rig.estate.events) == elsewhere,
                what="the outcomes of other partitions",
            )
            assert finals(of=busiest) < BUSIEST
            rig.twin.clear()
        await rig.estate.heard(lambda: finals() == commands, within=PATIENCE + BACKLOG / 200, what="every outcome")
        await rig.estate.heard(lambda: len(rig.estate.letters) == poison, what="every dead letter")
        await rig.estate.caught_up(rig.group)
        assert len({e.record["commandId"] for e in rig.estate.events if e.final}) == commands
        assert finals(of=busiest) >= BUSIEST * 9 // 10
        print(f"{BACKLOG} records, at most {peak_memory(worker)} MiB")
        assert peak_memory(worker) < MEMORY
        assert await worker.stop() == 0


async def test_a_partition_stuck_behind_one_key_is_seen_and_holds_nobody_else(kafka: str, processes: Processes) -> None:
    async with open_rig(kafka, partitions=PARTITIONS) as rig:
        stuck = unique()
        at = partition_of(stuck.encode(), PARTITIONS)
        rig.twin.inject(Fault(Kind.STATUS, status=503, key=stuck, times=None))
        waiting = [say.query(stuck) for _ in range(300)]
        put(rig, waiting)
        environment = rig.environment(WORKER__WINDOW_RECORDS="400", WORKER__PARTITION_SPAN="200")
        worker = processes.adapter("worker", env=environment)
        await worker.ready(lambda p: p.output.count("partition started") == PARTITIONS)
        url = re.findall(r'"telemetry":"([^"]+)"', worker.output)[0]
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:

            async def seen(*metrics: str) -> bool:
                text = (await http.get(f"{url}/metrics")).text
                return all(
                    re.search(rf'^fault_adapter_{m}{{partition="{at}"}} [1-9]', text, re.MULTILINE) for m in metrics
                )

            await eventually(lambda: seen("partition_paused", "oldest_unfinished_seconds"))
        others = [
            say.query(key) for key in (unique() for _ in range(100)) if partition_of(key.encode(), PARTITIONS) != at
        ]
        put(rig, others)
        await rig.estate.all_final(others)

        for how in ((), ("--worker", url)):
            command = processes.adapter("stuck", "--older", "1s", *how, env=environment)
            assert await command.ended() == 0
            (told,) = [json.loads(line) for line in command.output.splitlines()]
            assert (told["key"], told["partition"], told["offset"]) == (stuck, at, 0)
            print(told["why"])
            assert told["why"]
        rig.twin.clear()
        await rig.estate.all_final(waiting)
        assert await worker.stop() == 0


async def lean(processes: Processes) -> dict[str, str]:
    """The setting that leads to a twin for measurements, which keeps little of what it is asked."""
    twin = processes.adapter("twin", "--lean", "--port", "0", "--control-port", "0")
    await twin.ready(lambda p: "control:" in p.output)
    url = next(line.split()[1] for line in twin.output.splitlines() if line.startswith("twin:"))
    return {"SUPPLIER__BASE_URL": url}


def put(rig: Rig, commands: Sequence[Command]) -> None:
    rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])


def peak_memory(process: Process) -> int:
    """MiB resident, at the highest."""
    status = (Path("/proc") / str(process.pid) / "status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) // 1024
