"""The life of one command as a state machine: it receives facts and returns the next action.

Rule 1: everything that decides what happens to a command after it was decoded lives in this file.
Rule 2: nothing here waits, sends or reads a clock; times are arguments (wall-clock seconds since the epoch).

    facts                                     actions
    seek, begin, refuse                       Seek     find the supplier's reference until that time, then tell `begin`
    unfound                                            or `unfound`
    intended                                  Intend   write the intent to the journal, then tell `intended`
    answered(verdict), unsendable, forgone    Post     call the supplier, then tell `answered`
    resumed                                   Wait     come back with `resumed` at that time
    published                                 Publish  publish the event, then tell `published`
    settle, repeat                            Hold     hold the lane; tell `resumed` at that time, `settle` or `repeat`
                                              Finish   the command has ended

The life of a command (* = told to the caller as an action):

    begin ──▶ Intend* ──intended──▶ Post* ──answered──▶ Publish*(final) ──published──▶ Finish*
       │  SAFE: straight to Post       │ not taken ──▶ Wait* ──resumed──▶ Intend* …
       │                               │ unclear, SAFE or KEYED ──▶ Wait* …
       └─ intent without end ──────────┴ unclear, NEVER ──▶ Publish*(in doubt) ──▶ Hold* ──▶ Publish*(settled)
                                                                                     └─repeat──▶ Intend* …
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, auto
from typing import Any, Final

from adapter.core.immutable import immutable
from adapter.core.operation import Operation, Problem, Repeat
from adapter.core.retry import Backoff
from adapter.core.wording import moment


class By(StrEnum):
    """Who rejected a command. Symbols of the event's enum."""

    ADAPTER = "ADAPTER"
    SUPPLIER = "SUPPLIER"


class Settlement(StrEnum):
    """How a command in doubt ended. Symbols of the event's enum."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    UNDETERMINED = "UNDETERMINED"


class Settler(StrEnum):
    """What settled a command in doubt. Symbols of the event's enum."""

    NOTIFICATION = "NOTIFICATION"
    OPERATOR = "OPERATOR"
    TIME_LIMIT = "TIME_LIMIT"


# -- verdicts: what a call came to -----------------------------------------------------------------------------------
# `reason` is a slug, and `detail` may be logged. `text` may be the supplier's own and name people: only events have it.


@immutable
class Accepted:
    """The supplier has taken it. `reply` is the typed reply; None if a refusal that means "already done" says so."""

    reply: Mapping[str, Any] | None
    already_done: bool = False
    deviations: int = 0
    """In how many places the reply strays from the contract."""

    aside: tuple[tuple[str, str], ...] = ()
    """(path, text) of content in the supplier's answer for which the reply has no field."""


@immutable
class Rejected:
    """A final no."""

    by: By
    code: str
    text: str | None = None
    problems: tuple[Problem, ...] = ()
    aside: tuple[tuple[str, str], ...] = ()
    """As in Accepted."""


@immutable
class Unavailable:
    """Not accepted, and worth another attempt: never sent, or 429, or 503."""

    reason: str
    retry_after: float | None = None
    detail: str | None = None
    """Why it was not sent, in our words."""


@immutable
class Unclear:
    """Part of the request may have been sent, and its outcome is unknown."""

    reason: str
    text: str | None = None
    """What the answer says, or how the call failed."""


@immutable
class Forbidden:
    """401 or 403: an operator must correct the configuration, unless only this one command is refused."""

    reason: str
    text: str | None = None
    """The supplier's explanation."""


@immutable
class Misdirected:
    """404, a redirect, an endpoint that does not know us: a fault of configuration, which does not end the command."""

    reason: str
    detail: str | None = None
    """What the refusal says about our configuration, if anything."""


Verdict = Accepted | Rejected | Unavailable | Unclear | Forbidden | Misdirected


@immutable
class Settled:
    """The end of a command that was in doubt."""

    outcome: Settlement
    by: Settler
    text: str | None = None
    aside: tuple[tuple[str, str], ...] = ()
    """As in Accepted, for a command that was sent again; with all values of the reply, since the event has no reply."""


@immutable
class InDoubt:
    """Provisional: the outcome is unknown and will be settled at the latest at `until`."""

    reason: str
    sent_at: float | None
    until: float
    text: str | None = None
    """As in Unclear."""


@immutable
class Again:
    """An operator has decided to send a command in doubt again."""

    text: str
    """Who decided, and why."""
    reference: str | None = None
    """The supplier's, as the ticket then has it."""


Event = Accepted | Rejected | Settled | InDoubt

# -- actions ---------------------------------------------------------------------------------------------------------


@immutable
class Seek:
    """The command leaves out the supplier's reference: its ticket may have one, or get one by then."""

    until: float


