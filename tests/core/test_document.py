import gzip
import sys
from collections.abc import Callable
from time import thread_time
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from adapter.core.document import REASONS, DocumentLimits, admit, admit_mended, charset, fold, folded_text
from adapter.core.errors import Unreadable
from tests.support.alone import alone, resident

SMALL = DocumentLimits(size=10_000, elements=50, attributes=20, depth=8)
UTF16 = "<?xml version='1.0' encoding='UTF-16'?><a>é</a>"
BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]><a>&y;</a>'


def reason(body: bytes, *, limits: DocumentLimits = SMALL, charset: str | None = None) -> str | None:
    """Why the bytes are refused; None if they are admitted."""
    try:
        root = admit(body, limits=limits, charset=charset)
    except Unreadable as refused:
        return refused.reason
    assert root.getroottree().docinfo.internalDTD is None
    return None


@pytest.mark.parametrize(
    ("expected", "body"),
    [
        ("empty", b""),
        ("empty", b" \r\n\t "),
        ("empty", b"\xef\xbb\xbf"),
        ("too-large", b"<a>" + b"x" * 10_000 + b"</a>"),
        ("too-large", f"<?xml version='1.0' encoding='cp1252'?><a>{'€' * 4_000}</a>".encode("cp1252")),
        ("doctype", BOMB.encode()),
        ("doctype", BOMB.encode("utf-16")),
        ("doctype", BOMB.encode("utf-16-be")),
        ("doctype", b"<?xml version='1.0'?> <!-- x --> <?p?> <!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>"),
        ("doctype", b"<!DOCTYPE html><html><body>503</body></html>"),
        ("too-many-elements", b"<a>" + b"<b/>" * 50 + b"</a>"),
        ("too-many-elements", b"<!---->" * 30 + b"<a/>"),
        ("too-many-attributes", b"<a " + b" ".join(b"x%d='1'" % i for i in range(21)) + b"/>"),
        ("too-many-attributes", b"<a " + b" ".join(b"xmlns:x%d='u'" % i for i in range(21)) + b"/>"),
        ("too-many-attributes", b"<a x='>' " + b" ".join(b'x%d = "/>"' % i for i in range(20)) + b"/>"),
        ("too-deep", b"<a>" * 9 + b"</a>" * 9),
        ("malformed", b"<a>"),
        ("malformed", b"<a></b>"),
        ("malformed", b"<a>&undeclared;</a>"),
        ("malformed", b"<a>&#0;</a>"),
        ("malformed", b"<a>\x01</a>"),
        ("malformed", b"plain text"),
        ("malformed", b"<a/><b/>"),
        ("malformed", b"<a x='1' x='2'/>"),
        ("malformed", b"<q:a/>"),
        ("malformed", b"<a/>\xef\xbb\xbf"),
        ("malformed", b"<a/><?xml version='1.0'?>"),
        ("doctype", b"\r\n<?xml version='1.0'?><!DOCTYPE a><a/>"),
        ("encoding", b"<a>\xe9</a>"),
        ("encoding", b"<?xml version='1.0' encoding='EBCDIC-CP-US'?><a/>"),
        ("encoding", b"<?xml version='1.0' encoding='windows-1252'?><a>\x81</a>"),
        ("encoding", b"\xff\xfe<\x00a"),
        ("encoding", "<a/>".encode("utf-32")),
        ("encoding", gzip.compress(b"<a/>", mtime=0)),
        ("malformed", "<a/>".encode("utf-32-be")),
    ],
)
def test_what_is_not_admitted_and_why(expected: str, body: bytes) -> None:
    assert expected == reason(body)


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        ("<a>é</a>".encode(), None),
        ("<a>é</a>".encode(), "UTF-8"),
        ("<a>é</a>".encode("utf-8-sig"), '"utf-8"'),
        (UTF16.encode("utf-16"), None),
        (UTF16.encode("utf-16"), "utf-16"),
        (UTF16.encode("utf-16-le"), "utf-16le"),
        (UTF16.encode("utf-16-be"), None),
        ("<a>é</a>".encode("latin-1"), "iso-8859-1"),
        ("<a>é</a>".encode("latin-1"), "ISO8859_1"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><a>é</a>".encode("latin-1"), None),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><a>é</a>".encode(), "utf-8"),  # RFC 7303: the header wins
        ("<?xml version='1.0' encoding='UTF-8'?><a>é</a>".encode(), "iso-8859-1"),  # unless it is a server's default
        ("<?xml version='1.0' encoding='UTF-8'?><a>é</a>".encode("latin-1"), "iso-8859-1"),
        ("<?xml version='1.0' encoding='ISO-8859-15'?><a>é</a>".encode("latin-1"), "iso-8859-1"),
        ("<a>é</a>".encode(), "us-ascii"),
        ("<a>é</a>".encode("utf-8-sig"), "iso-8859-1"),  # RFC 7303 again: a mark outranks both
        (UTF16.encode("utf-16"), "utf-8"),
        ("<?xml version='1.0' encoding='Windows-1252'?><a>é</a>".encode("cp1252"), None),
        ("<a>é</a>".encode("cp1252"), "cp1252"),
        (UTF16.encode("utf-16-be"), "utf-8"),
        (f"\n{UTF16}".encode(), None),
        (UTF16.encode(), "utf-16"),
        (UTF16.encode(), None),  # a text of .NET, written as UTF-8 after it was declared
        (b"<?xml version='1.0' encoding='us-ascii'?><a>&#233;</a>", None),
        (b"<a><!-- x -->\xc3\xa9<?p?></a>", None),
        (b"<a><![CDATA[\xc3\xa9]]></a>", None),
        ("\r\n\t<?xml version='1.0' encoding='ISO-8859-1'?><a>é</a>".encode("latin-1"), None),
        (f"\n {UTF16}".encode("utf-16"), None),
    ],
)
def test_encodings_that_are_spoken(body: bytes, charset: str | None) -> None:
    assert admit(body, charset=charset).text == "é"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (b"<a/>", "utf-7"),
        (b"<a>\xe9</a>", "us-ascii"),
    ],
)
def test_bytes_that_contradict_their_charset(body: bytes, charset: str) -> None:
    assert reason(body, charset=charset) == "encoding"


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("<a>£5 “née” €</a>".encode("cp1252"), None, "£5 “née” €"),
        ("<a>£5</a>".encode("cp1252"), "utf-8", "£5"),
        (b"<?xml version='1.0' encoding='UTF-8'?><a>\xa35</a>", None, "£5"),
        (b"\xef\xbb\xbf<a>\xa35</a>", None, "£5"),
        (b"<a>\xa35</a>", "us-ascii", "£5"),
        ("<a>é ".encode() + b"\xe9</a>", None, "é é"),  # what is UTF-8 stays it
        (b"<a>cut off\xe2\x82</a>", None, "cut off\xe2\u201a"),
        (b"<a>\x81</a>", None, "\ufffd"),
    ],
)
def test_bytes_that_are_no_utf_8_are_read_as_windows_1252_where_that_is_asked(
    body: bytes, charset: str | None, text: str
) -> None:
    root, mended = admit_mended(body, charset=charset)
    assert (root.text, mended) == (text, True)


