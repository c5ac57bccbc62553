"""The laws of the command path, as a judge over evidence: what was sent, what the twin saw, what the bus shows.

Imports nothing from `adapter`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.faults.evidence import Call, Event
from tests.faults.workload import KEYED, NEVER, SAFE, Sent

FINAL = {
    "FaultReportAdded",
    "FaultReportAmended",
    "FaultReportUpdateRequested",
    "ResolveResponseDelivered",
    "AppointmentAvailabilityFound",
    "AppointmentReserved",
    "CommandRejected",
    "CommandSettled",
}


@dataclass(frozen=True, slots=True)
class Violation:
    law: str
    what: str


def judge(
    sent: Sequence[Sent], calls: Sequence[Call], events: Sequence[Event], *, dead: Iterable[str] = ()
) -> list[Violation]:
    """Every violation of every law; `dead` are ids of commands that ended as dead letters."""
    finals: dict[str, list[Event]] = defaultdict(list)
    doubts: Counter[str] = Counter()
    messages: dict[str, str] = {}
    for event in events:
        command_id = event.record["commandId"]
        if event.type in FINAL:
            finals[command_id].append(event)
        elif event.type == "CommandOutcomeUnknown":
            doubts[command_id] += 1
        if event.record.get("messageId"):
            messages[event.record["messageId"]] = command_id
    by_id = {command.command_id: command for command in sent}
    return [
        *_one_outcome(sent, finals, set(dead)),
        *_no_stranger(by_id, finals),
        *_one_doubt(by_id, doubts),
        *_no_blind_repeat(by_id, calls, messages),
        *_order(by_id, calls, messages),
        *_never_two_at_once(by_id, calls, messages),
        *_agreement(by_id, calls, messages, finals),
        *_timeline(by_id, events),
    ]


def _one_outcome(sent: Sequence[Sent], finals: dict[str, list[Event]], dead: set[str]) -> Iterable[Violation]:
    for command in sent:
        count = len(finals[command.command_id]) + (command.command_id in dead)
        if count != 1:
            yield Violation("one outcome", f"{command.operation} {command.command_id} has {count} final outcomes")


def _no_stranger(by_id: dict[str, Sent], finals: dict[str, list[Event]]) -> Iterable[Violation]:
    for command_id, found in finals.items():
        if found and command_id not in by_id:
            yield Violation("no stranger", f"an outcome for {command_id}, which nobody sent")


def _one_doubt(by_id: dict[str, Sent], doubts: Counter[str]) -> Iterable[Violation]:
    for command_id, count in doubts.items():
        operation = by_id[command_id].operation if command_id in by_id else "?"
        if count > 1 or operation not in NEVER:
            yield Violation("one doubt", f"{operation} {command_id} was in doubt {count} times")


def _no_blind_repeat(by_id: dict[str, Sent], calls: Sequence[Call], messages: dict[str, str]) -> Iterable[Violation]:
    seen: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        seen[call.message_id].append(call)
    for message_id, made in seen.items():
        command = by_id.get(messages.get(message_id, ""))
        if command is None or command.operation not in NEVER:
            continue
        if any(call.taken for call in made[:-1]):
            yield Violation("no blind repeat", f"{command.operation} {command.command_id} was called {len(made)} times")


def _order(by_id: dict[str, Sent], calls: Sequence[Call], messages: dict[str, str]) -> Iterable[Violation]:
    last: dict[str, int] = {}
    for call in calls:
        command = by_id.get(messages.get(call.message_id, ""))
        if command is None:
            continue
        if command.number < last.get(command.key, 0):
            yield Violation("order", f"{command.command_id} was called after number {last[command.key]} of its key")
        last[command.key] = max(last.get(command.key, 0), command.number)


def _never_two_at_once(by_id: dict[str, Sent], calls: Sequence[Call], messages: dict[str, str]) -> Iterable[Violation]:
    """SAFE calls are exempt: after a loss without a revoke their repeat need not wait."""
    busy: dict[str, Call] = {}
    for call in calls:
        command = by_id.get(messages.get(call.message_id, ""))
        if command is None or command.operation in SAFE:
            continue
        before = busy.get(command.key)
        # A call that never ended was cut off with its caller; until when it ran nobody knows.
        if before is not None and before.finished is not None and before.finished > call.received:
            yield Violation("never two at once", f"{command.command_id} began while another call of its key ran")
        busy[command.key] = call


def _agreement(
    by_id: dict[str, Sent], calls: Sequence[Call], messages: dict[str, str], finals: dict[str, list[Event]]
) -> Iterable[Violation]:
    verdicts: dict[str, set[str]] = defaultdict(set)
    for call in calls:
        command_id = messages.get(call.message_id)
        if command_id is not None and call.taken and call.verdict:
            verdicts[command_id].add(call.verdict)
    for command_id, found in finals.items():
        if command_id not in by_id:
            continue
        for event in found:
            told = _told(event)
            if told is not None and told not in verdicts[command_id]:
                yield Violation("agreement", f"{command_id}: told {told}, the twin said {sorted(verdicts[command_id])}")
            if event.type == "CommandSettled" and by_id[command_id].operation in SAFE | KEYED:
                yield Violation("agreement", f"{command_id} can be repeated and was settled all the same")


def _told(event: Event) -> str | None:
    if event.type == "CommandSettled":
        return None
    if event.type == "CommandRejected":
        return "refused" if event.record["rejectedBy"] == "SUPPLIER" else None
    return None if event.record["alreadyDone"] else "accepted"


def _timeline(by_id: dict[str, Sent], events: Sequence[Event]) -> Iterable[Violation]:
    """Final outcomes of a key come in the order of its commands."""
    last: dict[str, int] = {}
    for event in events:
        command = by_id.get(event.record["commandId"])
        if command is None or event.type not in FINAL:
            continue
        if event.key != command.key:
            yield Violation("timeline", f"{command.command_id}: its event has the key {event.key}")
        if command.number < last.get(command.key, 0):
            yield Violation("timeline", f"outcome of {command.command_id} comes after number {last[command.key]}")
        last[command.key] = max(last.get(command.key, 0), command.number)
