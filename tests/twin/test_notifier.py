"""The twin's notifications over real sockets: order, persistence, repeats, disorder, and what it thinks of answers."""

import asyncio
import itertools
import re
import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from adapter.twin import Delivery, Dialect, Happening, Manner, Notify, Rules, Status, TlsFiles, Twin, TwinSettings
from adapter.twin.deliveries import End
from tests.support.certificates import trials
from tests.support.wait import eventually
from tests.twin.caller import addition, post
from tests.twin.receiver import Got, Receiver, acknowledge, answer, receiver

HOUR = 3600.0


def twin(receiving: Receiver, *, settings: TwinSettings | None = None, **notify: object) -> Twin:
    plain = Notify(receiving.url, retry=0.02, hold=0.1)
    return Twin(replace(settings or TwinSettings(), notify=replace(plain, **notify)))  # type: ignore[arg-type]  # by name


async def add(running: Twin, *references: str) -> None:
    async with aiohttp.ClientSession() as http:
        for reference in references:
            status, _ = await post(http, running, "addFaultReport", addition(reference))
            assert status == 200


async def delivered(running: Twin, number: int) -> Sequence[Delivery]:
    def ended() -> Sequence[Delivery]:
        found = running.deliveries
        return found if len(found) == number and all(entry.end for entry in found) else []

    return await eventually(ended, what=f"{number} notifications delivered")


async def settled(running: Twin) -> None:
    """Nothing is on its way."""
    await eventually(lambda: running.deliveries and all(entry.end for entry in running.deliveries))


async def test_every_change_is_told_to_the_documented_path_after_the_reply() -> None:
    async with receiver() as receiving, twin(receiving) as running:
        await add(running, "SP-1")
        for status in (Status.ACCEPTED, Status.IN_PROGRESS, Status.RESOLVED):
            running.put("SP-1", status)
        running.happen("SP-1", Happening.AMENDED)
        entries = await delivered(running, 4)
    assert [(got.status, got.path, got.soap_action) for got in receiving.came] == [
        ("Accepted", "/hook", '""'),
        ("In Progress", "/hook/notifyInProgress", '"/notifyInProgress"'),
        ("Resolved", "/hook", '""'),
        ("Resolved", "/hook/notifyAmended", '"/notifyAmended"'),
    ]
    assert {got.text("maintainerFaultReference") for got in receiving.came} == {"CF-100001"}
    assert {entry.end for entry in entries} == {End.ACKNOWLEDGED}
    assert [entry.problems for entry in entries] == [()] * 4


async def test_time_alone_brings_a_ticket_from_the_report_to_closed_and_all_of_it_is_told() -> None:
    settings = TwinSettings(rules=Rules(speed=1_000_000, full_life=True))
    async with receiver() as receiving, twin(receiving, settings=settings) as running:
        await add(running, "SP-1")
        await eventually(lambda: running.deliveries and running.deliveries[-1].kind == "closed")
        await delivered(running, len(running.deliveries))
    assert [got.status for got in receiving.came] == [
        *("Accepted", "Accepted", "In Progress", "on-hold", "In Progress", "Resolved", "Closed")
    ]


async def test_what_the_buyer_answers_to_a_resolution_is_told() -> None:
    async with receiver() as receiving, twin(receiving) as running:
        await add(running, "SP-1", "SP-2")
        for number, accepted in enumerate((True, False), 1):
            running.put(f"SP-{number}", Status.RESOLVED)
            found = running.books.resolve(
                reference=f"SP-{number}",
                maintainer_reference=None,
                accepted=accepted,
                now=running.tickets[f"SP-{number}"].since,
            )
            assert found is running.books.tickets[f"SP-{number}"]
        await delivered(running, 4)
    told = [(got.reference, got.status) for got in receiving.came]
    assert ("SP-1", "Closed") in told
    assert ("SP-2", "Re-Opened") in told


async def test_one_ticket_waits_for_its_acknowledgement_and_others_go_on() -> None:
    opened = asyncio.Event()

    async def answering(got: Got) -> web.Response | None:
        if got.reference == "SP-1":
            await opened.wait()
        return answer(got)

    async with receiver(answering) as receiving, twin(receiving) as running:
        await add(running, "SP-1", "SP-2")
        for status in (Status.ACCEPTED, Status.IN_PROGRESS, Status.RESOLVED):
            running.put("SP-1", status)
            running.put("SP-2", status)
        await eventually(lambda: sum(got.reference == "SP-2" for got in receiving.came) == 3)
        assert sum(got.reference == "SP-1" for got in receiving.came) == 1
        opened.set()
        await delivered(running, 6)
    for reference in ("SP-1", "SP-2"):
        statuses = [got.status for got in receiving.came if got.reference == reference]
        assert statuses == ["Accepted", "In Progress", "Resolved"]


