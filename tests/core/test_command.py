"""The outcome table of a command: what each fact comes to, for each repeat policy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adapter.core.command import (
    Accepted,
    Action,
    Again,
    By,
    Command,
    Event,
    Finish,
    Forbidden,
    Held,
    Hold,
    InDoubt,
    Intend,
    Intended,
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
from adapter.core.operation import Operation, Problem, Repeat
from adapter.core.retry import Backoff

SAFE, KEYED, NEVER = Repeat.SAFE, Repeat.KEYED, Repeat.NEVER

NOW = 1_000.0
CALL_LIMIT = 30.0
DOUBT_LIMIT = 600.0
POLICY = Policy(
    backoff=Backoff(first=8.0, longest=60.0),  # with this share: 6 s, 12 s, 24 s, 45 s
    call_limit=CALL_LIMIT,
    doubt_limits={},
    share=lambda: 0.5,
    reference_wait=60.0,
)
ACCEPTED = Accepted({"status": "Pending"})
ALREADY_DONE = Accepted(None, already_done=True)
REFUSED = Rejected(By.SUPPLIER, "3001", "no such service")
REFUSED_AS_DONE = Rejected(By.SUPPLIER, "3002", "Fault report is NOT RESOLVED any more")
FORBIDDEN = Rejected(By.SUPPLIER, "forbidden", "http-403")
EXPIRED = Rejected(By.ADAPTER, "expired", "the deadline (notAfter) was 1970-01-01 00:16:45Z")
"""With the deadline NOW + 5."""
UNDETERMINED = Settled(Settlement.UNDETERMINED, Settler.TIME_LIMIT)
AFTER_RESET = replace(UNDETERMINED, text="the last unclear call: reset")
AFTER_TIMEOUT = replace(UNDETERMINED, text="the last unclear call: read-timeout")


def new(repeat: Repeat, *, not_after: float | None = None, policy: Policy = POLICY) -> Command:
    operation = Operation(
        name="ResolveResponse",
        path="/resolveResponse",
        request="resolveResponse",
        reply="resolveResponseResponse",
        accepted="ResolveResponseDelivered",
        key="buyerFaultReference",
        repeat=repeat,
        doubt_limit=timedelta(seconds=DOUBT_LIMIT),
        already_done=None if repeat is SAFE else "not resolved|^4711 ",
    )
    return Command(operation, policy, not_after=not_after)


def calling(repeat: Repeat, *, not_after: float | None = None, policy: Policy = POLICY) -> Command:
    """A command whose first call is under way since NOW."""
    command = new(repeat, not_after=not_after, policy=policy)
    assert proceed(command, command.begin(NOW, Untouched()), NOW) == Post(1)
    return command


def held(*, policy: Policy = POLICY) -> Command:
    """A NEVER command whose doubt is published."""
    command = calling(NEVER, policy=policy)
    command.answered(NOW, Unclear("reset"))
    command.published()
    return command


def proceed(command: Command, action: Action, now: float) -> Action:
    """Commit the intent, where the action is to write one."""
    return command.intended(now) if isinstance(action, Intend) else action


def again(command: Command, verdict: Verdict, *, now: float = NOW, successes: int = 0) -> float:
    """The call fails, the wait passes, the next call is under way: the time of that."""
    wait = command.answered(now, verdict, successes)
    assert isinstance(wait, Wait)
    assert isinstance(proceed(command, command.resumed(wait.until), wait.until), Post)
    return wait.until


# -- the table of outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat", "verdict", "action"),
    [
        (SAFE, ACCEPTED, Publish(ACCEPTED)),
        (KEYED, ACCEPTED, Publish(ACCEPTED)),
        (NEVER, ACCEPTED, Publish(ACCEPTED)),
        (SAFE, REFUSED, Publish(REFUSED)),
        (KEYED, REFUSED, Publish(REFUSED)),
        (NEVER, REFUSED, Publish(REFUSED)),
        (SAFE, Unavailable("connect"), Wait(NOW + 6, "connect")),
        (KEYED, Unavailable("connect"), Wait(NOW + 6, "connect", cleared=True)),
        (NEVER, Unavailable("connect"), Wait(NOW + 6, "connect", cleared=True)),
        (SAFE, Unavailable("http-503", 40.0), Wait(NOW + 43, "http-503")),
        (KEYED, Unavailable("http-503", 40.0), Wait(NOW + 43, "http-503", cleared=True)),
        (NEVER, Unavailable("http-503", 40.0), Wait(NOW + 43, "http-503", cleared=True)),
        (SAFE, Unclear("reset"), Wait(NOW + 6, "reset")),
        (KEYED, Unclear("reset"), Wait(NOW + 6, "reset")),
        (NEVER, Unclear("reset"), Publish(InDoubt("reset", NOW, NOW + DOUBT_LIMIT))),
        (SAFE, Forbidden("http-403"), Wait(NOW + 6, "http-403")),
        (KEYED, Forbidden("http-403"), Wait(NOW + 6, "http-403", cleared=True)),
        (NEVER, Forbidden("http-403"), Wait(NOW + 6, "http-403", cleared=True)),
        (SAFE, Misdirected("http-404"), Wait(NOW + 6, "http-404")),
        (KEYED, Misdirected("http-404"), Wait(NOW + 6, "http-404", cleared=True)),
        (NEVER, Misdirected("http-404"), Wait(NOW + 6, "http-404", cleared=True)),
    ],
)
def test_what_a_call_came_to(repeat: Repeat, verdict: Verdict, action: Action) -> None:
    assert calling(repeat).answered(NOW, verdict) == action


@pytest.mark.parametrize("repeat", Repeat)
def test_a_command_that_breaks_a_rule_is_rejected_and_nothing_is_sent(repeat: Repeat) -> None:
    problems = (Problem("faultDetails.type", "required"),)
    command = new(repeat)
    assert command.refuse(problems, "invalid") == Publish(Rejected(By.ADAPTER, "invalid", None, problems))
    assert command.published() == Finish()
    assert command.attempts == 0


@pytest.mark.parametrize("verdict", [ACCEPTED, REFUSED])
@pytest.mark.parametrize("repeat", Repeat)
def test_a_final_event_that_is_published_ends_the_command(repeat: Repeat, verdict: Verdict) -> None:
    command = calling(repeat)
    command.answered(NOW, verdict)
    assert command.published() == Finish()


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_safe_command_is_called_without_an_intent() -> None:
    assert new(SAFE).begin(NOW, Untouched()) == Post(1)


@pytest.mark.parametrize("repeat", [KEYED, NEVER])
def test_every_call_that_changes_something_follows_its_committed_intent(repeat: Repeat) -> None:
    command = new(repeat)
    assert command.begin(NOW, Untouched()) == Intend(1)
    assert (command.intended(NOW), command.attempts) == (Post(1), 1)
    command.answered(NOW, Unavailable("connect"))
    assert command.resumed(NOW + 6) == Intend(2)
    assert (command.intended(NOW + 6), command.attempts) == (Post(2), 2)


@pytest.mark.parametrize("repeat", Repeat)
def test_waits_grow_with_the_attempts_up_to_the_longest(repeat: Repeat) -> None:
    command = calling(repeat)
    now, waits = NOW, []
    for _ in range(6):
        until = again(command, Unavailable("http-503"), now=now)
        waits.append(until - now)
        now = until
    assert waits == [6, 12, 24, 45, 45, 45]
    assert command.attempts == 7


@pytest.mark.parametrize("repeat", Repeat)
def test_an_outage_however_long_finishes_nothing(repeat: Repeat) -> None:
    command, now = calling(repeat), NOW
    outage: list[Verdict] = [Unavailable("connect"), Unavailable("http-503", 900.0), Misdirected("http-404")]
    for verdict in outage * 20:
        now = again(command, verdict, now=now)
    assert command.answered(now, ACCEPTED) == Publish(ACCEPTED)


@pytest.mark.parametrize("repeat", [KEYED, NEVER])
def test_a_call_that_is_not_made_after_its_intent_counts_as_no_attempt(repeat: Repeat) -> None:
    command = calling(repeat)
    assert command.forgone(NOW + 1) == Intend(1)
    assert command.attempts == 0
    assert command.intended(NOW + 1) == Post(1)
    assert command.attempts == 1


@pytest.mark.parametrize("repeat", [KEYED, NEVER])
def test_a_call_that_is_given_up_before_its_intent_is_committed_counts_as_no_attempt(repeat: Repeat) -> None:
    command = new(repeat)
    command.begin(NOW, Untouched())
    assert command.forgone(NOW + 1) == Intend(1)
    assert command.attempts == 0


# -- the deadline ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", Repeat)
@pytest.mark.parametrize(("turn", "in_time"), [(NOW + 6, False), (NOW + 5, False), (NOW + 4, True)])
def test_a_command_whose_deadline_has_passed_when_its_turn_comes_is_rejected(
    repeat: Repeat, turn: float, *, in_time: bool
) -> None:
    command = new(repeat, not_after=NOW + 5)
    action = command.begin(turn, Untouched())
    assert proceed(command, action, turn) == Post(1) if in_time else action == Publish(EXPIRED)


@pytest.mark.parametrize("repeat", Repeat)
@pytest.mark.parametrize(
    "verdict",
    [Unavailable("connect"), Unavailable("http-503", 900.0), Forbidden("http-403"), Misdirected("http-404")],
)
def test_a_deadline_while_the_supplier_is_unavailable_cuts_the_wait_and_rejects(
    repeat: Repeat, verdict: Verdict
) -> None:
    command = calling(repeat, not_after=NOW + 5)
    wait = command.answered(NOW, verdict)
    assert isinstance(wait, Wait)
    assert wait.until == NOW + 5
    assert command.resumed(wait.until) == Publish(EXPIRED)


@pytest.mark.parametrize("repeat", Repeat)
def test_a_deadline_that_passed_during_the_call_leaves_no_wait(repeat: Repeat) -> None:
    command = calling(repeat, not_after=NOW + 5)
    wait = command.answered(NOW + 20, Unavailable("http-503"))
    assert isinstance(wait, Wait)
    assert wait.until == NOW + 20
    assert command.resumed(NOW + 20) == Publish(EXPIRED)


EXPIRED_AFTER_RESET = replace(UNDETERMINED, text=f"expired: {EXPIRED.text}; the last unclear call: reset")


@pytest.mark.parametrize(("repeat", "event"), [(SAFE, EXPIRED), (KEYED, EXPIRED_AFTER_RESET)])
def test_a_deadline_after_an_unclear_call_rejects_only_what_cannot_have_been_taken(
    repeat: Repeat, event: Event
) -> None:
    command = calling(repeat, not_after=NOW + 5)
    assert command.answered(NOW, Unclear("reset")) == Wait(NOW + 5, "reset")
    assert command.resumed(NOW + 5) == Publish(event)


@pytest.mark.parametrize("repeat", Repeat)
def test_an_answer_after_the_deadline_still_counts(repeat: Repeat) -> None:
    assert calling(repeat, not_after=NOW + 5).answered(NOW + 20, ACCEPTED) == Publish(ACCEPTED)


# -- 401 and 403 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", Repeat)
def test_a_command_that_alone_is_forbidden_is_rejected_after_three_tries(repeat: Repeat) -> None:
    command = calling(repeat)
    now = again(command, Forbidden("http-403"), successes=7)
    now = again(command, Forbidden("http-403"), now=now, successes=8)
    assert command.answered(now, Forbidden("http-403"), 8) == Publish(FORBIDDEN)


def test_what_the_supplier_says_to_a_forbidden_command_is_passed_on() -> None:
    command = calling(SAFE)
    now = again(command, Forbidden("http-403"), successes=7)
    now = again(command, Forbidden("http-403"), now=now, successes=8)
    rejected = Rejected(By.SUPPLIER, "forbidden", "http-403: not your service")
    assert command.answered(now, Forbidden("http-403", "not your service"), 8) == Publish(rejected)


def test_a_query_that_alone_is_forbidden_after_an_unclear_try_says_so() -> None:
    command = calling(SAFE)
    now = again(command, Unclear("reset"))
    now = again(command, Forbidden("http-403"), now=now, successes=7)
    now = again(command, Forbidden("http-403"), now=now, successes=8)
    assert command.answered(now, Forbidden("http-403"), 8) == Publish(FORBIDDEN)


@pytest.mark.parametrize("repeat", Repeat)
def test_a_command_that_is_forbidden_like_all_others_waits_until_one_of_them_succeeds(repeat: Repeat) -> None:
    command, now = calling(repeat), NOW
    for _ in range(10):
        now = again(command, Forbidden("http-403"), now=now, successes=7)
    assert command.answered(now, Forbidden("http-403"), 8) == Publish(FORBIDDEN)


def test_successes_before_the_first_refusal_prove_nothing() -> None:
    command = calling(SAFE)
    now = again(command, Unavailable("connect"), successes=1)
    for _ in range(5):
        now = again(command, Forbidden("http-403"), now=now, successes=9)
    assert isinstance(command.answered(now, Forbidden("http-403"), 9), Wait)


# -- unclear and called again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [REFUSED_AS_DONE, Rejected(By.SUPPLIER, "4711")], ids=["by-text", "by-code"])
def test_a_refusal_that_says_already_done_after_an_unclear_try_counts_as_accepted(refused: Rejected) -> None:
    command = calling(KEYED)
    now = again(command, Unclear("read-timeout"))
    now = again(command, Unavailable("http-503"), now=now)
    assert command.answered(now, refused) == Publish(ALREADY_DONE)


def test_an_answer_that_says_already_done_keeps_what_else_it_holds() -> None:
    command = calling(KEYED)
    now = again(command, Unclear("read-timeout"))
    refused = replace(REFUSED_AS_DONE, aside=(("ticket", "CF-1"),))
    assert command.answered(now, refused) == Publish(replace(ALREADY_DONE, aside=(("ticket", "CF-1"),)))


def test_a_refusal_that_says_already_done_without_an_unclear_try_is_a_refusal() -> None:
    command = calling(KEYED)
    now = again(command, Unavailable("http-503"))
    assert command.answered(now, REFUSED_AS_DONE) == Publish(REFUSED_AS_DONE)


def test_another_refusal_after_an_unclear_try_is_a_refusal() -> None:
    command = calling(KEYED)
    now = again(command, Unclear("read-timeout"))
    assert command.answered(now, REFUSED) == Publish(REFUSED)


def test_an_operation_that_knows_no_already_done_takes_every_refusal_at_its_word() -> None:
    command = calling(SAFE)
    now = again(command, Unclear("read-timeout"))
    assert command.answered(now, REFUSED_AS_DONE) == Publish(REFUSED_AS_DONE)


NO_ANSWER = Rejected(
    By.ADAPTER, "no-clear-answer", "no readable answer within the time limit; the last unclear call: read-timeout"
)


@pytest.mark.parametrize(("repeat", "event"), [(SAFE, NO_ANSWER), (KEYED, AFTER_TIMEOUT)])
def test_unclear_calls_end_at_the_time_limit(repeat: Repeat, event: Event) -> None:
    command = calling(repeat)
    now = again(command, Unclear("read-timeout"))
    assert isinstance(command.answered(NOW + DOUBT_LIMIT - 1, Unclear("read-timeout")), Wait)
    assert now < NOW + DOUBT_LIMIT - 1
    assert command.resumed(NOW + DOUBT_LIMIT) == Publish(event)


@pytest.mark.parametrize(("repeat", "event"), [(SAFE, NO_ANSWER), (KEYED, AFTER_TIMEOUT)])
def test_a_call_that_stays_unclear_beyond_the_time_limit_is_the_last(repeat: Repeat, event: Event) -> None:
    command = calling(repeat)
    again(command, Unclear("read-timeout"))
    assert command.answered(NOW + DOUBT_LIMIT, Unclear("read-timeout")) == Publish(event)


@pytest.mark.parametrize(("repeat", "event"), [(SAFE, NO_ANSWER), (KEYED, AFTER_TIMEOUT)])
def test_what_the_last_unclear_answer_said_is_told_at_the_end(repeat: Repeat, event: Event) -> None:
    command = calling(repeat)
    again(command, Unclear("reset"))
    assert isinstance(event, Rejected | Settled)
    action = command.answered(NOW + DOUBT_LIMIT, Unclear("read-timeout", "503; busy"))
    assert action == Publish(replace(event, text=f"{event.text}: 503; busy"))


@pytest.mark.parametrize(("repeat", "since"), [(SAFE, NOW + 25), (KEYED, NOW)])
def test_unclear_since_tells_the_first_unclear_call(repeat: Repeat, since: float) -> None:
    """By its intent, where it has one: the call may have arrived from then on."""
    command = calling(repeat)
    assert command.unclear_since is None
    now = again(command, Unclear("total-timeout"), now=NOW + 25)
    again(command, Unclear("reset"), now=now)
    assert command.unclear_since == since


def test_the_time_limit_of_an_operation_is_a_setting() -> None:
    policy = replace(POLICY, doubt_limits={"ResolveResponse": 60.0, "AddFaultReport": 5.0})
    keyed = calling(KEYED, policy=policy)
    again(keyed, Unclear("reset"))
    assert keyed.answered(NOW + 60, Unclear("reset")) == Publish(AFTER_RESET)
    assert calling(NEVER, policy=policy).answered(NOW, Unclear("reset")) == Publish(InDoubt("reset", NOW, NOW + 60))


# -- doubt -------------------------------------------------------------------------------------------------------------


def test_a_doubt_counts_from_the_intent_and_not_from_the_failure() -> None:
    action = calling(NEVER).answered(NOW + 25, Unclear("total-timeout"))
    assert action == Publish(InDoubt("total-timeout", sent_at=NOW, until=NOW + DOUBT_LIMIT))


def test_a_doubt_tells_what_the_answer_said() -> None:
    action = calling(NEVER).answered(NOW, Unclear("fault", "F-9; down"))
    assert action == Publish(InDoubt("fault", NOW, NOW + DOUBT_LIMIT, "F-9; down"))


def test_a_published_doubt_holds_the_lane_until_its_time_limit() -> None:
    command = calling(NEVER)
    command.answered(NOW + 25, Unclear("reset"))
    assert command.published() == Hold(NOW + DOUBT_LIMIT)
    assert command.resumed(NOW + DOUBT_LIMIT) == Publish(UNDETERMINED)
    assert command.published() == Finish()


@pytest.mark.parametrize(
    "settled",
    [
        Settled(Settlement.ACCEPTED, Settler.NOTIFICATION),
        Settled(Settlement.REJECTED, Settler.OPERATOR, "never arrived"),
        Settled(Settlement.UNDETERMINED, Settler.OPERATOR),
    ],
)
def test_whoever_knows_first_settles_a_doubt(settled: Settled) -> None:
    command = held()
    assert command.settle(settled) == Publish(settled)
    with pytest.raises(RuntimeError):
        command.settle(UNDETERMINED)
    assert command.published() == Finish()


def test_a_doubt_tells_since_when_it_may_be_confirmed() -> None:
    command = calling(NEVER)
    command.answered(NOW + 25, Unclear("reset"))
    assert command.unclear_since == NOW
    again = new(NEVER)
    again.begin(NOW + 99, Held(1, NOW + 50, NOW))
    assert again.unclear_since == NOW


AGAIN = Again("Joe: not on the portal")


def repeated(*, not_after: float | None = None) -> Command:
    """A NEVER command whose second call is under way since NOW + 90, by an operator's decision."""
    command = new(NEVER, not_after=not_after)
    command.begin(NOW, Held(1, NOW + DOUBT_LIMIT, NOW))
    assert command.repeat(NOW + 90, AGAIN) == Intend(2)
    assert command.intended(NOW + 90) == Post(2)
    return command


