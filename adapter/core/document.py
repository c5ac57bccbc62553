"""Admission of XML: the one place where bytes from outside become a document, for both directions.

A document is admitted only if it is small, flat and plain: no DOCTYPE (the SOAP 1.1 specification, section 3,
forbids one), so no entity can be declared, nothing is loaded, nothing is expanded. What can be refused
without parsing is refused without parsing. `Unreadable.reason` is one of REASONS.
"""

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from threading import Thread
from typing import Final

from lxml import etree

from adapter.core.errors import Unreadable
from adapter.core.vocabulary import Vocabulary

REASONS: Final = frozenset(
    {
        "empty",  # no bytes, or white space only
        "too-large",  # more bytes than allowed
        "encoding",  # an encoding we do not speak, or bytes that contradict it
        "doctype",  # a document type declaration
        "too-many-elements",
        "too-many-attributes",  # attributes and namespace declarations together
        "too-deep",
        "malformed",  # not well-formed XML
    }
)


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Upper limits for one document; a full ticket has about a hundred elements in six levels."""

    size: int = 2 * 1024 * 1024
    """Bytes, as received and in UTF-8: what is in another encoding may grow to three times its size."""

    elements: int = 20_000
    attributes: int = 10_000
    depth: int = 64


DEFAULT_LIMITS: Final = DocumentLimits()


def admit(body: bytes, *, limits: DocumentLimits = DEFAULT_LIMITS, charset: str | None = None) -> etree._Element:
    """The root element of `body`, without comments and processing instructions.

    `charset` is that of the Content-Type header; it outranks the XML declaration, and a byte order mark both (RFC 7303
    section 3.2). A server's default is no such word: see `_encoding`. UTF-8 (with its subset US-ASCII), UTF-16,
    ISO-8859-1 and Windows-1252 are spoken.
    Raises Unreadable and nothing else.
    """
    _check_size(body, limits)
    text = _utf8(body, charset).lstrip(_SPACE)  # XML allows none before the declaration, but templates leave some
    _check_size(text, limits)
    if not text:
        raise Unreadable("empty", "there is no document")
    _check_prolog(text)
    # Every element has one "<" that starts no end tag, comment or instruction, every attribute a "=" and two
    # quotes: counting them costs microseconds and bounds what the parser can be made to build. No document has more
    # of them than bytes.
    if len(text) > limits.elements and text.count(b"<") > limits.elements:
        elements = text.count(b"<") - text.count(b"</") - text.count(b"<!") - text.count(b"<?")
        if elements > limits.elements:
            raise Unreadable("too-many-elements", f"more than {limits.elements}")
    if (
        len(text) > limits.attributes
        and text.count(b"=") > limits.attributes
        and (text.count(b'"') + text.count(b"'")) // 2 > limits.attributes
        and _has_more_values(text, limits.attributes)
    ):
        raise Unreadable("too-many-attributes", f"more than {limits.attributes}")
    try:
        root = etree.fromstring(text, _PARSER) if _VOCABULARY.covers(text) else _parsed_aside(text)
    except etree.XMLSyntaxError as error:
        raise _refusal(text, error) from None
    except ValueError as error:
        raise Unreadable("malformed", "the parser refuses it") from error
    if root.getroottree().docinfo.internalDTD is not None:  # `_check_prolog` may have missed one
        raise Unreadable("doctype", "a document type declaration is not admitted")
    # Of nested elements all but the innermost have an end tag.
    if text.count(b"</") >= limits.depth and _deeper_than(limits.depth)(root):
        raise Unreadable("too-deep", f"nested more than {limits.depth} levels")
    return root


def admit_mended(
    body: bytes, *, limits: DocumentLimits = DEFAULT_LIMITS, charset: str | None = None
) -> tuple[etree._Element, bool]:
    """The root element as by `admit`, but with bytes that are not UTF-8 read as Windows-1252 where the document claims
    to be UTF-8 or ASCII: senders paste such texts without converting them. The second value: whether there were any.
    """
    try:
        return admit(body, limits=limits, charset=charset), False
    except Unreadable as error:
        if error.reason != "encoding":
            raise
        mark, encoding = _encoding(body, charset)
        if encoding != "utf-8":
            raise
    text = body[len(mark) :].decode("utf-8", "surrogateescape").translate(_WINDOWS_1252)
    return admit(text.encode(), limits=limits, charset="utf-8"), True


def charset(content_type: str | None) -> str | None:
    """The charset parameter of a media type (RFC 9110 section 8.3.2)."""
    found = _CHARSET.search(content_type or "")
    return found[1] if found else None


def local_name(element: etree._Element) -> str:
    """The element's name without its namespace."""
    tag: str = element.tag  # type: ignore[assignment]  # admitted documents have no comments and instructions
    return tag.rpartition("}")[2] if tag[0] == "{" else tag