async def test_it_is_tried_again_more_slowly_until_it_is_acknowledged_with_a_valid_answer() -> None:
    tries = itertools.count()

    async def answering(got: Got) -> web.Response | None:
        match next(tries):
            case 0:
                return web.Response(status=503)
            case 1:
                return web.Response(status=400, text="<no")
            case 2:
                return answer(got, id="another")
            case 3:
                return None
            case _:
                return answer(got)

    async with receiver(answering) as receiving, twin(receiving, retry=0.05) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        (entry,) = await delivered(running, 1)
    assert (entry.attempts, entry.end, entry.answered) == (5, End.ACKNOWLEDGED, 200)
    assert entry.problems == ("messageId: not the notification's",)
    assert len({got.body for got in receiving.came}) == 1
    times = [got.at for got in receiving.came]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses))


async def test_retry_after_is_heeded() -> None:
    tries = itertools.count()

    async def answering(got: Got) -> web.Response | None:
        return web.Response(status=503, headers={"Retry-After": "1"}) if next(tries) == 0 else answer(got)

    async with receiver(answering) as receiving, twin(receiving) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        await delivered(running, 1)
    first, second = receiving.came
    assert second.at - first.at >= 1


async def test_it_is_given_up_after_so_many_attempts_and_the_next_one_goes_out() -> None:
    async def answering(got: Got) -> web.Response | None:
        return web.Response(status=500) if got.status == "Accepted" else answer(got)

    async with receiver(answering) as receiving, twin(receiving, attempts=2) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        running.put("SP-1", Status.IN_PROGRESS)
        lost, told = await delivered(running, 2)
    assert (lost.end, lost.attempts, lost.answered) == (End.GIVEN_UP, 2, 500)
    assert (told.end, told.attempts) == (End.ACKNOWLEDGED, 1)
    assert len(receiving.came) == 3


async def test_one_that_cannot_be_written_is_given_up_with_a_line_and_the_next_of_its_ticket_goes_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with receiver() as receiving, twin(receiving) as running:
        await add(running, "SP-1")
        running.happen("SP-1", Happening.APPOINTMENT_COMPLETED, code="\x01")
        running.happen("SP-1", Happening.APPOINTMENT_COMPLETED, code="NA")
        lost, told = await delivered(running, 2)
    assert (lost.end, lost.attempts, lost.failure) == (End.GIVEN_UP, 0, "could not be posted")
    assert (told.end, told.attempts) == (End.ACKNOWLEDGED, 1)
    assert [record.getMessage() for record in caplog.records] == ["notification 1 (CF-00001) could not be posted"]


async def test_nobody_there_is_noted() -> None:
    async with receiver() as receiving:
        gone = receiving
    async with twin(gone, attempts=2) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        (entry,) = await delivered(running, 1)
    assert (entry.end, entry.answered, entry.failure) == (End.GIVEN_UP, None, "no connection")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spoken", [(), (Dialect.TIMES, Dialect.CHILD_ORDER, Dialect.UNKNOWN_ELEMENTS)])
async def test_a_repeat_is_the_same_message_sent_later(spoken: tuple[Dialect, ...], seed: int) -> None:
    dialects = frozenset(spoken)
    async with receiver() as receiving, twin(receiving, repeats=1.0, dialects=dialects, seed=seed) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        first, again = await delivered(running, 2)
    assert (first.repeat_of, again.repeat_of) == (None, first.sequence)
    one, other = receiving.came
    assert one.text("messageId") == other.text("messageId")
    assert first.sent_at < again.sent_at
    assert one.text("sentAt") != other.text("sentAt") or spoken
    sent_at = re.compile(b"<sentAt>.*?</sentAt>")
    assert sent_at.sub(b"", one.body) == sent_at.sub(b"", other.body)


async def test_a_late_one_comes_after_the_next_of_its_ticket_with_the_older_time() -> None:
    async with receiver() as receiving, twin(receiving, disorder=1.0, hold=HOUR) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        running.put("SP-1", Status.IN_PROGRESS)
        entries = await delivered(running, 2)
    assert [got.status for got in receiving.came] == ["In Progress", "Accepted"]
    newer, older = receiving.came
    assert newer.text("sentAt") > older.text("sentAt")
    assert entries[0].late


async def test_a_late_one_that_nothing_follows_comes_all_the_same() -> None:
    async with receiver() as receiving, twin(receiving, disorder=1.0, hold=0.05) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        await delivered(running, 1)
    assert len(receiving.came) == 1


