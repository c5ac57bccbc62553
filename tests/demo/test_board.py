"""What the demo judges: nothing missing, nothing extra, in this order, with so many requests."""

import asyncio
import io
import re

import pytest

from adapter.demo.board import Board, Sending, Unexpected, problems
from adapter.demo.display import Display
from adapter.transport.kafka.client import Sent

DOUBT = ("CommandOutcomeUnknown: reset", "CommandSettled: undetermined")


def sending(*expected: str, requests: int = 1) -> Sending:
    return Sending("SP-1", "AddFaultReport", expected, requests, "m-1", Sent("commands", b"SP-1", b""))


def judged(*seen: str, expected: tuple[str, ...], requests: int = 1) -> list[str]:
    board = Board()
    board.enter("c-1", sending(*expected))
    for text in seen:
        board.saw("c-1", text, {})
    return problems(board, {"m-1": requests})


def test_all_as_expected_is_no_problem() -> None:
    assert judged(*DOUBT, expected=DOUBT) == []


@pytest.mark.parametrize(
    "seen",
    [
        (),
        DOUBT[:1],
        DOUBT[::-1],
        (*DOUBT, DOUBT[1]),
        ("FaultReportAdded: Pending",),
    ],
    ids=["nothing", "one is missing", "another order", "one too many", "another outcome"],
)
def test_anything_else_is_named(seen: tuple[str, ...]) -> None:
    (problem,) = judged(*seen, expected=DOUBT)
    assert problem.startswith("SP-1: AddFaultReport: expected CommandOutcomeUnknown: reset, then CommandSettled")
    assert problem.endswith("seen " + (", then ".join(seen) or "nothing"))


@pytest.mark.parametrize("requests", [0, 2])
def test_a_request_that_is_missing_or_repeated_is_named(requests: int) -> None:
    found = judged(*DOUBT, expected=DOUBT, requests=requests)
    assert found == [f"SP-1: AddFaultReport: the supplier got {requests} requests, expected 1"]


def test_an_outcome_of_nothing_that_was_sent_is_named() -> None:
    board = Board()
    assert board.saw("c-9", "FaultReportAdded", {}) is None
    assert problems(board, {}) == ["an outcome of nothing that was sent: FaultReportAdded"]


async def test_a_scene_waits_for_the_last_outcome_and_gets_its_record() -> None:
    board = Board()
    board.enter("c-1", sending(*DOUBT))
    ending = asyncio.create_task(board.sendings["c-1"].end())
    board.saw("c-1", DOUBT[0], {"n": 1})
    await asyncio.sleep(0)
    assert not ending.done()
    assert not board.decided
    board.saw("c-1", DOUBT[1], {"n": 2})
    assert await ending == {"n": 2}
    assert board.decided


async def test_a_scene_is_broken_off_by_another_outcome() -> None:
    board = Board()
    board.enter("c-1", sending(*DOUBT))
    board.saw("c-1", "FaultReportAdded: Pending", {})
    with pytest.raises(Unexpected, match="SP-1: AddFaultReport: FaultReportAdded: Pending"):
        await board.sendings["c-1"].end()
    assert board.decided


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "no_color", "coloured"),
    [(Terminal(), "", True), (Terminal(), "1", False), (io.StringIO(), "", False)],
    ids=["a terminal", "NO_COLOR", "a pipe"],
)
def test_colour_is_for_terminals_that_want_it(
    out: io.StringIO, no_color: str, monkeypatch: pytest.MonkeyPatch, *, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    Display(out).event("SP-1", "CommandRejected by supplier: 409", "in use")
    assert ("\033[" in out.getvalue()) is coloured


def test_the_timeline_is_aligned() -> None:
    out = io.StringIO()
    display = Display(out)
    display.sent("SP-1", "AddFaultReport", "x")
    display.event("SP-1001", "CommandRejected by supplier: 409", "x")
    first, second = out.getvalue().splitlines()
    assert first.index("->") == second.index("<-")
    assert first.index(" x") == second.index(" x")


def test_the_summary_shows_what_was_seen_instead() -> None:
    board, out = Board(), io.StringIO()
    board.enter("c-1", sending("FaultReportAdded: Pending"))
    board.saw("c-1", "CommandRejected by supplier: 409", {})
    Display(out).summary(board, {"m-1": 2})
    cells = re.split(r"\s{2,}", out.getvalue().splitlines()[1])
    assert cells == [
        "SP-1",
        "AddFaultReport",
        "FaultReportAdded: Pending",
        "CommandRejected by supplier: 409",
        "2, expected 1",
    ]
