"""`adapter quarantine` and `adapter dead-letters`, on what a real server and a real worker have put there."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from adapter.cli import main
from adapter.ports import Outgoing
from adapter.transport.kafka.client import Sender
from adapter.twin import Fault, Kind
from tests.server.bus import Record, records
from tests.server.conftest import PLAIN, notification, serving
from tests.support import estate as say
from tests.support.rig import Rig, open_rig
from tests.support.wait import eventually

FOREIGN = notification("SP-1").replace(b"SPDEV1", b"SPDEV2")
LETTER = Outgoing("", b"SP-9", b"no Avro", [("ce_id", b"9"), ("empty", None)])


@dataclass(frozen=True, slots=True)
class Desk:
    rig: Rig
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    async def run(self, *words: str, **more: str) -> tuple[int, list[str], list[str]]:
        """Exit code, lines said and lines complained."""
        self.capfd.readouterr()
        with self.monkeypatch.context() as patch:
            for name, value in self.rig.environment(**PLAIN, **more).items():
                patch.setenv(name, value)
            code = await asyncio.to_thread(main, list(words))
        said = self.capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out.splitlines(), said.err.splitlines()

    async def places(self, command: str) -> dict[str, str]:
        """By reason."""
        code, said, _ = await self.run(command, "list")
        assert code == 0
        return {row["reason"]: row["place"] for row in map(json.loads, said)}

    def events(self) -> list[Record]:
        return records(self.rig.bootstrap, self.rig.topics.events)


@pytest.fixture
async def desk(kafka: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[Desk]:
    """Two notifications that a server could not read, one of them for a buyer that it was not told of."""
    async with open_rig(kafka) as rig:
        async with serving(rig) as server:
            answers = [await server.post(body) for body in (FOREIGN, b"<not xml")]
            assert [status for status, _ in answers] == [400, 400]
        yield Desk(rig, monkeypatch, capfd)


async def test_what_has_become_readable_becomes_the_event_that_the_server_would_have_published(desk: Desk) -> None:
    code, said, complained = await desk.run("quarantine", "again", "--since", "beginning")
    assert (code, said) == (4, [])
    assert [line.split(": ")[2] for line in complained] == ["stays", "stays"]
    assert desk.events() == []

    buyers = "SPDEV1,SPDEV2"
    code, said, complained = await desk.run("quarantine", "again", "--since", "1h", SERVER__ACCEPTED_BUYERS=buyers)
    assert code == 4
    assert [json.loads(line)["key"] for line in said] == ["SP-1"]
    assert len(complained) == 1
    assert "stays: malformed" in complained[0]
    async with serving(desk.rig, SERVER__ACCEPTED_BUYERS=buyers) as server:
        assert (await server.post(FOREIGN))[0] == 200
    again, served = await asyncio.to_thread(desk.events)
    assert (again.key, again.id, again.headers["ce_type"]) == (served.key, served.id, served.headers["ce_type"])
    assert again.headers["ce_source"] == served.headers["ce_source"]
    assert again.headers["ce_time"] < served.headers["ce_time"]
    assert len(again.value) == len(served.value)


async def test_the_list_says_where_why_and_from_whom_and_nothing_of_the_content(desk: Desk) -> None:
    code, said, _ = await desk.run("quarantine", "list", "--text")
    assert (code, said[0].split()) == (0, ["PLACE", "AT", "BYTES", "WHY", "FROM"])
    assert "foreign-buyer: buyerIdentifier is not ours" in said[1]
    assert f" {len(FOREIGN)} " in said[1]
    assert said[1].endswith("127.0.0.1")
    assert "SP-1" not in "".join(said)
    assert await desk.run("dead-letters", "list", "--text") == (0, ["there is nothing"], [])
    assert await desk.run("quarantine", "list", "--since", "2100-01-01T00:00:00Z") == (0, [], [])


async def test_one_is_shown_as_it_came(desk: Desk) -> None:
    place = (await desk.places("quarantine"))["foreign-buyer"]
    assert await desk.run("quarantine", "show", place) == (0, FOREIGN.decode().splitlines(), [])


async def test_a_dead_letter_goes_back_to_the_commands_as_it_was(desk: Desk) -> None:
    topics = desk.rig.topics
    sender = Sender({"bootstrap.servers": desk.rig.bootstrap}, max_message_bytes=1_000_000)
    letter = Outgoing(topics.commands, LETTER.key, LETTER.value, LETTER.headers)
    assert await asyncio.to_thread(sender.send, [letter]) == [None]
    async with desk.rig.worker():
        letters = await eventually(partial(desk.places, "dead-letters"))
    _, said, _ = await desk.run("dead-letters", "list", "--text")
    assert said[1].endswith(f"{topics.commands} 2/0, key SP-9")

    code, said, _ = await desk.run("dead-letters", "again", letters["unframed"])
    assert (code, json.loads(said[0])["again"]) == (0, letters["unframed"])
    first, second = await asyncio.to_thread(records, desk.rig.bootstrap, topics.commands)
    assert first == second


async def test_a_dead_letter_that_can_be_decoded_is_mended_as_json_and_sent(desk: Desk, tmp_path: Path) -> None:
    first, second = say.add("SP-1"), say.add("SP-2")
    async with desk.rig.worker():
        desk.rig.estate.send(first)
        await desk.rig.estate.final(first)
        reused = desk.rig.estate.send(replace(second, command_id=first.command_id))
        garbage = desk.rig.estate.put(LETTER.value or b"", LETTER.key or b"")
        for place in (reused, garbage):
            await desk.rig.estate.letter(place)
        letters = await desk.places("dead-letters")

        code, said, _ = await desk.run("dead-letters", "show", letters["unframed"], "--json")
        assert (code, said) == (4, [])
        code, said, complained = await desk.run("dead-letters", "show", letters["command-id-reused"], "--json")
        assert (code, complained) == (0, [])
        command = json.loads("\n".join(said))
        assert (command["command"], command["commandId"]) == ("AddFaultReport", first.command_id)
        file = tmp_path / "mended.json"
        file.write_text(json.dumps(command | {"commandId": second.command_id}))
        code, _, complained = await desk.run("send", str(file))
        assert (code, complained) == (0, [])
        assert (await desk.rig.estate.final(second)).type == "FaultReportAdded"


async def test_a_reply_that_left_a_doubt_is_shown_as_it_came_and_published_by_nobody(desk: Desk) -> None:
    command = say.add("SP-1")
    desk.rig.twin.inject(Fault(Kind.HTML, key="SP-1"))
    async with desk.rig.worker():
        desk.rig.estate.send(command)
        await desk.rig.estate.doubt(command)

    async def replies() -> list[dict[str, str]]:
        rows = [json.loads(line) for line in (await desk.run("quarantine", "list"))[1]]
        return [row for row in rows if row["origin"] == f"reply to AddFaultReport {command.command_id}"]

    (row,) = await eventually(replies)  # of a transaction's partitions each shows its end a moment later than another
    code, said, _ = await desk.run("quarantine", "show", row["place"])
    assert (code, "<html>" in "".join(said)) == (0, True)
    code, said, complained = await desk.run("quarantine", "again", row["place"])
    assert (code, said) == (4, [])
    assert complained == [f"adapter: {row['place']}: stays: it is a reply to a command"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "0"], "0: is no place; write PARTITION/OFFSET"),
        (["show", "0/99"], "0/99: there is no such record"),
        (["again", "99/0", "0/99"], "0/99: there is no such record"),
        (["again"], "again: name records"),
        (["again", "0/0", "--since", "1h"], "again: name records"),
        (["list", "--since", "yesterday"], "--since: neither a duration"),
    ],
)
async def test_what_is_asked_wrongly_is_told_and_nothing_is_done(desk: Desk, words: list[str], told: str) -> None:
    code, said, complained = await desk.run("quarantine", *words, SERVER__ACCEPTED_BUYERS="SPDEV2")
    assert (code, said) == (2, [])
    assert complained[0].startswith(f"adapter: {told}")
    assert desk.events() == []
