"""Schemas that refer to others by the names of their types: to those a registry keeps as schemas of their own, or to
other branches of a union.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from adapter.core.avro.schema import SIZE_LIMIT, fullname


def inlined(text: str, referenced: Iterable[str]) -> str:
    """The schema with each type that one of `referenced` declares put where its name is used first. Of several types of
    one name the first counts. What can't be read is left out or as it is: it is for the parser to say what is wrong.
    """
    types = _Types()
    try:
        for other in referenced:
            if len(other) <= SIZE_LIMIT:
                types.learn(json.loads(other), "")
        return json.dumps(types.place(json.loads(text), ""))
    except (ValueError, RecursionError):
        return text


def branches(union: str) -> list[str]:
    """The schemas of a union's branches, each complete with the types it uses of others. `union` is a JSON array.
    Raises ValueError if it can't be read, or has more branches than a topic may reasonably have records.
    """
    types = _Types()
    try:
        parts = json.loads(union) if len(union) <= SIZE_LIMIT else []
        types.learn(parts, "")
        found = [json.dumps(types.afresh().place(part, "")) for part in parts[: _BRANCHES + 1]]
    except (ValueError, RecursionError):
        found = []
    if not 0 < len(found) <= _BRANCHES:
        raise ValueError(f"not a union of at most {_BRANCHES} schemas of reasonable size and depth")
    return found


_BRANCHES: Final = 30


class _Types:
    def __init__(self) -> None:
        self._declared: dict[str, Any] = {}
        self._placed: set[str] = set()

    def afresh(self) -> Self:
        """For another schema, in which none is declared yet."""
        self._placed.clear()
        return self

    def learn(self, source: Any, namespace: str) -> Any:
        """Keep every declaration in a schema, complete with its namespace."""
        if full := _declares(source, namespace):
            namespace, _, name = full.rpartition(".")
            self._declared.setdefault(full, source | {"name": name, "namespace": namespace})
        return _each_part(source, namespace, self.learn)

    def place(self, source: Any, namespace: str) -> Any:
        """The schema with declarations in place of names that were not declared before."""
        if isinstance(source, str):
            known = (full for full in (fullname(source, namespace), source) if full in self._declared)
            full = next(known, None)
            return source if full is None else self.place(self._declared[full], namespace)
        if full := _declares(source, namespace):
            if full in self._placed:
                return full
            self._placed.add(full)
            namespace = full.rpartition(".")[0]
        return _each_part(source, namespace, self.place)


def _declares(source: Any, namespace: str) -> str | None:
    """Full name of the type that is declared here, if any."""
    match {"namespace": namespace, **source} if isinstance(source, dict) else None:
        case {"type": "record" | "enum" | "fixed", "name": str(name), "namespace": str(space)}:
            return fullname(name, space)
        case _:
            return None


def _each_part(source: Any, namespace: str, act: Callable[[Any, str], Any]) -> Any:
    """The schema, or field, with what `act` makes of each schema directly in it."""
    match source:
        case list():
            return [act(branch, namespace) for branch in source]
        case dict():
            parts = {part: act(source[part], namespace) for part in ("type", "items", "values") if part in source}
            if isinstance(fields := source.get("fields"), list):
                parts["fields"] = [_each_part(field, namespace, act) for field in fields]
            return source | parts
        case _:
            return source
