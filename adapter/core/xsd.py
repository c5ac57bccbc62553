"""XSDs as the mapping needs them: two validators from the same documents, and a plain tree of one element's content.

`xmlschema` reads the schema when the mapping is compiled (and gives explanations in tests); `lxml.etree.XMLSchema`
validates every message in microseconds. Both read only the documents they are given.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import xmlschema
from lxml import etree
from xmlschema.loaders import SchemaLoader
from xmlschema.validators import XsdAnyElement, XsdElement, XsdGroup

from adapter.core.errors import Stop


class Kind(StrEnum):
    TEXT = "text"
    BOOLEAN = "boolean"
    DATE_TIME = "dateTime"
    DATE = "date"
    INTEGER = "integer"
    ANYTHING = "anything"
    """Mixed or untyped content: read as text."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """An element's text content, and the constraints the XSD sets for it."""

    kind: Kind
    collapse: bool = False
    """White space is collapsed before anything else is looked at (XSD Part 2, section 4.3.6)."""

    shortest: int = 0
    longest: int | None = None
    """Characters, after white space."""

    lowest: int | None = None
    highest: int | None = None
    values: tuple[str, ...] = ()
    """The enumeration, if there is one."""

    not_blank: bool = False
    """The pattern `.*\\S.*`."""

    patterns: tuple[re.Pattern[str], ...] = ()
    """Other patterns, translated; all must match."""


@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """One element of a message."""

    name: str
    """Local name."""

    tag: str
    """Clark notation, as it is on the wire."""

    least: int
    most: int | None
    content: "Leaf | tuple[Element, ...]"

    @property
    def repeated(self) -> bool:
        return self.most is None or self.most > 1


@dataclass(frozen=True, slots=True, eq=False)
class Xsd:
    model: xmlschema.XMLSchema10
    judge: etree.XMLSchema
    prefixes: Mapping[str, str]
    """Namespace to the prefix its own schema documents use."""

    def element(self, tag: str) -> Element:
        """The tree of a global element. Raises Stop with everything in it that the mapping cannot carry."""
        found = self.model.maps.elements.get(tag)
        if found is None:
            raise Stop(f"{tag}: no such element in the XSDs")
        faults: list[str] = []
        element = _element(found, found.local_name, faults, depth=0)
        if faults:
            raise Stop(*faults)
        return element


def load_schema(texts: Mapping[str, bytes], roots: Sequence[str]) -> Xsd:
    """Both validators for the documents `roots`; `texts` has every document by its file name without folder.

    Includes and imports are found in `texts` by the last part of their location. For the documents of the call before
    the answer is the same object: several flows of a process start with the same ones. Raises Stop.
    """
    return _load(tuple(sorted(texts.items())), tuple(roots))


@lru_cache(maxsize=1)  # xmlschema takes a fifth of a second to read ours
def _load(documented: tuple[tuple[str, bytes], ...], roots: tuple[str, ...]) -> Xsd:
    texts = dict(documented)
    faults = [f"{name}: no such XSD" for name in roots if name not in texts]
    documents: dict[str, etree._Element] = {}
    for name, text in texts.items():
        try:
            documents[name] = etree.fromstring(text, _plain_parser())
        except etree.XMLSyntaxError as error:
            faults.append(f"{name}: {error.msg}")
    if faults:
        raise Stop(*faults)
    driver = _driver([(name, documents[name].get("targetNamespace", "")) for name in roots])
    try:
        parser = _plain_parser()
        parser.resolvers.add(_Texts(_quickened(texts, documents)))
        judge = etree.XMLSchema(etree.fromstring(driver, parser, base_url="xsd:/driver.xsd"))
        model = xmlschema.XMLSchema10(
            driver.decode(), allow="none", use_fallback=False, loader_class=_loader(texts), base_url="xsd:/"
        )
    except (etree.XMLSchemaParseError, xmlschema.XMLSchemaException, etree.XMLSyntaxError) as error:
        raise Stop(f"{', '.join(roots)}: {str(error)[:500]}") from error
    return Xsd(model=model, judge=judge, prefixes=_prefixes(documents.values()))