@immutable
class Intend:
    attempt: int


@immutable
class Post:
    attempt: int


@immutable
class Wait:
    """`cleared`: the last attempt provably did nothing, and the journal must say so."""

    until: float
    reason: str
    cleared: bool = False


@immutable
class Publish:
    event: Event


@immutable
class Hold:
    until: float


@immutable
class Finish:
    pass


Action = Seek | Intend | Post | Wait | Publish | Hold | Finish

# -- what the journal knows of a command that is delivered again -------------------------------------------------------


@immutable
class Untouched:
    """No call of the command can be under way. The last of its `attempts`, if any, provably had no effect."""

    attempts: int = 0
    unclear_since: float | None = None
    doubted: str | None = None
    """It was in doubt once, and this is why it is sent again."""


@immutable
class Intended:
    """An intent without an end: attempt number `attempt` may have been sent, from `at` on."""

    attempt: int
    at: float
    unclear_since: float | None = None


@immutable
class Held:
    """Its doubt was published; the lane is held until `until`."""

    attempt: int
    until: float
    sent_at: float
    """When the call in doubt was made, at the earliest."""


Past = Untouched | Intended | Held

COMMAND_ID_LIMIT: Final = 1000
"""Characters: tens of thousands of ids are kept in memory."""

FORBIDDEN_TRIES: Final = 3
"""Tries after which a command that alone is refused with 401 or 403 is rejected."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings that hold for all commands."""

    backoff: Backoff
    call_limit: float
    """Seconds after an intent during which its call may still be under way, whoever made it."""

    doubt_limits: Mapping[str, float]
    """Seconds per operation name; the operation's own limit where absent."""

    share: Callable[[], float]
    """Random numbers in [0, 1)."""

    reference_wait: float
    """Seconds a command waits for its ticket to have the supplier's reference."""


class _State(StrEnum):
    NEW = auto()
    SEEKING = auto()
    INTENDING = auto()
    CALLING = auto()
    WAITING = auto()
    DOUBTING = auto()
    HELD = auto()
    ENDING = auto()
    ENDED = auto()


