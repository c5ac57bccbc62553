"""Commands: one outcome each, true to what the supplier did, no blind repeat, order."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from tests.faults.evidence import Call, Event, Evidence
from tests.faults.workload import KEYED, NEVER, SAFE, Sent

FINAL: Final = frozenset(
    {
        "FaultReportAdded",
        "FaultReportAmended",
        "FaultReportUpdateRequested",
        "ResolveResponseDelivered",
        "AppointmentAvailabilityFound",
        "AppointmentReserved",
        "CommandRejected",
        "CommandSettled",
    }
)
TURNED_AWAY: Final = frozenset({401, 403, 404, 429, 503})
"""Answers that say that a request was not even looked at."""


def one_outcome(evidence: Evidence) -> Iterator[str | None]:
    finals = Counter(event.command_id for event in evidence.events if event.type in FINAL)
    dead = Counter(letter.command_id for letter in evidence.dead)
    for command in evidence.sent:
        count = finals[command.command_id] + dead[command.command_id]
        yield None if count == 1 else f"{command.operation} {command.command_id} has {count} final outcomes"


def no_stranger(evidence: Evidence) -> Iterator[str | None]:
    known = {command.command_id for command in evidence.sent}
    for event in evidence.events:
        if event.type in FINAL:
            yield None if event.command_id in known else f"an outcome for {event.command_id}, which nobody sent"


def one_doubt(evidence: Evidence) -> Iterator[str | None]:
    operations = {command.command_id: command.operation for command in evidence.sent}
    doubts = Counter(event.command_id for event in evidence.events if event.type == "CommandOutcomeUnknown")
    for command_id, count in doubts.items():
        operation = operations.get(command_id or "", "?")
        fine = count == 1 and operation in NEVER
        yield None if fine else f"{operation} {command_id} was in doubt {count} times"


def agreement(evidence: Evidence) -> Iterator[str | None]:
    by_id = _by_id(evidence)
    commands = _commands_of_messages(evidence)
    verdicts: defaultdict[str, set[str]] = defaultdict(set)
    for call in evidence.calls:
        command = commands.get(call.message_id)
        if command is not None and call.taken and call.verdict:
            verdicts[command.command_id].add(call.verdict)
    for event in evidence.events:
        command = by_id.get(event.command_id or "")
        if command is None or event.type not in FINAL:
            continue
        told, said = _told(event), verdicts[command.command_id]
        if told is not None and told not in said:
            yield f"{command.command_id}: told {told}, the twin said {sorted(said)}"
        elif event.type == "CommandSettled" and command.operation in SAFE | KEYED:
            yield f"{command.command_id} can be repeated and was settled all the same"
        else:
            yield None


def repeats(evidence: Evidence) -> Iterator[str | None]:
    commands = _commands_of_messages(evidence)
    made: defaultdict[str, list[Call]] = defaultdict(list)
    for call in evidence.calls:
        made[call.message_id].append(call)
    for message_id, calls in made.items():
        command = commands.get(message_id)
        if command is None or command.operation not in NEVER:
            continue
        blind = [call for call in calls[:-1] if call.taken or call.answered not in TURNED_AWAY]
        yield f"{command.operation} {command.command_id} was called {len(calls)} times" if blind else None


def order(evidence: Evidence) -> Iterator[str | None]:
    last: dict[str, int] = {}
    for call, command in _calls_of_commands(evidence):
        before = last.get(command.key, 0)
        fine = command.number >= before
        yield None if fine else f"{command.command_id} was called ({call.sequence}) after number {before} of its key"
        last[command.key] = max(before, command.number)


def never_two_at_once(evidence: Evidence) -> Iterator[str | None]:
    """SAFE calls are exempt: after a loss without a revoke their repeat need not wait."""
    busy: dict[str, Call] = {}
    for call, command in _calls_of_commands(evidence):
        if command.operation in SAFE:
            continue
        before = busy.get(command.key)
        # A call that never ended was cut off with its caller; until when it ran nobody knows.
        overlap = before is not None and before.finished is not None and before.finished > call.received
        yield f"{command.command_id} began ({call.sequence}) while another call of its key ran" if overlap else None
        busy[command.key] = call


def timeline(evidence: Evidence) -> Iterator[str | None]:
    by_id = _by_id(evidence)
    last: dict[str, int] = {}
    for event in evidence.events:
        command = by_id.get(event.command_id or "")
        if command is None or event.type not in FINAL:
            continue
        before = last.get(command.key, 0)
        if event.key != command.key:
            yield f"{command.command_id}: its event has the key {event.key}"
        elif command.number < before:
            yield f"outcome of {command.command_id} comes after number {before}"
        else:
            yield None
        last[command.key] = max(before, command.number)


def poison(evidence: Evidence) -> Iterator[str | None]:
    letters = Counter((letter.partition, letter.offset) for letter in evidence.dead if letter.command_id is None)
    for place in evidence.poison | letters.keys():
        wanted = int(place in evidence.poison)
        fine = letters[place] == wanted
        yield None if fine else f"the record at {place} has {letters[place]} dead letters instead of {wanted}"


def frontier(evidence: Evidence) -> Iterator[str | None]:
    for partition, end in evidence.ends.items():
        offset = evidence.offsets.get(partition, -1)
        fine = end in {0, offset}
        yield None if fine else f"partition {partition}: committed up to {offset} of {end}"


def _by_id(evidence: Evidence) -> dict[str, Sent]:
    return {command.command_id: command for command in evidence.sent}


def _commands_of_messages(evidence: Evidence) -> dict[str, Sent]:
    """The command of each message id, as its events tell it."""
    by_id = _by_id(evidence)
    return {
        event.record["messageId"]: by_id[event.command_id]
        for event in evidence.events
        if event.command_id in by_id and event.record.get("messageId")
    }


def _calls_of_commands(evidence: Evidence) -> Iterator[tuple[Call, Sent]]:
    commands = _commands_of_messages(evidence)
    for call in evidence.calls:
        command = commands.get(call.message_id)
        if command is not None:
            yield call, command


def _told(event: Event) -> str | None:
    """What the event says that the supplier did; None if it does not say."""
    match event.type:
        case "CommandSettled":
            return "accepted" if event.record["outcome"] == "ACCEPTED" else None
        case "CommandRejected":
            return "refused" if event.record["rejectedBy"] == "SUPPLIER" else None
        case _:
            return None if event.record["alreadyDone"] else "accepted"