def attributes(element: etree._Element) -> list[tuple[etree._Element, str, str]]:
    """(element, name, value) of the attributes of an element and all elements below it. Those in a namespace are left
    out, because they belong to the protocol: xsi:type, xsi:nil, xml:lang.
    """
    return [(value.getparent(), value.attrname, str(value)) for value in _ATTRIBUTES(element)]


_ATTRIBUTES: Final = etree.XPath("descendant-or-self::*/@*[namespace-uri() = '']")


def folded_text(element: etree._Element) -> str:
    """The text of the element and all below it, runs of XML white space made one space, trimmed."""
    if len(element) == 0:
        return fold(element.text or "")
    return fold(" ".join(element.itertext()))


WHITE: Final = " \t\r\n"
"""XML's white space."""


def fold(text: str) -> str:
    """White space collapsed as XSD does it (Part 2, section 4.3.6): space, tab, CR and LF only."""
    if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
        return text  # most texts: looking is faster than folding
    text = text.strip(WHITE).replace("\t", " ").replace("\r", " ").replace("\n", " ")
    while "  " in text:  # a few passes: each halves the longest run
        text = text.replace("  ", " ")
    return text


def trimmed(text: str) -> str:
    """A reference in the form in which references are compared and name tickets: folded, as the supplier's schema
    demands, and without other kinds of white space around it.
    """
    return fold(text).strip()


def plain(word: str) -> str:
    """A word in the form in which words are compared: its letters and digits, in lower case, since spellings differ in
    case, hyphens and spaces (contract section 8, number 4).
    """
    return word.lower() if word.isalpha() else _BETWEEN_WORDS.sub("", word).lower()


_BETWEEN_WORDS: Final = re.compile(r"[\W_]+")


def _parser() -> etree.XMLParser[etree._Element]:
    return etree.XMLParser(
        encoding="utf-8",  # decided before, whatever the declaration says
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )


_PARSER: Final = _parser()
_VOCABULARY: Final = Vocabulary()


def _parsed_aside(text: bytes) -> etree._Element:
    """Parsed in a thread of its own: the names that libxml2 keeps per thread are freed with the thread and document."""
    parsed: list[etree._Element | etree.XMLSyntaxError | ValueError] = []

    def parse() -> None:
        try:
            parsed.append(etree.fromstring(text, _parser()))
        except (etree.XMLSyntaxError, ValueError) as error:
            parsed.append(error)

    thread = Thread(target=parse)
    thread.start()
    thread.join()
    (root,) = parsed
    if isinstance(root, Exception):
        raise root
    return root


_SPACE: Final = WHITE.encode()
_PROLOG_ITEMS: Final = 16
_CHARSET: Final = re.compile(r'charset\s*=\s*"?([^\s";,]+)', re.IGNORECASE)
_TAG: Final = re.compile(rb"<[^/!?]")
_VALUE: Final = re.compile(rb"""[^<>"']*+(?:"[^"]*"|'[^']*')""")
_DECLARED: Final = re.compile(rb"<\?xml\s[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")

_MARKS: Final = (
    (b"\xff\xfe\x00\x00", None),  # UTF-32, not spoken; must be looked for before UTF-16
    (b"\x00\x00\xfe\xff", None),
    (b"\x1f\x8b", None),  # gzip
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNMARKED: Final[tuple[bytes, str | None]] = (b"", "")
_MARKED: Final = frozenset(mark[:1] for mark, _ in _MARKS)
_SPOKEN: Final = {
    "utf8": "utf-8",
    "usascii": "utf-8",
    "ascii": "utf-8",
    "iso88591": "iso-8859-1",
    "latin1": "iso-8859-1",
    "windows1252": "cp1252",
    "cp1252": "cp1252",
    "utf16": "utf-16",
    "utf16le": "utf-16-le",
    "utf16be": "utf-16-be",
}
"""Python's name of an encoding by the letters and digits of its name, of which there are several spellings."""
_UTF_8: Final = re.compile(r"utf-?8", re.IGNORECASE)
_DEFAULTS: Final = frozenset({"iso-8859-1", "cp1252"})
"""What servers write into the header of any text, unless they are told otherwise."""
_WINDOWS_1252: Final = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}
"""Characters by the surrogate that stands for a byte which could not be decoded (PEP 383)."""