class Command:
    """The state machine of one command. A fact that is not expected in its state raises RuntimeError: it is a bug."""

    __slots__ = (
        "_forbidden",
        "_intent_at",
        "_last_unclear",
        "_policy",
        "_state",
        "_successes",
        "attempts",
        "doubted",
        "not_after",
        "operation",
        "unclear_since",
    )

    def __init__(self, operation: Operation, policy: Policy, *, not_after: float | None) -> None:
        self.operation = operation
        self.not_after = not_after
        self.attempts = 0
        """Calls that were started, or may have been."""
        self.unclear_since: float | None = None
        """When the first call whose outcome is unknown was made."""
        self.doubted: str | None = None
        """Who decided, and why, that the command in doubt is sent again; None if nobody did."""
        self._policy = policy
        self._state = _State.NEW
        self._intent_at: float | None = None
        self._last_unclear: Unclear | None = None
        """The verdict on the last call with an unclear outcome, if this process made that call."""
        self._forbidden = 0
        self._successes = 0

    def seek(self, now: float) -> Seek:
        """The command leaves out the supplier's reference. Told once more when the tickets are known to their end: only
        then does the time begin in which the ticket has to get a reference. `begin`, `refuse` or `unfound` follows.
        """
        self._expect(_State.NEW, _State.SEEKING)
        self._state = _State.SEEKING
        until = now + self._policy.reference_wait
        return Seek(until if self.not_after is None else min(until, self.not_after))

    def unfound(self, now: float, why: Problem) -> Action:
        """The request can't be made without the reference, and the time to find one has passed."""
        self._expect(_State.SEEKING)
        if self.not_after is not None and now >= self.not_after:
            return self._expire()
        return self._end(Rejected(By.ADAPTER, "reference-unknown", None, (why,)))

    def begin(self, now: float, past: Past) -> Action:
        """It is this command's turn; `past` is what the journal knows of it."""
        self._expect(_State.NEW, _State.SEEKING)
        match past:
            case Held(attempt, until, sent_at):
                self.attempts = attempt
                self.unclear_since = sent_at
                self._state = _State.HELD
                return Hold(until)
            case Intended(attempt, at, unclear_since):
                self.attempts = attempt
                self._intent_at = at
                if self.operation.repeat is Repeat.NEVER:
                    return self._doubt("interrupted")
                self.unclear_since = unclear_since if unclear_since is not None else at
                return self._again_after(at, now)
            case Untouched(attempts, unclear_since, doubted):
                self.attempts = attempts
                self.unclear_since = unclear_since
                self.doubted = doubted
                if unclear_since is not None and self.operation.repeat is Repeat.NEVER:  # it was KEYED at that time
                    self._intent_at = unclear_since
                    return self._doubt("interrupted")
                return self._again(now)

    def refuse(self, problems: tuple[Problem, ...], code: str) -> Action:
        """The command breaks a rule and must not be sent."""
        self._expect(_State.NEW, _State.SEEKING)
        return self._end(Rejected(By.ADAPTER, code, None, problems))

    def intended(self, at: float) -> Action:
        """The intent written at `at` is committed in the journal."""
        self._expect(_State.INTENDING)
        self._intent_at = at
        return self._post()

    def unsendable(self, problems: tuple[Problem, ...]) -> Action:
        """The request can no longer be written, though it could before: settings or schemas have changed since."""
        self._expect(_State.CALLING)
        self.attempts -= 1
        if self._may_be_taken():
            return self._give_up("; ".join(("invalid", *map(str, problems))))
        return self._end(Rejected(By.ADAPTER, "invalid", None, problems))

    def forgone(self, now: float) -> Action:
        """The call that was about to be made was not made after all."""
        if self._state is _State.CALLING:
            self.attempts -= 1
        else:
            self._expect(_State.INTENDING)
        return self._again(now)

    def answered(self, now: float, verdict: Verdict, successes: int = 0) -> Action:
        """The call ended with `verdict`; `successes` counts the good answers to all commands so far."""
        self._expect(_State.CALLING)
        match verdict:
            case Accepted():
                return self._end(verdict)
            case Rejected():
                return self._end(self._already_done(verdict) or verdict)
            case Unavailable(reason, retry_after):
                return self._wait(now, reason, at_least=retry_after, cleared=True)
            case Misdirected(reason):
                return self._wait(now, reason, cleared=True)
            case Forbidden():
                return self._forbidden_wait(now, verdict, successes)
            case Unclear():
                return self._unclear(now, verdict)

    def resumed(self, now: float) -> Action:
        """The time named in a Wait or Hold has come."""
        if self._state is _State.HELD:
            return self.settle(Settled(Settlement.UNDETERMINED, Settler.TIME_LIMIT))
        self._expect(_State.WAITING)
        return self._again(now)

    def settle(self, settled: Settled) -> Action:
        """The outcome of the command in doubt is known."""
        self._expect(_State.HELD)
        return self._end(settled)

    def repeat(self, now: float, again: Again) -> Action:
        """An operator has decided that the command in doubt is sent once more."""
        self._expect(_State.HELD)
        assert self.unclear_since is not None, "a doubt has the time of its call"
        called_at, self.unclear_since = self.unclear_since, None
        self.doubted = again.text
        return self._again_after(called_at, now)

    def published(self) -> Action:
        """The event is committed, or queued so that it is committed before anything that follows from it."""
        if self._state is _State.DOUBTING:
            self._state = _State.HELD
            return Hold(self._doubt_until())
        self._expect(_State.ENDING)
        self._state = _State.ENDED
        return Finish()

    # -- transitions -------------------------------------------------------------------------------------------------

    def _again(self, now: float) -> Action:
        if self.not_after is not None and now >= self.not_after:
            return self._expire()
        if self.unclear_since is not None and now >= self.unclear_since + self._doubt_limit():
            return self._give_up()
        if self.operation.repeat is Repeat.SAFE:
            return self._post()
        self._state = _State.INTENDING
        return Intend(self.attempts + 1)

    def _again_after(self, called_at: float, now: float) -> Action:
        """Again, once that call must be over: whoever made it may still be at it, and there are never two at once."""
        over = called_at + self._policy.call_limit
        if now >= over:
            return self._again(now)
        self._state = _State.WAITING
        return Wait(over, "interrupted")

    def _post(self) -> Action:
        self.attempts += 1
        self._state = _State.CALLING
        return Post(self.attempts)

    def _wait(self, now: float, reason: str, *, at_least: float | None = None, cleared: bool = False) -> Action:
        policy = self._policy
        until = now + policy.backoff.delay(self.attempts, policy.share(), at_least)
        ends = [self.not_after] if self.not_after is not None else []
        if self.unclear_since is not None:
            ends.append(self.unclear_since + self._doubt_limit())
        until = max(now, min((until, *ends)))
        self._state = _State.WAITING
        return Wait(until, reason, cleared and self.operation.repeat is not Repeat.SAFE)

    def _unclear(self, now: float, verdict: Unclear) -> Action:
        if self.operation.repeat is Repeat.NEVER:
            return self._doubt(verdict.reason, verdict.text)
        if self.unclear_since is None:
            self.unclear_since = now if self._intent_at is None else self._intent_at
        self._last_unclear = verdict
        if now >= self.unclear_since + self._doubt_limit():
            return self._give_up()
        return self._wait(now, verdict.reason)

    def _forbidden_wait(self, now: float, verdict: Forbidden, successes: int) -> Action:
        if self._forbidden == 0:
            self._successes = successes
        self._forbidden += 1
        if self._forbidden >= FORBIDDEN_TRIES and successes > self._successes:
            text = verdict.reason if verdict.text is None else f"{verdict.reason}: {verdict.text}"
            if self.doubted is not None:  # the refusal tells nothing about the call in doubt
                said = f"{self.doubted}; sent again, and forbidden: {text}"
                return self._end(Settled(Settlement.UNDETERMINED, Settler.OPERATOR, said))
            if self._may_be_taken():
                return self._give_up(f"forbidden: {text}")
            return self._end(Rejected(By.SUPPLIER, "forbidden", text))
        return self._wait(now, verdict.reason, cleared=True)

    def _already_done(self, rejected: Rejected) -> Accepted | None:
        """A refusal that means the earlier, unclear try was taken (design, guarantee 2)."""
        pattern = self.operation.already_done
        if pattern is None or (self.unclear_since is None and self.doubted is None):
            return None
        if re.search(pattern, f"{rejected.code} {rejected.text or ''}", re.IGNORECASE) is None:
            return None
        return Accepted(None, already_done=True, aside=rejected.aside)

    def _expire(self) -> Action:
        assert self.not_after is not None, "only a deadline expires"
        deadline = f"the deadline (notAfter) was {moment(datetime.fromtimestamp(self.not_after, UTC))}"
        if self._may_be_taken():
            return self._give_up(f"expired: {deadline}")
        return self._end(Rejected(By.ADAPTER, "expired", deadline))

    def _may_be_taken(self) -> bool:
        """An earlier try may have changed something: "rejected" would be a guess."""
        return self.unclear_since is not None and self.operation.repeat is Repeat.KEYED

    def _give_up(self, why: str | None = None) -> Action:
        """What became of the unclear calls will not be found out: `why`, where it is not for the time limit."""
        last = None
        if self._last_unclear is not None:
            last = ": ".join(
                filter(None, ("the last unclear call", self._last_unclear.reason, self._last_unclear.text))
            )
        safe = self.operation.repeat is Repeat.SAFE
        text = "; ".join(filter(None, ("no readable answer within the time limit" if safe else why, last)))
        if safe:
            return self._end(Rejected(By.ADAPTER, "no-clear-answer", text))
        return self._end(Settled(Settlement.UNDETERMINED, Settler.TIME_LIMIT, text or None))

    def _doubt(self, reason: str, text: str | None = None) -> Action:
        self.unclear_since = self._intent_at
        self._state = _State.DOUBTING
        return Publish(InDoubt(reason, self._intent_at, self._doubt_until(), text))

    def _end(self, event: Accepted | Rejected | Settled) -> Action:
        self._state = _State.ENDING
        return Publish(event if self.doubted is None else _settled(event, self.doubted))

    def _doubt_limit(self) -> float:
        own = self.operation.doubt_limit.total_seconds()
        return self._policy.doubt_limits.get(self.operation.name, own)

    def _doubt_until(self) -> float:
        assert self._intent_at is not None, "a NEVER command is called only after its intent"
        return self._intent_at + self._doubt_limit()

    def _expect(self, *states: _State) -> None:
        if self._state not in states:
            raise RuntimeError(f"{self.operation.name} is {self._state}, told what only {states[0]} can be told")


