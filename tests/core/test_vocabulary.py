import pytest

from adapter.core.vocabulary import Vocabulary

MESSAGE = b"<e:a xmlns:e='urn:x'>\n" + b" " * 20 + b"<b>text &amp; more</b><?p i?></e:a>"


def test_what_is_said_again_is_covered() -> None:
    vocabulary = Vocabulary()
    assert vocabulary.covers(MESSAGE)
    words = len(vocabulary)
    assert vocabulary.covers(MESSAGE.replace(b"text", b"other"))
    assert len(vocabulary) == words


def test_what_is_new_is_not_covered_once_the_vocabulary_is_full() -> None:
    vocabulary = Vocabulary()
    n = 0
    while vocabulary.covers(b"<a><b%d/></a>" % n):
        n += 1
        assert n < 10_000
    assert vocabulary.covers(b"<a><b1/></a>")
    assert not vocabulary.covers(b"<a><other/></a>")


@pytest.mark.parametrize(
    "text",
    [
        b"<a b='>' c='1'/>",  # where a tag ends is not seen
        b"<a" + b"x" * 2000 + b"/>",
        b"<a>" + b" " * 2000 + b"</a>",
    ],
)
def test_what_may_hide_new_words_is_never_covered(text: bytes) -> None:
    vocabulary = Vocabulary()
    assert not vocabulary.covers(text)
    assert len(vocabulary) == 0