def test_what_is_utf_8_under_a_name_of_its_subset_is_not_told_as_something_else() -> None:
    root, mended = admit_mended("<a>é</a>".encode(), charset="us-ascii")
    assert (root.text, mended) == ("é", False)


@pytest.mark.parametrize(
    ("expected", "body"),
    [
        ("encoding", b"<?xml version='1.0' encoding='windows-1252'?><a>\x81</a>"),
        ("encoding", b"\xff\xfe<\x00a"),
        ("encoding", gzip.compress(b"<a/>", mtime=0)),
        ("too-large", b"<a>" + b"\x80" * 4_000 + b"</a>"),
        ("doctype", BOMB.replace("x", "\xe9").encode("latin-1")),
        ("malformed", b"<a>\xe9"),
        ("malformed", b"<a>\xc0\xbc/a>"),  # "<" in two bytes, as no decoder may take it
    ],
)
def test_mending_admits_nothing_else(expected: str, body: bytes) -> None:
    with pytest.raises(Unreadable) as refused:
        admit_mended(body, limits=SMALL)
    assert refused.value.reason == expected


@given(st.text())
def test_what_is_admitted_is_not_mended(text: str) -> None:
    body = f"<a>{escape(text)}</a>".encode(errors="replace")
    if reason(body) is None:
        assert admit_mended(body)[1] is False


def test_a_doctype_inside_text_is_text() -> None:
    assert admit(b"<a><![CDATA[<!DOCTYPE a>]]></a>").text == "<!DOCTYPE a>"


def test_comments_and_instructions_split_no_text() -> None:
    root = admit(b"<?x?><!-- a --><a>one<!-- b -->two<?p?>three</a><!-- c -->")
    assert (root.text, len(root)) == ("onetwothree", 0)


def test_a_document_at_its_limits_is_admitted() -> None:
    admit(b"<a>" * 8 + b"</a>" * 8, limits=SMALL)
    admit(b"<a>" + b"<b/>" * 49 + b"</a>", limits=SMALL)
    admit(b"<a " + b" ".join(b"x%d='1'" % i for i in range(20)) + b"/>", limits=SMALL)


def test_what_only_looks_like_attributes_is_text() -> None:
    page = b"&lt;p style='' class=\"\"&gt;" * 50
    assert admit(b"<a x='&gt;'>" + page + b"</a>", limits=SMALL).get("x") == ">"