_XS: Final = "http://www.w3.org/2001/XMLSchema"


def _plain_parser() -> etree.XMLParser[etree._Element]:
    return etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)


def _driver(roots: Sequence[tuple[str, str]]) -> bytes:
    """A schema document without namespace that imports all the others."""
    lines = [
        f'<xs:import namespace="{namespace}" schemaLocation="{name}"/>'
        if namespace
        else f'<xs:include schemaLocation="{name}"/>'
        for name, namespace in roots
    ]
    return f'<xs:schema xmlns:xs="{_XS}">{"".join(lines)}</xs:schema>'.encode()


def _quickened(texts: Mapping[str, bytes], documents: Mapping[str, etree._Element]) -> Mapping[str, bytes]:
    r"""The same schemas, with a minimum length of 1 for collapsed text in place of the pattern `.*\S.*`: it demands the
    same, but libxml2 takes longer to match the pattern than for all the rest of a validation.
    """
    if any(_ZERO(document) for document in documents.values()):  # a derived type could not allow a length of 0 again
        return texts
    quickened = dict(texts)
    for name, document in documents.items():
        patterns: Any = _NOT_BLANK(document)
        for pattern in patterns:
            pattern.tag = f"{{{_XS}}}minLength"
            pattern.set("value", "1")
        if patterns:
            quickened[name] = etree.tostring(document)
    return quickened


_ZERO: Final = etree.XPath("//xs:length[@value = 0] | //xs:minLength[@value = 0]", namespaces={"xs": _XS})
_NOT_BLANK: Final = etree.XPath(
    f"//xs:restriction[namespace::*[. = '{_XS}' and concat(name(), ':string') = ../@base]]"
    "[xs:whiteSpace/@value = 'collapse'][not(xs:length | xs:minLength | xs:pattern[2])]"
    r"/xs:pattern[@value = '.*\S.*']",
    namespaces={"xs": _XS},
)


def _prefixes(documents: Collection[etree._Element]) -> dict[str, str]:
    found = {
        namespace: prefix
        for document in documents
        for prefix, namespace in document.nsmap.items()
        if prefix and namespace != _XS
    }
    for document in documents:
        namespace = document.get("targetNamespace")
        if namespace and namespace not in found:
            found[namespace] = f"ns{len(found) + 1}"
    return found


class _Texts(etree.Resolver):
    """Gives libxml2 the texts in memory; what is not among them is not looked for elsewhere."""

    def __init__(self, texts: Mapping[str, bytes]) -> None:
        super().__init__()
        self._texts = texts

    def resolve(self, system_url: str | None, public_id: str | None, context: Any) -> Any:  # noqa: ARG002 -- lxml's signature
        text = self._texts.get((system_url or "").rpartition("/")[2])
        return self.resolve_empty(context) if text is None else self.resolve_string(text, context, base_url=system_url)


def _loader(texts: Mapping[str, bytes]) -> type[SchemaLoader]:
    """The same as `_Texts` for xmlschema, which wants a class."""

    class Loader(SchemaLoader):
        def load_schema(
            self,
            source: Any,
            namespace: str | None = None,
            base_url: str | None = None,
            build: bool = False,  # noqa: FBT001, FBT002 -- xmlschema's signature
            partial: bool = False,  # noqa: FBT001, FBT002 -- xmlschema's signature
        ) -> Any:
            loaded: dict[tuple[str, str | None], Any] = self.__dict__.setdefault("loaded", {})
            name = str(source).rpartition("/")[2]
            if name not in texts:
                raise OSError(f"{name}: no such XSD")
            if (name, namespace) not in loaded:
                loaded[name, namespace] = super().load_schema(texts[name].decode(), namespace, base_url, build, partial)
            return loaded[name, namespace]

    return Loader