async def test_the_same_seed_takes_the_same_chances() -> None:
    taken = []
    for seed in (7, 7, 8):
        async with (
            receiver() as receiving,
            twin(
                receiving,
                seed=seed,
                repeats=0.5,
                dialects=frozenset(Dialect) - {Dialect.SOAP_1_2, Dialect.PREFIXES},
                dialect_chance=0.4,
            ) as running,
        ):
            references = [f"SP-{number}" for number in range(8)]
            await add(running, *references)
            for reference in references:
                running.put(reference, Status.ACCEPTED)
            await settled(running)
            taken.append({(e.reference, e.dialects, e.repeat_of is not None) for e in running.deliveries})
    assert taken[0] == taken[1] != taken[2]


async def test_the_manner_of_one_notification_can_be_asked_for() -> None:
    async with receiver() as receiving, twin(receiving, hold=HOUR) as running:
        await add(running, "SP-1")
        running.happen("SP-1", Happening.ACCEPTED, manner=Manner(late=True, dialects=(Dialect.BARE,)))
        running.happen("SP-1", Happening.IN_PROGRESS, manner=Manner(repeated=True))
        entries = await delivered(running, 3)
    assert [got.status for got in receiving.came] == ["In Progress", "Accepted", "In Progress"]
    assert [entry.dialects for entry in entries] == [("bare",), (), ()]
    assert [entry.repeat_of for entry in entries] == [None, None, 2]


async def test_one_message_id_for_all_is_a_dialect_too() -> None:
    async with receiver() as receiving, twin(receiving, dialects=frozenset({Dialect.SAME_MESSAGE_ID})) as running:
        await add(running, "SP-1", "SP-2")
        running.put("SP-1", Status.ACCEPTED)
        running.put("SP-2", Status.ACCEPTED)
        await delivered(running, 2)
    assert {got.text("messageId") for got in receiving.came} == {"CF-00003"}


async def test_with_own_message_ids_any_is_taken() -> None:
    async def answering(got: Got) -> web.Response | None:
        return answer(got, id="SP-00001")

    settings = TwinSettings(echo_message_id=False)
    async with receiver(answering) as receiving, twin(receiving, settings=settings) as running:
        await add(running, "SP-1")
        running.put("SP-1", Status.ACCEPTED)
        (entry,) = await delivered(running, 1)
    assert (entry.end, entry.attempts) == (End.ACKNOWLEDGED, 1)


async def test_it_shows_its_certificate_and_wants_one_of_the_right_authority(tmp_path: Path) -> None:
    good, others = trials(tmp_path / "a").good, trials(tmp_path / "b").good
    server = TlsFiles(good.server_certificate, good.server_key, good.ca)
    client = TlsFiles(good.client_certificate, good.client_key, good.ca)
    stranger = TlsFiles(others.client_certificate, others.client_key, good.ca)
    trusting = TlsFiles(good.client_certificate, good.client_key, others.ca)
    async with receiver(acknowledge, tls=server.context(ssl.PROTOCOL_TLS_SERVER)) as receiving:
        for files, end in ((client, End.ACKNOWLEDGED), (stranger, End.GIVEN_UP), (trusting, End.GIVEN_UP)):
            async with twin(receiving, tls=files, attempts=1) as running:
                await add(running, "SP-1")
                running.put("SP-1", Status.ACCEPTED)
                (entry,) = await delivered(running, 1)
                assert entry.end is end, entry
    assert len(receiving.came) == 1


async def test_the_log_and_the_control_address_tell_what_became_of_each(tmp_path: Path) -> None:
    log = tmp_path / "notifications.jsonl"
    async with receiver() as receiving, twin(receiving, log=log) as running:
        await add(running, "SP-1")
        async with aiohttp.ClientSession() as http:
            asked = {"reference": "SP-1", "kind": "appointment-completed", "code": "NA", "dialects": ["child-order"]}
            async with http.post(f"{running.control_url}/twin/notify", json=asked) as response:
                assert response.status == 200
            await delivered(running, 1)
            async with http.get(f"{running.control_url}/twin/notifications?since=0") as response:
                (shown,) = (await response.text()).splitlines()
            fine = {"reference": "SP-1", "kind": "closed"}
            wrongs: list[object] = [
                *([], {}, fine | {"kind": "solved"}, fine | {"kind": 1}, fine | {"code": 1}, fine | {"late": "yes"}),
                *(fine | {"code": "A\x01"}, fine | {"code": "\ud800"}),
                *(fine | {"dialects": "bare"}, fine | {"dialects": ["x"]}, fine | {"more": 1}),
            ]
            for wrong in wrongs:
                async with http.post(f"{running.control_url}/twin/notify", json=wrong) as response:
                    assert response.status == 400
            async with http.post(
                f"{running.control_url}/twin/notify", json={"reference": "SP-9", "kind": "closed"}
            ) as response:
                assert response.status == 404
    assert '"end":"acknowledged"' in shown
    assert '"dialects":["child-order"]' in shown
    assert log.read_text().splitlines()[-1] == shown
    assert receiving.came[0].text("appointments/appointment/appointmentClosureCode") == "NA"
