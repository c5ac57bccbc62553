"""`adapter doubt` and `adapter stuck`, over a real broker and a registry, with a journal as workers write it."""

import asyncio
import json
import os
import re
import struct
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

import pytest
from aiohttp import web
from confluent_kafka import Producer

from adapter import listen
from adapter.catalogue import Catalogue
from adapter.cli import main
from adapter.core.avro import Encoder, from_json
from adapter.core.journal import Entry, Kind, Source
from adapter.core.partition import partition_of
from tests.cli.conftest import Bus
from tests.support.estate import Command, add, amend, query, reserve
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.wait import PATIENCE

PARTITIONS: Final = 4
HOUR: Final = 3600.0


class Workers:
    """What workers leave behind."""

    def __init__(self, bus: Bus, compiled: Catalogue) -> None:
        self._bus = bus
        self._known = compiled
        self._producer = Producer({"bootstrap.servers": bus.kafka, "partitioner": "murmur2_random", "log_level": 0})

    def sent(self, command: Command, *, age: float = HOUR, producer: Producer | None = None) -> Source:
        """The command on its topic."""
        schema = self._known.commands[command.name]
        fields = {**command.record, "commandId": command.command_id, "issuedAt": "2026-03-02T09:00:00.000Z"}
        value = Encoder(schema, self._bus.ids[schema.name]).encode(from_json(schema, _json(fields)))
        return self.put(value, command.key.encode(), age=age, producer=producer)

    def put(self, value: bytes, key: bytes, *, age: float = HOUR, producer: Producer | None = None) -> Source:
        at, found = time.time() - age, []
        producer = producer or self._producer
        producer.produce(
            self._bus.topics.commands,
            value,
            key,
            timestamp=int(at * 1000),
            on_delivery=lambda error, message: found.append((error, message.partition(), message.offset())),
        )
        producer.flush(PATIENCE)
        ((error, partition, offset),) = found
        assert error is None
        assert partition is not None
        assert offset is not None
        return Source(partition, offset, round(at, 3), key, value, ())

    def wrote(self, kind: Kind, command: Command, source: Source, *, resident: bool = True, **fields: Any) -> Entry:
        """An entry of the journal."""
        entry = Entry(kind, command.command_id, source.offset, b"digest", time.time() - HOUR, attempt=1)
        entry = replace(entry, source=source if resident else None, **fields)
        schema = self._known.journal["JournalEntries"]
        value = Encoder(schema, self._bus.ids[schema.name]).encode({"entries": [entry.record()]})
        self._producer.produce(self._bus.topics.journal, value, command.command_id.encode(), source.partition)
        assert self._producer.flush(PATIENCE) == 0
        return entry

    def holds(self, command: Command, **how: Any) -> Source:
        """A command in doubt, called an hour ago and held for another one."""
        source = self.sent(command, **how)
        self.wrote(Kind.HELD, command, source, unclear_since=time.time() - HOUR, until=time.time() + HOUR)
        return source


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


@pytest.fixture
def workers(bus: Bus, compiled: Catalogue) -> Workers:
    return Workers(bus, compiled)


Runs = Callable[..., Any]


