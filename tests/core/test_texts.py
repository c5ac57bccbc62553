"""Texts of requests: the quick condition holds only for what needs no cleaning."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.mapping.texts import Flaw, cleaner, escaped, plain
from adapter.core.xsd import Kind, Leaf

LEAVES = (
    Leaf(Kind.TEXT),
    Leaf(Kind.TEXT, collapse=True),
    Leaf(Kind.TEXT, collapse=True, not_blank=True, longest=4),
    Leaf(Kind.TEXT, longest=4),
    Leaf(Kind.TEXT, not_blank=True),
    Leaf(Kind.TEXT, shortest=1, longest=4),
)
TRICKY = st.text(alphabet=" a", max_size=6) | st.text(
    alphabet=" \t\n\r&<>\"'a\x00\x85\xa0\u2003\u2028\ufffe\ud800é", max_size=4
)


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
@given(text=TRICKY)
def test_what_is_told_to_be_plain_is_clean_once_escaped(leaf: Leaf, text: str) -> None:
    condition = plain(leaf, "text")
    assert condition is not None
    if eval(condition):
        assert cleaner(leaf)(text) == escaped(text)


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_an_ordinary_text_is_told_to_be_plain(leaf: Leaf) -> None:
    assert eval(plain(leaf, "text") or "", {"text": "a é"})


def test_a_leaf_with_a_pattern_is_never_told_to_be_plain() -> None:
    leaf = Leaf(Kind.TEXT, patterns=(re.compile("^A$"),))
    assert plain(leaf, "text") is None
    with pytest.raises(Flaw):
        cleaner(leaf)("B")