@pytest.mark.parametrize(
    ("verdict", "settled"),
    [
        (
            Accepted(
                {
                    "responseCode": 200,
                    "status": None,
                    "expected": datetime(2026, 11, 24, 8, tzinfo=UTC),
                    "slots": [{"key": "CAMS-1"}],
                },
                aside=(("more", "hello"),),
            ),
            Settled(
                Settlement.ACCEPTED,
                Settler.OPERATOR,
                f"{AGAIN.text}; sent again, and accepted",
                (
                    ("responseCode", "200"),
                    ("expected", "2026-11-24T08:00:00+00:00"),
                    ("slots[0].key", "CAMS-1"),
                    ("more", "hello"),
                ),
            ),
        ),
        (
            Rejected(By.SUPPLIER, "3001", "no such service", aside=(("hint", "try another"),)),
            Settled(
                Settlement.REJECTED,
                Settler.OPERATOR,
                f"{AGAIN.text}; sent again, and rejected: 3001, no such service",
                (("hint", "try another"),),
            ),
        ),
        (
            replace(REFUSED_AS_DONE, aside=(("ticket", "CF-1"),)),
            Settled(
                Settlement.ACCEPTED,
                Settler.OPERATOR,
                f"{AGAIN.text}; sent again, and refused as done already",
                (("ticket", "CF-1"),),
            ),
        ),
    ],
    ids=["accepted", "rejected", "already-done"],
)
def test_a_doubt_that_is_sent_again_ends_settled_too(verdict: Verdict, settled: Settled) -> None:
    command = repeated()
    assert command.answered(NOW + 91, verdict) == Publish(settled)
    assert command.published() == Finish()


