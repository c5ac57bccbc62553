"""Events, appointments and times as text for people.

Nothing here names a person or repeats a report's free text: of the supplier's words only the reason of a refusal
or of a doubt, of an operator's that of a decision.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final


def headline(name: str, record: Mapping[str, Any]) -> str:
    """An event in a few words: its record's name and what matters most of it."""
    tries = f", {record['attempts']} tries" if record.get("attempts", 0) > 1 else ""
    match name:
        case "CommandRejected":
            return f"{name} by {word(record['rejectedBy'])}: {record['code']}{tries}"
        case "CommandOutcomeUnknown":
            return f"{name}: {record['reason']}{tries}"
        case "CommandSettled":
            return f"{name}: {word(record['outcome'])}{tries}"
        case "DoubtDecided":
            return f"{name}: {word(record['decision'])}"
        case "FaultReportUpdated":
            return f"{name}: {word(record['kind'])}"
        case _:
            return f"{name}{_of_reply(record.get('reply') or {})}{tries}"


def particulars(name: str, record: Mapping[str, Any]) -> str:
    """What a reader of the timeline would also like to know; often nothing."""
    match name:
        case "CommandRejected":
            found = [f"{problem['path']} {problem['text']}".strip() for problem in record["problems"]]
            found = [record["operation"], *found, record["text"] or "", _unknown(record)]
        case "CommandOutcomeUnknown":
            # Older events do not say what the answer was.
            found = [record["operation"], f"held until {moment(record['doubtUntil'])}", record.get("text") or ""]
        case "CommandSettled":
            found = [record["operation"], f"by {word(record['settledBy'])}", record["text"] or ""]
        case "DoubtDecided":
            found = [record["why"]]
        case "FaultReportUpdated":
            found = _notified(record)
        case "ResolveDeadlineApproaching":
            found = [f"answer with ResolveResponse before {moment(record['deadline'])}"]
        case _:
            key = (record.get("reply") or {}).get("appointmentReservationKey")
            found = [f"key {key}" if key else "", _unknown(record)]
    return "; ".join(part for part in found if part)


def appointment(record: Mapping[str, Any]) -> str:
    """A visit: when, under which key, and what became of it."""
    day, start, end = (record[f"appointment{name}"] for name in ("Date", "StartTime", "EndTime"))
    times = "-".join(part for part in (start, end) if part)
    found = [" ".join(str(part) for part in (day, times) if part)]
    if record["appointmentReservationKey"]:
        found.append(f"key {record['appointmentReservationKey']}")
    if record["appointmentConfirmationStatus"]:
        found.append(record["appointmentConfirmationStatus"].lower())
    if record["appointmentCancelled"]:
        found.append("cancelled")
    if record["appointmentClosureCode"]:
        found.append(f"closed with {record['appointmentClosureCode']}")
    return ", ".join(part for part in found if part)


def moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def span(length: timedelta) -> str:
    """The two largest units: "2d 3h", "47m 5s", "0s". Negative ones count as none."""
    seconds = max(0, int(length.total_seconds()))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def is_text(word: str) -> bool:
    """Whether a word of the command line or a variable is UTF-8: other bytes come as lone surrogates, which can't be
    encoded.
    """
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def harmless(line: str) -> str:
    """The line with all characters escaped that could control a terminal or begin another line. The escapes are those
    of JSON, so a line of JSON keeps its meaning.
    """
    return line if line.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


_WIDEST: Final = 60


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned cells, two spaces apart. A very long cell moves the rest of its own line alone."""
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _notified(record: Mapping[str, Any]) -> list[str]:
    visits = (record["report"] or {}).get("appointments") or ()
    kind, status = record["kind"], record["status"]
    strayed = len(record["deviations"])
    return [
        record["maintainerFaultReference"] or "",
        f"status {word(status)}" if status and status != kind else "",
        appointment(visits[-1]) if visits and "APPOINTMENT" in kind else "",
        record["closureMeaning"] or "" if kind == "APPOINTMENT_COMPLETED" else "",
        f"{strayed} deviation{'s' if strayed > 1 else ''}" if strayed else "",
    ]


def _unknown(record: Mapping[str, Any]) -> str:
    """How much else the supplier's answer holds; older events do not say."""
    count = len(record.get("unknownElements") or ())
    return f"{count} unknown element{'s' if count > 1 else ''}" if count else ""


def _of_reply(reply: Mapping[str, Any]) -> str:
    if "appointmentSlots" in reply:
        return f": {len(reply['appointmentSlots'])} slots"
    if reply.get("status"):
        return f": {reply['status']}"
    return ""


def word(symbol: str) -> str:
    """An enum's symbol in words: "in progress"."""
    return symbol.lower().replace("_", " ").replace("re opened", "re-opened")