def _check_size(data: bytes, limits: DocumentLimits) -> None:
    if len(data) > limits.size:
        raise Unreadable("too-large", f"{len(data)} bytes, at most {limits.size} are admitted")


def _has_more_values(text: bytes, most: int) -> bool:
    """Whether the tags have more than `most` attributes. What looks like attributes between tags is text."""
    count = 0
    tag = _TAG.search(text)
    while tag is not None:
        at = tag.end()
        while (value := _VALUE.match(text, at)) is not None:
            at = value.end()
            count += 1
            if count > most:
                return True
        tag = _TAG.search(text, at)
    return False


def _check_prolog(text: bytes) -> None:
    """Refuses a DOCTYPE before any parser sees it; only comments, instructions and white space may precede one."""
    at = 0
    for _ in range(_PROLOG_ITEMS):
        at = len(text) - len(text[at:].lstrip(_SPACE)) if text[at : at + 1].isspace() else at
        if text.startswith(b"<!DOCTYPE", at):
            raise Unreadable("doctype", "a document type declaration is not admitted")
        end = b"-->" if text.startswith(b"<!--", at) else b"?>" if text.startswith(b"<?", at) else None
        if end is None or (found := text.find(end, at)) < 0:
            return
        at = found + len(end)
    raise Unreadable("too-many-elements", "comments and instructions without end before the document")


def _utf8(body: bytes, charset: str | None) -> bytes:
    """The document in UTF-8 without a byte order mark. Bytes said to be UTF-8 are left for the parser to check."""
    mark, encoding = _encoding(body, charset)
    body = body[len(mark) :]
    if encoding == "utf-8":
        return body
    try:
        return body.decode(encoding).encode("utf-8")
    except UnicodeError:
        raise Unreadable("encoding", f"the bytes are not {encoding}") from None


def _encoding(body: bytes, charset: str | None) -> tuple[bytes, str]:
    """The byte order mark, and the encoding of what follows it."""
    mark, encoding = _mark(body) if body[:1] in _MARKED else _UNMARKED
    if encoding is None:
        raise Unreadable("encoding", "neither UTF-32 nor gzip is spoken")
    if not encoding and body[:2] in {b"<\x00", b"\x00<"}:
        encoding = "utf-16-le" if body[:1] == b"<" else "utf-16-be"
    if not encoding and charset:
        encoding = _spoken(charset)
        if encoding in _DEFAULTS and _UTF_8.fullmatch(_declared(body) or "") and _is_utf_8(body):
            encoding = "utf-8"
    if not encoding:
        encoding = _spoken(_declared(body) or "utf-8")
    if encoding.startswith("utf-16") and not mark and re.match(rb"\s*<[^\x00]", body):
        encoding = "utf-8"  # .NET writes such declarations into strings, which are encoded as UTF-8 later
    return mark, encoding


def _declared(body: bytes) -> str | None:
    found = _DECLARED.match(body.lstrip() if body[:1].isspace() else body)
    return found[1].decode("ascii") if found else None


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _mark(body: bytes) -> tuple[bytes, str | None]:
    return next((found for found in _MARKS if body.startswith(found[0])), _UNMARKED)


@lru_cache(maxsize=64)
def _spoken(name: str) -> str:
    known = _SPOKEN.get("".join(filter(str.isalnum, name.lower())))
    if known is None:
        raise Unreadable("encoding", "an encoding that is not spoken")
    return known


def _refusal(text: bytes, error: etree.XMLSyntaxError) -> Unreadable:
    """Gives line and column, never the parser's message, which may quote the document."""
    try:
        text.decode("utf-8")
    except UnicodeError:
        return Unreadable("encoding", "the bytes are not utf-8")
    line, column = error.position
    if error.code == etree.ErrorTypes.ERR_RESOURCE_LIMIT:
        return Unreadable("too-deep", f"beyond what the parser takes, line {line} column {column}")
    return Unreadable("malformed", f"not well-formed, line {line} column {column}")


@lru_cache(maxsize=8)
def _deeper_than(depth: int) -> Callable[[etree._Element], bool]:
    """An XPath, which libxml2 evaluates ten times faster than a walk in Python."""
    path = etree.XPath("boolean(" + "/*" * (depth + 1) + ")")
    return lambda root: bool(path(root))
