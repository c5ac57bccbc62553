"""200 is a promise: with the broker gone, with a spool and without, with a full disk, and when the process is killed.

OUTAGE_SECONDS and FAULT_ROUNDS make it long.
"""

import asyncio
import json
import os
import re
import resource
import signal
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.server.bus import Record, records
from tests.server.conftest import PLAIN, Serving, notification, port_of, serving
from tests.support.broker import Cluster
from tests.support.door import door
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, PAUSE, eventually

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "2"))
OUTAGE = float(os.environ.get("OUTAGE_SECONDS", "3"))
LIMIT = int(600 + ROUNDS * 15 + OUTAGE * 3)

pytestmark = pytest.mark.timeout(LIMIT)


@dataclass(slots=True)
class Supplier:
    """Sends each ticket's notifications one after the other, and each again until it gets 200."""

    rig: Rig
    url: str = ""
    statuses: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    stopping: bool = False

    async def ticket(self, reference: str) -> None:
        number = 0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as client:
            while not self.stopping:
                try:
                    body = notification(reference, message=f"M-{number:06}")
                    async with client.post(self.url, data=body) as reply:
                        status = str(reply.status)
                        assert status != "503" or reply.headers["Retry-After"]
                except (aiohttp.ClientError, TimeoutError):
                    status = "none"
                self.statuses[status] += 1
                if status == "200":
                    self.acknowledged[reference].append(number)
                    number += 1
                else:
                    await asyncio.sleep(PAUSE)

    @property
    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    async def check(self) -> None:
        """Everything acknowledged is there, in order, each under one id however often it came."""
        seen: dict[str, list[int]] = defaultdict(list)
        ids: dict[tuple[str, int], set[str]] = defaultdict(set)
        for event in await asyncio.to_thread(records, self.rig.bootstrap, self.rig.topics.events):
            key, number = (event.key or b"").decode(), _number(event)
            ids[key, number].add(event.id)
            if number not in seen[key]:
                seen[key].append(number)
        for key, numbers in self.acknowledged.items():
            assert set(numbers) <= set(seen[key]), f"{key} has lost some"
            assert seen[key] == sorted(seen[key]), f"{key} is out of order"
        assert {len(found) for found in ids.values()} == {1}


def _number(event: Record) -> int:
    found = re.search(rb"M-(\d{6})", event.value)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("spooled", [True, False], ids=["with a spool", "without a spool"])
async def test_broker_gone_under_load(
    breakable_kafka: Cluster,
    processes: Processes,
    tmp_path: Path,
    spooled: bool,  # noqa: FBT001 -- pytest gives it
) -> None:
    cluster = breakable_kafka
    more = {"SERVER__SPOOL__PATH": str(tmp_path / "spool.db")} if spooled else {}
    async with open_rig(cluster.bootstrap) as rig:
        process = processes.adapter("server", env=rig.environment(**PLAIN, **more, SERVER__PUBLISH_TIMEOUT="2s"))
        await process.ready(port_of)
        supplier = Supplier(rig, f"http://127.0.0.1:{port_of(process)}/")
        load = [asyncio.ensure_future(supplier.ticket(f"T-{lane}")) for lane in range(8)]
        await eventually(lambda: supplier.count > 200)

        await asyncio.to_thread(cluster.stop)
        supplier.statuses.clear()
        await asyncio.sleep(OUTAGE)  # the outage is the point
        await eventually(lambda: supplier.statuses["200" if spooled else "503"], what="answers without Kafka")
        during = +supplier.statuses
        cluster.restart(wait=False)  # from this thread: a node dies with the one that started it

        before = supplier.count
        await eventually(lambda: supplier.count > before + 200)
        supplier.stopping = True
        await asyncio.gather(*load)
        if spooled:
            assert set(during) == {"200"}
            await eventually(partial(_drained, process))
        else:
            assert set(during) <= {"200", "503"}
        assert await process.stop() == 0
        await supplier.check()


async def test_kill_9_under_load_loses_nothing_that_got_200(kafka: str, processes: Processes) -> None:
    async with open_rig(kafka) as rig:
        supplier = Supplier(rig, "http://127.0.0.1:1/")
        load = [asyncio.ensure_future(supplier.ticket(f"T-{lane}")) for lane in range(16)]
        for _ in range(ROUNDS):
            process = processes.adapter("server", env=rig.environment(**PLAIN))
            await process.ready(port_of)
            supplier.url = f"http://127.0.0.1:{port_of(process)}/"
            await eventually(partial(_beyond, supplier, supplier.count + 150))
            process.kill()
        supplier.stopping = True
        await asyncio.gather(*load)
        assert supplier.count >= 150 * ROUNDS
        await supplier.check()