def test_a_doubt_is_sent_again_only_when_the_call_in_doubt_must_be_over() -> None:
    command = new(NEVER)
    command.begin(NOW, Held(1, NOW + DOUBT_LIMIT, NOW))
    assert command.repeat(NOW + 10, AGAIN) == Wait(NOW + CALL_LIMIT, "interrupted")
    assert command.resumed(NOW + CALL_LIMIT) == Intend(2)


def test_a_call_that_is_sent_again_and_stays_unclear_is_a_new_doubt_with_a_new_time_limit() -> None:
    command = repeated()
    assert command.answered(NOW + 91, Unclear("reset")) == Publish(InDoubt("reset", NOW + 90, NOW + 90 + DOUBT_LIMIT))
    assert (command.attempts, command.unclear_since) == (2, NOW + 90)
    assert command.published() == Hold(NOW + 90 + DOUBT_LIMIT)


def test_a_doubt_is_not_sent_again_after_its_deadline_and_is_no_rejection() -> None:
    command = new(NEVER, not_after=NOW + 80)
    command.begin(NOW, Held(1, NOW + DOUBT_LIMIT, NOW))
    assert command.repeat(NOW + 90, AGAIN) == Publish(
        Settled(
            Settlement.UNDETERMINED,
            Settler.OPERATOR,
            f"{AGAIN.text}; not sent again: expired, the deadline (notAfter) was 1970-01-01 00:18:00Z",
        )
    )


