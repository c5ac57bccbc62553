"""The headers of an event, as CloudEvents 1.0 wants them."""

import re

import pytest

from adapter.core import cloudevents

URI_REFERENCE = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})+)+")
"""An absolute path without empty segments (RFC 3986, section 3.3)."""


@pytest.mark.parametrize(
    ("buyer", "expected"),
    [
        ("SPDEV1", "/fault-adapter/cityfibre/SPDEV1"),
        ("SP DEV %1é", "/fault-adapter/cityfibre/SP%20DEV%20%251%C3%A9"),
        ("a/../b?c#d", "/fault-adapter/cityfibre/a%2F..%2Fb%3Fc%23d"),
    ],
)
def test_the_source_is_a_uri_reference_whoever_the_buyer_is(buyer: str, expected: str) -> None:
    source = cloudevents.source("cityfibre", buyer)
    assert source == expected
    assert URI_REFERENCE.fullmatch(source)
