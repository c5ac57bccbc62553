"""When it is said that something takes too long."""

from adapter.core.overdue import Overdue, Recurring


def test_it_is_told_after_ten_seconds_then_ever_more_rarely_and_at_least_every_ten_minutes() -> None:
    overdue = Overdue(1000.0)
    told = [second for second in range(3600) if overdue.due(1000.0 + second) is not None]
    assert told == [10, 20, 40, 80, 160, 320, 640, 1240, 1840, 2440, 3040]


def test_how_long_it_has_taken_is_told_not_how_long_ago_that_was_told_last() -> None:
    overdue = Overdue(1000.0)
    assert (overdue.due(1012.5), overdue.due(1030.0)) == (12.5, 30.0)


def test_what_many_run_into_is_told_once_in_half_a_minute_and_each_thing_for_itself() -> None:
    recurring = Recurring()
    told = [second for second in range(100) if recurring.due("away", 1000.0 + second)]
    assert told == [0, 30, 60, 90]
    assert recurring.due("unknown schema", 1099.0)
    assert not recurring.due("away", 1099.0)


def test_what_recurs_is_told_with_how_often_it_has_happened_since() -> None:
    recurring = Recurring()
    told = [recurring.due("away", 1000.0 + second) for second in range(61)]
    assert [times for times in told if times] == [1, 30, 30]
    assert [recurring.due("unknown schema", 1060.0), recurring.due("away", 2000.0)] == [1, 1]
