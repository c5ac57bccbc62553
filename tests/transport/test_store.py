"""The tickets of a partition, on a real disk."""

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from adapter.core.errors import Stop, Unavailable
from adapter.ports import Checkpoint, TicketRecord
from adapter.transport.store import SqliteStore, SqliteStores
from tests.support.disk import no_file_beyond
from tests.support.processes import Processes

Opener = Callable[..., Awaitable[SqliteStore]]
SETTING = "ADAPTER_PROJECTOR__STORE"
AT = Checkpoint("life-1", 10)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens a store as a new process would; those before are closed first."""
    running: list[SqliteStores] = []
    stores: list[SqliteStore] = []
    told: list[Path] = []

    async def close() -> None:
        while stores:
            await stores.pop().close()
        while running:
            running.pop().close()

    async def open_store(partition: int = 3, identity: str = "one", damaged: list[Path] = told) -> SqliteStore:
        await close()
        running.append(SqliteStores(tmp_path / "tickets", setting=SETTING, cache=1024**2, damaged=damaged.append))
        stores.append(await running[-1].open(partition, identity))
        return stores[-1]

    yield open_store
    await close()
    assert not told


def kept(name: str, value: str = "v", due: int | None = None) -> TicketRecord:
    return TicketRecord(name.encode(), value.encode(), due)


async def test_what_was_saved_is_there_after_a_restart_with_the_name_of_its_transaction(opened: Opener) -> None:
    store = await opened()
    assert store.checkpoint is None
    await store.save([kept("a", "1"), kept("b", "2", due=7)], AT)
    await store.save([kept("a", "3"), TicketRecord(b"b", None)], Checkpoint("life-2", 10))
    store = await opened()
    assert store.checkpoint == Checkpoint("life-2", 10)
    assert await store.find([b"a", b"b", b"c"]) == {b"a": b"3"}
    assert await store.count() == 1


async def test_many_keys_are_found_at_once(opened: Opener) -> None:
    store = await opened()
    await store.save([kept(str(number), str(number)) for number in range(3000)], AT)
    found = await store.find([str(number).encode() for number in range(0, 4000, 2)])
    assert found == {str(number).encode(): str(number).encode() for number in range(0, 3000, 2)}
    assert await store.find([]) == {}


async def test_what_is_due_comes_the_first_ones_first(opened: Opener) -> None:
    store = await opened()
    await store.save([kept("late", due=30), kept("never"), kept("first", due=10), kept("then", due=20)], AT)
    assert [k.key for k in await store.due(20, 10)] == [b"first", b"then"]
    assert [k.key for k in await store.due(99, 1)] == [b"first"]
    await store.save([kept("first"), kept("then", due=40)], AT)
    assert await store.due(20, 10) == []
    assert [k.key for k in await store.due(99, 10)] == [b"late", b"then"]


async def test_the_last_of_several_of_a_key_counts(opened: Opener) -> None:
    store = await opened()
    await store.save([kept("a", "1"), kept("a", "2"), kept("b"), TicketRecord(b"b", None)], AT)
    assert await store.find([b"a", b"b"]) == {b"a": b"2"}


async def test_what_is_loaded_is_complete_only_once_that_was_said(opened: Opener) -> None:
    store = await opened()
    store.load([kept("a", "1"), kept("b")])
    store.load([kept("a", "2"), TicketRecord(b"b", None)])
    assert (await opened()).checkpoint is None
    store = await opened()
    assert await store.find([b"a", b"b"]) == {b"a": b"2"}
    await store.save((), AT)
    assert (await opened()).checkpoint == AT


async def test_what_is_loaded_has_reached_the_disk_before_it_is_called_complete(opened: Opener, tmp_path: Path) -> None:
    store = await opened()
    store.load([kept("a", "loaded")])
    assert store._database.execute("PRAGMA synchronous").fetchone() == (0,), "OFF"
    await store.save((), AT)
    # After a power failure the log would otherwise have the mark, perhaps, and not what was loaded before it.
    (path,) = (tmp_path / "tickets").glob("tickets-3-*.db")
    assert b"loaded" in path.read_bytes()
    assert store._database.execute("PRAGMA synchronous").fetchone() == (1,), "NORMAL"


async def test_what_is_loaded_on_top_of_what_is_complete_leaves_it_so(opened: Opener) -> None:
    store = await opened()
    await store.save([kept("a", "1")], AT)
    store.load([kept("b", "2")])
    store = await opened()
    assert store.checkpoint == AT
    assert await store.find([b"a", b"b"]) == {b"a": b"1", b"b": b"2"}


async def test_a_cleared_store_is_empty_and_says_so(opened: Opener) -> None:
    store = await opened()
    await store.save([kept("a", due=1)], AT)
    await store.clear()
    assert (store.checkpoint, await store.count(), await store.due(9, 9)) == (None, 0, [])
    assert (await opened()).checkpoint is None


async def test_a_store_of_another_cluster_topic_or_group_is_not_used(opened: Opener) -> None:
    await (await opened(identity="one")).save([kept("a")], AT)
    store = await opened(identity="other")
    assert (store.checkpoint, await store.count()) == (None, 0)
    assert (await opened(identity="one")).checkpoint is None  # it was removed: it would grow old unseen


async def test_partitions_have_stores_of_their_own(opened: Opener) -> None:
    await (await opened(partition=1)).save([kept("a")], AT)
    await (await opened(partition=11)).save([kept("b")], Checkpoint("life-11", 1))
    assert (await opened(partition=1)).checkpoint == AT


async def test_only_we_may_read_it(opened: Opener, tmp_path: Path) -> None:
    store = await opened()
    await store.save([kept("a")], AT)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tickets").iterdir()} == {0o600}
    assert (tmp_path / "tickets").stat().st_mode & 0o777 == 0o700


async def test_two_processes_can_not_share_a_folder(tmp_path: Path) -> None:
    with (
        closing(SqliteStores(tmp_path, setting=SETTING, cache=1024**2, damaged=lambda _: None)),
        pytest.raises(Stop, match="in use by another process"),
    ):
        SqliteStores(tmp_path, setting=SETTING, cache=1024**2, damaged=lambda _: None)


@pytest.mark.parametrize("damage", [b"not a database at all", b""], ids=["foreign", "empty"])
async def test_a_file_that_is_no_database_is_made_anew(opened: Opener, tmp_path: Path, damage: bytes) -> None:
    await (await opened()).save([kept("a")], AT)
    await opened(partition=4)  # lets go of the first
    (path,) = (tmp_path / "tickets").glob("tickets-3-*.db")
    path.write_bytes(damage)
    told: list[Path] = []
    store = await opened(damaged=told)
    assert (store.checkpoint, await store.count()) == (None, 0)
    assert told == ([path] if damage else [])


def unknown_format(content: bytes) -> bytes:
    return content[:44] + b"\0\0\0\x09" + content[48:]


def garbled_schema(content: bytes) -> bytes:
    return content.replace(b"CREATE TABLE", b"CREATE \xff\xff\xff\xff\xff")


def renamed_column(content: bytes) -> bytes:
    return content.replace(b"mark (name TEXT PRIMARY KEY, value)", b"mark (name TEXT PRIMARY KEY, valuf)")


@pytest.mark.parametrize("damage", [unknown_format, garbled_schema, renamed_column])
async def test_a_database_that_says_it_is_of_another_form_is_made_anew(
    opened: Opener, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    await (await opened()).save([kept("a")], AT)
    await opened(partition=4)
    (path,) = (tmp_path / "tickets").glob("tickets-3-*.db")
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert path.read_bytes() != sound
    told: list[Path] = []
    store = await opened(damaged=told)
    assert (store.checkpoint, await store.count()) == (None, 0)
    assert told == [path]


def find(store: SqliteStore) -> Awaitable[object]:
    return store.find([b"a"])


def due(store: SqliteStore) -> Awaitable[object]:
    return store.due(10, 10)


@pytest.mark.parametrize(
    ("damage", "look"),
    [
        ("value = CAST(value AS TEXT)", find),  # that is one bit
        ("value = CAST(value AS TEXT)", due),
        ("value = 7", find),
        ("key = CAST(key AS TEXT)", due),
        ("due = 1.5", due),
    ],
)
async def test_a_ticket_that_is_stored_as_another_type_is_damage(
    opened: Opener, tmp_path: Path, damage: str, look: Callable[[SqliteStore], Awaitable[object]]
) -> None:
    await (await opened()).save([kept("a", due=7)], AT)
    await opened(partition=4)
    (path,) = (tmp_path / "tickets").glob("tickets-3-*.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE ticket SET {damage}")
        database.commit()
    store = await opened()
    with pytest.raises(Stop, match="is damaged; start again"):
        await look(store)
    assert not path.exists()


@pytest.mark.parametrize("value", ["NULL", "'9'", "9.5", "x'39'"])
async def test_a_store_whose_marks_are_of_another_type_is_not_complete(
    opened: Opener, tmp_path: Path, value: str
) -> None:
    await (await opened()).save([kept("a")], AT)
    await opened(partition=4)
    (path,) = (tmp_path / "tickets").glob("tickets-3-*.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE mark SET value = {value} WHERE name = 'tickets'")
        database.commit()
    assert (await opened()).checkpoint is None


async def test_damage_that_shows_while_it_works_removes_the_file_and_stops(opened: Opener, tmp_path: Path) -> None:
    await (await opened()).save([kept(str(n), "x" * 500) for n in range(2000)], AT)
    await opened(partition=4)
    (path,) = (tmp_path / "tickets").glob("tickets-3-*.db")
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half:] = os.urandom(len(content) - half)
    path.write_bytes(content)
    store = await opened()
    with pytest.raises(Stop, match="is damaged; start again"):
        await store.find([str(n).encode() for n in range(2000)])
    assert not path.exists()
    assert (await opened()).checkpoint is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
async def test_a_full_disk_is_told_what_was_there_is_kept_and_with_room_it_goes_on(opened: Opener) -> None:
    store = await opened()
    await store.save([kept("a", "1")], AT)
    more, then = [kept(str(n), "x" * 1000) for n in range(2000)], Checkpoint("life-2", 20)
    with no_file_beyond(256 * 1024):
        for _ in range(2):
            with pytest.raises(Unavailable, match="give a folder on a local disk with room"):
                await store.save(more, then)
        assert store.checkpoint == AT
        assert await store.count() == 1
    await store.save(more, then)
    store = await opened()
    assert store.checkpoint == then
    assert await store.count() == 2001


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
async def test_a_store_that_could_not_be_cleared_on_a_full_disk_is_not_complete_and_cleared_with_room(
    opened: Opener,
) -> None:
    store = await opened()
    await store.save([kept(str(n), "x" * 1000) for n in range(2000)], AT)
    store = await opened()
    with no_file_beyond(1):
        for _ in range(2):
            with pytest.raises(Unavailable, match="give a folder on a local disk with room"):
                await store.clear()
        assert store.checkpoint is None
    await store.clear()
    await store.save([kept("a")], AT)
    assert await store.count() == 1


async def test_in_a_folder_that_was_removed_meanwhile_a_partition_that_comes_back_is_kept_anew(tmp_path: Path) -> None:
    """As by what removes old files from the folder for temporary ones."""
    with closing(SqliteStores(tmp_path / "tickets", setting=SETTING, cache=1024**2, damaged=lambda _: None)) as stores:
        store = await stores.open(3, "one")
        await store.save([kept("a")], AT)
        shutil.rmtree(tmp_path / "tickets")
        await store.save([kept("b")], AT)
        assert await store.count() == 2
        await store.close()

        store = await stores.open(3, "one")
        assert store.checkpoint is None
        await store.save([kept("c")], AT)
        assert await store.count() == 1
        await store.close()


def test_a_folder_that_can_not_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Stop, match=r"ADAPTER_PROJECTOR__STORE: .*/file/tickets can't be used"):
        SqliteStores(tmp_path / "file" / "tickets", setting=SETTING, cache=1024**2, damaged=lambda _: None)


def test_a_machine_without_room_for_a_temporary_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> list[str]:
        return ["/proc/none"]

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", nowhere)
    with pytest.raises(Stop, match=r"ADAPTER_PROJECTOR__STORE: a temporary folder can't be had .*'/proc/none'"):
        SqliteStores(None, setting=SETTING, cache=1024**2, damaged=lambda _: None)


def test_without_a_folder_a_temporary_one_is_used_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stores = SqliteStores(None, setting=SETTING, cache=1024**2, damaged=lambda _: None)
    assert len(list(tmp_path.iterdir())) == 1
    stores.close()
    assert not list(tmp_path.iterdir())


_KILLED = """
import os, signal, sys
from adapter.transport.store import SqliteStores
SqliteStores(None, setting="X", cache=0, damaged=print)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_what_a_killed_process_left_in_the_temporary_folder_is_removed_what_lives_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Processes
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = SqliteStores(None, setting=SETTING, cache=1024**2, damaged=lambda _: None)
    killed = processes.start(sys.executable, "-c", _KILLED, env={"TMPDIR": str(tmp_path)})
    assert await killed.ended() == -9
    assert len(_left(tmp_path)) == 2
    SqliteStores(None, setting=SETTING, cache=1024**2, damaged=lambda _: None).close()
    assert _left(tmp_path) == [living._folder]
    living.close()


