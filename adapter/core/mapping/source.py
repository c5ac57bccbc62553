"""The writer of a request as Python source, generated once from the pairs: twice as fast as a function per element.

It only handles valid commands and raises any exception for others; `write.py` then finds what is wrong with them.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from adapter.core.avro.schema import Enum
from adapter.core.generated import function
from adapter.core.instant import utc
from adapter.core.mapping.pairs import Filled, FilledGroup, Group, Many, Pair, Scalar, symbol
from adapter.core.mapping.texts import cleaner, escaped, plain
from adapter.core.xsd import Element, Kind, Leaf

Write = Callable[[Mapping[str, Any], Mapping[str, Any]], bytes]
"""The element of a record and protocol values. Raises anything."""

_Lines = Generator[str, None, str]


def compile_writer(root: Element, pairs: tuple[Pair, ...], prefixes: Mapping[str, str]) -> Write:
    """The writer of `root` with these contents; `prefixes` are those of namespaces."""
    made = _Source(_Names(prefixes))
    text = made.function(root, pairs)
    known = {"escaped": escaped, "utc": utc, "unfit": _unfit, **made.tools}
    write: Write = function(text, name="write", title=f"writer of {root.name}", known=known)
    return write


class _Names:
    """Qualified names; prefixes are declared on the root, so elements without namespace stay without."""

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        self._prefixes = prefixes
        self._used: dict[str, str] = {}

    def of(self, element: Element) -> str:
        namespace, _, local = element.tag.rpartition("}")
        if not namespace:
            return local
        prefix = self._used.setdefault(namespace[1:], self._prefixes.get(namespace[1:], f"n{len(self._used)}"))
        return f"{prefix}:{local}"

    def root(self, element: Element) -> str:
        """The root's name with the declarations of all namespaces that were used."""
        name = self.of(element)
        return " ".join((name, *(f'xmlns:{prefix}="{space}"' for space, prefix in self._used.items())))


class _Unfit(Exception):  # noqa: N818 -- named for what it says
    pass


def _unfit() -> None:
    raise _Unfit