def test_a_doubt_that_is_sent_again_waits_out_an_outage_beyond_its_old_time_limit() -> None:
    command, now = repeated(), NOW + 91
    while now < NOW + 2 * DOUBT_LIMIT:
        now = again(command, Unavailable("connect"), now=now)
    assert command.unclear_since is None


def test_a_doubt_whose_repeat_can_no_longer_be_written_is_not_sent_again_and_says_why() -> None:
    assert repeated().unsendable((Problem("faultDetails.type", "unknown"), Problem("", "too long"))) == Publish(
        Settled(
            Settlement.UNDETERMINED,
            Settler.OPERATOR,
            f"{AGAIN.text}; not sent again: invalid, faultDetails.type: unknown, too long",
        )
    )


def test_a_doubt_whose_repeat_is_forbidden_ends_undetermined_and_says_why() -> None:
    command = repeated()
    for successes in range(2):
        action = command.answered(NOW + 91, Forbidden("http-403"), successes)
        assert isinstance(action, Wait)
        proceed(command, command.resumed(action.until), action.until)
    assert command.answered(NOW + 200, Forbidden("http-403", "not yours"), 3) == Publish(
        Settled(
            Settlement.UNDETERMINED,
            Settler.OPERATOR,
            f"{AGAIN.text}; sent again, and forbidden: http-403: not yours",
        )
    )


