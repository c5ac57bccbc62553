"""The demo's output: aligned columns, with colour on a terminal that wants it, readable without."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, TextIO

from adapter.core.wording import columns
from adapter.demo.board import Board


class Ink(StrEnum):
    """ANSI colours (ECMA-48 SGR)."""

    PLAIN = "0"
    FAINT = "2"
    BOLD = "1"
    GOOD = "32"
    BAD = "31"
    DOUBT = "33"
    SUPPLIER = "36"


_ARROWS: Final = {"sent": "->", "event": "<-", "supplier": "**"}
_WHAT: Final = 42
"""Width of the column that says what happened."""

_AS_EXPECTED: Final = "as expected"


class Display:
    """Prints lines; times count from the first line of the timeline."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        # https://no-color.org: any value but an empty one.
        self._coloured = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._began: float | None = None

    def say(self, text: str = "", ink: Ink = Ink.PLAIN) -> None:
        self._out.write(self._paint(text, ink) + "\n")
        self._out.flush()

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and what they stand for."""
        for name, text in rows:
            self.say(f"  {name:<11} {text}")

    def sent(self, ticket: str, what: str, note: str) -> None:
        self._line("sent", ticket, what, note, Ink.BOLD)

    def event(self, ticket: str, outcome: str, note: str) -> None:
        self._line("event", ticket, outcome, note, _ink(outcome))

    def supplier(self, ticket: str, what: str, note: str) -> None:
        """What happens at the supplier."""
        self._line("supplier", ticket, f"supplier: {what}", note, Ink.SUPPLIER)

    def summary(self, board: Board, problems: Sequence[str], messages: Mapping[str, int]) -> None:
        """What was done and what came of it, a row for each ticket."""
        rows = []
        wrong = {problem.partition(":")[0] for problem in problems}
        for reference in sorted({step.ticket for step in board.steps.values()}):
            steps = {key: step for key, step in board.steps.items() if step.ticket == reference}
            state = board.tickets.get(reference)
            row = (
                reference,
                str(len(steps)),
                str(sum(len(step.seen) for step in steps.values())),
                str(sum(messages.get(key, 0) for key in steps)),
                str(state["status"]) if state else "none",
                str(state["events"]) if state else "",
                str(state["lateEvents"]) if state else "",
                "no" if reference in wrong else _AS_EXPECTED,
            )
            rows.append(row)
        head = ("ticket", "steps", "outcomes", "messages", "state", "events folded", "late", "")
        lines = columns([head, *rows])
        self.say(lines[0], Ink.FAINT)
        for line, row in zip(lines[1:], rows, strict=True):
            good = row[-1] == _AS_EXPECTED
            self.say(f"{line.removesuffix(row[-1])}{self._paint(row[-1], Ink.GOOD if good else Ink.BAD)}")

    def _line(self, kind: str, ticket: str, what: str, note: str, ink: Ink) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        head = self._paint(f"{now - self._began:7.3f} s", Ink.FAINT)
        room = " " * (_WHAT - len(what))
        self.say(f"{head}  {ticket:<8} {_ARROWS[kind]} {self._paint(what, ink)}{f'{room} {note}' if note else ''}")

    def _paint(self, text: str, ink: Ink) -> str:
        return f"\033[{ink}m{text}\033[0m" if self._coloured and ink is not Ink.PLAIN else text


def _ink(outcome: str) -> Ink:
    match outcome.partition(":")[0].split()[0]:
        case "CommandRejected" | "dead" | "quarantined":
            return Ink.BAD
        case "CommandOutcomeUnknown" | "CommandSettled" | "ResolveDeadlineApproaching":
            return Ink.DOUBT
        case _:
            return Ink.GOOD
