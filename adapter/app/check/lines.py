"""The result of a check: lines, each about one thing that was examined."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adapter.core.errors import Stop

LIMIT: Final = 5.0
"""Seconds to wait for one answer."""


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was examined. `fix` says what to do, if there is something to do."""

    subject: str
    verdict: Verdict
    said: str
    fix: str = ""


def problems(subject: str, stop: Stop, fix: str = "") -> Iterator[Line]:
    """A failed line for each problem. A problem of the form "what; remedy" brings its own fix; others get `fix`."""
    for problem in stop.problems:
        said, _, own = problem.rpartition("; ")
        yield Line(subject, Verdict.FAILED, said or problem, own if said else fix)