def test_a_repeat_that_waits_is_still_the_end_of_a_doubt_after_a_crash() -> None:
    command = repeated()
    assert isinstance(command.answered(NOW + 91, Unavailable("connect")), Wait)
    after = new(NEVER)
    assert proceed(after, after.begin(NOW + 99, Untouched(2, None, command.doubted)), NOW + 99) == Post(3)
    assert after.answered(NOW + 99, ACCEPTED) == Publish(
        Settled(
            Settlement.ACCEPTED, Settler.OPERATOR, f"{AGAIN.text}; sent again, and accepted", (("status", "Pending"),)
        )
    )


# -- the supplier's reference ------------------------------------------------------------------------------------------

LEFT_OUT = Problem("maintainerFaultReference", "left out, and its ticket is not known")


def test_a_command_without_the_suppliers_reference_waits_for_its_ticket_to_have_one() -> None:
    command = new(SAFE)
    assert command.seek(NOW) == Seek(NOW + 60)
    assert command.begin(NOW + 59, Untouched()) == Post(1)


def test_a_command_waits_for_the_reference_at_most_until_its_deadline() -> None:
    assert new(SAFE, not_after=NOW + 5).seek(NOW) == Seek(NOW + 5)
    assert new(SAFE, not_after=NOW + 500).seek(NOW) == Seek(NOW + 60)