_DEEPEST: Final = 30


def _element(found: XsdElement, path: str, faults: list[str], *, depth: int) -> Element:
    least, most = found.min_occurs, found.max_occurs
    kind: Any = found.type  # a simple or a complex type; xmlschema's own types do not tell them apart
    content: Leaf | tuple[Element, ...] = ()
    if depth > _DEEPEST:
        faults.append(f"{path}: a type that contains itself cannot be mapped")
    elif kind.is_simple() or kind.has_simple_content():
        content = _leaf(kind, path, faults)
    elif kind.mixed:
        content = Leaf(Kind.ANYTHING, collapse=True)
    else:
        content = tuple(_children(kind.content, path, faults, least=1, depth=depth))
    for name, attribute in getattr(kind, "attributes", {}).items():
        if name is not None and attribute.use == "required":
            faults.append(f"{path}: the required attribute {name} cannot be mapped")
    return Element(name=found.local_name, tag=found.name, least=least, most=most, content=content)


def _children(group: XsdGroup, path: str, faults: list[str], *, least: int, depth: int) -> Iterator[Element]:
    """The elements of a sequence or `all` in their order; those of an optional group are optional."""
    if group.model == "choice" and len(group) > 1:
        faults.append(f"{path}: a choice cannot be mapped")
        return
    if group.max_occurs is None or group.max_occurs > 1:
        faults.append(f"{path}: a repeated group cannot be mapped")
        return
    least = min(least, group.min_occurs)
    for item in group:
        match item:
            case XsdGroup():
                yield from _children(item, path, faults, least=least, depth=depth)
            case XsdAnyElement() if item.min_occurs == 0:
                continue  # room for elements that nobody has declared, which the mapping leaves out
            case XsdElement():
                element = _element(item, f"{path}.{item.local_name}", faults, depth=depth + 1)
                yield (element if least else Element(element.name, element.tag, 0, element.most, element.content))
            case _:
                faults.append(f"{path}: a required wildcard cannot be mapped")


_KINDS: Final = {
    "string": Kind.TEXT,
    "boolean": Kind.BOOLEAN,
    "dateTime": Kind.DATE_TIME,
    "date": Kind.DATE,
    "anySimpleType": Kind.ANYTHING,
}


def _leaf(kind: Any, path: str, faults: list[str]) -> Leaf:
    simple = kind.content if kind.is_complex() else kind
    chain = list(_chain(simple))
    names = [step.local_name for step in chain]
    primitive = next((_KINDS[name] for name in names if name in _KINDS), None)
    if "integer" in names:
        primitive = Kind.INTEGER
    if primitive is None:
        faults.append(f"{path}: the type {names[0] or 'without name'} cannot be mapped")
        return Leaf(Kind.TEXT)
    patterns = [step.patterns for step in chain if step.patterns]
    blank = [pattern for pattern in patterns if [r.strip() for r in pattern.regexps] == [r".*\S.*"]]
    bounds = [step.facets for step in chain] if primitive is Kind.INTEGER else []
    return Leaf(
        kind=primitive,
        collapse=simple.white_space == "collapse" or primitive is not Kind.TEXT,
        shortest=simple.min_length or 0,
        longest=simple.max_length,
        lowest=max((facets[_MIN].value for facets in bounds if _MIN in facets), default=None),
        highest=min((facets[_MAX].value for facets in bounds if _MAX in facets), default=None),
        values=tuple(simple.enumeration or ()) if primitive is Kind.TEXT else (),
        not_blank=bool(blank),
        patterns=tuple(
            pattern.patterns[0] for pattern in patterns if pattern not in blank and len(pattern.patterns) == 1
        ),
    )


_MIN: Final = f"{{{_XS}}}minInclusive"
_MAX: Final = f"{{{_XS}}}maxInclusive"


def _chain(kind: Any) -> Iterator[Any]:
    """The type and all it is derived from."""
    while kind is not None:
        yield kind
        kind = kind.base_type
