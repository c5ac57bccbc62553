"""The call log: every request the twin received, with times, from which repeats, order and overlaps can be verified."""

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from adapter.twin.lines import Log


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `received` and `finished` are seconds of the machine's monotonic clock (comparable between
    processes of one machine), taken when its head had arrived and just before the first byte of the answer left.
    """

    sequence: int
    received: float
    received_at: str
    """Wall clock, ISO 8601 in UTC."""

    operation: str
    """As the supplier spells it: "addFaultReport"; empty if the path names none."""

    key: str | None
    """buyerFaultReference, or the address key of the two appointment operations."""

    message_id: str | None
    connection: str
    """Peer address and port: the same for all requests of one connection."""

    fault: str | None = None
    """Kind of the fault on demand that was applied to it."""

    taken: bool = False
    """Whether the supplier processed it, whatever was answered."""

    verdict: str | None = None
    """accepted or refused; None if it was not taken."""

    answered: int | None = None
    """HTTP status of the answer; None if none was given."""

    finished: float | None = None


class CallLog(Log[Call]):
    """The calls of one twin. An entry is made when a request has been received, before it is answered, and changed when
    the twin is done with it.
    """

    def receive(
        self,
        *,
        received: float,
        operation: str,
        key: str | None,
        message_id: str | None,
        connection: str,
        fault: str | None,
        verdict: str | None,
    ) -> Call:
        """Enters a request that has been read and, if there is a verdict, processed."""
        call = Call(
            sequence=self.number(),
            received=received,
            received_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            operation=operation,
            key=key,
            message_id=message_id,
            connection=connection,
            fault=fault,
            taken=verdict is not None,
            verdict=verdict,
        )
        self.enter(call)
        return call

    def finish(self, call: Call, *, answered: int | None) -> None:
        """Enters that the twin is done with it; only the first time counts."""
        current = self.find(call.sequence)
        if current is not None and current.finished is None:
            self.enter(replace(call, answered=answered, finished=time.monotonic()))


def read(text: str) -> list[Call]:
    """The calls of a log file or of an answer of the control address, by sequence. A last line that was cut
    (the twin was killed while it wrote) is left out.
    """
    calls: dict[int, Call] = {}
    for entry in text.splitlines(keepends=True):
        if entry.endswith("\n"):
            call = Call(**json.loads(entry))
            calls[call.sequence] = call
    return [calls[number] for number in sorted(calls)]


def overlaps(calls: Iterable[Call]) -> list[tuple[Call, Call]]:
    """Pairs of requests of one key where the second came before the twin was done with the first."""
    lanes: defaultdict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda c: c.received):
        if call.key is not None:
            lanes[call.key].append(call)
    return [
        (first, second)
        for lane in lanes.values()
        for first, second in itertools.pairwise(lane)
        if first.finished is None or second.received < first.finished
    ]


def repeats(calls: Iterable[Call]) -> dict[str, int]:
    """Message ids that came more than once and how often each was taken."""
    seen: defaultdict[str, list[bool]] = defaultdict(list)
    for call in calls:
        if call.message_id is not None:
            seen[call.message_id].append(call.taken)
    return {message: sum(taken) for message, taken in seen.items() if len(taken) > 1}


def summary(calls: Iterable[Call]) -> dict[str, Any]:
    """Counts for a quick look: GET /twin/summary."""
    known = list(calls)
    times = [c.received for c in known]
    return {
        "requests": len(known),
        "keys": len({c.key for c in known if c.key is not None}),
        "repeated": len(repeats(known)),
        "overlaps": len(overlaps(known)),
        "seconds": max(times) - min(times) if times else 0.0,
    }
