"""The spool, on a real disk."""

import asyncio
import shutil
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapter.core.errors import Stop, Unavailable
from adapter.core.notification import Delivery
from adapter.ports import Arrival, Caller
from adapter.transport.spool import SqliteSpool
from tests.support.disk import no_file_beyond
from tests.support.processes import Processes
from tests.support.wait import PATIENCE, eventually

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
Opener = Callable[..., Awaitable[SqliteSpool]]


def rights(path: Path) -> int:
    return path.stat().st_mode


def arrival(body: bytes = b"<a/>", *, at: datetime = AT) -> Arrival:
    delivery = Delivery(body, at, path="/notifyAmended", content_type="text/xml", soap_action='"urn:x"')
    return Arrival(delivery, Caller("192.0.2.7", "CN=gateway"), "00-trace")


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


@contextmanager
def out_of_reach(folder: Path) -> Iterator[None]:
    """As if nobody may enter it any more, which would not keep out root."""
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder)
    try:
        yield
    finally:
        folder.unlink()
        elsewhere.rename(folder)


class Disk:
    """Below an open spool: what is asked of it, and it can hold all of that back."""

    def __init__(self, spool: SqliteSpool) -> None:
        self._asked: list[str] = []
        self._works = threading.Event()
        self._works.set()
        assert spool._database is not None
        spool._database.set_trace_callback(self._ask)

    def _ask(self, statement: str) -> None:
        self._asked.append(statement)
        self._works.wait(PATIENCE)

    def count(self, begin: str) -> int:
        """How many statements have begun like this."""
        return sum(statement.startswith(begin) for statement in self._asked)

    def hold(self) -> None:
        self._works.clear()

    def release(self) -> None:
        self._works.set()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the spool of this test; the one before is closed first."""
    spools: list[SqliteSpool] = []

    async def open_spool(
        *,
        max_bytes: int = 1024**2,
        damaged: Callable[[Path, int], None] = lambda _, __: None,
        unreadable: Callable[[int, str], None] = lambda _, __: None,
    ) -> SqliteSpool:
        if spools:
            await spools[-1].close()
        path = tmp_path / "spool.db"
        spools.append(SqliteSpool(path, max_bytes=max_bytes, damaged=damaged, unreadable=unreadable))
        return spools[-1]

    yield open_spool
    for spool in spools:
        await spool.close()


async def test_what_was_put_comes_back_whole_and_in_order_per_key_after_a_restart(opened: Opener) -> None:
    spool = await opened()
    bare = Arrival(Delivery(b"5", AT), Caller("192.0.2.7", None))
    put = [*(arrival(b"%d" % number) for number in range(5)), bare]
    for number, each in enumerate(put):
        await spool.put(b"AB"[number % 2 : number % 2 + 1], each)
    spool = await opened()
    seen: dict[bytes, list[Arrival]] = {b"A": [], b"B": []}
    while heads := await spool.heads(10):
        assert len({head.key for head in heads}) == len(heads)
        for head in heads:
            seen[head.key].append(head.arrival)
        await spool.drop([head.number for head in heads])
    assert seen == {b"A": put[::2], b"B": put[1::2]}
    assert (spool.depth, spool.size, spool.holds(b"A")) == (0, 0, False)


async def test_a_number_is_never_used_again(opened: Opener) -> None:
    spool = await opened()
    await spool.put(b"A", arrival())
    (first,) = await spool.heads(1)
    await spool.drop([first.number])
    spool = await opened()
    await spool.put(b"A", arrival())
    (second,) = await spool.heads(1)
    assert second.number > first.number


async def test_a_burst_is_kept_whole_in_the_order_of_the_calls(opened: Opener) -> None:
    spool = await opened()
    await asyncio.gather(*(spool.put(b"A", arrival(b"%d" % number)) for number in range(1200)))
    assert spool.depth == 1200
    for number in range(3):
        (head,) = await spool.heads(5)
        assert head.arrival.delivery.body == b"%d" % number
        await spool.drop([head.number])


async def test_a_burst_costs_hardly_more_fsyncs_than_one_notification(opened: Opener) -> None:
    spool = await opened()
    disk = Disk(spool)
    disk.hold()
    first = asyncio.ensure_future(spool.put(b"A", arrival()))
    await eventually(lambda: disk.count("BEGIN"))
    puts = [asyncio.ensure_future(spool.put(b"A", arrival())) for _ in range(600)]
    await asyncio.sleep(0)  # now they wait for the thread
    disk.release()
    await asyncio.gather(first, *puts)
    assert disk.count("COMMIT") == 3


async def test_a_spool_that_is_closed_in_the_middle_of_a_burst_keeps_all_of_it(opened: Opener) -> None:
    spool = await opened()
    disk = Disk(spool)
    disk.hold()
    first = asyncio.ensure_future(spool.put(b"A", arrival()))
    await eventually(lambda: disk.count("BEGIN"))
    rest = [asyncio.ensure_future(spool.put(b"A", arrival())) for _ in range(20)]
    closing = asyncio.ensure_future(spool.close())
    await asyncio.sleep(0)  # now it waits behind them
    disk.release()
    await asyncio.wait_for(closing, PATIENCE)
    await asyncio.gather(first, *rest)
    assert (await opened()).depth == 21


async def test_what_was_deleted_is_not_deleted_again(opened: Opener) -> None:
    spool = await opened()
    for key in (b"A", b"B", b"C"):
        await spool.put(key, arrival())
    disk = Disk(spool)
    for head in await spool.heads(3):
        await spool.drop([head.number])
    assert disk.count("DELETE") == 3


async def test_beyond_its_size_nothing_is_kept_and_what_is_there_stays(opened: Opener) -> None:
    spool = await opened(max_bytes=2000)
    results = await asyncio.gather(*(spool.put(b"A", arrival(b"x" * 500)) for _ in range(5)), return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert len(refused) == 3
    assert all(isinstance(result, Unavailable) for result in refused)
    assert spool.depth == 2
    (head,) = await spool.heads(1)
    await spool.drop([head.number])
    await spool.put(b"A", arrival(b"x" * 500))


async def test_a_full_disk_refuses_and_harms_nothing(opened: Opener) -> None:
    spool = await opened(max_bytes=10 * 1024**2)
    await spool.put(b"A", arrival(b"kept"))
    assert spool._database is not None
    spool._database.execute("PRAGMA max_page_count = 40")  # SQLite then answers as on a full disk: SQLITE_FULL
    with pytest.raises(Unavailable, match="full"):
        await spool.put(b"B", arrival(b"x" * 1024**2))
    assert (spool.depth, spool.holds(b"B")) == (1, False)
    await spool.put(b"A", arrival(b"small"))
    spool = await opened()
    assert spool.depth == 2
    assert [head.arrival.delivery.body for head in await spool.heads(5)] == [b"kept"]


async def test_a_file_that_was_removed_takes_no_more_until_what_it_held_is_published(
    opened: Opener, tmp_path: Path
) -> None:
    spool = await opened()
    await spool.put(b"A", arrival(b"kept"))
    shutil.rmtree(tmp_path)
    await asyncio.to_thread(tmp_path.mkdir)
    with pytest.raises(Unavailable, match="removed or replaced"):
        await spool.put(b"B", arrival(b"would be lost"))
    (head,) = await spool.heads(5)
    assert head.arrival.delivery.body == b"kept"
    await spool.drop([head.number])
    await spool.put(b"B", arrival(b"safe"))
    spool = await opened()
    assert [head.arrival.delivery.body for head in await spool.heads(5)] == [b"safe"]


async def test_an_empty_file_that_was_removed_is_begun_anew_once_its_folder_is_there(
    opened: Opener, tmp_path: Path
) -> None:
    spool = await opened()
    shutil.rmtree(tmp_path)
    with pytest.raises(Unavailable, match="No such file or directory"):
        await spool.put(b"A", arrival(b"nowhere"))
    await asyncio.to_thread(tmp_path.mkdir)
    await spool.put(b"A", arrival(b"safe"))
    assert spool.depth == 1
    spool = await opened()
    assert spool.depth == 1


async def test_a_file_that_cannot_be_reached_takes_no_more_says_why_and_goes_on_where_it_was(
    opened: Opener, tmp_path: Path
) -> None:
    spool = await opened()
    await spool.put(b"A", arrival(b"kept"))
    with out_of_reach(tmp_path), pytest.raises(Unavailable, match=r"Too many levels of symbolic links: '.*/spool\.db'"):
        await spool.put(b"B", arrival(b"not now"))
    await spool.put(b"B", arrival(b"again"))
    assert [head.arrival.delivery.body for head in await spool.heads(5)] == [b"kept", b"again"]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="its limit stands for a disk that the spool has filled"
)
async def test_a_disk_it_has_filled_itself_is_drained_and_then_has_room_again(opened: Opener, tmp_path: Path) -> None:
    spool = await opened(max_bytes=10 * 1024**2)
    for number in range(100):
        await spool.put(b"%d" % (number % 40), arrival(b"%d" % number + b"x" * 5000))
    # No file grows any more: neither to keep nor to delete is there room.
    with no_file_beyond((tmp_path / "spool.db-wal").stat().st_size):
        with pytest.raises(Unavailable):
            await spool.put(b"A", arrival())
        seen = []
        for refusable in (suppress(Unavailable), suppress(Unavailable), nullcontext()):  # three of a ticket at most
            heads = await spool.heads(100)
            seen += [int(head.arrival.delivery.body.rstrip(b"x")) for head in heads]
            with refusable:
                await spool.drop([head.number for head in heads])
        assert sorted(seen) == list(range(100))
        assert (spool.depth, spool.size) == (0, 0)
        await spool.put(b"A", arrival(b"again"))
    spool = await opened()
    assert [head.arrival.delivery.body for head in await spool.heads(5)] == [b"again"]
    assert modes(tmp_path) == {0o600}


async def test_only_its_owner_may_read_it(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "spool.db").touch(mode=0o644)
    spool = await opened()
    await spool.put(b"A", arrival())
    assert modes(tmp_path) == {0o600}
    assert spool.depth == 1


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"this was a database once " * 200)
    aside: list[Path] = []
    spool = await opened(damaged=lambda path, _: aside.append(path))
    assert aside[0].read_bytes().startswith(b"this was")
    await spool.put(b"A", arrival())
    assert spool.depth == 1


async def test_a_file_whose_tables_are_garbled_is_set_aside_and_a_new_one_begun(opened: Opener, tmp_path: Path) -> None:
    spool = await opened()
    await spool.put(b"A", arrival())
    await spool.close()
    path = tmp_path / "spool.db"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b"CREATE TABLE", b"CREATE " + b"\xff" * 5))
    aside: list[Path] = []
    spool = await opened(damaged=lambda path, _: aside.append(path))
    assert spool.depth == 0
    assert aside[0].read_bytes() != sound


async def test_of_a_table_with_a_garbled_column_all_is_taken_over(opened: Opener, tmp_path: Path) -> None:
    spool = await opened()
    for key in (b"A", b"B", b"A"):
        await spool.put(key, arrival())
    await spool.close()
    path = tmp_path / "spool.db"
    with closing(sqlite3.connect(path)) as database:  # one bit tells text from bytes
        database.execute("UPDATE notification SET key = CAST(key AS TEXT) WHERE number = 2")
        database.commit()
    path.write_bytes(path.read_bytes().replace(b"received_at REAL", b"received_it REAL"))
    told: list[int] = []
    spool = await opened(damaged=lambda _, saved: told.append(saved))
    assert told == [spool.depth] == [3]
    assert [(head.key, head.arrival) for head in await spool.heads(2)] == [(b"A", arrival()), (b"B", arrival())]


@pytest.mark.parametrize("number", ["NULL", "'x'", "4611686018427387904"])
async def test_a_damaged_file_with_a_garbled_count_is_taken_over_all_the_same(
    opened: Opener, tmp_path: Path, number: str
) -> None:
    spool = await opened()
    await spool.put(b"A", arrival())
    await spool.close()
    with closing(sqlite3.connect(tmp_path / "spool.db")) as database:
        database.execute(f"UPDATE sqlite_sequence SET seq = {number}")
        database.execute("ALTER TABLE notification RENAME COLUMN key TO kex")
        database.commit()
    told: list[int] = []
    spool = await opened(damaged=lambda _, saved: told.append(saved))
    assert told == [spool.depth] == [1]


async def test_what_is_stored_as_another_type_is_what_was_put(opened: Opener, tmp_path: Path) -> None:
    spool = await opened()
    await spool.put(b"A", arrival())
    await spool.close()
    with closing(sqlite3.connect(tmp_path / "spool.db")) as database:  # one bit tells text from bytes
        database.execute("UPDATE notification SET key = CAST(key AS TEXT), body = CAST(body AS TEXT)")
        database.execute("UPDATE notification SET received_at = x'ff'")
        database.commit()
    spool = await opened()
    assert spool.oldest() > 0
    (head,) = await spool.heads(1)
    assert (head.key, head.arrival) == (b"A", arrival())


async def test_damage_within_the_file_is_found_at_the_start(opened: Opener, tmp_path: Path) -> None:
    spool = await opened()
    for number in range(50):
        await spool.put(b"%d" % number, arrival(b"x" * 2000))
    await spool.close()
    file = tmp_path / "spool.db"
    content = bytearray(file.read_bytes())
    content[4096:12288] = b"\xff" * 8192  # the roots of its tables
    file.write_bytes(content)
    told: list[int] = []
    spool = await opened(damaged=lambda _, saved: told.append(saved))
    assert told == [0]
    assert spool.depth == 0


async def test_what_is_readable_of_a_damaged_file_is_taken_over_in_its_order(opened: Opener, tmp_path: Path) -> None:
    spool = await opened()
    for number in range(50):
        await spool.put(b"%d" % (number % 25), arrival(b"%d " % number + b"x" * 2000))
    await spool.drop([spooled.number for spooled in await spool.heads(5)])
    await spool.close()
    file = tmp_path / "spool.db"
    content = bytearray(file.read_bytes())
    content[20 * 4096 : 22 * 4096] = b"\xff" * 8192
    file.write_bytes(content)
    told: list[int] = []
    spool = await opened(damaged=lambda _, saved: told.append(saved))
    assert told == [spool.depth]
    assert 35 <= spool.depth < 45
    seen: list[int] = []
    while heads := await spool.heads(100):
        seen += [int(head.arrival.delivery.body.split()[0]) for head in heads]
        await spool.drop([head.number for head in heads])
    assert set(seen) < set(range(5, 50)), "what was published is not taken over"
    assert all(seen.index(n) < seen.index(n + 25) for n in range(25) if {n, n + 25} <= set(seen))
    await spool.put(b"A", arrival())
    assert (await spool.heads(1))[0].number == 51


FACTS = '{"path": %s, "content_type": null, "soap_action": null, "received_at": "%s", "address": "", %s}'
REST = '"subject": null, "traceparent": null'


@pytest.mark.parametrize(
    ("column", "content"),
    [
        *(
            ("facts", text)
            for text in ("", "{}", "[1]", "null", b"\xff", '{"received_at": 1}', '{"received_at": "once"}')
        ),
        ("facts", FACTS % ("null", "2026-01-31T12:00:00Z", REST)),
        ("facts", FACTS % ('"/"', "2026-01-31T12:00:00", REST)),
        ("facts", FACTS % ('"/"', "2026-01-31T12:00:00Z", REST.replace("null", "7", 1))),
        ("body", 7),
    ],
)
async def test_one_that_is_not_readable_stays_and_keeps_nobody(
    opened: Opener, tmp_path: Path, column: str, content: str | bytes | int
) -> None:
    spool = await opened()
    for key in (b"A", b"B", b"A"):
        await spool.put(key, arrival())
    await spool.close()
    with closing(sqlite3.connect(tmp_path / "spool.db")) as database:
        database.execute(f"UPDATE notification SET {column} = ? WHERE number < 3", (content,))
        database.commit()
    told: list[int] = []
    spool = await opened(unreadable=lambda number, _: told.append(number))
    (head,) = await spool.heads(100)
    assert (head.key, head.number, told) == (b"A", 3, [1, 2])
    await spool.drop([3])
    assert (spool.depth, spool.size, await spool.heads(100)) == (0, 0, [])
    spool = await opened(unreadable=lambda number, _: told.append(number))
    assert spool.depth == 2
    assert await spool.heads(100) == []
    assert told == [1, 2, 1, 2]
    assert not spool.holds(b"A")


async def test_a_disk_that_can_not_be_read_for_a_moment_makes_nothing_unreadable(opened: Opener) -> None:
    told: list[int] = []
    spool = await opened(unreadable=lambda number, _: told.append(number))
    await spool.put(b"A", arrival())
    assert spool._database is not None
    spool._database.set_progress_handler(lambda: 1, 1)  # SQLite then answers as if it had been interrupted
    with pytest.raises(Unavailable, match="interrupted"):
        await spool.heads(1)
    spool._database.set_progress_handler(None, 1)
    assert [head.arrival for head in await spool.heads(1)] == [arrival()]
    assert told == []


async def test_what_nobody_expected_is_told_to_who_waits_and_the_spool_goes_on(opened: Opener) -> None:
    spool = await opened()
    with pytest.raises(Unavailable, match="OverflowError"):
        await spool.drop([2**63])  # longer than SQLite's numbers
    await spool.put(b"A", arrival())
    assert spool.depth == 1


async def test_of_long_ones_few_are_given_out_at_once(opened: Opener) -> None:
    spool = await opened(max_bytes=64 * 1024**2)
    for number in range(10):
        await spool.put(b"T-%d" % number, arrival(b"x" * 2 * 1024**2))
    given = []
    while heads := await spool.heads(100):
        assert len(heads) <= 4
        given += [head.key for head in heads]
        await spool.drop([head.number for head in heads])
    assert given == [b"T-%d" % number for number in range(10)]


async def test_one_that_stays_does_not_keep_the_others(opened: Opener) -> None:
    spool = await opened(max_bytes=64 * 1024**2)
    await spool.put(b"long", arrival(b"x" * 10 * 1024**2))
    await spool.put(b"next", arrival())
    assert [head.key for head in await spool.heads(100)] == [b"long"]
    assert [head.key for head in await spool.heads(100)] == [b"next"]
    assert [head.key for head in await spool.heads(100)] == [b"long"]


async def test_a_second_process_cannot_have_it(opened: Opener, processes: Processes, tmp_path: Path) -> None:
    spool = await opened()
    await spool.put(b"A", arrival())
    with pytest.raises(Stop, match=r"SPOOL__PATH: .* can't be used .database is locked"):
        SqliteSpool(tmp_path / "spool.db", max_bytes=1, damaged=lambda _, __: None, unreadable=lambda _, __: None)
    other = processes.start(
        sys.executable,
        "-c",
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT count(*) FROM notification')",
        str(tmp_path / "spool.db"),
    )
    assert await other.ended() == 1
    assert "locked" in other.output


async def test_a_folder_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"SPOOL__PATH: .* can't be used .No such file or directory"):
        SqliteSpool(
            tmp_path / "nowhere" / "spool.db", max_bytes=1, damaged=lambda _, __: None, unreadable=lambda _, __: None
        )


async def test_a_folder_in_the_place_of_the_file_stops_the_start_and_is_left_as_it_was(tmp_path: Path) -> None:
    before = rights(tmp_path)
    with pytest.raises(Stop, match=r"SPOOL__PATH: .* can't be used .Is a directory"):
        SqliteSpool(tmp_path, max_bytes=1, damaged=lambda _, __: None, unreadable=lambda _, __: None)
    assert rights(tmp_path) == before


async def test_a_file_that_is_out_of_reach_as_soon_as_it_was_opened_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"no database at all" * 1000)

    def lost(_: Path, __: int) -> None:
        path.unlink()
        path.symlink_to(path)

    with pytest.raises(Stop, match=r"SPOOL__PATH.* symbolic links"):
        SqliteSpool(path, max_bytes=1, damaged=lost, unreadable=lambda _, __: None)


async def test_the_age_is_that_of_the_oldest_arrival(opened: Opener) -> None:
    spool = await opened()
    assert spool.oldest() == 0
    now = datetime.now(UTC)
    await spool.put(b"A", arrival(at=now))
    await spool.put(b"B", arrival(at=now - timedelta(minutes=5)))
    assert 300 <= spool.oldest() < 310


async def test_every_put_survives_kill_9(processes: Processes, opened: Opener, tmp_path: Path) -> None:
    """What the process had said was kept is there afterwards, in order."""
    writer = processes.start(
        sys.executable,
        "-c",
        """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from adapter.core.notification import Delivery
