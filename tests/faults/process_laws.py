"""Processes: they stay until they are killed or asked to leave, and within their memory."""

import signal
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
    """One that was asked before it had said a word was not there yet: the signal itself has ended it."""
    for ending in evidence.endings:
        if ending.asked:
            fine = ending.code == 0 or (ending.code == -signal.SIGTERM and not ending.output)
            yield None if fine else f"{ending.part} left with {ending.code}: {ending.output}"


def memory(evidence: Evidence) -> Iterator[str | None]:
    for part, peak in evidence.peaks.items():
        yield None if peak <= MOST else f"{part} took {peak / 1000**2:.0f} MB"
