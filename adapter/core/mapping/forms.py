"""Replies recognised by their form: a reply with the same tags as an earlier one, and other plain texts between them,
can be read without a parser. Most replies of an operation differ in a handful of texts only.

A form is learned from a whole document that was admitted and read without any deviation, and in which each child of the
message holds nothing but plain text. Another document with the same tags, white space included, can only be the same
tree with other texts: what is between two tags is text, since the form has no comment, CDATA section, processing
instruction or reference in which it could be something else, and plain text cannot begin one.
"""

import re
from typing import Any, Final

from lxml import etree

from adapter.core.document import DocumentLimits, local_name
from adapter.core.immutable import immutable
from adapter.core.mapping.pairs import Pair, Scalar
from adapter.core.mapping.values import Quick, never, quick

_MOST: Final = 64
"""Forms of one kind of message that are remembered; a supplier has a few."""

_LONGEST: Final = 16_384
"""Bytes of a document that is known by its form."""

_TEXT: Final = re.compile(">([!-%'-;=?-~][ -%'-;=?-~]*+)<")
"""A text between two tags: printable ASCII without the three characters that XML gives a meaning."""


@immutable
class _Form:
    admitted: tuple[str | None, DocumentLimits]
    """Content type and limits with which the document was admitted from which this was learned."""
    blank: dict[str, Any]
    """The record with all fields null."""
    fields: tuple[tuple[str, Quick], ...]
    """Name and reader of each text's field, in the order of the texts."""


class Forms:
    """The forms of one kind of message that were learned so far."""

    __slots__ = ("_known", "_quick")

    def __init__(self, content: tuple[Pair, ...]) -> None:
        self._quick = {pair.name: quick(pair.leaf) for pair in content if isinstance(pair, Scalar)}
        self._known: dict[tuple[str, ...], _Form] = {}

    def read(self, body: bytes, content_type: str | None, limits: DocumentLimits) -> dict[str, Any] | None:
        """The record of a document whose form is known, as the reader would make it; None if the form is unknown."""
        if len(body) > _LONGEST or len(body) > limits.size or not body.isascii():
            return None
        parts = _TEXT.split(body.decode("ascii"))
        form = self._known.get(tuple(parts[::2]))
        if form is None or form.admitted != (content_type, limits):
            return None
        record = form.blank.copy()
        for (name, read), text in zip(form.fields, parts[1::2], strict=True):
            value = read(text)
            if value is None:
                return None
            record[name] = value
        return record

    def learn(
        self,
        body: bytes,
        content_type: str | None,
        limits: DocumentLimits,
        element: etree._Element,
        record: dict[str, Any],
    ) -> None:
        """Learn the form of a document that was admitted under these limits, and whose message `element` was read into
        `record` without any deviation.
        """
        if len(body) > _LONGEST or not body.isascii():
            return
        document = body.decode("ascii")
        if "&" in document or "<!" in document or "<?" in document[1:]:
            return
        parts = _TEXT.split(document)
        if parts[1::2] != [child.text for child in element]:
            return
        fields = tuple((name, self._quick.get(name, never)) for name in map(local_name, element))
        read = {name: plain(text) for (name, plain), text in zip(fields, parts[1::2], strict=True)}
        if dict.fromkeys(record) | read != record:
            return  # a value that only the full reader can read, or that is not from a text
        if len(self._known) == _MOST:
            self._known.clear()
        self._known[tuple(parts[::2])] = _Form((content_type, limits), dict.fromkeys(record), fields)