def test_the_time_for_the_reference_begins_anew_when_the_ticket_can_be_looked_at() -> None:
    command = new(SAFE, not_after=NOW + 500)
    command.seek(NOW)
    assert command.seek(NOW + 100) == Seek(NOW + 160)
    assert command.seek(NOW + 450) == Seek(NOW + 500)


@pytest.mark.parametrize("not_after", [None, NOW + 61])
def test_a_command_that_needs_the_reference_is_rejected_when_its_time_is_up(not_after: float | None) -> None:
    command = new(SAFE, not_after=not_after)
    command.seek(NOW)
    assert command.unfound(NOW + 60, LEFT_OUT) == Publish(Rejected(By.ADAPTER, "reference-unknown", None, (LEFT_OUT,)))
    assert command.attempts == 0


def test_a_command_whose_deadline_passes_while_it_waits_for_the_reference_has_expired() -> None:
    command = new(SAFE, not_after=NOW + 5)
    command.seek(NOW)
    assert command.unfound(NOW + 5, LEFT_OUT) == Publish(EXPIRED)


def test_a_command_that_breaks_a_rule_with_the_reference_it_got_is_refused() -> None:
    command = new(SAFE)
    command.seek(NOW)
    problems = (Problem("maintainerFaultReference", "longer than 36"),)
    assert command.refuse(problems, "invalid") == Publish(Rejected(By.ADAPTER, "invalid", None, problems))


