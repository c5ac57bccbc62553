"""Ten thousand documents that mean harm or are harmed, the same in every run. Imports nothing from `adapter`."""

import random
from collections.abc import Iterator
from typing import Final

SIZE: Final = 10_000
LARGEST: Final = 2 * 1024 * 1024
"""Bytes: what a peer may send at most."""

_ROOTS: Final = ("notifyFaultReportUpdate", "receivedAddFaultReport")
_LAUGHS: Final = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
_DECLARATIONS: Final = (
    f'[<!ENTITY l0 "lol">{_LAUGHS}]',
    f'[<!ENTITY big "{"x" * 50_000}">]',
    '[<!ENTITY big SYSTEM "{file}">]',
    '[<!ENTITY big SYSTEM "{url}">]',
    '[<!ENTITY big PUBLIC "-//X//EN" "{url}">]',
    '[<!ENTITY % outer SYSTEM "{url}"> %outer;]',
    "[<!ENTITY % outer \"<!ENTITY big 'x'>\"> %outer;]",
    '[<!ENTITY % file SYSTEM "{file}"><!ENTITY % make "<!ENTITY big SYSTEM \'{url}?%file;\'>"> %make;]',
    'SYSTEM "{url}"',
    'SYSTEM "{file}"',
    'PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "{url}"',
    '[<!ATTLIST r a CDATA "{url}"><!ENTITY big "&big2;"><!ENTITY big2 "&big;">]',
    "[]",
    "",
)


def bodies(valid: bytes, *, file: str, url: str) -> Iterator[bytes]:
    """Of `valid` every beginning and many a mutation; besides whatever XML has been abused for. `file` and `url` are
    what no reader may ever look at."""
    known = list(_known(valid.decode(), file, url))
    yield from known
    yield from (valid[:length] for length in range(len(valid)))
    chance = random.Random(8)
    for _ in range(SIZE - len(known) - len(valid)):
        yield _mutated(valid, chance)


def _known(valid: str, file: str, url: str) -> Iterator[bytes]:
    for root in _ROOTS:
        for declared in _DECLARATIONS:
            doctype = f"<!DOCTYPE {root} {declared.replace('{file}', file).replace('{url}', url)}>"
            inside = f"<{root}><messageId>&big;&l9;</messageId></{root}>"
            for before in ("", "<?xml version='1.0'?>", "\n \t", "<!-- -->", "<?x y?>"):
                yield f"{before}{doctype}{inside}".encode()
            yield f"{doctype}{inside}".encode("utf-16")
            yield f"<?xml version='1.0' encoding='iso-8859-1'?>{doctype}{inside}".encode("latin-1")
            yield f"{doctype.replace('DOCTYPE', 'doctype')}{inside}".encode()
        yield from _large(root)
        yield from _twisted(root, file, url)
    yield from _encoded(valid)


def _large(root: str) -> Iterator[bytes]:
    def within(inner: str) -> bytes:
        return f"<{root}>{inner}</{root}>".encode()[:LARGEST]

    room = LARGEST - 100
    yield within("<a " + " ".join(f"a{n}=''" for n in range(150_000)) + "/>")
    yield within("".join(f'<n{n} xmlns:p{n}="u:{n}"/>' for n in range(60_000)))
    yield within("<a " + " ".join(f"xmlns:p{n}='u'" for n in range(100_000)) + "/>")
    yield within("<a>" * (room // 3))
    yield within("<a>" * (room // 7) + "</a>" * (room // 7))
    yield within("<a/>" * (room // 4))
    yield within("".join(f"<e{n}/>" for n in range(200_000)))
    yield within(f"<{'n' * room}/>")
    yield within(f"<a {'n' * room}=''/>")
    yield within(f"<a b='{'v' * room}'/>")
    yield within("x" * room)
    yield within("&#38;" * (room // 5))
    yield within("&lt;" * (room // 4))
    yield within("<![CDATA[x]]>" * (room // 13))
    yield within("<?p?>" * (room // 5))
    yield within("<!---->" * (room // 7))
    yield within(" " * room)
    yield within(f"<messageId>{'9' * room}</messageId>")
    yield within("<updates>" + "<update><description>x</description></update>" * 40_000 + "</updates>")
    yield b"<" * LARGEST
    yield b"\xff" * LARGEST
    yield b"&" * LARGEST
    yield bytes(LARGEST)
    yield b"<a>" + b"]]>" * (room // 3)


def _twisted(root: str, file: str, url: str) -> Iterator[bytes]:
    include = "http://www.w3.org/2001/XInclude"
    for inner in (
        f'<xi:include xmlns:xi="{include}" href="{file}" parse="text"/>',
        f'<xi:include xmlns:xi="{include}" href="{url}"/>',
        f'<?xml-stylesheet href="{url}"?>',
        f'<a xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="x {url}"/>',
        f'<a xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="{url}"/>',
        f'<a xml:base="{url}"><b href="x"/></a>',
        "<![CDATA[<!DOCTYPE x>]]>",
        "<![CDATA[]]]]><![CDATA[>]]>",
        "<a>]]></a>",
        "<a b='<'/>",
        "<a b='1' b='2'/>",
        "<p:a/>",
        "<a xmlns:p=''/>",
        "<a:b:c/>",
        "&undefined;",
        "&#0;",
        "&#xD800;",
        "&#x110000;",
        "&#99999999999999999999;",
        "<?xml version='1.0'?>",
        "<!-- -- -->",
        "\x01\x02",
        "\ufffe",
    ):
        yield f"<{root}>{inner}</{root}>".encode()
        yield f"<{root}><faultDetails><description>{inner}</description></faultDetails></{root}>".encode()
    yield f"<{root}/><{root}/>".encode()
    yield f"<{root}/>trailing".encode()
    yield f"<{root} xmlns='urn:x'/>".encode()


def _encoded(valid: str) -> Iterator[bytes]:
    plain = valid.partition("?>")[2].lstrip() if valid.startswith("<?xml") else valid
    for name in ("utf-7", "utf-32", "cp037", "shift_jis", "utf-16", "utf-16-le", "utf-16-be", "ascii", "cp1252", "x"):
        declared = f"<?xml version='1.0' encoding='{name}'?>{plain}"
        yield declared.encode()
        if name != "x":
            yield declared.encode(name, "replace")
            yield plain.encode(name, "replace")
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"):
        yield mark
        yield mark + plain.encode()
        yield mark + plain.encode("utf-16-le")
        yield mark * 2 + plain.encode()
    for overlong in (
        b"\xc0\xbc",
        b"\xe0\x80\xbc",
        b"\xf0\x80\x80\xbc",
        b"\xc1\xbf",
        b"\xed\xa0\x80",
        b"\xf8\x88\x80\x80\x80",
    ):
        yield plain.encode().replace(b"<", overlong, 1)
        yield plain.encode().replace(b">", b">" + overlong, 1)
    for place in range(0, len(plain), 97):
        yield plain[:place].encode() + b"\x00" + plain[place:].encode()


def _mutated(valid: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, a stretch left out, doubled or moved."""
    body = bytearray(valid)
    for _ in range(chance.randint(1, 4)):
        first, last = sorted(chance.randrange(len(body) + 1) for _ in range(2))
        match chance.randrange(5):
            case 0 if body:
                body[chance.randrange(len(body))] = chance.randrange(256)
            case 1:
                del body[first:last]
            case 2:
                body[first:first] = body[first:last]
            case 3:
                piece = body[first:last]
                del body[first:last]
                at = chance.randrange(len(body) + 1)
                body[at:at] = piece
            case _:
                body[first:first] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
    return bytes(body)
