"""Processes: they stay until they are killed or asked to leave, and within their memory."""

from collections.abc import Iterator
from typing import Final

from tests.faults.evidence import Evidence

MOST: Final = 250 * 1000**2
"""Bytes of memory."""


def stands(evidence: Evidence) -> Iterator[str | None]:
    for ending in evidence.endings:
        if not ending.asked:
            yield f"{ending.part} ended by itself with {ending.code}: {ending.output}"
        else:
            yield None


def leaves(evidence: Evidence) -> Iterator[str | None]:
    for ending in evidence.endings:
        if ending.asked:
            yield None if ending.code == 0 else f"{ending.part} left with {ending.code}: {ending.output}"


def memory(evidence: Evidence) -> Iterator[str | None]:
    for part, peak in evidence.peaks.items():
        yield None if peak <= MOST else f"{part} took {peak / 1000**2:.0f} MB"
