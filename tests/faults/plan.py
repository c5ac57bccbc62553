"""The plan of a run: which fault befalls whom, when and for how long. Pure: a seed and a cast always give the same."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.faults.wire import Trouble


class Act(StrEnum):
    KILL = "kill"
    """SIGKILL; started again after `seconds`."""
    FREEZE = "freeze"
    """SIGSTOP, SIGCONT after `seconds`: longer than a session, it is a zombie when it wakes up."""
    STOP = "stop"
    """SIGTERM, which has to end it in good order; started again after `seconds`."""
    WIRE = "wire"
    """A trouble on a wire."""
    SUPPLIER = "supplier"
    """The supplier's own faults."""
    DISK = "disk"
    """No room on the disk of a server's spool."""


class Mood(StrEnum):
    """What the supplier does to a part of the requests, or to all."""

    UNAVAILABLE = "all 503"
    BUSY = "429 with Retry-After"
    RESET_BEFORE = "reset, not taken"
    RESET_AFTER = "reset, taken"
    SILENCE = "silence, taken"
    BROKEN = "half a reply"
    ERROR = "SOAP fault Server"
    SLOW = "2 s later"


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part, by name. A name is a role and mostly a number: "worker 2"."""

    parts: Sequence[str]
    wires: Sequence[str]
    disks: Sequence[str]


@dataclass(frozen=True, slots=True)
class Step:
    pause: float
    """Seconds since the step before."""
    act: Act
    target: str
    seconds: float
    how: str = ""
    """Of WIRE the trouble, of SUPPLIER what it does."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.act, self.target, self.how and f"({self.how})", f"{self.seconds:.1f} s")))


_WEIGHTS: Final = {
    (Act.KILL, "worker"): 12,
    (Act.KILL, "server"): 8,
    (Act.KILL, "projector"): 7,
    (Act.KILL, "broker"): 4,
    (Act.FREEZE, "worker"): 3,
    (Act.FREEZE, "server"): 1,
    (Act.FREEZE, "projector"): 1,
    (Act.FREEZE, "broker"): 1,
    (Act.FREEZE, "twin"): 1,
    (Act.STOP, "worker"): 2,
    (Act.STOP, "server"): 1,
    (Act.STOP, "projector"): 1,
    (Act.WIRE, ""): 6,
    (Act.SUPPLIER, "twin"): 3,
    (Act.DISK, ""): 1,
}
_SECONDS: Final = {
    Act.KILL: (0.0, 3.0),
    Act.FREEZE: (1.0, 14.0),
    Act.STOP: (0.0, 2.0),
    Act.WIRE: (1.0, 8.0),
    Act.SUPPLIER: (2.0, 8.0),
    Act.DISK: (2.0, 6.0),
}


_BRIEFLY: Final = {"twin": 2.0, "broker": 6.0}
"""A supplier that reads a request long after its caller has given up takes it all the same: no caller can help that."""


def seeded(seed: int, cast: Cast) -> Iterator[Step]:
    """Without end."""
    chance = random.Random(seed)
    roles = {part.partition(" ")[0] for part in cast.parts}
    weights = {
        (act, role): weight
        for (act, role), weight in _WEIGHTS.items()
        if (role in roles or not role) and (act is not Act.DISK or cast.disks)
    }
    while True:
        act, role = chance.choices(list(weights), list(weights.values()))[0]
        how = ""
        match act:
            case Act.WIRE:
                target, how = chance.choice(cast.wires), chance.choice(list(Trouble)).value
            case Act.DISK:
                target = chance.choice(cast.disks)
            case _:
                target = chance.choice([part for part in cast.parts if part.partition(" ")[0] == role])
        if act is Act.SUPPLIER:
            how = chance.choice(list(Mood)).value
        seconds = chance.uniform(*_SECONDS[act])
        if act is Act.FREEZE and target in _BRIEFLY:
            seconds = min(seconds, _BRIEFLY[target])
        yield Step(chance.uniform(1.0, 5.0), act, target, seconds, how)
