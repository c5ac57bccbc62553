"""The laws of the adapter, as a judge over evidence: what was sent, what the twin saw, what the bus shows.

Imports nothing from `adapter`. A law yields, for each case it was tried on, what is wrong, or None.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults import command_laws, process_laws, ticket_laws
from tests.faults.evidence import Call, DeadLetter, Event, Evidence
from tests.faults.workload import Sent

Law = Callable[[Evidence], Iterator[str | None]]

LAWS: Final[dict[str, tuple[str, Law]]] = {
    "one outcome": ("every command ends in one final event or one dead letter", command_laws.one_outcome),
    "no stranger": ("no outcome without a command", command_laws.no_stranger),
    "one doubt": ("only what may not be repeated is held in doubt, and once", command_laws.one_doubt),
    "agreement": ("the outcome is what the supplier did", command_laws.agreement),
    "no blind repeat": ("what may not be repeated is sent again only if it was refused entry", command_laws.repeats),
    "order": ("the commands of a key are called in their order", command_laws.order),
    "never two at once": ("and one after the other", command_laws.never_two_at_once),
    "timeline": ("outcomes come in the order of the commands, under their key", command_laws.timeline),
    "poison": ("what is no command is a dead letter, once", command_laws.poison),
    "frontier": ("what is committed is finished, and all is committed", command_laws.frontier),
    "200 is a promise": ("every notification that got 200 is an event", ticket_laws.promise),
    "one id": ("a notification has one id, however often it comes", ticket_laws.one_id),
    "nothing made up": ("every update was sent by the supplier", ticket_laws.nothing_made_up),
    "quarantine": ("what can't be read is kept, raw", ticket_laws.quarantine),
    "newest counts": ("a ticket shows the supplier's last word", ticket_laws.newest_counts),
    "fold": ("a ticket is the fold of its events, each counted once", ticket_laws.fold),
    "stands": ("no process ends by itself", process_laws.stands),
    "leaves": ("SIGTERM ends it in time with exit code 0", process_laws.leaves),
    "memory": ("no process takes more than 250 MB", process_laws.memory),
}


@dataclass(frozen=True, slots=True)
class Violation:
    law: str
    what: str


@dataclass(frozen=True, slots=True)
class Finding:
    law: str
    says: str
    cases: int
    violations: tuple[str, ...]


def findings(evidence: Evidence) -> list[Finding]:
    """One for each law, in their order."""
    found = []
    for name, (says, law) in LAWS.items():
        judged = list(law(evidence))
        found.append(Finding(name, says, len(judged), tuple(wrong for wrong in judged if wrong is not None)))
    return found


def violations(evidence: Evidence) -> list[Violation]:
    return [Violation(finding.law, what) for finding in findings(evidence) for what in finding.violations]


def judge(
    sent: Sequence[Sent], calls: Sequence[Call], events: Sequence[Event], *, dead: Sequence[DeadLetter] = ()
) -> list[Violation]:
    """Every violation of the laws about commands."""
    return violations(Evidence(sent=sent, calls=calls, events=events, dead=dead))
