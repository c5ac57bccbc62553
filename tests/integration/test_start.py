"""What a worker looks at when it starts, and what stops it while it runs."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from adapter.core.errors import Stop
from adapter.twin import Fault, Kind
from tests.support import estate as say
from tests.support.estate import unique
from tests.support.groups import reset_to_current, reset_to_earliest, reset_to_offset
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.rig import Rig, open_rig
from tests.support.topics import widen
from tests.support.wait import PATIENCE, eventually

WRONG = 2
"""Exit code: something has to be set right first."""


@pytest_asyncio.fixture
async def rig(kafka: str) -> AsyncIterator[Rig]:
    async with open_rig(kafka, partitions=2) as opened:
        yield opened


def admin(rig: Rig) -> AdminClient:
    return AdminClient({"bootstrap.servers": rig.bootstrap})


def empty(rig: Rig, topic: str) -> None:
    """As retention does it in time."""
    client, at = admin(rig), TopicPartition(topic, 0, OFFSET_END)
    client.delete_records([at])[at].result(PATIENCE)


async def complaints(rig: Rig, **settings: str) -> list[str]:
    """Why a worker does not start."""
    with pytest.raises(Stop) as stop:
        async with rig.worker(**settings):
            pass
    return list(stop.value.problems)


async def test_every_topic_that_is_missing_is_told(rig: Rig) -> None:
    told = await complaints(rig, TOPICS__DEAD_LETTERS="no-letters", TOPICS__JOURNAL="no-journal")
    cure = "adapter topics create makes it, or says which right is missing"
    assert sorted(told) == [
        f"no-journal: the topic is missing, or we may not see it; {cure}",
        f"no-letters: the topic is missing, or we may not see it; {cure}",
    ]


async def test_topics_of_one_key_that_differ_in_their_partitions_are_refused(rig: Rig) -> None:
    widen(rig.bootstrap, rig.topics.journal, 3)
    (told,) = await complaints(rig)
    assert f"{rig.topics.commands} has 2" in told
    assert f"{rig.topics.journal} has 3" in told


async def test_every_schema_that_is_not_registered_is_told(kafka: str) -> None:
    async with open_rig(kafka, partitions=1, registered=False) as rig:
        told = await complaints(rig)
    assert len(told) > 5
    assert all("adapter schemas register" in line for line in told)
    assert all('"The registry is lost, or was restored to an earlier state"' in line for line in told)
    assert any(line.startswith(f"{rig.topics.journal}-fault.journal.JournalEntries: ") for line in told)


async def test_more_partitions_while_running_stop_the_worker(rig: Rig, processes: Processes) -> None:
    worker = processes.adapter("worker", env=rig.environment())
    await worker.ready(lambda process: "partition started" in process.output)
    assert f'"supplier":"{rig.twin.url}"' in worker.output  # whom it calls is the first thing to look at after a 404
    command, under_way = say.add(unique()), say.add(unique())
    rig.estate.send(command)
    await rig.estate.final(command)
    rig.twin.inject(Fault(Kind.DELAY, seconds=10.0))  # longer than it takes the worker to look at the topics
    rig.estate.send(under_way)
    await eventually(lambda: len(rig.twin.log) == 2, what="the call")
    widen(rig.bootstrap, rig.topics.commands, 3)
    assert await worker.ended() == WRONG
    assert (await rig.estate.final(under_way)).type == "FaultReportAdded"  # it waited for the answer
    assert len(rig.estate.of(under_way)) == 1
    (told,) = [line for line in worker.output.splitlines() if line.startswith("adapter: ")]
    assert f"{rig.topics.commands} had 2 partitions and has 3" in told


async def test_commands_that_are_gone_before_they_were_read_stop_the_worker_with_what_to_do(kafka: str) -> None:
    async with open_rig(kafka, partitions=1) as rig:
        async with rig.worker():
            command = say.add(unique())
            rig.estate.send(command)
            await rig.estate.final(command)
            await rig.estate.caught_up(rig.group)
        unread = [rig.estate.send(say.add(unique())) for _ in range(3)]
        at = TopicPartition(rig.topics.commands, 0, unread[-1].offset)
        client = admin(rig)
        client.delete_records([at])[at].result(PATIENCE)
        with pytest.raises(Stop, match=rf"--topic {rig.topics.commands}:0 --to-earliest --execute"):
            async with rig.worker() as worker:
                await worker.running
        assert rig.estate.progress(rig.group)[0] == {0: 1}  # nothing was passed over


async def test_a_topic_that_has_lost_its_end_stops_the_worker_with_what_to_do(kafka: str) -> None:
    async with open_rig(kafka, partitions=1) as rig:
        first, later = say.add(unique()), say.add(unique())
        rig.estate.send(first)
        async with rig.worker():
            await rig.estate.final(first)
        # As after an unclean leader election: the group has read what is no longer there.
        await reset_to_offset(rig.bootstrap, rig.group, rig.topics.commands, 0, 100)
        with pytest.raises(Stop, match=r'has lost its end .* "An offset that is out of range"'):
            async with rig.worker() as worker:
                await worker.running
        await reset_to_earliest(rig.bootstrap, rig.group, rig.topics.commands, rig.topics.partitions)
        rig.estate.send(later)
        async with rig.worker():
            await rig.estate.final(later)
        assert len(rig.twin.heard) == 2, "what had ended is not called again"


async def test_a_journal_that_has_lost_what_a_command_under_way_rests_on_stops_the_worker_until_somebody_has_looked(
    kafka: str,
) -> None:
    async with open_rig(kafka, partitions=1) as rig:
        doubtful, ended = say.add(unique()), say.add(unique())
        rig.twin.inject(Fault(Kind.CLOSE, key=doubtful.key, taken=True))
        async with rig.worker():
            rig.estate.send(doubtful)
            await rig.estate.doubt(doubtful)
            rig.estate.send(ended)
            await rig.estate.final(ended)
            await rig.estate.caught_up(rig.group)
        empty(rig, rig.topics.journal)
        with pytest.raises(Stop, match=rf"--topic {rig.topics.commands}:0 --to-current --execute"):
            async with rig.worker() as worker:
                await worker.running
        await reset_to_current(rig.bootstrap, rig.group, rig.topics.commands, rig.topics.partitions)
        later = say.add(unique())
        rig.estate.send(later)
        async with rig.worker():
            await rig.estate.final(later)
        assert len(rig.twin.heard) == 3


async def test_a_journal_of_which_nothing_is_needed_may_be_empty(kafka: str) -> None:
    async with open_rig(kafka, partitions=1) as rig:
        first, second = say.add(unique()), say.add(unique())
        async with rig.worker():
            rig.estate.send(first)
            await rig.estate.final(first)
            await rig.estate.caught_up(rig.group)
        empty(rig, rig.topics.journal)
        rig.estate.send(second)
        async with rig.worker():
            await rig.estate.final(second)
        assert len(rig.twin.heard) == 2


async def test_a_partition_starts_beside_a_transaction_that_nobody_ends(rig: Rig) -> None:
    """Apache Kafka 4.3.1 was seen to call an offset undecided for good, after its coordinator was killed."""
    first, second = say.add(unique()), say.add(unique())
    rig.estate.send(first)
    async with rig.worker():
        await rig.estate.final(first)
    keep_back(rig)
    rig.estate.send(second)
    async with rig.worker(KAFKA__TRANSACTION_TIMEOUT="1s") as worker:
        await rig.estate.final(second)
        assert worker.lines.getvalue().count("committed offset kept back") >= rig.topics.partitions
    assert len(rig.estate.finals(first)) == len(rig.estate.finals(second)) == 1


def keep_back(rig: Rig) -> None:
    """The offsets of all partitions, by a transaction that is never ended: they are those of the beginning."""
    group = Consumer({"bootstrap.servers": rig.bootstrap, "group.id": rig.group, "log_level": 0})
    never_ended = Producer(
        {
            "bootstrap.servers": rig.bootstrap,
            "transactional.id": f"{rig.group}-never-ended",
            "transaction.timeout.ms": 900_000,
            "message.timeout.ms": 900_000,
            "retry.backoff.ms": 5,
            "log_level": 0,
        }
    )
    never_ended.init_transactions(PATIENCE)
    never_ended.begin_transaction()
    offsets = [TopicPartition(rig.topics.commands, number, 0) for number in range(rig.topics.partitions)]
    never_ended.send_offsets_to_transaction(offsets, group.consumer_group_metadata(), PATIENCE)
    group.close()


@pytest.mark.parametrize("role", ["worker", "projector"])
async def test_all_lines_are_json_while_some_brokers_do_not_answer(rig: Rig, processes: Processes, role: str) -> None:
    # Each client begins with any of them: so many that one begins with one of these.
    away = ",".join(f"127.0.0.1:{free_port()}" for _ in range(15))
    settings = rig.environment(KAFKA__BOOTSTRAP_SERVERS=f"{away},{rig.bootstrap}", PROJECTOR__GROUP_ID=unique())
    process = processes.adapter(role, env=settings)
    await process.ready(lambda process: process.output.count('"partition started"') == 2)
    assert "Connection refused" in process.output
    assert await process.stop() == 0
    assert [line for line in process.output.splitlines() if not line.startswith("{")] == []
