"""Faults on demand: which requests they affect, how often, and with what effect. Pure; `wire` carries them out.

A fault is written as JSON, the same in a file, on the command line and at the control address:

    {"kind": "status", "status": 503, "retry_after": 1, "operation": "addFaultReport", "key": "SP-7.*", "times": 2}
"""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from adapter.core.errors import Stop
from adapter.twin import limits
from adapter.twin.limits import Limit


class Kind(StrEnum):
    """What goes wrong. The comment after each says what the caller meets."""

    DELAY = "delay"  # the right answer, `seconds` late (plus up to `jitter`)
    STATUS = "status"  # HTTP `status`, with Retry-After if `retry_after` is set, and the body usual for it
    REFUSE = "refuse"  # a business refusal with `code` and `text`
    SOAP_FAULT = "soap-fault"  # SOAP Fault with HTTP 500; `code` is Client or Server (Sender, Receiver)
    FAULT_BLOCK = "fault-block"  # the bare fault block of the contract with HTTP `status`
    RESET = "reset"  # TCP RST instead of an answer
    CLOSE = "close"  # orderly end of the connection instead of an answer
    SILENCE = "silence"  # no answer, the connection stays open
    TRUNCATED = "truncated"  # half of the body, then the end of the connection
    TRICKLE = "trickle"  # the right answer, one byte every `seconds`
    GARBAGE = "garbage"  # bytes that are not HTTP
    MALFORMED = "malformed"  # 200 with XML that is not well-formed
    ENCODING = "encoding"  # 200 with bytes that are not in the declared encoding
    DOCTYPE = "doctype"  # 200 with a DOCTYPE and an entity bomb
    HTML = "html"  # 200 with an HTML page
    EMPTY = "empty"  # 200 without a body
    HUGE = "huge"  # 200 with a body of `size` bytes
    OTHER_ELEMENT = "other-element"  # 200 with an element that is no reply
    EXTRA_ELEMENT = "extra-element"  # the right answer with an element nobody knows in it


