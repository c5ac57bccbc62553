"""Bounds the memory that libxml2 never frees.

libxml2 keeps one copy of every name, namespace and longer run of blanks that a thread has ever parsed, for as long as
that thread lives. Messages share a small vocabulary, so this does no harm; a caller who invents names in every message
would fill the memory. This module decides whether parsing a document would extend a bounded vocabulary; a document that
exceeds it must be parsed in a thread of its own, with which the names are freed.
"""

import re
from typing import Final

_MOST: Final = 4096
_LONGEST: Final = 1024
"""Words of a vocabulary and bytes of one, so 4 MiB at most."""

# An end tag says what its start tag said, or the parser stops at it.
_TAGS: Final = re.compile(rb"<([^!/>][^>]*)")
_REFERENCES: Final = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#[0-9a-fA-Fx]+);)([^;<&\s]*)")
_SPACES: Final = bytes.maketrans(b"\t\r\n", b"   ")
_MANY: Final = b" " * 16
_BLANKS: Final = re.compile(rb"[ \t\r\n]{16,}")
# A ">" may stand in an attribute's value: then what was found is not the whole tag, and the rest could be anything.
_WHOLE: Final = re.compile(rb"""[^"']*(?:(?:"[^"]*"|'[^']*')[^"']*)*""")


class Vocabulary:
    """The words that documents have used so far: tags as written, references, long runs of blanks."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        self._words: set[bytes] = set()

    def covers(self, text: bytes) -> bool:
        """Whether parsing `text` leaves nothing behind but words of this vocabulary, which it may extend."""
        found = _TAGS.findall(text)
        if b"&" in text:
            found += _REFERENCES.findall(text)
        if _MANY in text.translate(_SPACES):  # quicker than a search for them
            found += _BLANKS.findall(text)
        if self._words.issuperset(found):
            return True
        new = set(found) - self._words
        if len(self._words) + len(new) > _MOST:
            return False
        if not all(len(word) <= _LONGEST and _WHOLE.fullmatch(word) for word in new):
            return False
        self._words |= new
        return True

    def __len__(self) -> int:
        return len(self._words)
