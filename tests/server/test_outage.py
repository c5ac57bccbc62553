"""200 is a promise: with the broker gone, with a spool and without, and when the process is killed."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.server.bus import records
from tests.server.conftest import PLAIN, Serving, notification, port_of, serving
from tests.support.broker import Cluster
from tests.support.processes import Processes
from tests.support.rig import open_rig
from tests.support.wait import PAUSE, eventually

Start = Callable[..., Cluster]


@pytest.mark.timeout(150)
async def test_without_a_spool_there_is_only_503_and_what_got_200_is_there(kafka_cluster: Start) -> None:
    cluster = kafka_cluster()
    async with open_rig(cluster.bootstrap) as rig, serving(rig, SERVER__PUBLISH_TIMEOUT="1s") as server:
        await _taken(server, notification("T-0"))  # a new producer first asks the broker for its id, which takes time
        cluster.freeze()
        answers = await asyncio.gather(*(server.post(notification(f"T-{n}")) for n in range(1, 10)))
        assert {status for status, _ in answers} == {503}
        cluster.thaw()

        await _taken(server, notification("T-10"))
        keys = {event.key for event in await asyncio.to_thread(server.events)}
        assert {b"T-0", b"T-10"} <= keys


@pytest.mark.timeout(150)
async def test_with_a_spool_all_get_200_and_come_in_order_afterwards(kafka_cluster: Start, tmp_path: Path) -> None:
    cluster = kafka_cluster()
    spool = str(tmp_path / "spool.db")
    more = {"SERVER__PUBLISH_TIMEOUT": "1s", "SERVER__SPOOL__PATH": spool}
    async with open_rig(cluster.bootstrap) as rig:
        async with serving(rig, **more) as server:
            cluster.freeze()
            for number in range(20):
                for ticket in ("A", "B"):
                    assert (await server.post(notification(ticket, message=f"M-{number:02}")))[0] == 200
        # The server stopped with a full spool; another goes on with it, once Kafka answers: it asks for topics first.
        cluster.thaw()
        async with serving(rig, **more) as server:
            spooled = server.running.flow.keeper._spool
            assert spooled is not None
            await eventually(lambda: spooled.depth == 0, within=60)
            for ticket in ("A", "B"):
                assert (await server.post(notification(ticket, message="M-99")))[0] == 200
            seen: dict[bytes | None, list[bytes]] = defaultdict(list)
            for event in await asyncio.to_thread(server.events):
                seen[event.key] += re.findall(rb"M-\d\d", event.value)[:1]
    for key in (b"A", b"B"):
        first = list(dict.fromkeys(seen[key]))  # at least once: a repeat has the same id
        assert first == [b"M-%02d" % n for n in range(20)] + [b"M-99"]


@pytest.mark.timeout(150)
async def test_kill_9_under_load_loses_nothing_that_got_200(kafka: str, processes: Processes) -> None:
    acknowledged: set[str] = set()
    async with open_rig(kafka) as rig:
        for life in range(4):
            process = processes.adapter("server", env=rig.environment(**PLAIN))
            await process.ready(port_of, within=30)
            url = f"http://127.0.0.1:{port_of(process)}/x"
            load = [asyncio.ensure_future(_load(url, f"{life}-{lane}", acknowledged)) for lane in range(16)]
            before = len(acknowledged)
            await eventually(partial(_beyond, acknowledged, before + 150), within=30)
            process.kill()
            await asyncio.gather(*load)
        ids: dict[bytes | None, set[str]] = defaultdict(set)
        for event in await asyncio.to_thread(records, kafka, rig.topics.events):
            ids[event.key].add(event.id)
    assert len(acknowledged) > 600
    assert acknowledged <= {(key or b"").decode() for key in ids}
    assert all(len(found) == 1 for found in ids.values())


async def _taken(server: Serving, body: bytes) -> None:
    """Sent again until it gets 200, as the supplier does it."""
    async with asyncio.timeout(40):
        while (await server.post(body))[0] != 200:  # noqa: ASYNC110 -- the other side is asked, nothing here is told
            await asyncio.sleep(PAUSE)


def _beyond(acknowledged: set[str], count: int) -> bool:
    return len(acknowledged) > count


async def _load(url: str, lane: str, acknowledged: set[str]) -> None:
    """Posts until the server is gone."""
    async with aiohttp.ClientSession() as client:
        for number in range(10**6):
            reference = f"K-{lane}-{number}"
            try:
                async with client.post(url, data=notification(reference)) as reply:
                    if reply.status == 200:
                        acknowledged.add(reference)
            except aiohttp.ClientError:
                return