NOT_TAKEN: Final = frozenset({Kind.STATUS, Kind.REFUSE, Kind.SOAP_FAULT, Kind.FAULT_BLOCK, Kind.RESET, Kind.CLOSE})
"""Kinds where the request has taken no effect unless the fault says otherwise."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule. The first one that fits is carried out; delays that fit are added on top of it."""

    kind: Kind
    operation: str | None = None
    """Only this operation ("addFaultReport"; letter case does not count); None: every one."""

    key: str | None = None
    """Regular expression for the whole buyerFaultReference or address key; None: every one."""

    times: int | None = 1
    """Number of requests to which it is applied; None: no limit."""

    probability: float = 1.0
    """Probability that it is applied to a matching request, drawn from `seed`."""

    seed: int = 0
    taken: bool | None = None
    """Whether the request takes effect at the supplier nevertheless; None: as is usual for the kind."""

    seconds: float = 0.0
    jitter: float = 0.0
    status: int | None = None
    """None: 503 for `status`, 500 for `fault-block`."""

    retry_after: float | None = None
    """Seconds."""

    retry_after_date: bool = False
    """Write Retry-After as an HTTP date."""

    code: str = ""
    text: str = "fault on demand"
    size: int = 50 * 1024 * 1024

    @property
    def takes(self) -> bool:
        """Whether the request takes effect before the fault."""
        return self.kind not in NOT_TAKEN if self.taken is None else self.taken

    @property
    def http_status(self) -> int:
        """The HTTP status of kinds that have a choice."""
        return self.status or (503 if self.kind is Kind.STATUS else 500)


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to happen to one request."""

    fault: Fault | None
    """None: the right answer."""

    delay: float
    """Seconds before the answer begins."""


@dataclass(slots=True)
class _Rule:
    fault: Fault
    left: int | None
    chance: random.Random
    key: re.Pattern[str] | None

    def meets(self, operation: str, key: str) -> bool:
        fault = self.fault
        return (
            self.left != 0
            and (fault.operation is None or fault.operation.casefold() == operation.casefold())
            and (self.key is None or self.key.fullmatch(key) is not None)
            and (fault.probability >= 1.0 or self.chance.random() < fault.probability)
        )


@dataclass(slots=True)
class Plan:
    """The faults in force, in the order they were given."""

    rules: list[_Rule] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        pattern = re.compile(fault.key) if fault.key is not None else None
        chance = random.Random(fault.seed)  # noqa: S311 -- repeatable chance is the point
        self.rules.append(_Rule(fault, fault.times, chance, pattern))

    def clear(self) -> None:
        self.rules.clear()

    def left(self) -> list[tuple[Fault, int | None]]:
        """The faults that can still be applied, each with the number of requests left (None: no limit)."""
        return [(rule.fault, rule.left) for rule in self.rules if rule.left != 0]

    def meet(self, operation: str, key: str | None) -> Planned:
        """What happens to this request. Each fault that is applied uses up one of its `times`."""
        chosen: Fault | None = None
        delay = 0.0
        for rule in self.rules:
            fault = rule.fault
            if (fault.kind is not Kind.DELAY and chosen) or not rule.meets(operation, key or ""):
                continue
            if rule.left is not None:
                rule.left -= 1
            if fault.kind is Kind.DELAY:
                delay += fault.seconds + rule.chance.uniform(0, fault.jitter)
            else:
                chosen = fault
        return Planned(chosen, delay)


def _any(_: Any) -> None:
    return None


def _kind(value: str) -> str | None:
    return None if value in list(Kind) else f"must be one of {', '.join(Kind)}"


_NUMBER = (int, float)
_NAMES: Mapping[str, tuple[tuple[type, ...], Limit]] = {
    "kind": ((str,), _kind),
    "operation": ((str,), _any),
    "key": ((str,), limits.pattern),
    "times": ((int,), limits.COUNT),
    "probability": (_NUMBER, limits.CHANCE),
    "seed": ((int,), _any),
    "taken": ((bool,), _any),
    "seconds": (_NUMBER, limits.SECONDS),
    "jitter": (_NUMBER, limits.SECONDS),
    "status": ((int,), limits.STATUS),
    "retry_after": (_NUMBER, limits.SECONDS),
    "retry_after_date": ((bool,), _any),
    "code": ((str,), limits.code),
    "text": ((str,), limits.text),
    "size": ((int,), limits.SIZE),
}
_NULLABLE = frozenset(f.name for f in fields(Fault) if f.default is None) | {"times"}


def from_json(given: object) -> tuple[Fault, ...]:
    """One fault (an object) or several (an array). Raises Stop with a line for everything that is wrong."""
    problems: list[str] = []
    faults: list[Fault] = []
    entries = given if isinstance(given, list) else [given]
    for number, entry in enumerate(entries):
        wrong = list(_wrong(entry))
        problems += [f"fault {number}: {line}" for line in wrong]
        if not wrong:
            faults.append(Fault(**{**entry, "kind": Kind(entry["kind"])}))
    if problems:
        raise Stop(*problems)
    return tuple(faults)


def to_json(fault: Fault) -> dict[str, Any]:
    """Only what differs from the defaults."""
    values = {f.name: getattr(fault, f.name) for f in fields(Fault)}
    defaults = {f.name: f.default for f in fields(Fault)}
    return {name: value for name, value in values.items() if name == "kind" or value != defaults[name]}


def _wrong(entry: object) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield "an object is needed"
        return
    if "kind" not in entry:
        yield f"kind: is missing; write one of {', '.join(Kind)}"
    for name, value in entry.items():
        if name not in _NAMES:
            yield f"{name}: no such name; there are {', '.join(_NAMES)}"
            continue
        types, limit = _NAMES[name]
        if value is None and name in _NULLABLE:
            continue
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            yield f"{name}: {' or '.join(t.__name__ for t in types)} is needed"
        elif problem := limit(value):
            yield f"{name}: {problem}"
