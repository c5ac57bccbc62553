"""What a server says and refuses when it starts."""

import asyncio
import json
import resource
import sys

import aiohttp
import pytest

from adapter.core.errors import Stop
from adapter.settings.reference import bounds
from adapter.settings.tree import Server
from tests.server.conftest import PLAIN, SAMPLE, Serve, port_of
from tests.support.certificates import Trials
from tests.support.processes import Processes
from tests.support.rig import open_rig


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_without_tls_it_starts_only_when_told_so_and_says_it(serve: Serve) -> None:
    async with serve() as server:
        said = {str(line["event"]) for line in lines(server.lines.getvalue()) if line["level"] == "warning"}
        assert {"listening without TLS", "no list of callers"} <= said
    with pytest.raises(Stop) as stop:
        async with serve(SERVER__ALLOW_PLAINTEXT="false"):
            pass
    assert [problem.partition(":")[0] for problem in stop.value.problems] == [
        "ADAPTER_SERVER__TLS__CERTIFICATE",
        "ADAPTER_SERVER__TLS__KEY",
        "ADAPTER_SERVER__TLS__CA",
    ]


async def test_plaintext_and_a_certificate_contradict_each_other(serve: Serve, trials: Trials) -> None:
    with pytest.raises(Stop, match="ADAPTER_SERVER__ALLOW_PLAINTEXT"):
        async with serve(
            SERVER__TLS__CERTIFICATE=str(trials.good.server_certificate),
            SERVER__TLS__KEY=str(trials.good.server_key),
            SERVER__TLS__CA=str(trials.good.ca),
        ):
            pass


async def test_a_listed_subject_that_nobody_has_is_told(serve: Serve) -> None:
    with pytest.raises(Stop, match="ADAPTER_SERVER__ALLOWED_SUBJECTS: /C=GB/O=Supplier is no distinguished name"):
        async with serve(SERVER__ALLOWED_SUBJECTS="/C=GB/O=Supplier", SERVER__TRUSTED_PROXIES="192.0.2.0/24"):
            pass


async def test_it_starts_with_the_shortest_publish_timeout_that_it_takes(serve: Serve) -> None:
    shortest = str(bounds(Server.model_fields["publish_timeout"])).partition(" and ")[0]
    async with serve(SERVER__PUBLISH_TIMEOUT=shortest):
        pass


async def test_a_port_that_is_taken_is_told_with_what_to_do(serve: Serve) -> None:
    async with serve() as server:
        with pytest.raises(Stop, match=rf"ADAPTER_SERVER__PORT: can't listen on 127.0.0.1:{server.port}"):
            async with serve(SERVER__PORT=str(server.port)):
                pass


async def test_an_address_that_this_machine_lacks_is_told_by_its_setting(serve: Serve) -> None:
    with pytest.raises(Stop, match=r"ADAPTER_SERVER__HOST, ADAPTER_SERVER__PORT: can't listen on 192\.0\.2\.1:"):
        async with serve(SERVER__HOST="192.0.2.1"):
            pass


async def test_a_topic_that_is_missing_is_told_with_what_to_do(serve: Serve) -> None:
    with pytest.raises(Stop, match="nowhere: the topic is missing, or we may not see it; adapter topics create"):
        async with serve(TOPICS__QUARANTINE="nowhere"):
            pass


async def test_it_may_open_as_many_files_as_there_may_be_and_keeps_some_for_others_than_callers(
    kafka: str, processes: Processes
) -> None:
    async with open_rig(kafka) as rig:
        limited = 'ulimit -Sn 300 && ulimit -Hn 400 && exec "$@"'
        process = processes.start(
            "sh", "-c", limited, "sh", sys.executable, "-m", "adapter", "server", env=rig.environment(**PLAIN)
        )
        await process.ready(port_of)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (400, 400)
        assert '"event":"fewer connections than set","flow":"server","limit":2000,"allowed":200' in process.output
        idle = [await asyncio.open_connection("127.0.0.1", port_of(process)) for _ in range(500)]
        started = next(line for line in lines(process.output) if line["event"] == "server starts")
        async with aiohttp.ClientSession() as client:
            async with client.post(f"http://127.0.0.1:{port_of(process)}/", data=SAMPLE) as reply:
                assert reply.status == 200
            async with client.get(f"{started['telemetry']}/metrics") as reply:
                assert "fault_adapter_connections 200.0" in await reply.text()
        for _, writer in idle:
            writer.close()


async def test_it_listens_on_ipv6_too(serve: Serve) -> None:
    async with serve(SERVER__HOST="::1", SERVER__ALLOWED_NETWORKS="::1/128") as server:
        url = f"http://[::1]:{server.port}/"
        async with aiohttp.ClientSession() as client, client.post(url, data=SAMPLE) as reply:
            assert reply.status == 200
