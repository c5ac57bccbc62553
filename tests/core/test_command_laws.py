"""What holds of a command whatever happens to it: any order of legal facts, worker crashes in between, and facts out
of turn."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapter.core.command import (
    Accepted,
    Action,
    Again,
    By,
    Command,
    Event,
    Finish,
    Forbidden,
    Hold,
    InDoubt,
    Intend,
    Misdirected,
    Past,
    Policy,
    Post,
    Publish,
    Rejected,
    Seek,
    Settled,
    Settlement,
    Settler,
    Unavailable,
    Unclear,
    Untouched,
    Verdict,
    Wait,
)
from adapter.core.journal import Entry, Kind
from adapter.core.operation import Operation, Problem, Repeat
from adapter.core.retry import Backoff

CALL_LIMIT: Final = 30.0
REFERENCE_WAIT: Final = 40.0
LEFT_OUT: Final = Problem("maintainerFaultReference", "left out")
ACCEPTED = Accepted({})
SETTLED = Settled(Settlement.ACCEPTED, Settler.OPERATOR)

FACTS: Final[dict[str, Callable[[Command, float], object]]] = {
    "seek": lambda command, now: command.seek(now),
    "unfound": lambda command, now: command.unfound(now, LEFT_OUT),
    "begin": lambda command, now: command.begin(now, Untouched()),
    "refuse": lambda command, _: command.refuse((), "invalid"),
    "intended": lambda command, now: command.intended(now),
    "unsendable": lambda command, _: command.unsendable(()),
    "forgone": lambda command, now: command.forgone(now),
    "answered": lambda command, now: command.answered(now, ACCEPTED),
    "resumed": lambda command, now: command.resumed(now),
    "settle": lambda command, _: command.settle(SETTLED),
    "repeat": lambda command, now: command.repeat(now, Again("Joe: try again")),
    "published": lambda command, _: command.published(),
}
LEGAL: Final[dict[type[Action], set[str]]] = {
    Seek: {"seek", "begin", "refuse", "unfound"},
    Intend: {"intended", "forgone"},
    Post: {"answered", "forgone", "unsendable"},
    Wait: {"resumed"},
    Publish: {"published"},
    Hold: {"resumed", "settle", "repeat"},
    Finish: set(),
}

seconds = st.integers(0, 90).map(float)
reasons = st.sampled_from(["connect", "reset", "http-503"])
verdicts: st.SearchStrategy[Verdict] = st.one_of(
    st.builds(Unavailable, reasons, st.none() | seconds),
    st.builds(Unclear, reasons),
    st.builds(Forbidden, reasons),
    st.builds(Misdirected, reasons),
    st.just(ACCEPTED),
    st.builds(Rejected, st.just(By.SUPPLIER), st.just("3001"), st.sampled_from([None, "already resolved", "wrong"])),
)


def new(repeat: Repeat, *, not_after: float | None = None, doubt_limit: float = 120.0) -> Command:
    operation = Operation(
        name="ResolveResponse",
        path="/resolveResponse",
        request="resolveResponse",
        reply="resolveResponseResponse",
        accepted="ResolveResponseDelivered",
        key="buyerFaultReference",
        repeat=repeat,
        doubt_limit=timedelta(seconds=doubt_limit),
        already_done=None if repeat is Repeat.SAFE else "already",
    )
    policy = Policy(Backoff(first=1.0, longest=20.0), CALL_LIMIT, {}, lambda: 0.5, REFERENCE_WAIT)
    return Command(operation, policy, not_after=not_after)


class Lives(RuleBasedStateMachine):
    """One command from its first delivery to its end, by workers that may crash, a journal that outlives them, and
    people who decide over its doubts.

    What is committed (events, journal) is written when the command is told so, never before.
    """

    @initialize(
        repeat=st.sampled_from(Repeat),
        deadline=st.none() | st.integers(1, 300),
        limit=st.sampled_from([10, 60, 300]),
        referred=st.booleans(),
    )
    def deliver(self, repeat: Repeat, deadline: int | None, limit: int, referred: bool) -> None:  # noqa: FBT001 -- drawn
        self.repeat = repeat
        self.referred = referred
        """It names the supplier's reference, or has it from its ticket."""
        self.repeats = 0
        """Times that somebody has decided to send it again."""
        self.now = 1_000.0
        self.not_after = None if deadline is None else self.now + deadline
        self.limit = float(limit)
        self.journal: Entry | None = None
        self.events: list[Event] = []
        self.maybe_taken = False
        """A call was made of which nobody knows what became."""
        self.unclear_by: float | None = None
        """When that was known for certain."""
        self.under_way_until = 0.0
        """The call of a worker that crashed may last until then."""
        self.successes = 0
        self.posts = 0
        self.begin()

    def begin(self) -> None:
        self.command = new(self.repeat, not_after=self.not_after, doubt_limit=self.limit)
        past = self.past()
        if isinstance(past, Untouched) and not self.referred:
            self.posts = 0
            self.told("seek", self.command.seek(self.now))
        else:
            self.posts = past.attempt if not isinstance(past, Untouched) else past.attempts
            self.told("begin", self.command.begin(self.now, past))

    def past(self) -> Past:
        return Untouched() if self.journal is None else self.journal.past()

    def told(self, fact: str, action: Action) -> None:
        """The laws of each action."""
        self.action: Action | None = action
        match action:
            case Seek(until):
                assert until <= self.now + REFERENCE_WAIT
                assert self.not_after is None or until <= self.not_after
            case Intend(attempt):
                assert self.repeat is not Repeat.SAFE
                assert attempt == self.posts + 1
                self.in_time()
            case Post(attempt):
                self.posts += 1
                assert attempt == self.posts
                self.may_call(fact)
            case Wait(until, _, cleared):
                assert until >= self.now
                assert not (cleared and self.repeat is Repeat.SAFE)
                if fact == "answered" and self.not_after is not None:
                    assert until <= max(self.now, self.not_after)
            case Publish(event):
                self.may_publish(event)
            case Hold():
                assert {type(told) for told in self.events} == {InDoubt}
            case Finish():
                assert sum(not isinstance(event, InDoubt) for event in self.events) == 1
                assert not isinstance(self.events[-1], InDoubt)

    def may_call(self, fact: str) -> None:
        if self.repeat is Repeat.SAFE:
            self.in_time()
            return
        assert fact == "intended", "a call directly follows its committed intent"
        assert self.now >= self.under_way_until, "never two calls at once"
        assert self.repeat is Repeat.KEYED or not self.maybe_taken, "no blind repeat"

    def may_publish(self, event: Event) -> None:
        assert all(isinstance(told, InDoubt) for told in self.events)
        if self.events:
            assert isinstance(event, Settled | InDoubt), "a doubt ends settled"
        if isinstance(event, InDoubt):
            assert len(self.events) <= self.repeats, "one doubt, and one more for each repeat"
        match event:
            case InDoubt(until=until):
                assert self.repeat is Repeat.NEVER
                assert until <= self.now + self.limit
            case Accepted(already_done=True):
                assert self.repeat is Repeat.KEYED
                assert self.maybe_taken
            case Rejected(by=By.ADAPTER):
                assert self.repeat is Repeat.SAFE or not self.maybe_taken, "a guess"
            case _:
                pass

    def in_time(self) -> None:
        assert self.not_after is None or self.now < self.not_after
        assert self.unclear_by is None or self.now < self.unclear_by + self.limit

    def write(self, kind: Kind, *, until: float | None = None) -> None:
        self.journal = Entry(
            kind,
            "id",
            7,
            b"",
            at=self.now,
            attempt=self.command.attempts + (kind is Kind.INTENT),
            unclear_since=self.command.unclear_since,
            until=until,
            doubted=self.command.doubted,
        )

    def mark_taken(self) -> None:
        self.maybe_taken = True
        self.unclear_by = self.now if self.unclear_by is None else self.unclear_by

    # -- facts

    @rule(passed=seconds)
    def time_passes(self, passed: float) -> None:
        self.now += passed

    @precondition(lambda self: isinstance(self.action, Seek))
    @rule(after=seconds)
    def the_tickets_are_read(self, after: float) -> None:
        self.now += after
        self.told("seek", self.command.seek(self.now))

    @precondition(lambda self: isinstance(self.action, Seek))
    @rule()
    def the_reference_is_found(self) -> None:
        self.referred = True
        past = self.past()
        self.posts = past.attempts if isinstance(past, Untouched) else 0
        self.told("begin", self.command.begin(self.now, past))

    @precondition(lambda self: isinstance(self.action, Seek) and self.journal is None)
    @rule()
    def the_reference_is_never_found(self) -> None:
        assert isinstance(self.action, Seek)
        self.now = max(self.now, self.action.until)
        self.told("unfound", self.command.unfound(self.now, LEFT_OUT))

    @precondition(lambda self: isinstance(self.action, Intend))
    @rule()
    def the_intent_is_committed(self) -> None:
        self.write(Kind.INTENT)
        self.told("intended", self.command.intended(self.now))

    @precondition(lambda self: isinstance(self.action, Intend | Post))
    @rule()
    def the_call_is_not_made(self) -> None:
        self.posts -= isinstance(self.action, Post)
        self.told("forgone", self.command.forgone(self.now))

    @precondition(lambda self: isinstance(self.action, Post))
    @rule()
    def the_request_can_no_longer_be_written(self) -> None:
        self.posts -= 1
        self.told("unsendable", self.command.unsendable(()))

    @precondition(lambda self: isinstance(self.action, Post))
    @rule(verdict=verdicts, took=st.integers(0, int(CALL_LIMIT)), others=st.integers(0, 1))
    def the_call_is_over(self, verdict: Verdict, took: int, others: int) -> None:
        self.now += took
        self.successes += others
        if isinstance(verdict, Unclear):
            self.mark_taken()
        self.told("answered", self.command.answered(self.now, verdict, self.successes))

    @precondition(lambda self: isinstance(self.action, Wait) and self.action.cleared)
    @rule()
    def the_clearing_is_committed(self) -> None:
        self.write(Kind.CLEARED)

    @precondition(lambda self: isinstance(self.action, Wait | Hold))
    @rule(late=seconds)
    def its_time_has_come(self, late: float) -> None:
        assert isinstance(self.action, Wait | Hold)
        self.now = max(self.now, self.action.until) + late
        self.told("resumed", self.command.resumed(self.now))

    @precondition(lambda self: isinstance(self.action, Hold))
    @rule(outcome=st.sampled_from(Settlement), by=st.sampled_from(Settler))
    def somebody_knows(self, outcome: Settlement, by: Settler) -> None:
        self.told("settle", self.command.settle(Settled(outcome, by)))

    @precondition(lambda self: isinstance(self.action, Hold))
    @rule()
    def somebody_has_it_sent_again(self) -> None:
        self.repeats += 1
        self.maybe_taken = False  # he takes it upon himself
        self.unclear_by = None
        self.told("repeat", self.command.repeat(self.now, Again("Joe: try again")))

    @precondition(lambda self: isinstance(self.action, Publish))
    @rule()
    def the_event_is_committed(self) -> None:
        assert isinstance(self.action, Publish)
        event = self.action.event
        self.events.append(event)
        if isinstance(event, InDoubt):
            self.write(Kind.HELD, until=event.until)
        self.told("published", self.command.published())

    @precondition(lambda self: not isinstance(self.action, Finish))
    @rule(gone=seconds)
    def the_worker_crashes(self, gone: float) -> None:
        if self.journal is None:
            self.unclear_by = None  # forgotten with the worker
        elif self.journal.kind is Kind.INTENT:
            self.mark_taken()  # for all the next worker can know
            if isinstance(self.action, Post):
                self.under_way_until = self.journal.at + CALL_LIMIT
        self.now += gone
        self.begin()

    @precondition(lambda self: not isinstance(self.action, Finish))
    @rule(verdict=st.sampled_from([ACCEPTED, Unclear("reset")]))
    def the_supplier_stays_as_it_is(self, verdict: Verdict) -> None:
        """If nothing else happens, the command ends, whether calls are answered or never are."""
        for _ in range(200):
            match self.action:
                case Seek():
                    self.the_reference_is_found()
                case Intend():
                    self.the_intent_is_committed()
                case Post():
                    self.the_call_is_over(verdict, 1, 1)
                case Wait() | Hold():
                    self.its_time_has_come(0.0)
                case Publish():
                    self.the_event_is_committed()
                case _:
                    return
        raise AssertionError("it goes on forever")

    @precondition(lambda self: isinstance(self.action, Finish))
    @rule(repeat=st.sampled_from(Repeat))
    def the_next_command_is_delivered(self, repeat: Repeat) -> None:
        self.deliver(repeat, None, 60, referred=True)

    @rule(data=st.data())
    def a_fact_comes_out_of_turn(self, data: st.DataObject) -> None:
        assert self.action is not None
        fact = data.draw(st.sampled_from(sorted(FACTS.keys() - LEGAL[type(self.action)])))
        before = _state(self.command)
        with pytest.raises(RuntimeError):
            FACTS[fact](self.command, self.now)
        assert _state(self.command) == before

    @invariant()
    def attempts_count_the_calls(self) -> None:
        assert self.command.attempts == self.posts


