"""Moments as machines write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapter.core.instant import of_http, utc

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "Sat, 31 Jan 2026 12:00:00 GMT",
        "Sat, 31 Jan 2026 12:00:00 -0000",  # "no offset is known", which Python makes a time without one
        "Sat, 31 Jan 2026 13:00:00 +0100",
    ],
)
def test_an_http_date_can_be_compared_with_our_clock(text: str) -> None:
    assert of_http(text) == NOON


@pytest.mark.parametrize("text", ["", "soon", "Sat, 31 Feb 2026 12:00:00 GMT", f"Sat, 31 Jan {'9' * 30} 12:00:00 GMT"])
def test_what_is_no_date_is_none(text: str) -> None:
    assert of_http(text) is None


@given(st.datetimes(timezones=st.just(UTC) | st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))))
@example(datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))))
@example(datetime(1, 1, 1, 9, 5, 7, 9_999, tzinfo=UTC))
def test_a_moment_is_written_as_isoformat_does(moment: datetime) -> None:
    try:
        expected = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    except OverflowError:
        with pytest.raises(OverflowError):
            utc(moment)
    else:
        assert utc(moment) == f"{expected}Z"
