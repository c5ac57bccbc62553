"""What the demo judges: nothing missing, nothing extra, in this order, with so many requests."""

import asyncio
import io
import re

import pytest

from adapter.demo.board import Board, State, Step, Unexpected
from adapter.demo.display import Display

DOUBT = ("CommandOutcomeUnknown: reset", "CommandSettled: undetermined")


def step(*expected: str, messages: int = 1) -> Step:
    return Step("SP-1", "AddFaultReport", expected, messages)


def judged(*seen: str, expected: tuple[str, ...], messages: int = 1) -> list[str]:
    board = Board()
    board.enter("c-1", step(*expected))
    for text in seen:
        board.saw("c-1", text, {})
    return board.problems({"c-1": messages})


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


@pytest.mark.parametrize("messages", [0, 2])
def test_a_message_that_is_missing_or_repeated_is_named(messages: int) -> None:
    found = judged(*DOUBT, expected=DOUBT, messages=messages)
    assert found == [f"SP-1: AddFaultReport: {messages} messages to or from the supplier, expected 1"]


def test_an_outcome_of_nothing_that_was_done_is_named() -> None:
    board = Board()
    assert board.saw("c-9", "FaultReportAdded", {}) is None
    assert board.problems({}) == ["an outcome of nothing that was done: FaultReportAdded"]


def test_an_event_that_comes_twice_is_named() -> None:
    board = Board()
    for identifier in ("one", "other", "one"):
        board.saw_event("SP-1", identifier)
    assert board.problems({}) == ["the event one came 2 times"]


@pytest.mark.parametrize(
    ("ticket", "told"),
    [
        (None, "has no state"),
        ({"status": "PENDING", "events": 2, "lateEvents": 1}, "is PENDING after 2 events, 1 of them late"),
        ({"status": "CLOSED", "events": 1, "lateEvents": 1}, "is CLOSED after 1 events, 1 of them late"),
        ({"status": "CLOSED", "events": 2, "lateEvents": 0}, "is CLOSED after 2 events, 0 of them late"),
        ({"status": "CLOSED", "events": 2, "lateEvents": 1}, None),
    ],
)
def test_a_ticket_that_does_not_stand_as_it_should_is_named(ticket: dict[str, object] | None, told: str | None) -> None:
    board = Board()
    board.states["SP-1"] = State("CLOSED", late=1)
    for identifier in ("one", "other"):
        board.saw_event("SP-1", identifier)
    if ticket is not None:
        board.tickets["SP-1"] = ticket
    expected = [f"SP-1: {told}, expected CLOSED after 2 events, 1 of them late"] if told else []
    assert board.problems({}) == expected
    assert board.decided is (told is None)


async def test_a_scene_waits_for_the_last_outcome_and_gets_its_record() -> None:
    board = Board()
    board.enter("c-1", step(*DOUBT))
    ending = asyncio.create_task(board.steps["c-1"].end())
    board.saw("c-1", DOUBT[0], {"n": 1})
    await asyncio.sleep(0)
    assert not ending.done()
    assert not board.decided
    board.saw("c-1", DOUBT[1], {"n": 2})
    assert await ending == {"n": 2}
    assert board.decided


async def test_a_scene_is_broken_off_by_another_outcome() -> None:
    board = Board()
    board.enter("c-1", step(*DOUBT))
    board.saw("c-1", "FaultReportAdded: Pending", {})
    with pytest.raises(Unexpected, match="SP-1: AddFaultReport: FaultReportAdded: Pending"):
        await board.steps["c-1"].end()
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


def test_the_summary_has_a_row_for_each_ticket_and_says_which_is_not_as_expected() -> None:
    board, out = Board(), io.StringIO()
    board.enter("c-1", step("FaultReportAdded: Pending"))
    board.enter("c-2", Step("SP-2", "AmendFaultReport", ("FaultReportAmended",), 1))
    board.saw("c-1", "CommandRejected by supplier: 409", {})
    board.saw("c-2", "FaultReportAmended", {})
    board.tickets["SP-2"] = {"status": "PENDING", "events": 1, "lateEvents": 0}
    messages = {"c-1": 2, "c-2": 1}
    Display(out).summary(board, board.problems(messages), messages)
    rows = [re.split(r"\s{2,}", line) for line in out.getvalue().splitlines()[1:]]
    assert rows == [
        ["SP-1", "1", "1", "2", "none", "no"],
        ["SP-2", "1", "1", "1", "PENDING", "1", "0", "as expected"],
    ]
