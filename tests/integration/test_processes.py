"""The processes of a test do as they are told and do not outlive it."""

import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Processes
from tests.support.wait import eventually

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop"))
print("up")
while True:
    time.sleep(60)
"""
IN_PIECES = """
import pathlib, sys, time
print("first\\naddress:", end="", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
print(" there", flush=True)
time.sleep(60)
"""
TICKING = """
import time
while True:
    print("tick")
    time.sleep(0.01)
"""


async def test_output_and_exit_code_are_seen(processes: Processes) -> None:
    process = processes.start(sys.executable, "-c", "import sys; print('out'); sys.exit('err')")
    assert await process.ended() == 1
    assert process.output.split() == ["out", "err"]


async def test_a_line_is_seen_once_it_is_whole(processes: Processes, tmp_path: Path) -> None:
    rest = tmp_path / "rest"
    process = processes.start(sys.executable, "-c", IN_PIECES, str(rest))
    await process.ready(lambda process: process.log.read_text() == "first\naddress:")
    assert process.output == "first\n"
    rest.touch()
    await process.ready(lambda process: process.output == "first\naddress: there\n")
    process.kill()


async def test_settings_of_the_outer_environment_are_not_seen(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTER_OUTER", "1")
    process = processes.start(
        sys.executable,
        "-c",
        "import os; print([name for name in os.environ if name.startswith('ADAPTER_')])",
        env={"ADAPTER_INNER": "1"},
    )
    await process.ended()
    assert process.output.strip() == "['ADAPTER_INNER']"


async def test_one_that_ends_before_it_is_ready_is_reported_with_its_output(processes: Processes) -> None:
    process = processes.start(sys.executable, "-c", "raise SystemExit('wrong settings')")
    with pytest.raises(AssertionError, match=r"ended with 1:\nwrong settings"):
        await process.ready(lambda process: "up" in process.output)


async def test_one_that_never_gets_ready_is_reported(processes: Processes) -> None:
    process = processes.start(sys.executable, "-c", TICKING)
    with pytest.raises(AssertionError, match=r"being ready did not hold within 0\.2 s"):
        await process.ready(lambda process: "up" in process.output, within=0.2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
async def test_a_frozen_one_stands_still_until_it_is_thawed(processes: Processes) -> None:
    process = processes.start(sys.executable, "-c", TICKING)
    await process.ready(lambda process: "tick" in process.output)
    process.freeze()
    await eventually(lambda: state_of(process.pid) == "T")
    before = len(process.output)
    assert len(process.output) == before
    process.thaw()
    await eventually(lambda: len(process.output) > before)


async def test_a_killed_one_says_by_which_signal(processes: Processes) -> None:
    process = processes.start(sys.executable, "-c", TICKING)
    process.kill()
    assert process.exit_code == -signal.SIGKILL


async def test_leaving_the_test_ends_even_one_that_refuses_to_stop(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        process = processes.start(sys.executable, "-c", STUBBORN)
        await process.ready(lambda process: "up" in process.output)
        process.send(signal.SIGTERM)
        await eventually(lambda: "asked to stop" in process.output)
        assert process.exit_code is None
    assert process.exit_code == -signal.SIGKILL


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent died")
async def test_nothing_outlives_a_test_run_that_was_killed(processes: Processes, tmp_path: Path) -> None:
    run = processes.start(
        sys.executable,
        "-c",
        "import sys, time; from pathlib import Path; from tests.support.processes import Processes;"
        "print(Processes(Path(sys.argv[1])).start('sleep', '1000').pid); time.sleep(1000)",
        str(tmp_path),
        env={"PYTHONPATH": str(ROOT)},
    )
    await run.ready(lambda run: run.output.strip())
    pid = int(run.output)
    await eventually(lambda: "sleep" in Path(f"/proc/{pid}/comm").read_text())
    run.kill()
    # A zombie is dead; whether its new parent takes note is not ours to say.
    await eventually(lambda: state_of(pid) in {"Z", "gone"}, what="the end of the grandchild")


def state_of(pid: int) -> str:
    """The state letter of proc(5), "gone" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