from adapter.ports import Arrival, Caller
from adapter.transport.spool import SqliteSpool

async def main():
    spool = SqliteSpool(Path(sys.argv[1]), max_bytes=10**9, damaged=print, unreadable=print)
    async def lane(key):
        for number in range(10**9):
            await spool.put(key, Arrival(Delivery(b"%d" % number, datetime.now(UTC)), Caller("", None)))
            print(key.decode(), number, flush=True)
    await asyncio.gather(*(lane(b"K%d" % n) for n in range(8)))

asyncio.run(main())
""",
        str(tmp_path / "spool.db"),
    )
    await writer.ready(lambda writer: len(writer.output) > 4000)
    writer.kill()
    told: dict[bytes, int] = {}
    for line in writer.output.splitlines():
        key, _, number = line.partition(" ")
        if number.isdigit():
            told[key.encode()] = max(told.get(key.encode(), -1), int(number))
    spool = await opened()
    kept: dict[bytes, list[int]] = {}
    while heads := await spool.heads(100):
        for head in heads:
            kept.setdefault(head.key, []).append(int(head.arrival.delivery.body))
        await spool.drop([head.number for head in heads])
    assert told
    for lane, last in told.items():
        assert kept[lane] == list(range(len(kept[lane])))
        assert len(kept[lane]) > last


async def test_what_is_kept_survives_a_power_failure_as_sqlite_promises_it(opened: Opener) -> None:
    spool = await opened()
    assert spool._database is not None
    # A killed process leaves its writes to the kernel: only these say that each commit waits for the disk.
    assert spool._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert spool._database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


async def test_an_empty_spool_has_forgotten_everybody(opened: Opener, tmp_path: Path) -> None:
    spool = await opened()
    await spool.put(b"A", arrival(b"Zoe Angstrom"))
    assert b"Zoe" in contents(tmp_path)
    (head,) = await spool.heads(1)
    await spool.drop([head.number])
    assert b"Zoe" not in contents(tmp_path)


def contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())
