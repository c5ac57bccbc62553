"""What is read at once against what is read with care."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from adapter.core.mapping.notes import Notes
from adapter.core.mapping.values import quick, scalar
from adapter.core.xsd import Kind, Leaf
from tests.strategies import xml_text

LEAVES = {
    "text": (Leaf(Kind.TEXT), "string"),
    "folded": (Leaf(Kind.TEXT, collapse=True, not_blank=True), "string"),
    "short": (Leaf(Kind.TEXT, collapse=True, longest=5), "string"),
    "listed": (Leaf(Kind.TEXT, values=("a", "b")), "string"),
    "boolean": (Leaf(Kind.BOOLEAN), "boolean"),
    "time": (Leaf(Kind.DATE_TIME), "long"),
    "date": (Leaf(Kind.DATE), "int"),
    "number": (Leaf(Kind.INTEGER), "int"),
}
TIMES = st.from_regex(
    r"[0-9]{4}-?[0-9W]{2}-?[0-9]{2}[T ][0-9]{2}:?[0-9]{2}(:?[0-9]{2}([.,][0-9]{1,7})?)?(Z|\+01:00)?", fullmatch=True
)
TEXTS = (
    xml_text
    | TIMES
    | st.sampled_from(
        [
            "",
            " ",
            "a",
            "a  b",
            " a",
            "a\n",
            "true",
            "false",
            "TRUE",
            "1",
            "-1",
            "007",
            "\u0661",
            "\xb2",
            "9" * 10,
            "2026-02-28",
        ]
    )
)


@pytest.mark.parametrize(
    ("leaf", "xml"),
    [
        (Leaf(Kind.TEXT, longest=3), "<t>four</t>"),
        (Leaf(Kind.TEXT, values=("a", "b")), "<t>c</t>"),
        (Leaf(Kind.TEXT, collapse=True, not_blank=True), "<t> </t>"),
        (Leaf(Kind.TEXT), "<t>one <b>two</b></t>"),
    ],
)
def test_a_text_that_deviates_is_kept_in_its_place_and_not_aside_too(leaf: Leaf, xml: str) -> None:
    element, notes = etree.fromstring(xml), Notes()
    text = scalar(leaf, "string", ZoneInfo("UTC"))(element, notes)
    assert text == "".join(map(str, element.itertext())).strip()
    assert (len(notes.deviations), notes.aside) == (1, ())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "yes", "yes"),
        ("boolean", "true", True),
        ("number", "7", 7),
        ("date", "2026-02-28", date(2026, 2, 28)),
        ("time", "2026-02-28T12:00:00Z", datetime(2026, 2, 28, 12, tzinfo=UTC)),
    ],
)
def test_what_is_nil_is_null_unless_it_holds_something(name: str, text: str, value: object) -> None:
    leaf, avro = LEAVES[name]
    nil = 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:nil="true"'
    for inner, expected in (("", None), (text, value), (f"<b>{text}</b>", value)):
        element, notes = etree.fromstring(f"<n {nil}>{inner}</n>"), Notes()
        assert scalar(leaf, avro, ZoneInfo("UTC"))(element, notes) == expected
        assert inner or not notes.noted


@pytest.mark.parametrize(
    ("avro", "text", "fits"),
    [
        ("int", "2147483647", True),
        ("int", "2147483648", False),
        ("int", "-2147483648", True),
        ("int", "-2147483649", False),
        ("long", "9223372036854775807", True),
        ("long", "9223372036854775808", False),
        ("long", "-9223372036854775808", True),
        ("long", "-9223372036854775809", False),
    ],
)
def test_a_number_is_read_if_it_fits_what_it_is_read_for(avro: str, text: str, *, fits: bool) -> None:
    element, notes = etree.Element("n"), Notes()
    element.text = text
    assert scalar(Leaf(Kind.INTEGER), avro, ZoneInfo("UTC"))(element, notes) == (int(text) if fits else None)
    assert bool(notes.noted) is not fits


@pytest.mark.parametrize("name", LEAVES)
def test_what_is_taken_at_once_is_what_care_makes_of_it_and_strays_nowhere(name: str) -> None:
    leaf, avro = LEAVES[name]
    at_once, careful = quick(leaf), scalar(leaf, avro, ZoneInfo("Europe/London"))

    @given(TEXTS)
    @example("2026-01-31x11:15:17Z")
    @example("2018-W23-6T11:15:17Z")  # a day of a week; and Python passes over what it does not know behind a second
    @example("2018-06-09T11:15:178Z")
    @example("2018-06-09T11:15:17.Z")
    @example("2018-06-09T11:15:17.1239Z")
    @example("2018-06-09T11:15:17.12x9Z")
    @example("2018-06-09T11:15:17.12x99Z")
    @example("2018-06-09T11:15:17.12399Z")
    def compare(text: str) -> None:
        found = at_once(text)
        if found is not None:
            element, notes = etree.Element("x"), Notes()
            element.text = text
            assert careful(element, notes) == found
            assert notes.noted == []

    compare()


def test_what_most_messages_hold_is_taken_at_once() -> None:
    for name, text in (
        ("folded", "SP-123ABC"),
        ("listed", "a"),
        ("boolean", "true"),
        ("time", "2018-06-09T11:15:17.0001Z"),
        ("number", "200"),
    ):
        assert quick(LEAVES[name][0])(text) is not None
    assert quick(LEAVES["text"][0])(None) is None


@pytest.mark.parametrize("sign", ["", "+", "-"])
def test_a_number_is_read_however_many_zeros_it_begins_with(sign: str) -> None:
    element, notes = etree.Element("x"), Notes()
    element.text = f"{sign}{'0' * 5000}200"  # Python converts no more than 4300 digits
    assert scalar(*LEAVES["number"], ZoneInfo("Europe/London"))(element, notes) == int(f"{sign}200")
    element.text = f"{sign}{'0' * 5000}"
    assert scalar(*LEAVES["number"], ZoneInfo("Europe/London"))(element, notes) == 0
    assert notes.noted == []
