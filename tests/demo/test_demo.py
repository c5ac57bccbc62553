"""`adapter demo` as a person starts it."""

import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from adapter.catalogue import load
from adapter.suppliers import served
from bench.measurement import yardstick
from tests.support.broker import Cluster
from tests.support.processes import Process, Processes, clean_environment
from tests.support.wait import PATIENCE

GOOD = (
    "24 records sent, 33 notifications: 58 events, 9 tickets, 1 dead letter, 1 in quarantine: "
    "all as expected, nothing lost, nothing twice."
)

SABOTAGED = """
import asyncio
from adapter.demo import run

def scene(*expected):
    async def send(ticket):
        fields = {
            "buyerFaultReference": ticket.reference, "serviceAffected": "S1",
            "faultDetails": {"type": "SERVICE_OUTAGE"}, "reporterContactDetails": {}, "endUserContactDetails": {},
        }
        await ticket.send("AddFaultReport", fields, expect=expected, requests=0)
    return send

right, wrong, extra = scene("CommandRejected by adapter: invalid"), scene("FaultReportAdded: Pending"), scene()
raise SystemExit(asyncio.run(run(story={"SP-1": right, "SP-2": wrong, "SP-3": extra})))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the demo may put files; empty again at its end."""
    made = tmp_path / "temporary"
    made.mkdir()
    return made


Starter = Callable[..., Process]


@pytest.fixture
def demo(processes: Processes, folder: Path) -> Starter:
    return lambda *arguments: processes.adapter("demo", *arguments, env={"TMPDIR": str(folder)})


async def test_on_the_mock_cluster_every_outcome_is_the_expected_one(demo: Starter, folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = demo()
    assert await process.ended() == 0, process.tail()
    output = process.output
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    # It waits for about seven seconds, for groups to form and time limits to pass; all else is work: seconds on a
    # machine on which the yardstick takes two milliseconds.
    usual = yardstick(3) / 0.002
    assert (spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime) / usual < 8
    assert GOOD in output
    assert "MOCK cluster" in output
    for command in load(served()).commands:
        assert f"-> {command}" in output
    for outcome in (
        "CommandRejected by adapter: invalid",
        "CommandRejected by supplier: 409",
        "FaultReportAdded: Pending, 3 tries",
        "dead letter: unframed",
        "CommandSettled: undetermined",
        "CommandSettled: accepted",
        "FaultReportUpdated: appointment completed",
        "FaultReportUpdated: re-opened",
        "FaultReportUpdated: closed",
        "ResolveDeadlineApproaching",
        "quarantined: unknown-root",
    ):
        assert f"<- {outcome}" in output
    assert "\033" not in output
    assert "|rdkafka#" not in output, "no client's log lines among the story's"
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", output)) == {"127.0.0.1"}
    assert left_in(folder) == []


@pytest.mark.parametrize("given_registry", [False, True], ids=["built-in registry", "Apicurio"])
async def test_on_a_real_cluster_too_and_its_topics_are_gone_afterwards(
    demo: Starter, kafka: str, request: pytest.FixtureRequest, *, given_registry: bool
) -> None:
    more = ("--registry", request.getfixturevalue("apicurio")) if given_registry else ()
    process = demo("--kafka", kafka, *more)
    assert await process.ended() == 0, process.tail()
    assert GOOD in process.output
    assert "MOCK" not in process.output
    assert "|rdkafka#" not in process.output
    found = re.search(r"topics (demo-\w+\.)fault\.\*", process.output)
    assert found is not None
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=PATIENCE).topics
    assert [name for name in topics if name.startswith(found[1])] == []


async def test_an_outcome_that_is_not_the_expected_one_fails_it(processes: Processes, folder: Path) -> None:
    process = processes.start(sys.executable, "-c", SABOTAGED, env={"TMPDIR": str(folder)})
    assert await process.ended() == 1, process.tail()
    output = process.output
    rejected = "CommandRejected by adapter: invalid"
    assert "all as expected" not in output
    assert f"SP-2: AddFaultReport: expected FaultReportAdded: Pending, seen {rejected}" in output
    assert f"SP-3: AddFaultReport: expected nothing, seen {rejected}" in output
    assert "not as expected (2):" in output
    (left,) = left_in(folder)
    assert f"the adapter's log is {left / 'adapter.log'}" in output
    assert "worker starts" in (left / "adapter.log").read_text()