def test_the_temporary_folder_of_a_process_that_is_just_starting_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    starting = tmp_path / "fault-adapter-tickets-x"
    starting.mkdir()  # its lock comes next
    SqliteStores(None, setting=SETTING, cache=1024**2, damaged=lambda _: None).close()
    assert _left(tmp_path) == [starting]


def _left(folder: Path) -> list[Path]:
    return list(folder.glob("fault-adapter-*"))


_SAVING = """
import asyncio, sys
from pathlib import Path
from adapter.ports import Checkpoint, TicketRecord
from adapter.transport.store import SqliteStores

async def main():
    store = await SqliteStores(Path(sys.argv[1]), setting="X", cache=0, damaged=print).open(3, "one")
    for number in range(10**6):
        tickets = [TicketRecord(b"%d" % each, b"%d" % number) for each in range(50)]
        await store.save(tickets, Checkpoint(str(number), number))
        print(number, flush=True)

asyncio.run(main())
"""


async def test_kill_9_leaves_one_whole_transaction_none_half(
    opened: Opener, tmp_path: Path, processes: Processes
) -> None:
    process = processes.start(sys.executable, "-c", _SAVING, str(tmp_path / "tickets"))
    await process.ready(lambda p: len(p.output.splitlines()) > 50)
    process.kill()
    told = int(process.output.splitlines()[-2])
    store = await opened()
    assert store.checkpoint is not None
    number = int(store.checkpoint.transaction)
    assert number >= told
    assert set((await store.find([b"%d" % each for each in range(50)])).values()) == {b"%d" % number}