async def test_kill_9_in_an_outage_loses_nothing_that_is_spooled(
    breakable_kafka: Cluster, processes: Processes, tmp_path: Path
) -> None:
    cluster = breakable_kafka
    async with open_rig(cluster.bootstrap) as rig:
        supplier = Supplier(rig)
        environment = rig.environment(
            **PLAIN, SERVER__PUBLISH_TIMEOUT="1s", SERVER__SPOOL__PATH=str(tmp_path / "spool.db")
        )
        load: list[asyncio.Task[None]] = []
        for _ in range(ROUNDS):
            process = processes.adapter("server", env=environment)
            await process.ready(port_of)  # it looks for its topics first
            supplier.url = f"http://127.0.0.1:{port_of(process)}/"
            load = load or [asyncio.ensure_future(supplier.ticket(f"T-{lane}")) for lane in range(8)]
            await eventually(partial(_beyond, supplier, supplier.count + 20))
            cluster.freeze()
            await eventually(partial(_beyond, supplier, supplier.count + 100))
            process.kill()
            cluster.thaw()
        process = processes.adapter("server", env=environment)
        await process.ready(port_of)
        supplier.stopping = True
        await asyncio.gather(*load)
        await eventually(partial(_drained, process))
        await process.stop()
        await supplier.check()


@pytest.mark.parametrize("back", [True, False], ids=["Kafka comes back", "Kafka stays away"])
async def test_told_to_stop_it_publishes_what_the_spool_holds_while_it_can(
    breakable_kafka: Cluster,
    processes: Processes,
    tmp_path: Path,
    back: bool,  # noqa: FBT001 -- pytest gives it
) -> None:
    cluster = breakable_kafka
    path = tmp_path / "spool.db"
    async with open_rig(cluster.bootstrap) as rig:
        more = {"SERVER__PUBLISH_TIMEOUT": "1s", "SERVER__STOP_TIMEOUT": "2m" if back else "2s"}
        process = processes.adapter("server", env=rig.environment(**PLAIN, **more, SERVER__SPOOL__PATH=str(path)))
        await process.ready(port_of)
        supplier = Supplier(rig, f"http://127.0.0.1:{port_of(process)}/")
        cluster.freeze()
        load = [asyncio.ensure_future(supplier.ticket(f"T-{lane}")) for lane in range(8)]
        await eventually(lambda: supplier.count > 200)
        supplier.stopping = True
        await asyncio.gather(*load)
        process.send(signal.SIGTERM)
        if back:
            await process.ready(lambda server: '"publishing what the spool holds"' in server.output)
            cluster.thaw()
        assert await process.ended(within=PATIENCE if back else 40) == 0
        cluster.thaw()
        left = _held(path)
        if back:
            assert left == 0
        else:
            assert left >= supplier.count
            assert f'"event":"spool not empty","flow":"server","depth":{left}' in process.output
            successor = processes.adapter("server", env=rig.environment(**PLAIN, SERVER__SPOOL__PATH=str(path)))
            await successor.ready(port_of)
            assert await successor.stop() == 0
            assert _held(path) == 0
        await supplier.check()


async def test_a_full_disk_is_503_and_mends_itself(
    breakable_kafka: Cluster, processes: Processes, tmp_path: Path
) -> None:
    cluster = breakable_kafka
    path = tmp_path / "spool.db"
    async with open_rig(cluster.bootstrap) as rig:
        environment = rig.environment(**PLAIN, SERVER__PUBLISH_TIMEOUT="1s", SERVER__SPOOL__PATH=str(path))
        process = processes.adapter("server", env=environment)
        await process.ready(port_of)
        supplier = Supplier(rig, f"http://127.0.0.1:{port_of(process)}/")
        # Beyond this size the kernel refuses every write of this process, as a full disk does.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (300_000, 300_000))
        cluster.freeze()
        load = [asyncio.ensure_future(supplier.ticket(f"T-{lane}")) for lane in range(8)]
        await eventually(lambda: supplier.count and supplier.statuses["503"] > 20)
        full = supplier.count
        cluster.thaw()
        await eventually(lambda: supplier.count > full + 100)
        supplier.stopping = True
        await asyncio.gather(*load)
        await eventually(partial(_drained, process))
        assert await process.stop() == 0
        await supplier.check()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


