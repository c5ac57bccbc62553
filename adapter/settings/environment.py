"""Reads the tree from environment variables, and reports every fault under the name of its variable."""

import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from adapter.core.errors import Stop
from adapter.core.wording import is_text
from adapter.settings.conflicts import conflicts, is_secret
from adapter.settings.paths import find, is_mapping, kind, section, variable
from adapter.settings.reference import bounds, describe
from adapter.settings.tree import PREFIX, Tree

_T = TypeVar("_T", bound=Tree)


def load(tree_type: type[_T], environ: Mapping[str, str] = os.environ) -> _T:
    """The settings of `tree_type` from the variables of `environ`. Raises Stop with a line for every fault.

    Of variables in sections that `tree_type` lacks, only the names are checked.
    """
    faults: list[tuple[str, str]] = []
    tree = {name: value for name, value in _texts(environ, faults).items() if name in tree_type.model_fields}
    for name, field in tree_type.model_fields.items():
        if section(field) is not None:
            tree.setdefault(name, {})
    try:
        settings = tree_type(**tree)
    except ValidationError as error:
        told = {name for name, _ in faults}
        found = [_fault(tuple(e["loc"]), e["type"], e["msg"]) for e in error.errors()]
        faults += [(name, text) for name, text in found if name not in told]
        _repair(tree, error)
        settings = tree_type(**tree)
    told = {name for name, _ in faults}
    faults += [(name, text) for name, text in conflicts(settings) if name not in told]
    if faults:
        raise Stop(*(f"{name}: {text}" for name, text in sorted(set(faults))))  # each item of a list may have the same
    return settings


def _texts(environ: Mapping[str, str], faults: list[tuple[str, str]]) -> dict[str, Any]:
    """The tree with the values as texts. Faulty variables are left out and added to `faults`, as (variable, text)."""
    tree: dict[str, Any] = {}
    # Sorted, so that ADAPTER_KAFKA__PROPERTIES comes before the variables of single properties, which override it.
    for name in sorted(n for n in environ if n.startswith(PREFIX)):
        value = environ[name].strip()  # a Secret's value often ends with a line end
        found = _place(name)
        if found is None:
            if not _is_service_link(name, value):
                faults.append((name, _unknown(name)))
            continue
        path, key, field = found
        if value == "":
            continue
        if flaw := _flaw(value, field):
            faults.append((name, flaw))
            continue
        branch = tree
        for segment in path[:-1]:
            branch = branch.setdefault(segment, {})
        if not is_mapping(field):
            branch[path[-1]] = value
        elif key is not None:
            branch.setdefault(path[-1], {})[key] = value
        else:
            try:
                branch[path[-1]] = _json_object(value, dotted=path[0] == "kafka")
            except (ValueError, RecursionError):
                faults.append((name, f"is not a JSON object; write for example {kind(field).example}"))
    return tree


def _place(name: str) -> tuple[tuple[str, ...], str | None, FieldInfo] | None:
    """Path of the setting, key of the one entry where it is a mapping, and its field."""
    segments = name.removeprefix(PREFIX).split("__")
    path = tuple(segment.lower() for segment in segments)
    field, depth = find(path)
    if field is None or any(segment != segment.upper() for segment in segments[:depth]):
        return None
    rest = segments[depth:]
    if not rest:
        return path, None, field
    if is_mapping(field):
        return path[:depth], _key("__".join(rest), dotted=path[0] == "kafka"), field
    return None


def _flaw(value: str, field: FieldInfo) -> str | None:
    """What is wrong with a value, whatever the type of its setting; None if nothing is."""
    if value[0] in "\"'" and value[-1] == value[0]:
        return "is in quotes, which would be part of it; write it without them"
    if not is_text(value) and kind(field).name not in _OF_ANY_BYTES:
        return "is not UTF-8 text"
    return None


_OF_ANY_BYTES = frozenset({"file", "folder", "path"})
"""Kinds that are paths, which may be any bytes."""


