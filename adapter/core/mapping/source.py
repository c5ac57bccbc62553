"""The writer of a request as Python source, made once from the pairs: half the time of the functions of `write.py`.

It takes what has nothing wrong with it and stumbles (raises anything) over the rest, whose reasons `write.py` finds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC
from itertools import count
from typing import Any, Final

from adapter.core.avro.schema import Enum
from adapter.core.mapping.pairs import Filled, FilledGroup, Group, Many, Pair, Scalar, symbol
from adapter.core.mapping.texts import cleaner, escaped, plain
from adapter.core.xsd import Element, Kind, Leaf

ITEM_LIMIT: Final = 1_000
"""Items of an array for which the XSD sets no number."""

Write = Callable[[Mapping[str, Any], Mapping[str, Any]], bytes]
"""The element of a record and protocol values. Raises anything."""


class Names:
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


def compile_writer(root: Element, pairs: tuple[Pair, ...], names: Names) -> Write:
    """The writer of `root` with these contents."""
    made = _Source(names)
    text = made.function(root, pairs)
    known = {"UTC": UTC, "unfit": _unfit, **made.tools}
    exec(compile(text, f"<writer of {root.name}>", "exec"), known)  # noqa: S102 -- made here, of checked names
    write: Write = known["write"]
    return write


class _Unfit(Exception):  # noqa: N818 -- named for what it says
    pass


def _unfit() -> None:
    raise _Unfit


class _Source:
    """Lines of one writer; `tools` are what they use by name."""

    def __init__(self, names: Names) -> None:
        self.tools: dict[str, Any] = {}
        self._names = names
        self._numbers = count()

    def function(self, root: Element, pairs: tuple[Pair, ...]) -> str:
        body = [line for pair in pairs for line in self._field(pair, "record")]
        tag = self._names.root(root)  # known once all names were used
        return "\n".join(
            (
                "def write(record, values):",
                f"    out = [{f'<{tag}>'!r}]",
                "    add = out.append",
                *(f"    {line}" for line in body),
                f"    add({_closing(tag.partition(' ')[0])!r})",
                '    return "".join(out).encode()',
            )
        )

    def _field(self, pair: Pair, record: str) -> Iterator[str]:
        """Lines that write one element of the record in the variable `record`."""
        match pair:
            case Scalar(name, element, _, _) | Group(name, element, _):
                value = self._variable()
                yield f"{value} = {record}.get({name!r})"
                yield from _if_there(value, self._value(pair, value), required=element.least > 0)
            case Many():
                yield from self._many(pair, record)
            case Filled(_, element, leaf, name):
                value = self._variable()
                yield f"{value} = values.get({name!r})"
                lines = self._scalar(leaf, None, self._names.of(element), value)
                yield from _if_there(value, lines, required=element.least > 0)
            case FilledGroup(element, children):
                tag, before = self._names.of(element), self._variable()
                yield f"add({_opening(tag)!r})"
                yield f"{before} = len(out)"
                for child in children:
                    yield from self._field(child, record)
                if element.least:
                    yield f"add({_closing(tag)!r})"
                else:  # an empty one is left out
                    yield f"if len(out) > {before}: add({_closing(tag)!r})"
                    yield "else: out.pop()"

    def _value(self, pair: Scalar | Group, value: str) -> Iterator[str]:
        match pair:
            case Scalar(_, element, leaf, kind):
                yield from self._scalar(leaf, kind if isinstance(kind, Enum) else None, self._names.of(element), value)
            case Group(_, element, children):
                tag = self._names.of(element)
                yield f"add({_opening(tag)!r})"
                for child in children:
                    yield from self._field(child, value)
                yield f"add({_closing(tag)!r})"

    def _many(self, pair: Many, record: str) -> Iterator[str]:
        items, item = self._variable(), self._variable()
        most = ITEM_LIMIT if pair.most is None else pair.most
        tag = self._names.of(pair.element)
        yield f"{items} = {record}.get({pair.name!r})"
        lines = [f"if not {pair.least} <= len({items}) <= {most}: unfit()"]
        if pair.wrapped:
            lines.append(f"add({_opening(tag)!r})")
        lines.append(f"for {item} in {items}:")
        lines += _indented(self._value(pair.item, item))
        if pair.wrapped:
            lines.append(f"add({_closing(tag)!r})")
        yield f"if {items}:"
        yield from _indented(lines)
        if pair.element.least or (pair.wrapped and pair.nullable and pair.least == 0):
            # Nothing, where the element must be or an empty wrapper may: not a matter of every day.
            yield "else: unfit()" if pair.element.least else f"elif {items} is not None: unfit()"

    def _scalar(self, leaf: Leaf, enum: Enum | None, tag: str, value: str) -> Iterator[str]:
        opening, closing = _opening(tag), _closing(tag)
        if enum is not None:
            texts = {symbol(each): f"{opening}{escaped(each)}{closing}" for each in leaf.values}
            yield f"add({texts!r}[{value}])"
        elif leaf.kind is Kind.BOOLEAN:
            yield f"add({f'{opening}true{closing}'!r} if {value} else {f'{opening}false{closing}'!r})"
        else:
            yield from self._as_text(leaf, value)
            yield f"add(f'{opening}{{{value}}}{closing}')"

    def _as_text(self, leaf: Leaf, value: str) -> Iterator[str]:
        """Lines that make the value in the variable `value` what is written of it, or a number of which that comes."""
        match leaf.kind:
            case Kind.TEXT:
                clean, condition = self._tool(cleaner(leaf)), plain(leaf, value)
                yield f"{f'if not ({condition}): ' if condition else ''}{value} = {clean}({value})"
            case Kind.DATE_TIME:  # UTC with milliseconds and Z, as `write.py` has it
                yield f"if {value}.tzinfo is not UTC: {value} = {value}.astimezone(UTC)"
                yield f"{value} = {value}.isoformat(timespec='milliseconds')[:-6] + 'Z'"
            case Kind.DATE:
                yield f"{value} = {value}.isoformat()"
            case Kind.INTEGER:
                for bound, sign in ((leaf.lowest, "<"), (leaf.highest, ">")):
                    if bound is not None:
                        yield f"if {value} {sign} {bound}: unfit()"
            case _:
                raise AssertionError("content of any kind is refused by the pairing")

    def _variable(self) -> str:
        return f"v{next(self._numbers)}"

    def _tool(self, tool: Any) -> str:
        name = f"t{next(self._numbers)}"
        self.tools[name] = tool
        return name


def _if_there(value: str, lines: Iterator[str], *, required: bool) -> Iterator[str]:
    if required:
        yield f"if {value} is None: unfit()"
        yield from lines
    else:
        yield f"if {value} is not None:"
        yield from _indented(lines)


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _opening(tag: str) -> str:
    return f"<{tag}>"


def _closing(tag: str) -> str:
    return f"</{tag}>"