def test_a_refusal_says_where_and_quotes_nothing() -> None:
    with pytest.raises(Unreadable) as refused:
        admit(b"<a>\n<secret name='Joe'></a>")
    assert "line 2" in refused.value.detail
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "body",
    [
        b"<a>" + b"<b/>" * 19_990 + b"</a>",
        b"<a>" + b"x" * 2_000_000 + b"</a>",
        b"<a>" + b"&#65;" * 400_000 + b"</a>",
        b"<a>" + b"<![CDATA[x]]>" * 150_000 + b"</a>",
        b"<a>" + b"<!---->" * 290_000 + b"</a>",
        b"<!--" * 500_000,
        b"<?a?>" * 400_000 + b"<a/>",
        b" " * 2_000_000 + b"<a/>",
        b"<a>" * 500_000,
        b"<a " + b" ".join(b"a%d='x'" % i for i in range(9_990)) + b"/>",
        b"<a " + b" ".join(b"xmlns:a%d='x'" % i for i in range(9_990)) + b">" + b"<a9:b/>" * 15_000 + b"</a>",
        b"=\"'" * 690_000,
    ],
    ids=lambda body: body[:12].decode(),
)
def test_two_megabytes_of_anything_are_settled_in_well_under_a_second(body: bytes) -> None:
    begun = thread_time()  # what other processes do to the machine is not ours
    assert reason(body, limits=DocumentLimits()) in {None, *REASONS}
    assert thread_time() - begun < 0.5  # 1 to 25 ms on an idle machine


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.none() | st.sampled_from(["utf-8", "utf-16", "iso-8859-1", "x\ud800"]))
@example(b"\xff\xfe\x00", None)
@example(b"<\x00", None)
@example(b"<?xml version='1.0' encoding='utf-8'", None)
def test_any_bytes_are_admitted_or_unreadable(body: bytes, charset: str | None) -> None:
    assert reason(body, charset=charset) in {None, *REASONS}


pieces = st.sampled_from(
    [
        "<a>",
        "</a>",
        "<!DOCTYPE_a>",
        "<!--",
        "-->",
        "<?x",
        "?>",
        "<![CDATA[",
        "]]>",
        "&amp;",
        "<b/>",
        "<b_c='d'/>",
        "utf-16",
        "&#x41;",
        "é",
        "\x00",
        "\ufeff",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=12), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
def test_any_pieces_of_xml_are_admitted_without_doctype_or_unreadable(parts: list[str], encoding: str) -> None:
    assert reason("".join(parts).replace("_", " ").encode(encoding, "replace")) in {None, *REASONS}


@given(st.text(st.sampled_from(" \t\r\nab\u00a0\u2003"), max_size=12))
def test_folding_is_what_xsd_calls_collapse(text: str) -> None:
    pieces = text.replace("\t", " ").replace("\r", " ").replace("\n", " ").split(" ")
    assert " ".join(piece for piece in pieces if piece) == fold(text)


def test_text_of_all_descendants_is_folded() -> None:
    root = etree.fromstring("<e> no <code>12</code>\n<text> such  ticket</text></e>")
    assert folded_text(root) == "no 12 such ticket"


def test_what_is_parsed_aside_is_a_document_like_any_other() -> None:
    longer = b"<a%s/>" % (b"x" * 2000)  # than what may be remembered
    root = admit(b"<r>" + longer + b"<b>text</b></r>")
    assert root.findtext("b") == "text"
    assert etree.tostring(root).startswith(b"<r><ax")
    with pytest.raises(Unreadable, match="line 2 column"):
        admit(b"<r>\n" + longer + b"</s>")


MADE_UP = "y" * 80


MADE_UP_IN: dict[str, Callable[[int], str]] = {
    "names": lambda n: f"<n{n}{MADE_UP}/>",
    "namespaces": lambda n: f"<n xmlns:p{n}{MADE_UP}='u{n}{MADE_UP}'/>",
    "namespaces behind a bracket": lambda n: f"<n a='>' xmlns:p{n}='u{n}{MADE_UP}'/>",
    "blanks": lambda n: f"<n>{f'{n:055b}'.translate({48: 32, 49: 9})}</n>",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("place", MADE_UP_IN)
def test_names_that_are_made_up_in_every_message_do_not_fill_the_memory(place: str) -> None:
    assert alone(grown_by, place) < 4_000_000  # names of 10 MB were parsed


def grown_by(place: str) -> int:
    """Bytes that thirty documents leave behind, each with 4,000 elements that no other has."""
    element = MADE_UP_IN[place]
    number = 0

    def parse(documents: int) -> None:
        nonlocal number
        for _ in range(documents):
            number += 10_000
            inner = "".join(element(number + i) for i in range(4_000))
            admit(f"<r>{inner}</r>".encode())

    parse(5)  # what the allocator takes at first and keeps
    before = resident()
    parse(30)
    return resident() - before


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/xml; charset=utf-8", "utf-8"),
        ('text/xml;CHARSET = "UTF-8"', "UTF-8"),
        ("text/xml; charset=utf-8, text/xml", "utf-8"),  # the header was there twice
        ("text/xml; charset=", None),
        ("text/xml", None),
        (None, None),
    ],
)
def test_the_charset_of_a_content_type(content_type: str | None, expected: str | None) -> None:
    assert charset(content_type) == expected