@pytest.fixture
def runs(capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs the command line: its exit code, lines on standard output, text on standard error."""

    async def run(*words: str) -> tuple[int, list[str], str]:
        capsys.readouterr()
        code = await asyncio.to_thread(main, words)
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err

    return run


# -- list --------------------------------------------------------------------------------------------------------------


async def test_what_is_in_doubt_is_listed_with_what_waits_behind_it(workers: Workers, runs: Runs) -> None:
    held, ended, waits = add("SP-1"), add("SP-2"), amend("SP-1")
    workers.holds(held)
    source = workers.holds(ended)
    workers.wrote(Kind.SETTLED, ended, source, resident=False)
    workers.wrote(Kind.PARKED, waits, workers.sent(waits))
    code, lines, _ = await runs("doubt", "list")
    (found,) = map(json.loads, lines)
    assert (code, found["commandId"], found["operation"], found["key"]) == (
        0,
        held.command_id,
        "AddFaultReport",
        "SP-1",
    )
    assert (found["attempts"], found["parkedBehind"], found["partition"]) == (
        1,
        1,
        partition_of(b"SP-1", PARTITIONS),
    )
    code, lines, _ = await runs("doubt", "list", "--text")
    assert lines[0].startswith("COMMAND")
    cells = re.split(r"\s{2,}", lines[1])
    assert cells[:3] == [held.command_id, "AddFaultReport", "SP-1"]
    assert cells[3].startswith("1h 0m ago")
    assert cells[4].startswith(("in 59m", "in 1h"))
    assert cells[5] == "1"


async def test_foreign_bytes_in_the_journal_hide_no_doubt(bus: Bus, workers: Workers, runs: Runs) -> None:
    command = add("SP-1")
    workers.holds(command)
    bus.write(bus.topics.journal, "SP-1", b"no Avro")
    for words in (("doubt", "list"), ("stuck",)):
        _, lines, _ = await runs(*words)
        assert [json.loads(line)["commandId"] for line in lines] == [command.command_id]


async def test_a_command_in_the_journal_hides_no_doubt(bus: Bus, workers: Workers, runs: Runs) -> None:
    command = add("SP-1")
    source = workers.holds(command)
    assert source.value is not None
    bus.write(bus.topics.journal, "SP-1", source.value)
    for words in (("doubt", "list"), ("stuck",)):
        _, lines, told = await runs(*words)
        assert [json.loads(line)["commandId"] for line in lines] == [command.command_id]
        assert "offset 1: not readable" in told


async def test_an_entry_that_may_be_ours_and_cannot_be_read_is_told_as_missing(
    bus: Bus, workers: Workers, runs: Runs
) -> None:
    command = add("SP-1")
    workers.holds(command)
    bus.write(bus.topics.journal, "SP-1", struct.pack(">bI", 0, 999_999) + b"x")
    for words in (("doubt", "list"), ("stuck",)):
        code, lines, told = await runs(*words)
        assert (code, [json.loads(line)["commandId"] for line in lines]) == (0, [command.command_id])
        place = f"partition {partition_of(b'SP-1', PARTITIONS)}, offset 1"
        why = "unknown-schema: the registry has no schema 999999"
        assert told == f"adapter: journal {place}: not readable, what it tells is missing: {why}\n"


async def test_where_nothing_is_in_doubt_nothing_is_listed(workers: Workers, runs: Runs) -> None:
    assert (await runs("doubt", "list"))[:2] == (0, [])
    assert (await runs("doubt", "list", "--text"))[:2] == (0, ["no command is in doubt"])


# -- settle ------------------------------------------------------------------------------------------------------------


async def test_a_decision_is_an_event_of_the_ticket(workers: Workers, runs: Runs) -> None:
    held = add("SP-1")
    workers.holds(held)
    words = ("doubt", "settle", held.command_id, "accepted", "--why", "CF-1 is there", "--who", "joe")
    assert (await runs(*words))[0] == 0
    assert (await runs(*words))[0] == 0
    _, lines, _ = await runs("watch", "--since", "beginning", "--until-now")
    first, second = map(json.loads, lines)
    assert first["id"] == second["id"], "the same decision is the same event"
    assert {name: first[name] for name in ("event", "key", "commandId", "attempts", "decision", "why", "who")} == {
        "event": "DoubtDecided",
        "key": "SP-1",
        "commandId": held.command_id,
        "attempts": 1,
        "decision": "ACCEPTED",
        "why": "CF-1 is there",
        "who": "joe",
    }


async def test_one_decision_about_many_is_an_event_of_each_ticket(workers: Workers, runs: Runs) -> None:
    held = [add(f"SP-{number}") for number in range(6)]
    for command in held:
        workers.holds(command)
    ids = [command.command_id for command in held]
    code, lines, error = await runs("doubt", "settle", *ids, ids[0], "rejected", "--why", "the outage", "--who", "joe")
    assert (code, error) == (0, "")
    assert [json.loads(line) for line in lines] == [
        {"decided": "REJECTED", "commandId": command.command_id, "key": command.key} for command in held
    ]
    _, lines, _ = await runs("watch", "--since", "beginning", "--until-now")
    events = {(event["key"], event["commandId"], event["decision"]) for event in map(json.loads, lines)}
    assert events == {(command.key, command.command_id, "REJECTED") for command in held}
    assert len(lines) == len(held)


async def test_if_nothing_can_be_decided_about_some_nothing_is_decided_about_any(workers: Workers, runs: Runs) -> None:
    held, of_address, unknown = add("SP-1"), reserve("K-1"), add("SP-3")
    for command in (held, of_address):
        workers.holds(command)
    ids = [command.command_id for command in (held, of_address, unknown)]
    code, lines, error = await runs("doubt", "settle", *ids, "accepted", "--why", "so")
    assert (code, lines) == (2, [])
    address, stranger = sorted(error.splitlines(), key=lambda line: "is not in doubt" in line)
    assert address.startswith(f"adapter: {of_address.command_id}: ReserveAppointment is about an address")
    assert stranger.startswith(f"adapter: {unknown.command_id}: is not in doubt")
    assert (await runs("watch", "--since", "beginning", "--until-now"))[1] == []


async def test_another_decision_before_a_worker_has_acted_on_the_first_is_refused(workers: Workers, runs: Runs) -> None:
    held = add("SP-1")
    workers.holds(held)
    assert (await runs("doubt", "settle", held.command_id, "repeat", "--why", "so", "--who", "joe"))[0] == 0
    code, lines, error = await runs("doubt", "settle", held.command_id, "rejected", "--why", "no", "--who", "ann")
    assert (code, lines) == (2, [])
    assert error == f"adapter: {held.command_id}: joe has decided already: repeat; the first decision counts\n"
    other = add("SP-2")
    workers.holds(other)
    both = await runs("doubt", "settle", other.command_id, held.command_id, "rejected", "--why", "no", "--who", "ann")
    assert both == (2, [], error)
    _, lines, _ = await runs("watch", "--since", "beginning", "--until-now")
    assert [json.loads(line)["decision"] for line in lines] == ["REPEAT"]


async def test_a_decision_finds_the_ticket_of_a_reference_with_white_space(workers: Workers, runs: Runs) -> None:
    held = add(" SP  1")
    workers.holds(held)
    assert (await runs("doubt", "settle", held.command_id, "accepted", "--why", "so"))[0] == 0
    _, lines, _ = await runs("watch", "--reference", " SP  1", "--since", "beginning", "--until-now")
    assert [json.loads(line)["key"] for line in lines] == ["SP 1"]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda workers: (held := reserve("K-1"), workers.holds(held))[0], "has no ticket; it ends by itself at"),
        (lambda _: add("SP-1"), "is not in doubt"),
        (
            lambda workers: (
                held := add("SP-1"),
                workers.wrote(Kind.SETTLED, held, workers.holds(held), resident=False),
            )[0],
            "has ended already",
        ),
    ],
    ids=["of an address", "unknown", "ended"],
)
async def test_what_cannot_be_decided_is_said_and_nothing_is_published(
    workers: Workers, runs: Runs, build: Callable[[Workers], Command], said: str
) -> None:
    command = build(workers)
    code, lines, error = await runs("doubt", "settle", command.command_id, "accepted", "--why", "so")
    assert (code, lines) == (2, []), error
    assert error.startswith(f"adapter: {command.command_id}: ")
    assert said in error
    assert (await runs("watch", "--since", "beginning", "--until-now"))[1] == []


@pytest.mark.parametrize(
    "more",
    [("accepted",), ("maybe", "--why", "so"), ("accepted", "--why", " "), ("accepted", "--why", "x" * 1000)],
    ids=["no reason", "no such decision", "blank reason", "too long"],
)
async def test_a_decision_that_is_none_is_refused(workers: Workers, runs: Runs, more: tuple[str, ...]) -> None:
    held = add("SP-1")
    workers.holds(held)
    code, lines, error = await runs("doubt", "settle", held.command_id, *more)
    assert (code, lines) == (2, []), error
    assert "--why" in error or "maybe" in error


async def test_who_waits_is_told_when_nobody_acts_on_a_decision(workers: Workers, runs: Runs) -> None:
    held = add("SP-1")
    workers.holds(held)
    code, lines, error = await runs(
        "doubt", "settle", held.command_id, "repeat", "--why", "so", "--wait", "--timeout", "5s"
    )
    assert code == 4
    assert [json.loads(line)["event"] for line in lines] == ["DoubtDecided"]
    assert "not settled within 5s; do worker and projector run?" in error


# -- stuck -------------------------------------------------------------------------------------------------------------


async def test_the_oldest_of_each_partition_and_what_is_held_or_parked_is_stuck(workers: Workers, runs: Runs) -> None:
    keys = [
        next(k for k in map(str, range(99)) if partition_of(k.encode(), PARTITIONS) == n) for n in range(PARTITIONS)
    ]
    held, parked, called = add(keys[0]), amend(keys[0]), add(keys[1])
    waiting, next_one, fresh = query(keys[2]), query(keys[2]), add(keys[3])
    workers.holds(held, age=3 * HOUR)
    workers.wrote(Kind.PARKED, parked, workers.sent(parked, age=2 * HOUR))
    workers.wrote(Kind.INTENT, called, workers.sent(called, age=4 * HOUR), resident=False)
    workers.sent(waiting)
    workers.sent(next_one)
    workers.sent(fresh, age=0)
    _, lines, _ = await runs("stuck")
    found = {line["commandId"]: line for line in map(json.loads, lines)}
    assert list(found) == [each.command_id for each in (called, held, parked, waiting)], "the oldest first"
    assert found[held.command_id]["why"].startswith("in doubt until ")
    assert found[parked.command_id]["why"] == "waits behind one that is in doubt"
    assert found[called.command_id]["why"].startswith("call 1 is under way or was cut off, since ")
    assert found[waiting.command_id]["why"] == "not tried yet, or a query that is"
    assert (found[called.command_id]["operation"], found[called.command_id]["key"]) == ("AddFaultReport", keys[1])
    _, lines, _ = await runs("stuck", "--older", "0s")
    assert json.loads(lines[-1])["commandId"] == fresh.command_id
    _, lines, _ = await runs("stuck", "--text", "--older", "150m")
    assert [re.split(r"\s{2,}", line)[0] for line in lines] == ["KEY", keys[1], keys[0]]


async def test_stuck_names_what_settles_a_doubt_unless_only_its_time_limit_can(workers: Workers, runs: Runs) -> None:
    report, reservation = add("SP-1"), reserve("K-1")
    workers.holds(report)
    workers.holds(reservation)
    _, lines, _ = await runs("stuck")
    told = {line["commandId"]: line["why"].endswith("; adapter doubt settles it") for line in map(json.loads, lines)}
    assert told == {report.command_id: True, reservation.command_id: False}


async def test_a_record_that_is_no_command_may_be_the_one_that_is_stuck(workers: Workers, runs: Runs) -> None:
    workers.put(b"no Avro", b"SP-1")
    _, lines, _ = await runs("stuck")
    (found,) = map(json.loads, lines)
    assert (found["key"], found["operation"], found["commandId"]) == ("SP-1", "unreadable", "")


async def test_a_transaction_that_its_producer_leaves_open_is_what_its_partition_waits_for(
    bus: Bus, workers: Workers, runs: Runs
) -> None:
    first, behind = add("SP-1"), amend("SP-1")
    name = {"transactional.id": f"{bus.topics.prefix}-hangs", "transaction.timeout.ms": 600_000}
    producer = Producer({"bootstrap.servers": bus.kafka, "partitioner": "murmur2_random", **name})
    producer.init_transactions()
    producer.begin_transaction()
    source = workers.sent(first, producer=producer)
    workers.sent(behind)
    _, lines, _ = await runs("stuck")
    (found,) = map(json.loads, lines)
    assert (found["commandId"], found["key"], found["offset"]) == (first.command_id, "SP-1", source.offset)
    assert found["why"] == "in a transaction that its producer has not ended; all behind it waits"
    producer.commit_transaction()
    _, lines, _ = await runs("stuck")
    assert [json.loads(line)["why"] for line in lines] == ["not tried yet, or a query that is"]


async def test_where_nothing_is_stuck_it_says_so(workers: Workers, runs: Runs) -> None:
    assert (await runs("stuck", "--text"))[:2] == (0, ["nothing is unfinished for longer than 1m"])


async def test_brokers_that_do_not_answer_are_passed_over_in_silence(bus: Bus, processes: Processes) -> None:
    settings = {name: value for name, value in os.environ.items() if name.startswith("ADAPTER_")}
    away = [f"127.0.0.1:{free_port()}" for _ in range(5)]
    stuck = processes.adapter(
        "stuck", "--text", env=settings | {"ADAPTER_KAFKA__BOOTSTRAP_SERVERS": ",".join([*away, bus.kafka])}
    )
    assert await stuck.ended() == 0
    assert stuck.output.splitlines()[-1] == "nothing is unfinished for longer than 1m"
    assert not [address for address in away if address in stuck.output]


async def test_a_worker_that_is_not_there_is_said(runs: Runs) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, lines, error = await runs("stuck", "--worker", url)
    assert (code, lines) == (1, [])
    assert error.startswith(f"adapter: {url}/status: ")
    code, _, error = await runs("stuck", "--worker", "localhost:9464")
    assert (code, "--worker localhost:9464: is not a web address; write for example http" in error) == (2, True)
    code, _, error = await runs("stuck", "--older", "soon")
    assert (code, error.startswith("adapter: --older: ")) == (2, True)


async def test_an_address_where_no_worker_shows_itself_is_said(runs: Runs) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"tickets": []})

    application = web.Application()
    application.router.add_get("/status", answer)
    async with AsyncExitStack() as stack:
        url = await listen.serve(stack, application, "127.0.0.1", 0)
        code, _, error = await runs("stuck", "--worker", f"{url}/")
    assert (code, error) == (2, f"adapter: --worker {url}/: no worker shows itself there\n")