# -- after a crash -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat", "past", "action"),
    [
        (SAFE, Untouched(), Post(1)),
        (KEYED, Untouched(2), Intend(3)),
        (NEVER, Untouched(2), Intend(3)),
        (KEYED, Untouched(2, NOW - 10), Intend(3)),
        (KEYED, Untouched(2, NOW - DOUBT_LIMIT), Publish(UNDETERMINED)),
        (KEYED, Intended(1, NOW - 10), Wait(NOW - 10 + CALL_LIMIT, "interrupted")),
        (KEYED, Intended(1, NOW - CALL_LIMIT), Intend(2)),
        (KEYED, Intended(1, NOW - DOUBT_LIMIT), Publish(UNDETERMINED)),
        (KEYED, Intended(4, NOW - CALL_LIMIT, NOW - DOUBT_LIMIT), Publish(UNDETERMINED)),
        (NEVER, Intended(1, NOW - 10), Publish(InDoubt("interrupted", NOW - 10, NOW - 10 + DOUBT_LIMIT))),
        (NEVER, Intended(1, NOW - 900), Publish(InDoubt("interrupted", NOW - 900, NOW - 900 + DOUBT_LIMIT))),
        (NEVER, Held(1, NOW + 50, NOW), Hold(NOW + 50)),
        (KEYED, Held(1, NOW + 50, NOW), Hold(NOW + 50)),
    ],
)
def test_what_becomes_of_a_command_that_is_delivered_again(repeat: Repeat, past: Past, action: Action) -> None:
    assert new(repeat).begin(NOW, past) == action


@pytest.mark.parametrize("past", [Untouched(3), Intended(3, NOW), Held(3, NOW, NOW)])
def test_attempts_count_on_after_a_crash(past: Past) -> None:
    command = new(NEVER)
    command.begin(NOW, past)
    assert command.attempts == 3


def test_a_keyed_command_is_called_again_only_when_the_interrupted_call_must_be_over() -> None:
    command = new(KEYED)
    assert command.begin(NOW + 29, Intended(1, NOW)) == Wait(NOW + CALL_LIMIT, "interrupted")
    assert command.resumed(NOW + CALL_LIMIT) == Intend(2)
    command.intended(NOW + CALL_LIMIT)
    assert command.answered(NOW + 31, REFUSED_AS_DONE) == Publish(ALREADY_DONE)


