"""What the roles tell of Kafka while they have little to do: that it is away, and what was changed there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.server.conftest import PLAIN, notification
from tests.support import topics as topic_sets
from tests.support.broker import Cluster
from tests.support.measured import read
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import eventually

FLOWS = ("worker", "server", "projector")


class Running:
    """All flows, in one process."""

    def __init__(self, process: Process, url: str, client: aiohttp.ClientSession) -> None:
        self.process = process
        self._url = url
        self._client = client

    async def shows(self, metric: str, *values: float) -> None:
        """Returns once that metric has these values, in the order of FLOWS."""

        async def shown() -> bool:
            async with self._client.get(f"{self._url}/metrics") as answer:
                text = await answer.text()
            return tuple(read(text, metric, flow=flow) for flow in FLOWS) == values

        await eventually(shown, what=f"{metric} {values}")


@asynccontextmanager
async def running(rig: Rig, processes: Processes) -> AsyncIterator[Running]:
    process = processes.adapter("run", env=rig.environment(**PLAIN))
    await process.ready(lambda p: all(f'"event":"{flow} starts"' in p.output for flow in FLOWS))
    async with aiohttp.ClientSession() as client:
        yield Running(process, process.said('"telemetry":"([^"]+)"'), client)


async def test_idle_flows_show_that_kafka_is_away_and_that_it_is_back(
    breakable_kafka: Cluster, processes: Processes
) -> None:
    async with open_rig(breakable_kafka.bootstrap) as rig, running(rig, processes) as flows:
        await flows.shows("kafka_unreachable", 0, 0, 0)
        breakable_kafka.stop()
        await flows.shows("kafka_unreachable", 1, 1, 1)
        assert "Connection refused" in flows.process.said('"event":"Kafka does not answer".*"reason":"([^"]+)"')
        breakable_kafka.restart()
        await flows.shows("kafka_unreachable", 0, 0, 0)
        assert flows.process.output.count('"event":"Kafka answers again"') == len(FLOWS)


async def test_only_who_can_do_nothing_without_kafka_is_unready_while_it_is_away(
    breakable_kafka: Cluster, processes: Processes, tmp_path: Path
) -> None:
    spooling = {"SERVER__SPOOL__PATH": str(tmp_path / "spool.db")}
    async with open_rig(breakable_kafka.bootstrap) as rig, aiohttp.ClientSession() as client:
        worker = processes.adapter("worker", env=rig.environment())
        projector = processes.adapter("projector", env=rig.environment())
        refusing = processes.adapter("server", env=rig.environment(**PLAIN, SERVER__PUBLISH_TIMEOUT="1s"))
        keeping = processes.adapter("server", env=rig.environment(**PLAIN, **spooling))
        roles = (worker, projector, refusing, keeping)
        for role in roles:
            await role.ready(lambda p: '"telemetry":"' in p.output)

        async def unready(role: Process) -> str:
            url = role.said('"telemetry":"([^"]+)"')
            async with client.get(f"{url}/health/ready") as answer:
                told = await answer.json()
            assert (answer.status == 200) is told["ready"]
            return " ".join(told["reasons"])

        async def all_ready() -> bool:
            return not any([await unready(role) for role in roles])

        await eventually(all_ready)
        breakable_kafka.stop()
        for role in (worker, projector):

            async def cut_off(role: Process = role) -> bool:
                return "can't reach Kafka: " in await unready(role)

            await eventually(cut_off)
        assert await unready(refusing) == "", "it may still be able to write"

        async def refuses() -> bool:
            port = refusing.said('"port":([0-9]+)')
            async with client.post(f"http://127.0.0.1:{port}", data=notification("T-1")) as answer:
                assert answer.status == 503
            return "can't reach Kafka: " in await unready(refusing)

        await eventually(refuses)
        assert await unready(keeping) == ""
        breakable_kafka.restart()
        await eventually(all_ready)


async def test_a_topic_that_is_compacted_while_the_flows_run_is_told_by_all_that_use_it_until_it_is_mended(
    kafka: str, processes: Processes
) -> None:
    async with open_rig(kafka) as rig, running(rig, processes) as flows:
        await flows.shows("topics_misconfigured", 0, 0, 0)
        topic_sets.configure(kafka, rig.topics.journal, "cleanup.policy", "compact")
        topic_sets.configure(kafka, rig.topics.events, "cleanup.policy", "compact,delete")
        await flows.shows("topics_misconfigured", 2, 1, 1)
        line = rf'"event":"topic misconfigured","flow":"worker","topic":"{rig.topics.journal}","problem":"([^"]+)"'
        assert flows.process.said(line) == "cleanup.policy is compact, wanted is delete"
        topic_sets.configure(kafka, rig.topics.journal, "cleanup.policy", "delete")
        topic_sets.configure(kafka, rig.topics.events, "cleanup.policy", "delete")
        await flows.shows("topics_misconfigured", 0, 0, 0)


async def test_a_topic_that_is_deleted_while_the_flows_have_no_use_for_it_is_told(
    kafka: str, processes: Processes
) -> None:
    async with open_rig(kafka) as rig, running(rig, processes) as flows:
        await flows.shows("topics_misconfigured", 0, 0, 0)
        topic_sets.remove(kafka, rig.topics.quarantine)
        await flows.shows("topics_misconfigured", 1, 1, 0)
        line = rf'"event":"topic misconfigured","flow":"server","topic":"{rig.topics.quarantine}",(.*)}}'
        assert flows.process.said(line) == '"problem":"is missing","fix":"adapter topics create"'
        topic_sets.make(kafka, rig.topics, [rig.topics.quarantine])
        await flows.shows("topics_misconfigured", 0, 0, 0)