# Kubernetes sets such variables in every container, for each Service of the namespace; one may be called "adapter".
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?$")


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and "://" in value)


# The only text property of librdkafka whose name has an underscore.
_UNDERSCORED = frozenset({"log_level"})


def _key(name: str, *, dotted: bool) -> str:
    """A librdkafka property as given, or its name with _ for the dots that shells do not allow in variables."""
    if not dotted:
        return name
    return name.lower() if name.lower() in _UNDERSCORED else name.lower().replace("_", ".")


def _json_object(text: str, *, dotted: bool) -> dict[str, str]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 -- the caller tells one kind of fault
    return {
        _key(key, dotted=dotted): item if isinstance(item, str) else json.dumps(item) for key, item in value.items()
    }


_OF_KAFKA = re.compile(r"KAFKA__?((?:SECURITY|SASL|SSL)_\w+)", re.IGNORECASE)
"""A property of librdkafka that is written as if it were a setting of ours."""


def _unknown(name: str) -> str:
    rows = describe()
    sections = sorted(row.variable for row in rows if row.variable.startswith(name + "__"))
    if sections:
        return f"is a section, not a setting; its settings begin with {sections[0]}"
    meant = _meant(name.removeprefix(PREFIX), {row.variable.removeprefix(PREFIX): row.type for row in rows})
    return f"is not a setting; did you mean {PREFIX}{meant}?" if meant else "is not a setting; see `adapter settings`"


def _meant(place: str, known: Mapping[str, str]) -> str | None:
    """The setting that may be meant; `known` has all, with their types."""
    if found := _OF_KAFKA.fullmatch(place):
        files = "_FILES" if is_secret(_key(found[1], dotted=True)) else ""
        return f"KAFKA__PROPERTIES{files}__{found[1].upper()}"
    *head, entry = place.split("__", 2)
    mappings = [name for name, kind_ in known.items() if kind_ == "JSON object"]
    if len(head) > 1 and (near := get_close_matches("__".join(head).upper(), mappings, n=1, cutoff=0.9)):
        return f"{near[0]}__{entry}"
    return next(iter(get_close_matches(place.upper(), known, n=1, cutoff=0.6)), None)


def _fault(location: tuple[str | int, ...], fault: str, message: str) -> tuple[str, str]:
    """One fault that pydantic found, as (variable, what is wrong and what to write)."""
    path = tuple(str(part) for part in location)
    field, depth = find(path)
    name = variable(path[:depth])
    if field is None:
        return name, message
    if is_mapping(field):
        name += "".join(f"__{part}" for part in path[depth:])
    example = (field.examples or [kind(field).example])[0]
    if fault == "missing":
        return name, f"is missing: {(field.description or '').rstrip('.')}; write for example {example}"
    if fault in {"greater_than_equal", "less_than_equal"} and (limits := bounds(field)) is not None:
        return name, f"must be between {limits}"
    if fault in {"string_pattern_mismatch", "int_parsing", "float_parsing", "bool_parsing", "zoneinfo_str"}:
        message = f"is not a {kind(field).name}".replace("is not a true or false", "is neither true nor false")
    message = message.removeprefix("Value error, ").replace("Input should", "should")
    return name, f"{message}; write for example {example}"


def _repair(tree: dict[str, Any], error: ValidationError) -> None:
    """Replace faulty values by their default or example, so that the rules between settings can be checked as well."""
    for entry in error.errors():
        location = tuple(str(part) for part in entry["loc"])
        field, depth = find(location)
        path = location[:depth]
        branch = tree
        for segment in path[:-1]:
            branch = branch.setdefault(segment, {})
        branch.pop(path[-1], None)
        if field is None:
            continue
        if field.is_required():
            branch[path[-1]] = (field.examples or [""])[0]
        elif field.default is None and kind(field).name not in _OF_ANY_BYTES:  # else it would also count as missing
            branch[path[-1]] = kind(field).example
