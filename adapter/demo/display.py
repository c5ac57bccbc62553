"""The demo's output: aligned columns, with colour on a terminal that wants it, readable without."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, TextIO

from adapter.demo.board import Board, received


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
_WHAT: Final = 38
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

    def supplier(self, ticket: str, what: str) -> None:
        """What happens at the supplier and not on the bus."""
        self._line("supplier", ticket, f"supplier: {what}", "", Ink.SUPPLIER)

    def summary(self, board: Board, requests: Mapping[str, int]) -> None:
        """Expected against seen, a row for each outcome."""
        rows: list[tuple[str, str, str, str, str]] = []
        for sending in sorted(board.sendings.values(), key=lambda each: each.ticket):
            got = received(sending, requests)
            asked = str(got) if got == sending.requests else f"{got}, expected {sending.requests}"
            for place in range(max(len(sending.expected), len(sending.seen), 1)):
                expected, seen = _at(sending.expected, place), _at(sending.seen, place)
                row = (expected or "nothing", _AS_EXPECTED if expected == seen else seen or "nothing")
                first = (sending.ticket, sending.what, *row, asked)
                rows.append(first if place == 0 else ("", "", *row, ""))
        rows += [("", "", "nothing", text, "") for text in board.strays]
        self._table(("ticket", "sent", "expected", "seen", "requests"), rows)

    def _table(self, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        self.say("  ".join(name.ljust(width) for name, width in zip(head, widths, strict=True)).rstrip(), Ink.FAINT)
        for row in rows:
            good = row[3] == _AS_EXPECTED and "expected" not in row[4]
            cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
            cells[3] = self._paint(cells[3], Ink.GOOD if good else Ink.BAD)
            self.say("  ".join(cells).rstrip())

    def _line(self, kind: str, ticket: str, what: str, note: str, ink: Ink) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        head = self._paint(f"{now - self._began:7.3f} s", Ink.FAINT)
        room = " " * (_WHAT - len(what))
        self.say(f"{head}  {ticket:<8} {_ARROWS[kind]} {self._paint(what, ink)}{f'{room} {note}' if note else ''}")

    def _paint(self, text: str, ink: Ink) -> str:
        return f"\033[{ink}m{text}\033[0m" if self._coloured and ink is not Ink.PLAIN else text


def _at(lines: Sequence[str], place: int) -> str:
    return lines[place] if place < len(lines) else ""


def _ink(outcome: str) -> Ink:
    match outcome.partition(":")[0].split()[0]:
        case "CommandRejected" | "dead":
            return Ink.BAD
        case "CommandOutcomeUnknown" | "CommandSettled":
            return Ink.DOUBT
        case _:
            return Ink.GOOD