async def test_a_write_that_succeeds_after_its_503_is_the_same_event(breakable_kafka: Cluster) -> None:
    cluster = breakable_kafka
    async with open_rig(cluster.bootstrap) as rig, serving(rig, SERVER__PUBLISH_TIMEOUT="1s") as server:
        await _taken(server, notification("T-0"))  # a new producer first asks the broker for its id, which takes time
        cluster.freeze()
        status, _ = await server.post(notification("T-1", message="M-000001"))
        assert status == 503
        cluster.thaw()
        await _taken(server, notification("T-1", message="M-000001"))
        found = [event for event in await asyncio.to_thread(server.events) if event.key == b"T-1"]
        assert found
        assert len({event.id for event in found}) == 1


@pytest.mark.parametrize("away", ["Kafka", "the registry"])
async def test_started_while_kafka_or_the_registry_is_away_it_spools(
    breakable_kafka: Cluster, processes: Processes, tmp_path: Path, away: str
) -> None:
    cluster = breakable_kafka
    async with open_rig(cluster.bootstrap) as rig, door(rig.registry.url) as registry:
        more = {"SERVER__PUBLISH_TIMEOUT": "1s", "SERVER__SPOOL__PATH": str(tmp_path / "spool.db")}
        environment = rig.environment(**PLAIN, **more, REGISTRY__URL=registry.url)
        if away == "Kafka":
            await asyncio.to_thread(cluster.stop)
        else:
            await registry.shut()
        process = processes.adapter("server", env=environment)
        await process.ready(port_of)
        supplier = Supplier(rig, f"http://127.0.0.1:{port_of(process)}/")
        load = [asyncio.ensure_future(supplier.ticket(f"T-{lane}")) for lane in range(4)]
        await eventually(lambda: supplier.count > 40)
        assert set(supplier.statuses) == {"200"}
        async with aiohttp.ClientSession() as client, client.post(supplier.url, data=b"<nothing/>") as reply:
            assert reply.status == 400
        assert "fault_adapter_kafka_down 1.0" in await _metrics(process)

        if away == "Kafka":
            cluster.restart(wait=False)
        else:
            await registry.open()
        before = supplier.count
        await eventually(lambda: supplier.count > before + 40)
        supplier.stopping = True
        await asyncio.gather(*load)
        await eventually(partial(_drained, process))
        assert await process.stop() == 0
        await supplier.check()
        kept = await asyncio.to_thread(records, rig.bootstrap, rig.topics.quarantine)
        assert {record.value for record in kept} == {b"<nothing/>"}  # again, if it was told too late


async def test_started_while_kafka_is_away_it_ends_when_kafka_turns_out_to_lack_a_topic(
    breakable_kafka: Cluster, processes: Processes, tmp_path: Path
) -> None:
    cluster = breakable_kafka
    path = tmp_path / "spool.db"
    async with open_rig(cluster.bootstrap) as rig:
        more = {"SERVER__PUBLISH_TIMEOUT": "1s", "SERVER__SPOOL__PATH": str(path), "TOPICS__QUARANTINE": "nowhere"}
        await asyncio.to_thread(cluster.stop)
        process = processes.adapter("server", env=rig.environment(**PLAIN, **more))
        await process.ready(port_of)
        supplier = Supplier(rig, f"http://127.0.0.1:{port_of(process)}/")
        load = asyncio.ensure_future(supplier.ticket("T-0"))
        await eventually(lambda: supplier.count > 10)
        supplier.stopping = True
        await load
        cluster.restart(wait=False)
        assert await process.ended() == 2
        assert "nowhere: the topic is missing" in process.output
        assert _held(path) == supplier.count


def _beyond(supplier: Supplier, count: int) -> bool:
    return supplier.count >= count


async def _taken(server: Serving, body: bytes) -> None:
    """Sent again until it gets 200, as the supplier does it."""
    async with asyncio.timeout(PATIENCE):
        while (await server.post(body))[0] != 200:  # noqa: ASYNC110 -- the other side is asked, nothing here is told
            await asyncio.sleep(PAUSE)


def _held(path: Path) -> int:
    """Notifications in the file of a spool that nobody has open."""
    with closing(sqlite3.connect(path)) as database:
        (count,) = database.execute("SELECT count(*) FROM notification").fetchone()
    return int(count)


async def _drained(process: Process) -> bool:
    """Whether the spool is empty, as the metrics say."""
    return "fault_adapter_spool_depth 0.0" in await _metrics(process)


async def _metrics(process: Process) -> str:
    started = next(line for line in process.output.splitlines() if '"server starts"' in line)
    url = json.loads(started)["telemetry"]
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as reply:
        return await reply.text()