class _Source:
    """The generated lines of one writer; `tools` are the objects they use, by name.

    A method that generates lines returns a piece: the inside of an f-string that yields the element after the lines
    have run.
    """

    def __init__(self, names: _Names) -> None:
        self.tools: dict[str, Any] = {}
        self._names = names
        self._numbers = count()

    def function(self, root: Element, pairs: tuple[Pair, ...]) -> str:
        body: list[str] = []
        piece = _gathered(self._fields(pairs, "record"), body)
        tag = self._names.root(root)  # known once all names were used
        opening = self._tool(_opening(tag))
        return "\n".join(
            (
                "def write(record, values):",
                *_indented(body),
                f"    return f'{{{opening}}}{piece}{_closing(tag.partition(' ')[0])}'.encode()",
            )
        )

    def _fields(self, pairs: Iterable[Pair], record: str) -> _Lines:
        """Lines and piece that write elements of the record in the variable `record`."""
        piece = ""
        for pair in pairs:
            piece += yield from self._field(pair, record)
        return piece

    def _field(self, pair: Pair, record: str) -> _Lines:
        match pair:
            case Scalar(name, element, _, _) | Group(name, element, _):
                value = self._variable()
                yield f"{value} = {record}.get({name!r})"
                return (yield from _if_there(value, self._value(pair, value), required=element.least > 0))
            case Many():
                return (yield from self._many(pair, record))
            case Filled(_, element, leaf, name):
                value = self._variable()
                yield f"{value} = values.get({name!r})"
                lines = self._scalar(leaf, None, self._names.of(element), value)
                return (yield from _if_there(value, lines, required=element.least > 0))
            case FilledGroup(element, children):
                tag = self._names.of(element)
                body: list[str] = []
                piece = f"{_opening(tag)}{_gathered(self._fields(children, record), body)}{_closing(tag)}"
                if element.least:
                    yield from body
                    return piece
                group = self._variable()
                yield f"{group} = ''"
                yield f"if {' or '.join(f'values.get({name!r}) is not None' for name in pair.values)}:"
                yield from _indented([*body, f"{group} = f'{piece}'"])
                return f"{{{group}}}"

    def _value(self, pair: Scalar | Group, value: str) -> _Lines:
        match pair:
            case Scalar(_, element, leaf, kind):
                tag = self._names.of(element)
                return (yield from self._scalar(leaf, kind if isinstance(kind, Enum) else None, tag, value))
            case Group(_, element, children):
                tag = self._names.of(element)
                piece = yield from self._fields(children, value)
                return f"{_opening(tag)}{piece}{_closing(tag)}"

    def _many(self, pair: Many, record: str) -> _Lines:
        items, item, written = self._variable(), self._variable(), self._variable()
        tag, required = self._names.of(pair.element), pair.element.least > 0
        # An empty list is an empty wrapper where null says that there is none, and where there must be one.
        empty = required or (pair.wrapped and pair.nullable and pair.least == 0)
        yield f"{items} = {record}.get({pair.name!r}){' or ()' if required else ''}"
        yield f"{written} = []"
        yield f"if {items}{' is not None' if empty else ''}:"
        yield f"    if not {pair.least} <= len({items}) <= {pair.most}: unfit()"
        yield f"    for {item} in {items}:"
        body: list[str] = []
        piece = _gathered(self._value(pair.item, item), body)
        yield from _indented(_indented(body))
        yield f"        {written}.append(f'{piece}')"
        if pair.wrapped:
            yield f"    {written} = ({_opening(tag)!r}, *{written}, {_closing(tag)!r})"
        yield f"{written} = ''.join({written})"
        return f"{{{written}}}"

    def _scalar(self, leaf: Leaf, enum: Enum | None, tag: str, value: str) -> _Lines:
        if enum is not None:
            texts = self._tool({symbol(each): f"{_opening(tag)}{escaped(each)}{_closing(tag)}" for each in leaf.values})
            yield f"{value} = {texts}[{value}]"
            return f"{{{value}}}"
        written = yield from self._as_text(leaf, value)
        return f"{_opening(tag)}{written}{_closing(tag)}"

    def _as_text(self, leaf: Leaf, value: str) -> _Lines:
        """Lines and piece that write the value in the variable `value`."""
        match leaf.kind:
            case Kind.TEXT:
                yield from self._cleaned(leaf, value)
            case Kind.DATE_TIME:
                yield f"{value} = utc({value})"
            case Kind.DATE:
                yield f"{value} = {value}.isoformat()"
            case Kind.BOOLEAN:
                yield f"{value} = 'true' if {value} else 'false'"
            case Kind.INTEGER:
                for bound, sign in ((leaf.lowest, "<"), (leaf.highest, ">")):
                    if bound is not None:
                        yield f"if {value} {sign} {bound}: unfit()"
            case Kind.ANYTHING:
                raise AssertionError("content of any kind is refused by the pairing")
        return f"{{{value}}}"

    def _cleaned(self, leaf: Leaf, value: str) -> Iterator[str]:
        clean, condition = self._tool(cleaner(leaf)), plain(leaf, value)
        if condition is None:
            yield f"{value} = {clean}({value})"
        else:
            yield f"if not ({condition}): {value} = {clean}({value})"
            yield f"elif '&' in {value} or '<' in {value} or '>' in {value}: {value} = escaped({value})"

    def _variable(self) -> str:
        return f"v{next(self._numbers)}"

    def _tool(self, tool: Any) -> str:
        name = f"t{next(self._numbers)}"
        self.tools[name] = tool
        return name


def _if_there(value: str, written: _Lines, *, required: bool) -> _Lines:
    if required:
        yield f"if {value} is None: unfit()"
        return (yield from written)
    body: list[str] = []
    piece = _gathered(written, body)
    yield f"if {value} is None: {value} = ''"
    yield "else:"
    yield from _indented(body)
    if piece != f"{{{value}}}":
        yield f"    {value} = f'{piece}'"
    return f"{{{value}}}"


def _gathered(written: _Lines, lines: list[str]) -> str:
    """The piece; its lines are added to `lines`."""
    while True:
        try:
            lines.append(next(written))
        except StopIteration as end:
            piece: str = end.value
            return piece


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _opening(tag: str) -> str:
    return f"<{tag}>"


def _closing(tag: str) -> str:
    return f"</{tag}>"