def _settled(event: Accepted | Rejected | Settled, doubted: str) -> Settled:
    """How a command ends that was in doubt and was sent again: settled, like every doubt."""
    match event:
        case Settled():
            return event
        case Accepted(reply, already_done, aside=aside):
            answer = (*_texts(reply), *aside)
            said = "refused as done already" if already_done else "accepted"
            return Settled(Settlement.ACCEPTED, Settler.OPERATOR, f"{doubted}; sent again, and {said}", answer)
        case Rejected(by, code, text, problems, aside):
            why = ", ".join((code, *([text] if text else map(str, problems))))
            if by is By.SUPPLIER:
                said = f"{doubted}; sent again, and rejected: {why}"
                return Settled(Settlement.REJECTED, Settler.OPERATOR, said, aside)
            return Settled(Settlement.UNDETERMINED, Settler.OPERATOR, f"{doubted}; not sent again: {why}")


def _texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every value in a reply."""
    match value:
        case None:
            return
        case Mapping():
            for name, inner in value.items():
                yield from _texts(inner, f"{path}.{name}" if path else name)
        case list():
            for number, inner in enumerate(value):
                yield from _texts(inner, f"{path}[{number}]")
        case datetime():
            yield path, value.isoformat()
        case _:
            yield path, str(value)