def test_an_interrupted_call_is_an_unclear_try_since_its_intent() -> None:
    command = new(KEYED)
    command.begin(NOW + CALL_LIMIT, Intended(2, NOW))
    assert command.unclear_since == NOW
    command = new(KEYED)
    command.begin(NOW + CALL_LIMIT, Intended(2, NOW, NOW - 100))
    assert command.unclear_since == NOW - 100


def test_an_unclear_try_before_the_crash_makes_already_done_count_after_it() -> None:
    command = new(KEYED)
    assert proceed(command, command.begin(NOW, Untouched(2, NOW - 10)), NOW) == Post(3)
    assert command.answered(NOW, REFUSED_AS_DONE) == Publish(ALREADY_DONE)


def test_a_held_command_that_is_taken_up_ends_at_its_time_limit() -> None:
    command = new(NEVER)
    command.begin(NOW, Held(1, NOW + 50, NOW))
    assert command.resumed(NOW + 50) == Publish(UNDETERMINED)
    assert command.published() == Finish()


def test_a_doubt_after_a_crash_ends_at_its_time_limit_even_if_that_has_passed() -> None:
    command = new(NEVER)
    command.begin(NOW, Intended(1, NOW - 900))
    assert command.published() == Hold(NOW - 900 + DOUBT_LIMIT)


def test_a_deadline_does_not_decide_over_a_call_that_may_have_been_made() -> None:
    past = Intended(1, NOW - CALL_LIMIT)
    text = "expired: the deadline (notAfter) was 1970-01-01 00:16:39Z"
    assert new(KEYED, not_after=NOW - 1).begin(NOW, past) == Publish(replace(UNDETERMINED, text=text))
    assert isinstance(new(NEVER, not_after=NOW - 1).begin(NOW, past), Publish)
    assert new(NEVER, not_after=NOW - 1).begin(NOW, Held(1, NOW + 50, NOW)) == Hold(NOW + 50)


def test_an_unclear_try_from_when_the_operation_was_keyed_is_in_doubt_now_that_it_is_never_repeated() -> None:
    doubt = InDoubt("interrupted", NOW - 10, NOW - 10 + DOUBT_LIMIT)
    assert new(NEVER).begin(NOW, Untouched(2, NOW - 10)) == Publish(doubt)
    assert new(NEVER, not_after=NOW - 1).begin(NOW, Untouched(2, NOW - 10)) == Publish(doubt)


@pytest.mark.parametrize(
    ("repeat", "past", "event"),
    [
        (SAFE, Untouched(), Rejected(By.ADAPTER, "invalid", None, (Problem("", "too long"),))),
        (KEYED, Untouched(), Rejected(By.ADAPTER, "invalid", None, (Problem("", "too long"),))),
        (KEYED, Intended(1, NOW - CALL_LIMIT), replace(UNDETERMINED, text="invalid; too long")),
    ],
)
def test_a_command_that_can_no_longer_be_written_ends_without_a_call(repeat: Repeat, past: Past, event: Event) -> None:
    command = new(repeat)
    attempts = past.attempt if isinstance(past, Intended) else 0
    proceed(command, command.begin(NOW, past), NOW)
    assert command.unsendable((Problem("", "too long"),)) == Publish(event)
    assert command.attempts == attempts


def test_a_keyed_command_forbidden_after_an_unclear_try_is_undetermined_and_not_rejected() -> None:
    command = calling(KEYED)
    action = command.answered(NOW, Unclear("read-timeout"))
    for successes in range(3):
        assert isinstance(action, Wait)
        assert proceed(command, command.resumed(action.until), action.until) == Post(successes + 2)
        action = command.answered(NOW + 60, Forbidden("http-403"), successes)
    text = "forbidden: http-403; the last unclear call: read-timeout"
    assert action == Publish(replace(UNDETERMINED, text=text))


def test_an_unclear_keyed_command_waits_no_longer_than_its_doubt_lasts() -> None:
    command = calling(KEYED)
    command.answered(NOW, Unclear("read-timeout"))
    proceed(command, command.resumed(NOW + 10), NOW + 10)
    assert command.answered(NOW + 10, Unavailable("http-503", retry_after=86_400)) == Wait(
        NOW + DOUBT_LIMIT, "http-503", cleared=True
    )