TestLives = Lives.TestCase
TestLives.settings = settings(deadline=None, max_examples=150, stateful_step_count=30)


def _state(command: Command) -> dict[str, Any]:
    return {name: getattr(command, name) for name in Command.__slots__}


# -- facts out of turn, one by one -------------------------------------------------------------------------------------


def seeking() -> Command:
    command = new(Repeat.NEVER)
    command.seek(0.0)
    return command


def intending() -> Command:
    command = new(Repeat.NEVER)
    command.begin(0.0, Untouched())
    return command


def calling() -> Command:
    command = intending()
    command.intended(0.0)
    return command


def answered(verdict: Verdict) -> Command:
    command = calling()
    command.answered(0.0, verdict)
    return command


def published(verdict: Verdict) -> Command:
    command = answered(verdict)
    command.published()
    return command


@pytest.mark.parametrize(
    ("make", "legal"),
    [
        pytest.param(lambda: new(Repeat.NEVER), {"begin", "refuse", "seek"}, id="new"),
        pytest.param(seeking, LEGAL[Seek], id="seeking"),
        pytest.param(intending, LEGAL[Intend], id="intending"),
        pytest.param(calling, LEGAL[Post], id="calling"),
        pytest.param(lambda: answered(Unavailable("connect")), LEGAL[Wait], id="waiting"),
        pytest.param(lambda: answered(Unclear("reset")), LEGAL[Publish], id="doubting"),
        pytest.param(lambda: published(Unclear("reset")), LEGAL[Hold], id="held"),
        pytest.param(lambda: answered(ACCEPTED), LEGAL[Publish], id="ending"),
        pytest.param(lambda: published(ACCEPTED), LEGAL[Finish], id="ended"),
    ],
)
@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_out_of_turn_is_our_bug(make: Callable[[], Command], legal: set[str], fact: str) -> None:
    if fact in legal:
        FACTS[fact](make(), 0.0)
    else:
        with pytest.raises(RuntimeError, match="ResolveResponse"):
            FACTS[fact](make(), 0.0)