async def test_an_interrupt_stops_it_cleanly(demo: Starter, folder: Path) -> None:
    process = demo()
    await process.ready(lambda process: "-> AddFaultReport" in process.output)
    process.send(signal.SIGINT)
    assert await process.ended() == 130
    assert "interrupted: stopping" in process.output
    assert "Traceback" not in process.output
    assert left_in(folder) == []


def test_a_reader_that_goes_away_stops_it_and_leaves_nothing(folder: Path) -> None:
    command = [sys.executable, "-m", "adapter", "demo"]
    env = clean_environment() | {"TMPDIR": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"fault-adapter demo\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 1
        assert process.stderr.read() == b""
    assert left_in(folder) == []


async def test_kept_on_a_real_cluster_its_topics_stay_and_it_says_so(demo: Starter, kafka: str) -> None:
    process = demo("--kafka", kafka, "--keep")
    await process.ready(lambda process: "/twin/faults -d" in process.output)
    found = re.search(r"--delete --topic '(demo-\w+\.)fault\.\*'", process.output)
    assert found is not None
    assert "aiokafka" not in process.output
    assert await process.stop() == 0
    admin = AdminClient({"bootstrap.servers": kafka})
    topics = [name for name in admin.list_topics(timeout=PATIENCE).topics if name.startswith(found[1])]
    assert len(topics) == 6
    for done in admin.delete_topics(topics).values():
        done.result(PATIENCE)


async def test_kept_it_stops_in_time_though_its_cluster_has_gone(
    demo: Starter, kafka_cluster: Callable[[], Cluster]
) -> None:
    cluster = kafka_cluster()
    process = demo("--kafka", cluster.bootstrap, "--keep")
    await process.ready(lambda process: "/twin/faults -d" in process.output)
    cluster.kill()
    process.send(signal.SIGTERM)
    assert await process.ended() in {0, 128 + signal.SIGTERM}  # 0 if no client had something to wait for


async def test_kept_it_stays_until_it_is_told_to_stop(demo: Starter, processes: Processes, folder: Path) -> None:
    process = demo("--keep")
    await process.ready(lambda process: "/twin/faults -d" in process.output)
    assert GOOD in process.output
    assert "for Java, Go, aiokafka KAFKA=host:port" in process.output
    kcat = re.search(r"kcat -b (\S+) -t (\S+) -s value=avro -r (\S+)", process.output)
    assert kcat is not None
    kafka, topic, registry = kcat.groups()
    assert topic in AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=PATIENCE).topics
    metrics = re.search(r"http://\S+/metrics", process.output)
    assert metrics is not None
    fault = re.search(r"doubt +curl -s (\S+) -d '(.*)'", process.output)
    assert fault is not None
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        subjects = await client.get(f"{registry}/subjects")
        figures = await client.get(metrics[0])
        (await client.post(fault[1], content=fault[2])).raise_for_status()
    assert f"{topic}-fault.event.FaultReportAdded" in subjects.json()
    assert "adapter_commands_received_total" in figures.text
    settings = re.search(r"settings +export (.*)", process.output)
    assert settings is not None
    env = dict(setting.split("=", 1) for setting in settings[1].split())
    watched = processes.adapter("watch", "--since", "beginning", "--until-now", "--reference", "SP-1001", env=env)
    assert await watched.ended() == 0, watched.tail()
    assert '"kind": "CLOSED"' in watched.output
    timeline = processes.adapter("tickets", "SP-1002", "--text", env=env)
    assert await timeline.ended() == 0, timeline.tail()
    assert "FaultReportUpdated: appointment completed" in timeline.output
    assert process.exit_code is None
    assert await process.stop() == 0
    assert left_in(folder) == []


async def test_a_cluster_that_is_not_there_is_said_in_one_line(demo: Starter, folder: Path) -> None:
    process = demo("--kafka", "127.0.0.1:1")
    assert await process.ended() == 1
    assert "adapter: the cluster does not answer" in process.output
    assert "Traceback" not in process.output
    assert left_in(folder) == []


async def test_what_is_no_list_of_brokers_is_told_as_such(demo: Starter, folder: Path) -> None:
    process = demo("--kafka", "http://127.0.0.1:9092")
    assert await process.ended() == 2
    assert "ADAPTER_KAFKA__BOOTSTRAP_SERVERS: is not a list of brokers" in process.output
    assert left_in(folder) == []


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())
